//! Accepting connections, and closing those that do not read their responses.

use std::{
    io,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    connection_stream::ConnectionStream, connections::ConnectionPool, limits::Limits,
    log_rate::LogRate, metrics::Metrics,
};

static NOT_ACCEPTED: LogRate = LogRate::new();

/// Accepts connections until the receiver is dropped.
pub(super) fn accept(
    listener: TcpListener,
    pool: Arc<ConnectionPool>,
    metrics: Arc<Metrics>,
    limits: &Limits,
) -> ReceiverStream<io::Result<ConnectionStream>> {
    let (accepted, incoming) = mpsc::channel(1);
    let (handshake, idle) = (limits.handshake, limits.idle);
    tokio::spawn(close_slow_readers(
        Arc::downgrade(&pool),
        (idle / 8).clamp(Duration::from_millis(20), Duration::from_secs(1)),
    ));
    tokio::spawn(async move {
        loop {
            let stream = tokio::select! {
                stream = listener.accept() => stream,
                () = accepted.closed() => return,
            };
            let stream = match stream {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, or the client hung up at once: the next one may work.
                    NOT_ACCEPTED.warn(|| not_accepted(&error));
                    if zklora_files::is_out_of_descriptors(&error) {
                        pool.close_oldest_unidentified("this process has too many files open");
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            // Small answers must not wait for more.
            let _ = stream.set_nodelay(true);
            let Some(connection) = pool.admit().await else { return };
            let stream =
                ConnectionStream::new(stream, connection, Arc::clone(&metrics), handshake, idle);
            if accepted.send(Ok(stream)).await.is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(incoming)
}

fn not_accepted(error: &io::Error) -> String {
    let advice = if zklora_files::is_out_of_descriptors(error) {
        ": other parts of this process or machine use them; raise the limit (ulimit -n)"
    } else {
        ""
    };
    format!("a connection was not accepted: {error}{advice}")
}

async fn close_slow_readers(pool: Weak<ConnectionPool>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        let Some(pool) = pool.upgrade() else { return };
        pool.close_slow_readers(Instant::now());
    }
}
