//! Layers that were trained whole besides the adapter: `modules_to_save`, `bias`,
//! `trainable_token_indices`, and copies of base layers that `peft` saves with embeddings.
//!
//! | tensor | what `peft` does with it | as a delta |
//! | -- | -- | -- |
//! | `<module>.weight`, `.base_layer.weight` | replaces the base layer's | `x (W' − W)ᵀ`, dense |
//! | `<module>.bias`, `.base_layer.bias` | the same | `b' − b` |
//! | `.token_adapter.trainable_tokens_delta` | replaces rows of a token table, and of an output layer that is tied to it | `x S (R' − R)`, where S selects the rows |
//!
//! Differences are computed in f64 and rounded to f32 once. A tensor that equals the base model's
//! changes nothing. What has no such difference, or none that is known, is left out and said: the
//! rest is exported alone.

use std::collections::BTreeMap;

use super::{
    base_layer::BaseLayers,
    config::{Config, Keys},
    module::{AdapterModule, Branch, Form, Kind, ModuleInput},
    module_tensors::{AdapterTensors, Matrix, TensorsBySuffix},
    step::Step,
    tensor_names::PREFIX,
};
use crate::{
    AppliesTo, Error,
    adapter::{base_weights::BaseWeights, strict_json::StrictJson},
};

/// Ends of the names of the base layers' own tensors.
pub(super) const SUFFIXES: &[&str] = &[COPY, COPIED_BIAS, TOKENS, WEIGHT, BIAS];

const COPY: &str = ".base_layer.weight";
const COPIED_BIAS: &str = ".base_layer.bias";
const TOKENS: &str = ".token_adapter.trainable_tokens_delta";
const WEIGHT: &str = ".weight";
const BIAS: &str = ".bias";

/// Last parts of the names of embeddings; all other layers with a matrix are linear.
const EMBEDDINGS: &[&str] = &[
    "embed_in",
    "embed_positions",
    "embed_tokens",
    "embedding",
    "embeddings",
    "position_embeddings",
    "shared",
    "token_type_embeddings",
    "tok_embeddings",
    "word_embeddings",
    "wpe",
    "wte",
];

/// Token tables, and the output layer that may be tied to each.
const TIED: &[(&str, &str)] =
    &[("embed_in", "embed_out"), ("embed_tokens", "lm_head"), ("wte", "lm_head")];

/// A tensor of the adapter that is not exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Its name, without `base_model.model.`.
    pub tensor: String,
    /// Why it is left out.
    pub reason: String,
}

/// What the caller wants.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// Nothing that differs from the base model.
    pub(super) nothing: bool,
    /// Everything but these tensors; none if the caller does not say.
    pub(super) but: &'a [String],
}

/// What a tensor changes.
enum Change {
    Nothing,
    LeftOut(String),
    Matrix(Kind, Matrix),
    Bias(Vec<f32>),
    /// Rows of a table: how many it has, which change, by how much, and the output layer that is
    /// tied to it.
    Rows {
        entries: usize,
        indices: Vec<usize>,
        difference: Matrix,
        output: Option<&'static str>,
    },
}

/// Adds what the tensors in `whole`, by module, change. Returns the others.
pub(super) fn add(
    tensors: &mut AdapterTensors,
    whole: BTreeMap<String, TensorsBySuffix>,
    config: &Config,
    mut layers: Option<&mut BaseLayers>,
    wanted: Wanted,
    modules: &mut Vec<AdapterModule>,
) -> Result<Vec<LeftOut>, Error> {
    let mut left_out = Vec::new();
    for (name, by_suffix) in whole {
        let adapted = modules.iter().any(|module| module.name == name);
        for (suffix, tensor) in by_suffix {
            let short = tensor.strip_prefix(PREFIX).unwrap_or(&tensor).to_owned();
            let copy = [COPY, COPIED_BIAS].contains(&suffix);
            let mut change = match &mut layers {
                _ if wanted.but.contains(&short) => Change::LeftOut("as the manifest says".into()),
                None => Change::LeftOut(
                    "without --base it cannot be compared with the base model".into(),
                ),
                Some(layers) => change(tensors, &name, suffix, &tensor, config, layers)?,
            };
            if !matches!(change, Change::Nothing | Change::LeftOut(_)) {
                let not_loaded = suffix != TOKENS && copy != adapted;
                // Their deltas depend on the layer's own output, or on norms of its weight.
                let form = modules.iter().find(|module| module.name == name).map(|of| of.form);
                if form == Some(Form::Ia3)
                    || (form == Some(Form::Dora) && !matches!(change, Change::Bias(_)))
                {
                    let reason = "differs from the base model's, on which the adapter's own deltas of that layer \
                                  depend (DoRA, (IA)³); restore the base model's, or save the adapter with \
                                  save_pretrained(..., save_embedding_layers=False)";
                    return Err(tensors.error(&tensor, reason));
                }
                change = match () {
                    () if wanted.nothing => Change::LeftOut("as asked".into()),
                    () if not_loaded && adapted => Change::LeftOut(
                        "peft calls it base_layer in an adapted layer, and does not load it".into(),
                    ),
                    () if not_loaded => Change::LeftOut(
                        "the adapter does not change that layer, so peft does not load it".into(),
                    ),
                    () => change,
                };
            }
            match change {
                Change::LeftOut(reason) => left_out.push(LeftOut { tensor: short, reason }),
                change => apply(modules, &name, change)
                    .map_err(|reason| tensors.error(&tensor, reason))?,
            }
        }
    }
    Ok(left_out)
}

/// What a tensor changes in its layer.
fn change(
    tensors: &mut AdapterTensors,
    name: &str,
    suffix: &str,
    tensor: &str,
    config: &Config,
    layers: &mut BaseLayers,
) -> Result<Change, Error> {
    let is_bias = [BIAS, COPIED_BIAS].contains(&suffix);
    let original = match is_bias {
        true => layers.base.bias(name),
        false => layers.base.weight(name).ok(),
    };
    let Some(original) = original else {
        return Ok(Change::LeftOut("the base model has no such tensor".into()));
    };
    if layers.base.quantised(name).is_some() {
        return Ok(Change::LeftOut("the base model's layer is quantised".into()));
    }
    if suffix == TOKENS {
        return rows(tensors, name, tensor, config, layers);
    }
    if layers.base.digest(&original)? == tensors.digest(tensor)? {
        return Ok(Change::Nothing);
    }
    let shape = tensors.shape(tensor)?;
    let of_base = layers.base.shape(&original)?;
    if shape != of_base {
        return Ok(Change::LeftOut(format!(
            "its shape is {shape:?}, and the base model's {of_base:?}"
        )));
    }
    let new = tensors.values(name, tensor)?;
    if is_bias {
        let old = layers.base.read(&original)?;
        let difference = difference(&new, &old);
        return Ok(match shape.len() == 1 && difference.iter().any(|&value| value != 0.0) {
            true => Change::Bias(difference),
            false => Change::Nothing,
        });
    }
    let kind = match name.rsplit('.').next() {
        Some(last) if EMBEDDINGS.contains(&last) => Kind::Embedding,
        _ => Kind::Linear,
    };
    let &[first, second] = shape.as_slice() else {
        let same = layers.base.read(&original)? == new;
        return Ok(match same {
            true => Change::Nothing,
            false => Change::LeftOut(format!(
                "its shape is {shape:?}, and only linear layers and embeddings have differences that \
                 are deltas"
            )),
        });
    };
    // A linear layer's features are those of its own orientation.
    let layer = match layers.find(name, kind, Some(second), first) {
        Ok(layer) if kind == Kind::Linear => layer,
        _ => layers.find(name, kind, Some(first), second)?,
    };
    let old = layers.base.read(&layer.weight)?;
    if old == new {
        return Ok(Change::Nothing);
    }
    if tensors.reserve(name, first.checked_mul(second)).is_err() {
        return Ok(Change::LeftOut(format!(
            "a difference of {first} × {second} numbers is too large"
        )));
    }
    // To be told if its orientation is doubtful.
    layers.read(&layer)?;
    let stored = Matrix { rows: first, cols: second, values: difference(&new, &old) };
    let matrix = if layer.transposed { stored.transposed() } else { stored };
    Ok(Change::Matrix(kind, matrix))
}

/// What new rows change in a table.
fn rows(
    tensors: &mut AdapterTensors,
    name: &str,
    tensor: &str,
    config: &Config,
    layers: &mut BaseLayers,
) -> Result<Change, Error> {
    let Some(indices) = config.token_indices(name) else {
        return Err(tensors.error(tensor, "has no entry in trainable_token_indices of the config"));
    };
    let original = layers.base.weight(name)?;
    let of_base = layers.base.shape(&original)?;
    let shape = tensors.shape(tensor)?;
    let &[entries, d] = of_base.as_slice() else {
        return Ok(Change::LeftOut("the base model's layer is not a table of tokens".into()));
    };
    if shape != [indices.len(), d] {
        let reason = format!("has the shape {shape:?} where [{}, {d}] is expected", indices.len());
        return Err(tensors.error(tensor, reason));
    }
    if let Some(index) = indices.iter().find(|index| **index >= entries) {
        return Ok(Change::LeftOut(format!("the base model's table has no row {index}")));
    }
    let table = layers.base.read(&original)?;
    let old: Vec<f32> = indices.iter().flat_map(|&at| &table[at * d..][..d]).copied().collect();
    let values = difference(&tensors.values(name, tensor)?, &old);
    if values.iter().all(|&value| value == 0.0) {
        return Ok(Change::Nothing);
    }
    // Two selections, of the table and of an output layer that is tied to it.
    tensors.reserve(name, entries.checked_mul(2 * indices.len()))?;
    let difference = Matrix { rows: indices.len(), cols: d, values };
    let output = tied_output(name, config, layers.base)?;
    Ok(Change::Rows { entries, indices: indices.to_vec(), difference, output })
}

fn difference(new: &[f32], old: &[f32]) -> Vec<f32> {
    new.iter().zip(old).map(|(&new, &old)| (f64::from(new) - f64::from(old)) as f32).collect()
}

/// The output layer that is tied to a token table, so that its rows are the new ones, too; none if
/// it is not tied.
fn tied_output(
    table: &str,
    config: &Config,
    base: &BaseWeights,
) -> Result<Option<&'static str>, Error> {
    let last = table.rsplit('.').next().unwrap_or_default();
    let output = TIED.iter().find(|(of, _)| *of == last).map(|(_, output)| *output);
    let path = base.dir().join("config.json");
    let stated = match path.exists() {
        true => match Keys::read(&path)?.get("tie_word_embeddings") {
            Some(StrictJson::Bool(tied)) => Some(*tied),
            _ => None,
        },
        false => None,
    };
    let tied = stated.unwrap_or_else(|| output.is_some_and(|output| !base.has_own_weight(output)));
    Ok(output.filter(|_| tied && config.has_output_layer))
}

/// The changes of one tensor, as steps of a module.
fn apply(modules: &mut Vec<AdapterModule>, name: &str, change: Change) -> Result<(), String> {
    match change {
        Change::Nothing | Change::LeftOut(_) => Ok(()),
        Change::Bias(values) => {
            let d_out = values.len();
            let module = match modules.iter_mut().find(|module| module.name == name) {
                Some(module) => module,
                None => {
                    let zero = vec![Step::scale("whole_factor", vec![0.0; d_out])];
                    let input = ModuleInput::base(d_out);
                    modules.push(new(name, Kind::Linear, input, d_out, zero));
                    return apply(modules, name, Change::Bias(values));
                }
            };
            if module.d_out != d_out || module.applies_to == AppliesTo::Input {
                return Err(format!(
                    "is of {d_out} outputs, which the adapter's module does not have"
                ));
            }
            unscale(module);
            let first =
                module.branches.first_mut().ok_or("belongs to a module without branches")?;
            first.steps.push(Step::shift("whole_bias", values));
            Ok(())
        }
        Change::Matrix(kind, Matrix { rows, cols, values }) => {
            let steps = vec![Step::matrix("whole_weight", [rows, cols], values)];
            add_steps(modules, name, kind, [cols, rows], steps)
        }
        Change::Rows { entries, indices, difference, output } => {
            let count = indices.len();
            let mut values = vec![0.0; count * entries];
            for (row, &index) in values.chunks_exact_mut(entries).zip(&indices) {
                row[index] = 1.0;
            }
            let selection = Matrix { rows: count, cols: entries, values };
            let d = difference.cols;
            if let Some(output) = output {
                let steps = vec![
                    Step::matrix("whole_rows", [count, d], difference.values.clone()),
                    Step::matrix("whole_tokens", [entries, count], selection.transposed().values),
                ];
                add_steps(modules, output, Kind::Linear, [d, entries], steps)?;
            }
            let steps = vec![
                Step::matrix("whole_tokens", [count, entries], selection.values),
                Step::matrix("whole_rows", [d, count], difference.transposed().values),
            ];
            add_steps(modules, name, Kind::Embedding, [entries, d], steps)
        }
    }
}

/// Adds a branch of the layer's input to a module, which may be new.
fn add_steps(
    modules: &mut Vec<AdapterModule>,
    name: &str,
    kind: Kind,
    [d_in, d_out]: [usize; 2],
    steps: Vec<Step>,
) -> Result<(), String> {
    let Some(module) = modules.iter_mut().find(|module| module.name == name) else {
        modules.push(new(name, kind, ModuleInput::x(d_in), d_out, steps));
        return Ok(());
    };
    let x = module.inputs.iter().position(|input| input.name == "x");
    let fits = x.is_none_or(|x| module.inputs[x].dim == d_in) && module.d_out == d_out;
    if !fits || module.applies_to == AppliesTo::Input {
        return Err(format!(
            "is of {d_in} inputs and {d_out} outputs, which the adapter's module does not have"
        ));
    }
    unscale(module);
    let input = x.unwrap_or_else(|| {
        module.inputs.insert(0, ModuleInput::x(d_in));
        module.branches.iter_mut().for_each(|branch| branch.input += 1);
        0
    });
    module.branches.push(Branch { input, steps });
    Ok(())
}

/// Makes the scaling a step of each branch, so that others can be added.
fn unscale(module: &mut AdapterModule) {
    if module.scaling == 1.0 {
        return;
    }
    for (at, branch) in module.branches.iter_mut().enumerate() {
        let factors = vec![module.scaling as f32; module.d_out];
        branch.steps.push(Step::scale(&format!("scaling_{at}"), factors));
    }
    module.scaling = 1.0;
}

fn new(
    name: &str,
    kind: Kind,
    input: ModuleInput,
    d_out: usize,
    steps: Vec<Step>,
) -> AdapterModule {
    AdapterModule {
        name: name.to_owned(),
        form: Form::Whole,
        kind,
        applies_to: AppliesTo::Output,
        inputs: vec![input],
        d_out,
        branches: vec![Branch { input: 0, steps }],
        scaling: 1.0,
    }
}
