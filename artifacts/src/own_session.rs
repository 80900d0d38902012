//! Checks that a trace is of the user's own session: its id, and the activations that the user
//! sent.
//!
//! A proof says what an adapter computes on the rows of a trace. If another party recorded the
//! trace, these checks show that it is the user's.

use std::ops::Range;

use zklora_proof::{
    checked_manifest::CheckedManifest, manifest::Module, row_source::Piece, trace::Trace,
};

use crate::{
    Error,
    activation_source::{ActivationSource, read_inputs},
    module_quantizer::quantized_from,
    module_rows::ModuleRows,
};

/// Bytes of activations that are quantised at a time.
const PIECE: usize = 4 << 20;

/// What the user knows about the session without the trace. A field that is `None` is not checked,
/// which is right for a trace that the user recorded.
#[derive(Debug, Clone, Copy, Default)]
pub struct OwnSession<'a> {
    /// The 32 random bytes that the user drew for the session.
    pub id: Option<[u8; 32]>,
    /// The activations that the user sent.
    pub inputs: Option<&'a dyn ActivationSource>,
}

impl OwnSession<'_> {
    /// Checks that the trace has this id and exactly these activations.
    ///
    /// # Errors
    /// [`Error::NotYours`] names what differs.
    pub fn check(&self, manifest: &CheckedManifest, trace: &Trace<'_>) -> Result<(), Error> {
        self.check_id(trace.context())?;
        self.inputs.map_or(Ok(()), |activations| check_inputs(manifest, trace, activations))
    }

    /// Checks that the session id of a trace is the user's.
    ///
    /// # Errors
    /// [`Error::NotYours`].
    pub fn check_id(&self, found: &[u8; 32]) -> Result<(), Error> {
        match &self.id {
            Some(expected) if expected != found => Err(Error::NotYours(format!(
                "the trace is of session {}, not of yours, {}",
                hex::encode(found),
                hex::encode(expected)
            ))),
            _ => Ok(()),
        }
    }
}

/// Checks that a trace of another party holds exactly these activations, quantised by
/// [`quantized_from`].
///
/// # Errors
/// [`Error::NotYours`] names the module, and the row if one differs.
pub fn check_inputs(
    manifest: &CheckedManifest,
    trace: &Trace<'_>,
    activations: &dyn ActivationSource,
) -> Result<(), Error> {
    let modules = manifest.modules();
    for (module, found) in modules.iter().zip(trace.counts()) {
        let expected = activations.rows(module)?;
        if *found != expected {
            return Err(not_yours(format!(
                "module `{}` has {found} rows, yours {expected}",
                module.name
            )));
        }
    }
    let mut answer = Ok(());
    trace.visit(modules, |m, rows, piece| {
        if answer.is_ok() {
            answer = compare(&modules[m], activations, rows, piece);
        }
        Ok(())
    })?;
    answer
}

fn not_yours(what: String) -> Error {
    Error::NotYours(format!("the trace is not of your activations: {what}"))
}

/// Compares a piece of a trace with the same rows of the user's activations, which are quantised
/// again for each part of the trace.
fn compare(
    module: &Module,
    activations: &dyn ActivationSource,
    rows: Range<usize>,
    piece: &Piece<'_>,
) -> Result<(), Error> {
    if let Piece::Delta(_) = piece {
        return Ok(());
    }
    let values = module.inputs.iter().map(|input| input.dim).sum::<usize>();
    let at_once = (PIECE / 4 / values.max(1)).max(1);
    for first in rows.clone().step_by(at_once) {
        let part = first..rows.end.min(first + at_once);
        let inputs = read_inputs(activations, module, &part)?;
        let inputs: Vec<&[f32]> = inputs.iter().map(|values| &**values).collect();
        let expected: ModuleRows = quantized_from(module, first, &inputs)?;
        let in_piece = part.start - rows.start..part.end - rows.start;
        let differs = match piece {
            Piece::Input(i, found) => {
                differing(found, &expected.inputs[*i], &in_piece, module.inputs[*i].dim)
            }
            Piece::Ones(found) => differing(found, &expected.ones, &in_piece, 1),
            // Equality of floats is equality of bits here: scales are positive numbers.
            Piece::Scales(found) => differing(found, &expected.scales, &in_piece, 1),
            Piece::Delta(_) => None,
        };
        if let Some(row) = differs {
            return Err(not_yours(format!(
                "module `{}`, row {}, has other values or another scale",
                module.name,
                rows.start + row
            )));
        }
    }
    Ok(())
}

/// The first of `rows` of a piece whose `dim` values differ from the expected ones.
fn differing<T: PartialEq>(
    piece: &[T],
    expected: &[T],
    rows: &Range<usize>,
    dim: usize,
) -> Option<usize> {
    let found = piece.get(rows.start * dim..rows.end * dim).unwrap_or_default();
    let pairs = found.chunks_exact(dim).zip(expected.chunks_exact(dim));
    match pairs.map(|(found, expected)| found != expected).position(|differs| differs) {
        Some(at) => Some(rows.start + at),
        None => (expected.len() != found.len()).then_some(rows.start),
    }
}
