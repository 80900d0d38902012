//! What the gRPC service and the prover share: the adapter, the SRS and the sessions.

use zklora_proof::{keys::KeyStore, srs::Srs};

use super::sessions::Sessions;
use crate::adapter::ServedAdapter;

/// The state of a server.
pub(super) struct ServerState {
    pub adapter: ServedAdapter,
    pub srs: Srs,
    pub keys: KeyStore,
    pub sessions: Sessions,
}
