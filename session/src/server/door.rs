//! The door of the service: who calls is known before anything else is looked at, and what goes in
//! and out is counted.
//!
//! Everything is behind it. Only the health service answers whoever has not shown an identity.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use tonic::{
    Status, body::Body, metadata::MetadataMap, server::NamedService,
    transport::server::TlsConnectInfo,
};

use super::{
    answers::{Answer, Common},
    connections::Connection,
    held::{Held, Room},
    identity::{Tokens, identify},
    metrics::{Metered, Metrics},
    service::{Client, Service},
};
use crate::wire::contributor_server::ContributorServer;

const HEALTH: &str = "/grpc.health.v1.Health/";
const INFER: &str = "/zklora.v1.Contributor/Infer";

/// Longest message of a call other than `Infer`: two names of 32 bytes and a number.
pub(super) const SMALL_MESSAGE: usize = 16 << 10;

/// What the door goes by.
#[derive(Clone)]
pub(super) struct Door(Arc<Rules>);

struct Rules {
    tokens: Option<Tokens>,
    held: Arc<Held>,
    metrics: Arc<Metrics>,
    longest: usize,
    idle: Duration,
}

impl Door {
    pub fn new(
        tokens: Option<Tokens>,
        held: Arc<Held>,
        metrics: Arc<Metrics>,
        longest: usize,
        idle: Duration,
    ) -> Door {
        Door(Arc::new(Rules { tokens, held, metrics, longest, idle }))
    }

    /// The caller's name.
    fn identify(
        &self,
        request: &mut Request<Body>,
        connection: Option<&Connection>,
    ) -> Result<String, Status> {
        let tls = request.extensions().get::<TlsConnectInfo<Connection>>();
        let certificates = tls.and_then(TlsConnectInfo::peer_certs);
        let certificate =
            certificates.as_ref().and_then(|chain| chain.first()).map(|der| der.as_ref());
        let metadata = MetadataMap::from_headers(std::mem::take(request.headers_mut()));
        let name = identify(self.0.tokens.as_ref(), &metadata, certificate);
        *request.headers_mut() = metadata.into_headers();
        let name = name?;
        if let Some(connection) = connection {
            connection.show(&name)?;
        }
        Ok(name)
    }

    /// An answer that is counted until it is read.
    fn count(
        &self,
        answer: Response<Body>,
        client: String,
        connection: Option<Connection>,
    ) -> Response<Body> {
        let (mut parts, body) = answer.into_parts();
        let (held, idle) = (Arc::clone(&self.0.held), self.0.idle);
        let (room, common) =
            (parts.extensions.remove::<Room>(), parts.extensions.remove::<Common>());
        let next = std::collections::VecDeque::new();
        let answer = Answer {
            body,
            held,
            client,
            room,
            common,
            connection,
            idle,
            next,
            trailers: None,
            kept: None,
            over: false,
        };
        Response::from_parts(parts, Body::new(answer))
    }
}

fn connection(extensions: &http::Extensions) -> Option<Connection> {
    match extensions.get::<TlsConnectInfo<Connection>>() {
        Some(tls) => Some(tls.get_ref().clone()),
        None => extensions.get::<Connection>().cloned(),
    }
}

impl<S> tower::Layer<S> for Door {
    type Service = Behind<S>;
    fn layer(&self, inner: S) -> Behind<S> {
        Behind { door: self.clone(), inner }
    }
}

/// Services behind the door.
#[derive(Clone)]
pub(super) struct Behind<S> {
    door: Door,
    inner: S,
}

type Answered<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

impl<S> tower::Service<Request<Body>> for Behind<S>
where
    S: tower::Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Answered<S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let (door, connection) = (self.door.clone(), connection(request.extensions()));
        let mut client = String::new();
        if !request.uri().path().starts_with(HEALTH) {
            client = match door.identify(&mut request, connection.as_ref()) {
                Ok(name) => name,
                Err(status) => {
                    door.0.metrics.refused(&status);
                    return Box::pin(std::future::ready(Ok(status.into_http())));
                }
            };
            request.extensions_mut().insert(Client(client.clone()));
        }
        if request.uri().path() == INFER {
            let rules = Arc::clone(&door.0);
            request = request.map(|body| {
                let (held, patience) = (Arc::clone(&rules.held), rules.idle / 2);
                Body::new(super::requests::Messages::new(
                    body,
                    held,
                    client.clone(),
                    rules.longest,
                    patience,
                ))
            });
        }
        let answer = self.inner.call(request);
        Box::pin(async move { Ok(door.count(answer.await?, client, connection)) })
    }
}

/// The contributor's service, which takes long messages where there are any: in batches.
#[derive(Clone)]
pub(super) struct BySize {
    batches: ContributorServer<Metered<Service>>,
    others: ContributorServer<Metered<Service>>,
}

impl BySize {
    pub fn new(service: Metered<Service>, longest: usize) -> BySize {
        let server = |longest: usize| {
            ContributorServer::new(service.clone())
                .max_decoding_message_size(longest)
                .max_encoding_message_size(usize::MAX)
        };
        BySize { batches: server(longest), others: server(SMALL_MESSAGE) }
    }
}

impl NamedService for BySize {
    const NAME: &'static str = <ContributorServer<Metered<Service>> as NamedService>::NAME;
}

impl tower::Service<Request<Body>> for BySize {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answered<Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let chosen =
            if request.uri().path() == INFER { &mut self.batches } else { &mut self.others };
        tower::Service::call(chosen, request)
    }
}
