//! Recording a session in one process: runs the quantised adapter on activations, and counts the
//! rows before the deltas leave.
//!
//! [`record_to`] works in pieces, from a source of activations to a trace file. [`record`] has
//! everything in memory.

use std::{ops::Range, path::Path};

use rayon::prelude::*;
use zklora_artifacts::{
    activation_source::{ActivationSource, read_inputs},
    activations::Activations,
    folder::Artifacts,
    module_quantizer::quantized_from,
    module_rows::ModuleRows,
    session_rows::SessionRows,
    trace_reader::TraceReader,
    trace_writer::TraceWriter,
};
use zklora_proof::{
    checked_manifest::CheckedManifest, manifest::Module, masks::os_bytes, trace::TraceDigest,
};

use crate::{
    Error,
    deltas::Deltas,
    ledger::{Entry, LOCAL, Ledger, Rows},
    row_totals::RowTotals,
};

/// Bytes of rows and deltas that are computed at a time, by all threads together. While they are
/// written, as many are computed.
const AT_ONCE: usize = 16 << 20;
/// Fewest rows of a piece: as many share one pass over the weights.
const FEWEST_ROWS: usize = 16;

/// A session that was recorded to a file.
#[derive(Debug)]
pub struct Recorded {
    /// The session's 32 bytes.
    pub session: [u8; 32],
    /// Rows of each module of the manifest.
    pub counts: Vec<usize>,
    /// Digest of the trace.
    pub digest: TraceDigest,
    /// Rows served so far, over all sessions.
    pub served: RowTotals,
}

/// [`record`] from any source of activations to a trace file, in pieces: memory does not grow with
/// the rows. The file has the bytes that [`SessionRows::write`] writes, and appears at `out` after
/// its rows were counted.
///
/// # Errors
/// Those of [`record`]; [`Error::Artifact`] if the source cannot be read or the file not written.
pub fn record_to(
    artifacts: &Artifacts,
    activations: &dyn ActivationSource,
    session: Option<[u8; 32]>,
    max_rows: Option<u64>,
    out: &Path,
) -> Result<Recorded, Error> {
    let session = drawn(session)?;
    let manifest = &artifacts.manifest;
    let modules = manifest.modules();
    let counts = modules.iter().map(|module| activations.rows(module));
    let counts = counts.collect::<Result<Vec<usize>, _>>()?;
    let deltas = Deltas::new(modules, &artifacts.weights);
    let compute = |(m, rows): &(usize, Range<usize>)| {
        let inputs = read_inputs(activations, &modules[*m], rows)?;
        let inputs: Vec<&[f32]> = inputs.iter().map(|values| &**values).collect();
        Ok((*m, module_rows(artifacts, &deltas, *m, rows.start, &inputs)?))
    };
    let mut writer = TraceWriter::create(out, manifest.id(), session, modules, &counts)?;
    let mut computed = Vec::new();
    for group in groups(pieces(modules, &counts)) {
        let (next, written) = rayon::join(
            || group.par_iter().map(compute).collect::<Result<Vec<_>, Error>>(),
            || write(&mut writer, std::mem::take(&mut computed)),
        );
        written?;
        computed = next?;
    }
    write(&mut writer, computed)?;
    let complete = writer.complete()?;
    let digest = TraceReader::trace(complete.temporary(), manifest)?.digest();
    let served = count(artifacts, &session, digest, &counts, max_rows)?;
    complete.publish()?;
    Ok(Recorded { session, counts, digest, served })
}

/// Some rows of a module, with the bytes that they take.
struct Piece {
    module: usize,
    rows: Range<usize>,
    bytes: usize,
}

/// All rows, module by module.
fn pieces<'a>(modules: &'a [Module], counts: &'a [usize]) -> impl Iterator<Item = Piece> + 'a {
    let most = AT_ONCE / (2 * rayon::current_num_threads());
    modules.iter().zip(counts).enumerate().flat_map(move |(module, (shape, count))| {
        let values = shape.inputs.iter().map(|input| input.dim).sum::<usize>();
        // Activations as floats and as integers, a constant and a scale, deltas.
        let row = 8 * (values + 1 + shape.d_out);
        let at_once = (most / row).max(FEWEST_ROWS);
        (0..*count).step_by(at_once).map(move |first| {
            let rows = first..(*count).min(first + at_once);
            Piece { module, bytes: rows.len() * row, rows }
        })
    })
}

/// Consecutive pieces of about [`AT_ONCE`] bytes.
fn groups(pieces: impl Iterator<Item = Piece>) -> impl Iterator<Item = Vec<(usize, Range<usize>)>> {
    let mut pieces = pieces.peekable();
    std::iter::from_fn(move || {
        let (mut group, mut bytes) = (Vec::new(), 0);
        while let Some(piece) =
            pieces.next_if(|piece| group.is_empty() || bytes + piece.bytes <= AT_ONCE)
        {
            bytes += piece.bytes;
            group.push((piece.module, piece.rows));
        }
        (!group.is_empty()).then_some(group)
    })
}

fn write(writer: &mut TraceWriter, computed: Vec<(usize, ModuleRows)>) -> Result<(), Error> {
    computed.into_iter().try_for_each(|(m, rows)| Ok(writer.push(m, &rows, &rows.delta)?))
}

/// Quantises the activations row by row, computes every delta, and enters the session in the
/// ledger. Also returns the rows served so far, over all sessions.
///
/// `session` is the user's 32 fresh bytes. Without it they are drawn here, where both parties are
/// this process. `max_rows` is the most that a module may serve over all sessions.
///
/// # Errors
/// [`Error::Artifact`] names module and row of activations that are not finite or do not fit.
/// [`Error::Budget`]: the limit would be exceeded, and nothing was served.
pub fn record(
    artifacts: &Artifacts,
    activations: &Activations,
    session: Option<[u8; 32]>,
    max_rows: Option<u64>,
) -> Result<(SessionRows, RowTotals), Error> {
    let session = drawn(session)?;
    let modules = artifacts.manifest.modules();
    let deltas = Deltas::new(modules, &artifacts.weights);
    let modules = (0..modules.len())
        .into_par_iter()
        .map(|m| match activations.modules.get(&modules[m].name) {
            Some(inputs) => {
                let inputs: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
                module_rows(artifacts, &deltas, m, 0, &inputs)
            }
            None => Ok(ModuleRows::none(&modules[m])),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let trace = SessionRows { adapter: artifacts.manifest.id(), session, modules };
    let digest = trace.with_trace::<_, Error>(&artifacts.manifest, |t| Ok(t.digest()))?;
    let counts: Vec<usize> = trace.modules.iter().map(|rows| rows.scales.len()).collect();
    let served = count(artifacts, &session, digest, &counts, max_rows)?;
    Ok((trace, served))
}

fn drawn(session: Option<[u8; 32]>) -> Result<[u8; 32], Error> {
    Ok(match session {
        Some(session) => session,
        None => *os_bytes()?,
    })
}

/// Enters a session in the ledger, and returns the rows served so far.
fn count(
    artifacts: &Artifacts,
    session: &[u8; 32],
    digest: TraceDigest,
    counts: &[usize],
    max_rows: Option<u64>,
) -> Result<RowTotals, Error> {
    let manifest = &artifacts.manifest;
    let mut ledger = Ledger::lock(&artifacts.ledger())?;
    let mut served = RowTotals::count(ledger.index(), manifest)?;
    let more: Vec<(usize, u64)> = counts.iter().map(|rows| *rows as u64).enumerate().collect();
    served.check_limit(manifest, &more, max_rows)?;
    ledger.append(Entry::recorded(session, digest, rows_of(manifest, counts)))?;
    more.iter().for_each(|(module, rows)| served.add(LOCAL, *module, *rows));
    Ok(served)
}

/// Rows of each module that has any.
fn rows_of(manifest: &CheckedManifest, counts: &[usize]) -> Rows {
    let rows = manifest.modules().iter().zip(counts).filter(|(_, rows)| **rows > 0);
    rows.map(|(module, rows)| (module.name.clone(), *rows as u64)).collect()
}

/// Rows of module `m`, with their deltas. `first` rows of the session come before them.
fn module_rows(
    artifacts: &Artifacts,
    deltas: &Deltas,
    m: usize,
    first: usize,
    inputs: &[&[f32]],
) -> Result<ModuleRows, Error> {
    let modules = artifacts.manifest.modules();
    let mut rows = quantized_from(&modules[m], first, inputs)?;
    rows.delta = deltas.compute(modules, &artifacts.weights, m, &rows);
    Ok(rows)
}
