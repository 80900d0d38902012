//! The stages in order: from the bytes of an ONNX file to the affine map of a row.

use std::path::Path;

use tract_onnx::pb;
use zklora_models::panics;

use super::{
    affine::interpret::{Images, Interpretation, interpret},
    error::IngestError,
    lowering::{
        linear_map::{Lowered, lower},
        warnings::warnings,
    },
    protobuf::{
        bfloat16, decode, decode::MAX_FILE_BYTES, einsum_ellipsis, einsum_pairs, empty_reductions,
        external_data, functions, node_names, screen,
    },
    typed_graph::{
        dimensions,
        graph::{Graph, typed},
        origins::NodeOutcome,
    },
};
use crate::{layout::Layout, linear_map::LinearMap};

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
    pub steps: Vec<NodeOutcome>,
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
/// As [`ingest_in`], and [`IngestError::File`].
pub fn ingest_file(path: &Path) -> Result<Ingested, IngestError> {
    let name = path
        .file_stem()
        .map_or_else(|| "module".into(), |stem| stem.to_string_lossy().into_owned());
    let bytes = zklora_files::read(path, MAX_FILE_BYTES as u64)?;
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
    panics::catch(|| ingest_unguarded(bytes, name, folder)).unwrap_or_else(|| {
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
    functions::inline_functions(&mut proto, bytes, name)?;
    screen::screen(&proto, name)?;
    node_names::make_unique(&mut proto);
    external_data::load(&mut proto, name, folder)?;
    screen::screen_payloads(&proto, name)?;
    bfloat16::widen_bf16(&mut proto);
    einsum_ellipsis::complete_ellipses(&mut proto);
    einsum_pairs::split_into_pairs(&mut proto);
    empty_reductions::replace_by_identity(&mut proto);
    analysed(&proto, name).or_else(|error| match error {
        error @ IngestError::TooMuch { .. } => Err(error),
        error if dimensions::share_symbols(&mut proto) => analysed(&proto, name).map_err(|_| error),
        error => Err(error),
    })
}

/// What becomes of a model that has been screened and written as tract reads it.
fn analysed(proto: &pb::ModelProto, name: &str) -> Result<Ingested, IngestError> {
    let graph = typed(proto, name)?;
    let Interpretation { affine, steps } = interpretation(proto, &graph, name)?;
    let lowered = lower(affine, &graph.inputs, name)?;
    let warnings = warnings(&lowered);
    let Lowered { map, inputs, output, .. } = lowered;
    let steps = graph.origins.all_steps(steps);
    Ok(Ingested { map, inputs, output, warnings, steps })
}

/// The first of some ways to read the graph that gives a map; if none does, the error of the most
/// direct one. A graph that asks for too much is not read again.
fn interpretation(
    proto: &pb::ModelProto,
    graph: &Graph,
    name: &str,
) -> Result<Interpretation, IngestError> {
    let direct = match interpret(&graph.model, graph, name, Images::PositionsAsRows) {
        Ok(interpretation) => return Ok(interpretation),
        Err(error @ IngestError::TooMuch { .. }) => return Err(error),
        Err(error) => error,
    };
    let has_convolutions =
        proto.graph.iter().flat_map(|graph| &graph.node).any(|node| node.op_type == "Conv");
    if has_convolutions
        && let Ok(interpretation) = interpret(&graph.model, graph, name, Images::AsOneRow)
    {
        return Ok(interpretation);
    }
    // Decluttering resolves more (sizes computed in the graph), at the price of less familiar node
    // names.
    if let Some(model) = graph.decluttered()
        && let Ok(interpretation) = interpret(&model, graph, name, Images::PositionsAsRows)
    {
        return Ok(interpretation);
    }
    Err(direct)
}
