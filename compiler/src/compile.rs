//! Compiles ONNX modules into the draft of a manifest and its private integers: ingests, quantises
//! and lays out each module.
//!
//! Works in memory and is deterministic: the same models give the same draft on every machine and
//! with any number of threads. Knows neither commitments nor files.

use std::path::PathBuf;

use rayon::prelude::*;
use zklora_proof::{
    manifest::{
        BaseModel, FORMAT, Input, Manifest, Module, RESERVED_INPUTS, Term, TermKind, VERSION,
    },
    weights::PairWeights,
};

use crate::{
    IngestError, Ingested, LinearMap,
    calibrate::{Measured, calibrate},
    ingest_in,
    quantize::{Bits, QuantizeError, Quantized, QuantizedTerm, quantize, quantize_within},
};

/// The ONNX model of one module.
#[derive(Debug, Clone)]
pub struct OnnxModel {
    /// Module name.
    pub name: String,
    /// The file's bytes.
    pub onnx: Vec<u8>,
    /// The folder of the model's external data; none if all data are in the file.
    pub folder: Option<PathBuf>,
    /// The public LoRA scaling, if the exporter states it; otherwise the scaling is folded into
    /// the weights and stays private.
    pub scaling: Option<f64>,
}

/// Sizes, bit widths and warnings of one compiled module.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct ModuleReport {
    /// Module name.
    pub name: String,
    /// Features of all inputs together.
    pub d_in: usize,
    /// Pairs: for plain LoRA, the rank.
    pub pairs: usize,
    /// Output features.
    pub d_out: usize,
    /// Integers.
    pub parameters: usize,
    /// Bits of activations, A and B, and of a delta.
    pub bits: [u32; 4],
    /// The error on the calibration activations, if there were any.
    pub measured: Option<Measured>,
    /// Warnings for the adapter's owner, before anything is published.
    pub warnings: Vec<String>,
}

/// Activations to calibrate with: per module, one list of whole rows per input.
pub type Calibration = std::collections::BTreeMap<String, Vec<Vec<f32>>>;

/// A manifest without digests and commitments, and the integers to commit to.
pub struct Draft {
    /// Names, shapes, bit widths, scales.
    pub manifest: Manifest,
    /// The private integers, in manifest order.
    pub pairs: Vec<PairWeights>,
    /// One entry a module.
    pub reports: Vec<ModuleReport>,
}

/// Why modules were not compiled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// A graph was refused.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// A map cannot be quantised.
    #[error("module `{module}`: {source}")]
    Quantize {
        /// Which module.
        module: String,
        /// Why.
        source: QuantizeError,
    },
    /// Two modules have the same name.
    #[error(
        "two modules are called `{0}`: every module needs its own name (rename one of the files)"
    )]
    DuplicateName(String),
}

/// Compiles modules in the order given. A module with activations in `calibration` gets the bit
/// widths with the smallest measured error; any other module gets those with the smallest predicted
/// error. No A or B has more than `most_bits` bits
/// ([`MOST_AUTOMATIC`](crate::quantize::MOST_AUTOMATIC) by default).
///
/// # Errors
/// [`CompileError`] says which module cannot be compiled.
pub fn draft(
    base_model: BaseModel,
    k: u32,
    models: &[OnnxModel],
    calibration: Option<&Calibration>,
    most_bits: u32,
) -> Result<Draft, CompileError> {
    let mut names = std::collections::HashSet::new();
    if let Some(model) = models.iter().find(|model| !names.insert(model.name.as_str())) {
        return Err(CompileError::DuplicateName(model.name.clone()));
    }
    let modules = models
        .par_iter()
        .map(|model| {
            let Ingested { map, warnings, .. } =
                ingest_in(&model.onnx, &model.name, model.folder.as_deref())?;
            let failed = |e| CompileError::Quantize { module: model.name.clone(), source: e };
            let (quantized, measured) = match calibration
                .and_then(|c| c.get(&model.name))
                .filter(|inputs| inputs.iter().any(|x| !x.is_empty()))
            {
                Some(inputs) => {
                    let (quantized, measured) =
                        calibrate(&map, model.scaling, inputs, most_bits).map_err(failed)?;
                    (quantized, Some(measured))
                }
                None => (quantize_within(&map, model.scaling, most_bits).map_err(failed)?, None),
            };
            let (module, pairs) = lay_out(&map, quantized);
            Ok((module, pairs, measured, warnings))
        })
        .collect::<Result<Vec<_>, CompileError>>()?;
    let mut draft = Draft {
        manifest: Manifest {
            base_model,
            format: FORMAT.into(),
            k,
            left_out: Vec::new(),
            modules: Vec::new(),
            settings_digest: String::new(),
            srs_digest: String::new(),
            version: VERSION,
        },
        pairs: Vec::new(),
        reports: Vec::new(),
    };
    for (module, pairs, measured, warnings) in modules {
        draft.reports.push(ModuleReport {
            name: module.name.clone(),
            d_in: module.inputs.iter().map(|input| input.dim).sum(),
            pairs: pairs.len(),
            d_out: module.d_out,
            parameters: pairs.iter().map(|pair| pair.a.len() + pair.b.len()).sum(),
            bits: [module.x_bits, module.a_bits, module.b_bits, module.delta_bits],
            measured,
            warnings,
        });
        draft.manifest.modules.push(module);
        draft.pairs.extend(pairs);
    }
    Ok(draft)
}

/// The integers of delivered modules for an existing manifest, and the modules that differ from it.
pub struct DraftLike {
    /// The integers, complete only if there are no differences.
    pub pairs: Vec<PairWeights>,
    /// Module name and difference.
    pub differences: Vec<(String, String)>,
}

/// Quantises delivered modules with the bit widths and scaling of `manifest`, so the same weights
/// give the same integers even if this build would choose other bit widths.
pub fn draft_like(manifest: &Manifest, models: &[OnnxModel]) -> DraftLike {
    let work = manifest.modules.par_iter().map(|module| {
        let model =
            models.iter().find(|model| model.name == module.name).ok_or("it was not delivered")?;
        let ingested = ingest_in(&model.onnx, &model.name, model.folder.as_deref());
        let map = ingested.map_err(|e| e.to_string())?.map;
        let bits = Bits { x: module.x_bits, a: module.a_bits, b: module.b_bits };
        let quantized = quantize(&map, Some(module.scaling), Some(bits))
            .map_err(|_| "its weights do not fit the bit widths and the bound of the manifest")?;
        let (delivered, pairs) = lay_out(&map, quantized);
        match first_difference(module, &delivered) {
            Some(why) => Err(why),
            None => Ok(pairs),
        }
    });
    let results: Vec<Result<Vec<PairWeights>, String>> = work.collect();
    let mut out = DraftLike { pairs: Vec::new(), differences: Vec::new() };
    for (module, result) in manifest.modules.iter().zip(results) {
        match result {
            Ok(pairs) => out.pairs.extend(pairs),
            Err(why) => out.differences.push((module.name.clone(), why)),
        }
    }
    out
}

fn first_difference(committed: &Module, delivered: &Module) -> Option<String> {
    let dims = |m: &Module| m.inputs.iter().map(|i| i.dim).chain([m.d_out]).collect::<Vec<_>>();
    let names = |m: &Module| m.inputs.iter().map(|i| i.name.clone()).collect::<Vec<_>>();
    let terms =
        |m: &Module| m.terms.iter().map(|t| (t.kind, t.input, t.rank, t.shift)).collect::<Vec<_>>();
    if dims(committed) != dims(delivered) || terms(committed).len() != terms(delivered).len() {
        return Some(format!(
            "its shape is {:?}, the manifest says {:?}",
            dims(delivered),
            dims(committed)
        ));
    }
    if names(committed) != names(delivered) {
        return Some(format!(
            "its inputs are {:?}, the manifest says {:?}",
            names(delivered),
            names(committed)
        ));
    }
    if terms(committed) != terms(delivered) {
        return Some("its terms have other ranks or scales than the manifest says".into());
    }
    if committed.scale_log2 != delivered.scale_log2 || committed.delta_bits != delivered.delta_bits
    {
        return Some(
            "its weights quantise to another scale or bound than the manifest says".into(),
        );
    }
    None
}

/// The manifest entry of a quantised map, and its integers.
fn lay_out(map: &LinearMap, quantized: Quantized) -> (Module, Vec<PairWeights>) {
    let mut terms = Vec::new();
    let mut pairs = Vec::new();
    for term in quantized.terms {
        let (kind, input, shift, term_pairs): (_, _, _, Vec<PairWeights>) = match term {
            QuantizedTerm::LowRank { input, a, b } => (
                TermKind::LowRank,
                Some(input),
                0,
                a.into_iter().zip(b).map(|(a, b)| PairWeights { a, b }).collect(),
            ),
            QuantizedTerm::Bias { shift, b } => {
                (TermKind::Bias, None, shift, vec![PairWeights { a: vec![], b }])
            }
            QuantizedTerm::ElementScale { input, shift, g } => {
                (TermKind::Scale, Some(input), shift, vec![PairWeights { a: g, b: vec![] }])
            }
        };
        terms.push(Term { a: vec![], b: vec![], input, kind, rank: term_pairs.len(), shift });
        pairs.extend(term_pairs);
    }
    let module = Module {
        a_bits: quantized.a_bits,
        b_bits: quantized.b_bits,
        d_out: map.d_out,
        delta_bits: quantized.delta_bits,
        inputs: input_names(map),
        name: map.name.clone(),
        scale_log2: quantized.scale_log2,
        scaling: quantized.scaling,
        terms,
        x_bits: quantized.x_bits,
    };
    (module, pairs)
}

/// Names of the inputs in traces: `x` for a single input; otherwise the graph's names, made
/// different from each other and from the names of the trace's other tensors.
fn input_names(map: &LinearMap) -> Vec<Input> {
    if let [only] = map.inputs.as_slice()
        && only.name != "base"
    {
        return vec![Input { dim: only.dim, name: "x".into() }];
    }
    let mut taken: std::collections::HashSet<String> = RESERVED_INPUTS.map(String::from).into();
    let mut free = |name: &str| {
        let mut name = name.replace('.', "_");
        while !taken.insert(name.clone()) {
            name.push_str("_in");
        }
        name
    };
    map.inputs.iter().map(|input| Input { dim: input.dim, name: free(&input.name) }).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    /// Numbers of which whole rows or columns are zero: all of them in one of four cases.
    fn with_zeros(rows: usize, columns: usize) -> impl Strategy<Value = Vec<f64>> {
        let zeros = (
            any::<u8>(),
            prop::collection::vec(any::<bool>(), rows),
            prop::collection::vec(any::<bool>(), columns),
        );
        (prop::collection::vec(-2.0..2.0, rows * columns), zeros).prop_map(
            move |(mut values, (which, no_row, no_column))| {
                for (at, value) in values.iter_mut().enumerate() {
                    let (row, column) = (no_row[at / columns], no_column[at % columns]);
                    if [true, row, column, false][usize::from(which % 4)] {
                        *value = 0.0;
                    }
                }
                values
            },
        )
    }

    proptest! {
        /// What is compiled is what the proof crate accepts: an adapter before its training, frozen
        /// layers, experts that saw no token.
        #[test]
        fn weights_with_zeros_keep_to_their_own_bound(
            a in with_zeros(5, 3), b in with_zeros(3, 4), bias in with_zeros(1, 4),
            gains in with_zeros(1, 4), kinds in 1u8..8, most in 16u32..=18,
        ) {
            let matrix = |rows, columns, values: Vec<f64>| {
                crate::Matrix::new(rows, columns, values).unwrap()
            };
            let terms = [
                crate::Term::LowRank { input: 0, a: matrix(5, 3, a), b: matrix(3, 4, b) },
                crate::Term::Bias { b: bias },
                crate::Term::ElementScale { input: 1, g: gains },
            ];
            let chosen = terms.into_iter().enumerate().filter(|(at, _)| kinds >> at & 1 == 1);
            let terms: Vec<_> = chosen.map(|(_, term)| term).collect();
            let input = |name: &str, dim| crate::InputSpec { name: name.into(), dim };
            let inputs = [input("x", 5), input("base", 4)];
            let inputs = inputs.into_iter().take(if kinds & 4 == 4 { 2 } else { 1 }).collect();
            let map = LinearMap { name: "m".into(), inputs, d_out: 4, scale: 2.0, terms };
            let (module, pairs) = lay_out(&map, quantize_within(&map, None, most).unwrap());
            let manifest = Manifest {
                base_model: BaseModel { fingerprint: None, name: "base".into() },
                format: FORMAT.into(),
                k: 12,
                left_out: Vec::new(),
                modules: vec![module],
                settings_digest: String::new(),
                srs_digest: String::new(),
                version: VERSION,
            };
            let weights = zklora_proof::weights::Weights::new(&manifest, pairs);
            prop_assert!(weights.is_ok(), "{}", weights.err().unwrap());
        }
    }

    #[test]
    fn inputs_get_names_that_a_trace_can_have() {
        let names = |inputs: &[&str]| {
            let inputs = inputs
                .iter()
                .map(|name| crate::InputSpec { name: (*name).into(), dim: 2 })
                .collect();
            let map = LinearMap { name: "m".into(), inputs, d_out: 2, scale: 1.0, terms: vec![] };
            input_names(&map).into_iter().map(|input| input.name).collect::<Vec<_>>()
        };
        assert_eq!(names(&["input.1"]), ["x"]);
        assert_eq!(names(&["base"]), ["base"]);
        assert_eq!(names(&["x", "base"]), ["x", "base"]);
        assert_eq!(names(&["input.1", "input_1", "scale"]), ["input_1", "input_1_in", "scale_in"]);
    }

    #[test]
    fn an_entry_with_its_inputs_swapped_is_another_module() {
        let input = |name: &str| Input { dim: 3, name: name.into() };
        let module = |inputs: [&str; 2]| Module {
            a_bits: 8,
            b_bits: 8,
            d_out: 3,
            delta_bits: 40,
            inputs: inputs.map(input).to_vec(),
            name: "m".into(),
            scale_log2: 0,
            scaling: 1.0,
            terms: vec![],
            x_bits: 20,
        };
        assert_eq!(first_difference(&module(["x", "base"]), &module(["x", "base"])), None);
        assert!(
            first_difference(&module(["x", "base"]), &module(["base", "x"]))
                .unwrap()
                .contains("its inputs are")
        );
    }
}
