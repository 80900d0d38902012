//! A gRPC service that answers with a requested number of bytes. It measures the cost of the
//! network alone.

use std::{pin::Pin, time::Instant};

use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::{
    Stream, StreamExt,
    wrappers::{ReceiverStream, TcpListenerStream},
};
use tonic::{Request, Response, Status, Streaming, transport::Server};

use crate::Error;

mod wire {
    #![allow(missing_docs)]
    tonic::include_proto!("zklora.bench.v1");
}

use wire::{Payload, echo_client::EchoClient, echo_server};

struct Echo;

#[tonic::async_trait]
impl echo_server::Echo for Echo {
    type ExchangeStream = Pin<Box<dyn Stream<Item = Result<Payload, Status>> + Send>>;

    async fn exchange(
        &self,
        request: Request<Streaming<Payload>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let answers = request.into_inner().map(|payload| {
            payload.map(|payload| Payload {
                data: vec![1u8; payload.answer as usize].into(),
                answer: 0,
            })
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

/// Measures exchanges with these numbers of bytes, there and back, one after the other over one
/// stream. In seconds.
pub(super) fn measure(sizes: &[(usize, usize)]) -> Result<Vec<f64>, Error> {
    let failed = |e: &dyn std::fmt::Display| Error::input(format!("the echo service: {e}"));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(|e| failed(&e))?.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|e| failed(&e))?;
        let address = listener.local_addr().map_err(|e| failed(&e))?;
        let window = 16 << 20;
        let server = Server::builder()
            .initial_stream_window_size(window)
            .initial_connection_window_size(window)
            .tcp_nodelay(true)
            .add_service(echo_server::EchoServer::new(Echo).max_decoding_message_size(usize::MAX));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}"))
            .map_err(|e| failed(&e))?;
        let endpoint =
            endpoint.initial_stream_window_size(window).initial_connection_window_size(window);
        let channel = endpoint.tcp_nodelay(true).connect().await.map_err(|e| failed(&e))?;
        let mut client = EchoClient::new(channel).max_decoding_message_size(usize::MAX);
        let (send, outgoing) = mpsc::channel(1);
        let stream =
            client.exchange(ReceiverStream::new(outgoing)).await.map_err(|e| failed(&e))?;
        let mut answers = stream.into_inner();
        let mut seconds = Vec::with_capacity(sizes.len());
        for (there, back) in sizes {
            let payload = Payload { data: vec![1u8; *there].into(), answer: *back as u32 };
            let start = Instant::now();
            send.send(payload).await.map_err(|e| failed(&e))?;
            answers.message().await.map_err(|e| failed(&e))?;
            seconds.push(start.elapsed().as_secs_f64());
        }
        Ok(seconds)
    })
}
