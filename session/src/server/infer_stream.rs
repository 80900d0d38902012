//! One stream of Infer: its batches are answered in order until it ends.

use std::{sync::Arc, time::Duration};

use prost::Message;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::{
    active_sessions::ActiveSessionPermit,
    context::ServiceContext,
    log_rate::LogRate,
    memory_budget::{MemoryPermit, ReservedMemory},
    refusals::superseded,
    response_body::MESSAGE_PREFIX,
    session::Session,
    state::ServerState,
};
use crate::{
    batch::deltas_to_wire,
    packing,
    wire::{Batch, InferRequest, InferResponse, infer_request::Kind},
};

/// Log lines about ended streams, which a user can cause at any rate.
static ENDED: LogRate = LogRate::with_burst(60);

/// The next message, if all of it arrives in time.
pub(super) async fn next_message<T>(
    incoming: &mut Streaming<T>,
    idle: Duration,
) -> Result<Option<T>, Status> {
    match tokio::time::timeout(idle, incoming.message()).await {
        Ok(message) => message,
        Err(_) => Err(Status::deadline_exceeded(format!(
            "no whole message in {} s: the stream ends, and nothing is lost; call again to resume",
            idle.as_secs_f64()
        ))),
    }
}

/// Answers the batches of one stream until it ends.
pub(super) async fn answer_batches(
    context: Arc<ServiceContext>,
    session: Arc<Session>,
    mut incoming: Streaming<InferRequest>,
    (answers, reserved): (mpsc::Sender<Result<InferResponse, Status>>, ReservedMemory),
    permit: ActiveSessionPermit,
) {
    let (number, mut newest) = session.attach_stream();
    let mut stopping = context.stopping.clone();
    let end = loop {
        let message = tokio::select! {
            message = next_message(&mut incoming, context.limits.idle) => message,
            _ = newest.wait_for(|newest| *newest != number) => Err(superseded()),
            _ = stopping.wait_for(|stopping| *stopping) => Err(Status::unavailable(
                "the server shuts down: open the session again after its restart",
            )),
        };
        let answer = match message {
            Ok(None) => break None,
            Ok(Some(InferRequest { kind: Some(Kind::Batch(batch)) })) => {
                answer_batch(&context, &session, number, Received::Plain(batch)).await
            }
            Ok(Some(InferRequest { kind: Some(Kind::Packed(batch)) })) => {
                answer_batch(&context, &session, number, Received::Packed(batch)).await
            }
            Ok(Some(_)) => Err(Status::invalid_argument(
                "expected a batch: only the first message of a stream is `start`",
            )),
            Err(status) => Err(status),
        };
        let answer = match answer {
            Ok((answer, mut memory)) => {
                memory.shrink(MESSAGE_PREFIX + answer.encoded_len());
                reserved.put(memory);
                answer
            }
            Err(status) => break Some(status),
        };
        // A user that does not read its answers keeps one permit, and only for a bounded time.
        match tokio::time::timeout(context.limits.idle, answers.send(Ok(answer))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => break None,
            Err(_) => {
                break Some(Status::deadline_exceeded(
                    "the answers were not read in time: the stream ends",
                ));
            }
        }
    };
    // Before the user learns of the end, because it may reconnect at once.
    drop(permit);
    if let Some(status) = end {
        if let Some(left_out) = ENDED.admit() {
            let (name, code) = (session.name(), status.code());
            tracing::info!(
                session = name,
                client = session.client,
                ?code,
                left_out,
                "{}",
                status.message()
            );
        }
        let _ = tokio::time::timeout(context.limits.idle, answers.send(Err(status))).await;
    }
    let client = session.client.clone();
    let detach = move || {
        session.detach_stream(number);
        Ok(())
    };
    let _ = context.blocking.run(&client, detach).await;
}

/// A batch as it came, and how its answer goes.
enum Received {
    Plain(Batch),
    Packed(Batch),
}

impl Received {
    /// An upper bound on the memory that the batch takes, besides its message, and its answer.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED`: it is too long.
    fn memory(&self, context: &ServiceContext) -> Result<usize, Status> {
        let manifest = &context.state.adapter.manifest;
        let most = context.limits.max_message_bytes;
        let (batch, inputs) = match self {
            Received::Plain(batch) => (batch, 0),
            Received::Packed(batch) => (batch, packing::unpacked_bytes(batch, manifest)),
        };
        let all = inputs.saturating_add(batch.encoded_len() as u64);
        if inputs > 0 && all > most as u64 {
            return Err(Status::resource_exhausted(format!(
                "batch {} takes {all} bytes, packed and unpacked, this server takes {most}: split \
                 it",
                batch.sequence
            )));
        }
        let deltas = |(module, rows): (usize, u64)| {
            let rows = usize::try_from(rows).unwrap_or(usize::MAX);
            let module = manifest.modules().get(module);
            module.map_or(0, |module| packing::max_packed_deltas(module, rows)).saturating_add(16)
        };
        let deltas = batch.counts().map(deltas).fold(32, usize::saturating_add);
        // Longer answers are refused.
        Ok(inputs as usize + deltas.min(most.saturating_mul(2)))
    }
}

async fn answer_batch(
    context: &Arc<ServiceContext>,
    session: &Arc<Session>,
    stream: u64,
    received: Received,
) -> Result<(InferResponse, MemoryPermit), Status> {
    // Before the batch is computed: a user that does not read its answers waits here for memory,
    // and occupies no core.
    let bytes = received.memory(context)?;
    let memory = context.memory.acquire(&session.client, bytes, context.limits.idle / 2).await?;
    // The semaphore is never closed.
    let _permit = context
        .computing
        .acquire()
        .await
        .map_err(|_| Status::unavailable("the server shuts down"))?;
    let answer = {
        let (context, session) = (Arc::clone(context), Arc::clone(session));
        move || {
            let ServerState { adapter, sessions, .. } = &*context.state;
            let manifest = &adapter.manifest;
            let (batch, is_packed) = match received {
                Received::Plain(batch) => (batch, false),
                Received::Packed(batch) => {
                    let sequence = batch.sequence;
                    let batch = packing::unpack_batch(batch, manifest).map_err(|why| {
                        Status::invalid_argument(format!("batch {sequence}: {why}"))
                    })?;
                    (batch, true)
                }
            };
            let (sequence, counts) = (batch.sequence, batch.counts().collect::<Vec<_>>());
            let deltas = session.serve_batch(
                stream,
                batch,
                adapter,
                &sessions.row_counter,
                &context.limits,
            )?;
            Ok(match is_packed {
                true => packing::pack_answer(sequence, &counts, &deltas, manifest),
                false => deltas_to_wire(sequence, deltas),
            })
        }
    };
    Ok((context.blocking.run(&session.client, answer).await?, memory))
}
