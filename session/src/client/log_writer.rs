//! The thread that writes the user's log, so that the next layer is computed before an answer is on
//! disk.
//!
//! Events are written in order. An event that the disk did not take stays first in the queue, and
//! the next [`LogWriter::append`] returns the error.

use std::{
    collections::VecDeque,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::JoinHandle,
};

use crate::{
    Error, frame_log,
    session_log::{Event, SessionLog},
};

/// Events that may wait for the thread, with their answers in memory.
const MAX_QUEUED: usize = 4;

enum Command {
    /// Write it at some time.
    WriteLater(Event),
    /// Write it before the reply.
    Write(Event, SyncSender<Result<(), Error>>),
    /// Write all earlier events before the reply.
    Flush(SyncSender<Result<(), Error>>),
    /// Sync all earlier events before the reply.
    Sync(SyncSender<Result<(), Error>>),
}

/// A log with its thread. Dropping it waits until everything is written.
pub(super) struct LogWriter {
    /// None only while this is dropped.
    commands: Option<SyncSender<Command>>,
    thread: Option<JoinHandle<()>>,
    /// Where the next record will begin. Events are written in order, and no other process
    /// appends.
    end: u64,
}

impl LogWriter {
    /// Starts the thread.
    pub fn start(log: SessionLog) -> Result<LogWriter, Error> {
        let (path, end) = (log.path(), log.end());
        let (commands, incoming) = sync_channel(MAX_QUEUED);
        let thread =
            std::thread::Builder::new().name("log".into()).spawn(move || work(log, &incoming));
        Ok(LogWriter {
            commands: Some(commands),
            thread: Some(thread.map_err(|e| {
                Error::System(format!(
                    "{}: cannot start the thread that writes it: {e}",
                    path.display()
                ))
            })?),
            end,
        })
    }

    /// Queues an event and returns the offset of its payload. The next call returns an error if it
    /// could not be written.
    pub fn append_later(&mut self, event: Event) -> u64 {
        let offset = self.advance(&event);
        // If the thread has ended, the next call says so.
        let _ = self.commands.as_ref().map(|commands| commands.send(Command::WriteLater(event)));
        offset
    }

    /// Appends an event. When this returns, it and all before it survive the death of the process.
    ///
    /// # Errors
    /// [`Error::Artifact`]: the event is not in the log.
    pub fn append(&mut self, event: Event) -> Result<(), Error> {
        let before = self.end;
        self.advance(&event);
        self.wait(|reply| Command::Write(event, reply)).inspect_err(|_| self.end = before)
    }

    /// The offset of the payload of this event, which is the next record.
    fn advance(&mut self, event: &Event) -> u64 {
        let offset = self.end + frame_log::FRAME as u64;
        self.end = offset + event.encoded_len() as u64;
        offset
    }

    /// Waits until everything can be read from the file.
    ///
    /// # Errors
    /// [`Error::Artifact`]: the disk does not take them.
    pub fn flush(&self) -> Result<(), Error> {
        self.wait(Command::Flush)
    }

    /// Waits until everything is synced to the disk.
    ///
    /// # Errors
    /// [`Error::Artifact`]: the disk does not take them.
    pub fn sync(&self) -> Result<(), Error> {
        self.wait(Command::Sync)
    }

    fn wait(
        &self,
        command: impl FnOnce(SyncSender<Result<(), Error>>) -> Command,
    ) -> Result<(), Error> {
        let gone = || Error::Internal("the thread that writes the session's log has ended".into());
        let (reply, replied) = sync_channel(1);
        self.commands.as_ref().ok_or_else(gone)?.send(command(reply)).map_err(|_| gone())?;
        replied.recv().unwrap_or_else(|_| Err(gone()))
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        drop(self.commands.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn work(mut log: SessionLog, commands: &Receiver<Command>) {
    let mut queued = VecDeque::new();
    for command in commands {
        // The receiver of a reply may be gone.
        match command {
            Command::WriteLater(event) => {
                queued.push_back(event);
                let _ = write(&mut log, &mut queued);
            }
            Command::Write(event, reply) => {
                let _ = reply.send(write(&mut log, &mut queued).and_then(|()| log.append(&event)));
            }
            Command::Flush(reply) => {
                let _ = reply.send(write(&mut log, &mut queued));
            }
            Command::Sync(reply) => {
                let _ = reply.send(write(&mut log, &mut queued).and_then(|()| log.sync()));
            }
        }
    }
    let _ = write(&mut log, &mut queued);
}

fn write(log: &mut SessionLog, queued: &mut VecDeque<Event>) -> Result<(), Error> {
    while let Some(event) = queued.front() {
        log.append(event)?;
        queued.pop_front();
    }
    Ok(())
}
