//! The service and its connections, with what passes through them counted.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming, transport::server::Connected};

use super::Metrics;
use crate::wire::{
    DescribeRequest, DescribeResponse, FetchProofRequest, FetchProofResponse, FinishRequest,
    FinishResponse, InferRequest, InferResponse, OpenSessionRequest, OpenSessionResponse,
    contributor_server::Contributor,
};

/// A service whose answers and refusals are counted.
#[derive(Clone)]
pub(in crate::server) struct Metered<S> {
    inner: S,
    metrics: Arc<Metrics>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl<S> Metered<S> {
    pub fn new(inner: S, metrics: Arc<Metrics>) -> Metered<S> {
        Metered { inner, metrics }
    }

    fn counted<T>(&self, answer: Result<T, Status>) -> Result<T, Status> {
        answer.inspect_err(|status| self.metrics.refused(status))
    }
}

#[tonic::async_trait]
impl<S: Contributor> Contributor for Metered<S> {
    async fn describe(
        &self,
        request: Request<DescribeRequest>,
    ) -> Result<Response<DescribeResponse>, Status> {
        self.counted(self.inner.describe(request).await)
    }

    async fn open_session(
        &self,
        request: Request<OpenSessionRequest>,
    ) -> Result<Response<OpenSessionResponse>, Status> {
        self.counted(self.inner.open_session(request).await)
    }

    type InferStream = Answers<InferResponse>;

    async fn infer(
        &self,
        request: Request<Streaming<InferRequest>>,
    ) -> Result<Response<Self::InferStream>, Status> {
        let answers = self.counted(self.inner.infer(request).await)?;
        let metrics = Arc::clone(&self.metrics);
        Ok(answers.map(|answers| -> Self::InferStream {
            Box::pin(answers.map(move |answer| {
                match &answer {
                    Ok(_) => metrics.batches.inc(),
                    Err(status) => metrics.refused(status),
                }
                answer
            }))
        }))
    }

    type FinishStream = Answers<FinishResponse>;

    async fn finish(
        &self,
        request: Request<FinishRequest>,
    ) -> Result<Response<Self::FinishStream>, Status> {
        let stages = self.counted(self.inner.finish(request).await)?;
        let metrics = Arc::clone(&self.metrics);
        Ok(stages.map(|stages| -> Self::FinishStream {
            Box::pin(stages.map(move |stage| stage.inspect_err(|status| metrics.refused(status))))
        }))
    }

    async fn fetch_proof(
        &self,
        request: Request<FetchProofRequest>,
    ) -> Result<Response<FetchProofResponse>, Status> {
        self.counted(self.inner.fetch_proof(request).await)
    }
}

/// A connection whose bytes are counted.
pub(in crate::server) struct MeteredStream<S> {
    inner: S,
    metrics: Arc<Metrics>,
}

impl<S> MeteredStream<S> {
    pub fn new(inner: S, metrics: &Arc<Metrics>) -> MeteredStream<S> {
        metrics.connections.inc();
        MeteredStream { inner, metrics: Arc::clone(metrics) }
    }

    fn wrote(&self, wrote: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &wrote {
            self.metrics.sent.inc_by(*bytes as u64);
        }
        wrote
    }
}

impl<S> Drop for MeteredStream<S> {
    fn drop(&mut self) {
        self.metrics.connections.dec();
    }
}

impl<S: Connected> Connected for MeteredStream<S> {
    type ConnectInfo = S::ConnectInfo;
    fn connect_info(&self) -> S::ConnectInfo {
        self.inner.connect_info()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for MeteredStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.metrics.received.inc_by(buf.filled().len().saturating_sub(before) as u64);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for MeteredStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.wrote(wrote)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.wrote(wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
