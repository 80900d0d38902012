//! `zklora sessions`

use std::{path::PathBuf, time::Duration};

use clap::{Args as ClapArgs, Subcommand};
use zklora_evaluation::digest::Digest;

/// `zklora sessions`
#[derive(ClapArgs)]
pub struct Sessions {
    /// Folder that compile wrote. Required.
    #[arg(long, value_name = "DIR", global = true)]
    pub artifacts: Option<PathBuf>,
    /// Folder of the sessions, if `serve` was started with --data [default: private/sessions in
    /// the artifacts folder].
    #[arg(long, value_name = "DIR", global = true)]
    pub data: Option<PathBuf>,
    /// Folder of your identity: `list` also shows the bits that answers told of the adapter.
    #[arg(long, value_name = "DIR", global = true)]
    pub identity: Option<PathBuf>,
    /// The command to run [default: list].
    #[command(subcommand)]
    pub command: Option<SessionsCommand>,
}

/// The subcommands of `zklora sessions`.
#[derive(Subcommand)]
pub enum SessionsCommand {
    /// List the sessions, newest first, with their rows, files and states.
    #[command(after_help = "Example: zklora sessions list --artifacts artifacts --all")]
    List(List),
    /// Show one session: rows of each module, batches, files.
    #[command(after_help = "Example: zklora sessions show 3f21 --artifacts artifacts")]
    Show(Named),
    /// Remove the log and proof of sessions whose proof was fetched long enough ago. Their rows
    /// stay counted.
    #[command(
        after_help = "A server may be running. It answers requests for the removed sessions \
with: was served before.\n\n\
Example: zklora sessions prune --older-than 7d --artifacts artifacts"
    )]
    Prune(Prune),
    /// Give up a session that is open or set aside. Its rows stay counted, and it is never proven.
    #[command(
        after_help = "Stop the server first. The session's user cannot resume it and gets no \
proof of it.\n\n\
Example: zklora sessions abandon 3f21 --artifacts artifacts"
    )]
    Abandon(Named),
    /// Give up the proof of an evaluation's sample that is not finished. The buyer is told that
    /// there is none; the bits stay spent.
    #[command(after_help = "A server may be running: it ends the part that it is at.\n\n\
Example: zklora sessions give-up 3f… --artifacts artifacts --identity identity")]
    GiveUp(GiveUp),
    /// Have the next server try again to prove a session that was set aside.
    #[command(after_help = "Example: zklora sessions retry 3f21 --artifacts artifacts")]
    Retry(Named),
}

/// `zklora sessions list`
#[derive(ClapArgs, Default)]
pub struct List {
    /// Show this many sessions [default: 50].
    #[arg(long, value_name = "N", conflicts_with = "all")]
    pub limit: Option<usize>,
    /// Show all sessions.
    #[arg(long)]
    pub all: bool,
}

/// The argument of commands on one session.
#[derive(ClapArgs)]
pub struct Named {
    /// Session id, or an unambiguous prefix of it.
    #[arg(value_name = "ID")]
    pub id: String,
}

/// `zklora sessions give-up`
#[derive(ClapArgs)]
pub struct GiveUp {
    /// The request whose sample is being proven, as the server's log names it.
    #[arg(value_name = "REQUEST")]
    pub request: Digest,
}

/// `zklora sessions prune`
#[derive(ClapArgs)]
pub struct Prune {
    /// Minimum time since the proof was fetched: a number and s, m, h, d or w.
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub older_than: Duration,
    /// Remove nothing; show what would be removed.
    #[arg(long)]
    pub dry_run: bool,
}

fn age(text: &str) -> Result<Duration, String> {
    let unit = text.chars().last().and_then(|unit| match unit {
        's' => Some(1),
        'm' => Some(60),
        'h' => Some(3600),
        'd' => Some(86_400),
        'w' => Some(7 * 86_400),
        _ => None,
    });
    let expected = || "expected a number and s, m, h, d or w, such as 7d".to_string();
    // Every accepted unit is one byte long.
    let number = text
        .get(..text.len().saturating_sub(1))
        .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
    let number: u64 = number.and_then(|digits| digits.parse().ok()).ok_or_else(expected)?;
    number.checked_mul(unit.ok_or_else(expected)?).map(Duration::from_secs).ok_or_else(expected)
}
