//! How a file has its floats.

/// How a file has its floats. All are little-endian.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum FloatType {
    F16,
    Bf16,
    F32,
    F64,
}

impl FloatType {
    /// Bytes of a number.
    pub fn width(self) -> usize {
        match self {
            FloatType::F16 | FloatType::Bf16 => 2,
            FloatType::F32 => 4,
            FloatType::F64 => 8,
        }
    }

    /// The numbers, rounded to 32 bits.
    pub fn to_floats(self, bytes: &[u8]) -> Vec<f32> {
        let words = bytes.chunks_exact(self.width());
        match self {
            FloatType::F16 => {
                words.map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
            }
            FloatType::Bf16 => {
                words.map(|b| half::bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
            }
            FloatType::F32 => words.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            FloatType::F64 => words
                .map(|b| {
                    f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as f32
                })
                .collect(),
        }
    }
}
