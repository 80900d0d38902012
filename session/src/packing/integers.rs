//! Integers in blocks of 32, each as wide as its largest one.
//!
//! ```text
//! block    width: u8 (0 to 32) ‖ ⌈count·width / 8⌉ bytes   (count: 32, at last the rest)
//! ```
//!
//! The bytes hold the integers one after the other, `width` bits each, the lowest bit first; the
//! bits after the last one are zero. A signed integer n is written as 2n, or as −2n − 1 if it is
//! negative. A 64-bit integer is written as two: all lower halves, then all upper halves. There is
//! one encoding of each list: a width is that of the largest integer.

use bitpacking::{BitPacker as _, BitPacker1x};

/// Integers of a block.
pub const BLOCK: usize = BitPacker1x::BLOCK_LEN;

/// Bytes of a full block at width 32.
const MAX_BLOCK: usize = BLOCK * 4;

/// The most bytes that `count` integers of 32 bits take.
pub const fn max_len(count: usize) -> usize {
    count.saturating_mul(4).saturating_add(count.div_ceil(BLOCK))
}

/// Packs integers of 32 bits.
pub fn pack(values: &[i32]) -> Vec<u8> {
    let mut out = Vec::with_capacity(max_len(values.len()));
    let mut block = [0u32; BLOCK];
    for values in values.chunks(BLOCK) {
        block[values.len()..].fill(0);
        for (word, value) in block.iter_mut().zip(values) {
            *word = ((value << 1) ^ (value >> 31)) as u32;
        }
        push(&block, values.len(), &mut out);
    }
    out
}

/// Packs integers of 64 bits.
pub fn pack_wide(values: &[i64]) -> Vec<u8> {
    let mut out = Vec::with_capacity(max_len(values.len()) * 2);
    let mut block = [0u32; BLOCK];
    for shift in [0, 32] {
        for values in values.chunks(BLOCK) {
            block[values.len()..].fill(0);
            for (word, value) in block.iter_mut().zip(values) {
                *word = (((value << 1) ^ (value >> 63)) as u64 >> shift) as u32;
            }
            push(&block, values.len(), &mut out);
        }
    }
    out
}

/// Appends a block of which `count` integers are used.
fn push(block: &[u32; BLOCK], count: usize, out: &mut Vec<u8>) {
    let packer = BitPacker1x::new();
    let width = packer.num_bits(block);
    let mut bytes = [0u8; MAX_BLOCK];
    packer.compress(block, &mut bytes, width);
    out.push(width);
    out.extend_from_slice(&bytes[..(count * usize::from(width)).div_ceil(8)]);
}

/// The `count` integers of 32 bits that these bytes are, and no other bytes.
///
/// # Errors
/// What is wrong. Before more memory is taken, `count` is at most 32 times the number of bytes.
pub fn unpack(mut bytes: &[u8], count: usize) -> Result<Vec<i32>, String> {
    let mut values = zeros(bytes, count)?;
    for values in values.chunks_mut(BLOCK) {
        let block = next(&mut bytes, values.len())?;
        for (value, word) in values.iter_mut().zip(block) {
            *value = (word >> 1) as i32 ^ -((word & 1) as i32);
        }
    }
    ended(bytes)?;
    Ok(values)
}

/// The `count` integers of 64 bits that these bytes are, and no other bytes.
///
/// # Errors
/// Those of [`unpack`].
pub fn unpack_wide(mut bytes: &[u8], count: usize) -> Result<Vec<i64>, String> {
    let mut values: Vec<i64> = zeros(bytes, count)?;
    for values in values.chunks_mut(BLOCK) {
        let block = next(&mut bytes, values.len())?;
        values.iter_mut().zip(block).for_each(|(value, word)| *value = i64::from(word));
    }
    for values in values.chunks_mut(BLOCK) {
        let block = next(&mut bytes, values.len())?;
        for (value, word) in values.iter_mut().zip(block) {
            let all = *value as u64 | u64::from(word) << 32;
            *value = (all >> 1) as i64 ^ -((all & 1) as i64);
        }
    }
    ended(bytes)?;
    Ok(values)
}

/// Memory for the integers of so many bytes. Every block takes a byte at least.
fn zeros<T: Clone + Default>(bytes: &[u8], count: usize) -> Result<Vec<T>, String> {
    if count.div_ceil(BLOCK) > bytes.len() {
        return Err(format!("{} bytes are too few for {count} packed integers", bytes.len()));
    }
    Ok(vec![T::default(); count])
}

/// Takes a block with `count` integers off the bytes.
fn next(bytes: &mut &[u8], count: usize) -> Result<[u32; BLOCK], String> {
    let short = || "the packed integers end early".to_string();
    let (width, rest) = bytes.split_first().ok_or_else(short)?;
    if *width > 32 {
        return Err(format!("a block of packed integers has {width} bits: expected at most 32"));
    }
    let length = (count * usize::from(*width)).div_ceil(8);
    let packed = rest.get(..length).ok_or_else(short)?;
    *bytes = &rest[length..];
    let (packer, mut block) = (BitPacker1x::new(), [0u32; BLOCK]);
    if count == BLOCK {
        packer.decompress(packed, &mut block, *width);
    } else {
        let mut all = [0u8; MAX_BLOCK];
        all[..length].copy_from_slice(packed);
        packer.decompress(&all[..BLOCK * usize::from(*width) / 8], &mut block, *width);
        if block[count..].iter().any(|word| *word != 0) {
            return Err("the bits after the last packed integer are not zero".into());
        }
    }
    if packer.num_bits(&block) != *width {
        return Err(format!("a block of packed integers has {width} bits, and needs fewer"));
    }
    Ok(block)
}

fn ended(bytes: &[u8]) -> Result<(), String> {
    match bytes.len() {
        0 => Ok(()),
        more => Err(format!("{more} bytes follow the packed integers")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    /// The bytes of the format, bit by bit.
    fn simple(values: &[u32]) -> Vec<u8> {
        let mut out = Vec::new();
        for block in values.chunks(BLOCK) {
            let width = block.iter().map(|value| 32 - value.leading_zeros()).max().unwrap();
            out.push(width as u8);
            let bits: Vec<bool> = block
                .iter()
                .flat_map(|value| (0..width).map(move |bit| value >> bit & 1 == 1))
                .collect();
            out.extend(bits.chunks(8).map(|bits| {
                bits.iter().enumerate().map(|(at, bit)| u8::from(*bit) << at).sum::<u8>()
            }));
        }
        out
    }

    fn simple_wide(values: &[i64]) -> Vec<u8> {
        let twice = |value: &i64| {
            let wide = i128::from(*value);
            (if wide < 0 { -2 * wide - 1 } else { 2 * wide }) as u64
        };
        let half = |shift: u32| values.iter().map(move |v| (twice(v) >> shift) as u32).collect();
        let (lower, upper): (Vec<u32>, Vec<u32>) = (half(0), half(32));
        [simple(&lower), simple(&upper)].concat()
    }

    /// Lists of blocks of different widths.
    fn values() -> impl Strategy<Value = Vec<i64>> {
        let blocks = prop::collection::vec((0u32..64, any::<[i64; BLOCK]>()), 0..6);
        (blocks, 0..BLOCK).prop_map(|(blocks, less)| {
            let of = |(shift, block): (u32, [i64; BLOCK])| block.map(|value| value >> shift);
            let mut values: Vec<i64> = blocks.into_iter().flat_map(of).collect();
            values.truncate(values.len().saturating_sub(less));
            values
        })
    }

    proptest! {
        #[test]
        fn integers_survive_packing_and_have_the_bytes_of_the_format(wide in values()) {
            let values: Vec<i32> = wide.iter().map(|value| *value as i32).collect();
            let packed = pack(&values);
            let twice: Vec<u32> = values
                .iter()
                .map(|v| (if *v < 0 { -2 * i64::from(*v) - 1 } else { 2 * i64::from(*v) }) as u32)
                .collect();
            prop_assert_eq!(&packed, &simple(&twice));
            prop_assert!(packed.len() <= max_len(values.len()));
            prop_assert_eq!(unpack(&packed, values.len()).unwrap(), values);
            let packed = pack_wide(&wide);
            prop_assert_eq!(&packed, &simple_wide(&wide));
            prop_assert!(packed.len() <= 2 * max_len(wide.len()));
            prop_assert_eq!(unpack_wide(&packed, wide.len()).unwrap(), wide);
        }

        #[test]
        fn there_is_one_encoding(
            bytes in prop::collection::vec(0u8..40, 0..300),
            count in 0usize..80,
        ) {
            if let Ok(values) = unpack(&bytes, count) {
                prop_assert_eq!(pack(&values), bytes.clone());
            }
            if let Ok(values) = unpack_wide(&bytes, count) {
                prop_assert_eq!(pack_wide(&values), bytes);
            }
        }
    }

    #[test]
    fn other_bytes_are_refused() {
        let values: Vec<i32> = (0..40).collect();
        let packed = pack(&values);
        let refused = |bytes: &[u8], count: usize, why: &str| {
            let error = unpack(bytes, count).unwrap_err();
            assert!(error.contains(why), "{error}");
        };
        refused(&packed[..packed.len() - 1], 40, "end early");
        refused(&[&packed[..], &[0]].concat(), 40, "1 bytes follow");
        refused(&packed, 1 << 40, "are too few for");
        refused(&[33], 1, "33 bits");
        // One integer 1 (which is 2) at a width of 3 bits.
        refused(&[3, 2], 1, "needs fewer");
        refused(&[1], 0, "1 bytes follow");
        // A bit after the integer of two bits.
        refused(&[2, 0b110], 1, "not zero");
        assert_eq!(unpack(&[2, 0b10], 1).unwrap(), [1]);
        assert_eq!(unpack(&[0], 32).unwrap(), [0; 32]);
        assert!(unpack(&[], 0).unwrap().is_empty());
        for extreme in [i64::MIN, i64::MAX, 0, -1] {
            assert_eq!(unpack_wide(&pack_wide(&[extreme]), 1).unwrap(), [extreme]);
        }
    }
}
