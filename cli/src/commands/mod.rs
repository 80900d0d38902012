//! Runs commands: each file converts the arguments of a command (or of a few small ones), calls the
//! libraries, and prints the result.

mod activation_commitment;
mod adapter;
#[cfg(feature = "bench")]
mod against;
#[cfg(feature = "bench")]
mod bench;
mod claim;
#[cfg(feature = "server")]
mod evaluate;
#[cfg_attr(not(feature = "ezkl"), path = "ezkl_absent.rs")]
mod ezkl;
#[cfg(feature = "server")]
mod infer;
#[cfg(feature = "bench")]
mod inference_bench;
mod integer;
mod leak;
#[cfg(feature = "bench")]
mod long_bench;
mod man;
mod offer;
mod outcome;
#[cfg(feature = "bench")]
mod profile_bench;
mod report;
mod run;
#[cfg(feature = "server")]
mod serve;
mod session;
#[cfg(feature = "server")]
mod sessions;
mod settle;
mod srs;

use std::process::ExitCode;

use clap::CommandFactory;

use self::{ezkl::is_ezkl, outcome::Outcome};
use crate::{
    args::{Args, Command, SrsCommand, TraceCommand, ezkl::Backend},
    output::Output,
};

/// Runs a command.
pub fn execute(command: Command, output: &Output) -> Outcome {
    match command {
        Command::Run(args) => run::run(&args, output),
        Command::Export(args) => adapter::export(&args, output),
        Command::Compile(args) if args.backend == Backend::Ezkl => ezkl::compile(&args, output),
        Command::Compile(args) => adapter::compile(&args, output),
        Command::Audit(args) => {
            ezkl::refuse(&args.public, "audited: EZKL has no commitment to compare weights with")?;
            adapter::audit(&args, output)
        }
        Command::Srs(SrsCommand::Info(args)) => srs::info(&args, output),
        Command::Srs(SrsCommand::Verify(args)) => srs::verify(&args, output),
        Command::Trace(TraceCommand::Record(args)) if is_ezkl(&args.artifacts)? => {
            ezkl::record(&args, output)
        }
        Command::Trace(TraceCommand::Record(args)) => session::record(&args, output),
        Command::Trace(TraceCommand::Info { file }) => session::info(&file, output),
        Command::Trace(TraceCommand::Commit(args)) => activation_commitment::commit(&args, output),
        Command::Trace(TraceCommand::Check(args)) => activation_commitment::check(&args, output),
        Command::Trace(TraceCommand::ProveRow(args)) => {
            activation_commitment::prove_row(&args, output)
        }
        Command::Trace(TraceCommand::CheckRow(args)) => {
            activation_commitment::check_row(&args, output)
        }
        Command::Prove(args) if is_ezkl(&args.artifacts)? => ezkl::prove(&args, output),
        Command::Prove(args) => session::prove(&args, output),
        Command::Verify(args) if ezkl::chosen(&args)? => ezkl::verify(&args, output),
        Command::Verify(args) => session::verify(&args, output),
        #[cfg(feature = "server")]
        Command::Serve(args) => {
            ezkl::refuse(&args.artifacts, "served over the network")?;
            serve::serve(&args, output)
        }
        #[cfg(feature = "server")]
        Command::Sessions(args) => sessions::sessions(&args, output),
        #[cfg(feature = "server")]
        Command::Infer(args) => infer::infer(&args, output),
        Command::Integer(command) => integer::integer(&command, output),
        Command::Offer(command) => offer::offer(&command, output),
        #[cfg(feature = "server")]
        Command::Evaluate(args) => evaluate::evaluate(&args, output),
        Command::Claim(args) => claim::claim(&args, output),
        Command::Deliver(args) => settle::deliver(&args, output),
        Command::Settle(args) => settle::settle(&args, output),
        Command::VerifySample(args) => settle::verify_sample(&args, output),
        Command::Report(args) => report::report(&args, output),
        Command::Leak(args) => {
            ezkl::refuse(
                &args.artifacts,
                "measured: their graphs may be nonlinear, and the measurement fits linear maps",
            )?;
            leak::leak(&args, output)
        }
        #[cfg(feature = "bench")]
        Command::Bench(args) if args.against.against.is_some() => against::bench(&args, output),
        #[cfg(feature = "bench")]
        Command::Bench(args) => bench::bench(&args, output),
        Command::Completions(args) => {
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut Args::command(), "zklora", &mut script);
            output.script(&script);
            Ok(ExitCode::SUCCESS)
        }
        Command::Man(args) => man::man(&args, output),
    }
}
