//! `GET /metrics` over plain HTTP/1: few connections, with one request each, of bounded size and
//! duration.

use std::{convert::Infallible, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
};

use super::page::MetricsPage;

/// Most connections at the same time. Others wait in the backlog of the socket.
const MAX_CONNECTIONS: usize = 8;

/// How long a request may take to arrive, and how long a connection may last.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest request, in bytes: the least that hyper allows.
const MAX_REQUEST: usize = 8 << 10;

/// Answers until the server stops.
pub(in crate::server) async fn serve(
    listener: TcpListener,
    page: Arc<MetricsPage>,
    mut stopping: watch::Receiver<bool>,
) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let local = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
    // The semaphore is never closed.
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopping.wait_for(|stopping| *stopping) => return,
        };
        let Ok((stream, _)) = accepted else {
            // Out of descriptors. The accept loop of the service logs that.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let page = Arc::clone(&page);
        tokio::spawn(async move {
            let _ = tokio::time::timeout(CONNECTION_TIMEOUT, answer(stream, page, local)).await;
            drop(permit);
        });
    }
}

async fn answer(stream: TcpStream, page: Arc<MetricsPage>, local: bool) {
    let service = service_fn(move |request: Request<Incoming>| {
        let page = Arc::clone(&page);
        async move { Ok::<_, Infallible>(respond(&request, page, local).await) }
    });
    let mut http = http1::Builder::new();
    http.keep_alive(false)
        .max_buf_size(MAX_REQUEST)
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT);
    // A peer that disconnects is no error of the server.
    let _ = http.serve_connection(TokioIo::new(stream), service).await;
}

/// Whether the Host header names this machine. In a DNS rebinding attack, a browser sends the name
/// of the attacker's page.
fn names_this_machine(host: &str) -> bool {
    let Ok(authority) = host.parse::<hyper::http::uri::Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

async fn respond(
    request: &Request<Incoming>,
    page: Arc<MetricsPage>,
    local: bool,
) -> Response<Full<Bytes>> {
    let text = |status: StatusCode, text: String| {
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        let value = |value: &'static str| hyper::header::HeaderValue::from_static(value);
        response
            .headers_mut()
            .insert(CONTENT_TYPE, value("text/plain; version=0.0.4; charset=utf-8"));
        response.headers_mut().insert(CACHE_CONTROL, value("no-store"));
        if status == StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().insert(ALLOW, value("GET, HEAD"));
        }
        response
    };
    // On other addresses, anyone who can connect may read the page.
    let named = |host: &hyper::header::HeaderValue| host.to_str().is_ok_and(names_this_machine);
    if local && !request.headers().get_all(HOST).iter().all(named) {
        let why = "ask by an IP address or as localhost: a proxy has to set the Host header \
                   accordingly\n";
        return text(StatusCode::FORBIDDEN, why.into());
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered\n".into());
    }
    if request.uri().path() != "/metrics" {
        return text(StatusCode::NOT_FOUND, "the page is /metrics\n".into());
    }
    // It may wait for the lock of the ledger.
    match tokio::task::spawn_blocking(move || page.render()).await {
        Ok(Ok(page)) => text(StatusCode::OK, page),
        failed => {
            tracing::error!("the metrics cannot be shown: {failed:?}");
            text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the metrics cannot be shown: see the server's log\n".into(),
            )
        }
    }
}
