//! The header of a log, and the bytes before each record.

pub(super) const MAGIC: &[u8; 8] = b"zkloralg";

pub(super) const VERSION: u8 = 1;

/// Bytes before the first record.
pub(crate) const HEADER: usize = MAGIC.len() + 1;

/// Bytes of a checksum.
pub(super) const CHECKSUM: usize = 16;

/// Bytes of a length and its check.
pub(super) const LENGTH: usize = 4 + 4;

/// Bytes of a record before its payload.
pub(crate) const FRAME: usize = LENGTH + CHECKSUM;

/// Longest payload, in bytes.
pub const MAX_RECORD: usize = 1 << 28;

pub(super) type Checksum = [u8; CHECKSUM];

pub(super) fn checksum(previous: &Checksum, payload: &[u8]) -> Checksum {
    let mut hasher = blake3::Hasher::new_derive_key("zklora v1 log record");
    hasher.update(previous).update(&(payload.len() as u64).to_le_bytes()).update(payload);
    let mut out = Checksum::default();
    out.copy_from_slice(&hasher.finalize().as_bytes()[..CHECKSUM]);
    out
}

/// A length and its check, as they precede a record.
pub(super) fn length_field(previous: &Checksum, length: u32) -> [u8; LENGTH] {
    let mut hasher = blake3::Hasher::new_derive_key("zklora v1 log length");
    hasher.update(previous).update(&length.to_le_bytes());
    let mut field = [0u8; LENGTH];
    field[..4].copy_from_slice(&length.to_le_bytes());
    field[4..].copy_from_slice(&hasher.finalize().as_bytes()[..LENGTH - 4]);
    field
}
