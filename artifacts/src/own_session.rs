//! Whether a trace is of the user's own session: its id, and the activations that the user sent.
//!
//! A proof says what an adapter computes on the rows of a trace. If another party recorded the
//! trace, that it is the user's is checked here.

use std::ops::Range;

use zklora_proof::{
    checked_manifest::CheckedManifest, manifest::Module, row_source::Piece, trace::Trace,
};

use crate::{Error, activations::Activations, module_rows::ModuleRows, quantized_rows::quantized};

/// What the user knows of the session without the trace. What is not given is taken from the trace,
/// as is right for a trace that the user recorded.
#[derive(Debug, Clone, Copy, Default)]
pub struct OwnSession<'a> {
    /// The 32 random bytes that the user drew for the session.
    pub id: Option<[u8; 32]>,
    /// The activations that the user sent.
    pub inputs: Option<&'a Activations>,
}

impl OwnSession<'_> {
    /// Whether the trace has this id and exactly these activations.
    ///
    /// # Errors
    /// [`Error::NotYours`] names what differs.
    pub fn check(&self, pinned: &CheckedManifest, trace: &Trace<'_>) -> Result<(), Error> {
        self.check_id(trace.context())?;
        self.inputs.map_or(Ok(()), |activations| check_inputs(pinned, trace, activations))
    }

    /// Whether the session id of a trace is the user's.
    ///
    /// # Errors
    /// [`Error::NotYours`].
    pub fn check_id(&self, found: &[u8; 32]) -> Result<(), Error> {
        match &self.id {
            Some(own) if own != found => Err(Error::NotYours(format!(
                "the trace is of session {}, not of yours, {}",
                hex::encode(found),
                hex::encode(own)
            ))),
            _ => Ok(()),
        }
    }
}

/// Whether a trace that somebody else recorded holds exactly these activations, as
/// [`quantized`] quantises them.
///
/// # Errors
/// [`Error::NotYours`] names the module, and the row if one differs.
pub fn check_inputs(
    pinned: &CheckedManifest,
    trace: &Trace<'_>,
    activations: &Activations,
) -> Result<(), Error> {
    let modules = pinned.modules();
    for (module, theirs) in modules.iter().zip(trace.counts()) {
        let own = activations.modules.get(&module.name).map(Vec::as_slice).unwrap_or_default();
        let yours = own
            .first()
            .zip(module.inputs.first())
            .map_or(0, |(values, input)| values.len() / input.dim);
        if *theirs != yours {
            return Err(not_yours(format!(
                "module `{}` has {theirs} rows, yours {yours}",
                module.name
            )));
        }
        // Of modules with rows, quantisation says so, too.
        let whole = own.len() == module.inputs.len()
            && own
                .iter()
                .zip(&module.inputs)
                .all(|(values, input)| values.len() == yours * input.dim);
        if !(whole || yours == 0 && own.is_empty()) {
            return Err(Error::Input(format!(
                "module `{}`: its inputs are not {yours} rows each",
                module.name
            )));
        }
    }
    let mut own = Own { modules, activations, module: None, rows: ModuleRows::default() };
    let mut answer = Ok(());
    trace.visit(modules, |m, rows, piece| {
        if answer.is_ok() {
            answer = own.check(m, rows, piece);
        }
        Ok(())
    })?;
    answer
}

fn not_yours(what: String) -> Error {
    Error::NotYours(format!("the trace is not of your activations: {what}"))
}

/// The user's own rows of the module that is being read.
struct Own<'a> {
    modules: &'a [Module],
    activations: &'a Activations,
    module: Option<usize>,
    rows: ModuleRows,
}

impl Own<'_> {
    fn check(&mut self, m: usize, rows: Range<usize>, piece: &Piece<'_>) -> Result<(), Error> {
        let module = &self.modules[m];
        if self.module != Some(m) {
            let inputs =
                self.activations.modules.get(&module.name).map(Vec::as_slice).unwrap_or_default();
            self.rows = quantized(module, &inputs.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
            self.module = Some(m);
        }
        let own = &self.rows;
        let differs = match piece {
            Piece::Input(i, values) => {
                differing(values, &own.inputs[*i], &rows, module.inputs[*i].dim)
            }
            Piece::Ones(values) => differing(values, &own.ones, &rows, 1),
            // Bit by bit: these are positive numbers.
            Piece::Scales(values) => differing(values, &own.scales, &rows, 1),
            Piece::Delta(_) => None,
        };
        match differs {
            None => Ok(()),
            Some(row) => Err(not_yours(format!(
                "module `{}`, row {row}, has other values or another scale",
                module.name
            ))),
        }
    }
}

/// The first of `rows` whose `dim` values differ from those of the user.
fn differing<T: PartialEq>(
    theirs: &[T],
    own: &[T],
    rows: &Range<usize>,
    dim: usize,
) -> Option<usize> {
    let own = own.get(rows.start * dim..rows.end * dim).unwrap_or_default();
    let pairs = theirs.chunks_exact(dim).zip(own.chunks_exact(dim));
    match pairs.map(|(theirs, own)| theirs != own).position(|differs| differs) {
        Some(at) => Some(rows.start + at),
        None => (own.len() != theirs.len()).then_some(rows.start),
    }
}
