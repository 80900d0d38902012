//! Work in a thread of its own, while Python waits without its lock and looks for Ctrl-C.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, sync_channel},
    },
    time::Duration,
};

use pyo3::prelude::*;

use crate::{error::Failure, logging, process};

/// How often a waiting call looks for signals and log records.
const LOOK: Duration = Duration::from_millis(50);

/// Steps that wait for a slow listener: of more, the oldest are forgotten. Work may tell them
/// faster than `progress` takes them.
const MOST_WAITING: usize = 16;

/// How far some work is: its stage, and how many stages of how many are done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub stage: String,
    pub done: usize,
    pub total: usize,
}

/// Tells the waiting call how far the work is.
#[derive(Clone, Default)]
pub struct Reporter(Arc<Mutex<VecDeque<Step>>>);

impl Reporter {
    pub fn step(&self, stage: impl Into<String>, done: usize, total: usize) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() == MOST_WAITING {
            waiting.pop_front();
        }
        waiting.push_back(Step { stage: stage.into(), done, total });
    }

    fn take(&self) -> VecDeque<Step> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Work that is being done. Whoever drops this leaves it alone: it goes on to its end.
pub struct Work<T> {
    result: Receiver<Result<T, Failure>>,
    steps: Reporter,
}

/// Starts work.
///
/// # Errors
/// [`Failure::Forked`] in a forked child.
pub fn start<T: Send + 'static>(
    work: impl FnOnce(&Reporter) -> Result<T, Failure> + Send + 'static,
) -> Result<Work<T>, Failure> {
    process::check_process()?;
    let (sender, result) = sync_channel(1);
    let steps = Reporter::default();
    let reporter = steps.clone();
    let thread = std::thread::Builder::new().name("zklora".into()).spawn(move || {
        // Whoever waited may have been interrupted.
        let _ = sender.send(work(&reporter));
    });
    thread.map_err(|e| Failure::Input(format!("a thread cannot be started: {e}")))?;
    Ok(Work { result, steps })
}

impl<T: Send> Work<T> {
    /// Waits for the result; `progress` is called with stage, done and total.
    ///
    /// # Errors
    /// What the work failed with; or an exception of a signal handler or of `progress`: then the
    /// work goes on without anybody waiting.
    pub fn wait(self, py: Python<'_>, progress: Option<&Py<PyAny>>) -> Result<T, Failure> {
        let Work { result: mut receiver, steps } = self;
        loop {
            let (back, result) = py.detach(move || {
                let result = receiver.recv_timeout(LOOK);
                (receiver, result)
            });
            receiver = back;
            py.check_signals()?;
            logging::forward(py)?;
            for Step { stage, done, total } in steps.take() {
                if let Some(progress) = progress {
                    progress.call1(py, (stage, done, total))?;
                }
            }
            match result {
                Ok(result) => return result,
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
    work: impl FnOnce(&Reporter) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    start(work)?.wait(py, progress)
}
