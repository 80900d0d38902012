//! Committed matrices, and how they are laid out in columns (docs/inference-proof.md,
//! "Commitments").

use std::sync::Arc;

use ethnum::I256;
use zklora_proof::layout::data_rows;

use crate::axis::Axis;

/// Index of an axis.
pub type AxisId = usize;
/// Index of a tensor.
pub type TensorId = usize;
/// Index of a pack.
pub type PackId = usize;

/// A committed matrix: elements of an axis by features.
#[derive(Debug, Clone)]
pub struct Tensor {
    /// Its axis.
    pub axis: AxisId,
    /// Its features.
    pub features: usize,
    /// Where they lie.
    pub pieces: Vec<Piece>,
}

/// Consecutive features of a tensor in one pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// The pack.
    pub pack: PackId,
    /// The row of a column at which the piece begins.
    pub row: usize,
    /// The first feature.
    pub first: usize,
    /// How many.
    pub count: usize,
}

/// Columns, one for each element of an axis.
#[derive(Debug, Clone)]
pub struct Pack {
    /// The axis.
    pub axis: AxisId,
    /// Rows in use.
    pub used: usize,
    /// The tensors in it, with their pieces.
    pub tensors: Vec<(TensorId, Piece)>,
    /// Who commits to the columns.
    pub source: Source,
}

/// Who commits to the columns of a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The proof itself.
    Proof,
    /// The manifest: for each element of the axis, where.
    Manifest(Vec<Published>),
    /// An earlier proof: the pack has one column, which has this index among those given.
    Earlier(usize),
}

/// A column of the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// Index of the pair over all modules.
    pub pair: usize,
    /// Whether it is of the B side.
    pub is_b: bool,
    /// Which of the side's columns.
    pub column: usize,
}

/// All axes, tensors and packs of a proof.
#[derive(Debug, Clone)]
pub struct Catalog {
    /// log₂ of the rows of a column.
    pub k: u32,
    /// Axes.
    pub axes: Vec<Axis>,
    /// Tensors.
    pub tensors: Vec<Tensor>,
    /// Packs.
    pub packs: Vec<Pack>,
}

impl Catalog {
    /// Without anything.
    pub fn new(k: u32) -> Catalog {
        Catalog { k, axes: vec![], tensors: vec![], packs: vec![] }
    }

    /// A new axis.
    pub fn axis(&mut self, axis: Axis) -> AxisId {
        self.axes.push(axis);
        self.axes.len() - 1
    }

    /// A new tensor, laid out behind the last one of its axis.
    pub fn tensor(&mut self, axis: AxisId, features: usize) -> TensorId {
        let rows = data_rows(self.k);
        let id = self.tensors.len();
        let mut pieces = Vec::new();
        let mut first = 0;
        while first < features {
            let open = self.packs.iter().rposition(|pack| {
                pack.axis == axis && pack.source == Source::Proof && pack.used < rows
            });
            let pack = open.unwrap_or_else(|| {
                let source = Source::Proof;
                self.packs.push(Pack { axis, used: 0, tensors: vec![], source });
                self.packs.len() - 1
            });
            let row = self.packs[pack].used;
            let count = (features - first).min(rows - row);
            let piece = Piece { pack, row, first, count };
            self.packs[pack].used += count;
            self.packs[pack].tensors.push((id, piece));
            pieces.push(piece);
            first += count;
        }
        self.tensors.push(Tensor { axis, features, pieces });
        id
    }

    /// A tensor that the manifest commits to: an element of the axis for each of `pairs`.
    pub fn published(
        &mut self,
        axis: AxisId,
        features: usize,
        pairs: &[usize],
        is_b: bool,
    ) -> TensorId {
        let rows = data_rows(self.k);
        let id = self.tensors.len();
        let mut pieces = Vec::new();
        for (column, first) in (0..features).step_by(rows).enumerate() {
            let count = (features - first).min(rows);
            let piece = Piece { pack: self.packs.len(), row: 0, first, count };
            let published = pairs.iter().map(|pair| Published { pair: *pair, is_b, column });
            self.packs.push(Pack {
                axis,
                used: count,
                tensors: vec![(id, piece)],
                source: Source::Manifest(published.collect()),
            });
            pieces.push(piece);
        }
        self.tensors.push(Tensor { axis, features, pieces });
        id
    }

    /// A tensor of one element that an earlier proof committed to in one column.
    pub fn earlier(&mut self, axis: AxisId, features: usize, index: usize) -> TensorId {
        let id = self.tensors.len();
        let piece = Piece { pack: self.packs.len(), row: 0, first: 0, count: features };
        let source = Source::Earlier(index);
        self.packs.push(Pack { axis, used: features, tensors: vec![(id, piece)], source });
        self.tensors.push(Tensor { axis, features, pieces: vec![piece] });
        id
    }

    /// The index among the proof's columns of the first column of a pack.
    pub fn first_column(&self, pack: PackId) -> usize {
        let before = self.packs[..pack].iter().filter(|pack| pack.source == Source::Proof);
        before.map(|pack| self.axes[pack.axis].len()).sum()
    }

    /// Number of columns that a proof commits to.
    pub fn columns(&self) -> usize {
        let own = self.packs.iter().filter(|pack| pack.source == Source::Proof);
        own.map(|pack| self.axes[pack.axis].len()).sum()
    }
}

/// Cells of a tensor: element, feature, coefficient.
pub type Picks = Vec<(usize, usize, I256)>;

/// How a tensor is read at a place of a lookup.
#[derive(Debug, Clone, PartialEq)]
pub enum View {
    /// The same element and feature.
    Same,
    /// The tensor has a feature for each head, the lookup one for each head and key.
    Heads(usize),
    /// The sum of all features, for a lookup of one feature.
    Sum,
    /// For each feature, a sum of some cells of a tensor of another axis; the lookup's axis has one
    /// element.
    Picked(Arc<Vec<Picks>>),
}
