//! A quantised module: bit widths, public scales and integer terms.
//!
//! Knows what the integers mean, not how they were chosen.

/// An integer module: `delta ≈ (Σ terms) · s_row · scaling · 2^scale_log2`.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantized {
    /// Activations satisfy `|x_q| < 2^(x_bits-1)`.
    pub x_bits: u32,
    /// Weights of `A` satisfy `|A_q| < 2^(a_bits-1)`.
    pub a_bits: u32,
    /// Weights of `B`, of biases and of element scales satisfy `|B_q| < 2^(b_bits-1)`.
    pub b_bits: u32,
    /// Every delta of activations in range satisfies `|D_q| < 2^delta_bits`; at most 63. Nothing
    /// else about the bound may be published.
    pub delta_bits: u32,
    /// The public LoRA scaling.
    pub scaling: f64,
    /// The exponent of the public output scale.
    pub scale_log2: i32,
    /// The integer terms, in the order of the map's.
    pub terms: Vec<QuantizedTerm>,
}

/// One integer term.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuantizedTerm {
    /// `x_q · A_q · B_q`.
    LowRank {
        /// Index of the input.
        input: usize,
        /// The columns of `A_q`: r vectors of length d_in.
        a: Vec<Vec<i32>>,
        /// The rows of `B_q`: r vectors of length d_out.
        b: Vec<Vec<i32>>,
    },
    /// `2^shift · w · b_q`, where `w` is the integer that stands for 1 at the row's scale.
    Bias {
        /// The public power of two.
        shift: u32,
        /// The row, of length d_out.
        b: Vec<i32>,
    },
    /// `2^shift · y_q ∘ g_q`.
    ElementScale {
        /// Index of the input.
        input: usize,
        /// The public power of two.
        shift: u32,
        /// The factors, of length d_out.
        g: Vec<i32>,
    },
}
