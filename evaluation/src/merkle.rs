//! The Merkle root of a group of units.

use crate::digest::Digest;

const UNIT: &str = "zklora v1 evaluation unit";
const NODE: &str = "zklora v1 evaluation node";
const GROUP: &str = "zklora v1 evaluation group";

/// The root of units that arrive one after the other. Memory holds one node a level.
#[derive(Debug, Default)]
pub struct Tree {
    count: u64,
    /// Complete subtrees, largest first: those of the set bits of `count`.
    nodes: Vec<Digest>,
}

impl Tree {
    /// Adds the bytes of a unit.
    pub fn add(&mut self, unit: &[u8]) {
        let mut node = leaf(unit);
        for _ in 0..self.count.trailing_ones() {
            if let Some(left) = self.nodes.pop() {
                node = parent(&left, &node);
            }
        }
        self.nodes.push(node);
        self.count += 1;
    }

    /// The root. The last node of an odd level goes up unchanged.
    pub fn root(mut self) -> Digest {
        let mut top = self.nodes.pop().unwrap_or(Digest::ZERO);
        while let Some(left) = self.nodes.pop() {
            top = parent(&left, &top);
        }
        let mut bytes = self.count.to_le_bytes().to_vec();
        bytes.extend(top.0);
        Digest::derived(GROUP, &bytes)
    }
}

/// The leaf of a unit's bytes.
pub fn leaf(unit: &[u8]) -> Digest {
    Digest::derived(UNIT, unit)
}

fn parent(left: &Digest, right: &Digest) -> Digest {
    let mut bytes = [0; 64];
    bytes[..32].copy_from_slice(&left.0);
    bytes[32..].copy_from_slice(&right.0);
    Digest::derived(NODE, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, level by level.
    fn by_levels(units: &[Vec<u8>]) -> Digest {
        let mut level: Vec<Digest> = units.iter().map(|unit| Digest::derived(UNIT, unit)).collect();
        while level.len() > 1 {
            level = level
                .chunks(2)
                .map(|pair| if let [a, b] = pair { parent(a, b) } else { pair[0] })
                .collect();
        }
        let mut bytes = (units.len() as u64).to_le_bytes().to_vec();
        bytes.extend(level[0].0);
        Digest::derived(GROUP, &bytes)
    }

    #[test]
    fn a_growing_tree_has_the_root_of_its_levels() {
        let mut roots = Vec::new();
        for count in 1..70usize {
            let units: Vec<Vec<u8>> = (0..count).map(|at| vec![at as u8; at]).collect();
            let mut tree = Tree::default();
            units.iter().for_each(|unit| tree.add(unit));
            let root = tree.root();
            assert_eq!(root, by_levels(&units), "{count}");
            assert!(!roots.contains(&root));
            roots.push(root);
        }
    }

    #[test]
    fn order_and_repetition_change_the_root() {
        let root = |units: &[&[u8]]| {
            let mut tree = Tree::default();
            units.iter().for_each(|unit| tree.add(unit));
            tree.root()
        };
        let (a, b): (&[u8], &[u8]) = (b"a", b"b");
        let all = [root(&[a]), root(&[a, a]), root(&[a, b]), root(&[b, a]), root(&[a, b, b])];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one));
        }
    }
}
