//! Work in a thread of its own, while Python waits without its lock and looks for Ctrl-C.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    time::Duration,
};

use pyo3::prelude::*;

use crate::{error::Failure, logging, process};

/// How often a waiting call looks for signals and log records.
const LOOK: Duration = Duration::from_millis(50);

enum Message<T> {
    Progress(Step),
    Done(Result<T, Failure>),
}

/// How far some work is: its stage, and how many stages of how many are done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub stage: String,
    pub done: usize,
    pub total: usize,
}

/// Tells the waiting call how far the work is.
pub struct Reporter<T>(Sender<Message<T>>);

impl<T> Reporter<T> {
    pub fn step(&self, stage: impl Into<String>, done: usize, total: usize) {
        // Whoever waited may have been interrupted.
        let _ = self.0.send(Message::Progress(Step { stage: stage.into(), done, total }));
    }
}

/// Work that is being done. Whoever drops this leaves it alone: it goes on to its end.
pub struct Work<T>(Receiver<Message<T>>);

/// Starts work.
///
/// # Errors
/// [`Failure::Forked`] in a forked child.
pub fn start<T: Send + 'static>(
    work: impl FnOnce(&Reporter<T>) -> Result<T, Failure> + Send + 'static,
) -> Result<Work<T>, Failure> {
    process::check_process()?;
    let (sender, receiver) = channel();
    let thread = std::thread::Builder::new().name("zklora".into()).spawn(move || {
        let reporter = Reporter(sender);
        let result = work(&reporter);
        let _ = reporter.0.send(Message::Done(result));
    });
    thread.map_err(|e| Failure::Input(format!("a thread cannot be started: {e}")))?;
    Ok(Work(receiver))
}

impl<T: Send> Work<T> {
    /// Waits for the result; `progress` is called with stage, done and total.
    ///
    /// # Errors
    /// What the work failed with; or an exception of a signal handler or of `progress`: then the work goes on without anybody waiting.
    pub fn wait(self, py: Python<'_>, progress: Option<&Py<PyAny>>) -> Result<T, Failure> {
        let mut receiver = self.0;
        loop {
            let (back, message) = py.detach(move || {
                let message = receiver.recv_timeout(LOOK);
                (receiver, message)
            });
            receiver = back;
            py.check_signals()?;
            logging::forward(py)?;
            match message {
                Ok(Message::Progress(Step { stage, done, total })) => {
                    if let Some(progress) = progress {
                        progress.call1(py, (stage, done, total))?;
                    }
                }
                Ok(Message::Done(result)) => return result,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Failure::Lost),
            }
        }
    }
}

/// Starts work and waits for it.
pub fn run<T: Send + 'static>(
    py: Python<'_>,
    progress: Option<&Py<PyAny>>,
    work: impl FnOnce(&Reporter<T>) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    start(work)?.wait(py, progress)
}
