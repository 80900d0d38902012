//! The service, with its answers and refusals counted.

use std::{pin::Pin, sync::Arc};

use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::counters::Metrics;
use crate::wire::{
    DescribeRequest, DescribeResponse, FetchProofRequest, FetchProofResponse, FinishRequest,
    FinishResponse, InferRequest, InferResponse, OpenSessionRequest, OpenSessionResponse,
    contributor_server::Contributor,
};

/// A service whose answers and refusals are counted.
#[derive(Clone)]
pub(in crate::server) struct CountedService<S> {
    inner: S,
    metrics: Arc<Metrics>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl<S> CountedService<S> {
    pub fn new(inner: S, metrics: Arc<Metrics>) -> CountedService<S> {
        CountedService { inner, metrics }
    }

    fn counted<T>(&self, answer: Result<T, Status>) -> Result<T, Status> {
        answer.inspect_err(|status| self.metrics.refused(status))
    }
}

#[tonic::async_trait]
impl<S: Contributor> Contributor for CountedService<S> {
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
