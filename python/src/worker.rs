//! Runs work in its own thread, while Python waits without its lock and checks for Ctrl-C.

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

/// How often a waiting call checks for signals and log records.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// Limit for the number of waiting steps; the oldest are dropped. Work may report steps faster than
/// `progress` handles them.
const MAX_WAITING: usize = 16;

/// The progress of work: its stage, and the numbers of finished and of all stages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub stage: String,
    pub done: usize,
    pub total: usize,
}

/// Reports progress to the waiting call.
#[derive(Clone, Default)]
pub struct Reporter(Arc<Mutex<VecDeque<Step>>>);

impl Reporter {
    pub fn step(&self, stage: impl Into<String>, done: usize, total: usize) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() == MAX_WAITING {
            waiting.pop_front();
        }
        waiting.push_back(Step { stage: stage.into(), done, total });
    }

    fn take(&self) -> VecDeque<Step> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Running work. Dropping this does not stop the work.
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
        // Fails if the waiting call was interrupted.
        let _ = sender.send(work(&reporter));
    });
    thread.map_err(|e| Failure::Input(format!("cannot start a thread: {e}")))?;
    Ok(Work { result, steps })
}

impl<T: Send> Work<T> {
    /// Waits for the result; `progress` is called with stage, done and total.
    ///
    /// # Errors
    /// The work's error; or an exception of a signal handler or of `progress`: then the work
    /// continues, and its result is dropped.
    pub fn wait(self, py: Python<'_>, progress: Option<&Py<PyAny>>) -> Result<T, Failure> {
        let Work { result: mut receiver, steps } = self;
        loop {
            let (back, result) = py.detach(move || {
                let result = receiver.recv_timeout(CHECK_INTERVAL);
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
