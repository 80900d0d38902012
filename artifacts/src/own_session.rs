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
    Error, activations::Activations, module_quantizer::quantized, module_rows::ModuleRows,
};

/// What the user knows about the session without the trace. A field that is `None` is not checked,
/// which is right for a trace that the user recorded.
#[derive(Debug, Clone, Copy, Default)]
pub struct OwnSession<'a> {
    /// The 32 random bytes that the user drew for the session.
    pub id: Option<[u8; 32]>,
    /// The activations that the user sent.
    pub inputs: Option<&'a Activations>,
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
/// [`quantized`].
///
/// # Errors
/// [`Error::NotYours`] names the module, and the row if one differs.
pub fn check_inputs(
    manifest: &CheckedManifest,
    trace: &Trace<'_>,
    activations: &Activations,
) -> Result<(), Error> {
    let modules = manifest.modules();
    for (module, found) in modules.iter().zip(trace.counts()) {
        let inputs = inputs_of(activations, module);
        let expected = inputs
            .first()
            .zip(module.inputs.first())
            .map_or(0, |(values, input)| values.len() / input.dim);
        if *found != expected {
            return Err(not_yours(format!(
                "module `{}` has {found} rows, yours {expected}",
                module.name
            )));
        }
        // For modules with rows, quantisation checks this, too.
        let whole = inputs.len() == module.inputs.len()
            && inputs
                .iter()
                .zip(&module.inputs)
                .all(|(values, input)| values.len() == expected * input.dim);
        if !(whole || expected == 0 && inputs.is_empty()) {
            return Err(Error::Input(format!(
                "module `{}`: its inputs are not {expected} rows each",
                module.name
            )));
        }
    }
    let mut comparison =
        Comparison { modules, activations, module: None, expected: ModuleRows::default() };
    let mut answer = Ok(());
    trace.visit(modules, |m, rows, piece| {
        if answer.is_ok() {
            answer = comparison.check(m, rows, piece);
        }
        Ok(())
    })?;
    answer
}

fn inputs_of<'a>(activations: &'a Activations, module: &Module) -> &'a [Vec<f32>] {
    activations.modules.get(&module.name).map(Vec::as_slice).unwrap_or_default()
}

fn not_yours(what: String) -> Error {
    Error::NotYours(format!("the trace is not of your activations: {what}"))
}

/// Compares the pieces of a trace with the user's activations, module by module.
struct Comparison<'a> {
    modules: &'a [Module],
    activations: &'a Activations,
    /// The module that `expected` belongs to.
    module: Option<usize>,
    /// The user's activations of that module, quantised.
    expected: ModuleRows,
}

impl Comparison<'_> {
    fn check(&mut self, m: usize, rows: Range<usize>, piece: &Piece<'_>) -> Result<(), Error> {
        let module = &self.modules[m];
        if self.module != Some(m) {
            let inputs = inputs_of(self.activations, module);
            self.expected =
                quantized(module, &inputs.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
            self.module = Some(m);
        }
        let expected = &self.expected;
        let differs = match piece {
            Piece::Input(i, values) => {
                differing(values, &expected.inputs[*i], &rows, module.inputs[*i].dim)
            }
            Piece::Ones(values) => differing(values, &expected.ones, &rows, 1),
            // Equality of floats is equality of bits here: scales are positive numbers.
            Piece::Scales(values) => differing(values, &expected.scales, &rows, 1),
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

/// The first of `rows` whose `dim` values differ from the expected ones.
fn differing<T: PartialEq>(
    found: &[T],
    expected: &[T],
    rows: &Range<usize>,
    dim: usize,
) -> Option<usize> {
    let expected = expected.get(rows.start * dim..rows.end * dim).unwrap_or_default();
    let pairs = found.chunks_exact(dim).zip(expected.chunks_exact(dim));
    match pairs.map(|(found, expected)| found != expected).position(|differs| differs) {
        Some(at) => Some(rows.start + at),
        None => (expected.len() != found.len()).then_some(rows.start),
    }
}
