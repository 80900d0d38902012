//! Panics of tract on damaged files become values, without a word on stderr.
//!
//! The process has one panic hook. It is replaced once by one that says nothing while this thread
//! is inside [`catch`] and otherwise does what the hook before it did, so panics anywhere else look
//! as they always do.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook},
    sync::Once,
};

thread_local! {
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// What `work` returns, or none if it panics.
pub fn catch<T>(work: impl FnOnce() -> T) -> Option<T> {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        let previous = take_hook();
        set_hook(Box::new(move |info| {
            // A thread whose locals are gone already is not inside `catch`.
            if !CAUGHT.try_with(Cell::get).unwrap_or(false) {
                previous(info);
            }
        }));
    });
    let outer = CAUGHT.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    CAUGHT.set(outer);
    result.ok()
}

/// Runs `work`, which is not tract's, inside [`catch`]: its panics are caught too, but not in
/// silence.
pub(crate) fn reported<T>(work: impl FnOnce() -> T) -> T {
    let outer = CAUGHT.replace(false);
    let result = work();
    CAUGHT.set(outer);
    result
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn panics_are_caught_and_the_thread_speaks_again_afterwards() {
        assert_eq!(catch(|| 1), Some(1));
        assert_eq!(catch(|| -> u8 { panic!("hidden") }), None);
        assert!(!CAUGHT.get());
        assert_eq!(
            catch(|| catch(|| -> u8 { panic!("hidden") }).is_none() && CAUGHT.get()),
            Some(true)
        );
    }
}
