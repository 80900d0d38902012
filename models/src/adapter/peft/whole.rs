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

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::{
    base_layer::CONV1D,
    config::Config,
    module::{AdapterModule, Branch, Form, Kind, ModuleInput},
    module_tensors::{AdapterTensors, Matrix, TensorsBySuffix},
    step::Step,
    tensor_names::PREFIX,
    tied::{Output, TIED_OR_UNKNOWN, Tie},
};
use crate::{AppliesTo, Error, adapter::base_weights::BaseWeights};

/// Ends of the names of the base layers' own tensors.
pub(super) const SUFFIXES: &[&str] = &[COPY, COPIED_BIAS, TOKENS, WEIGHT, BIAS];

const COPY: &str = ".base_layer.weight";
const COPIED_BIAS: &str = ".base_layer.bias";
const TOKENS: &str = ".token_adapter.trainable_tokens_delta";
const WEIGHT: &str = ".weight";
const BIAS: &str = ".bias";

/// Last parts of the names of embeddings. Other names with `emb` in them may be of either kind.
const EMBEDDINGS: &[&str] = &[
    "embed_in",
    "embed_tokens",
    "position_embedding",
    "position_embeddings",
    "tok_embeddings",
    "token_embedding",
    "token_type_embeddings",
    "word_embeddings",
    "wpe",
    "wte",
];

/// Types of the models whose layers with the names of [`CONV1D`] are stored `[d_in, d_out]`.
const CONV1D_MODELS: &[&str] = &["decision_transformer", "gpt2", "imagegpt", "openai-gpt"];

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
    /// Everything but these tensors.
    pub(super) but: &'a HashSet<&'a str>,
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

/// Adds what the tensors in `whole`, by module, change. Returns what is left out: those in
/// `others`, too, and all of their layers.
pub(super) fn add(
    tensors: &mut AdapterTensors,
    whole: BTreeMap<String, TensorsBySuffix>,
    others: BTreeMap<String, Vec<String>>,
    config: &Config,
    base: Option<&mut BaseWeights>,
    wanted: Wanted,
    modules: &mut Vec<AdapterModule>,
) -> Result<Vec<LeftOut>, Error> {
    let short = |tensor: &str| tensor.strip_prefix(PREFIX).unwrap_or(tensor).to_owned();
    let mut base = match base {
        Some(base) => Some((Tie::read(base)?, base)),
        None => None,
    };
    let mut left_out = Vec::new();
    for tensor in others.values().flatten() {
        let reason = "only weights and biases have differences that are deltas".into();
        left_out.push(LeftOut { tensor: short(tensor), reason });
    }
    for (name, by_suffix) in whole {
        let adapted = modules.iter().any(|module| module.name == name);
        // The weight before the bias, which is added to what the module has.
        for (suffix, tensor) in by_suffix.into_iter().rev() {
            let short = short(&tensor);
            let copy = [COPY, COPIED_BIAS].contains(&suffix);
            let mut change = match &mut base {
                _ if others.contains_key(&name) => {
                    Change::LeftOut("its layer has other tensors that were trained".into())
                }
                _ if wanted.but.contains(short.as_str()) => {
                    Change::LeftOut("as the manifest says".into())
                }
                None => Change::LeftOut(
                    "without --base it cannot be compared with the base model".into(),
                ),
                Some((tie, base)) => change(tensors, [&name, suffix, &tensor], config, base, tie)?,
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

/// Tensors that `peft` saves twice: biases of modules in `modules_to_save` (with `bias` "all") are
/// also there under the names that they have in the adapted model, and those of the base model
/// beside them.
pub(super) fn duplicates(tensors: &mut AdapterTensors) -> Result<BTreeSet<String>, Error> {
    let mut duplicates = BTreeSet::new();
    for tensor in tensors.names() {
        if tensor.contains(".original_module.") {
            duplicates.insert(tensor);
            continue;
        }
        let parts = [".modules_to_save.default", ".modules_to_save"];
        let plain = parts.iter().find(|part| tensor.contains(**part));
        let plain = plain.map(|part| tensor.replacen(part, "", 1));
        if let Some(plain) = plain.filter(|plain| tensors.has(plain))
            && tensors.digest(&plain)? == tensors.digest(&tensor)?
        {
            duplicates.insert(tensor);
        }
    }
    Ok(duplicates)
}

/// What a tensor changes in its layer.
fn change(
    tensors: &mut AdapterTensors,
    [name, suffix, tensor]: [&str; 3],
    config: &Config,
    base: &mut BaseWeights,
    tie: &Tie,
) -> Result<Change, Error> {
    let is_bias = [BIAS, COPIED_BIAS].contains(&suffix);
    let original = match is_bias {
        true => base.bias(name),
        false => base.find_weight(name),
    };
    let Some(original) = original else {
        return Ok(Change::LeftOut("the base model has no such tensor".into()));
    };
    if base.quantised(name).is_some() {
        return Ok(Change::LeftOut("the base model's layer is quantised".into()));
    }
    if suffix == TOKENS {
        return rows(tensors, [name, tensor], config, base, tie);
    }
    if base.digest(&original)? == tensors.digest(tensor)? {
        return Ok(Change::Nothing);
    }
    let shape = tensors.shape(tensor)?;
    let of_base = base.shape(&original)?;
    if shape != of_base {
        let reason = format!("its shape is {shape:?}, and the base model's {of_base:?}");
        return Ok(Change::LeftOut(reason));
    }
    let (new, old) = (tensors.values(name, tensor)?, base.read(&original)?);
    if new == old {
        return Ok(Change::Nothing);
    }
    let values = difference(&new, &old);
    if values.iter().any(|value| !value.is_finite()) {
        return Ok(Change::LeftOut("its difference from the base model does not fit f32".into()));
    }
    let (&[first, second], false) = (shape.as_slice(), is_bias) else {
        return Ok(match (shape.len(), is_bias) {
            (1, true) => Change::Bias(values),
            _ => Change::LeftOut(format!(
                "its shape is {shape:?}, and only matrices of linear layers and embeddings, and \
                 biases, have differences that are deltas"
            )),
        });
    };
    // A layer in modules_to_save is a copy; any other is the base model's own, with what is tied to
    // it.
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_table = EMBEDDINGS.contains(&last) && base.bias(name).is_none();
    let is_shared = is_table || last == "lm_head";
    if is_shared && !config.is_saved_whole(name) && !tie.is_none() {
        return Ok(Change::LeftOut(TIED_OR_UNKNOWN.into()));
    }
    let kind = match is_table {
        true => Kind::Embedding,
        false if last.contains("emb") => {
            return Ok(Change::LeftOut("whether it is of an embedding is not known".into()));
        }
        false => Kind::Linear,
    };
    let is_conv1d = match (CONV1D.contains(&last), &tie.model_type) {
        (false, _) => false,
        (true, Some(of_model)) => CONV1D_MODELS.contains(&of_model.as_str()),
        (true, None) => {
            return Ok(Change::LeftOut(
                "its orientation is not known, as the base model has no config.json".into(),
            ));
        }
    };
    if tensors.reserve(name, first.checked_mul(second)).is_err() {
        let reason = format!("a difference of {first} × {second} numbers is too large");
        return Ok(Change::LeftOut(reason));
    }
    let stored = Matrix { rows: first, cols: second, values };
    let transposed = is_conv1d || kind == Kind::Embedding;
    Ok(Change::Matrix(kind, if transposed { stored.transposed() } else { stored }))
}

/// What new rows change in a table.
fn rows(
    tensors: &mut AdapterTensors,
    [name, tensor]: [&str; 2],
    config: &Config,
    base: &mut BaseWeights,
    tie: &Tie,
) -> Result<Change, Error> {
    let Some(indices) = config.token_indices(name) else {
        return Err(tensors.error(tensor, "has no entry in trainable_token_indices of the config"));
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    if !EMBEDDINGS.contains(&last) {
        return Ok(Change::LeftOut("whether it is of an embedding is not known".into()));
    }
    let output = match tie.output(name, config) {
        Output::None => None,
        Output::Tied(output) => Some(output),
        Output::Unknown => return Ok(Change::LeftOut(TIED_OR_UNKNOWN.into())),
    };
    let original = base.weight(name)?;
    let of_base = base.shape(&original)?;
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
    let table = base.read(&original)?;
    let old: Vec<f32> = indices.iter().flat_map(|&at| &table[at * d..][..d]).copied().collect();
    let values = difference(&tensors.values(name, tensor)?, &old);
    if values.iter().all(|&value| value == 0.0) {
        return Ok(Change::Nothing);
    }
    if values.iter().any(|value| !value.is_finite()) {
        return Ok(Change::LeftOut("its difference from the base model does not fit f32".into()));
    }
    // Two selections, of the table and of an output layer that is tied to it.
    if tensors.reserve(name, entries.checked_mul(2 * indices.len())).is_err() {
        let reason = format!("{} rows of a table of {entries} are too many", indices.len());
        return Ok(Change::LeftOut(reason));
    }
    let difference = Matrix { rows: indices.len(), cols: d, values };
    Ok(Change::Rows { entries, indices: indices.to_vec(), difference, output })
}

fn difference(new: &[f32], old: &[f32]) -> Vec<f32> {
    new.iter().zip(old).map(|(&new, &old)| (f64::from(new) - f64::from(old)) as f32).collect()
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
