//! `zklora man`

use std::{path::Path, process::ExitCode};

use clap::CommandFactory;
use clap_mangen::Man;
use serde_json::json;
use zklora_files::Access;

use super::outcome::Outcome;
use crate::{
    args,
    output::{Output, count, path},
};

pub fn man(args: &args::Man, output: &Output) -> Outcome {
    zklora_files::create_folder(&args.out, Access::Public)?;
    // `zklora help` explains the same commands in the terminal: it needs no pages.
    let mut program = args::Args::command().disable_help_subcommand(true);
    // Gives the subcommands their full names.
    program.build();
    let mut pages = Vec::new();
    write_pages(&program, &args.out, &mut pages)?;
    output.result(
        &json!({ "out": path(&args.out), "pages": pages }),
        &[("Written", format!("{} manual pages to {}", count(pages.len()), args.out.display()))],
    );
    Ok(ExitCode::SUCCESS)
}

/// Writes the page of a command, then those of its subcommands, and collects the file names.
fn write_pages(command: &clap::Command, out: &Path, pages: &mut Vec<String>) -> anyhow::Result<()> {
    let man = Man::new(command.clone());
    let name = man.get_filename();
    let mut page = Vec::new();
    man.render(&mut page)?;
    zklora_files::write(&out.join(&name), &page, Access::Public)?;
    pages.push(name);
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        write_pages(subcommand, out, pages)?;
    }
    Ok(())
}
