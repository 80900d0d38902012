//! The normal form of an adapter module: `delta = scale * (sum of terms)`, row by row, in real
//! numbers.
//!
//! Knows neither the origin of a map (`ingest`) nor its use (`quantize`).

use thiserror::Error;

use crate::matrix::{Matrix, add_vector_times_matrix};

/// A map that is affine in its inputs, the same for every row.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearMap {
    /// The module's name.
    pub name: String,
    /// The inputs, in the order of the graph; every row takes one vector from each.
    pub inputs: Vec<InputSpec>,
    /// Length of an output row.
    pub d_out: usize,
    /// The product of the constant scalar factors that all terms have (for LoRA, alpha / r).
    pub scale: f64,
    /// The summands, before `scale`. Never empty.
    pub terms: Vec<Term>,
}

/// One input of a [`LinearMap`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputSpec {
    /// The input's name in the graph.
    pub name: String,
    /// Length of one row of this input.
    pub dim: usize,
}

/// One summand of a [`LinearMap`].
#[derive(Debug, Clone, PartialEq)]
pub enum Term {
    /// `x * A * B`.
    LowRank {
        /// Index of the input `x`.
        input: usize,
        /// `A`, d_in × r.
        a: Matrix,
        /// `B`, r × d_out.
        b: Matrix,
    },
    /// A constant row.
    Bias {
        /// The row, of length d_out.
        b: Vec<f64>,
    },
    /// `y ∘ g`, element by element; the input's length is d_out.
    ElementScale {
        /// Index of the input `y`.
        input: usize,
        /// The factors, of length d_out.
        g: Vec<f64>,
    },
}

/// Why a map is malformed or could not be applied.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinearMapError {
    /// The number of inputs given is not the map's.
    #[error("`{name}` takes {expected} input(s), got {got}")]
    InputCount {
        /// The map's name.
        name: String,
        /// Inputs of the map.
        expected: usize,
        /// Inputs given.
        got: usize,
    },
    /// An input is not a whole number of rows, or has another number of rows than the first input.
    #[error("input `{input}` has {len} values: expected {rows} row(s) of {dim}")]
    InputLength {
        /// The input's name.
        input: String,
        /// Values given.
        len: usize,
        /// Rows expected (from the first input).
        rows: usize,
        /// Length of one row.
        dim: usize,
    },
    /// The sizes in the map do not fit together.
    #[error("term {term} of `{name}` does not fit: {what}")]
    Term {
        /// The map's name.
        name: String,
        /// Index of the term.
        term: usize,
        /// What does not fit.
        what: String,
    },
}

impl LinearMap {
    /// Checks that all shapes fit together.
    ///
    /// # Errors
    /// [`LinearMapError::Term`] names the first term that does not fit.
    pub fn check(&self) -> Result<(), LinearMapError> {
        let refuse = |term: usize, what: String| LinearMapError::Term {
            name: self.name.clone(),
            term,
            what,
        };
        if self.terms.is_empty()
            || self.d_out == 0
            || self.inputs.iter().any(|input| input.dim == 0)
        {
            return Err(refuse(0, "no terms, no outputs, or an input of length 0".into()));
        }
        for (index, term) in self.terms.iter().enumerate() {
            let dim_of = |input: usize| {
                let spec = self
                    .inputs
                    .get(input)
                    .ok_or_else(|| refuse(index, format!("there is no input {input}")))?;
                Ok(spec.dim)
            };
            let (found, expected) = match term {
                Term::LowRank { input, a, b } => (
                    vec![a.rows, a.cols, b.cols, a.data.len(), b.data.len()],
                    vec![
                        dim_of(*input)?,
                        b.rows,
                        self.d_out,
                        a.rows.saturating_mul(a.cols),
                        b.rows.saturating_mul(b.cols),
                    ],
                ),
                Term::Bias { b } => (vec![b.len()], vec![self.d_out]),
                Term::ElementScale { input, g } => {
                    (vec![g.len(), dim_of(*input)?], vec![self.d_out, self.d_out])
                }
            };
            if found != expected {
                return Err(refuse(
                    index,
                    format!("sizes {found:?} where {expected:?} are needed"),
                ));
            }
        }
        Ok(())
    }

    /// The map in `f64`: `inputs[i]` is `[rows, inputs[i].dim]` row-major, the result `[rows,
    /// d_out]`.
    ///
    /// # Errors
    /// [`LinearMapError`] if the map is malformed or the inputs do not fit it.
    pub fn apply(&self, inputs: &[&[f64]]) -> Result<Vec<f64>, LinearMapError> {
        self.check()?;
        let rows = self.rows_of(inputs)?;
        let mut delta = vec![0.0; rows * self.d_out];
        for term in &self.terms {
            for (row, out) in delta.chunks_exact_mut(self.d_out).enumerate() {
                match term {
                    Term::LowRank { input, a, b } => {
                        let mut inner = vec![0.0; a.cols];
                        add_vector_times_matrix(
                            &inputs[*input][row * a.rows..(row + 1) * a.rows],
                            a,
                            &mut inner,
                        );
                        add_vector_times_matrix(&inner, b, out);
                    }
                    Term::Bias { b } => out.iter_mut().zip(b).for_each(|(sum, b)| *sum += b),
                    Term::ElementScale { input, g } => {
                        let y = &inputs[*input][row * self.d_out..(row + 1) * self.d_out];
                        out.iter_mut().zip(y.iter().zip(g)).for_each(|(sum, (y, g))| *sum += y * g);
                    }
                }
            }
        }
        delta.iter_mut().for_each(|value| *value *= self.scale);
        Ok(delta)
    }

    fn rows_of(&self, inputs: &[&[f64]]) -> Result<usize, LinearMapError> {
        if inputs.len() != self.inputs.len() {
            return Err(LinearMapError::InputCount {
                name: self.name.clone(),
                expected: self.inputs.len(),
                got: inputs.len(),
            });
        }
        let rows = match (inputs.first(), self.inputs.first()) {
            (Some(first), Some(spec)) => first.len() / spec.dim,
            _ => 1,
        };
        for (spec, input) in self.inputs.iter().zip(inputs) {
            if input.len() != rows * spec.dim {
                return Err(LinearMapError::InputLength {
                    input: spec.name.clone(),
                    len: input.len(),
                    rows,
                    dim: spec.dim,
                });
            }
        }
        Ok(rows)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn map() -> LinearMap {
        LinearMap {
            name: "m".into(),
            inputs: vec![
                InputSpec { name: "x".into(), dim: 2 },
                InputSpec { name: "y".into(), dim: 3 },
            ],
            d_out: 3,
            scale: 2.0,
            terms: vec![
                Term::LowRank {
                    input: 0,
                    a: Matrix::new(2, 1, vec![1.0, 2.0]).unwrap(),
                    b: Matrix::new(1, 3, vec![1.0, 0.0, -1.0]).unwrap(),
                },
                Term::Bias { b: vec![0.5, 0.5, 0.5] },
                Term::ElementScale { input: 1, g: vec![1.0, 2.0, 3.0] },
            ],
        }
    }

    #[test]
    fn all_three_kinds_of_terms_add_up_row_by_row() {
        let delta = map().apply(&[&[1.0, 1.0, 0.0, 1.0], &[1.0, 1.0, 1.0, 0.0, 0.0, 1.0]]).unwrap();
        assert_eq!(delta, [9.0, 5.0, 1.0, 5.0, 1.0, 3.0]);
    }

    #[test]
    fn inputs_and_terms_that_do_not_fit_are_refused() {
        assert!(matches!(map().apply(&[&[1.0, 1.0]]), Err(LinearMapError::InputCount { .. })));
        assert!(matches!(
            map().apply(&[&[1.0, 1.0], &[1.0]]),
            Err(LinearMapError::InputLength { .. })
        ));
        let mut bad = map();
        bad.terms.push(Term::Bias { b: vec![1.0] });
        assert!(matches!(bad.check(), Err(LinearMapError::Term { term: 3, .. })));
    }
}
