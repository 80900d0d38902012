//! Reads and writes elements of the scalar field of BN254 in EZKL's format: 32 bytes as hex, least
//! significant first.

/// The field's order, least significant word first.
const ORDER: [u64; 4] =
    [0x43e1_f593_f000_0001, 0x2833_e848_79b9_7091, 0xb850_45b6_8181_585d, 0x3064_4e72_e131_a029];

/// Reads a field element as a small signed integer. The upper half of the field is negative.
pub(super) fn parse(text: &str) -> Result<i64, String> {
    let words = words(text)?;
    if let [low, 0, 0, 0] = words
        && let Ok(value) = i64::try_from(low)
    {
        return Ok(value);
    }
    match minus(ORDER, words) {
        [low, 0, 0, 0] if low <= 1 << 63 => Ok((low as i64).wrapping_neg()),
        _ => Err(format!("`{text}` does not stand for an integer of 64 bits")),
    }
}

/// The words of a canonical element.
fn words(text: &str) -> Result<[u64; 4], String> {
    let mut bytes = [0u8; 32];
    hex::decode_to_slice(text, &mut bytes)
        .map_err(|_| format!("`{text:.70}` is not 64 hex digits"))?;
    let mut words = [0u64; 4];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    }
    if words.iter().rev().ge(ORDER.iter().rev()) {
        return Err(format!("`{text}` is not below the field's order"));
    }
    Ok(words)
}

/// Whether a text is one canonical element in lower case.
pub(super) fn is_element(text: &str) -> bool {
    words(text).is_ok() && !text.bytes().any(|b| b.is_ascii_uppercase())
}

/// Writes a small integer as EZKL does.
pub(super) fn encode(value: i64) -> String {
    let magnitude = [value.unsigned_abs(), 0, 0, 0];
    let words = if value < 0 { minus(ORDER, magnitude) } else { magnitude };
    hex::encode(words.map(u64::to_le_bytes).concat())
}

/// `a - b`, for `a ≥ b`.
fn minus(a: [u64; 4], b: [u64; 4]) -> [u64; 4] {
    let mut out = [0u64; 4];
    let mut borrow = false;
    for i in 0..4 {
        let (difference, first) = a[i].overflowing_sub(b[i]);
        let (difference, second) = difference.overflowing_sub(u64::from(borrow));
        (out[i], borrow) = (difference, first || second);
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_written_as_ezkl_writes_them() {
        // Pairs that `ezkl.float_to_felt(value, 0)` of version 23.0.5 gave.
        for (value, text) in [
            (776, "0803000000000000000000000000000000000000000000000000000000000000"),
            (-1, "000000f093f5e1439170b97948e833285d588181b64550b829a031e1724e6430"),
        ] {
            assert_eq!((encode(value).as_str(), parse(text)), (text, Ok(value)));
        }
        for value in [0, 1, -1, i64::MAX, i64::MIN, i64::MIN + 1, 1 << 40, -(1 << 40)] {
            assert_eq!(parse(&encode(value)), Ok(value));
        }
    }

    #[test]
    fn other_encodings_and_large_elements_are_refused() {
        let order = hex::encode(ORDER.map(u64::to_le_bytes).concat());
        assert!(parse(&order).unwrap_err().contains("below the field's order"));
        assert!(parse(&"ff".repeat(32)).is_err() && parse("00").is_err() && parse("NaN").is_err());
        let large = format!("{}01{}", "00".repeat(8), "00".repeat(23));
        assert!(parse(&large).unwrap_err().contains("64 bits"));
        assert!(is_element(&large) && !is_element(&large.replace('0', "A")));
    }
}
