//! Turns a module's quantised rows into the equations that an attacker with these rows solves.

use std::collections::HashMap;

use ndarray::{Array2, s};
use zklora_artifacts::module_rows::ModuleRows;
use zklora_proof::manifest::{Module, TermKind};

use super::fit::Equations;

/// Which inputs of a module are multiplied with what kind of unknown. All of this is public.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EquationShape {
    /// Inputs that are multiplied with an unknown matrix, and whether each selects tokens (rows
    /// with a single 1).
    linear: Vec<(usize, bool)>,
    /// The input whose features are multiplied with unknown numbers.
    scaled: Option<usize>,
    bias: bool,
}

/// The column of each token that was seen. Tokens that were not seen have none, because nothing is
/// known about them.
pub(super) type SeenTokens = HashMap<usize, usize>;

impl EquationShape {
    /// The shape of a module. `of_tokens` says for each input whether it selects tokens.
    pub fn of(module: &Module, of_tokens: &[bool]) -> EquationShape {
        let tokens = |input: usize| of_tokens.get(input).copied().unwrap_or(false);
        let mut shape = EquationShape { linear: Vec::new(), scaled: None, bias: module.has_bias() };
        for term in &module.terms {
            let Some(input) = term.input else { continue };
            let scale = term.kind == TermKind::Scale && !tokens(input);
            if scale && shape.scaled.is_none_or(|known| known == input) {
                shape.scaled = Some(input);
            } else if !shape.linear.iter().any(|(known, _)| *known == input) {
                // A second scaled input counts as a matrix. That is correct, but uses less than is
                // known.
                shape.linear.push((input, tokens(input)));
            }
        }
        shape
    }

    /// The equations of rows: `delta = x·W + y∘g` holds up to the rounding of `f64`.
    pub fn equations(&self, module: &Module, rows: &ModuleRows, seen: &SeenTokens) -> Equations {
        let n = rows.scales.len();
        let real = |row: usize, integer: i32| f64::from(integer) * f64::from(rows.scales[row]);
        let width =
            |input: usize, tokens: bool| if tokens { seen.len() } else { module.inputs[input].dim };
        let features =
            self.linear.iter().map(|(input, tokens)| width(*input, *tokens)).sum::<usize>();
        let mut x = Array2::zeros((n, features + usize::from(self.bias)));
        let mut first = 0;
        for &(input, tokens) in &self.linear {
            let (dim, width) = (module.inputs[input].dim, width(input, tokens));
            let mut columns = x.slice_mut(s![.., first..first + width]);
            for (row, values) in rows.inputs[input].chunks_exact(dim).enumerate() {
                for (feature, value) in values.iter().enumerate().filter(|(_, value)| **value != 0)
                {
                    let index = if tokens { seen.get(&feature).copied() } else { Some(feature) };
                    if let Some(index) = index {
                        columns[[row, index]] = real(row, *value);
                    }
                }
            }
            first += width;
        }
        for (row, one) in rows.ones.iter().enumerate() {
            x[[row, features]] = real(row, *one);
        }
        let y = self.scaled.map(|input| {
            let values = &rows.inputs[input];
            Array2::from_shape_fn((n, module.d_out), |(row, k)| {
                real(row, values[row * module.d_out + k])
            })
        });
        let scale = module.output_scale();
        let delta = Array2::from_shape_fn((n, module.d_out), |(row, k)| {
            rows.delta[row * module.d_out + k] as f64 * scale * f64::from(rows.scales[row])
        });
        Equations { x, y, delta }
    }
}

#[cfg(test)]
mod tests {
    use zklora_proof::manifest::{Input, Term};

    use super::*;

    fn term(kind: TermKind, input: Option<usize>) -> Term {
        Term { a: vec![], b: vec![], input, kind, rank: 1, shift: 0 }
    }

    fn module(inputs: &[(usize, &str)], terms: Vec<Term>) -> Module {
        Module {
            a_bits: 14,
            b_bits: 14,
            d_out: 2,
            delta_bits: 60,
            inputs: inputs
                .iter()
                .map(|(dim, name)| Input { dim: *dim, name: (*name).into() })
                .collect(),
            name: "m".into(),
            scale_log2: -1,
            scaling: 3.0,
            terms,
            x_bits: 24,
        }
    }

    #[test]
    fn a_plain_module_is_its_features_and_a_one_for_the_bias() {
        let module =
            module(&[(3, "x")], vec![term(TermKind::LowRank, Some(0)), term(TermKind::Bias, None)]);
        let shape = EquationShape::of(&module, &[false]);
        let rows = ModuleRows {
            inputs: vec![vec![1, 2, 3, 4, 5, 6]],
            ones: vec![10, 4],
            scales: vec![0.5, 0.25],
            delta: vec![2, 4, 8, 16],
        };
        let real = shape.equations(&module, &rows, &SeenTokens::new());
        assert_eq!(real.x, ndarray::array![[0.5, 1.0, 1.5, 5.0], [1.0, 1.25, 1.5, 1.0]]);
        // 3 · 2^-1 · scale of the row
        assert_eq!(real.delta, ndarray::array![[1.5, 3.0], [3.0, 6.0]]);
        assert!(real.y.is_none());
    }

    #[test]
    fn of_tokens_only_those_that_were_seen_are_directions() {
        let terms = vec![term(TermKind::LowRank, Some(0)), term(TermKind::Scale, Some(1))];
        let module = module(&[(100_000, "x"), (2, "base")], terms);
        let shape = EquationShape::of(&module, &[true, false]);
        let mut one_hot = vec![0; 200_000];
        (one_hot[77], one_hot[100_005]) = (8, 8);
        let rows = ModuleRows {
            inputs: vec![one_hot, vec![1, 2, 3, 4]],
            ones: vec![],
            scales: vec![0.125, 0.125],
            delta: vec![0; 4],
        };
        let real = shape.equations(&module, &rows, &SeenTokens::from([(3, 0), (77, 1)]));
        assert_eq!(real.x, ndarray::array![[0.0, 1.0], [0.0, 0.0]]);
        assert_eq!(real.y, Some(ndarray::array![[0.125, 0.25], [0.375, 0.5]]));
    }

    #[test]
    fn a_second_scaled_input_is_a_matrix() {
        let terms = vec![term(TermKind::Scale, Some(0)), term(TermKind::Scale, Some(1))];
        let shape = EquationShape::of(&module(&[(2, "x"), (2, "base")], terms), &[false, false]);
        assert_eq!(shape, EquationShape { linear: vec![(1, false)], scaled: Some(0), bias: false });
    }
}
