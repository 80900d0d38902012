//! The rows of a session: range-checked and digested (protocol 5.1).
//!
//! Both parties hold the same rows and compute the same digest; it is over the canonical content,
//! not over the bytes of a file.

use std::{ops::Range, sync::Arc};

use crate::{
    Error,
    manifest::{AdapterId, Module, Pinned},
    source::{self, Memory, Piece, Source},
};

/// Most rows of a module in one session: [`crate::projection`] relies on it.
pub const MAX_ROWS: usize = 1 << 28;

/// The rows of one module, all invocations of the session stacked. A module that was not called has
/// none.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rows<'a> {
    /// One slice per input of the module: `[N, dim]` integers, row-major.
    pub inputs: &'a [&'a [i32]],
    /// For modules with a bias: the integer that stands for 1, one a row. Empty otherwise.
    pub ones: &'a [i32],
    /// The scale of each row: N of them.
    pub scales: &'a [f32],
    /// `[N, d_out]` integers, row-major.
    pub delta: &'a [i64],
}

impl Rows<'_> {
    /// Number of rows N.
    pub fn count(&self) -> usize {
        self.scales.len()
    }
}

/// BLAKE3 of a session's canonical content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceDigest(pub [u8; 32]);

/// A session's rows that obey the manifest's shapes and ranges.
#[derive(Clone)]
pub struct Trace<'a> {
    source: Arc<dyn Source + 'a>,
    counts: Vec<usize>,
    context: [u8; 32],
    digest: TraceDigest,
    adapter: AdapterId,
}

impl std::fmt::Debug for Trace<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Trace({:?}, rows {:?})", self.digest, self.counts)
    }
}

impl<'a> Trace<'a> {
    /// Rows that are in memory: see [`Trace::read`]. `modules` has one entry a module of the
    /// manifest, in its order.
    ///
    /// # Errors
    /// Those of [`Trace::read`].
    pub fn new(
        pinned: &Pinned,
        context: [u8; 32],
        modules: Vec<Rows<'a>>,
    ) -> Result<Trace<'a>, Error> {
        if modules.len() != pinned.modules().len() {
            return Err(Error::Trace(format!(
                "it has {} modules, the manifest {}",
                modules.len(),
                pinned.modules().len()
            )));
        }
        Trace::read(pinned, context, Arc::new(Memory(modules)))
    }

    /// Reads the rows once, in pieces, checks them against the manifest and digests them. `source`
    /// has the modules of the manifest, in its order; `context` is the session's 32 fresh
    /// bytes, drawn by the user.
    ///
    /// # Errors
    /// [`Error::Trace`] names the module and the row that break a shape or a range,
    /// [`Error::BeyondBound`] those of a delta.
    pub fn read(
        pinned: &Pinned,
        context: [u8; 32],
        source: Arc<dyn Source + 'a>,
    ) -> Result<Trace<'a>, Error> {
        let modules = pinned.modules();
        let counts: Vec<usize> = (0..modules.len()).map(|m| source.count(m)).collect();
        for (m, module) in modules.iter().enumerate() {
            let shape = check_count(counts[m]).and_then(|()| source.check_shape(m, module));
            shape.map_err(|why| Error::Trace(format!("module `{}`: {why}", module.name)))?;
        }
        if counts.iter().all(|count| *count == 0) {
            return Err(Error::Trace("it has no rows: there is nothing to prove".into()));
        }
        let mut hasher = source::hasher(modules.len());
        for (m, module) in modules.iter().enumerate() {
            let check =
                &mut |rows: Range<usize>, piece: &Piece<'_>| check_piece(module, rows.start, piece);
            source::read_module(&*source, m, counts[m], module, Some(&mut hasher), check)?;
        }
        let digest = TraceDigest(*hasher.finalize().as_bytes());
        Ok(Trace { source, counts, context, digest, adapter: pinned.id() })
    }

    /// Number of rows of each module of the manifest.
    pub fn counts(&self) -> &[usize] {
        &self.counts
    }

    /// Where the rows are.
    pub(crate) fn source(&self) -> &dyn Source {
        &*self.source
    }

    /// Reads all rows once more, in the canonical order: module, rows, what they are.
    ///
    /// # Errors
    /// Those of `visit`; [`Error::Trace`] if the rows are no longer those that were checked and
    /// digested.
    pub fn visit(
        &self,
        modules: &[Module],
        mut visit: impl FnMut(usize, Range<usize>, &Piece<'_>) -> Result<(), Error> + Send,
    ) -> Result<(), Error> {
        let mut hasher = (!self.source.is_constant()).then(|| source::hasher(modules.len()));
        for (m, module) in modules.iter().enumerate() {
            let visit = &mut |rows: Range<usize>, piece: &Piece<'_>| visit(m, rows, piece);
            source::read_module(self.source(), m, self.counts[m], module, hasher.as_mut(), visit)?;
        }
        self.check_digest(hasher)
    }

    /// Whether a second reading gave what the first one did.
    pub(crate) fn check_digest(&self, hasher: Option<blake3::Hasher>) -> Result<(), Error> {
        match hasher {
            Some(hasher) if *hasher.finalize().as_bytes() != self.digest.0 => Err(Error::Trace(
                "its rows changed while they were read: run again when nothing writes to it".into(),
            )),
            _ => Ok(()),
        }
    }

    /// The session's context.
    pub fn context(&self) -> &[u8; 32] {
        &self.context
    }

    /// The digest of the canonical content.
    pub fn digest(&self) -> TraceDigest {
        self.digest
    }

    /// The adapter whose shapes and ranges the rows were checked against.
    pub fn adapter(&self) -> AdapterId {
        self.adapter
    }

    /// Rows of all modules together.
    pub fn rows(&self) -> usize {
        self.counts.iter().sum()
    }
}

/// The first value that is out of range. Most often there is none, which is found out without a
/// branch for every value.
fn first<T: Copy>(values: &[T], is_out: impl Fn(T) -> bool) -> Option<usize> {
    const AT_ONCE: usize = 1024;
    let any = |values: &[T]| values.iter().fold(false, |any, value| any | is_out(*value));
    let start = values.chunks(AT_ONCE).position(any)? * AT_ONCE;
    values[start..].iter().position(|value| is_out(*value)).map(|at| start + at)
}

fn check_count(rows: usize) -> Result<(), String> {
    if rows > MAX_ROWS {
        Err(format!("{rows} rows: more than {MAX_ROWS} in one session"))
    } else {
        Ok(())
    }
}

/// Whether the parts have the lengths that the manifest's shapes ask for.
pub(crate) fn check_shape(module: &Module, rows: &Rows<'_>) -> Result<(), String> {
    check_activation_shape(module, rows)?;
    let n = rows.count();
    if rows.delta.len() != n * module.d_out {
        return Err(format!("{} deltas, expected {n} rows of {}", rows.delta.len(), module.d_out));
    }
    Ok(())
}

fn check_activation_shape(module: &Module, rows: &Rows<'_>) -> Result<(), String> {
    let n = rows.count();
    if rows.inputs.len() != module.inputs.len() {
        return Err(format!(
            "{} inputs, the manifest has {}",
            rows.inputs.len(),
            module.inputs.len()
        ));
    }
    for (input, values) in module.inputs.iter().zip(rows.inputs) {
        if values.len() != n * input.dim {
            return Err(format!(
                "input `{}` has {} values, expected {n} rows of {}",
                input.name,
                values.len(),
                input.dim
            ));
        }
    }
    if rows.ones.len() != if module.has_bias() { n } else { 0 } {
        return Err(format!("{} values of the constant 1 for {n} rows", rows.ones.len()));
    }
    Ok(())
}

/// Whether everything but the deltas has the shape and the range that the manifest says: what a
/// contributor asks before it computes deltas.
///
/// # Errors
/// What is wrong, and in which row.
pub fn check_activations(module: &Module, rows: &Rows<'_>) -> Result<(), String> {
    check_count(rows.count())?;
    check_activation_shape(module, rows)?;
    for (i, values) in rows.inputs.iter().enumerate() {
        check_input(module, i, 0, values)?;
    }
    check_ones(module, 0, rows.ones)?;
    check_scales(0, rows.scales)
}

/// The range checks of the rows from `first_row` on.
fn check_piece(module: &Module, first_row: usize, piece: &Piece<'_>) -> Result<(), Error> {
    let checked = match piece {
        Piece::Input(i, values) => check_input(module, *i, first_row, values),
        Piece::Ones(values) => check_ones(module, first_row, values),
        Piece::Scales(values) => check_scales(first_row, values),
        Piece::Delta(values) => return check_bound(module, first_row, values),
    };
    checked.map_err(|why| Error::Trace(format!("module `{}`: {why}", module.name)))
}

fn check_input(
    module: &Module,
    input: usize,
    first_row: usize,
    values: &[i32],
) -> Result<(), String> {
    let (input, limit) = (&module.inputs[input], 1u32 << (module.x_bits - 1));
    match first(values, |v| v.unsigned_abs() >= limit) {
        None => Ok(()),
        Some(at) => Err(format!(
            "row {}: input `{}` is {}, outside ±(2^{} − 1)",
            first_row + at / input.dim,
            input.name,
            values[at],
            module.x_bits - 1
        )),
    }
}

fn check_ones(module: &Module, first_row: usize, ones: &[i32]) -> Result<(), String> {
    let bits = module.x_bits - 1;
    match first(ones, |v| v.unsigned_abs() >= 1 << bits) {
        None => Ok(()),
        Some(at) => Err(format!(
            "row {}: the constant 1 is {}, outside ±(2^{bits} − 1)",
            first_row + at,
            ones[at]
        )),
    }
}

fn check_scales(first_row: usize, scales: &[f32]) -> Result<(), String> {
    match first(scales, |s| !(s.is_finite() && s > 0.0)) {
        None => Ok(()),
        Some(at) => {
            Err(format!("row {}: scale {} is not a positive number", first_row + at, scales[at]))
        }
    }
}

fn check_bound(module: &Module, first_row: usize, delta: &[i64]) -> Result<(), Error> {
    match first(delta, |d| d.unsigned_abs() >= 1u64 << module.delta_bits) {
        None => Ok(()),
        Some(at) => Err(Error::BeyondBound {
            module: module.name.clone(),
            row: first_row + at / module.d_out,
            delta: delta[at],
            delta_bits: module.delta_bits,
        }),
    }
}
