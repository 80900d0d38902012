//! Computes deltas with integers: the reference for every other implementation of a quantised
//! module.

use zklora_artifacts::powers_of_two::pow2;

use super::{
    error::QuantizeError,
    quantized::{Quantized, QuantizedTerm},
};

impl Quantized {
    /// The exact integer deltas, `[rows, d_out]`.
    ///
    /// `inputs[i]` is `[rows, d_i]`; `ones` has, for each row, the integer that stands for 1 at the
    /// row's scale, and is needed only for modules with a bias.
    ///
    /// # Errors
    /// [`QuantizeError::Inputs`] if sizes do not fit, [`QuantizeError::OutOfRange`] for a value of
    /// `2^(x_bits-1)` or more.
    pub fn delta(
        &self,
        inputs: &[&[i32]],
        ones: Option<&[i32]>,
    ) -> Result<Vec<i64>, QuantizeError> {
        let d_out = self.d_out();
        let dims = self.input_dims(inputs.len())?;
        let has_bias = self.terms.iter().any(|term| matches!(term, QuantizedTerm::Bias { .. }));
        let ones = match ones {
            None if has_bias => {
                return Err(misfit(
                    "the module has a bias and needs the integer of 1 for every row",
                ));
            }
            ones => ones.unwrap_or(&[]),
        };
        let rows = match (inputs.first(), dims.first()) {
            (Some(first), Some(dim)) => first.len() / dim,
            _ => ones.len(),
        };
        for (index, (input, dim)) in inputs.iter().zip(&dims).enumerate() {
            if input.len() != rows * dim {
                return Err(misfit(&format!(
                    "input {index} has {} values, not {rows} row(s) of {dim}",
                    input.len()
                )));
            }
            self.check_range(index, input, *dim)?;
        }
        if has_bias && ones.len() != rows {
            return Err(misfit(&format!("{} integers of 1 for {rows} row(s)", ones.len())));
        }
        self.check_range(inputs.len(), ones, 1)?;

        // No sum can overflow: all are below the certified bound, see `bound`.
        let mut delta = vec![0i64; rows * d_out];
        for (row, out) in delta.chunks_exact_mut(d_out.max(1)).enumerate() {
            for term in &self.terms {
                match term {
                    QuantizedTerm::LowRank { input, a, b } => {
                        let x = &inputs[*input][row * dims[*input]..(row + 1) * dims[*input]];
                        for (a, b) in a.iter().zip(b) {
                            let inner: i64 =
                                x.iter().zip(a).map(|(x, a)| i64::from(*x) * i64::from(*a)).sum();
                            out.iter_mut()
                                .zip(b)
                                .for_each(|(sum, b)| *sum += inner * i64::from(*b));
                        }
                    }
                    QuantizedTerm::Bias { shift, b } => {
                        let one = i64::from(ones[row]) << shift;
                        out.iter_mut().zip(b).for_each(|(sum, b)| *sum += one * i64::from(*b));
                    }
                    QuantizedTerm::ElementScale { input, shift, g } => {
                        let y = &inputs[*input][row * d_out..(row + 1) * d_out];
                        let products =
                            y.iter().zip(g).map(|(y, g)| (i64::from(*y) * i64::from(*g)) << shift);
                        out.iter_mut().zip(products).for_each(|(sum, product)| *sum += product);
                    }
                }
            }
        }
        Ok(delta)
    }

    /// Real deltas from integer ones: `D · s_row · scaling · 2^scale_log2`.
    ///
    /// # Errors
    /// [`QuantizeError::Inputs`] if there are not `d_out` deltas for every row scale.
    pub fn dequantize(&self, delta: &[i64], row_scales: &[f32]) -> Result<Vec<f64>, QuantizeError> {
        let d_out = self.d_out();
        if delta.len() != row_scales.len() * d_out {
            return Err(misfit(&format!(
                "{} deltas for {} row(s) of {d_out}",
                delta.len(),
                row_scales.len()
            )));
        }
        let unit = self.scaling * pow2(self.scale_log2);
        let rows = delta.chunks_exact(d_out.max(1)).zip(row_scales);
        Ok(rows
            .flat_map(|(row, scale)| {
                row.iter().map(move |d| *d as f64 * (f64::from(*scale) * unit))
            })
            .collect())
    }

    /// Length of an output row.
    pub fn d_out(&self) -> usize {
        self.terms.first().map_or(0, |term| match term {
            QuantizedTerm::LowRank { b, .. } => b.first().map_or(0, Vec::len),
            QuantizedTerm::Bias { b: row, .. } | QuantizedTerm::ElementScale { g: row, .. } => {
                row.len()
            }
        })
    }

    fn input_dims(&self, inputs: usize) -> Result<Vec<usize>, QuantizeError> {
        let mut dims = vec![0; inputs];
        for term in &self.terms {
            let (input, dim) = match term {
                QuantizedTerm::LowRank { input, a, .. } => (*input, a.first().map_or(0, Vec::len)),
                QuantizedTerm::ElementScale { input, g, .. } => (*input, g.len()),
                QuantizedTerm::Bias { .. } => continue,
            };
            *dims.get_mut(input).ok_or_else(|| misfit(&format!("input {input} is missing")))? = dim;
        }
        if dims.contains(&0) {
            return Err(misfit("more inputs than the module has"));
        }
        Ok(dims)
    }

    fn check_range(&self, input: usize, values: &[i32], dim: usize) -> Result<(), QuantizeError> {
        let bits = self.x_bits - 1;
        match values.iter().position(|value| u64::from(value.unsigned_abs()) >= 1 << bits) {
            None => Ok(()),
            Some(at) => {
                Err(QuantizeError::OutOfRange { input, row: at / dim, value: values[at], bits })
            }
        }
    }
}

fn misfit(what: &str) -> QuantizeError {
    QuantizeError::Inputs { what: what.into() }
}
