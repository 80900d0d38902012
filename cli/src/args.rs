//! The command line.

pub mod activation_commitment;
pub mod against;
pub mod ezkl;
pub mod leak;
pub mod report;
pub mod sessions;

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, builder::PossibleValuesParser};
use zklora_bench::proof_bench::PROFILES;
use zklora_proof::manifest::AdapterId;

/// Prove that every delta of a session came from one committed LoRA adapter, without showing its
/// weights.
#[derive(Parser)]
#[command(name = "zklora", version, propagate_version = true, max_term_width = 110)]
#[command(
    after_help = "Exit codes: 0 success; 1 the answer is no (a proof does not verify, an audit finds a difference); \
2 bad usage or unusable input."
)]
pub struct Args {
    /// Print one machine-readable JSON object on stdout.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand)]
pub enum Command {
    /// The whole pipeline on one adapter: export, compile, commit, run, prove, verify.
    #[command(
        after_help = "Example: zklora run --adapter fixtures/adapters/smollm2-r4-qv --rows 64"
    )]
    Run(Run),
    /// PEFT adapter to one ONNX file per submodule, plus export.json.
    #[command(
        after_help = "Example: zklora export --adapter my-lora --out onnx --module '*.q_proj'"
    )]
    Export(Export),
    /// ONNX files (or a folder that export wrote) to artifacts: public/ for everybody, private/ for
    /// you alone.
    #[command(after_help = "Examples: zklora compile onnx --out artifacts\n          \
zklora compile onnx --out artifacts --backend ezkl --srs kzg17.srs --param-visibility hashed")]
    Compile(Compile),
    /// The structured reference string: whose ceremony, and is it sound.
    #[command(subcommand)]
    Srs(SrsCommand),
    /// Sessions: run the quantised adapter on activations, look at a recorded session, commit to
    /// activations.
    #[command(subcommand)]
    Trace(TraceCommand),
    /// Prove a recorded session: one proof, whatever the number of modules and rows.
    #[command(
        after_help = "Example: zklora prove --artifacts artifacts --trace trace.safetensors --out session.pf"
    )]
    Prove(Prove),
    /// Verify the proof of a session against your pin and your own trace.
    #[command(
        after_help = "Example: zklora verify --public artifacts/public --trace trace.safetensors --proof session.pf --adapter-id 3f…"
    )]
    Verify(Verify),
    /// Serve an adapter's deltas over the network, count what leaves, and prove every session. For
    /// users who may have what the adapter does: after payment or under contract.
    #[command(
        after_help = "Example: zklora serve --artifacts artifacts --listen 127.0.0.1:7443 --max-rows 2000\n\n\
Stop it with Ctrl-C or SIGTERM. Sessions survive: start it again with the same folder to go on. docs/operations.md says how to run one."
    )]
    Serve(Serve),
    /// The sessions that an artifacts folder has served: look at them, tidy up.
    #[command(after_help = "Example: zklora sessions --artifacts artifacts")]
    Sessions(sessions::Sessions),
    /// Run your own base model with the adapters that contributors serve: loss, text, your own
    /// record, and a verified proof.
    #[command(
        after_help = "Example: zklora infer --base model.onnx --contributor http://127.0.0.1:7443=3f… --text-file test.txt --out session\n\n\
The base model is an ONNX file with inputs input_ids and attention_mask, as models/make exports it. Run the same command again to go on with a \
session that was interrupted."
    )]
    Infer(Infer),
    /// After payment: is the delivered adapter the one that was committed and proven?
    #[command(
        after_help = "Example: zklora audit --public artifacts/public --adapter delivered-lora --opening opening --adapter-id 3f…"
    )]
    Audit(Audit),
    /// What an adapter did to a base model, as `infer` recorded it: a table, and a page for a
    /// browser.
    #[command(
        after_help = "The exit code is 0 whatever the verdicts in the report are.\n\nExample: zklora report run-1 --html run-1.html"
    )]
    Report(report::Report),
    /// Measure how much of what your adapter does somebody recovers from few ordinary rows. Sends
    /// nothing, counts nothing.
    #[command(
        after_help = "Example: zklora leak --artifacts artifacts --base model.onnx --text sample.txt --plot leak.svg\n\n\
It takes the place of a thief who sends ordinary text: rows and deltas of the text's first tokens, a fit of least norm for every module, and \
the fits in the adapter's place on the text that was held out. Better thieves get more: docs/security.md. The result is kept in \
private/leak.json, and serve and trace record print it."
    )]
    Leak(leak::Leak),
    /// Measure on this machine: the pipeline on an adapter, or every stage for adapters of given
    /// shapes.
    #[command(
        after_help = "The exit code is 0 whether targets are met or not. Every stage of a profile runs in a process of its own.\n\n\
Examples: zklora bench --adapter fixtures/adapters/smollm2-r4-qv --rows 64,640,6400\n          \
zklora bench --profile llama-3.3-70b\n          \
zklora bench --scaling --svg scaling.svg\n          \
zklora bench --against ezkl --module 64x4x64 --html comparison.html"
    )]
    Bench(Bench),
    /// Shell completions, on stdout.
    #[command(after_help = "Example: zklora completions bash > /etc/bash_completion.d/zklora")]
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// The 32 bytes that a user drew for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionId(pub [u8; 32]);

fn session_id(text: &str) -> Result<SessionId, String> {
    let mut id = [0u8; 32];
    hex::decode_to_slice(text.trim(), &mut id)
        .map_err(|_| "a session id is 64 hex digits: 32 random bytes")?;
    Ok(SessionId(id))
}

/// Which SRS.
#[derive(ClapArgs)]
pub struct SrsFile {
    /// Ceremony file (JSON with g1_monomial and g2_monomial) [default: the Ethereum KZG ceremony,
    /// built in]. For EZKL its SRS file, which has to be named.
    #[arg(long, value_name = "FILE")]
    pub srs: Option<PathBuf>,
}

/// Which SRS, for commands that rest a verdict on it.
#[derive(ClapArgs)]
pub struct TrustedSrs {
    #[command(flatten)]
    pub file: SrsFile,
    /// Accept an SRS file whose ceremony this program does not know: whoever made it can forge
    /// proofs.
    #[arg(long)]
    pub insecure_srs: bool,
}

/// `zklora run`
#[derive(ClapArgs)]
pub struct Run {
    /// PEFT folder (adapter_config.json, adapter_model.safetensors).
    #[arg(long, value_name = "DIR")]
    pub adapter: PathBuf,
    /// Folder of the base model (safetensors): its fingerprint goes into the manifest; DoRA and
    /// VeRA need it.
    #[arg(long, value_name = "DIR")]
    pub base: Option<PathBuf>,
    /// Pseudo-random rows per module [default: the folder's activations.safetensors if there is
    /// one, else 64].
    #[arg(long, value_name = "N", conflicts_with = "trace", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub rows: Option<u32>,
    /// Activations to run on: safetensors with one tensor `<module>.x` per module.
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Keep every file here [default: a temporary folder that is removed at the end; a kill leaves
    /// it].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub srs: TrustedSrs,
}

/// `zklora export`
#[derive(ClapArgs)]
pub struct Export {
    /// PEFT folder.
    #[arg(long, value_name = "DIR")]
    pub adapter: PathBuf,
    /// Where the ONNX files go.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Export only modules whose name matches (`*` and `?`); may be repeated.
    #[arg(long, value_name = "GLOB")]
    pub module: Vec<String>,
    /// Folder of the base model (safetensors): its fingerprint goes into the manifest; DoRA and
    /// VeRA need it.
    #[arg(long, value_name = "DIR")]
    pub base: Option<PathBuf>,
}

/// `zklora compile`
#[derive(ClapArgs)]
pub struct Compile {
    /// ONNX files, or folders that export wrote.
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Where public/ and private/ go.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// 64 hex digits: the seed of all masks [default: the folder's own, else a fresh one].
    #[arg(long, value_name = "FILE")]
    pub seed_file: Option<PathBuf>,
    /// Activations to choose bit widths with, by measured error: .safetensors (`<module>.x`), or
    /// for one module .npy or .json.
    #[arg(long, value_name = "FILE")]
    pub calibrate: Option<PathBuf>,
    /// Write nothing: show which ONNX node became what, and the terms of each module. Shows scalar
    /// factors: for the owner's eyes.
    #[arg(long, conflicts_with_all = ["plan", "locked"])]
    pub explain: bool,
    /// Write nothing: say what committing, proving and verifying will cost on this machine.
    #[arg(long, conflicts_with = "locked")]
    pub plan: bool,
    /// Write nothing: regenerate everything in memory, compare it with the folder, exit with 1 if
    /// anything differs.
    #[arg(long)]
    pub locked: bool,
    /// What is to prove.
    #[arg(long, value_enum, default_value = "halo2")]
    pub backend: ezkl::Backend,
    #[command(flatten)]
    pub srs: SrsFile,
    #[command(flatten)]
    pub circuit: ezkl::Circuit,
    /// Take the keys of an EZKL run for the one ONNX file: a folder with settings.json, vk.key
    /// and, to prove, model.compiled and pk.key.
    #[arg(long, value_name = "DIR", help_heading = "EZKL")]
    pub ezkl_run: Option<PathBuf>,
    #[command(flatten)]
    pub insecure: ezkl::InsecureDevSrs,
    #[command(flatten)]
    pub python: ezkl::Interpreter,
}

/// `zklora srs`
#[derive(Subcommand)]
pub enum SrsCommand {
    /// Whose ceremony, how many points, which digest.
    #[command(after_help = "Example: zklora srs info --srs ceremony.json")]
    Info(SrsFile),
    /// Check every point and the pairing equations.
    #[command(after_help = "Example: zklora srs verify")]
    Verify(SrsFile),
}

/// `zklora trace`
#[derive(Subcommand)]
pub enum TraceCommand {
    /// Run the quantised adapter on given activations and keep the rows.
    #[command(
        after_help = "Example: zklora trace record --artifacts artifacts --inputs activations.safetensors --out trace.safetensors"
    )]
    Record(Record),
    /// What a trace file holds.
    #[command(after_help = "Example: zklora trace info trace.safetensors")]
    Info {
        /// The trace.
        file: PathBuf,
    },
    /// Commit to the activations of a JSON file: a root to show, and a nonce that opens it.
    #[command(after_help = "Example: zklora trace commit activations.json --out commitment.json")]
    Commit(activation_commitment::Commit),
    /// Is a commitment to the activations of this file?
    #[command(after_help = "Example: zklora trace check activations.json commitment.json")]
    Check(activation_commitment::Check),
    /// Prove one row of committed activations without sending the others.
    #[command(
        after_help = "The proof shows the nonce and hashes of neighbouring values, which can be guessed: see docs/security.md.\n\n\
Example: zklora trace prove-row activations.json commitment.json --row 3 --columns 768 --out row.json"
    )]
    ProveRow(activation_commitment::ProveRow),
    /// Is a row of activations at its position under a root?
    #[command(after_help = "Example: zklora trace check-row row.json --root 0x3f… --count 98304")]
    CheckRow(activation_commitment::CheckRow),
}

/// `zklora trace record`
#[derive(ClapArgs)]
pub struct Record {
    /// Folder that compile wrote.
    #[arg(long, value_name = "DIR")]
    pub artifacts: PathBuf,
    /// Activations: .safetensors (`<module>.x`), or for one module .npy or .json ({"input_data":
    /// [[…]]}).
    #[arg(long, value_name = "FILE")]
    pub inputs: PathBuf,
    /// The module that a .npy or .json file is for.
    #[arg(long, value_name = "NAME")]
    pub module: Option<String>,
    /// The user's session id, 64 hex digits [default: fresh random bytes].
    #[arg(long, value_name = "HEX", value_parser = session_id)]
    pub session_id: Option<SessionId>,
    /// Serve no more than this many rows of a module, over all sessions of the folder [default: no
    /// limit]. A few rows give away most of what an adapter does (zklora leak): this is no
    /// protection before payment.
    #[arg(long, value_name = "N")]
    pub max_rows: Option<u64>,
    /// Where the trace goes.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    #[command(flatten)]
    pub srs: SrsFile,
    #[command(flatten)]
    pub python: ezkl::Interpreter,
}

/// `zklora prove`
#[derive(ClapArgs)]
pub struct Prove {
    /// Folder that compile wrote.
    #[arg(long, value_name = "DIR")]
    pub artifacts: PathBuf,
    /// The session.
    #[arg(long, value_name = "FILE")]
    pub trace: PathBuf,
    /// Where the proof goes; for EZKL a folder, with one proof a row.
    #[arg(long, value_name = "FILE.pf")]
    pub out: PathBuf,
    #[command(flatten)]
    pub srs: SrsFile,
    #[command(flatten)]
    pub insecure: ezkl::InsecureDevSrs,
    #[command(flatten)]
    pub python: ezkl::Interpreter,
}

/// `zklora verify`
#[derive(ClapArgs)]
pub struct Verify {
    /// The contributor's public folder.
    #[arg(long, value_name = "DIR")]
    pub public: PathBuf,
    /// Your own trace of the session.
    #[arg(long, value_name = "FILE")]
    pub trace: PathBuf,
    /// The proof; for EZKL the folder of proofs.
    #[arg(long, value_name = "FILE.pf")]
    pub proof: PathBuf,
    /// Refuse a folder of another backend [default: what the folder is for].
    #[arg(long, value_enum)]
    pub backend: Option<ezkl::Backend>,
    /// The adapter id that you pinned before the session. Without it, nothing says that the
    /// adapter was fixed beforehand.
    #[arg(long, value_name = "HEX")]
    pub adapter_id: Option<AdapterId>,
    /// The session id that you drew. For a trace that you did not record yourself: without it, it
    /// may be of another session.
    #[arg(long, value_name = "HEX", value_parser = session_id)]
    pub session_id: Option<SessionId>,
    /// The activations that you sent, as `trace record` takes them. For a trace that you did not
    /// record yourself: without it, it may hold others.
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

/// How a server writes its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people
    Text,
    /// One JSON object a line
    Json,
}

/// `zklora serve`
#[derive(ClapArgs)]
pub struct Serve {
    /// Folder that compile wrote.
    #[arg(long, value_name = "DIR")]
    pub artifacts: PathBuf,
    /// Address and port to listen on; port 0 is any free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7443")]
    pub listen: std::net::SocketAddr,
    /// Certificate (PEM, with intermediate ones).
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Ask clients for a certificate of this authority (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub client_ca: Option<PathBuf>,
    /// Ask for a bearer token: one `NAME TOKEN` a line, mode 0600.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Serve without TLS on other addresses than loopback: everybody on the way can read and
    /// change what is sent.
    #[arg(long)]
    pub insecure: bool,
    /// Serve no more than this many rows of a module, over all sessions and users [default: no
    /// limit]. A few rows give away most of what an adapter does (zklora leak): this is no
    /// protection before payment.
    #[arg(long, value_name = "N")]
    pub max_rows: Option<u64>,
    /// Where sessions are kept [default: private/sessions in the artifacts' folder].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Most sessions that exchange rows at the same time.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub max_sessions: u32,
    /// Most of them under one token or certificate [default: half of all].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub max_sessions_per_client: Option<u32>,
    /// Most connections that have shown an identity [default: 1024, fewer with less than 2 GiB of
    /// memory].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub max_connections: Option<u32>,
    /// Most memory of requests and of answers that are not read, in MiB [default: a quarter of the
    /// memory, up to 1024].
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..=2047))]
    pub max_held: Option<u32>,
    /// Most rows of a session, all modules together.
    #[arg(long, value_name = "N", default_value_t = 1 << 20)]
    pub max_session_rows: u64,
    /// Largest trace of a session, in MiB: it is on the disk, beside the session's log, while it
    /// is proven.
    #[arg(long, value_name = "MIB", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_session_size: u32,
    /// Longest message, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub max_message: u32,
    /// Seconds that a stream may be silent, and that a message may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub idle: u32,
    /// Show metrics for Prometheus at http://ADDR/metrics, without TLS or tokens; other addresses than loopback need --insecure.
    #[arg(long, value_name = "ADDR")]
    pub metrics: Option<std::net::SocketAddr>,
    /// How the log is written, on stderr.
    #[arg(long, value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// Threads that prove [default: half of the cores].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub proving_threads: Option<u32>,
    #[command(flatten)]
    pub srs: SrsFile,
}

/// A contributor on the command line: `URL` or `URL=ADAPTER_ID`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contributor {
    /// The URL.
    pub url: String,
    /// The pin.
    pub pin: Option<AdapterId>,
}

fn contributor(text: &str) -> Result<Contributor, String> {
    let (url, pin) = match text.rsplit_once('=') {
        Some((url, pin)) => (
            url,
            Some(pin.parse().map_err(|e: zklora_proof::Error| {
                format!("{e} (expected URL or URL=ADAPTER_ID)")
            })?),
        ),
        None => (text, None),
    };
    if !url.contains("://") {
        return Err(
            "expected a URL such as http://127.0.0.1:7443 or https://example.org:7443".into()
        );
    }
    Ok(Contributor { url: url.trim_end_matches('/').to_string(), pin })
}

/// A token file on the command line: `FILE` or `URL=FILE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenFile {
    /// Whose.
    pub url: Option<String>,
    /// The file.
    pub file: PathBuf,
}

fn token_file(text: &str) -> Result<TokenFile, String> {
    Ok(match text.split_once('=') {
        Some((url, file)) if url.contains("://") => {
            TokenFile { url: Some(url.trim_end_matches('/').to_string()), file: file.into() }
        }
        _ => TokenFile { url: None, file: text.into() },
    })
}

fn mapping(text: &str) -> Result<(String, String), String> {
    let (module, tensor) = text.split_once('=').ok_or("expected MODULE=TENSOR")?;
    Ok((module.to_string(), tensor.to_string()))
}

/// What becomes of a base layer's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// base + delta
    AddDelta,
    /// the delta alone
    Replace,
}

/// `zklora infer`
#[derive(ClapArgs)]
pub struct Infer {
    /// The base model: an ONNX causal language model.
    #[arg(long, value_name = "MODEL.onnx")]
    pub base: PathBuf,
    /// Its tokenizer [default: tokenizer.json beside the base model].
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    /// Folder of the base model's weights (safetensors), to compare fingerprints [default: what
    /// the ONNX file says].
    #[arg(long, value_name = "DIR")]
    pub base_weights: Option<PathBuf>,
    /// Go on with another base model than the adapter is for.
    #[arg(long)]
    pub allow_other_base: bool,
    /// Who serves deltas, with the adapter id that you pinned; may be repeated.
    #[arg(long, value_name = "URL[=ADAPTER_ID]", required = true, value_parser = contributor)]
    pub contributor: Vec<Contributor>,
    /// Text whose loss is measured, with and without the adapters.
    #[arg(long, value_name = "TEXT", conflicts_with = "text_file", allow_hyphen_values = true)]
    pub text: Option<String>,
    /// The same, from a file.
    #[arg(long, value_name = "FILE")]
    pub text_file: Option<PathBuf>,
    /// Tokens that the model sees at once, for the loss; at most as many as the model can.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(2..=1_048_576))]
    pub context: u32,
    /// Tokens to generate with the adapters.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    pub generate: u32,
    /// What to go on with [default: the text].
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub prompt: Option<String>,
    /// 0: the likeliest token; higher: more surprising ones.
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    pub temperature: f32,
    /// Sample among this many likeliest tokens; 0 for all.
    #[arg(long, value_name = "K", default_value_t = 0)]
    pub top_k: usize,
    /// Sample among the likeliest tokens that have this probability together.
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    pub top_p: f32,
    /// Seed of the sampling.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Do not let the base model alone go on with the prompt.
    #[arg(long)]
    pub no_base_text: bool,
    /// What becomes of the output of an adapted layer.
    #[arg(long, value_enum, default_value = "add-delta")]
    pub mode: Mode,
    /// Where a layer is that is not found by its name: the ONNX tensor that it puts out; may be
    /// repeated.
    #[arg(long, value_name = "MODULE=TENSOR", value_parser = mapping)]
    pub map: Vec<(String, String)>,
    /// The token that the contributor gave you; with several contributors URL=FILE, repeated.
    #[arg(long, value_name = "[URL=]FILE", value_parser = token_file)]
    pub token_file: Vec<TokenFile>,
    /// The authority that signed the contributors' certificates (PEM) [default: those that this
    /// machine trusts].
    #[arg(long, value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// Your certificate (PEM), if a contributor asks for one.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Use plaintext to other machines: everybody on the way can read and change what is sent.
    #[arg(long)]
    pub insecure: bool,
    /// Seconds that an answer may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub timeout: u32,
    /// Seconds that a proof may take, with the time that it waits for those of others.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u32).range(1..=604_800))]
    pub proof_timeout: u32,
    /// Go on with a session at another URL than it began with: whoever serves there gets the
    /// session's key.
    #[arg(long)]
    pub moved: bool,
    /// Seconds to wait for a contributor that has gone away or is not there yet.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(0..=86_400))]
    pub patience: u32,
    /// Where your record, the proofs and the report go.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    #[command(flatten)]
    pub srs: TrustedSrs,
}

/// `zklora audit`
#[derive(ClapArgs)]
pub struct Audit {
    /// The contributor's public folder.
    #[arg(long, value_name = "DIR")]
    pub public: PathBuf,
    /// What was delivered: a PEFT folder, a folder that export wrote, or a weights.bin.
    #[arg(long, value_name = "DIR|FILE")]
    pub adapter: PathBuf,
    /// The opening that was delivered with it.
    #[arg(long, value_name = "FILE")]
    pub opening: PathBuf,
    /// The adapter id that you pinned.
    #[arg(long, value_name = "HEX")]
    pub adapter_id: Option<AdapterId>,
    /// Folder of the base model: a delivered DoRA or VeRA folder needs it.
    #[arg(long, value_name = "DIR")]
    pub base: Option<PathBuf>,
    #[command(flatten)]
    pub srs: TrustedSrs,
}

/// `zklora bench`
#[derive(ClapArgs)]
pub struct Bench {
    /// PEFT folder: measure its pipeline.
    #[arg(long, value_name = "DIR", required_unless_present_any = ["profile", "all", "scaling", "task", "against"])]
    pub adapter: Option<PathBuf>,
    /// Folder of the base model: DoRA and VeRA need it.
    #[arg(long, value_name = "DIR", requires = "adapter")]
    pub base: Option<PathBuf>,
    /// Measure an adapter of these shapes instead, with synthetic weights (may be given more than
    /// once).
    #[arg(long, value_name = "NAME", conflicts_with = "adapter", value_parser = PossibleValuesParser::new(PROFILES))]
    pub profile: Vec<String>,
    /// Every profile.
    #[arg(long, conflicts_with_all = ["adapter", "profile"])]
    pub all: bool,
    /// Write the figures of the profiles into this file, between the two lines that mark their
    /// place.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["adapter", "scaling"])]
    pub markdown: Option<PathBuf>,
    /// How costs grow: rows ×1, ×10, ×100; modules ×1, ×2, ×4; rank 4, 8, 16, 32; from one profile
    /// on (distilgpt2).
    #[arg(long, conflicts_with_all = ["adapter", "all"])]
    pub scaling: bool,
    /// Draw the curves into this file.
    #[arg(long, value_name = "FILE.svg", requires = "scaling")]
    pub svg: Option<PathBuf>,
    /// Rows per module, separated by commas (64,640,6400; for profiles 64, for --scaling 16).
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub rows: Vec<u32>,
    /// Measure two-party inference over loopback instead, on this base model (ONNX): forward pass,
    /// calls, deltas, as ratios.
    #[arg(long, value_name = "MODEL.onnx", conflicts_with = "rows", requires = "adapter")]
    pub model: Option<PathBuf>,
    /// Tokens of a forward pass.
    #[arg(long, value_name = "N", default_value_t = 64, requires = "model", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub tokens: u32,
    /// Forward passes.
    #[arg(long, value_name = "N", default_value_t = 9, requires = "model", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub repetitions: u32,
    /// One stage of a profile, described by this file: what the command starts for each.
    #[arg(long, value_name = "FILE", hide = true, conflicts_with_all = ["adapter", "profile", "all", "scaling"])]
    pub task: Option<PathBuf>,
    #[command(flatten)]
    pub against: against::Against,
    #[command(flatten)]
    pub srs: SrsFile,
}
