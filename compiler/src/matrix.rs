//! Dense real matrices, row-major, whose shapes are checked when they are created.
//!
//! Knows nothing of ONNX or integers; has only the operations that ingesting needs.

use thiserror::Error;

/// Most elements of one matrix (2 GiB of `f64`).
pub const MAX_ELEMENTS: usize = 1 << 28;

/// Elements of the right factor in one block of a product, which stays in a core's cache (256 KiB).
const BLOCK: usize = 1 << 15;

/// Why a matrix cannot be created.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum MatrixError {
    /// A dimension is zero.
    #[error("a {rows} x {cols} matrix is empty")]
    Empty {
        /// Number of rows asked for.
        rows: usize,
        /// Number of columns asked for.
        cols: usize,
    },
    /// More elements than [`MAX_ELEMENTS`].
    #[error("a {rows} x {cols} matrix is larger than the limit of {MAX_ELEMENTS} elements")]
    TooLarge {
        /// Number of rows asked for.
        rows: usize,
        /// Number of columns asked for.
        cols: usize,
    },
    /// The data does not have `rows * cols` elements.
    #[error("a {rows} x {cols} matrix cannot have {len} elements")]
    Length {
        /// Number of rows asked for.
        rows: usize,
        /// Number of columns asked for.
        cols: usize,
        /// Number of elements given.
        len: usize,
    },
    /// The inner dimensions of a product differ.
    #[error("cannot multiply: {left} columns on the left, {right} rows on the right")]
    Inner {
        /// Columns of the left factor.
        left: usize,
        /// Rows of the right factor.
        right: usize,
    },
}

/// A dense real matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    /// Number of rows, at least 1.
    pub rows: usize,
    /// Number of columns, at least 1.
    pub cols: usize,
    /// Row-major elements, `rows * cols` of them.
    pub data: Vec<f64>,
}

impl Matrix {
    /// A matrix from row-major data.
    ///
    /// # Errors
    /// [`MatrixError`] if a dimension is zero, the matrix is too large or the data has another
    /// length.
    pub fn new(rows: usize, cols: usize, data: Vec<f64>) -> Result<Self, MatrixError> {
        let elements = checked_elements(rows, cols)?;
        if data.len() != elements {
            return Err(MatrixError::Length { rows, cols, len: data.len() });
        }
        Ok(Self { rows, cols, data })
    }

    /// A matrix of zeros.
    ///
    /// # Errors
    /// [`MatrixError`] if a dimension is zero or the matrix is too large.
    pub fn zeros(rows: usize, cols: usize) -> Result<Self, MatrixError> {
        let elements = checked_elements(rows, cols)?;
        Ok(Self { rows, cols, data: vec![0.0; elements] })
    }

    /// The matrix with `diagonal` on its diagonal and zeros elsewhere.
    ///
    /// # Errors
    /// [`MatrixError`] if the diagonal is empty or the matrix is too large.
    pub fn diagonal(diagonal: &[f64]) -> Result<Self, MatrixError> {
        let mut matrix = Self::zeros(diagonal.len(), diagonal.len())?;
        for (i, value) in diagonal.iter().enumerate() {
            matrix.data[i * diagonal.len() + i] = *value;
        }
        Ok(matrix)
    }

    /// One row, as a slice of `cols` elements.
    ///
    /// # Panics
    /// If `row >= self.rows`, as slices do.
    pub fn row(&self, row: usize) -> &[f64] {
        &self.data[row * self.cols..(row + 1) * self.cols]
    }

    /// The product `self * right`. Every element is summed in the order of the inner dimension, so
    /// its bits are the same on every machine.
    ///
    /// # Errors
    /// [`MatrixError`] if the inner dimensions differ or the product is too large.
    pub fn product(&self, right: &Matrix) -> Result<Matrix, MatrixError> {
        if self.cols != right.rows {
            return Err(MatrixError::Inner { left: self.cols, right: right.rows });
        }
        let mut product = Matrix::zeros(self.rows, right.cols)?;
        let height = (BLOCK / right.cols).max(4);
        for (block, rows) in right.data.chunks(height * right.cols).enumerate() {
            for (out, left_row) in
                product.data.chunks_exact_mut(right.cols).zip(self.data.chunks_exact(self.cols))
            {
                add_vector_times_rows(&left_row[block * height..], rows, out);
            }
        }
        Ok(product)
    }

    /// The matrix whose column `k` is column `columns[k]` of this one, or zero where that is
    /// `None`.
    ///
    /// # Errors
    /// [`MatrixError`] if there are no columns or the result is too large.
    ///
    /// # Panics
    /// If a column does not exist, as slices do.
    pub fn gather_columns(&self, columns: &[Option<usize>]) -> Result<Matrix, MatrixError> {
        let mut gathered = Matrix::zeros(self.rows, columns.len())?;
        for (row, out) in gathered.data.chunks_exact_mut(columns.len()).enumerate() {
            let from = self.row(row);
            for (value, column) in out.iter_mut().zip(columns) {
                *value = column.map_or(0.0, |column| from[column]);
            }
        }
        Ok(gathered)
    }

    /// The Kronecker product of the `copies x copies` identity with this matrix: `copies` blocks on
    /// the diagonal.
    ///
    /// # Errors
    /// [`MatrixError`] if the result is too large.
    pub fn block_diagonal(&self, copies: usize) -> Result<Matrix, MatrixError> {
        let too_large = MatrixError::TooLarge { rows: self.rows, cols: self.cols };
        let rows = self.rows.checked_mul(copies).ok_or(too_large.clone())?;
        let cols = self.cols.checked_mul(copies).ok_or(too_large)?;
        let mut blocks = Matrix::zeros(rows, cols)?;
        for copy in 0..copies {
            for row in 0..self.rows {
                let start = (copy * self.rows + row) * cols + copy * self.cols;
                blocks.data[start..start + self.cols].copy_from_slice(self.row(row));
            }
        }
        Ok(blocks)
    }
}

/// Adds the row vector `vector * matrix` to `out`. The caller must pass fitting lengths.
pub(crate) fn add_vector_times_matrix(vector: &[f64], matrix: &Matrix, out: &mut [f64]) {
    add_vector_times_rows(vector, &matrix.data, out);
}

/// Adds `rows`, each as long as `out`, times the first numbers of `vector` to `out`. Works on four
/// rows at a time, so `out` is read and written a quarter as often. The order of the additions, and
/// so the result, is the same as for one row after the other.
fn add_vector_times_rows(vector: &[f64], rows: &[f64], out: &mut [f64]) {
    let cols = out.len();
    let (mut fours, mut values) = (rows.chunks_exact(4 * cols), vector.chunks_exact(4));
    for (four, value) in (&mut fours).zip(&mut values) {
        let ((a, b), (c, d)) = (four[..2 * cols].split_at(cols), four[2 * cols..].split_at(cols));
        for ((((sum, a), b), c), d) in out.iter_mut().zip(a).zip(b).zip(c).zip(d) {
            *sum = (((*sum + value[0] * a) + value[1] * b) + value[2] * c) + value[3] * d;
        }
    }
    let done = rows.len() / (4 * cols) * 4;
    for (value, row) in
        vector[done.min(vector.len())..].iter().zip(fours.remainder().chunks_exact(cols))
    {
        for (sum, weight) in out.iter_mut().zip(row) {
            *sum += value * weight;
        }
    }
}

fn checked_elements(rows: usize, cols: usize) -> Result<usize, MatrixError> {
    if rows == 0 || cols == 0 {
        return Err(MatrixError::Empty { rows, cols });
    }
    rows.checked_mul(cols)
        .filter(|elements| *elements <= MAX_ELEMENTS)
        .ok_or(MatrixError::TooLarge { rows, cols })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn empty_oversized_and_misfitting_matrices_are_refused() {
        assert!(matches!(Matrix::zeros(0, 3), Err(MatrixError::Empty { .. })));
        assert!(matches!(Matrix::zeros(usize::MAX, 2), Err(MatrixError::TooLarge { .. })));
        assert!(matches!(Matrix::new(2, 2, vec![1.0; 3]), Err(MatrixError::Length { .. })));
        let a = Matrix::zeros(2, 3).unwrap();
        assert!(matches!(a.product(&a), Err(MatrixError::Inner { .. })));
    }

    #[test]
    fn block_diagonal_repeats_the_block() {
        let m = Matrix::new(1, 2, vec![1.0, 2.0]).unwrap();
        assert_eq!(m.block_diagonal(2).unwrap().data, [1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0]);
    }

    #[test]
    fn products_are_summed_in_the_order_of_the_inner_dimension() {
        let numbers = |rows: usize, cols: usize| {
            let data = (0..rows * cols)
                .map(|i| 1.0 / (1.0 + i as f64) * if i % 3 == 0 { -1e8 } else { 1.0 })
                .collect();
            Matrix::new(rows, cols, data).unwrap()
        };
        // Below and above a block, and multiples of four and not.
        for (rows, inner, cols) in [(1, 1, 1), (2, 7, 3), (3, 130, 300), (2, 9, BLOCK + 1)] {
            let (left, right) = (numbers(rows, inner), numbers(inner, cols));
            let product = left.product(&right).unwrap();
            for (row, col) in [(0, 0), (rows - 1, cols - 1), (rows / 2, cols / 2)] {
                let sum = (0..inner).fold(0.0, |sum, k| sum + left.row(row)[k] * right.row(k)[col]);
                assert_eq!(
                    product.row(row)[col].to_bits(),
                    f64::to_bits(sum),
                    "{rows} x {inner} x {cols}"
                );
            }
        }
    }
}
