//! Multiplies out a chain of factors into one term, as two factors on both sides of the smallest
//! inner dimension, so a factorisation of rank r keeps its rank.
//!
//! Matrices are multiplied only here, and a budget is charged before each product. Knows nothing of
//! the sum that the term is part of.

use std::collections::HashSet;

use super::absorb::{Absorbed, ScaledSelection, absorb};
use crate::{
    ingest::{
        affine::{
            chain::{ChainStart, Link},
            expression::Affine,
        },
        error::Reason,
    },
    linear_map::Term,
    matrix::{Matrix, MatrixError},
};

/// Most multiplications for all terms together, which take seconds.
const MAX_WORK: usize = 1 << 34;
/// Cost of copying a number, in multiplications.
const COPY: usize = 8;
/// Elements that terms may have for any weights (512 MiB), and further elements for each weight: a
/// dense matrix becomes two factors, one of which is an identity.
const FREE_ELEMENTS: usize = 1 << 26;
const PER_WEIGHT: usize = 4;
/// Most elements of all terms together (2.5 GiB).
const MAX_ELEMENTS: usize = 5 << 26;
/// Most elements of all terms that only move features of an input; nearly all of them are zeros.
const MAX_PASSED: usize = 1 << 28;

/// The multiplications and elements that remain.
pub(in crate::ingest) struct ProductBudget {
    work: usize,
    elements: usize,
    passed: usize,
}

/// The result of multiplying out a chain.
pub(in crate::ingest) enum Product {
    Term(Term),
    /// Features of an input, moved and scaled. Products of this form with the same input can be
    /// joined.
    Moved {
        input: usize,
        selection: ScaledSelection,
    },
}

impl ProductBudget {
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

    /// As [`ProductBudget::pair`], for matrices that consist almost only of zeros, which are not
    /// written.
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

/// The chain that starts with `start` and ends with `width` features, multiplied out.
pub(in crate::ingest) fn multiplied_out(
    start: ChainStart,
    links: Vec<Link>,
    width: usize,
    budget: &mut ProductBudget,
) -> Result<Product, Reason> {
    for link in &links {
        let numbers = match link {
            Link::Dense(matrix) => matrix.data.len(),
            Link::Diagonal(factors) => factors.len(),
            Link::Select(selection) => selection.columns.len(),
        };
        budget.work(numbers.checked_mul(COPY))?;
    }
    let (input, dim) = match start {
        ChainStart::Input { input, dim, .. } => (Some(input), dim),
        ChainStart::One => (None, 1),
    };
    budget.pair(0, 1, width)?;
    let Absorbed { head, matrices, tail } = absorb(links, dim)?;
    let first = matrices.first().map(|first| first.rows);
    let dims: Vec<usize> =
        first.into_iter().chain(matrices.iter().map(|matrix| matrix.cols)).collect();
    let Some(input) = input else {
        budget.work(work(&dims, 0))?;
        let row = product_from_left(matrices, 1)?;
        return Ok(Product::Term(Term::Bias { b: columns_of(tail, row)?.data }));
    };
    if matrices.is_empty() {
        return Ok(Product::Moved {
            input,
            selection: tail.unwrap_or_else(|| ScaledSelection::all(dim)),
        });
    }
    let at = smallest_dimension(&dims);
    budget.pair(dim, dims[at], width)?;
    budget.work(work(&dims, at))?;
    let mut left = matrices;
    let right = left.split_off(at);
    let a = product_from_right(left, dims[at])?;
    let b = product_from_left(right, dims[at])?;
    let a = if let Some(head) = head { head.rows_of(a)? } else { a };
    Ok(Product::Term(Term::LowRank { input, a, b: columns_of(tail, b)? }))
}

impl Product {
    /// Whether both move features of the same input.
    pub fn is_like(&self, other: &Self) -> bool {
        matches!((self, other), (Self::Moved { input, .. }, Self::Moved { input: other, .. }) if input == other)
    }

    /// Joins the other product to this one, if both move features of one input and no feature of
    /// the result comes from both.
    pub fn join(&mut self, other: &Self) -> bool {
        match (self, other) {
            (Self::Moved { input, selection }, Self::Moved { input: other, selection: more }) => {
                input == other && selection.join(more)
            }
            _ => false,
        }
    }

    /// The term, times a factor.
    pub fn into_term(self, factor: f64, budget: &mut ProductBudget) -> Result<Term, Reason> {
        let (input, selection) = match self {
            Self::Term(term) => return Ok(scaled(term, factor)),
            Self::Moved { input, selection } => (input, selection.scaled(factor)),
        };
        if let Some(g) = selection.as_diagonal() {
            return Ok(Term::ElementScale { input, g });
        }
        let (from, to) = selection.size();
        let used = selection.used();
        budget.passed(from, used.len(), to)?;
        let (a, b) = selection.factorised(&used)?;
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

fn columns_of(selection: Option<ScaledSelection>, matrix: Matrix) -> Result<Matrix, MatrixError> {
    match selection {
        Some(selection) => selection.columns_of(matrix),
        None => Ok(matrix),
    }
}

/// The number of matrices to the left of the smallest dimension. Among equal dimensions an inner
/// one is chosen, so that neither factor is an identity.
fn smallest_dimension(dims: &[usize]) -> usize {
    let inner = |at: usize| at > 0 && at + 1 < dims.len();
    (0..dims.len()).min_by_key(|at| (dims[*at], !inner(*at))).unwrap_or(0)
}

/// The multiplications for the products to the left and to the right of a dimension, each
/// multiplied starting from that dimension.
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
