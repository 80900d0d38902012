//! Prints the program's output: tables for people, one JSON object for machines, progress on stderr
//! if it is a terminal.
//!
//! All output goes through this module, and any of it may contain foreign text (names in files,
//! messages of peers). So this module escapes every cell, line, message and step
//! ([`zklora_files::text`]): a line break inside one never starts a line. Callers pass lines and
//! cells without line breaks.

use std::{fmt::Display, path::Path, process::exit, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use zklora_files::text::{self, shown};
pub use zklora_runtime::numbers::{bytes, count};

use crate::exit_code::UNUSABLE;

/// The output and its format.
pub struct Output {
    json: bool,
}

impl Output {
    /// Prints JSON if `json` is set, else text.
    pub fn new(json: bool) -> Output {
        Output { json }
    }

    /// Prints the result: `json` for machines, `rows` of label and value for people.
    pub fn result(&self, json: &Value, rows: &[(&str, String)]) {
        if self.json {
            return object(json);
        }
        labelled(rows).iter().for_each(line);
    }

    /// Prints the result: `json` for machines, `lines` for people.
    pub fn lines(&self, json: &Value, lines: impl IntoIterator<Item = impl Display>) {
        if self.json { object(json) } else { lines.into_iter().for_each(line) }
    }

    /// Prints a table whose first row is the header; nothing in JSON mode.
    pub fn table(&self, rows: &[Vec<String>]) {
        if self.json {
            return;
        }
        columns(rows).iter().for_each(line);
    }

    /// Prints a script that this program generated, without escaping.
    pub fn script(&self, bytes: &[u8]) {
        write(bytes);
    }

    /// Prints a warning.
    pub fn warn(&self, message: impl Display) {
        eprintln!("warning: {}", shown(message));
    }

    /// Prints why the command failed.
    pub fn error(&self, error: &anyhow::Error) {
        if self.json {
            object(&serde_json::json!({ "error": error.to_string() }));
        }
        // Not the chain of causes: a library error's message includes its cause.
        eprintln!("error: {}", shown(error));
    }

    /// A spinner on stderr; invisible if stderr is not a terminal.
    pub fn spinner(&self) -> Spinner {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Spinner(bar)
    }
}

/// Shows the current step.
pub struct Spinner(ProgressBar);

impl Spinner {
    /// Shows a step.
    pub fn set_message(&self, step: impl Display) {
        self.0.set_message(shown(step));
    }

    #[cfg(feature = "server")]
    /// Hides the spinner while `print` prints.
    pub fn suspend(&self, print: impl FnOnce()) {
        self.0.suspend(print);
    }

    /// Removes the spinner.
    pub fn finish_and_clear(&self) {
        self.0.finish_and_clear();
    }
}

/// A path for a JSON object. Bytes that are not UTF-8 are replaced, because JSON cannot hold them.
pub fn path(path: &Path) -> String {
    path.display().to_string()
}

/// One line per row, with aligned values.
fn labelled(rows: &[(&str, String)]) -> Vec<String> {
    let rows: Vec<(String, String)> =
        rows.iter().map(|(label, value)| (shown(label), shown(value))).collect();
    let width = rows.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
    let line = |(label, value): (String, String)| {
        if value.is_empty() { label } else { format!("{label:<width$}  {value}") }
    };
    rows.into_iter().map(line).collect()
}

/// One line per row, in columns.
fn columns(rows: &[Vec<String>]) -> Vec<String> {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(shown).collect()).collect();
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let cell = |(column, (cell, width)): (usize, (&String, &usize))| {
        if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
    };
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().zip(&widths).enumerate().map(cell).collect();
        cells.join("  ").trim_end().to_string()
    };
    rows.iter().map(line).collect()
}

/// One line on stdout.
fn line(text: impl Display) {
    write(format!("{}\n", shown(text)).as_bytes());
}

/// One JSON object on one line.
fn object(json: &Value) {
    match text::json(json) {
        Ok(json) => write(format!("{json}\n").as_bytes()),
        Err(e) => fail(&format!("the result has no JSON form: {}", shown(e))),
    }
}

/// Bytes on stdout. A closed pipe is no error; a full disk is.
fn write(bytes: &[u8]) {
    use std::io::Write;
    let mut stdout = std::io::stdout();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => fail(&format!("stdout: {e}")),
        _ => {}
    }
}

fn fail(why: &str) -> ! {
    eprintln!("error: {why}");
    exit(i32::from(UNUSABLE))
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zklora_files::text::is_plain;

    use super::*;

    proptest! {
        /// For any module name: a row is one line that begins with its own label or cell.
        #[test]
        fn the_lines_are_the_rows_whatever_is_in_them(
            names in prop::collection::vec(any::<String>(), 1..6),
        ) {
            let forged = |name: &String| format!("{name}\nVerdict  ACCEPTED{name}");
            let rows: Vec<(&str, String)> =
                names.iter().map(|name| ("Module", forged(name))).collect();
            let lines = labelled(&rows);
            prop_assert_eq!(lines.len(), names.len());
            let plain = |line: &String| line.chars().all(is_plain);
            prop_assert!(lines.iter().all(|line| line.starts_with("Module  ") && plain(line)));
            let labels: Vec<String> = names.iter().map(forged).collect();
            let rows: Vec<(&str, String)> =
                labels.iter().map(|label| (label.as_str(), "same".into())).collect();
            prop_assert_eq!(labelled(&rows).len(), names.len());
            let rows: Vec<Vec<String>> = names
                .iter()
                .map(|name| vec!["m".into(), forged(name), forged(name)])
                .collect();
            let lines = columns(&rows);
            prop_assert_eq!(lines.len(), names.len());
            prop_assert!(lines.iter().all(|line| line.starts_with("m  ") && plain(line)));
        }
    }

    #[test]
    fn columns_are_as_wide_as_what_is_shown() {
        let rows = [vec!["a\nb".to_string(), "1".into()], vec!["c".into(), "22".into()]];
        assert_eq!(columns(&rows), [r"a\nb   1", "c     22"]);
        assert_eq!(
            labelled(&[("Name", "x\ty".into()), ("N", String::new())]),
            [r"Name  x\ty", "N"]
        );
    }
}
