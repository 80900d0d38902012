//! One adapted submodule and its delta in floating point: the reference for every other
//! implementation.
//!
//! Every supported form of adapter is a sum of branches, each a chain of constant steps on one
//! input, times one scaling. Must not know where its weights come from.

use serde::{Deserialize, Serialize};

use super::step::{Action, Step};
use crate::AppliesTo;

/// The delta of one module of the base model: `delta = scaling · Σ branches`, row by row.
///
/// | form | branches |
/// |---|---|
/// | LoRA | `x → lora_A → lora_B (→ + lora_B.bias)` |
/// | convolution | the same; rows of `x` are patches |
/// | embedding | `x → lora_embedding_A → lora_embedding_B`, rows of `x` being one-hot over the vocabulary |
/// | DoRA | `x → lora_A → lora_B → ∘ m·s`, and `base → − bias → ∘ (m − 1)`, with `m = magnitude / ‖W + s·BA‖` per output |
/// | AdaLoRA | `x → lora_A → ∘ lora_E → lora_B` |
/// | VeRA | `x → vera_A[:, :d_in] → ∘ lambda_d → vera_B[:d_out] → ∘ lambda_b` |
/// | (IA)³ | `base → ∘ (l − 1)`; for feedforward modules `x → ∘ (l − 1)`, to be added to the module's input |
/// | trained whole | `x → W' − W`, `base → ∘ 0 → b' − b` |
/// | LoHa, LoKr | `x → one or two matrices`, see `peft::loha` and `peft::lokr` in the source |
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterModule {
    /// Name of the module in the base model, `model.layers.0.self_attn.q_proj`.
    pub name: String,
    /// The form of the adapter.
    pub form: Form,
    /// The kind of layer.
    pub kind: Kind,
    /// Where the delta is added.
    pub applies_to: AppliesTo,
    /// The inputs; never empty. A row of the module takes one row of each.
    pub inputs: Vec<ModuleInput>,
    /// Output features.
    pub d_out: usize,
    /// The summands; never empty.
    pub branches: Vec<Branch>,
    /// The factor of the whole sum: for LoRA `alpha / rank`, or `alpha / √rank` with rsLoRA.
    pub scaling: f64,
}

/// The form of an adapter, with the names of `peft`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Form {
    /// Plain LoRA.
    Lora,
    /// LoRA with a trained magnitude of every output.
    Dora,
    /// LoRA as a truncated singular value decomposition.
    AdaLora,
    /// Trained vectors around random matrices that all modules share.
    Vera,
    /// Trained factors of activations.
    Ia3,
    /// The Hadamard product of two low-rank matrices.
    LoHa,
    /// A Kronecker product.
    LoKr,
    /// No adapter: a layer that was trained whole, as its difference from the base layer.
    Whole,
}

/// The kind of layer that a module adapts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A linear layer: rows of `x` are activations.
    Linear,
    /// A convolution: rows of `x` are patches of the input, channel by channel, as torch's `unfold`
    /// has them. Stride and padding are the base layer's.
    Convolution,
    /// An expert of a mixture: a slice of a parameter, which is no module of the base model. Rows
    /// of `x` are the activations of the tokens that it sees.
    Expert,
    /// A table of token vectors: rows of `x` are one-hot, with one column per entry of the
    /// vocabulary. The delta (and `base`) is the value before any `embed_scale` of the base layer
    /// (Gemma), by which `peft` multiplies it.
    Embedding,
}

/// One input of a module: `x`, the input of the base layer, or `base`, its output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModuleInput {
    /// Features of a row.
    pub dim: usize,
    /// `x` or `base`.
    pub name: String,
}

/// One summand: steps applied in order to the rows of one input.
#[derive(Debug, Clone, PartialEq)]
pub struct Branch {
    /// Position in [`AdapterModule::inputs`].
    pub input: usize,
    /// At least one; the last gives [`AdapterModule::d_out`] features.
    pub steps: Vec<Step>,
}

/// The tensors of plain LoRA.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraWeights {
    /// Input features.
    pub d_in: usize,
    /// Output features.
    pub d_out: usize,
    /// Rank of the update.
    pub rank: usize,
    /// `lora_A.weight`, `[rank, d_in]`, row-major.
    pub a: Vec<f32>,
    /// `lora_B.weight`, `[d_out, rank]`, row-major.
    pub b: Vec<f32>,
    /// `lora_B.bias`, `[d_out]`, of an adapter with `lora_bias`; scaled like the rest, as in
    /// `peft`.
    pub bias: Option<Vec<f32>>,
}

impl ModuleInput {
    /// The input of the base layer.
    pub(crate) fn x(dim: usize) -> ModuleInput {
        ModuleInput { dim, name: "x".into() }
    }

    /// The output of the base layer.
    pub(crate) fn base(dim: usize) -> ModuleInput {
        ModuleInput { dim, name: "base".into() }
    }
}

impl AdapterModule {
    /// A module of plain LoRA: `delta = ((x Aᵀ) Bᵀ + bias) · scaling`.
    pub fn lora(name: String, weights: LoraWeights, scaling: f64) -> AdapterModule {
        let LoraWeights { d_in, d_out, rank, a, b, bias } = weights;
        let mut steps =
            vec![Step::matrix("lora_A", [rank, d_in], a), Step::matrix("lora_B", [d_out, rank], b)];
        steps.extend(bias.map(|bias| Step::shift("lora_B_bias", bias)));
        AdapterModule {
            name,
            form: Form::Lora,
            kind: Kind::Linear,
            applies_to: AppliesTo::Output,
            inputs: vec![ModuleInput::x(d_in)],
            d_out,
            branches: vec![Branch { input: 0, steps }],
            scaling,
        }
    }

    /// Number of constants: for LoRA, DoRA, AdaLoRA and (IA)³ those of the weights file and of the
    /// base layer's bias; for the other forms those of the matrices when written out.
    pub fn parameters(&self) -> usize {
        self.branches.iter().flat_map(|branch| &branch.steps).map(|step| step.values.len()).sum()
    }

    /// Sum of the ranks of all branches. The rank of a branch is the smallest dimension between two
    /// of its matrices, or the smaller dimension of its only matrix, or 0 if features are only
    /// scaled.
    pub fn rank(&self) -> usize {
        let of_branch = |branch: &Branch| {
            let matrices: Vec<(usize, usize)> = branch
                .steps
                .iter()
                .filter_map(|step| match step.action {
                    Action::Matrix { d_out, d_in } => Some((d_out, d_in)),
                    _ => None,
                })
                .collect();
            match matrices.split_last() {
                None => 0,
                Some((&(d_out, d_in), [])) => d_out.min(d_in),
                Some((_, inner)) => inner.iter().map(|&(d_out, _)| d_out).min().unwrap_or(0),
            }
        };
        self.branches.iter().map(of_branch).sum()
    }

    /// The delta, summed in f64.
    ///
    /// `inputs` are `[rows, dim]`, row-major, one for each of [`AdapterModule::inputs`]; rows that
    /// some of them lack are ignored. Returns `[rows, d_out]`, or nothing if the number of inputs
    /// is wrong.
    pub fn delta(&self, inputs: &[&[f32]]) -> Vec<f64> {
        if inputs.len() != self.inputs.len() {
            return Vec::new();
        }
        let rows = inputs
            .iter()
            .zip(&self.inputs)
            .map(|(values, input)| values.len() / input.dim.max(1))
            .min();
        let mut delta = Vec::with_capacity(rows.unwrap_or(0).saturating_mul(self.d_out));
        for at in 0..rows.unwrap_or(0) {
            let mut sum = vec![0.0; self.d_out];
            for branch in &self.branches {
                let (Some(values), Some(input)) =
                    (inputs.get(branch.input), self.inputs.get(branch.input))
                else {
                    continue;
                };
                let row =
                    values[at * input.dim..][..input.dim].iter().map(|&v| f64::from(v)).collect();
                let out = branch.steps.iter().fold(row, |row, step| step.apply(row));
                sum.iter_mut().zip(out).for_each(|(sum, value)| *sum += value);
            }
            delta.extend(sum.into_iter().map(|value| value * self.scaling));
        }
        delta
    }

    /// Checks that the fields fit together, because callers can construct modules.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.branches.is_empty() || self.inputs.iter().any(|input| input.dim == 0) {
            return Err("has no branch, or an input without features".into());
        }
        for branch in &self.branches {
            let Some(input) = self.inputs.get(branch.input).filter(|_| !branch.steps.is_empty())
            else {
                return Err(format!(
                    "a branch has no step or takes input {}, which it does not have",
                    branch.input
                ));
            };
            let width =
                branch.steps.iter().try_fold(input.dim, |width, step| step.width_after(width))?;
            if width != self.d_out {
                return Err(format!(
                    "a branch ends with {width} features instead of {}",
                    self.d_out
                ));
            }
        }
        if let Some(unused) =
            (0..self.inputs.len()).find(|&at| self.branches.iter().all(|branch| branch.input != at))
        {
            return Err(format!("no branch takes its input {}", self.inputs[unused].name));
        }
        if !(self.scaling as f32).is_finite() {
            return Err(format!("its scaling {} does not fit an f32", self.scaling));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bias_is_scaled_and_rows_are_independent() {
        let weights = LoraWeights {
            d_in: 2,
            d_out: 3,
            rank: 1,
            a: vec![1.0, 10.0],
            b: vec![1.0, 2.0, 3.0],
            bias: Some(vec![0.5, 0.0, -1.0]),
        };
        let module = AdapterModule::lora("m".into(), weights, 2.0);
        assert_eq!(module.delta(&[&[1.0, 0.0, 0.0, 1.0]]), [3.0, 4.0, 4.0, 21.0, 40.0, 58.0]);
        assert_eq!((module.parameters(), module.rank()), (8, 1));
    }

    #[test]
    fn branches_take_rows_of_their_own_inputs_and_add_up() {
        let module = AdapterModule {
            name: "m".into(),
            form: Form::Dora,
            kind: Kind::Linear,
            applies_to: AppliesTo::Output,
            inputs: vec![ModuleInput::x(1), ModuleInput::base(2)],
            d_out: 2,
            branches: vec![
                Branch { input: 0, steps: vec![Step::matrix("w", [2, 1], vec![1.0, 2.0])] },
                Branch {
                    input: 1,
                    steps: vec![
                        Step::shift("b", vec![-1.0, 0.0]),
                        Step::scale("g", vec![10.0, 100.0]),
                    ],
                },
            ],
            scaling: 0.5,
        };
        assert_eq!(module.check(), Ok(()));
        assert_eq!(module.delta(&[&[4.0, 6.0], &[2.0, 3.0, 1.0, 0.0]]), [7.0, 154.0, 3.0, 6.0]);
        // `base` has no second row.
        assert_eq!(module.delta(&[&[4.0, 6.0], &[2.0, 3.0]]), [7.0, 154.0]);
        assert!(module.delta(&[&[4.0]]).is_empty());
    }
}
