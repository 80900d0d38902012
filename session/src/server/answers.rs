//! Bodies of answers that are counted as long as they take memory.
//!
//! HTTP/2 lets a user open a window of one byte and never read: hyper gives an answer to h2 as soon
//! as there is room for one byte of it, and then forgets its body, while h2 keeps every byte. A
//! count that ends with the body would end too early. So each piece of an answer carries its count
//! with it: the piece is dropped when it was sent, or when its stream or connection has ended.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body::{Body as _, Frame};
use tonic::{Status, body::Body};

use super::{
    connections::Connection,
    held::{Held, Hold, Room},
};

/// Bytes before a gRPC message: a flag and its length.
pub(super) const PREFIX: usize = 5;

/// Whoever reads more slowly than this is not waited for, in bytes a second.
const SLOWEST: usize = 64 << 10;

/// The part that answers of one kind share, so that it is in memory once however many are held; an
/// extension of the response.
#[derive(Clone)]
pub(super) struct Common(pub Bytes);

/// The body of an answer.
pub(super) struct Answer {
    pub body: Body,
    pub held: Arc<Held>,
    /// Whose share it counts against; empty: nobody's in particular.
    pub client: String,
    /// What was set aside for it.
    pub room: Option<Room>,
    pub common: Option<Common>,
    pub connection: Option<Connection>,
    /// How long it may lie unread, beyond the time that its length takes.
    pub idle: Duration,
    /// Pieces that are next, and the trailers after them.
    pub next: VecDeque<Bytes>,
    pub trailers: Option<http::HeaderMap>,
    /// The count of the last piece: the encoder keeps its buffer until the next one.
    pub kept: Option<Arc<Hold>>,
    /// It was refused in the middle, or is at its end.
    pub over: bool,
}

/// A piece of an answer.
struct Unread {
    bytes: Bytes,
    _hold: Option<Arc<Hold>>,
    due: Option<(Connection, (Instant, u64))>,
}

impl AsRef<[u8]> for Unread {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        if let Some((connection, due)) = &self.due {
            connection.was_read(*due);
        }
    }
}

impl Answer {
    fn piece(&self, bytes: Bytes, hold: Option<Arc<Hold>>) -> Bytes {
        let time = self.idle + Duration::from_secs((bytes.len() / SLOWEST) as u64);
        let due = self
            .connection
            .as_ref()
            .map(|connection| (connection.clone(), connection.is_due(time)));
        Bytes::from_owner(Unread { bytes, _hold: hold, due })
    }

    /// Counts a piece, if it may be held.
    fn hold(&mut self, mut bytes: Bytes, cx: &mut Context<'_>) -> Result<Bytes, Status> {
        if let Some(Common(common)) = self.common.take()
            && bytes.get(PREFIX..).is_some_and(|message| message.starts_with(&common))
        {
            let rest = Bytes::copy_from_slice(&bytes[PREFIX + common.len()..]);
            self.next.push_back(common);
            if !rest.is_empty() {
                self.next.push_back(rest);
            }
            // A copy: what is left of the whole answer would keep all of it. So would its body:
            // only trailers follow.
            bytes = Bytes::copy_from_slice(&bytes[..PREFIX]);
            if let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut self.body).poll_frame(cx)
                && let Ok(trailers) = frame.into_trailers()
            {
                self.trailers = Some(trailers);
                self.body = Body::empty();
            }
        }
        let hold = match self.room.as_ref().and_then(|room| room.take(bytes.len())) {
            Some(hold) if hold.bytes() == bytes.len() => hold,
            // Nothing was set aside, or too little: all of it is, now.
            some => {
                drop(some);
                self.held.try_take(&self.client, bytes.len())?
            }
        };
        let hold = Arc::new(hold);
        self.kept = Some(Arc::clone(&hold));
        Ok(self.piece(bytes, Some(hold)))
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.over {
            return Poll::Ready(None);
        }
        if let Some(bytes) = self.next.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(self.piece(bytes, None)))));
        }
        if let Some(trailers) = self.trailers.take() {
            self.over = true;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            other => return Poll::Ready(other),
        };
        let bytes = match frame.into_data() {
            Ok(bytes) => bytes,
            Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
        };
        Poll::Ready(Some(match self.hold(bytes, cx) {
            Ok(bytes) => Ok(Frame::data(bytes)),
            Err(status) => {
                self.over = true;
                self.body = Body::empty();
                let mut trailers = http::HeaderMap::new();
                status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.over || (self.next.is_empty() && self.trailers.is_none() && self.body.is_end_stream())
    }
}
