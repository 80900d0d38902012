//! The Merkle tree: leaf = BLAKE3(value as big-endian f64 ‖ nonce), node = BLAKE3(left ‖ right). A
//! level below the root with an odd number of nodes is padded with one node of 32 zero bytes.
//!
//! No level is stored: a node is computed from the values below it, so the values are all that
//! takes memory. A leaf hashes 40 bytes and a node 64, so neither can pass for the other. No input
//! is known whose hash is all zeros, so no node can pass for padding.

use std::ops::Range;

/// A hash of the tree.
pub type Node = [u8; 32];

/// The node that pads a level with an odd number of nodes.
pub const PADDING: Node = [0; 32];

/// Lowest level whose two halves are computed in parallel.
const PARALLEL_FROM: u32 = 13;

/// The hash of a value.
pub fn leaf(value: f64, nonce: &[u8; 32]) -> Node {
    let mut bytes = [0; 40];
    bytes[..8].copy_from_slice(&value.to_be_bytes());
    bytes[8..].copy_from_slice(nonce);
    blake3::hash(&bytes).into()
}

/// The hash of two nodes.
pub fn parent(left: &Node, right: &Node) -> Node {
    let mut bytes = [0; 64];
    bytes[..32].copy_from_slice(left);
    bytes[32..].copy_from_slice(right);
    blake3::hash(&bytes).into()
}

/// The shape of the tree over a number of leaves; level 0 is the leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Leaves, at least one.
    count: usize,
}

impl Shape {
    /// The shape for this many leaves; none for no leaves.
    pub fn new(count: usize) -> Option<Shape> {
        (count > 0).then_some(Shape { count })
    }

    /// Nodes of a level, padding left out.
    pub fn size(self, level: u32) -> usize {
        (self.count - 1).checked_shr(level).unwrap_or(0) + 1
    }

    /// The level of the root.
    pub fn height(self) -> u32 {
        usize::BITS - (self.count - 1).leading_zeros()
    }
}

/// A list of values as a tree.
#[derive(Clone, Copy)]
pub struct Tree<'a> {
    values: &'a [f64],
    nonce: &'a [u8; 32],
    shape: Shape,
}

impl<'a> Tree<'a> {
    /// The tree over these values; none if there are none.
    pub fn new(values: &'a [f64], nonce: &'a [u8; 32]) -> Option<Tree<'a>> {
        Some(Tree { values, nonce, shape: Shape::new(values.len())? })
    }

    /// The root.
    pub fn root(self) -> Node {
        self.node(self.shape.height(), 0)
    }

    /// The node at a place that the shape has, or padding.
    fn node(self, level: u32, index: usize) -> Node {
        if index >= self.shape.size(level) {
            return PADDING;
        }
        if level == 0 {
            return leaf(self.values[index], self.nonce);
        }
        let (left, right) =
            (|| self.node(level - 1, 2 * index), || self.node(level - 1, 2 * index + 1));
        let (left, right) =
            if level >= PARALLEL_FROM { rayon::join(left, right) } else { (left(), right()) };
        parent(&left, &right)
    }

    /// The nodes that lead from the leaves of `range` to the root: [`root_of`] says in which order.
    pub fn path(self, range: Range<usize>) -> Vec<Node> {
        let (mut start, mut end) = (range.start, range.end);
        let mut path = Vec::new();
        for level in 0..self.shape.height() {
            if start % 2 == 1 {
                path.push(self.node(level, start - 1));
            }
            if end % 2 == 1 && end < self.shape.size(level) {
                path.push(self.node(level, end));
            }
            (start, end) = (start / 2, end.div_ceil(2));
        }
        path
    }
}

/// Why a path is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathError {
    /// Fewer or more nodes than the shape asks for.
    Length,
    /// A node of the path is padding where the shape has a node.
    Padding,
}

/// The root over `leaves`, which begin at position `start` in a tree of this shape, with the nodes
/// beside them.
///
/// The path holds, level by level from the leaves up, the node left of the known ones if they begin
/// at an odd position, then the node right of them if they end at an even one. Padding is not in
/// it: the shape says where it is.
pub fn root_of(
    leaves: Vec<Node>,
    start: usize,
    shape: Shape,
    path: &[Node],
) -> Result<Node, PathError> {
    let (mut known, mut start, mut path) = (leaves, start, path.iter());
    let mut next = || match path.next() {
        None => Err(PathError::Length),
        Some(&PADDING) => Err(PathError::Padding),
        Some(node) => Ok(*node),
    };
    for level in 0..shape.height() {
        let mut padded = Vec::with_capacity(known.len() + 2);
        if start % 2 == 1 {
            padded.push(next()?);
        }
        let end = start + known.len();
        padded.append(&mut known);
        if end % 2 == 1 {
            padded.push(if end < shape.size(level) { next()? } else { PADDING });
        }
        known = padded.chunks_exact(2).map(|pair| parent(&pair[0], &pair[1])).collect();
        start /= 2;
    }
    match (path.next(), known.as_slice()) {
        (None, [root]) => Ok(*root),
        _ => Err(PathError::Length),
    }
}
