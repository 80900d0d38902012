//! Multiplies the selections and diagonals of a chain into the matrices beside them, at less than
//! the cost of copying these.
//!
//! Knows links and matrices, not the terms that they become.

use std::sync::Arc;

use crate::{
    ingest::affine::chain::Link,
    matrix::{Matrix, MatrixError},
};

/// Feature `k` of the result is feature `columns[k].0` of `from` features, times `columns[k].1`.
#[derive(Clone, Debug)]
pub(in crate::ingest) struct ScaledSelection {
    from: usize,
    columns: Vec<(usize, f64)>,
}

/// `head · matrices[0] · matrices[1] · … · tail`.
pub(in crate::ingest) struct Absorbed {
    /// Set only if it omits features and a matrix follows: multiplying by it is cheaper after the
    /// product of the matrices is small.
    pub head: Option<ScaledSelection>,
    pub matrices: Vec<Matrix>,
    /// Set only if it increases the number of features, or if there are no matrices.
    pub tail: Option<ScaledSelection>,
}

/// Multiplies every selection and diagonal of a chain that starts with `dim` features into the
/// neighbouring matrix where it costs less.
pub(in crate::ingest) fn absorb(links: Vec<Link>, dim: usize) -> Result<Absorbed, MatrixError> {
    let mut absorbed = Absorbed { head: None, matrices: vec![], tail: None };
    let mut width = dim;
    for link in links {
        match link {
            Link::Diagonal(factors) => {
                let selection = absorbed.tail.get_or_insert_with(|| ScaledSelection::all(width));
                selection
                    .columns
                    .iter_mut()
                    .zip(factors.iter())
                    .for_each(|((_, all), factor)| *all *= factor);
            }
            Link::Select(selected) => {
                let selection = absorbed.tail.take().unwrap_or_else(|| ScaledSelection::all(width));
                width = selected.columns.len();
                absorbed.tail = Some(selection.select(&selected.columns));
            }
            Link::Dense(matrix) => {
                let mut matrix = Arc::unwrap_or_clone(matrix);
                width = matrix.cols;
                match (absorbed.tail.take(), absorbed.matrices.pop()) {
                    (Some(selection), None) if selection.columns.len() < selection.from => {
                        absorbed.head = Some(selection)
                    }
                    (Some(selection), Some(last)) if !selection.widens() => {
                        absorbed.matrices.push(selection.columns_of(last)?);
                    }
                    (selection, last) => {
                        absorbed.matrices.extend(last);
                        if let Some(selection) = selection {
                            matrix = selection.rows_of(matrix)?;
                        }
                    }
                }
                absorbed.matrices.push(matrix);
            }
        }
    }
    if !absorbed.tail.as_ref().is_some_and(ScaledSelection::widens)
        && let Some(last) = absorbed.matrices.pop()
    {
        absorbed.matrices.push(match absorbed.tail.take() {
            Some(selection) => selection.columns_of(last)?,
            None => last,
        });
    }
    Ok(absorbed)
}

impl ScaledSelection {
    /// All of `width` features.
    pub fn all(width: usize) -> Self {
        Self { from: width, columns: (0..width).map(|column| (column, 1.0)).collect() }
    }

    fn select(&self, columns: &[Option<usize>]) -> Self {
        let columns =
            columns.iter().map(|column| column.map_or((0, 0.0), |column| self.columns[column]));
        Self { from: self.from, columns: columns.collect() }
    }

    fn widens(&self) -> bool {
        self.columns.len() > self.from
    }

    /// The factor of every feature, if no feature moves.
    pub fn as_diagonal(&self) -> Option<Vec<f64>> {
        let stays = |(k, (from, factor)): (usize, &(usize, f64))| *from == k || *factor == 0.0;
        (self.from == self.columns.len() && self.columns.iter().enumerate().all(stays))
            .then(|| self.columns.iter().map(|(_, factor)| *factor).collect())
    }

    /// Adds the other selection to this one, if no feature of the result comes from both.
    pub fn join(&mut self, other: &Self) -> bool {
        let mut pairs = self.columns.iter().zip(&other.columns);
        if self.from != other.from
            || self.columns.len() != other.columns.len()
            || pairs.any(|((_, a), (_, b))| *a != 0.0 && *b != 0.0)
        {
            return false;
        }
        for (column, other) in
            self.columns.iter_mut().zip(&other.columns).filter(|(column, _)| column.1 == 0.0)
        {
            *column = *other;
        }
        true
    }

    /// `matrix · self`
    pub fn columns_of(&self, mut matrix: Matrix) -> Result<Matrix, MatrixError> {
        if let Some(factors) = self.as_diagonal() {
            for row in matrix.data.chunks_exact_mut(factors.len()) {
                row.iter_mut().zip(&factors).for_each(|(value, factor)| *value *= factor);
            }
            return Ok(matrix);
        }
        let mut selection = Matrix::zeros(matrix.rows, self.columns.len())?;
        let rows = selection
            .data
            .chunks_exact_mut(self.columns.len())
            .zip(matrix.data.chunks_exact(matrix.cols));
        for (out, row) in rows {
            out.iter_mut()
                .zip(&self.columns)
                .for_each(|(value, (from, factor))| *value = row[*from] * factor);
        }
        Ok(selection)
    }

    /// `self · matrix`
    pub fn rows_of(&self, matrix: Matrix) -> Result<Matrix, MatrixError> {
        let mut spread = Matrix::zeros(self.from, matrix.cols)?;
        for ((to, factor), row) in self.columns.iter().zip(matrix.data.chunks_exact(matrix.cols)) {
            let out = &mut spread.data[to * matrix.cols..(to + 1) * matrix.cols];
            out.iter_mut().zip(row).for_each(|(sum, value)| *sum += factor * value);
        }
        Ok(spread)
    }

    /// The features that are used, in order; at least one, because a term of zeros needs a rank,
    /// too.
    pub fn used(&self) -> Vec<usize> {
        let used = self.columns.iter().filter(|(_, factor)| *factor != 0.0).map(|(from, _)| *from);
        let mut used: Vec<usize> = used
            .chain((self.columns.iter().all(|(_, factor)| *factor == 0.0)).then_some(0))
            .collect();
        used.sort_unstable();
        used.dedup();
        used
    }

    /// The selection as a product of two matrices, whose rank is the number of `used` features.
    pub fn factorised(&self, used: &[usize]) -> Result<(Matrix, Matrix), MatrixError> {
        let mut a = Matrix::zeros(self.from, used.len())?;
        let mut rank_of = vec![0; self.from];
        for (rank, from) in used.iter().enumerate() {
            a.data[from * used.len() + rank] = 1.0;
            rank_of[*from] = rank;
        }
        let mut b = Matrix::zeros(used.len(), self.columns.len())?;
        for (k, (from, factor)) in self.columns.iter().enumerate() {
            b.data[rank_of[*from] * self.columns.len() + k] = *factor;
        }
        Ok((a, b))
    }

    pub fn scaled(mut self, factor: f64) -> Self {
        self.columns.iter_mut().for_each(|(_, column_factor)| *column_factor *= factor);
        self
    }

    /// The number of features before and after.
    pub fn size(&self) -> (usize, usize) {
        (self.from, self.columns.len())
    }
}
