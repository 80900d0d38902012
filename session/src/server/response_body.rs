//! Response bodies, counted against the memory budget for as long as they are in memory.
//!
//! With HTTP/2, a user can open a window of one byte and never read. hyper hands an answer to h2 as
//! soon as there is room for one byte of it, and then drops the body, while h2 keeps every byte. A
//! count that ends with the body would end too early. So each chunk of a response carries its
//! permit: the chunk is dropped when it was sent, or when its stream or connection has ended.

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
    memory_budget::{MemoryBudget, MemoryPermit, ReservedMemory},
};

/// Bytes before a gRPC message: a flag and its length.
pub(super) const MESSAGE_PREFIX: usize = 5;

/// A user has to read at least this fast, in bytes a second.
const SLOWEST_READER: usize = 64 << 10;

/// The encoding that responses of one kind begin with: it is in memory once, however many responses
/// are held. An extension of the response.
#[derive(Clone)]
pub(super) struct SharedPrefix(pub Bytes);

/// The body of a response.
pub(super) struct CountedResponseBody {
    body: Body,
    memory: Arc<MemoryBudget>,
    /// The client whose share it counts against; empty for unauthenticated callers.
    client: String,
    /// Memory that was acquired for it.
    reserved: Option<ReservedMemory>,
    shared_prefix: Option<SharedPrefix>,
    connection: Option<Connection>,
    /// How long it may stay unread, beyond the time that its length takes.
    idle: Duration,
    /// Chunks that come next, and the trailers after them.
    next: VecDeque<Bytes>,
    trailers: Option<http::HeaderMap>,
    /// The permit of the last chunk: the encoder keeps its buffer until the next one.
    _last_permit: Option<Arc<MemoryPermit>>,
    /// Refused before its end, or at its end.
    is_over: bool,
}

/// A chunk of a response that was not sent yet.
struct UnreadChunk {
    bytes: Bytes,
    _permit: Option<Arc<MemoryPermit>>,
    deadline: Option<(Connection, (Instant, u64))>,
}

impl AsRef<[u8]> for UnreadChunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for UnreadChunk {
    fn drop(&mut self) {
        if let Some((connection, deadline)) = &self.deadline {
            connection.remove_deadline(*deadline);
        }
    }
}

impl CountedResponseBody {
    /// The body of a response, which takes its memory from the extensions of the response if there
    /// is any.
    pub fn new(
        body: Body,
        extensions: &mut http::Extensions,
        memory: Arc<MemoryBudget>,
        client: String,
        connection: Option<Connection>,
        idle: Duration,
    ) -> CountedResponseBody {
        CountedResponseBody {
            body,
            memory,
            client,
            reserved: extensions.remove::<ReservedMemory>(),
            shared_prefix: extensions.remove::<SharedPrefix>(),
            connection,
            idle,
            next: VecDeque::new(),
            trailers: None,
            _last_permit: None,
            is_over: false,
        }
    }

    fn chunk(&self, bytes: Bytes, permit: Option<Arc<MemoryPermit>>) -> Bytes {
        let time = self.idle + Duration::from_secs((bytes.len() / SLOWEST_READER) as u64);
        let deadline = self
            .connection
            .as_ref()
            .map(|connection| (connection.clone(), connection.add_deadline(time)));
        Bytes::from_owner(UnreadChunk { bytes, _permit: permit, deadline })
    }

    /// Counts a chunk, if the budget allows it.
    fn count(&mut self, mut bytes: Bytes, cx: &mut Context<'_>) -> Result<Bytes, Status> {
        if let Some(SharedPrefix(shared)) = self.shared_prefix.take()
            && bytes.get(MESSAGE_PREFIX..).is_some_and(|message| message.starts_with(&shared))
        {
            let rest = Bytes::copy_from_slice(&bytes[MESSAGE_PREFIX + shared.len()..]);
            self.next.push_back(shared);
            if !rest.is_empty() {
                self.next.push_back(rest);
            }
            // A copy, because a part of the response would keep all of it in memory. So would the
            // body, of which only the trailers are left.
            bytes = Bytes::copy_from_slice(&bytes[..MESSAGE_PREFIX]);
            if let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut self.body).poll_frame(cx)
                && let Ok(trailers) = frame.into_trailers()
            {
                self.trailers = Some(trailers);
                self.body = Body::empty();
            }
        }
        let permit = match self.reserved.as_ref().and_then(|reserved| reserved.take(bytes.len())) {
            Some(permit) if permit.bytes() == bytes.len() => permit,
            // Nothing was reserved, or too little.
            some => {
                drop(some);
                self.memory.try_acquire(&self.client, bytes.len())?
            }
        };
        let permit = Arc::new(permit);
        self._last_permit = Some(Arc::clone(&permit));
        Ok(self.chunk(bytes, Some(permit)))
    }
}

impl http_body::Body for CountedResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        if let Some(bytes) = self.next.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(self.chunk(bytes, None)))));
        }
        if let Some(trailers) = self.trailers.take() {
            self.is_over = true;
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
        Poll::Ready(Some(match self.count(bytes, cx) {
            Ok(bytes) => Ok(Frame::data(bytes)),
            Err(status) => {
                self.is_over = true;
                self.body = Body::empty();
                let mut trailers = http::HeaderMap::new();
                status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over
            || (self.next.is_empty() && self.trailers.is_none() && self.body.is_end_stream())
    }
}
