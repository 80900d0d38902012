//! The last step: an affine expression becomes the scale and the terms of a
//! [`LinearMap`](crate::linear_map::LinearMap).
//!
//! What one chain becomes is `multiply`'s business; here they become a sum: scalar factors that all
//! have are taken out of it, biases are joined, and so are selections of one input.

use super::products::{Product, ProductBudget, multiplied_out};
use crate::{
    ingest::{
        affine::{
            chain::{Chain, ChainStart},
            expression::Affine,
        },
        error::Reason,
    },
    linear_map::Term,
};

/// The common scale and the terms of an expression, and how each input is divided (no rows of an
/// unused one).
pub(in crate::ingest) struct ScaledTerms {
    pub scale: f64,
    pub terms: Vec<Term>,
    pub rows: Vec<RowDivision>,
}

/// How an input is divided into rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::ingest) struct RowDivision {
    /// Length of a row; 0 if the input is not used.
    pub dim: usize,
    /// Neighbouring values of the same feature.
    pub positions: usize,
    /// The most rows that were joined to one in any term.
    pub joined: usize,
}

/// Cuts all chains of `affine`, for a graph with `inputs` inputs.
pub(in crate::ingest) fn scaled_terms(
    affine: Affine,
    inputs: usize,
) -> Result<ScaledTerms, Reason> {
    let rows = divisions(&affine, inputs)?;
    let width = affine.width;
    let mut budget = ProductBudget::of(&affine);
    let mut products: Vec<(Vec<f64>, Product)> = Vec::with_capacity(affine.terms.len());
    for Chain { source, factors, links } in affine.terms {
        let product = multiplied_out(source, links, width, &mut budget)?;
        // A bias of zero (as Gemm exports write it) is no term, and must not veto a common scale.
        if matches!(&product, Product::Term(Term::Bias { b }) if b.iter().all(|value| *value == 0.0))
        {
            continue;
        }
        // The parts of an input that was split and is whole again are one term. One attempt: each
        // costs a pass over the row.
        let alike = products
            .iter_mut()
            .rev()
            .find(|(known, other)| *known == factors && other.is_like(&product));
        if !alike.is_some_and(|(_, other)| other.join(&product)) {
            products.push((factors, product));
        }
    }
    if products.is_empty() {
        products.push((vec![], Product::Term(Term::Bias { b: vec![0.0; width] })));
    }
    let common = common_factors(&mut products);
    let scale = common.iter().product();
    let terms = products
        .into_iter()
        .map(|(own, product)| product.into_term(own.iter().product(), &mut budget));
    let terms = join_biases(terms.collect::<Result<_, _>>()?);
    let finite = |term: &Term| match term {
        Term::LowRank { a, b, .. } => a.data.iter().chain(&b.data).all(|value| value.is_finite()),
        Term::Bias { b } => b.iter().all(|value| value.is_finite()),
        Term::ElementScale { g, .. } => g.iter().all(|value| value.is_finite()),
    };
    if !f64::is_finite(scale) || !terms.iter().all(finite) {
        return Err(Reason::new("the product of its weights overflows"));
    }
    Ok(ScaledTerms { scale, terms, rows })
}

fn divisions(affine: &Affine, inputs: usize) -> Result<Vec<RowDivision>, Reason> {
    let mut divisions = vec![RowDivision::default(); inputs];
    for chain in &affine.terms {
        let ChainStart::Input { input, dim, positions, joined } = chain.source else { continue };
        let own = RowDivision { dim, positions, joined };
        match divisions.get_mut(input) {
            Some(unused) if unused.dim == 0 => *unused = own,
            Some(known) if (known.dim, known.positions) == (dim, positions) => {
                known.joined = known.joined.max(joined)
            }
            _ => return Err(Reason::new("an input is divided into rows in two different ways")),
        }
    }
    Ok(divisions)
}

/// Takes the factors that all terms have, with multiplicity, out of them.
fn common_factors(terms: &mut [(Vec<f64>, Product)]) -> Vec<f64> {
    let candidates = terms.first().map_or(vec![], |(factors, _)| factors.clone());
    let mut common = vec![];
    for factor in candidates {
        let places: Option<Vec<usize>> = terms
            .iter()
            .map(|(factors, _)| factors.iter().position(|other| *other == factor))
            .collect();
        if let Some(places) = places {
            for ((factors, _), place) in terms.iter_mut().zip(places) {
                factors.remove(place);
            }
            common.push(factor);
        }
    }
    common
}

fn join_biases(terms: Vec<Term>) -> Vec<Term> {
    let mut joined: Option<Vec<f64>> = None;
    let mut rest = Vec::with_capacity(terms.len());
    for term in terms {
        match (term, &mut joined) {
            (Term::Bias { b }, Some(sum)) => sum.iter_mut().zip(b).for_each(|(sum, b)| *sum += b),
            (Term::Bias { b }, None) => joined = Some(b),
            (term, _) => rest.push(term),
        }
    }
    rest.extend(joined.map(|b| Term::Bias { b }));
    rest
}
