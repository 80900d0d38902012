//! The `zklora` command: arguments, progress and printing. What the commands do is in the library crates.

mod args;
mod commands;
mod output;

use std::process::ExitCode;

use clap::Parser;

/// Keeps the memory of large tensors instead of giving it back to the system after every call.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = args::Args::parse();
    let output = output::Output::new(args.json);
    match commands::execute(args.command, &output) {
        Ok(code) => code,
        Err(error) => {
            output.error(&error);
            // 1: the answer is no. 2: bad usage or unusable input.
            let refusal = error.downcast_ref::<zklora_runtime::Error>().is_some_and(zklora_runtime::Error::is_refusal);
            ExitCode::from(if refusal { 1 } else { 2 })
        }
    }
}
