//! The `zklora` command: arguments, progress and printing. What the commands do is in the library
//! crates.

mod args;
mod commands;
mod log;
mod output;

use std::{ffi::OsString, process::ExitCode};

use clap::Parser;
use zklora_files::text::shown;

/// Keeps the memory of large tensors instead of giving it back to the system after every call.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = arguments();
    let output = output::Output::new(args.json);
    match commands::execute(args.command, &output) {
        Ok(code) => code,
        Err(error) => {
            let error = with_advice(error);
            output.error(&error);
            // 1: the answer is no. 2: bad usage or unusable input.
            let refusal = error
                .downcast_ref::<zklora_runtime::Error>()
                .is_some_and(zklora_runtime::Error::is_refusal);
            ExitCode::from(if refusal { 1 } else { 2 })
        }
    }
}

/// Adds the flag that accepts what a library refused. The libraries know no flags.
fn with_advice(error: anyhow::Error) -> anyhow::Error {
    use zklora_proof::Error::UntrustedSrs;
    match error.downcast_ref() {
        Some(zklora_runtime::Error::Proof(UntrustedSrs(_))) => {
            let advice = format!("{error}; pass --insecure-srs to accept it");
            error.context(advice)
        }
        _ => error,
    }
}

/// The arguments. A message about them repeats them, and a script may have them from somebody
/// else's file: it is made of escaped ones.
fn arguments() -> args::Args {
    let given: Vec<OsString> = std::env::args_os().collect();
    args::Args::try_parse_from(&given).unwrap_or_else(|error| {
        let escaped = given.iter().map(|argument| shown(argument.display()));
        match args::Args::try_parse_from(escaped) {
            Err(error) => error.exit(),
            // Only what cannot be shown was wrong with them.
            Ok(_) => clap::Error::raw(
                error.kind(),
                "an argument has characters that cannot be shown, and is not usable\n",
            )
            .exit(),
        }
    })
}
