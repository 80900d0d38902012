//! Runs the stages in order, from the bytes of an ONNX file to the affine map of a row.

use std::path::Path;

use tract_onnx::pb;
use zklora_models::panics;

use super::{
    affine::interpret::{Images, Interpretation, interpret},
    error::IngestError,
    linear_terms::{
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

/// The result of ingesting an ONNX model.
#[derive(Debug, Clone)]
pub struct Ingested {
    /// The map of a row.
    pub map: LinearMap,
    /// Layout of the rows of each of the map's inputs in the graph's tensor.
    pub inputs: Vec<Layout>,
    /// Layout of the rows of the output in the graph's tensor.
    pub output: Layout,
    /// Warnings for the owner of the adapter, before anything is published.
    pub warnings: Vec<String>,
    /// The outcome of each node of the graph.
    pub steps: Vec<NodeOutcome>,
}

/// As [`ingest_in`], for a model whose data are all in `bytes`. Returns only the map.
///
/// # Errors
/// As [`ingest_in`].
pub fn ingest(bytes: &[u8], name: &str) -> Result<LinearMap, IngestError> {
    ingest_in(bytes, name, None).map(|ingested| ingested.map)
}

/// As [`ingest_in`], for a file. The module's name is that of the file without its extension, and
/// external data are in the file's folder.
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

/// Finds the affine map that an ONNX model computes for every row of its inputs. `folder` holds the
/// model's external data.
///
/// The features of each input and of the output are the last part of their row-major buffers:
/// `[rows, d]`, `[batch, seq, d]` and a flat `[1, rows * d]` give the same map. Where they are not
/// (images), the [`Layout`]s state where rows are. For a graph that mixes rows (a mean over all of
/// them, a 3 x 3 convolution), one row of the map holds all of these rows, if their number is
/// fixed.
///
/// # Errors
/// [`IngestError`] says which node is not linear, or what is wrong with the file, and what to do.
/// Never panics: a panic inside tract becomes [`IngestError::Panicked`].
pub fn ingest_in(bytes: &[u8], name: &str, folder: Option<&Path>) -> Result<Ingested, IngestError> {
    panics::catch(|| ingest_unguarded(bytes, name, folder))
        .unwrap_or_else(|| Err(IngestError::Panicked { name: name.into() }))
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

/// Ingests a model after the stage on the protobuf.
fn analysed(proto: &pb::ModelProto, name: &str) -> Result<Ingested, IngestError> {
    let graph = typed(proto, name)?;
    let Interpretation { affine, steps } = interpretation(proto, &graph, name)?;
    let lowered = lower(affine, &graph.inputs, name)?;
    let warnings = warnings(&lowered);
    let Lowered { map, inputs, output, .. } = lowered;
    let steps = graph.origins.all_steps(steps);
    Ok(Ingested { map, inputs, output, warnings, steps })
}

/// Tries several ways to read the graph, and returns the first result; if all fail, the error of
/// the most direct way. A graph that exceeds a limit is not read again.
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
    // Decluttering resolves more (sizes computed in the graph), but node names become less
    // familiar.
    if let Some(model) = graph.decluttered()
        && let Ok(interpretation) = interpret(&model, graph, name, Images::PositionsAsRows)
    {
        return Ok(interpretation);
    }
    Err(direct)
}
