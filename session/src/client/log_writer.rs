//! The user's log, written by a thread of its own: an answer need not be on disk before the next
//! layer is computed.
//!
//! Events get to the file in the order in which they were given. One that the disk did not take
//! stays first in line, and the next [`LogWriter::append`] says so.

use std::{
    collections::VecDeque,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::JoinHandle,
};

use crate::{
    Error, frame_log,
    session_log::{Event, SessionLog},
};

/// Events that may wait: their answers are in memory.
const WAITING: usize = 4;

enum Order {
    /// Written some time.
    Later(Event),
    /// Written before the reply.
    Now(Event, SyncSender<Result<(), Error>>),
    /// All before it written before the reply.
    Flush(SyncSender<Result<(), Error>>),
    /// All on the disk before the reply.
    Sync(SyncSender<Result<(), Error>>),
}

/// A log with its thread. Dropping it waits until everything is written.
pub(super) struct LogWriter {
    /// None only while it is dropped.
    orders: Option<SyncSender<Order>>,
    thread: Option<JoinHandle<()>>,
    /// Where the next record will begin: events get to the file in the order in which they were
    /// given, and nobody else appends.
    end: u64,
}

impl LogWriter {
    /// Starts the thread.
    pub fn start(log: SessionLog) -> Result<LogWriter, Error> {
        let (path, end) = (log.path(), log.end());
        let (orders, incoming) = sync_channel(WAITING);
        let thread =
            std::thread::Builder::new().name("log".into()).spawn(move || work(log, &incoming));
        Ok(LogWriter {
            orders: Some(orders),
            thread: Some(thread.map_err(|e| Error::file(&path, e))?),
            end,
        })
    }

    /// Has an event written after those before it, and does not wait; says where its payload will
    /// be. Whether it worked, the next call says.
    pub fn append_later(&mut self, event: Event) -> u64 {
        let place = self.advance(&event);
        // The thread is gone: the next call says so.
        let _ = self.orders.as_ref().map(|orders| orders.send(Order::Later(event)));
        place
    }

    /// Appends an event; it and all before it survive the death of the process when this returns.
    ///
    /// # Errors
    /// [`Error::File`]: the event is not in the log.
    pub fn append(&mut self, event: Event) -> Result<(), Error> {
        let before = self.end;
        self.advance(&event);
        self.wait(|reply| Order::Now(event, reply)).inspect_err(|_| self.end = before)
    }

    /// The place of the payload of the next record, which this event is.
    fn advance(&mut self, event: &Event) -> u64 {
        let place = self.end + frame_log::FRAME as u64;
        self.end = place + event.encoded_len() as u64;
        place
    }

    /// Waits until everything can be read from the file.
    ///
    /// # Errors
    /// [`Error::File`]: the disk does not take it.
    pub fn flush(&self) -> Result<(), Error> {
        self.wait(Order::Flush)
    }

    /// Waits until everything is on the disk.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn sync(&self) -> Result<(), Error> {
        self.wait(Order::Sync)
    }

    fn wait(
        &self,
        order: impl FnOnce(SyncSender<Result<(), Error>>) -> Order,
    ) -> Result<(), Error> {
        let gone = || Error::Internal("the thread that writes the session's log has ended".into());
        let (reply, replied) = sync_channel(1);
        self.orders.as_ref().ok_or_else(gone)?.send(order(reply)).map_err(|_| gone())?;
        replied.recv().unwrap_or_else(|_| Err(gone()))
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn work(mut log: SessionLog, orders: &Receiver<Order>) {
    let mut waiting = VecDeque::new();
    for order in orders {
        // Whoever asked may be gone: then nobody needs to know.
        match order {
            Order::Later(event) => {
                waiting.push_back(event);
                let _ = write(&mut log, &mut waiting);
            }
            Order::Now(event, reply) => {
                let _ = reply.send(write(&mut log, &mut waiting).and_then(|()| log.append(&event)));
            }
            Order::Flush(reply) => {
                let _ = reply.send(write(&mut log, &mut waiting));
            }
            Order::Sync(reply) => {
                let _ = reply.send(write(&mut log, &mut waiting).and_then(|()| log.sync()));
            }
        }
    }
    let _ = write(&mut log, &mut waiting);
}

fn write(log: &mut SessionLog, waiting: &mut VecDeque<Event>) -> Result<(), Error> {
    while let Some(event) = waiting.front() {
        log.append(event)?;
        waiting.pop_front();
    }
    Ok(())
}
