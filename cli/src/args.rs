//! The command line, as clap parses it. One file holds the options of one command or of one group
//! of options that commands share.

pub mod activation_commitment;
#[cfg(feature = "bench")]
pub mod against;
pub mod evaluate;
pub mod ezkl;
pub mod integer;
pub mod leak;
pub mod offer;
pub mod report;
#[cfg(feature = "server")]
pub mod sessions;
pub mod settle;

mod audit;
#[cfg(feature = "bench")]
mod bench;
mod compile;
mod completions;
#[cfg(feature = "server")]
mod connection;
mod export;
#[cfg(feature = "server")]
mod infer;
mod man;
mod mapping;
mod own_model;
mod prove;
mod run;
#[cfg(feature = "server")]
mod serve;
mod session_id;
mod srs;
mod trace;
#[cfg(feature = "server")]
mod transport;
mod verify;

use clap::{Parser, Subcommand};

#[cfg(feature = "bench")]
pub use self::bench::Bench;
pub use self::{
    audit::Audit,
    compile::Compile,
    completions::Completions,
    export::Export,
    man::Man,
    own_model::OwnModel,
    prove::Prove,
    run::Run,
    session_id::SessionId,
    srs::{SrsCommand, SrsFile, TrustedSrs},
    trace::{Record, TraceCommand},
    verify::Verify,
};
#[cfg(feature = "server")]
pub use self::{
    infer::{Infer, Mode},
    serve::{LogFormat, Serve},
};

/// Prove that every delta of a session came from one committed LoRA adapter, without revealing its
/// weights.
#[derive(Parser)]
#[command(name = "zklora", version, propagate_version = true, max_term_width = 110)]
#[command(
    after_help = "Exit codes: 0 success; 1 the answer is no (a proof does not verify, an audit \
finds a difference); 2 bad usage or unusable input."
)]
pub struct Args {
    /// Print one machine-readable JSON object on stdout.
    #[arg(long, global = true)]
    pub json: bool,
    /// The command to run.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand)]
pub enum Command {
    /// Run the whole pipeline on one adapter: export, compile, commit, run, prove, verify.
    #[command(
        after_help = "Example: zklora run --adapter fixtures/adapters/smollm2-r4-qv --rows 64"
    )]
    Run(Run),
    /// Export a PEFT adapter: one ONNX file per submodule, and export.json.
    #[command(
        after_help = "Example: zklora export --adapter my-lora --out onnx --module '*.q_proj'"
    )]
    Export(Export),
    /// Compile ONNX files to artifacts: public/ for users, private/ for the contributor alone.
    #[command(after_help = "Examples: zklora compile onnx --out artifacts\n          \
zklora compile onnx --out artifacts --backend ezkl --srs kzg17.srs --param-visibility hashed")]
    Compile(Compile),
    /// Inspect or check a structured reference string (SRS) and name its ceremony.
    #[command(subcommand)]
    Srs(SrsCommand),
    /// Record and inspect sessions; commit to activations.
    #[command(subcommand)]
    Trace(TraceCommand),
    /// Prove a recorded session: one proof for any number of modules and rows.
    #[command(
        after_help = "Example: zklora prove --artifacts artifacts --trace trace.safetensors \
--out session.pf"
    )]
    Prove(Prove),
    /// Verify the proof of a session against your pin and your own trace.
    #[command(
        after_help = "Example: zklora verify --public artifacts/public --trace trace.safetensors \
--proof session.pf --adapter-id 3f…"
    )]
    Verify(Verify),
    #[cfg(feature = "server")]
    /// Answer requests for evaluations, and, with --max-rows, serve rows: count them, and prove
    /// every session. Serve rows only to users who may learn what the adapter does: after payment
    /// or under contract.
    #[command(after_help = "Examples: zklora serve --artifacts artifacts --identity identity \
--base model.onnx --model integer\n          \
zklora serve --artifacts artifacts --listen 127.0.0.1:7443 --max-rows 2000\n\n\
Stop it with Ctrl-C or SIGTERM. Sessions survive a restart: start it again with the same folder to \
resume them. docs/operations.md describes how to run a server.")]
    Serve(Serve),
    #[cfg(feature = "server")]
    /// Inspect and maintain the sessions that an artifacts folder has served.
    #[command(after_help = "Example: zklora sessions --artifacts artifacts")]
    Sessions(sessions::Sessions),
    #[cfg(feature = "server")]
    /// Run your own base model with adapters that contributors serve: loss, text, your own record,
    /// and a verified proof.
    #[command(after_help = "Example: zklora infer --base model.onnx \
--contributor http://127.0.0.1:7443=3f… --text-file test.txt --out session\n\n\
The base model is an ONNX file with the inputs input_ids and attention_mask, as models/make \
exports it. To resume an interrupted session, run the same command again.")]
    Infer(Infer),
    /// Check after payment that the delivered adapter is the one that was committed to and proven.
    #[command(
        after_help = "Example: zklora audit --public artifacts/public --adapter delivered-lora \
--opening opening --adapter-id 3f…"
    )]
    Audit(Audit),
    /// Contributors: say what you offer, signed. Buyers: get an offer and look at it.
    #[command(subcommand)]
    Offer(offer::OfferCommand),
    #[cfg(feature = "server")]
    /// Buyers: send units to a contributor and get loss and accuracy of its adapter, signed. No row
    /// leaves the contributor.
    #[command(after_help = "Example: zklora evaluate --offer offer.json \
--contributor https://example.org:7443 --base model.onnx --model integer --units units.jsonl \
--out evaluation\n\n\
The contributor sees the units. A unit is a line of JSON: docs/evaluation.md, \"Units\".")]
    Evaluate(evaluate::Evaluate),
    /// Contributors: sign results once for everybody, to be published beside the offer.
    #[command(after_help = "Example: zklora claim --artifacts artifacts --identity identity \
--base model.onnx --model integer --units benchmark.jsonl --out claim.json\n\n\
A claim spends bits of the budget like an answer to a buyer. It does not show whether the adapter \
was trained on the units.")]
    Claim(evaluate::Claim),
    /// Contributors: encrypt the adapter for a buyer, and sign what it costs. The key stays with
    /// you until payment.
    #[command(after_help = "Example: zklora deliver --artifacts artifacts --identity identity \
--adapter my-lora --request 3f… --price '900 EUR' --key-by 2027-01-31 --out delivery\n\n\
Give the two files to this buyer alone, over a private channel: whoever has them and the key has the \
adapter.")]
    Deliver(settle::Deliver),
    /// Buyers: check a delivery before payment, and afterwards every number of the answer. Third
    /// parties: judge evidence.
    #[command(
        after_help = "Examples: zklora settle evaluation --delivery delivery --base model.onnx --model integer\n          \
zklora settle evaluation --key key --adapter-out adapter --base model.onnx --model integer\n          \
zklora settle --evidence evidence.tar --signer 3f… --base model.onnx --model integer\n\n\
Exit codes: 0 PAYABLE or SETTLED; 1 CONTRADICTED, with evidence in the folder; 2 UNDECIDABLE. \
Evidence of a delivery holds the adapter, readable by everybody who gets it."
    )]
    Settle(settle::Settle),
    /// Verify the proof of an evaluation's sample again, without the contributor.
    #[command(after_help = "Example: zklora verify-sample evaluation --signer 3f… \
--base model.onnx --model integer\n\n\
The folder has what is needed but for the base model: offer, manifest, registration, request, units, \
answer and proof. Whoever drew the sample chose its metric and size, knowing the answer: to anybody \
else the sample is none that chance chose.")]
    VerifySample(settle::VerifySample),
    /// Show an evaluation, or what an adapter did to a base model as `infer` recorded it: a table,
    /// and an HTML page.
    #[command(after_help = "The exit code is 0 whatever verdicts the report holds.\n\n\
Example: zklora report evaluation --html evaluation.html")]
    Report(report::Report),
    /// Measure how much of your adapter's effect an attacker recovers from a few ordinary rows.
    /// Sends nothing and counts no rows.
    #[command(after_help = "Example: zklora leak --artifacts artifacts --base model.onnx \
--text sample.txt --plot leak.svg\n\n\
The command plays an attacker who sends ordinary text. It computes rows and deltas of the text's \
first tokens, fits every module by least norm, and measures the fits in place of the adapter on \
held-out text. Better attacks recover more: docs/security.md. The result is kept in \
private/leak.json; serve and trace record print it.")]
    Leak(leak::Leak),
    /// The base model with an adapter as an exact function on integers: make it, score with it,
    /// compare it with floats.
    #[command(subcommand)]
    Integer(integer::IntegerCommand),
    #[cfg(feature = "bench")]
    /// Measure on this machine: the pipeline of an adapter, or every stage for adapters of given
    /// shapes.
    #[command(
        after_help = "The exit code is 0 whether targets are met or not. Every stage of a profile \
runs in its own process.\n\n\
Examples: zklora bench --adapter fixtures/adapters/smollm2-r4-qv --rows 64,640,6400\n          \
zklora bench --profile llama-3.3-70b\n          \
zklora bench --scaling --svg scaling.svg\n          \
zklora bench --long\n          \
zklora bench --evaluate artifacts --model model.onnx --text text.txt\n          \
zklora bench --against ezkl --module 64x4x64 --html comparison.html"
    )]
    Bench(Bench),
    /// Print shell completions on stdout.
    #[command(after_help = "Example: zklora completions bash > /etc/bash_completion.d/zklora")]
    Completions(Completions),
    /// Write manual pages, one for each command.
    #[command(after_help = "Example: zklora man --out /usr/local/share/man/man1")]
    Man(Man),
}
