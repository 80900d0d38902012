//! The rows of a session: range-checked and digested (protocol 5.1).
//!
//! Both parties hold the same rows and compute the same digest; it is over the canonical content, not over the bytes
//! of a file.

use rayon::prelude::*;

use crate::{
    Error,
    manifest::{AdapterId, Module, Pinned},
};

/// Most rows of a module in one session: [`crate::projection`] relies on it.
pub const MAX_ROWS: usize = 1 << 28;

/// The rows of one module, all invocations of the session stacked. A module that was not called has none.
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
#[derive(Debug, Clone)]
pub struct Trace<'a> {
    modules: Vec<Rows<'a>>,
    context: [u8; 32],
    digest: TraceDigest,
    adapter: AdapterId,
}

impl<'a> Trace<'a> {
    /// Checks the rows against the manifest and digests them. `modules` has one entry a module of the manifest, in its
    /// order; `context` is the session's 32 fresh bytes, drawn by the user.
    ///
    /// # Errors
    /// [`Error::Trace`] names the module and the row that break a shape or a range, [`Error::BeyondBound`] those of a delta.
    pub fn new(pinned: &Pinned, context: [u8; 32], modules: Vec<Rows<'a>>) -> Result<Trace<'a>, Error> {
        if modules.len() != pinned.modules().len() {
            return Err(Error::Trace(format!(
                "it has {} modules, the manifest {}",
                modules.len(),
                pinned.modules().len()
            )));
        }
        let check = |(module, rows): (&Module, &Rows<'_>)| {
            check_rows(module, rows).map_err(|why| Error::Trace(format!("module `{}`: {why}", module.name)))?;
            check_bound(module, rows)
        };
        // All of them, so that it is always the first one that is named.
        let checked: Vec<Result<(), Error>> = pinned.modules().par_iter().zip(&modules).map(check).collect();
        checked.into_iter().collect::<Result<(), Error>>()?;
        if modules.iter().all(|rows| rows.count() == 0) {
            return Err(Error::Trace("it has no rows: there is nothing to prove".into()));
        }
        let digest = digest(&modules);
        Ok(Trace { modules, context, digest, adapter: pinned.id() })
    }

    /// The rows, one entry a module of the manifest.
    pub fn modules(&self) -> &[Rows<'a>] {
        &self.modules
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
        self.modules.iter().map(Rows::count).sum()
    }
}

/// The first value that is out of range. Most often there is none, which is found out without a branch for every value.
fn first<T: Copy>(values: &[T], is_out: impl Fn(T) -> bool) -> Option<usize> {
    const AT_ONCE: usize = 1024;
    let any = |values: &[T]| values.iter().fold(false, |any, value| any | is_out(*value));
    let start = values.chunks(AT_ONCE).position(any)? * AT_ONCE;
    values[start..].iter().position(|value| is_out(*value)).map(|at| start + at)
}

fn check_rows(module: &Module, rows: &Rows<'_>) -> Result<(), String> {
    check_activations(module, rows)?;
    let n = rows.count();
    if rows.delta.len() != n * module.d_out {
        return Err(format!("{} deltas, expected {n} rows of {}", rows.delta.len(), module.d_out));
    }
    Ok(())
}

/// Whether everything but the deltas has the shape and the range that the manifest says: what a contributor asks before it
/// computes deltas.
///
/// # Errors
/// What is wrong, and in which row.
pub fn check_activations(module: &Module, rows: &Rows<'_>) -> Result<(), String> {
    let n = rows.count();
    if n > MAX_ROWS {
        return Err(format!("{n} rows: more than {MAX_ROWS} in one session"));
    }
    let shaped = |len: usize, dim: usize| len == n * dim;
    if rows.inputs.len() != module.inputs.len() {
        return Err(format!("{} inputs, the manifest has {}", rows.inputs.len(), module.inputs.len()));
    }
    let limit = 1u32 << (module.x_bits - 1);
    for (input, values) in module.inputs.iter().zip(rows.inputs) {
        if !shaped(values.len(), input.dim) {
            return Err(format!(
                "input `{}` has {} values, expected {n} rows of {}",
                input.name,
                values.len(),
                input.dim
            ));
        }
        if let Some(at) = first(values, |v| v.unsigned_abs() >= limit) {
            return Err(format!(
                "row {}: input `{}` is {}, outside ±(2^{} − 1)",
                at / input.dim,
                input.name,
                values[at],
                module.x_bits - 1
            ));
        }
    }
    if rows.ones.len() != if module.has_bias() { n } else { 0 } {
        return Err(format!("{} values of the constant 1 for {n} rows", rows.ones.len()));
    }
    if let Some(row) = rows.ones.iter().position(|v| v.unsigned_abs() >= limit) {
        return Err(format!("row {row}: the constant 1 is {}, outside ±(2^{} − 1)", rows.ones[row], module.x_bits - 1));
    }
    if let Some(row) = rows.scales.iter().position(|s| !(s.is_finite() && *s > 0.0)) {
        return Err(format!("row {row}: scale {} is not a positive number", rows.scales[row]));
    }
    Ok(())
}

fn check_bound(module: &Module, rows: &Rows<'_>) -> Result<(), Error> {
    match first(rows.delta, |d| d.unsigned_abs() >= 1u64 << module.delta_bits) {
        None => Ok(()),
        Some(at) => Err(Error::BeyondBound {
            module: module.name.clone(),
            row: at / module.d_out,
            delta: rows.delta[at],
            delta_bits: module.delta_bits,
        }),
    }
}

/// Canonical content: number of modules; per module the number of rows, then inputs, constants, scales (bits) and
/// deltas, each with its length, little-endian.
fn digest(modules: &[Rows<'_>]) -> TraceDigest {
    let mut hasher = blake3::Hasher::new_derive_key("zklora v1 trace");
    hasher.update(&(modules.len() as u64).to_le_bytes());
    for rows in modules {
        hasher.update(&(rows.count() as u64).to_le_bytes());
        hasher.update(&(rows.inputs.len() as u64).to_le_bytes());
        for values in rows.inputs {
            absorb(&mut hasher, values);
        }
        absorb(&mut hasher, rows.ones);
        absorb(&mut hasher, rows.scales);
        absorb(&mut hasher, rows.delta);
    }
    TraceDigest(*hasher.finalize().as_bytes())
}

fn absorb<T: bytemuck::NoUninit>(hasher: &mut blake3::Hasher, values: &[T]) {
    hasher.update(&(values.len() as u64).to_le_bytes());
    // The curve library compiles on little-endian machines only, so the bytes in memory are the canonical ones.
    hasher.update_rayon(bytemuck::cast_slice(values));
}
