//! The records of a session's log after its header.

use std::path::Path;

use prost::Message;

use crate::{
    Error,
    wire::{Batch, InferResponse},
};

/// A record of a session's log.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The user is about to send this batch.
    Sent(Batch),
    /// The contributor is about to answer this batch.
    Served {
        /// Digest of the answer.
        answer: [u8; 32],
        /// The batch.
        batch: Batch,
    },
    /// The user received this answer.
    Answered(InferResponse),
    /// The contributor refused the last batch, and did not count it.
    Withdrawn,
    /// The session takes no more batches.
    Ended,
}

const SENT: u8 = 1;
const SERVED: u8 = 2;
const ANSWERED: u8 = 3;
const ENDED: u8 = 4;
const WITHDRAWN: u8 = 5;

impl Event {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let with = |tag: u8, before: &[u8], message: &dyn Fn(&mut Vec<u8>), length: usize| {
            let mut bytes = Vec::with_capacity(1 + before.len() + length);
            bytes.push(tag);
            bytes.extend(before);
            message(&mut bytes);
            bytes
        };
        // A `Vec` has room for every message.
        match self {
            Event::Sent(batch) => {
                with(SENT, &[], &|out| batch.encode_raw(out), batch.encoded_len())
            }
            Event::Served { answer, batch } => {
                with(SERVED, answer, &|out| batch.encode_raw(out), batch.encoded_len())
            }
            Event::Answered(answer) => {
                with(ANSWERED, &[], &|out| answer.encode_raw(out), answer.encoded_len())
            }
            Event::Withdrawn => vec![WITHDRAWN],
            Event::Ended => vec![ENDED],
        }
    }

    /// Length of the payload, in bytes.
    pub(crate) fn encoded_len(&self) -> usize {
        1 + match self {
            Event::Sent(batch) => batch.encoded_len(),
            Event::Served { answer, batch } => answer.len() + batch.encoded_len(),
            Event::Answered(answer) => answer.encoded_len(),
            Event::Withdrawn | Event::Ended => 0,
        }
    }

    /// Where in the file the deltas of each call begin, if the answer's payload begins at
    /// `payload`.
    pub(crate) fn delta_positions(answer: &InferResponse, payload: u64) -> Vec<u64> {
        answer.delta_offsets().map(|offset| payload + 1 + offset as u64).collect()
    }

    pub(super) fn parse(path: &Path, payload: &[u8]) -> Result<Event, Error> {
        let refuse =
            |why: String| Error::file(path, format!("a record of the log is malformed: {why}"));
        let (tag, rest) = payload.split_first().ok_or_else(|| refuse("it is empty".into()))?;
        let decoded = |e: prost::DecodeError| refuse(e.to_string());
        match *tag {
            SENT => Ok(Event::Sent(Batch::decode(rest).map_err(decoded)?)),
            SERVED => {
                let (answer, batch) =
                    rest.split_first_chunk().ok_or_else(|| refuse("it ends early".into()))?;
                Ok(Event::Served { answer: *answer, batch: Batch::decode(batch).map_err(decoded)? })
            }
            ANSWERED => Ok(Event::Answered(InferResponse::decode(rest).map_err(decoded)?)),
            WITHDRAWN if rest.is_empty() => Ok(Event::Withdrawn),
            ENDED if rest.is_empty() => Ok(Event::Ended),
            other => Err(refuse(format!("its kind is {other}"))),
        }
    }

    /// The batch of a contributor's event; none if the event ends the session. `ended` is the state
    /// after the events before this one.
    ///
    /// # Errors
    /// [`Error::Artifact`]: a contributor's log has no such event here.
    pub(crate) fn into_served_batch(
        self,
        path: &Path,
        ended: &mut bool,
    ) -> Result<Option<Batch>, Error> {
        match self {
            Event::Served { batch, .. } if !*ended => Ok(Some(batch)),
            Event::Ended if !*ended => {
                *ended = true;
                Ok(None)
            }
            _ => Err(Error::file(path, "its events are not those of a contributor's session")),
        }
    }
}
