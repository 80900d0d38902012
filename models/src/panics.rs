//! Catches the panics of tract on damaged files, without a message on stderr.
//!
//! A process has one panic hook. [`catch`] replaces it once by a hook that is silent while the
//! panicking thread is inside `catch` and calls the previous hook otherwise. Panics outside `catch`
//! are reported as before.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook},
    sync::Once,
};

thread_local! {
    static SILENT: Cell<bool> = const { Cell::new(false) };
}

/// Returns what `work` returns, or none if it panics. The panic is not reported.
pub fn catch<T>(work: impl FnOnce() -> T) -> Option<T> {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        let previous = take_hook();
        set_hook(Box::new(move |info| {
            // A thread whose locals are already dropped is not inside `catch`.
            if !SILENT.try_with(Cell::get).unwrap_or(false) {
                previous(info);
            }
        }));
    });
    let outer = SILENT.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    SILENT.set(outer);
    result.ok()
}

/// Runs `work` inside [`catch`] with its panics reported: for callbacks, whose panics are bugs and
/// not damaged files.
pub(crate) fn reported<T>(work: impl FnOnce() -> T) -> T {
    let outer = SILENT.replace(false);
    let result = work();
    SILENT.set(outer);
    result
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn panics_are_caught_and_later_ones_are_reported_again() {
        assert_eq!(catch(|| 1), Some(1));
        assert_eq!(catch(|| -> u8 { panic!("hidden") }), None);
        assert!(!SILENT.get());
        assert_eq!(
            catch(|| catch(|| -> u8 { panic!("hidden") }).is_none() && SILENT.get()),
            Some(true)
        );
    }
}
