//! A public matrix of the base model: floats as the ONNX file has them, read as integers.
//!
//! The integers are computed where they are used, one block at a time, so a model needs no memory
//! for them.

use std::sync::{Arc, OnceLock};

use tract_onnx::prelude::Tensor;

/// A matrix of finite floats.
#[derive(Clone)]
pub struct Weight {
    tensor: Arc<Tensor>,
    outputs: usize,
    inputs: usize,
    /// Whether the file has it as `[inputs, outputs]`.
    transposed: bool,
    /// Computed when it is first asked for: it reads all floats.
    digest: Arc<OnceLock<blake3::Hash>>,
}

impl std::fmt::Debug for Weight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Weight({} x {})", self.outputs, self.inputs)
    }
}

impl Weight {
    /// A matrix `[outputs, inputs]`, or `[inputs, outputs]` if `transposed`. The error says why a
    /// tensor is none.
    pub fn new(tensor: Arc<Tensor>, transposed: bool) -> Result<Weight, String> {
        let dims: Vec<usize> = tensor.shape().iter().copied().filter(|dim| *dim != 1).collect();
        let shape = match (tensor.rank(), dims.as_slice()) {
            (2, _) => [tensor.shape()[0], tensor.shape()[1]],
            (_, [rows, columns]) => [*rows, *columns],
            _ => return Err(format!("a tensor of the shape {:?} is no matrix", tensor.shape())),
        };
        let [first, second] = shape;
        let (outputs, inputs) = if transposed { (second, first) } else { (first, second) };
        let weight = Weight { tensor, outputs, inputs, transposed, digest: Arc::default() };
        let values = weight.values().ok_or("its weights are not float32; export in float32")?;
        if values.len() != outputs * inputs || values.is_empty() {
            return Err("a matrix is empty".into());
        }
        match values.iter().find(|value| !value.is_finite()) {
            Some(value) => Err(format!("a weight is {value}; weights must be finite")),
            None => Ok(weight),
        }
    }

    fn values(&self) -> Option<&[f32]> {
        self.tensor.try_as_plain_ram().ok()?.as_slice::<f32>().ok()
    }

    /// Features that come out; for a table, its entries.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Features that go in; for a table, features of an entry.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Calls `each` with consecutive numbers of the block of outputs `first..first + count`:
    /// output, input and float of each.
    fn for_block(&self, first: usize, count: usize, mut each: impl FnMut(usize, usize, f32)) {
        let Some(values) = self.values() else { return };
        if self.transposed {
            for input in 0..self.inputs {
                let row = &values[input * self.outputs + first..][..count];
                row.iter().enumerate().for_each(|(output, value)| each(output, input, *value));
            }
        } else {
            for output in 0..count {
                let row = &values[(first + output) * self.inputs..][..self.inputs];
                row.iter().enumerate().for_each(|(input, value)| each(output, input, *value));
            }
        }
    }

    /// The integers nearest to `w·gain·2^bits` of the outputs `first..first + count`, ties to even,
    /// as floats, in `block`. Returns the strides of an output and of an input in it.
    ///
    /// A float times a float is exact in `f64`, and so is a power of two: only [`nearest`] rounds.
    pub fn integers(
        &self,
        first: usize,
        count: usize,
        gain: Option<&[f32]>,
        bits: i32,
        block: &mut Vec<f64>,
    ) -> (usize, usize) {
        let scale = power_of_two(bits);
        block.clear();
        let Some(values) = self.values() else { return (1, 1) };
        let round = |value: f32, gain: f32| nearest(f64::from(value) * f64::from(gain) * scale);
        if self.transposed {
            for input in 0..self.inputs {
                let gain = gain.map_or(1.0, |gain| gain[input]);
                let row = &values[input * self.outputs + first..][..count];
                block.extend(row.iter().map(|value| round(*value, gain)));
            }
            return (1, count);
        }
        for output in first..first + count {
            let row = &values[output * self.inputs..][..self.inputs];
            match gain {
                Some(gain) => {
                    block.extend(row.iter().zip(gain).map(|(value, gain)| round(*value, *gain)));
                }
                None => block.extend(row.iter().map(|value| round(*value, 1.0))),
            }
        }
        (self.inputs, 1)
    }

    /// The floats of one output.
    pub fn row(&self, output: usize) -> Vec<f32> {
        let mut row = vec![0.0; self.inputs];
        self.for_block(output, 1, |_, input, value| row[input] = value);
        row
    }

    /// The largest absolute value.
    pub fn largest(&self) -> f64 {
        let values = self.values().unwrap_or(&[]);
        f64::from(values.iter().fold(0.0, |largest: f32, value| largest.max(value.abs())))
    }

    /// The root mean square with gains, summed row by row in the order of the inputs.
    pub fn root_mean_square(&self, gain: Option<&[f32]>) -> f64 {
        let mut columns = vec![0f64; self.inputs];
        self.for_block(0, self.outputs, |_, input, value| {
            columns[input] += f64::from(value) * f64::from(value);
        });
        let sum: f64 = columns
            .iter()
            .enumerate()
            .map(|(input, sum)| {
                let gain = gain.map_or(1.0, |gain| f64::from(gain[input]));
                sum * gain * gain
            })
            .sum();
        (sum / (self.outputs * self.inputs) as f64).sqrt()
    }

    /// BLAKE3 of outputs and inputs as 64-bit little-endian numbers, then of the floats, row by
    /// row, whatever their order in the file.
    pub fn digest(&self) -> blake3::Hash {
        *self.digest.get_or_init(|| self.computed_digest())
    }

    fn computed_digest(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(self.outputs as u64).to_le_bytes());
        hasher.update(&(self.inputs as u64).to_le_bytes());
        const OUTPUTS: usize = 64;
        let mut bytes = Vec::new();
        for first in (0..self.outputs).step_by(OUTPUTS) {
            let count = OUTPUTS.min(self.outputs - first);
            bytes.resize(count * self.inputs * 4, 0);
            self.for_block(first, count, |output, input, value| {
                let at = (output * self.inputs + input) * 4;
                // −0 + 0 is 0: both are the same integer.
                bytes[at..at + 4].copy_from_slice(&(value + 0.0).to_le_bytes());
            });
            hasher.update(&bytes);
        }
        hasher.finalize()
    }
}

/// `2^exponent`, exactly, for exponents from −1022 to 1023; others are cut to those.
pub fn power_of_two(exponent: i32) -> f64 {
    let biased = (exponent.clamp(-1022, 1023) + 1023).unsigned_abs();
    f64::from_bits(u64::from(biased) << 52)
}

/// The nearest integer, ties to even, of numbers below `2^51`: the sum with `1.5·2^52` has no
/// fractional bits left. (`round_ties_even` is a function call on processors without SSE 4.1.)
pub fn nearest(x: f64) -> f64 {
    const MAGIC: f64 = 6_755_399_441_055_744.0;
    (x + MAGIC) - MAGIC
}
