//! The stream of a connection. It counts bytes for the metrics. It fails when the connection is
//! closed, does not identify its client in time, or does not take what is sent.
//!
//! The conditions are checked when h2 reads *and* when it writes. While its peer does not read, h2
//! does not read either. A deadline that is checked only on reads would never expire for the
//! connections that it is meant for.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Sleep,
};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::transport::server::Connected;

use super::{connections::Connection, metrics::Metrics};
use crate::close_in_child::CloseInChild;

/// The stream of an admitted connection.
pub(super) struct ConnectionStream {
    /// Declared before the stream, so that it is dropped first.
    _close_in_child: CloseInChild,
    stream: TcpStream,
    connection: Connection,
    metrics: Arc<Metrics>,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
    /// The deadline for identification.
    identification: Pin<Box<Sleep>>,
    /// The deadline for the peer to take what is sent, while it takes nothing.
    write_stall: Option<Pin<Box<Sleep>>>,
    idle: Duration,
}

impl ConnectionStream {
    pub fn new(
        stream: TcpStream,
        connection: Connection,
        metrics: Arc<Metrics>,
        handshake: Duration,
        idle: Duration,
    ) -> ConnectionStream {
        metrics.connections.inc();
        ConnectionStream {
            _close_in_child: CloseInChild::new(&stream),
            stream,
            closed: Box::pin(connection.closed()),
            connection,
            metrics,
            identification: Box::pin(tokio::time::sleep(handshake)),
            write_stall: None,
            idle,
        }
    }

    /// Fails if the connection must end. Wakes the task when that changes.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.closed.as_mut().poll(cx).is_ready() {
            let why = self.connection.close_reason();
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, why));
        }
        let identified = || self.connection.is_identified();
        if !identified() && self.identification.as_mut().poll(cx).is_ready() && !identified() {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "no request with a valid identity in time",
            ));
        }
        Ok(())
    }

    /// Counts what was written. Fails if the peer has taken nothing for too long.
    fn after_write(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = written {
            self.write_stall = None;
            if let Ok(bytes) = &written {
                self.metrics.sent.inc_by(*bytes as u64);
            }
            return Poll::Ready(written);
        }
        let idle = self.idle;
        let stall = self.write_stall.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
        if stall.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the peer takes nothing of what is sent",
            )));
        }
        Poll::Pending
    }
}

impl Drop for ConnectionStream {
    fn drop(&mut self) {
        self.connection.release();
        self.metrics.connections.dec();
    }
}

impl Connected for ConnectionStream {
    type ConnectInfo = Connection;
    fn connect_info(&self) -> Connection {
        self.connection.clone()
    }
}

impl AsyncRead for ConnectionStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.metrics.received.inc_by(buf.filled().len().saturating_sub(before) as u64);
        read
    }
}

impl AsyncWrite for ConnectionStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.after_write(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
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
        self.check(cx)?;
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.after_write(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
