//! The command line.

pub mod activation_commitment;
pub mod report;

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};
use zklora_circuit::manifest::AdapterId;

/// Prove that every delta of a session came from one committed LoRA adapter, without showing its weights.
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
    #[command(after_help = "Example: zklora run --adapter fixtures/adapters/smollm2-r4-qv --rows 64")]
    Run(Run),
    /// PEFT adapter to one ONNX file per submodule, plus export.json.
    #[command(after_help = "Example: zklora export --adapter my-lora --out onnx --module '*.q_proj'")]
    Export(Export),
    /// ONNX files (or a folder that export wrote) to artifacts: public/ for everybody, private/ for you alone.
    #[command(after_help = "Example: zklora compile onnx --out artifacts")]
    Compile(Compile),
    /// The structured reference string: whose ceremony, and is it sound.
    #[command(subcommand)]
    Srs(SrsCommand),
    /// Sessions: run the quantised adapter on activations, look at a recorded session, commit to activations.
    #[command(subcommand)]
    Trace(TraceCommand),
    /// Prove a recorded session: one proof, whatever the number of modules and rows.
    #[command(after_help = "Example: zklora prove --artifacts artifacts --trace trace.safetensors --out session.pf")]
    Prove(Prove),
    /// Verify the proof of a session against your pin and your own trace.
    #[command(
        after_help = "Example: zklora verify --public artifacts/public --trace trace.safetensors --proof session.pf --adapter-id 3f…"
    )]
    Verify(Verify),
    /// After payment: is the delivered adapter the one that was committed and proven?
    #[command(
        after_help = "Example: zklora audit --public artifacts/public --adapter delivered-lora --opening opening --adapter-id 3f…"
    )]
    Audit(Audit),
    /// What an adapter did to a base model, as `infer` recorded it: a table, and a page for a browser.
    #[command(
        after_help = "The exit code is 0 whatever the verdicts in the report are.\n\nExample: zklora report run-1 --html run-1.html"
    )]
    Report(report::Report),
    /// Measure the pipeline on this machine for several numbers of rows.
    #[command(after_help = "Example: zklora bench --adapter fixtures/adapters/smollm2-r4-qv --rows 64,640,6400")]
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
    hex::decode_to_slice(text.trim(), &mut id).map_err(|_| "a session id is 64 hex digits: 32 random bytes")?;
    Ok(SessionId(id))
}

/// Which SRS.
#[derive(ClapArgs)]
pub struct SrsFile {
    /// Ceremony file (JSON with g1_monomial and g2_monomial) [default: the Ethereum KZG ceremony, built in].
    #[arg(long, value_name = "FILE")]
    pub srs: Option<PathBuf>,
}

/// Which SRS, for commands that rest a verdict on it.
#[derive(ClapArgs)]
pub struct TrustedSrs {
    #[command(flatten)]
    pub file: SrsFile,
    /// Accept an SRS file whose ceremony this program does not know: whoever made it can forge proofs.
    #[arg(long)]
    pub insecure_srs: bool,
}

/// `zklora run`
#[derive(ClapArgs)]
pub struct Run {
    /// PEFT folder (adapter_config.json, adapter_model.safetensors).
    #[arg(long, value_name = "DIR")]
    pub adapter: PathBuf,
    /// Folder of the base model (safetensors): its fingerprint goes into the manifest; DoRA and VeRA need it.
    #[arg(long, value_name = "DIR")]
    pub base: Option<PathBuf>,
    /// Pseudo-random rows per module [default: the folder's activations.safetensors if there is one, else 64].
    #[arg(long, value_name = "N", conflicts_with = "trace", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub rows: Option<u32>,
    /// Activations to run on: safetensors with one tensor `<module>.x` per module.
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Keep every file here [default: a temporary folder that is removed at the end; a kill leaves it].
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
    /// Folder of the base model (safetensors): its fingerprint goes into the manifest; DoRA and VeRA need it.
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
    /// Activations to choose bit widths with, by measured error: .safetensors (`<module>.x`), or for one module .npy or .json.
    #[arg(long, value_name = "FILE")]
    pub calibrate: Option<PathBuf>,
    /// Write nothing: show which ONNX node became what, and the terms of each module. Shows scalar factors: for the owner's eyes.
    #[arg(long, conflicts_with_all = ["plan", "locked"])]
    pub explain: bool,
    /// Write nothing: say what committing, proving and verifying will cost on this machine.
    #[arg(long, conflicts_with = "locked")]
    pub plan: bool,
    /// Write nothing: regenerate everything in memory, compare it with the folder, exit with 1 if anything differs.
    #[arg(long)]
    pub locked: bool,
    #[command(flatten)]
    pub srs: SrsFile,
}

/// `zklora srs`
#[derive(Subcommand)]
pub enum SrsCommand {
    /// Whose ceremony, how many points, which digest.
    #[command(after_help = "Example: zklora srs info --srs ceremony.json")]
    Info(SrsFile),
    /// Check every point and the pairing equations, without the cache.
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
    /// Activations: .safetensors (`<module>.x`), or for one module .npy or .json ({"input_data": [[…]]}).
    #[arg(long, value_name = "FILE")]
    pub inputs: PathBuf,
    /// The module that a .npy or .json file is for.
    #[arg(long, value_name = "NAME")]
    pub module: Option<String>,
    /// The user's session id, 64 hex digits [default: fresh random bytes].
    #[arg(long, value_name = "HEX", value_parser = session_id)]
    pub session_id: Option<SessionId>,
    /// Serve no more than this many rows of a module, over all sessions of the folder [default: no limit].
    #[arg(long, value_name = "N")]
    pub max_rows: Option<usize>,
    /// Where the trace goes.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    #[command(flatten)]
    pub srs: SrsFile,
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
    /// Where the proof goes.
    #[arg(long, value_name = "FILE.pf")]
    pub out: PathBuf,
    #[command(flatten)]
    pub srs: SrsFile,
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
    /// The proof.
    #[arg(long, value_name = "FILE.pf")]
    pub proof: PathBuf,
    /// The adapter id that you pinned before the session. Without it, nothing says that the adapter was fixed beforehand.
    #[arg(long, value_name = "HEX")]
    pub adapter_id: Option<AdapterId>,
    /// The session id that you drew. For a trace that you did not record yourself: without it, it may be of another session.
    #[arg(long, value_name = "HEX", value_parser = session_id)]
    pub session_id: Option<SessionId>,
    /// The activations that you sent, as `trace record` takes them. For a trace that you did not record yourself: without it, it may
    /// hold others.
    #[arg(long, value_name = "FILE")]
    pub inputs: Option<PathBuf>,
    /// The module that a .npy or .json file of --inputs is for.
    #[arg(long, value_name = "NAME", requires = "inputs")]
    pub module: Option<String>,
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
    /// PEFT folder.
    #[arg(long, value_name = "DIR")]
    pub adapter: PathBuf,
    /// Folder of the base model: DoRA and VeRA need it.
    #[arg(long, value_name = "DIR")]
    pub base: Option<PathBuf>,
    /// Rows per module, separated by commas.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "64,640,6400", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub rows: Vec<u32>,
    #[command(flatten)]
    pub srs: SrsFile,
}
