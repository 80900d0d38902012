//! `zklora verify`

use std::path::PathBuf;

use clap::Args as ClapArgs;
use zklora_proof::manifest::AdapterId;

use super::{
    TrustedSrs, ezkl,
    session_id::{SessionId, session_id},
};

/// `zklora verify`
#[derive(ClapArgs)]
pub struct Verify {
    /// The contributor's public folder.
    #[arg(long, value_name = "DIR")]
    pub public: PathBuf,
    /// Your own trace of the session.
    #[arg(long, value_name = "FILE")]
    pub trace: PathBuf,
    /// The proof; with EZKL the folder of proofs.
    #[arg(long, value_name = "FILE.pf")]
    pub proof: PathBuf,
    /// Refuse a folder of another backend [default: the folder's backend].
    #[arg(long, value_enum)]
    pub backend: Option<ezkl::Backend>,
    /// The adapter id that you pinned before the session. Without it, nothing shows that the
    /// adapter was fixed beforehand.
    #[arg(long, value_name = "HEX")]
    pub adapter_id: Option<AdapterId>,
    /// The session id that you drew. Needed for a trace that you did not record yourself: without
    /// it, the trace may be of another session.
    #[arg(long, value_name = "HEX", value_parser = session_id)]
    pub session_id: Option<SessionId>,
    /// The activations that you sent, in a format that `trace record` takes. Needed for a trace
    /// that you did not record yourself: without it, the trace may hold other activations.
    #[arg(long, value_name = "FILE")]
    pub inputs: Option<PathBuf>,
    /// The module that a .npy or .json file of --inputs is for.
    #[arg(long, value_name = "NAME", requires = "inputs")]
    pub module: Option<String>,
    #[command(flatten)]
    pub srs: TrustedSrs,
    #[command(flatten)]
    pub insecure: ezkl::InsecureDevSrs,
    #[command(flatten)]
    pub python: ezkl::Interpreter,
}
