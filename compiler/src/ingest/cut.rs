//! The last step: an affine expression becomes a [`LinearMap`], each chain cut at its smallest inner dimension.
//!
//! Everything is multiplied out here and only here, so a factorisation of rank r stays one of rank r.

use super::{
    affine::{Affine, Chain, Link, Source},
    error::Reason,
};
use crate::{
    linear_map::Term,
    matrix::{Matrix, MatrixError},
};
use std::borrow::Cow;

/// The most multiplications for all terms together.
const MAX_WORK: usize = 1 << 36;

/// The common scale and the terms of an expression, and how each input is divided (no rows of an unused one).
pub(super) struct Cut {
    pub scale: f64,
    pub terms: Vec<Term>,
    pub rows: Vec<Rows>,
}

/// How an input is divided into rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rows {
    /// Length of a row; 0 if the input is not used.
    pub dim: usize,
    /// Neighbouring values of the same feature.
    pub positions: usize,
    /// The most rows that were joined to one in any term.
    pub joined: usize,
}

/// Cuts all chains of `affine`, for a graph with `inputs` inputs.
pub(super) fn cut(affine: &Affine, inputs: usize) -> Result<Cut, Reason> {
    let rows = divisions(affine, inputs)?;
    if affine.terms.iter().try_fold(0usize, |sum, chain| sum.checked_add(work(chain)?)).is_none_or(|w| w > MAX_WORK) {
        return Err(Reason::new("multiplying its weights together takes too long; multiply them before exporting"));
    }
    let mut kept = Vec::with_capacity(affine.terms.len());
    for chain in &affine.terms {
        let term = term_of(chain, affine.width)?;
        // A bias of zero (as Gemm exports write it) is no term, and must not veto a common scale.
        if !matches!(&term, Term::Bias { b } if b.iter().all(|value| *value == 0.0)) {
            kept.push((chain.factors.clone(), term));
        }
    }
    if kept.is_empty() {
        kept.push((vec![], Term::Bias { b: vec![0.0; affine.width] }));
    }
    let common = common_factors(&mut kept);
    let scale = common.iter().product();
    let terms = join_biases(kept.into_iter().map(|(own, term)| scaled(term, own.iter().product())).collect());
    let finite = |term: &Term| match term {
        Term::LowRank { a, b, .. } => a.data.iter().chain(&b.data).all(|value| value.is_finite()),
        Term::Bias { b } => b.iter().all(|value| value.is_finite()),
        Term::ElementScale { g, .. } => g.iter().all(|value| value.is_finite()),
    };
    if !f64::is_finite(scale) || !terms.iter().all(finite) {
        return Err(Reason::new("the product of its weights overflows"));
    }
    Ok(Cut { scale, terms, rows })
}

/// A bound on the multiplications for one term: every matrix with everything before or after it.
fn work(chain: &Chain) -> Option<usize> {
    let dense = chain.links.iter().filter_map(|link| match link {
        Link::Dense(matrix) => Some(matrix.as_ref()),
        Link::Diagonal(_) => None,
    });
    let start = match chain.source {
        Source::Input { dim, .. } => dim,
        Source::One => 1,
    };
    let widest = dense.clone().map(|matrix| matrix.cols).max().unwrap_or(1).max(start);
    let inner = dense.clone().next().map_or(1, |first| first.cols);
    let per_element = match dense.clone().count() {
        0 | 1 => return Some(0),
        // Cut between the two, nothing is multiplied: a plain LoRA.
        2 if inner <= start && dense.clone().next_back().is_some_and(|last| inner <= last.cols) => return Some(0),
        _ if chain.source == Source::One => 1,
        _ => widest,
    };
    dense.clone().try_fold(0usize, |sum, matrix| matrix.data.len().checked_mul(per_element)?.checked_add(sum))
}

fn divisions(affine: &Affine, inputs: usize) -> Result<Vec<Rows>, Reason> {
    let mut divisions = vec![Rows::default(); inputs];
    for chain in &affine.terms {
        let Source::Input { input, dim, positions, joined } = chain.source else { continue };
        let own = Rows { dim, positions, joined };
        match divisions.get_mut(input) {
            Some(unused) if unused.dim == 0 => *unused = own,
            Some(known) if (known.dim, known.positions) == (dim, positions) => known.joined = known.joined.max(joined),
            _ => return Err(Reason::new("an input is divided into rows in two different ways")),
        }
    }
    Ok(divisions)
}

/// Takes the factors that all terms have, with multiplicity, out of them.
fn common_factors(terms: &mut [(Vec<f64>, Term)]) -> Vec<f64> {
    let candidates = terms.first().map_or(vec![], |(factors, _)| factors.clone());
    let mut common = vec![];
    for factor in candidates {
        let places: Option<Vec<usize>> =
            terms.iter().map(|(factors, _)| factors.iter().position(|other| *other == factor)).collect();
        if let Some(places) = places {
            for ((factors, _), place) in terms.iter_mut().zip(places) {
                factors.remove(place);
            }
            common.push(factor);
        }
    }
    common
}

fn scaled(mut term: Term, factor: f64) -> Term {
    let values = match &mut term {
        Term::LowRank { b, .. } => &mut b.data,
        Term::Bias { b } => b,
        Term::ElementScale { g, .. } => g,
    };
    if factor != 1.0 {
        values.iter_mut().for_each(|value| *value *= factor);
    }
    term
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

fn term_of(chain: &Chain, width: usize) -> Result<Term, Reason> {
    let (input, dim) = match chain.source {
        Source::Input { input, dim, .. } => (Some(input), dim),
        Source::One => (None, 1),
    };
    let (matrices, diagonal) = dense_links(&chain.links);
    Ok(match (input, matrices.is_empty()) {
        (None, _) => Term::Bias { b: product(&matrices, dim)?.data },
        (Some(input), true) => Term::ElementScale { input, g: diagonal.unwrap_or_else(|| vec![1.0; width]) },
        (Some(input), false) => {
            let at = smallest_dimension(&matrices, dim);
            let middle = if at == 0 { dim } else { matrices[at - 1].cols };
            Term::LowRank { input, a: product(&matrices[..at], dim)?, b: product(&matrices[at..], middle)? }
        }
    })
}

/// The chain without diagonal links, each multiplied into a neighbour; or the one diagonal, if there is nothing else.
fn dense_links(links: &[Link]) -> (Vec<Cow<'_, Matrix>>, Option<Vec<f64>>) {
    let mut matrices: Vec<Cow<'_, Matrix>> = vec![];
    let mut pending: Option<Vec<f64>> = None;
    for link in links {
        match (link, matrices.last_mut()) {
            (Link::Diagonal(factors), Some(last)) => {
                let last = last.to_mut();
                for row in last.data.chunks_exact_mut(factors.len()) {
                    row.iter_mut().zip(factors.iter()).for_each(|(value, factor)| *value *= factor);
                }
            }
            (Link::Diagonal(factors), None) => match &mut pending {
                Some(pending) => pending.iter_mut().zip(factors.iter()).for_each(|(all, factor)| *all *= factor),
                None => pending = Some(factors.to_vec()),
            },
            (Link::Dense(matrix), _) => {
                let mut matrix = Cow::Borrowed(matrix.as_ref());
                if let Some(factors) = pending.take() {
                    let cols = matrix.cols;
                    for (row, factor) in matrix.to_mut().data.chunks_exact_mut(cols).zip(factors) {
                        row.iter_mut().for_each(|value| *value *= factor);
                    }
                }
                matrices.push(matrix);
            }
        }
    }
    (matrices, pending)
}

/// The number of matrices left of the smallest dimension; inner ones win ties, so that both factors are real ones.
fn smallest_dimension(matrices: &[Cow<'_, Matrix>], dim: usize) -> usize {
    let dims: Vec<usize> = std::iter::once(dim).chain(matrices.iter().map(|matrix| matrix.cols)).collect();
    let inner = |at: usize| at > 0 && at < matrices.len();
    (0..dims.len()).min_by_key(|at| (dims[*at], !inner(*at))).unwrap_or(0)
}

/// The product of a chain; the identity of size `dim` for an empty one.
fn product(matrices: &[Cow<'_, Matrix>], dim: usize) -> Result<Matrix, MatrixError> {
    let Some((first, rest)) = matrices.split_first() else { return Matrix::diagonal(&vec![1.0; dim]) };
    let mut product = first.clone().into_owned();
    for matrix in rest {
        product = product.product(matrix)?;
    }
    Ok(product)
}
