//! The stream of a connection: it fails when the connection is ended, shows no identity in time, or
//! takes nothing of what is sent.
//!
//! All of this is looked at when h2 reads *and* when it writes. While its peer reads nothing, h2
//! does not read either, so a deadline that only reading sees would never come for just those
//! connections that it is made for.

use std::{
    io,
    pin::Pin,
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

use super::connections::Connection;
use crate::close_in_child::CloseInChild;

/// A connection that holds a place.
pub(super) struct Guarded {
    /// Before the stream: it is closed after this.
    _not_inherited: CloseInChild,
    stream: TcpStream,
    connection: Connection,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Until when it has to show an identity.
    deadline: Pin<Box<Sleep>>,
    /// While the other side takes nothing: until when it has to.
    stalled: Option<Pin<Box<Sleep>>>,
    idle: Duration,
}

impl Guarded {
    pub fn new(
        stream: TcpStream,
        connection: Connection,
        handshake: Duration,
        idle: Duration,
    ) -> Guarded {
        let (ended, deadline) =
            (Box::pin(connection.ended()), Box::pin(tokio::time::sleep(handshake)));
        let _not_inherited = CloseInChild::new(&stream);
        Guarded { _not_inherited, stream, connection, ended, deadline, stalled: None, idle }
    }

    /// Fails if the connection is not to go on; wakes the task when that changes.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.ended.as_mut().poll(cx).is_ready() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, self.connection.why()));
        }
        let known = || self.connection.is_known();
        if !known() && self.deadline.as_mut().poll(cx).is_ready() && !known() {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "no request with a valid identity in time",
            ));
        }
        Ok(())
    }

    /// What a write came to; an error if the other side has taken nothing for too long.
    fn wrote(
        &mut self,
        cx: &mut Context<'_>,
        wrote: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if wrote.is_ready() {
            self.stalled = None;
            return wrote;
        }
        let idle = self.idle;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
        if stalled.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "nothing of what was sent was taken",
            )));
        }
        Poll::Pending
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.connection.leave();
    }
}

impl Connected for Guarded {
    type ConnectInfo = Connection;
    fn connect_info(&self) -> Connection {
        self.connection.clone()
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        let wrote = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(cx, wrote)
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
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(cx, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
