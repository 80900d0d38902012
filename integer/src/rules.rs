//! The rules that choose scales, with their version. A change of anything here is a new version:
//! integer models of different versions are different functions.

/// Version of the rules.
pub const VERSION: u32 = 1;

/// How many times the largest value of the calibration fits the range of a rounding.
pub const HEADROOM: f64 = 2.0;
/// Bits of a rounded query, key, value or table index, with the sign.
pub const NARROW: u32 = 16;
/// Bits of the residual stream, with the sign.
pub const WIDE: u32 = 32;
/// The residual stream's median has this many bits.
pub const RESIDUAL_MEDIAN_BITS: i32 = 15;
/// Roots of norms have about this many bits at the median of the calibration.
pub const ROOT_BITS: i32 = 18;
/// Roots are at least this: smaller ones would round a norm's result by more than 1 %.
pub const LEAST_ROOT: u64 = 1 << 8;
/// Most bits of a root.
pub const MAX_ROOT_BITS: u32 = 32;
/// Most additional bits of the root at position 0, where language models have massive activations.
pub const FIRST_BITS: u32 = 24;
/// The root mean square of a matrix has at least this many bits.
pub const WEIGHT_BITS: i32 = 13;
/// Bits of gains, where adapters read them.
pub const GAIN_BITS: i32 = 14;
/// Fractional bits of cosines and sines.
pub const WAVE_BITS: u32 = 14;
/// Fractional bits of attention's weights.
pub const PROBABILITY_BITS: u32 = 18;
/// An index of attention's table of exponentials stands for `2^−INDEX_BITS` nats or a little less;
/// for more where the table would be too small.
pub const INDEX_BITS: i32 = 12;
/// Bits of the entries of an activation's table, with the sign. They are no index of another table,
/// so more bits cost nothing.
pub const ENTRY_BITS: u32 = 22;
/// Fractional bits of scores; fewer where the table would be too small.
pub const SCORE_BITS: i32 = 10;
/// Bits of an adapted layer's result that a sum or a product reads, with the sign.
pub const PART: u32 = 64;
/// Entries of a table.
pub const TABLE: usize = 1 << NARROW;
/// Fractional bits of the exponentials of a score.
pub const SCORE_EXPONENTIAL_BITS: u32 = 32;
/// Bits of the public scaling of an adapter, if it is no power of two.
pub const SCALING_BITS: u32 = 16;
/// Fractional bits are within `±MAX_BITS`.
pub const MAX_BITS: i32 = 40;
