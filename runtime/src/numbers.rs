//! Numbers for people, in terminals and in pages.
//!
//! They are formatted here and not by `indicatif`: it would bring a terminal library into this
//! crate, and it has no format for significant digits, shares or times below a second.

/// Formats a count with separated thousands.
pub fn count(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Formats a number of bytes in the unit that fits.
pub fn bytes(count: u64) -> String {
    match count {
        0..1024 => format!("{count} B"),
        1024..1_048_576 => format!("{:.1} KiB", count as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", count as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", count as f64 / 1_073_741_824.0),
    }
}

/// `1 module`, `2 modules`.
pub fn plural(number: usize, noun: &str) -> String {
    let ending = match noun {
        _ if number == 1 => "",
        noun if noun.ends_with('s') => "es",
        _ => "s",
    };
    format!("{} {noun}{ending}", count(number))
}

/// Formats a difference with its sign; zero has none.
pub fn signed(x: f64, decimals: usize) -> String {
    if !x.is_finite() {
        return "–".into();
    }
    let size = format!("{:.decimals$}", x.abs());
    match size.bytes().any(|digit| (b'1'..=b'9').contains(&digit)) {
        false => size,
        true if x < 0.0 => format!("−{size}"),
        true => format!("+{size}"),
    }
}

/// Formats a number with these decimals.
pub fn fixed(x: f64, decimals: usize) -> String {
    // Zero has no sign.
    if x.is_finite() { format!("{:.decimals$}", x + 0.0) } else { "–".into() }
}
