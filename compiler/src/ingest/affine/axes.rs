//! The meaning of each axis of a tensor: rows, features, or the flat buffer of an input that is not
//! divided into the two yet.
//!
//! An axis is a list of *atoms*, most significant first. An atom with stride `s` and extent `n` is
//! the digit `i` in `offset = … + s·i + …`, `0 ≤ i < n`, of the flat index of its space. Splitting
//! and merging atoms is exact, so reshapes and transposes lose nothing, and two tensors have their
//! rows in the same order if and only if their normal forms are equal. Extents may be symbolic.
//! Knows nothing of operators or weights.

use tract_onnx::tract_core::internal::{AxisOp, TDim};

use crate::ingest::error::Reason;

/// The flat index that an atom is a digit of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ingest) enum Space {
    /// The row-major buffer of an input.
    Buffer,
    /// The rows of the map.
    Row,
    /// The features of one row.
    Feature,
}

/// One digit of a mixed-radix index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ingest) struct Atom {
    pub space: Space,
    pub stride: TDim,
    pub extent: TDim,
}

/// The axes of a tensor, each in normal form: no atoms of extent 1, no two neighbours that could be
/// one atom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ingest) struct Axes(Vec<Vec<Atom>>);

impl Axes {
    pub fn new(axes: Vec<Vec<Atom>>) -> Self {
        Self(axes.into_iter().map(normal).collect())
    }

    /// The axes of a fresh row-major buffer of this shape.
    pub fn buffer(shape: &[TDim]) -> Self {
        let mut stride = TDim::from(1);
        let mut axes = Vec::with_capacity(shape.len());
        for extent in shape.iter().rev() {
            axes.push(vec![Atom {
                space: Space::Buffer,
                stride: stride.clone(),
                extent: extent.clone(),
            }]);
            stride = product(&stride, extent);
        }
        axes.reverse();
        Self::new(axes)
    }

    pub fn rank(&self) -> usize {
        self.0.len()
    }

    pub fn axis(&self, axis: usize) -> &[Atom] {
        self.0.get(axis).map_or(&[], Vec::as_slice)
    }

    pub fn iter(&self) -> impl Iterator<Item = &[Atom]> {
        self.0.iter().map(Vec::as_slice)
    }

    /// All atoms, first axis first.
    pub fn flat_atoms(&self) -> impl Iterator<Item = Atom> {
        self.0.iter().flatten().cloned()
    }

    /// All atoms, first axis first, in normal form across axes.
    pub fn flat(&self) -> Vec<Atom> {
        normal(self.flat_atoms().collect())
    }

    /// The same axes with one replaced.
    pub fn with_axis(&self, axis: usize, atoms: Vec<Atom>) -> Self {
        let mut axes = self.0.clone();
        if let Some(slot) = axes.get_mut(axis) {
            *slot = normal(atoms);
        }
        Self(axes)
    }

    /// The same axes with every atom replaced.
    pub fn map(&self, change: impl Fn(&Atom) -> Atom + Copy) -> Self {
        Self::new(self.0.iter().map(|atoms| atoms.iter().map(change).collect()).collect())
    }

    /// The same axes, with every atom that crosses offset `at` of its space split there, where that
    /// is possible. Not in normal form: the parts stay two atoms.
    pub fn split_at(&self, at: usize) -> Self {
        let cut = |atom: &Atom| -> Vec<Atom> {
            let low = concrete(&atom.stride)
                .filter(|stride| *stride > 0 && *stride < at && at.is_multiple_of(*stride));
            let Some((low, high)) = low.and_then(|stride| split_extent(&atom.extent, at / stride))
            else {
                return vec![atom.clone()];
            };
            let stride = product(&atom.stride, &low);
            vec![
                Atom { stride, extent: high, ..atom.clone() },
                Atom { extent: low, ..atom.clone() },
            ]
        };
        Self(self.0.iter().map(|atoms| atoms.iter().flat_map(cut).collect()).collect())
    }

    /// The atoms of each axis that are rows.
    pub fn rows(&self) -> Vec<Vec<Atom>> {
        let is_row = |atom: &&Atom| atom.space == Space::Row;
        self.0.iter().map(|axis| axis.iter().filter(is_row).cloned().collect()).collect()
    }

    /// The axes after a change of axes (ONNX Transpose, Reshape, Squeeze, Unsqueeze, Flatten).
    pub fn changed(&self, change: &AxisOp) -> Result<Self, Reason> {
        let mut axes = self.0.clone();
        let missing = || Reason::new("it names an axis that its input does not have");
        match change {
            AxisOp::Add(at) if *at <= axes.len() => axes.insert(*at, vec![]),
            AxisOp::Rm(at) if *at < axes.len() => {
                if !axes.remove(*at).is_empty() {
                    return Err(Reason::new("it removes an axis whose length is not 1"));
                }
            }
            AxisOp::Move(from, to) if *from < axes.len() && *to < axes.len() => {
                let axis = axes.remove(*from);
                axes.insert(*to, axis);
            }
            AxisOp::Reshape(at, from, to) => {
                let end = at
                    .checked_add(from.len())
                    .filter(|end| *end <= axes.len())
                    .ok_or_else(missing)?;
                let atoms = axes.drain(*at..end).flatten().collect();
                axes.splice(at..at, regroup(atoms, to)?);
            }
            _ => return Err(missing()),
        }
        Ok(Self(axes))
    }
}

/// The product of extents.
pub(in crate::ingest) fn extent(atoms: &[Atom]) -> TDim {
    atoms.iter().fold(TDim::from(1), |extent, atom| product(&extent, &atom.extent))
}

/// The product of extents, if none of them is symbolic and it fits.
pub(in crate::ingest) fn concrete_extent(atoms: &[Atom]) -> Option<usize> {
    atoms.iter().try_fold(1usize, |extent, atom| extent.checked_mul(concrete(&atom.extent)?))
}

/// The offset in the flat index of their space, for every index along an axis. None if extents are
/// symbolic or huge.
pub(in crate::ingest) fn offsets(atoms: &[Atom]) -> Option<Vec<usize>> {
    let extent = concrete_extent(atoms).filter(|extent| *extent <= crate::matrix::MAX_ELEMENTS)?;
    let mut offsets = vec![0usize];
    offsets.reserve(extent);
    for atom in atoms {
        let (stride, extent) = (concrete(&atom.stride)?, concrete(&atom.extent)?);
        offsets =
            offsets.iter().flat_map(|base| (0..extent).map(move |i| base + i * stride)).collect();
    }
    Some(offsets)
}

/// Whether these are, in some order, all digits of the flat index `0..extent`.
pub(in crate::ingest) fn tile(atoms: &[Atom], extent: usize) -> bool {
    order_from(atoms, &TDim::from(1)).is_some() && concrete_extent(atoms) == Some(extent)
}

/// The atoms from the least significant one, if the first stride is `stride` and each further
/// stride is the previous one times the previous extent.
pub(in crate::ingest) fn order_from(atoms: &[Atom], stride: &TDim) -> Option<Vec<Atom>> {
    let mut left: Vec<&Atom> = atoms.iter().collect();
    let mut ordered = Vec::with_capacity(atoms.len());
    let mut stride = stride.clone();
    while !left.is_empty() {
        let atom = left.swap_remove(left.iter().position(|atom| atom.stride == stride)?);
        stride = product(&stride, &atom.extent);
        ordered.push(atom.clone());
    }
    Some(ordered)
}

/// Whether the size comes from broadcasting two sizes of which it is not known which is longer.
pub(in crate::ingest) fn broadcasts(dim: &TDim) -> bool {
    match dim {
        TDim::Broadcast(_) => true,
        TDim::Add(parts) | TDim::Mul(parts) | TDim::Min(parts) | TDim::Max(parts) => {
            parts.iter().any(broadcasts)
        }
        TDim::MulInt(_, part) | TDim::Div(part, _) => broadcasts(part),
        _ => false,
    }
}

/// The value of a dimension, if it is not symbolic.
pub(in crate::ingest) fn concrete(dim: &TDim) -> Option<usize> {
    dim.as_i64().and_then(|value| usize::try_from(value).ok())
}

/// The product of two dimensions, simplified.
pub(in crate::ingest) fn product(a: &TDim, b: &TDim) -> TDim {
    (a.clone() * b).simplify()
}

/// The extents of an atom's two parts, if the lower one has `low` and the higher one more than 1.
fn split_extent(extent: &TDim, low: usize) -> Option<(TDim, TDim)> {
    let low_dim = TDim::from(i64::try_from(low).ok()?);
    let high = (extent.clone() / low).simplify();
    let exact =
        product(&high, &low_dim) == *extent && high != TDim::from(1) && high != TDim::from(0);
    exact.then_some((low_dim, high))
}

/// Merges neighbours and removes atoms of extent 1.
fn normal(atoms: Vec<Atom>) -> Vec<Atom> {
    let mut merged: Vec<Atom> = Vec::with_capacity(atoms.len());
    for atom in atoms {
        if atom.extent == TDim::from(1) {
            continue;
        }
        match merged.last_mut() {
            Some(last)
                if last.space == atom.space
                    && last.stride == product(&atom.stride, &atom.extent) =>
            {
                last.stride = atom.stride;
                last.extent = product(&last.extent, &atom.extent);
            }
            _ => merged.push(atom),
        }
    }
    merged
}

/// Distributes atoms over axes of the given extents, splitting an atom where an axis ends inside
/// it.
fn regroup(atoms: Vec<Atom>, extents: &[TDim]) -> Result<Vec<Vec<Atom>>, Reason> {
    let torn =
        || Reason::new("it reshapes in a way that tears rows apart or depends on a symbolic size");
    let mut left = std::collections::VecDeque::from(atoms);
    let mut axes = Vec::with_capacity(extents.len());
    for extent in extents {
        let mut axis: Vec<Atom> = vec![];
        let mut filled = TDim::from(1);
        while filled != *extent {
            let mut atom = left.pop_front().ok_or_else(torn)?;
            if let Some(high) = part_that_fits(&filled, extent, &atom.extent) {
                let low = (atom.extent.clone() / high).simplify();
                left.push_front(Atom {
                    space: atom.space,
                    stride: atom.stride.clone(),
                    extent: low.clone(),
                });
                atom.stride = product(&atom.stride, &low);
                atom.extent = TDim::from(high as i64);
            }
            filled = product(&filled, &atom.extent);
            axis.push(atom);
        }
        axes.push(normal(axis));
    }
    if left.is_empty() { Ok(axes) } else { Err(torn()) }
}

/// The extent of the part of an atom that completes the axis, if that is not the whole atom.
fn part_that_fits(filled: &TDim, extent: &TDim, atom: &TDim) -> Option<usize> {
    let wanted = product(filled, atom);
    if wanted == *extent {
        return None;
    }
    let (filled, extent) = (concrete(filled)?, concrete(extent)?);
    let part = extent.checked_div(filled).filter(|part| part * filled == extent)?;
    let splits = match concrete(atom) {
        Some(atom) => part < atom && atom % part == 0,
        None => product(&(atom.clone() / part).simplify(), &TDim::from(part as i64)) == *atom,
    };
    splits.then_some(part)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn dims(dims: &[i64]) -> Vec<TDim> {
        dims.iter().map(|dim| TDim::from(*dim)).collect()
    }

    fn reshape(from: &[i64], to: &[i64]) -> AxisOp {
        AxisOp::Reshape(0, dims(from).into(), dims(to).into())
    }

    #[test]
    fn reshaping_back_and_forth_is_the_identity() {
        let flat = Axes::buffer(&dims(&[1, 512]));
        let viewed = flat.changed(&reshape(&[1, 512], &[1, 8, 64])).unwrap();
        assert_eq!(viewed, Axes::buffer(&dims(&[1, 8, 64])));
        assert_eq!(viewed.changed(&reshape(&[1, 8, 64], &[1, 512])).unwrap(), flat);
    }

    #[test]
    fn a_transposition_is_remembered_through_a_reshape() {
        let turned = Axes::buffer(&dims(&[4, 6])).changed(&AxisOp::Move(0, 1)).unwrap();
        let flat = turned.changed(&reshape(&[6, 4], &[24])).unwrap();
        assert_ne!(flat, Axes::buffer(&dims(&[24])));
        let back =
            flat.changed(&reshape(&[24], &[6, 4])).unwrap().changed(&AxisOp::Move(0, 1)).unwrap();
        assert_eq!(back, Axes::buffer(&dims(&[4, 6])));
    }

    #[test]
    fn reshapes_across_atoms_are_refused() {
        let turned = Axes::buffer(&dims(&[4, 6])).changed(&AxisOp::Move(0, 1)).unwrap();
        assert!(turned.changed(&reshape(&[6, 4], &[8, 3])).is_err());
        assert!(turned.changed(&reshape(&[6, 4], &[5, 5])).is_err());
        assert!(turned.changed(&AxisOp::Rm(7)).is_err());
    }

    #[test]
    fn offsets_follow_strides() {
        let turned = Axes::buffer(&dims(&[2, 3])).changed(&AxisOp::Move(0, 1)).unwrap();
        let flat = turned.changed(&reshape(&[3, 2], &[6])).unwrap();
        assert_eq!(offsets(flat.axis(0)).unwrap(), [0, 3, 1, 4, 2, 5]);
        assert!(tile(flat.axis(0), 6));
    }
}
