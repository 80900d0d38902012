//! The tower layer around all services: it identifies the client of each request, and counts
//! request and response bodies.
//!
//! Only the health service answers unauthenticated callers.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use tonic::{Status, body::Body, metadata::MetadataMap, transport::server::TlsConnectInfo};

use super::{
    connections::Connection,
    identity::{ClientName, Tokens, identify},
    memory_budget::MemoryBudget,
    message_limits::{EVALUATION, INFER},
    metrics::Metrics,
    request_body::CountedRequestBody,
    response_body::CountedResponseBody,
};

const HEALTH: &str = "/grpc.health.v1.Health/";

/// The layer.
#[derive(Clone)]
pub(super) struct ClientLayer(Arc<Config>);

struct Config {
    tokens: Option<Tokens>,
    memory: Arc<MemoryBudget>,
    metrics: Arc<Metrics>,
    max_message: usize,
    idle: Duration,
}

impl ClientLayer {
    pub fn new(
        tokens: Option<Tokens>,
        memory: Arc<MemoryBudget>,
        metrics: Arc<Metrics>,
        max_message: usize,
        idle: Duration,
    ) -> ClientLayer {
        ClientLayer(Arc::new(Config { tokens, memory, metrics, max_message, idle }))
    }

    /// The client's name.
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
            connection.identify(&name)?;
        }
        Ok(name)
    }

    fn count_request(&self, body: Body, client: &str) -> Body {
        let Config { memory, max_message, idle, .. } = &*self.0;
        let memory = Arc::clone(memory);
        Body::new(CountedRequestBody::new(body, memory, client.into(), *max_message, *idle / 2))
    }

    fn count_response(
        &self,
        response: Response<Body>,
        client: String,
        connection: Option<Connection>,
    ) -> Response<Body> {
        let (mut parts, body) = response.into_parts();
        let (memory, idle) = (Arc::clone(&self.0.memory), self.0.idle);
        let body =
            CountedResponseBody::new(body, &mut parts.extensions, memory, client, connection, idle);
        Response::from_parts(parts, Body::new(body))
    }
}

fn connection(extensions: &http::Extensions) -> Option<Connection> {
    match extensions.get::<TlsConnectInfo<Connection>>() {
        Some(tls) => Some(tls.get_ref().clone()),
        None => extensions.get::<Connection>().cloned(),
    }
}

impl<S> tower::Layer<S> for ClientLayer {
    type Service = ClientService<S>;
    fn layer(&self, inner: S) -> ClientService<S> {
        ClientService { layer: self.clone(), inner }
    }
}

/// A service in the layer.
#[derive(Clone)]
pub(super) struct ClientService<S> {
    layer: ClientLayer,
    inner: S,
}

impl<S> tower::Service<Request<Body>> for ClientService<S>
where
    S: tower::Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let (layer, connection) = (self.layer.clone(), connection(request.extensions()));
        let mut client = String::new();
        if !request.uri().path().starts_with(HEALTH) {
            client = match layer.identify(&mut request, connection.as_ref()) {
                Ok(name) => name,
                Err(status) => {
                    layer.0.metrics.refused(&status);
                    return Box::pin(std::future::ready(Ok(status.into_http())));
                }
            };
            request.extensions_mut().insert(ClientName(client.clone()));
        }
        if request.uri().path() == INFER || request.uri().path().starts_with(EVALUATION) {
            request = request.map(|body| layer.count_request(body, &client));
        }
        let response = self.inner.call(request);
        Box::pin(async move { Ok(layer.count_response(response.await?, client, connection)) })
    }
}
