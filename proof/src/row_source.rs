//! Reads the rows of a session from where they are, in the order in which they are digested
//! (docs/protocol.md, "Reading a trace").
//!
//! Rows are read in pieces, so a session may be larger than the memory. A file may have changed
//! when it is read again, so every later reading digests the rows again and compares the digests
//! (`Trace::visit`).

use std::{borrow::Cow, ops::Range};

use crate::{Error, manifest::Module};

/// The rows of a session, in the order of the manifest's modules. Ranges are of values, row-major:
/// `[N, dim]` has `N·dim` of them.
pub trait RowSource: Send + Sync {
    /// Number of rows N of module `m`.
    fn count(&self, m: usize) -> usize;
    /// Checks that the parts of module `m` have the lengths that N rows of `module` require.
    fn check_shape(&self, m: usize, module: &Module) -> Result<(), String>;
    /// Integers of an input.
    fn input(&self, m: usize, input: usize, values: Range<usize>)
    -> Result<Cow<'_, [i32]>, String>;
    /// For modules with a bias: the integers that stand for 1.
    fn ones(&self, m: usize, values: Range<usize>) -> Result<Cow<'_, [i32]>, String>;
    /// Scales of rows.
    fn scales(&self, m: usize, values: Range<usize>) -> Result<Cow<'_, [f32]>, String>;
    /// Deltas.
    fn delta(&self, m: usize, values: Range<usize>) -> Result<Cow<'_, [i64]>, String>;
    /// Whether every reading certainly returns the same values. True for rows in borrowed memory.
    fn is_constant(&self) -> bool;
}

/// Bytes of a piece, about.
const PIECE: usize = 4 << 20;
/// Most rows of a piece.
const MOST_ROWS: usize = 1 << 16;

/// Ranges of rows, of about [`PIECE`] bytes each.
fn pieces(rows: usize, row_bytes: usize) -> impl Iterator<Item = Range<usize>> {
    let at_once = (PIECE / row_bytes.max(1)).clamp(1, MOST_ROWS);
    (0..rows).step_by(at_once).map(move |first| first..rows.min(first + at_once))
}

/// Some rows of one part of a module.
pub enum Piece<'a> {
    /// Of the input with this index.
    Input(usize, Cow<'a, [i32]>),
    /// The integers that stand for 1.
    Ones(Cow<'a, [i32]>),
    /// Scales.
    Scales(Cow<'a, [f32]>),
    /// Deltas.
    Delta(Cow<'a, [i64]>),
}

impl Piece<'_> {
    /// The bytes for the digest, which are little-endian. They are the bytes in memory, because the
    /// curve library compiles for little-endian machines only.
    fn bytes(&self) -> &[u8] {
        match self {
            Piece::Input(_, values) | Piece::Ones(values) => bytemuck::cast_slice(values),
            Piece::Scales(values) => bytemuck::cast_slice(values),
            Piece::Delta(values) => bytemuck::cast_slice(values),
        }
    }
}

/// Receives the rows of a piece, and the piece.
pub(crate) type Visit<'v> = dyn FnMut(Range<usize>, &Piece<'_>) -> Result<(), Error> + Send + 'v;

/// Reads the `rows` rows of module `m` once, in the canonical order: the number of rows, the number
/// of inputs, then inputs, constants, scales (bits) and deltas, each with its length. Passes
/// everything to `hasher`, if there is one, and the pieces to `visit`.
pub(crate) fn read_module<'s>(
    source: &'s dyn RowSource,
    m: usize,
    rows: usize,
    module: &Module,
    mut hasher: Option<&mut blake3::Hasher>,
    visit: &mut Visit<'_>,
) -> Result<(), Error> {
    let refused = |why: String| Error::Trace(format!("module `{}`: {why}", module.name));
    if let Some(hasher) = &mut hasher {
        hasher
            .update(&(rows as u64).to_le_bytes())
            .update(&(module.inputs.len() as u64).to_le_bytes());
    }
    // `width` values of `size` bytes a row.
    let mut part = |rows: usize,
                    width: usize,
                    size: usize,
                    read: &dyn Fn(Range<usize>) -> Result<Piece<'s>, String>| {
        if let Some(hasher) = &mut hasher {
            hasher.update(&((rows * width) as u64).to_le_bytes());
        }
        for rows in pieces(rows, width * size) {
            let piece = read(rows.start * width..rows.end * width).map_err(refused)?;
            let (bytes, expected) = (piece.bytes(), rows.len() * width * size);
            if bytes.len() != expected {
                return Err(refused(format!("{} of {expected} bytes were read", bytes.len())));
            }
            let hash = || hasher.as_deref_mut().map(|hasher| hasher.update_rayon(bytes)).is_some();
            rayon::join(hash, || visit(rows, &piece)).1?;
        }
        Ok(())
    };
    for (i, input) in module.inputs.iter().enumerate() {
        part(rows, input.dim, 4, &|values| Ok(Piece::Input(i, source.input(m, i, values)?)))?;
    }
    let ones = if module.has_bias() { rows } else { 0 };
    part(ones, 1, 4, &|values| Ok(Piece::Ones(source.ones(m, values)?)))?;
    part(rows, 1, 4, &|values| Ok(Piece::Scales(source.scales(m, values)?)))?;
    part(rows, module.d_out, 8, &|values| Ok(Piece::Delta(source.delta(m, values)?)))
}

/// A hasher for a session's canonical content, which begins with the number of modules.
pub(crate) fn hasher(modules: usize) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new_derive_key("zklora v1 trace");
    hasher.update(&(modules as u64).to_le_bytes());
    hasher
}
