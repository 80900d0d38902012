//! After how many rows a user can know a module's integers exactly.

use zklora_proof::manifest::{Module, TermKind};

/// After how many rows a user can know a module's integers **exactly** (docs/security.md, "Exact
/// recovery").
///
/// A useful copy of the adapter needs far fewer: 1 to 8 ordinary rows a module. `zklora leak`
/// measures that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leakage {
    /// `B` up to a small unimodular change, by lattice reduction: slightly more than the rank; 1
    /// for a bias or an elementwise scale.
    pub b_up_to_basis: u64,
    /// All of `A·B`, with packed inputs: d_in · a_bits / (x_bits + a_bits + log₂ d_in).
    pub packed: u64,
    /// All of `A·B`, with ordinary inputs, by lattice reduction: about 0.4 · d_in.
    pub lattice: u64,
    /// All of `A·B`, with ordinary inputs, by linear algebra: d_in.
    pub ordinary: u64,
}

impl Leakage {
    /// The figures of a module.
    pub fn of(module: &Module) -> Leakage {
        let low_rank = module.terms.iter().filter(|term| term.kind == TermKind::LowRank);
        let rank = low_rank.clone().map(|term| term.rank as u64).sum::<u64>();
        let d_in = low_rank
            .filter_map(|term| Some(module.inputs.get(term.input?)?.dim))
            .max()
            .unwrap_or(1) as u64;
        let one_sided = module.terms.iter().any(|term| term.kind != TermKind::LowRank);
        let bits = f64::from(module.x_bits + module.a_bits) + (d_in as f64).log2();
        let packed = (d_in as f64 * f64::from(module.a_bits) / bits).ceil() as u64;
        Leakage {
            b_up_to_basis: if one_sided { 1 } else { rank + 1 },
            packed: packed.max(1),
            lattice: (d_in * 2).div_ceil(5),
            ordinary: d_in,
        }
    }
}

#[cfg(test)]
mod tests {
    use zklora_proof::manifest::{Input, Term};

    use super::*;

    #[test]
    fn the_figures_are_those_of_the_security_page() {
        let module = Module {
            a_bits: 14,
            b_bits: 14,
            d_out: 2304,
            delta_bits: 60,
            inputs: vec![Input { dim: 768, name: "x".into() }],
            name: "m".into(),
            scale_log2: 0,
            scaling: 1.0,
            terms: vec![Term {
                a: vec![],
                b: vec![],
                input: Some(0),
                kind: TermKind::LowRank,
                rank: 4,
                shift: 0,
            }],
            x_bits: 24,
        };
        assert_eq!(
            Leakage::of(&module),
            Leakage { b_up_to_basis: 5, packed: 226, lattice: 308, ordinary: 768 }
        );
    }
}
