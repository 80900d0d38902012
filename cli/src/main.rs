//! The `zklora` command: arguments, progress and printing. What the commands do is in the library
//! crates.
//!
//! ```text
//! arguments → args (clap) → commands (one file each) → a library crate
//!             result → output (table or JSON) and exit code 0 or 1
//!             error → exit_code (1 or 2, and advice) → output (stderr)
//! ```

mod args;
mod commands;
mod exit_code;
#[cfg(feature = "server")]
mod log;
mod output;
#[cfg(any(feature = "ezkl", feature = "server"))]
mod stop_signal;

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
            let code = exit_code::of(&error);
            output.error(&exit_code::with_advice(error));
            ExitCode::from(code)
        }
    }
}

/// The arguments. An error message repeats them, and a script may have taken them from a foreign
/// file, so the message is built from escaped arguments.
fn arguments() -> args::Args {
    let given: Vec<OsString> = std::env::args_os().collect();
    args::Args::try_parse_from(&given).unwrap_or_else(|error| {
        let escaped = given.iter().map(|argument| shown(argument.display()));
        match args::Args::try_parse_from(escaped) {
            Err(error) => error.exit(),
            // Only the characters that escaping replaced were wrong.
            Ok(_) => clap::Error::raw(
                error.kind(),
                "an argument contains characters that are not allowed: pass UTF-8 text without \
                 control characters\n",
            )
            .exit(),
        }
    })
}
