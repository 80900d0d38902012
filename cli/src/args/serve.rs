//! `zklora serve`

use std::path::PathBuf;

use clap::Args as ClapArgs;
use zklora_session::server::RowService;

use super::{OwnModel, SrsFile};

/// The format of a server's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people
    Text,
    /// One JSON object per line
    Json,
}

/// `zklora serve`
#[derive(ClapArgs)]
// A server of rows alone needs no base model.
#[command(
    mut_arg("base", |arg| arg.required(false).requires("model").requires("identity")),
    mut_arg("model", |arg| arg.required(false).requires("base"))
)]
pub struct Serve {
    /// Folder that compile wrote.
    #[arg(long, value_name = "DIR")]
    pub artifacts: PathBuf,
    /// Address and port to listen on; port 0 picks any free port.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7443")]
    pub listen: std::net::SocketAddr,
    /// Certificate chain of the server (PEM, including intermediate certificates).
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of --tls-cert (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Require a client certificate signed by this authority (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub client_ca: Option<PathBuf>,
    /// Require a bearer token: a file with one `NAME TOKEN` per line, mode 0600.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Serve without TLS on addresses other than loopback: the network can read and change all
    /// traffic.
    #[arg(long)]
    pub insecure: bool,
    /// Serve rows: at most N of a module, over all sessions and users, or `unlimited` [default:
    /// no rows are served]. A few rows reveal most of what an adapter does (zklora leak), so a
    /// limit is no protection before payment.
    #[arg(long, value_name = "N|unlimited")]
    pub max_rows: Option<RowService>,
    /// Folder for the sessions [default: private/sessions in the artifacts folder].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Maximum number of sessions that exchange rows at the same time.
    #[arg(long, value_name = "N", default_value_t = 256,
        value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub max_sessions: u32,
    /// Maximum number of them under one token or certificate [default: half of --max-sessions].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub max_sessions_per_client: Option<u32>,
    /// Maximum number of connections with a known identity [default: 1024, fewer with less than 2
    /// GiB of memory].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub max_connections: Option<u32>,
    /// Maximum memory for requests and for answers that clients have not read yet, in MiB
    /// [default: a quarter of the memory, up to 1024].
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..=2047))]
    pub max_held: Option<u32>,
    /// Maximum number of rows of a session, over all modules.
    #[arg(long, value_name = "N", default_value_t = 1 << 20)]
    pub max_session_rows: u64,
    /// Maximum size of a session's trace, in MiB: while the session is proven, its trace is on
    /// disk beside its log.
    #[arg(long, value_name = "MIB", default_value_t = 4096,
        value_parser = clap::value_parser!(u32).range(1..))]
    pub max_session_size: u32,
    /// Maximum length of a message, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 16,
        value_parser = clap::value_parser!(u32).range(1..=256))]
    pub max_message: u32,
    /// Seconds that a stream may be silent, and that a message may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 120,
        value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub idle: u32,
    /// Serve metrics for Prometheus at `http://ADDR/metrics`, without TLS or tokens; addresses
    /// other than loopback need --insecure.
    #[arg(long, value_name = "ADDR")]
    pub metrics: Option<std::net::SocketAddr>,
    /// Format of the log, which goes to stderr.
    #[arg(long, value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// Number of threads that prove [default: half of the cores].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub proving_threads: Option<u32>,
    #[command(flatten)]
    pub srs: SrsFile,
    /// Folder of your identity: answer requests for the offer in public/. Needs the base model.
    #[arg(long, value_name = "DIR", requires = "base", help_heading = "Evaluations")]
    pub identity: Option<PathBuf>,
    /// Also prove samples of answered requests, of up to N tokens each: a minute and some
    /// gigabytes of memory for some dozen tokens of a small model. The adapter must be registered
    /// (compile --registered).
    #[arg(long, value_name = "N", requires = "identity",
        value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub prove: Option<u32>,
    /// Memory of a proof, in MiB, beside the base model: longer units are refused, which buyers
    /// learn before they pay [default: half of the machine's].
    #[arg(long, value_name = "MIB", requires = "prove", value_parser = clap::value_parser!(u32))]
    pub prove_memory: Option<u32>,
    /// Samples that each client may have proven. Proofs take time that has no price in bits.
    #[arg(long, value_name = "N", default_value_t = 32, requires = "prove",
        value_parser = clap::value_parser!(u32).range(1..))]
    pub proofs_per_client: u32,
    #[command(flatten)]
    pub model: Option<OwnModel>,
}
