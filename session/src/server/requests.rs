//! The messages of a stream of batches, counted before there is room for them.
//!
//! Five bytes announce a message of 16 MiB, and the decoder makes room for all of it at once. So
//! whoever announces one gets no further before its length is counted against what the server may
//! hold. It is counted until the next message is asked for: by then the one before was answered.

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
    answers::PREFIX,
    held::{Held, Hold},
};

type Taking = Pin<Box<dyn Future<Output = Result<Hold, Status>> + Send>>;

/// The body of a request that has many messages.
pub(super) struct Messages {
    body: Body,
    held: Arc<Held>,
    client: String,
    /// Longer ones are refused by who reads them, before there is room.
    longest: usize,
    patience: Duration,
    /// Bytes that came and were not passed on.
    came: Bytes,
    /// The beginning of a message's prefix.
    prefix: Vec<u8>,
    /// Bytes of the message that are still to come.
    left: usize,
    /// Waits until the message that was announced may be held.
    taking: Option<Taking>,
    _hold: Option<Hold>,
}

impl Messages {
    pub fn new(
        body: Body,
        held: Arc<Held>,
        client: String,
        longest: usize,
        patience: Duration,
    ) -> Messages {
        let (came, prefix) = (Bytes::new(), Vec::with_capacity(PREFIX));
        Messages {
            body,
            held,
            client,
            longest,
            patience,
            came,
            prefix,
            left: 0,
            taking: None,
            _hold: None,
        }
    }

    /// Bytes that the prefix announces, if it is whole.
    fn announced(&self) -> Option<usize> {
        match self.prefix[..] {
            [_, a, b, c, d] => Some(u32::from_be_bytes([a, b, c, d]) as usize),
            _ => None,
        }
    }
}

impl http_body::Body for Messages {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let me = &mut *self;
        if me.left == 0 && me.taking.is_none() {
            // Whoever asks for more is done with what it had.
            me._hold = None;
        }
        loop {
            if let Some(taking) = &mut me.taking {
                let hold = ready!(taking.as_mut().poll(cx));
                me.taking = None;
                match hold {
                    Ok(hold) => me._hold = Some(hold),
                    Err(status) => return Poll::Ready(Some(Err(status))),
                }
                me.left = me.announced().unwrap_or(0);
                return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut me.prefix).into()))));
            }
            if !me.came.is_empty() {
                if me.left > 0 {
                    let passed = me.came.split_to(me.left.min(me.came.len()));
                    me.left -= passed.len();
                    return Poll::Ready(Some(Ok(Frame::data(passed))));
                }
                let missing = PREFIX - me.prefix.len();
                let more = me.came.split_to(missing.min(me.came.len()));
                me.prefix.extend_from_slice(&more);
                if let Some(length) = me.announced() {
                    let (held, client, patience) =
                        (Arc::clone(&me.held), me.client.clone(), me.patience);
                    let length = if length > me.longest { 0 } else { length };
                    me.taking =
                        Some(Box::pin(async move { held.take(&client, length, patience).await }));
                }
                continue;
            }
            match ready!(Pin::new(&mut me.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => me.came = bytes,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                // Half a prefix is no message: who reads it says so.
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

    /// A body that comes in these pieces, and then stays open.
    struct Pieces(Vec<Bytes>);

    impl http_body::Body for Pieces {
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
    fn what_comes_in_any_pieces_is_passed_on_and_counted_message_by_message() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _entered = runtime.enter();
        let whole = [message(300), message(0), message(5), message(900)].concat();
        for size in [1, 2, 3, 5, 7, 64, 299, 310, 4096] {
            let pieces = whole.chunks(size).map(Bytes::copy_from_slice).collect();
            let held = Held::new(&Limits { max_held_bytes: 1000, ..Limits::default() }, true);
            let (body, second) = (Body::new(Pieces(pieces)), Duration::from_secs(1));
            let mut messages = Messages::new(body, Arc::clone(&held), "a".into(), 900, second);
            let mut passed = Vec::new();
            let mut cx = Context::from_waker(std::task::Waker::noop());
            while let Poll::Ready(Some(frame)) = Pin::new(&mut messages).poll_frame(&mut cx) {
                passed.extend_from_slice(&frame.unwrap().into_data().unwrap());
                // 300 bytes and 900 are more than there is: the first are given back before the
                // others are asked for.
                let in_the_last = passed.len() > 300 + 2 * PREFIX + 5 + PREFIX;
                assert!(!in_the_last || held.try_take("a", 101).is_err(), "{size}");
            }
            assert_eq!(passed, whole, "{size}");
            // The stream waits for more, and holds nothing.
            held.try_take("a", 1000).unwrap();
        }
    }

    #[test]
    fn a_message_that_is_announced_waits_for_room_and_then_is_refused() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let held = Held::new(&Limits { max_held_bytes: 1000, ..Limits::default() }, true);
            let _other = held.try_take("a", 500).unwrap();
            let body = Body::new(Pieces(vec![message(600)[..PREFIX].to_vec().into()]));
            let mut messages =
                Messages::new(body, held, "a".into(), 900, Duration::from_millis(20));
            let next = std::future::poll_fn(|cx| Pin::new(&mut messages).poll_frame(cx)).await;
            let status = next.unwrap().unwrap_err();
            assert!(
                status.code() == tonic::Code::Unavailable && status.message().contains("of yours"),
                "{status}"
            );
        });
    }
}
