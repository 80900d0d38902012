//! Connections: at most so many, and each has to show a valid identity soon.
//!
//! A connection that dribbles bytes without ever making an authenticated request is closed when its time is up, whatever it
//! sends: a slow handshake holds a place for [`super::Limits::handshake`] and no longer.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::Sleep,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use crate::not_inherited::NotInherited;

/// A connection that holds a place.
pub(super) struct Guarded {
    /// Before the stream: it is closed after this.
    _not_inherited: NotInherited,
    stream: TcpStream,
    deadline: Pin<Box<Sleep>>,
    known: Known,
    _place: OwnedSemaphorePermit,
}

/// Whether a connection has made a request with a valid identity.
#[derive(Debug, Clone, Default)]
pub(super) struct Known(Arc<AtomicBool>);

impl Known {
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Connected for Guarded {
    type ConnectInfo = Known;
    fn connect_info(&self) -> Known {
        self.known.clone()
    }
}

impl AsyncRead for Guarded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.known.get() && self.deadline.as_mut().poll(cx).is_ready() && !self.known.get() {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "no request with a valid identity in time",
            )));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Accepts connections while there are places; others wait in the system's queue.
pub(super) fn accept(listener: TcpListener, places: usize, handshake: Duration) -> ReceiverStream<io::Result<Guarded>> {
    let (accepted, incoming) = mpsc::channel(1);
    let places = Arc::new(Semaphore::new(places));
    tokio::spawn(async move {
        // Ends when the server drops the receiver, or closes the semaphore (which it never does).
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            let stream = tokio::select! {
                stream = listener.accept() => stream,
                () = accepted.closed() => return,
            };
            let stream = match stream {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, or a connection that was gone before it was taken: the next one may be fine.
                    tracing::warn!("a connection was not accepted: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            // Small answers must not wait for more.
            let _ = stream.set_nodelay(true);
            let deadline = Box::pin(tokio::time::sleep(handshake));
            let not_inherited = NotInherited::new(&stream);
            let guarded =
                Guarded { _not_inherited: not_inherited, stream, deadline, known: Known::default(), _place: place };
            if accepted.send(Ok(guarded)).await.is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(incoming)
}
