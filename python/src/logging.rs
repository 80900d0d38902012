//! Passes the runtime's log records to Python's `logging`: they wait in a queue for the next Python
//! thread that calls the module.
//!
//! No thread of the runtime calls Python, so none can hang when the interpreter ends.

use std::{
    collections::VecDeque,
    fmt::Write,
    sync::{Mutex, PoisonError},
};

use pyo3::prelude::*;
use tracing::{
    Level, Metadata, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context, prelude::*};
use zklora_files::text::shown;

/// Limit for the number of waiting records; the oldest are dropped.
const WAITING: usize = 1000;

/// Python's level, and the text.
type Record = (u32, String);

static QUEUE: Mutex<VecDeque<Record>> = Mutex::new(VecDeque::new());

struct Queue;

impl<S: Subscriber> Layer<S> for Queue {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        let from_zklora = metadata.target().starts_with("zklora");
        metadata.level() <= if from_zklora { &Level::INFO } else { &Level::WARN }
    }

    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let level = match *event.metadata().level() {
            Level::ERROR => 40,
            Level::WARN => 30,
            _ => 20,
        };
        let mut text = Text::default();
        event.record(&mut text);
        let mut queue = QUEUE.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.len() == WAITING {
            queue.pop_front();
        }
        // The record may quote files and peers: escaped, it is one line.
        queue.push_back((level, shown(format_args!("{}{}", text.message, text.fields))));
    }
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a `String` does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

/// Sends log records to the queue, unless this process already has a subscriber.
pub fn install() {
    let _ = tracing_subscriber::registry().with(Queue).try_init();
}

/// Passes waiting records to `logging.getLogger("zklora")`.
pub fn forward(py: Python<'_>) -> PyResult<()> {
    let waiting: Vec<Record> =
        QUEUE.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect();
    if waiting.is_empty() {
        return Ok(());
    }
    let logger = py.import("logging")?.call_method1("getLogger", ("zklora",))?;
    for (level, text) in waiting {
        logger.call_method1("log", (level, "%s", text))?;
    }
    Ok(())
}

/// Passes waiting records to `logging`, from a thread that otherwise waits in Python.
#[pyfunction]
pub fn drain_log(py: Python<'_>) -> PyResult<()> {
    if crate::process::is_forked() { Ok(()) } else { forward(py) }
}
