//! What the program prints: tables for people, one JSON object for machines, progress on stderr if it is a terminal.

use std::{fmt::Display, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

/// Where and how to print.
pub struct Output {
    json: bool,
}

impl Output {
    /// JSON or text.
    pub fn new(json: bool) -> Output {
        Output { json }
    }

    /// The result: `json` for machines, `rows` of label and value for people.
    pub fn result(&self, json: &Value, rows: &[(&str, String)]) {
        if self.json {
            line(json);
            return;
        }
        let width = rows.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
        for (label, value) in rows {
            if value.is_empty() {
                line(label);
            } else {
                line(format_args!("{label:<width$}  {value}"));
            }
        }
    }

    /// Text for people that is laid out already.
    pub fn text(&self, json: &Value, text: &str) {
        if self.json { line(json) } else { line(text.trim_end()) }
    }

    /// A table with a header line; nothing in JSON mode.
    pub fn table(&self, rows: &[Vec<String>]) {
        if self.json {
            return;
        }
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in rows {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .enumerate()
                .map(
                    |(column, (cell, width))| {
                        if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
                    },
                )
                .collect();
            line(cells.join("  ").trim_end());
        }
    }

    /// Something that the user should know although it is not an error.
    pub fn warn(&self, message: impl Display) {
        eprintln!("warning: {}", shown(message));
    }

    /// Why the command failed.
    pub fn error(&self, error: &anyhow::Error) {
        if self.json {
            line(serde_json::json!({ "error": error.to_string() }));
        }
        // Messages of the libraries name their cause themselves.
        eprintln!("error: {}", shown(error));
    }

    /// A spinner on stderr; invisible when stderr is no terminal.
    pub fn spinner(&self) -> ProgressBar {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        bar
    }
}

/// Text of files that somebody else made, safe to show on a terminal: control characters (but for new lines) and marks that
/// change the direction of writing are shown as what they are.
fn shown(text: impl Display) -> String {
    let mut out = String::new();
    for c in text.to_string().chars() {
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if (c.is_control() && c != '\n') || turns { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// One line on stdout. A reader that has gone away is no error; a full disk is.
pub fn line(text: impl Display) {
    use std::io::Write;
    match writeln!(std::io::stdout(), "{}", shown(text)) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            eprintln!("error: stdout: {e}");
            std::process::exit(2)
        }
        _ => {}
    }
}

/// A time with three significant digits.
pub fn seconds(duration: Duration) -> String {
    let s = duration.as_secs_f64();
    if s >= 10.0 {
        format!("{s:.1} s")
    } else if s >= 1.0 {
        format!("{s:.2} s")
    } else {
        format!("{:.0} ms", s * 1e3)
    }
}

/// A size in the unit that fits.
pub fn bytes(count: u64) -> String {
    match count {
        0..1024 => format!("{count} B"),
        1024..1_048_576 => format!("{:.1} KiB", count as f64 / 1024.0),
        _ => format!("{:.1} MiB", count as f64 / 1_048_576.0),
    }
}

/// A number with thousands separated.
pub fn count(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
