//! ONNX → [`LinearMap`]: reads a LoRA module exported to ONNX and finds out which affine map it is.
//!
//! The stages, one file each. On the protobuf: `decode`, `inline` (local functions, with `defaults`
//! and `versions`), `screen` (sizes, names, order), `names`, `external` (tensors in other files),
//! `widen` (bf16), `equation` and `pairwise` (Einsum), `noop` (reductions of nothing). Through
//! tract: `graph` infers types and folds constants, with the `builders` of operators that tract
//! reads otherwise, the `dimensions` of the inputs, and within the limits of `fold`, `formula` and
//! `bounds` but for those of `withhold`. On tract's typed graph: `walk` interprets it over affine
//! expressions (`affine`, `chain`, `view`, `axes`, `constant`, `operators`), within the limits
//! of `held`; `place` and `cut` turn the result into low-rank terms (`absorb`, `multiply`),
//! `advice` says what a user should know about them. Knows nothing of quantisation or proofs.
//! Adding an operator is one file in `operators`.

mod absorb;
mod advice;
mod affine;
mod axes;
mod bounds;
mod builders;
mod chain;
mod constant;
mod cut;
mod decode;
mod defaults;
mod describe;
mod dimensions;
mod equation;
mod error;
mod external;
mod fold;
mod formula;
mod graph;
mod held;
mod inline;
mod multiply;
mod names;
mod noop;
mod operators;
mod pairwise;
mod place;
mod screen;
mod screen_tensor;
mod versions;
mod view;
mod walk;
mod widen;
mod withhold;

pub use decode::MAX_FILE_BYTES;
pub use error::IngestError;
pub use external::{MAX_EXTERNAL_BYTES, embedded, external_files};
pub use operators::{Supported, supported_operators};
pub use walk::Step;

use crate::{layout::Layout, linear_map::LinearMap};
use std::{io::Read, path::Path};
use tract_onnx::pb;
use zklora_models::quiet;

/// What became of an ONNX model.
#[derive(Debug, Clone)]
pub struct Ingested {
    /// The map of a row.
    pub map: LinearMap,
    /// Where the rows of each of the map's inputs are in the graph's tensor.
    pub inputs: Vec<Layout>,
    /// Where the rows of the output are in the graph's tensor.
    pub output: Layout,
    /// What the user should know before publishing anything, in words.
    pub warnings: Vec<String>,
    /// What became of each node of the graph.
    pub steps: Vec<Step>,
}

/// The affine map that an ONNX model computes for every row of its inputs, all data being in
/// `bytes`.
///
/// See [`ingest_in`], which also says more about the result.
///
/// # Errors
/// As [`ingest_in`].
pub fn ingest(bytes: &[u8], name: &str) -> Result<LinearMap, IngestError> {
    ingest_in(bytes, name, None).map(|ingested| ingested.map)
}

/// [`ingest_in`] for a file, with its folder; the module is called like the file without its
/// extension.
///
/// # Errors
/// As [`ingest_in`], and [`IngestError::Io`].
pub fn ingest_file(path: &Path) -> Result<Ingested, IngestError> {
    let io = |source| IngestError::Io { file: path.display().to_string(), source };
    let name = path
        .file_stem()
        .map_or_else(|| "module".into(), |stem| stem.to_string_lossy().into_owned());
    let mut bytes = vec![];
    // One byte more than allowed tells a file at the limit from one above it, whatever its metadata
    // claim.
    std::fs::File::open(path)
        .map_err(io)?
        .take(MAX_FILE_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    ingest_in(&bytes, &name, path.parent())
}

/// The affine map that an ONNX model computes for every row of its inputs; `folder` is where
/// tensors outside of the file are.
///
/// The features of each input and of the output are the last part of their row-major buffers:
/// `[rows, d]`, `[batch, seq, d]` or a flat `[1, rows * d]` are the same to the map. Where they are
/// not (images), the [`Layout`]s say where rows are. A graph that mixes rows (a mean over all of
/// them, a 3 x 3 convolution) is the map of all of these as one row, if their number is fixed.
///
/// # Errors
/// [`IngestError`] says which node is not linear, or what is wrong with the file, and what to do.
/// Never panics: a panic inside tract becomes an error.
pub fn ingest_in(bytes: &[u8], name: &str, folder: Option<&Path>) -> Result<Ingested, IngestError> {
    quiet::catch(|| ingest_unguarded(bytes, name, folder)).unwrap_or_else(|| {
        Err(IngestError::Malformed {
            name: name.into(),
            what: "analysing it failed unexpectedly: the file is damaged, or has a graph that tract cannot analyse; export it \
                   again, and simplified (for example by onnxsim)"
                .into(),
        })
    })
}

fn ingest_unguarded(
    bytes: &[u8],
    name: &str,
    folder: Option<&Path>,
) -> Result<Ingested, IngestError> {
    let mut proto = decode::decode(bytes, name)?;
    inline::inline_functions(&mut proto, bytes, name)?;
    screen::screen(&proto, name)?;
    names::tell_nodes_apart(&mut proto);
    external::load(&mut proto, name, folder)?;
    screen::screen_payloads(&proto, name)?;
    widen::widen_bf16(&mut proto);
    equation::complete_ellipses(&mut proto);
    pairwise::write_as_pairs(&mut proto);
    noop::drop_reductions_of_nothing(&mut proto);
    analysed(&proto, name).or_else(|error| match error {
        error @ IngestError::TooMuch { .. } => Err(error),
        error if dimensions::share(&mut proto) => analysed(&proto, name).map_err(|_| error),
        error => Err(error),
    })
}

/// What becomes of a model that has been screened and written as tract reads it.
fn analysed(proto: &pb::ModelProto, name: &str) -> Result<Ingested, IngestError> {
    let graph = graph::typed(proto, name)?;
    let walked = interpret(proto, &graph, name)?;
    let placed = place::place(walked.affine, &graph, name)?;
    let warnings = advice::warnings(&placed);
    let steps = graph.origins.all_steps(walked.steps);
    Ok(Ingested { map: placed.map, inputs: placed.inputs, output: placed.output, warnings, steps })
}

/// The first of some ways to read the graph that gives a map; if none does, the error of the most
/// direct one. A graph that asks for too much is not read again.
fn interpret(
    proto: &pb::ModelProto,
    graph: &graph::Graph,
    name: &str,
) -> Result<walk::Walked, IngestError> {
    let direct = match walk::interpret(&graph.model, graph, name, walk::Images::PositionsAsRows) {
        Ok(walked) => return Ok(walked),
        Err(error @ IngestError::TooMuch { .. }) => return Err(error),
        Err(error) => error,
    };
    let has_convolutions =
        proto.graph.iter().flat_map(|graph| &graph.node).any(|node| node.op_type == "Conv");
    if has_convolutions
        && let Ok(walked) = walk::interpret(&graph.model, graph, name, walk::Images::AsOneRow)
    {
        return Ok(walked);
    }
    // Decluttering resolves more (sizes computed in the graph), at the price of less familiar node
    // names.
    if let Some(model) = graph.decluttered()
        && let Ok(walked) = walk::interpret(&model, graph, name, walk::Images::PositionsAsRows)
    {
        return Ok(walked);
    }
    Err(direct)
}
