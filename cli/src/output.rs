//! What the program prints: tables for people, one JSON object for machines, progress on stderr if
//! it is a terminal.
//!
//! Nothing is printed but through here, and everything that is printed may hold text of others
//! (names in files, messages of peers). So every cell, line, message and step is escaped here,
//! whoever made it ([`zklora_files::text`]): a line break within one never starts a line. A caller
//! gives lines and cells, never text with line breaks of its own.

use std::{fmt::Display, path::Path, process::exit, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use zklora_files::text::{self, shown};

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
            return object(json);
        }
        labelled(rows).iter().for_each(line);
    }

    /// The result, laid out in lines for people.
    pub fn lines(&self, json: &Value, lines: impl IntoIterator<Item = impl Display>) {
        if self.json { object(json) } else { lines.into_iter().for_each(line) }
    }

    /// A table with a header line; nothing in JSON mode.
    pub fn table(&self, rows: &[Vec<String>]) {
        if self.json {
            return;
        }
        columns(rows).iter().for_each(line);
    }

    /// A script of this program's own making, as it is.
    pub fn script(&self, bytes: &[u8]) {
        write(bytes);
    }

    /// Something that the user should know although it is not an error.
    pub fn warn(&self, message: impl Display) {
        eprintln!("warning: {}", shown(message));
    }

    /// Why the command failed.
    pub fn error(&self, error: &anyhow::Error) {
        if self.json {
            object(&serde_json::json!({ "error": error.to_string() }));
        }
        // Messages of the libraries name their cause themselves.
        eprintln!("error: {}", shown(error));
    }

    /// A spinner on stderr; invisible when stderr is no terminal.
    pub fn spinner(&self) -> Spinner {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Spinner(bar)
    }
}

/// Says what is being done.
pub struct Spinner(ProgressBar);

impl Spinner {
    /// What is being done now.
    pub fn set_message(&self, step: impl Display) {
        self.0.set_message(shown(step));
    }

    /// Prints something else meanwhile.
    pub fn suspend(&self, print: impl FnOnce()) {
        self.0.suspend(print);
    }

    /// The end of it.
    pub fn finish_and_clear(&self) {
        self.0.finish_and_clear();
    }
}

/// A path in a JSON object: one that is not UTF-8 has no JSON form.
pub fn path(path: &Path) -> String {
    path.display().to_string()
}

/// A line for each row, with the values below each other.
fn labelled(rows: &[(&str, String)]) -> Vec<String> {
    let rows: Vec<(String, String)> =
        rows.iter().map(|(label, value)| (shown(label), shown(value))).collect();
    let width = rows.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
    let line = |(label, value): (String, String)| {
        if value.is_empty() { label } else { format!("{label:<width$}  {value}") }
    };
    rows.into_iter().map(line).collect()
}

/// A line for each row, in columns.
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

/// One JSON object on a line of its own.
fn object(json: &Value) {
    match text::json(json) {
        Ok(json) => write(format!("{json}\n").as_bytes()),
        Err(e) => fail(&format!("the result has no JSON form: {}", shown(e))),
    }
}

/// Bytes on stdout. A reader that has gone away is no error; a full disk is.
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
    exit(2)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zklora_files::text::is_plain;

    use super::*;

    proptest! {
        /// However somebody calls a module: a row is a line, and its own label or cell begins it.
        #[test]
        fn the_lines_are_the_rows_whatever_is_in_them(names in prop::collection::vec(any::<String>(), 1..6)) {
            let forged = |name: &String| format!("{name}\nVerdict  ACCEPTED{name}");
            let rows: Vec<(&str, String)> = names.iter().map(|name| ("Module", forged(name))).collect();
            let lines = labelled(&rows);
            prop_assert_eq!(lines.len(), names.len());
            prop_assert!(lines.iter().all(|line| line.starts_with("Module  ") && line.chars().all(is_plain)));
            let labels: Vec<String> = names.iter().map(forged).collect();
            let rows: Vec<(&str, String)> = labels.iter().map(|label| (label.as_str(), "same".into())).collect();
            prop_assert_eq!(labelled(&rows).len(), names.len());
            let rows: Vec<Vec<String>> = names.iter().map(|name| vec!["m".into(), forged(name), forged(name)]).collect();
            let lines = columns(&rows);
            prop_assert_eq!(lines.len(), names.len());
            prop_assert!(lines.iter().all(|line| line.starts_with("m  ") && line.chars().all(is_plain)));
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
