//! Text and numbers of an HTML page. All text is untrusted: it reaches the page only through
//! [`text`].

use std::fmt::Write;

use zklora_files::text::is_plain;

pub use crate::numbers::{bytes, count, plural};

/// The style sheet of every page, for light and for dark screens.
pub const STYLE: &str = include_str!("style.css");

/// Escapes text: characters with a meaning in HTML become references, and characters that are not
/// plain ([`is_plain`]) become codes. Line breaks and tabs stay, because a page shows them as
/// blanks.
pub fn text(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    for c in raw.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            _ if is_plain(c) => out.push(c),
            _ => out.extend(c.escape_unicode()),
        }
    }
    out
}

/// Begins a page that loads nothing: its policy forbids scripts and loading. Arguments are HTML.
pub fn begin(title: &str, heading: &str, below: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <meta name=\"referrer\" content=\"no-referrer\"><title>{title}</title><style>{STYLE}</style></head><body>\
         <header><h1>{heading}</h1><p class=\"soft\">{below}</p></header><main>"
    )
}

/// Ends a page.
pub fn end(out: &mut String, footer: &str) {
    let _ = writeln!(
        out,
        "</main><footer>Made by <code>zklora report</code> {}. {footer}</footer></body></html>",
        env!("CARGO_PKG_VERSION")
    );
}

/// Appends a number with its label. Both are HTML.
pub fn tile(out: &mut String, value: &str, label: &str) {
    let _ = write!(out, "<div class=\"card tile\"><b>{value}</b><span>{label}</span></div>");
}

/// Formats a number with four significant digits.
pub fn number(x: f64) -> String {
    if !x.is_finite() {
        return "–".into();
    }
    let size = x.abs();
    if size == 0.0 {
        return "0".into();
    }
    if !(1e-3..1e6).contains(&size) {
        return format!("{x:.2e}");
    }
    let decimals = (3 - size.log10().floor() as i32).clamp(0, 6) as usize;
    format!("{x:.decimals$}")
}

/// Formats a share as per cent with three significant digits.
pub fn percent(x: f64) -> String {
    let x = x * 100.0;
    match x.abs() {
        size if !size.is_finite() => "–".into(),
        0.0 => "0 %".into(),
        size if !(1e-3..1e6).contains(&size) => format!("{x:.1e} %"),
        size => format!("{x:.0$} %", (2 - size.log10().floor() as i32).clamp(0, 5) as usize),
    }
}

/// Formats a time in seconds in the unit that fits.
pub fn seconds(time: f64) -> String {
    match time {
        t if !t.is_finite() || t < 0.0 => "–".into(),
        t if t < 1.0 => format!("{:.*} ms", if t < 0.01 { 2 } else { 0 }, t * 1e3),
        t if t < 600.0 => format!("{t:.1} s"),
        t if t < 6e6 => format!("{:.0} min", t / 60.0),
        t => format!("{} min", number(t / 60.0)),
    }
}

/// Appends a table: the first row is its header, and the first cell of each row is the row's
/// header. Cells are HTML.
pub fn table(out: &mut String, caption: &str, rows: &[Vec<String>]) {
    let _ = write!(
        out,
        "<div class=\"scroll\" role=\"region\" aria-label=\"{caption}\" tabindex=\"0\"><table><caption>{caption}</caption>"
    );
    for (index, row) in rows.iter().enumerate() {
        out.push_str(match index {
            0 => "<thead><tr>",
            1 => "<tbody><tr>",
            _ => "<tr>",
        });
        for (column, cell) in row.iter().enumerate() {
            let _ = match (index, column) {
                (0, _) => write!(out, "<th scope=\"col\">{cell}</th>"),
                (_, 0) => write!(out, "<th scope=\"row\">{cell}</th>"),
                _ => write!(out, "<td>{cell}</td>"),
            };
        }
        out.push_str(if index == 0 { "</tr></thead>" } else { "</tr>" });
    }
    out.push_str(if rows.len() > 1 { "</tbody></table></div>" } else { "</table></div>" });
}
