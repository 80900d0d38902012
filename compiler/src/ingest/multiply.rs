//! One chain of factors becomes one term, cut at its smallest inner dimension so that a
//! factorisation of rank r stays one.
//!
//! Matrices are multiplied out here and only here, and what that costs is paid before it is done.
//! Knows nothing of the sum that the term is part of.

use super::{
    absorb::{Absorbed, Picked, absorb},
    affine::{Affine, Link, Source},
    error::Reason,
};
use crate::{
    linear_map::Term,
    matrix::{Matrix, MatrixError},
};
use std::collections::HashSet;

/// The most multiplications for all terms together: seconds.
const MAX_WORK: usize = 1 << 34;
/// Copying a number costs as much as so many multiplications.
const COPY: usize = 8;
/// Elements that terms may have whatever the weights (512 MiB), and so many for each element of
/// these: a dense matrix becomes two factors, one of them an identity.
const FREE_ELEMENTS: usize = 1 << 26;
const PER_WEIGHT: usize = 4;
/// The most elements of all terms together (2.5 GiB).
const MAX_ELEMENTS: usize = 5 << 26;
/// The most elements of all terms that only move features of an input, nearly all of them zeros.
const MAX_PASSED: usize = 1 << 28;

/// What is left to be computed.
pub(super) struct Budget {
    work: usize,
    elements: usize,
    passed: usize,
}

/// What a chain becomes.
pub(super) enum Piece {
    Term(Term),
    /// Features of an input, at most scaled: other features of it can join them.
    Picked {
        input: usize,
        picked: Picked,
    },
}

impl Budget {
    pub fn of(affine: &Affine) -> Self {
        let mut seen = HashSet::new();
        let links = affine
            .terms
            .iter()
            .flat_map(|term| &term.links)
            .filter(|link| seen.insert(link.address()));
        let weights =
            links.map(|link| if let Link::Dense(matrix) = link { matrix.data.len() } else { 0 });
        let elements = weights
            .fold(FREE_ELEMENTS, |sum, more| sum.saturating_add(more.saturating_mul(PER_WEIGHT)));
        Self { work: MAX_WORK, elements: elements.min(MAX_ELEMENTS), passed: MAX_PASSED }
    }

    /// Pays for some multiplications.
    fn work(&mut self, work: Option<usize>) -> Result<(), Reason> {
        let left = work.and_then(|work| self.work.checked_sub(work));
        self.work = left.ok_or_else(|| {
            Reason::too_much(
                "multiplying its weights together takes too long; multiply them before exporting",
            )
        })?;
        Ok(())
    }

    /// Pays for two matrices, `from` x `rank` and `rank` x `to`.
    fn pair(&mut self, from: usize, rank: usize, to: usize) -> Result<(), Reason> {
        let elements = from.checked_add(to).and_then(|sum| sum.checked_mul(rank));
        self.work(elements.and_then(|elements| elements.checked_mul(COPY)))?;
        let left = elements.and_then(|elements| self.elements.checked_sub(elements));
        self.elements = left.ok_or_else(|| {
            Reason::too_much(format!(
                "its terms are too large, the last of them a map of rank {rank} to {to} features; export the delta of the LoRA \
                 matrices alone, for fewer features at once"
            ))
        })?;
        Ok(())
    }

    /// As [`Budget::pair`], for a pair of which nearly everything is zeros that are never written.
    fn passed(&mut self, from: usize, rank: usize, to: usize) -> Result<(), Reason> {
        let elements = from.checked_add(to).and_then(|sum| sum.checked_mul(rank));
        let left = elements.and_then(|elements| self.passed.checked_sub(elements));
        self.passed = left.ok_or_else(|| {
            Reason::too_much(format!(
                "it passes {rank} of {from} features of an input on to other places of {to}, which takes matrices that are too \
                 large; leave these features out of the export and put them there afterwards"
            ))
        })?;
        Ok(())
    }
}

/// The chain that begins with `source` and ends with `width` features, multiplied out.
pub(super) fn piece(
    source: Source,
    links: Vec<Link>,
    width: usize,
    budget: &mut Budget,
) -> Result<Piece, Reason> {
    for link in &links {
        let numbers = match link {
            Link::Dense(matrix) => matrix.data.len(),
            Link::Diagonal(factors) => factors.len(),
            Link::Select(selection) => selection.columns.len(),
        };
        budget.work(numbers.checked_mul(COPY))?;
    }
    let (input, dim) = match source {
        Source::Input { input, dim, .. } => (Some(input), dim),
        Source::One => (None, 1),
    };
    budget.pair(0, 1, width)?;
    let Absorbed { head, matrices, tail } = absorb(links, dim)?;
    let start = matrices.first().map(|first| first.rows);
    let dims: Vec<usize> =
        start.into_iter().chain(matrices.iter().map(|matrix| matrix.cols)).collect();
    let Some(input) = input else {
        budget.work(work(&dims, 0))?;
        let row = product_from_left(matrices, 1)?;
        return Ok(Piece::Term(Term::Bias { b: columns_of(tail, row)?.data }));
    };
    if matrices.is_empty() {
        return Ok(Piece::Picked { input, picked: tail.unwrap_or_else(|| Picked::all(dim)) });
    }
    let at = smallest_dimension(&dims);
    budget.pair(dim, dims[at], width)?;
    budget.work(work(&dims, at))?;
    let mut left = matrices;
    let right = left.split_off(at);
    let a = product_from_right(left, dims[at])?;
    let b = product_from_left(right, dims[at])?;
    let a = if let Some(head) = head { head.rows_of(a)? } else { a };
    Ok(Piece::Term(Term::LowRank { input, a, b: columns_of(tail, b)? }))
}

impl Piece {
    /// Are both features of the same input?
    pub fn is_like(&self, other: &Self) -> bool {
        matches!((self, other), (Self::Picked { input, .. }, Self::Picked { input: other, .. }) if input == other)
    }

    /// Takes the other in, if both select features of one input and no feature of the result comes
    /// from both.
    pub fn join(&mut self, other: &Self) -> bool {
        match (self, other) {
            (Self::Picked { input, picked }, Self::Picked { input: other, picked: more }) => {
                input == other && picked.join(more)
            }
            _ => false,
        }
    }

    /// The term, times a factor.
    pub fn into_term(self, factor: f64, budget: &mut Budget) -> Result<Term, Reason> {
        let (input, picked) = match self {
            Self::Term(term) => return Ok(scaled(term, factor)),
            Self::Picked { input, picked } => (input, picked.scaled(factor)),
        };
        if let Some(g) = picked.as_diagonal() {
            return Ok(Term::ElementScale { input, g });
        }
        let (from, to) = picked.size();
        let used = picked.used();
        budget.passed(from, used.len(), to)?;
        let (a, b) = picked.factorised(&used)?;
        Ok(Term::LowRank { input, a, b })
    }
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

fn columns_of(picked: Option<Picked>, matrix: Matrix) -> Result<Matrix, MatrixError> {
    match picked {
        Some(picked) => picked.columns_of(matrix),
        None => Ok(matrix),
    }
}

/// The number of matrices left of the smallest dimension; inner ones win ties, so that both factors
/// are real ones.
fn smallest_dimension(dims: &[usize]) -> usize {
    let inner = |at: usize| at > 0 && at + 1 < dims.len();
    (0..dims.len()).min_by_key(|at| (dims[*at], !inner(*at))).unwrap_or(0)
}

/// The multiplications for the products left and right of a cut, each multiplied from the cut on.
fn work(dims: &[usize], at: usize) -> Option<usize> {
    let matrices = dims.iter().zip(dims.iter().skip(1)).enumerate();
    let multiplied = matrices.filter(|(index, _)| *index != at && index + 1 != at);
    let mut work =
        multiplied.map(|(_, (rows, cols))| rows.checked_mul(*cols)?.checked_mul(dims[at]));
    work.try_fold(0usize, |sum, work| sum.checked_add(work?))
}

/// The product of matrices of which the first has the fewest rows; the identity of size `dim` for
/// none.
fn product_from_left(matrices: Vec<Matrix>, dim: usize) -> Result<Matrix, MatrixError> {
    let product = matrices.into_iter().map(Ok).reduce(|product, matrix| product?.product(&matrix?));
    product.unwrap_or_else(|| Matrix::diagonal(&vec![1.0; dim]))
}

/// As [`product_from_left`], if the last matrix has the fewest columns.
fn product_from_right(matrices: Vec<Matrix>, dim: usize) -> Result<Matrix, MatrixError> {
    let product =
        matrices.into_iter().rev().map(Ok).reduce(|product, matrix| matrix?.product(&product?));
    product.unwrap_or_else(|| Matrix::diagonal(&vec![1.0; dim]))
}
