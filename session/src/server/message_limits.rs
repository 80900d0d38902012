//! The longest message of each call: Infer takes batches, the other calls take a few bytes.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response};
use tonic::{body::Body, server::NamedService};

use zklora_evaluation::request;

use super::{metrics::CountedService, service::Service};
use crate::wire::contributor_server::ContributorServer;

/// The path of the call that takes batches.
pub(super) const INFER: &str = "/zklora.v1.Contributor/Infer";

/// The beginning of the paths of the service that evaluates. All its messages are counted.
pub(super) const EVALUATION: &str = "/zklora.v2.Evaluation/";

/// Longest message of that service: a request without its units.
pub(super) const MAX_REQUEST: usize = request::MAX_BYTES as usize + 1024;

/// Longest message of the other calls, which take two values of 32 bytes and a number.
pub(super) const MAX_SMALL_MESSAGE: usize = 16 << 10;

/// The contributor's service, with a limit on the messages of each call.
#[derive(Clone)]
pub(super) struct SizeLimitedService {
    infer: ContributorServer<CountedService<Service>>,
    others: ContributorServer<CountedService<Service>>,
}

impl SizeLimitedService {
    pub fn new(service: CountedService<Service>, max_message: usize) -> SizeLimitedService {
        let server = |max_message: usize| {
            ContributorServer::new(service.clone())
                .max_decoding_message_size(max_message)
                .max_encoding_message_size(usize::MAX)
        };
        SizeLimitedService { infer: server(max_message), others: server(MAX_SMALL_MESSAGE) }
    }
}

impl NamedService for SizeLimitedService {
    const NAME: &'static str = <ContributorServer<CountedService<Service>> as NamedService>::NAME;
}

impl tower::Service<Request<Body>> for SizeLimitedService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let service =
            if request.uri().path() == INFER { &mut self.infer } else { &mut self.others };
        tower::Service::call(service, request)
    }
}
