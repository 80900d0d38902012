//! `zklora sessions`

use std::{path::PathBuf, time::Duration};

use clap::{Args as ClapArgs, Subcommand};

/// `zklora sessions`
#[derive(ClapArgs)]
pub struct Sessions {
    /// Folder that compile wrote. Has to be given.
    #[arg(long, value_name = "DIR", global = true)]
    pub artifacts: Option<PathBuf>,
    /// Where sessions are kept, if `serve` was told so [default: private/sessions in the
    /// artifacts' folder].
    #[arg(long, value_name = "DIR", global = true)]
    pub data: Option<PathBuf>,
    /// What to do [default: list].
    #[command(subcommand)]
    pub command: Option<SessionsCommand>,
}

/// The subcommands of `zklora sessions`.
#[derive(Subcommand)]
pub enum SessionsCommand {
    /// All sessions, the newest first, with their rows, files and states.
    #[command(after_help = "Example: zklora sessions list --artifacts artifacts --all")]
    List(List),
    /// One session: rows of each module, batches, files.
    #[command(after_help = "Example: zklora sessions show 3f21 --artifacts artifacts")]
    Show(Named),
    /// Remove log and proof of sessions whose proof was fetched long enough ago. Their rows stay
    /// counted.
    #[command(
        after_help = "A server may run meanwhile. It then answers those ids with: was served before.\n\n\
Example: zklora sessions prune --older-than 7d --artifacts artifacts"
    )]
    Prune(Prune),
    /// Give up a session that is open or set aside. Its rows stay counted, and nothing of it is
    /// ever proven.
    #[command(
        after_help = "The server has to be stopped. The user of the session cannot go on with it, and gets no proof.\n\n\
Example: zklora sessions abandon 3f21 --artifacts artifacts"
    )]
    Abandon(Named),
    /// Let the next server prove a session that was set aside.
    #[command(after_help = "Example: zklora sessions retry 3f21 --artifacts artifacts")]
    Retry(Named),
}

/// `zklora sessions list`
#[derive(ClapArgs, Default)]
pub struct List {
    /// Show this many [default: 50].
    #[arg(long, value_name = "N", conflicts_with = "all")]
    pub limit: Option<usize>,
    /// Show all.
    #[arg(long)]
    pub all: bool,
}

/// Commands about one session.
#[derive(ClapArgs)]
pub struct Named {
    /// Its id, or the beginning of it, if no other id begins so.
    #[arg(value_name = "ID")]
    pub id: String,
}

/// `zklora sessions prune`
#[derive(ClapArgs)]
pub struct Prune {
    /// How long ago the proof was fetched, at least: a number and s, m, h, d or w.
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub older_than: Duration,
    /// Remove nothing: say what would be.
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
    // The unit is one byte.
    let number = text
        .get(..text.len().saturating_sub(1))
        .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
    let number: u64 = number.and_then(|digits| digits.parse().ok()).ok_or_else(expected)?;
    number.checked_mul(unit.ok_or_else(expected)?).map(Duration::from_secs).ok_or_else(expected)
}
