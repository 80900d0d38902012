//! The header of a safetensors file, read without its tensors.

use std::io::Read;

use safetensors::tensor::Metadata;

/// Longest header that is read, in bytes: the limit of the `safetensors` crate.
pub(crate) const MAX_HEADER: u64 = 100_000_000;

/// Reads the header of a file of `length` bytes: its tensors, and where they begin.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn read(file: &mut impl Read, length: u64) -> Result<(Metadata, u64), String> {
    let mut header = [0u8; 8];
    file.read_exact(&mut header).map_err(|_| format!("it has {length} bytes"))?;
    let bytes = u64::from_le_bytes(header);
    if bytes > MAX_HEADER || bytes + 8 > length {
        return Err(format!("its header would have {bytes} bytes, the file has {length}"));
    }
    let mut header = vec![0u8; bytes as usize];
    file.read_exact(&mut header).map_err(|e| e.to_string())?;
    // Offsets, shapes and types are checked against each other.
    let metadata: Metadata =
        serde_json::from_slice(&header).map_err(|e| format!("its header: {e}"))?;
    let start = bytes + 8;
    // The metadata type checks the order of the tensors, not that they end where the file does.
    if metadata.data_len() as u64 != length - start {
        return Err(format!(
            "its header describes {} bytes of {}",
            metadata.data_len(),
            length - start
        ));
    }
    Ok((metadata, start))
}
