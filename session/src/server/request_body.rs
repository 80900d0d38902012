//! The request body of Infer. Each message is counted against the memory budget before it is
//! buffered.
//!
//! Five bytes announce a message of 16 MiB, and the decoder allocates all of it at once. So a
//! message is not passed on to the decoder before its length is acquired. It is counted until the
//! next message is asked for: by then it was answered.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::Frame;
use tonic::{Status, body::Body};

use super::{
    memory_budget::{MemoryBudget, MemoryPermit},
    response_body::MESSAGE_PREFIX,
};

type Acquiring = Pin<Box<dyn Future<Output = Result<MemoryPermit, Status>> + Send>>;

/// The body of a request with many messages.
pub(super) struct CountedRequestBody {
    body: Body,
    memory: Arc<MemoryBudget>,
    client: String,
    /// The decoder refuses longer messages before it allocates.
    max_message: usize,
    timeout: Duration,
    /// Bytes that arrived and were not passed on.
    received: Bytes,
    /// The beginning of a message's prefix.
    prefix: Vec<u8>,
    /// Bytes of the message that are still to come.
    left: usize,
    /// Waits until the budget has memory for the announced message.
    acquiring: Option<Acquiring>,
    _permit: Option<MemoryPermit>,
}

impl CountedRequestBody {
    pub fn new(
        body: Body,
        memory: Arc<MemoryBudget>,
        client: String,
        max_message: usize,
        timeout: Duration,
    ) -> CountedRequestBody {
        let (received, prefix) = (Bytes::new(), Vec::with_capacity(MESSAGE_PREFIX));
        CountedRequestBody {
            body,
            memory,
            client,
            max_message,
            timeout,
            received,
            prefix,
            left: 0,
            acquiring: None,
            _permit: None,
        }
    }

    /// The length that the prefix announces, if the prefix is complete.
    fn announced(&self) -> Option<usize> {
        match self.prefix[..] {
            [_, a, b, c, d] => Some(u32::from_be_bytes([a, b, c, d]) as usize),
            _ => None,
        }
    }
}

impl http_body::Body for CountedRequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let me = &mut *self;
        if me.left == 0 && me.acquiring.is_none() {
            // The decoder asks for more, so it has finished the message before.
            me._permit = None;
        }
        loop {
            if let Some(acquiring) = &mut me.acquiring {
                let permit = ready!(acquiring.as_mut().poll(cx));
                me.acquiring = None;
                match permit {
                    Ok(permit) => me._permit = Some(permit),
                    Err(status) => return Poll::Ready(Some(Err(status))),
                }
                me.left = me.announced().unwrap_or(0);
                return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut me.prefix).into()))));
            }
            if !me.received.is_empty() {
                if me.left > 0 {
                    let passed = me.received.split_to(me.left.min(me.received.len()));
                    me.left -= passed.len();
                    return Poll::Ready(Some(Ok(Frame::data(passed))));
                }
                let missing = MESSAGE_PREFIX - me.prefix.len();
                let more = me.received.split_to(missing.min(me.received.len()));
                me.prefix.extend_from_slice(&more);
                if let Some(length) = me.announced() {
                    let (memory, client, timeout) =
                        (Arc::clone(&me.memory), me.client.clone(), me.timeout);
                    let length = if length > me.max_message { 0 } else { length };
                    me.acquiring =
                        Some(Box::pin(
                            async move { memory.acquire(&client, length, timeout).await },
                        ));
                }
                continue;
            }
            match ready!(Pin::new(&mut me.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => me.received = bytes,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                // The decoder reports an incomplete prefix.
                None if !me.prefix.is_empty() => {
                    return Poll::Ready(Some(Ok(Frame::data(
                        std::mem::take(&mut me.prefix).into(),
                    ))));
                }
                other => return Poll::Ready(other),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http_body::Body as _;

    use super::*;
    use crate::server::Limits;

    /// A body that arrives in these chunks, and then stays open.
    struct Chunks(Vec<Bytes>);

    impl http_body::Body for Chunks {
        type Data = Bytes;
        type Error = Status;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            if self.0.is_empty() {
                Poll::Pending
            } else {
                Poll::Ready(Some(Ok(Frame::data(self.0.remove(0)))))
            }
        }
    }

    fn message(length: usize) -> Vec<u8> {
        [&[0][..], &(length as u32).to_be_bytes(), &vec![7; length]].concat()
    }

    #[test]
    fn bytes_in_any_chunks_are_passed_on_and_counted_message_by_message() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _entered = runtime.enter();
        let whole = [message(300), message(0), message(5), message(900)].concat();
        for size in [1, 2, 3, 5, 7, 64, 299, 310, 4096] {
            let chunks = whole.chunks(size).map(Bytes::copy_from_slice).collect();
            let budget =
                MemoryBudget::new(&Limits { max_held_bytes: 1000, ..Limits::default() }, true);
            let (inner, second) = (Body::new(Chunks(chunks)), Duration::from_secs(1));
            let mut body =
                CountedRequestBody::new(inner, Arc::clone(&budget), "a".into(), 900, second);
            let mut passed = Vec::new();
            let mut cx = Context::from_waker(std::task::Waker::noop());
            while let Poll::Ready(Some(frame)) = Pin::new(&mut body).poll_frame(&mut cx) {
                passed.extend_from_slice(&frame.unwrap().into_data().unwrap());
                // 300 bytes and 900 exceed the budget: the first are given back before the
                // others are asked for.
                let in_the_last = passed.len() > 300 + 2 * MESSAGE_PREFIX + 5 + MESSAGE_PREFIX;
                assert!(!in_the_last || budget.try_acquire("a", 101).is_err(), "{size}");
            }
            assert_eq!(passed, whole, "{size}");
            // The stream waits for more, and holds no memory.
            budget.try_acquire("a", 1000).unwrap();
        }
    }

    #[test]
    fn an_announced_message_waits_for_memory_and_then_is_refused() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let budget =
                MemoryBudget::new(&Limits { max_held_bytes: 1000, ..Limits::default() }, true);
            let _other = budget.try_acquire("a", 500).unwrap();
            let body = Body::new(Chunks(vec![message(600)[..MESSAGE_PREFIX].to_vec().into()]));
            let mut body =
                CountedRequestBody::new(body, budget, "a".into(), 900, Duration::from_millis(20));
            let next = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
            let status = next.unwrap().unwrap_err();
            assert!(
                status.code() == tonic::Code::Unavailable && status.message().contains("of yours"),
                "{status}"
            );
        });
    }
}
