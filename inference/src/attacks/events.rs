//! What a transcript absorbs and draws, in order.

use std::cell::RefCell;

use zklora_proof::field::F;

/// One step of a transcript.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Absorbed(String),
    Drawn(String, F),
}

thread_local! {
    static EVENTS: RefCell<Option<Vec<Event>>> = const { RefCell::new(None) };
}

pub fn absorbed(label: &str) {
    push(Event::Absorbed(label.into()));
}

pub fn drawn(label: &str, value: F) {
    push(Event::Drawn(label.into(), value));
}

fn push(event: Event) {
    EVENTS.with_borrow_mut(|events| events.iter_mut().for_each(|list| list.push(event.clone())));
}

/// The steps of some work on this thread.
pub fn record<T>(work: impl FnOnce() -> T) -> (T, Vec<Event>) {
    EVENTS.set(Some(vec![]));
    let result = work();
    (result, EVENTS.take().unwrap())
}
