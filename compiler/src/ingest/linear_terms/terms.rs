//! Turns an affine expression into the scale and the terms of a
//! [`LinearMap`](crate::linear_map::LinearMap).
//!
//! `products` multiplies out each chain. This file forms the sum: it takes out the scalar factors
//! that all terms have, and joins biases and selections of one input.

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

/// The common scale and the terms of an expression, and the division of each input into rows.
pub(in crate::ingest) struct ScaledTerms {
    pub scale: f64,
    pub terms: Vec<Term>,
    pub rows: Vec<RowDivision>,
}

/// The division of an input into rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::ingest) struct RowDivision {
    /// Length of a row; 0 if the input is not used.
    pub dim: usize,
    /// Neighbouring values of the same feature.
    pub positions: usize,
    /// Most rows that are joined to one in any term.
    pub joined: usize,
}

/// The terms of `affine`, for a graph with `inputs` inputs.
pub(in crate::ingest) fn scaled_terms(
    affine: Affine,
    inputs: usize,
) -> Result<ScaledTerms, Reason> {
    let rows = divisions(&affine, inputs)?;
    let width = affine.width;
    let mut budget = ProductBudget::of(&affine);
    let mut products: Vec<(Vec<f64>, Product)> = Vec::with_capacity(affine.terms.len());
    for Chain { start, factors, links } in affine.terms {
        let product = multiplied_out(start, links, width, &mut budget)?;
        // A bias of zero (exports of Gemm write it) is not a term. It would prevent a common scale.
        if matches!(&product, Product::Term(Term::Bias { b }) if b.iter().all(|value| *value == 0.0))
        {
            continue;
        }
        // The parts of an input that was split and joined again are one term. Only one attempt is
        // made, because each takes a pass over the row.
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
        .map(|(factors, product)| product.into_term(factors.iter().product(), &mut budget));
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
        let ChainStart::Input { input, dim, positions, joined } = chain.start else { continue };
        let division = RowDivision { dim, positions, joined };
        match divisions.get_mut(input) {
            Some(unused) if unused.dim == 0 => *unused = division,
            Some(known) if (known.dim, known.positions) == (dim, positions) => {
                known.joined = known.joined.max(joined)
            }
            _ => return Err(Reason::new("an input is divided into rows in two different ways")),
        }
    }
    Ok(divisions)
}

/// Removes the factors that all terms have, with multiplicity, and returns them.
fn common_factors(terms: &mut [(Vec<f64>, Product)]) -> Vec<f64> {
    let candidates = terms.first().map_or(vec![], |(factors, _)| factors.clone());
    let mut common = vec![];
    for factor in candidates {
        let positions: Option<Vec<usize>> = terms
            .iter()
            .map(|(factors, _)| factors.iter().position(|other| *other == factor))
            .collect();
        if let Some(positions) = positions {
            for ((factors, _), position) in terms.iter_mut().zip(positions) {
                factors.remove(position);
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
