//! The pairs (A, B) of an adapter, and the groups of their public A-side vectors
//! (docs/protocol.md, "Pairs and groups").
//!
//! A pair is one rank component of a low-rank term, a bias, or a scale. The labels (module, input,
//! kind) fix the groups, not the values, so the circuit does not depend on the trace.

use crate::{
    Error,
    error::manifest as refuse,
    manifest::{MAX_PAIRS, Module, TermKind},
};

/// The committed A side of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ASide {
    /// Index of the group whose public vector it is multiplied with.
    pub group: usize,
    /// Length of the A side.
    pub len: usize,
}

/// One pair. At least one side is committed; a missing side is a public value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// Index of the module.
    pub module: usize,
    /// Index of the pair within its module: the `j` of the mask derivation.
    pub index: usize,
    /// The A side; none for a bias.
    pub a: Option<ASide>,
    /// Length of the B side; none for a scale.
    pub b: Option<usize>,
    /// Public power of two of a one-sided pair.
    pub shift: u32,
}

/// A public A-side vector `v_g`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// Index of the module.
    pub module: usize,
    /// Index of the input within the module.
    pub input: usize,
    /// False: `v_g = ρᵀX`. True: `v_g = ρᵀY ∘ (1, γ, γ², …)`.
    pub scaled: bool,
    /// Length.
    pub len: usize,
}

/// All pairs and groups of an adapter, in manifest order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pairs {
    pairs: Vec<Pair>,
    groups: Vec<Group>,
}

impl Pairs {
    /// The pairs of `modules`, which must have passed the manifest's shape checks.
    pub fn of(modules: &[Module]) -> Result<Pairs, Error> {
        let mut pairs = Vec::new();
        let mut groups: Vec<Group> = Vec::new();
        for (m, module) in modules.iter().enumerate() {
            let first_group = groups.len();
            let mut index = 0;
            for term in &module.terms {
                let a = match term.input {
                    None => None,
                    Some(input) => {
                        let group = Group {
                            module: m,
                            input,
                            scaled: term.kind == TermKind::Scale,
                            len: module.inputs[input].dim,
                        };
                        let known = groups[first_group..].iter().position(|g| *g == group);
                        let at = known.map_or(groups.len(), |offset| first_group + offset);
                        if at == groups.len() {
                            groups.push(group);
                        }
                        Some(ASide { group: at, len: group.len })
                    }
                };
                let (_, b_length) = module.side_lengths(term);
                let b = (b_length > 0).then_some(b_length);
                if pairs.len() + term.rank > MAX_PAIRS {
                    return Err(refuse(format!("more than {MAX_PAIRS} pairs")));
                }
                for _ in 0..term.rank {
                    pairs.push(Pair { module: m, index, a, b, shift: term.shift });
                    index += 1;
                }
            }
        }
        Ok(Pairs { pairs, groups })
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there are no pairs. A checked manifest has at least one.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// The pairs.
    pub fn iter(&self) -> std::slice::Iter<'_, Pair> {
        self.pairs.iter()
    }

    /// The groups: G of them.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Length of the longest A side, 0 if there is none.
    pub fn longest_a(&self) -> usize {
        self.groups.iter().map(|group| group.len).max().unwrap_or(0)
    }

    /// Length of the longest B side, 0 if there is none.
    pub fn longest_b(&self) -> usize {
        self.pairs.iter().filter_map(|pair| pair.b).max().unwrap_or(0)
    }
}
