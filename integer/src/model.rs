//! The integer model of a base model: its operators and scales, and the file that describes it.
//!
//! `integer-model.json` names every operator, every scale and the digests of all weights and
//! tables. Its digest is the identity of the function: who has the base model makes the same file
//! again, byte for byte. Weights are not stored: they are read from the base model's ONNX file.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use zklora_files::{Access, text::condensed};

use crate::{
    Error,
    adapter::Adapter,
    calibrate::calibrate,
    calibration,
    graph::{Function, Graph, NormKind, Operator, Purpose},
    lower,
    program::Program,
    rounding::with_roundings,
    rules,
    scaled_graph::ScaledGraph,
    scales::{self, Scale},
};

/// The file's name in the model's folder.
pub const FILE: &str = "integer-model.json";
/// The tables' name in the model's folder.
pub const TABLES: &str = "tables.safetensors";
/// The `format` of the file.
pub const FORMAT: &str = "zklora-integer-model";
/// Its version.
pub const VERSION: u32 = 1;

const MAX_FILE: u64 = 64 << 20;
const MAX_TABLES: u64 = 1 << 30;

/// What the calibration is made of.
#[derive(Debug, Clone, Copy)]
pub enum Calibration<'a> {
    /// Texts, read with this tokenizer.
    Texts(&'a zklora_models::language_model::Tokenizer),
    /// Generated tokens.
    Tokens,
}

/// The integer model: a graph with scales, and how it was calibrated.
#[derive(Debug)]
pub struct IntegerModel {
    /// The graph with its scales.
    pub scaled: ScaledGraph,
    calibration: CalibrationEntry,
}

impl std::ops::Deref for IntegerModel {
    type Target = ScaledGraph;

    fn deref(&self) -> &ScaledGraph {
        &self.scaled
    }
}

/// The file.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    calibration: CalibrationEntry,
    format: String,
    operators: Vec<OperatorEntry>,
    rules: u32,
    score_bits: i32,
    tables: Vec<TableEntry>,
    tokens: usize,
    version: u32,
    vocabulary: usize,
    weights: Vec<WeightEntry>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CalibrationEntry {
    blake3: String,
    tokens: usize,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TableEntry {
    blake3: String,
    entries: usize,
    name: String,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WeightEntry {
    blake3: String,
    inputs: usize,
    outputs: usize,
}

/// An operator; fields that its kind does not have are left out.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct OperatorEntry {
    #[serde(skip_serializing_if = "Option::is_none")]
    bias: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epsilon: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<Function>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gain: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<Vec<usize>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<NormKind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    largest_sum: Option<u64>,
    operator: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    purpose: Option<Purpose>,
    reads: Vec<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rotations: Option<Vec<(usize, f32, bool)>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scale: Option<f64>,
    scales: Scales,
    #[serde(skip_serializing_if = "Option::is_none")]
    shift: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<usize>,
}

/// [`Scale`] in a field of its own.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Scales(Scale);

impl Default for Scales {
    fn default() -> Self {
        Scales(Scale::None {})
    }
}

impl IntegerModel {
    /// Makes the integer model of a base model, by the rules.
    ///
    /// # Errors
    /// The base model has no integer model, or the tokenizer is another model's.
    pub fn compile(base: &Path, calibration: Calibration<'_>) -> Result<IntegerModel, Error> {
        IntegerModel::of_graph(&lower::lower_and_compare(base)?, calibration)
    }

    /// The same for a graph that was read before.
    ///
    /// # Errors
    /// Those of [`Self::compile`].
    pub fn of_graph(graph: &Graph, calibration: Calibration<'_>) -> Result<IntegerModel, Error> {
        let graph = with_roundings(graph);
        let tokens = graph.longest_unit();
        let units = match calibration {
            Calibration::Texts(tokenizer) => {
                calibration::from_texts(tokenizer, graph.vocabulary, tokens)?
            }
            Calibration::Tokens => calibration::from_numbers(graph.vocabulary, tokens),
        };
        let seen = calibrate(&graph, &units);
        let (scales, score_bits) = scales::choose(&graph, &seen);
        let calibration = CalibrationEntry {
            blake3: calibration::digest(&units).to_hex().to_string(),
            tokens: units.iter().map(Vec::len).sum(),
        };
        let scaled = ScaledGraph::new(graph, scales, score_bits, tokens);
        let model = IntegerModel { scaled, calibration };
        // Bounds that do not fit are errors of the model, not of its use.
        model.program(Adapter::default())?;
        Ok(model)
    }

    /// Reads the model in a folder, for the base model that it was made of. Only scales and the
    /// digest of the calibration are believed; everything else must be what the base model gives.
    /// Believed scales make another function, so a file of another party is of no use: make it with
    /// [`Self::compile`], or compare its digest with one that you made.
    ///
    /// # Errors
    /// The file is damaged, or of another base model or version.
    pub fn load(folder: &Path, base: &Path) -> Result<IntegerModel, Error> {
        IntegerModel::load_with(folder, &lower::lower(base, &[])?.graph)
    }

    /// The same for a graph that was read before.
    ///
    /// # Errors
    /// Those of [`Self::load`].
    pub fn load_with(folder: &Path, graph: &Graph) -> Result<IntegerModel, Error> {
        let path = folder.join(FILE);
        let refuse = |why: String| Error::ModelFile { path: path.clone(), why };
        if !path.is_file() {
            let why = "there is no such file: name the folder that integer compile wrote";
            return Err(refuse(why.into()));
        }
        let bytes = zklora_files::read(&path, MAX_FILE)?;
        let found: Description = serde_json::from_slice(&bytes)
            .map_err(|error| refuse(format!("it is no integer model: {}", condensed(error))))?;
        if found.format != FORMAT || found.version != VERSION || found.rules != rules::VERSION {
            return Err(refuse(format!(
                "it is of format {} {} and rules {}, this program knows {FORMAT} {VERSION} and \
                 rules {}: compile it again with this program",
                crate::error::shown(&found.format),
                found.version,
                found.rules,
                rules::VERSION
            )));
        }
        let graph = with_roundings(graph);
        let another = |what: &str| {
            refuse(format!("it is of another base model: {what} differ; compile it again"))
        };
        if found.operators.len() != graph.operators.len() {
            return Err(another("the operators"));
        }
        let limited = |bits: i32| bits.unsigned_abs() <= 2 * rules::MAX_BITS.unsigned_abs();
        let scales: Vec<Scale> = found.operators.iter().map(|entry| entry.scales.0).collect();
        let parts = scales::parts(&graph);
        let sane = scales.iter().zip(parts).all(|(scale, is_part)| match *scale {
            Scale::Bits { bits } => limited(bits),
            Scale::Norm { bits, root_bits, first_bits } => {
                limited(bits) && limited(root_bits) && first_bits <= rules::FIRST_BITS
            }
            Scale::Linear { gain_bits, part_bits, weight_bits } => {
                let parts = part_bits.is_some() == is_part && limited(part_bits.unwrap_or(0));
                parts && limited(gain_bits) && limited(weight_bits)
            }
            // Shifts from the bits of queries and keys together.
            Scale::Attention { score_shift } => {
                score_shift.unsigned_abs() <= 4 * rules::MAX_BITS.unsigned_abs()
            }
            Scale::Activation { entry_bits } => limited(entry_bits),
            Scale::None {} => true,
        });
        if !sane
            || found.tokens != graph.longest_unit()
            || !(0..=rules::SCORE_BITS).contains(&found.score_bits)
        {
            return Err(refuse("its scales are out of range; compile it again".into()));
        }
        let scaled = ScaledGraph::new(graph, scales, found.score_bits, found.tokens);
        let model = IntegerModel { scaled, calibration: found.calibration.clone() };
        // The base model has bounds that fit, with scales by the rules.
        let expected = model.description().map_err(|error| match error {
            Error::Bound { .. } | Error::Internal(_) => {
                refuse(format!("its scales are not those of the base model: {error}"))
            }
            other => other,
        })?;
        if expected.weights != found.weights {
            return Err(another("the weights"));
        }
        if expected.operators != found.operators {
            return Err(another("the operators"));
        }
        if expected.tables != found.tables {
            return Err(refuse("its tables are others than this program makes".into()));
        }
        if to_bytes(&expected)? != bytes {
            return Err(refuse("it is not in its canonical form; compile it again".into()));
        }
        Ok(model)
    }

    /// The program of this model with an adapter.
    ///
    /// # Errors
    /// Those of [`Program::new`].
    pub fn program(&self, adapter: Adapter) -> Result<Program, Error> {
        Program::new(&self.scaled, adapter)
    }

    fn description(&self) -> Result<Description, Error> {
        let graph = &self.graph;
        let program = self.program(Adapter::default())?;
        let tables = program.tables().into_iter().map(|(name, entries)| TableEntry {
            blake3: blake3::hash(&table_bytes(&entries)).to_hex().to_string(),
            entries: entries.len(),
            name,
        });
        let weights: Vec<WeightEntry> = graph
            .weights
            .par_iter()
            .map(|weight| WeightEntry {
                blake3: weight.digest().to_hex().to_string(),
                inputs: weight.inputs(),
                outputs: weight.outputs(),
            })
            .collect();
        let operators = graph.operators.iter().enumerate();
        Ok(Description {
            calibration: self.calibration.clone(),
            format: FORMAT.into(),
            operators: operators.map(|(at, operator)| self.entry(at, operator)).collect(),
            rules: rules::VERSION,
            score_bits: self.score_bits,
            tables: tables.collect(),
            tokens: self.tokens,
            version: VERSION,
            vocabulary: graph.vocabulary,
            weights,
        })
    }

    fn entry(&self, at: usize, operator: &Operator) -> OperatorEntry {
        let mut entry = OperatorEntry {
            operator: operator.name().into(),
            reads: operator.inputs(),
            scales: Scales(self.scales[at]),
            ..OperatorEntry::default()
        };
        match operator {
            Operator::Embedding { table } | Operator::Positions { table } => {
                entry.weight = Some(*table);
            }
            Operator::Round { purpose, .. } => entry.purpose = Some(*purpose),
            Operator::Norm { kind, epsilon, .. } => {
                (entry.kind, entry.epsilon) = (Some(*kind), Some(*epsilon));
            }
            Operator::Linear { affine, weight, bias, .. } => {
                entry.weight = Some(*weight);
                entry.largest_sum = Some(self.largest_sums[at]);
                entry.gain = affine.gain.as_deref().map(floats_digest);
                entry.shift = affine.shift.as_deref().map(floats_digest);
                entry.bias = bias.as_deref().map(floats_digest);
            }
            Operator::Select { from, count, .. } => {
                (entry.from, entry.count) = (Some(*from), Some(*count));
            }
            Operator::Rotary { rotations, .. } => {
                let each = rotations.iter();
                let each = each.map(|r| (r.partner, r.frequency, r.negative));
                entry.rotations = Some(each.collect());
            }
            Operator::Attention { groups, scale, .. } => {
                (entry.groups, entry.scale) = (Some(groups.clone()), Some(*scale));
            }
            Operator::Activation { function, .. } => entry.function = Some(*function),
            Operator::Sum { .. } | Operator::Product { .. } => {}
        }
        entry
    }

    /// The bytes of `integer-model.json`.
    ///
    /// # Errors
    /// [`Error::Internal`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        to_bytes(&self.description()?)
    }

    /// Writes the model into a folder, and its tables for other implementations. Returns the paths
    /// and the digest.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(PathBuf, PathBuf, blake3::Hash), Error> {
        zklora_files::create_folder(folder, Access::Public)?;
        let bytes = self.to_bytes()?;
        let tables = folder.join(TABLES);
        zklora_files::write(&tables, &self.table_file()?, Access::Public)?;
        let path = folder.join(FILE);
        zklora_files::write(&path, &bytes, Access::Public)?;
        Ok((path, tables, blake3::hash(&bytes)))
    }

    /// All tables as one safetensors file of 64-bit integers.
    fn table_file(&self) -> Result<Vec<u8>, Error> {
        let program = self.program(Adapter::default())?;
        let tables: Vec<(String, Vec<u8>, usize)> = program
            .tables()
            .into_iter()
            .map(|(name, entries)| (name, table_bytes(&entries), entries.len()))
            .collect();
        let internal = |error: safetensors::SafeTensorError| Error::Internal(error.to_string());
        let views = tables
            .iter()
            .map(|(name, bytes, count)| {
                let dtype = safetensors::Dtype::I64;
                let view = safetensors::tensor::TensorView::new(dtype, vec![*count], bytes);
                view.map(|view| (name.as_str(), view)).map_err(internal)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let bytes = safetensors::serialize(views, None).map_err(internal)?;
        if bytes.len() as u64 > MAX_TABLES {
            return Err(Error::Internal("the tables are too large".into()));
        }
        Ok(bytes)
    }
}

/// Canonical JSON: fields of the structs above are in alphabetical order.
fn to_bytes(description: &Description) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(description).map_err(|error| Error::Internal(error.to_string()))
}

fn table_bytes(entries: &[i64]) -> Vec<u8> {
    entries.iter().flat_map(|entry| entry.to_le_bytes()).collect()
}

/// BLAKE3 of floats, as little-endian bytes; −0 counts as 0.
fn floats_digest(floats: &[f32]) -> String {
    let bytes: Vec<u8> = floats.iter().flat_map(|float| (float + 0.0).to_le_bytes()).collect();
    blake3::hash(&bytes).to_hex().to_string()
}
