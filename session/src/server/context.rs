//! What every request of the gRPC service works with.

use std::sync::Arc;

use prost::Message;
use tokio::sync::{Semaphore, watch};
use tonic::Status;

use super::{
    active_sessions::ActiveSessions, blocking_pool::BlockingPool, limits::Limits,
    memory_budget::MemoryBudget, proof_queue::ProofQueue, response_body::SharedPrefix,
    session::Session, state::ServerState,
};
use crate::{
    packing,
    wire::{self, DescribeResponse, SessionRef},
};

/// The context of a request.
pub(super) struct ServiceContext {
    pub state: Arc<ServerState>,
    pub proof_queue: Arc<ProofQueue>,
    pub limits: Limits,
    /// The answer to Describe, with no rows served.
    pub description: DescribeResponse,
    /// Its encoding, which all answers to Describe share.
    pub encoded_description: SharedPrefix,
    /// Memory for requests and responses.
    pub memory: Arc<MemoryBudget>,
    /// Permits of sessions that exchange batches.
    pub active_sessions: ActiveSessions,
    /// Permits of batches that are computed at the same time.
    pub computing: Semaphore,
    /// Threads that compute or wait for the disk.
    pub blocking: BlockingPool,
    /// True once the server shuts down.
    pub stopping: watch::Receiver<bool>,
}

impl ServiceContext {
    pub fn new(
        state: Arc<ServerState>,
        proof_queue: Arc<ProofQueue>,
        limits: Limits,
        memory: Arc<MemoryBudget>,
        blocking: BlockingPool,
        stopping: watch::Receiver<bool>,
    ) -> Result<ServiceContext, crate::Error> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let manifest = &state.adapter.manifest;
        let mut description = DescribeResponse {
            version: wire::VERSION,
            manifest: manifest.contents().to_bytes()?.into(),
            settings: manifest.settings().to_bytes()?.into(),
            limits: Some(limits.to_wire()),
            // The last fields: every answer begins with the same bytes.
            rows_served: 0,
            packing: 0,
        };
        let encoded_description = SharedPrefix(description.encode_to_vec().into());
        description.packing = packing::VERSION;
        Ok(ServiceContext {
            encoded_description,
            description,
            memory,
            active_sessions: ActiveSessions::new(&limits),
            computing: Semaphore::new(cores),
            blocking,
            proof_queue,
            limits,
            state,
            stopping,
        })
    }
}

/// The session that a client names. It may have to be read from the disk.
pub(super) async fn find_session(
    context: &Arc<ServiceContext>,
    session: Option<SessionRef>,
    client: &str,
) -> Result<Arc<Session>, Status> {
    let find = {
        let (context, client) = (Arc::clone(context), client.to_string());
        move || context.state.sessions.find(session.as_ref(), &client)
    };
    context.blocking.run(client, find).await
}
