//! Rows in memory, and the checks of rows against the shapes and ranges of a manifest.

use std::{borrow::Cow, ops::Range};

use crate::{
    Error,
    manifest::Module,
    row_source::{Piece, RowSource},
};

/// Most rows of a module in one session. The projection relies on it.
pub const MAX_ROWS: usize = 1 << 28;

/// The rows of one module, all invocations of the session stacked. A module that was not called has
/// none.
#[derive(Debug, Clone, Copy, Default)]
pub struct RowSlices<'a> {
    /// One slice per input of the module: `[N, dim]` integers, row-major.
    pub inputs: &'a [&'a [i32]],
    /// For modules with a bias: the integer that stands for 1, one a row. Empty otherwise.
    pub ones: &'a [i32],
    /// The scale of each row: N of them.
    pub scales: &'a [f32],
    /// `[N, d_out]` integers, row-major.
    pub delta: &'a [i64],
}

impl RowSlices<'_> {
    /// Number of rows N.
    pub fn count(&self) -> usize {
        self.scales.len()
    }
}

/// The rows of all modules in memory, as a row source.
pub(crate) struct RowsInMemory<'a>(pub Vec<RowSlices<'a>>);

/// A part of a slice. An error for a short slice, although the shapes were checked before.
fn part<T: Clone>(all: &[T], values: Range<usize>) -> Result<Cow<'_, [T]>, String> {
    let length = all.len();
    all.get(values).map(Cow::Borrowed).ok_or_else(|| format!("it ends after {length} values"))
}

impl RowSource for RowsInMemory<'_> {
    fn count(&self, m: usize) -> usize {
        self.0[m].count()
    }

    fn check_shape(&self, m: usize, module: &Module) -> Result<(), String> {
        check_shape(module, &self.0[m])
    }

    fn input(
        &self,
        m: usize,
        input: usize,
        values: Range<usize>,
    ) -> Result<Cow<'_, [i32]>, String> {
        part(self.0[m].inputs[input], values)
    }

    fn ones(&self, m: usize, values: Range<usize>) -> Result<Cow<'_, [i32]>, String> {
        part(self.0[m].ones, values)
    }

    fn scales(&self, m: usize, values: Range<usize>) -> Result<Cow<'_, [f32]>, String> {
        part(self.0[m].scales, values)
    }

    fn delta(&self, m: usize, values: Range<usize>) -> Result<Cow<'_, [i64]>, String> {
        part(self.0[m].delta, values)
    }

    fn is_constant(&self) -> bool {
        true
    }
}

/// The index of the first value that is out of range. Mostly there is none, so whole blocks are
/// tested without a branch for each value.
fn first<T: Copy>(values: &[T], is_out: impl Fn(T) -> bool) -> Option<usize> {
    const AT_ONCE: usize = 1024;
    let any = |values: &[T]| values.iter().fold(false, |any, value| any | is_out(*value));
    let start = values.chunks(AT_ONCE).position(any)? * AT_ONCE;
    values[start..].iter().position(|value| is_out(*value)).map(|at| start + at)
}

pub(crate) fn check_count(rows: usize) -> Result<(), String> {
    if rows > MAX_ROWS {
        Err(format!("{rows} rows: more than {MAX_ROWS} in one session"))
    } else {
        Ok(())
    }
}

/// Checks that the parts have the lengths that the manifest's shapes require.
fn check_shape(module: &Module, rows: &RowSlices<'_>) -> Result<(), String> {
    check_activation_shape(module, rows)?;
    let n = rows.count();
    if rows.delta.len() != n * module.d_out {
        return Err(format!("{} deltas, expected {n} rows of {}", rows.delta.len(), module.d_out));
    }
    Ok(())
}

fn check_activation_shape(module: &Module, rows: &RowSlices<'_>) -> Result<(), String> {
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

/// Checks shapes and ranges of everything but the deltas. A contributor calls it before it computes
/// deltas.
///
/// # Errors
/// What is wrong, and in which row.
pub fn check_activations(module: &Module, rows: &RowSlices<'_>) -> Result<(), String> {
    check_count(rows.count())?;
    check_activation_shape(module, rows)?;
    for (i, values) in rows.inputs.iter().enumerate() {
        check_input(module, i, 0, values)?;
    }
    check_ones(module, 0, rows.ones)?;
    check_scales(0, rows.scales)
}

/// Checks the ranges of a piece that begins at `first_row`.
pub(crate) fn check_piece(
    module: &Module,
    first_row: usize,
    piece: &Piece<'_>,
) -> Result<(), Error> {
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
