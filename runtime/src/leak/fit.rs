//! What an attacker learns about one module from rows and their deltas: the linear map of least
//! norm that agrees with all of them.
//!
//! For rows X and deltas D that is `W = pinv(X)·D`, as an equation of everything that a row is
//! multiplied with. It is built row by row (Gram-Schmidt): with `X = L·Q`, Q of orthonormal rows,
//! `W = Qᵀ·(L⁻¹·D)`. Row i of Q and of `L⁻¹·D` depends only on the rows up to i, so the first n of
//! them are the fit from n rows: one pass gives the fits for all n. It needs neither a matrix of
//! d_in x d_in nor a library for eigenvalues. This module must not depend on files or models.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, s};
use zeroize::Zeroize;

/// A row adds nothing if its part outside the span of earlier rows is shorter than this share of
/// it. (Integers of 24 bits are rows to within 2⁻²³. Deltas are exact, so noise is not amplified.)
const CUTOFF: f64 = 1e-6;

/// Rows of a module and their deltas in real numbers: one equation per row.
#[derive(Debug, Clone)]
pub(super) struct Equations {
    /// The factors of an unknown matrix: features, and a 1 for an unknown bias. `[n, d_in]`
    pub x: Array2<f64>,
    /// The factors of an unknown vector, feature by feature: `[n, d_out]`, if there is such a
    /// term.
    pub y: Option<Array2<f64>>,
    /// `[n, d_out]`
    pub delta: Array2<f64>,
}

impl Equations {
    /// Concatenates equations. `None` without any.
    pub fn joined(all: &[Equations]) -> Option<Equations> {
        let join = |of: &dyn Fn(&Equations) -> ArrayView2<'_, f64>| {
            // All are of one module, so they have the same width.
            ndarray::concatenate(Axis(0), &all.iter().map(of).collect::<Vec<_>>()).ok()
        };
        let y =
            all.iter().map(|rows| rows.y.as_ref().map(|y| y.view())).collect::<Option<Vec<_>>>();
        Some(Equations {
            x: join(&|rows| rows.x.view())?,
            y: y.and_then(|y| ndarray::concatenate(Axis(0), &y).ok()),
            delta: join(&|rows| rows.delta.view())?,
        })
    }
}

/// The maps that agree with the first n rows, for every n.
pub(super) struct Fit {
    /// Q: an orthonormal row for each row that added a direction, zeros for the others.
    directions: Array2<f64>,
    /// `L⁻¹·D`
    deltas: Array2<f64>,
    /// `L⁻¹·Y`
    scaled: Option<Array2<f64>>,
}

impl Drop for Fit {
    fn drop(&mut self) {
        // `zeros` makes them contiguous.
        for values in [Some(&mut self.deltas), self.scaled.as_mut()].into_iter().flatten() {
            values.as_slice_mut().unwrap_or_default().zeroize();
        }
    }
}

impl Fit {
    /// Fits the maps.
    pub fn of(rows: &Equations) -> Fit {
        let (n, d_out) = rows.delta.dim();
        let zeros = |columns| Array2::zeros((n, columns));
        let mut fit = Fit {
            directions: zeros(rows.x.ncols()),
            deltas: zeros(d_out),
            scaled: rows.y.as_ref().map(|_| zeros(d_out)),
        };
        for row in 0..n {
            fit.add(row, rows);
        }
        fit
    }

    fn add(&mut self, row: usize, rows: &Equations) {
        let x = rows.x.row(row);
        let mut rest = x.to_owned();
        let mut delta = rows.delta.row(row).to_owned();
        let mut y = rows.y.as_ref().map(|y| y.row(row).to_owned());
        let size = length(x).hypot(y.as_ref().map_or(0.0, |y| length(y.view())));
        // Two passes are enough: the second removes the rounding errors of the first.
        for _ in 0..2 {
            for before in 0..row {
                let direction = self.directions.row(before);
                let part = direction.dot(&rest);
                if part != 0.0 {
                    rest.scaled_add(-part, &direction);
                    delta.scaled_add(-part, &self.deltas.row(before));
                    if let (Some(y), Some(scaled)) = (&mut y, &self.scaled) {
                        y.scaled_add(-part, &scaled.row(before));
                    }
                }
            }
        }
        let new = length(rest.view());
        let is_new = new > CUTOFF * length(x);
        // A row without a new direction is an equation for the scales alone. A small divisor gives
        // it a large weight there.
        let divisor = if is_new { new } else { CUTOFF * size };
        if divisor > 0.0 {
            if is_new {
                self.directions.row_mut(row).assign(&(rest / divisor));
            }
            self.deltas.row_mut(row).assign(&(delta / divisor));
            if let (Some(y), Some(scaled)) = (y, &mut self.scaled) {
                scaled.row_mut(row).assign(&(y / divisor));
            }
        }
    }

    /// The fit of a module without rows.
    pub fn of_nothing(d_out: usize) -> Fit {
        Fit { directions: Array2::zeros((0, 0)), deltas: Array2::zeros((0, d_out)), scaled: None }
    }

    /// The scales g that `D = X·W + y∘g` has for the least `‖W‖² + ‖g‖²`, from the first `n` rows.
    /// Each column is a matrix with one more row, y, for which the Sherman-Morrison formula gives
    /// g.
    fn scales(&self, n: usize) -> Option<Array1<f64>> {
        let (scaled, deltas) =
            (self.scaled.as_ref()?.slice(s![..n, ..]), self.deltas.slice(s![..n, ..]));
        let above = (&scaled * &deltas).sum_axis(Axis(0));
        let below = scaled.mapv(|value| value * value).sum_axis(Axis(0));
        Some(above / (below + 1.0))
    }

    /// Applies the fit from the first `n` rows to other rows.
    pub fn apply(
        &self,
        n: usize,
        x: ArrayView2<'_, f64>,
        y: Option<ArrayView2<'_, f64>>,
    ) -> Array2<f64> {
        let n = n.min(self.deltas.nrows());
        if n == 0 {
            return Array2::zeros((x.nrows(), self.deltas.ncols()));
        }
        let coefficients = x.dot(&self.directions.slice(s![..n, ..]).t());
        let mut out = coefficients.dot(&self.deltas.slice(s![..n, ..]));
        if let (Some(y), Some(scaled), Some(scales)) = (y, &self.scaled, self.scales(n)) {
            out += &((&y - &coefficients.dot(&scaled.slice(s![..n, ..]))) * &scales);
        }
        out
    }

    /// For each number of rows (in rising order), the squared distance between what the fit gives
    /// for `rows` and their true deltas.
    pub fn errors(&self, sizes: &[usize], rows: &Equations) -> Vec<f64> {
        let known = self.deltas.nrows();
        if known == 0 {
            return vec![squares(&rows.delta); sizes.len()];
        }
        let coefficients = rows.x.dot(&self.directions.t());
        let mut error = rows.delta.clone();
        let mut rest = rows.y.clone();
        let mut done = 0;
        let mut out = Vec::with_capacity(sizes.len());
        for n in sizes.iter().map(|n| *n.min(&known)) {
            let more = coefficients.slice(s![.., done..n]);
            error -= &more.dot(&self.deltas.slice(s![done..n, ..]));
            if let (Some(rest), Some(scaled)) = (&mut rest, &self.scaled) {
                *rest -= &more.dot(&scaled.slice(s![done..n, ..]));
            }
            done = n;
            out.push(match (&rest, self.scales(n)) {
                (Some(rest), Some(scales)) => squares(&(&error - &(rest * &scales))),
                _ => squares(&error),
            });
        }
        out
    }
}

fn length(values: ArrayView1<'_, f64>) -> f64 {
    values.dot(&values).sqrt()
}

/// The sum of squares.
pub(super) fn squares(values: &Array2<f64>) -> f64 {
    values.iter().map(|value| value * value).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers between −1 and 1 that look random.
    fn values(rows: usize, columns: usize, seed: u64) -> Array2<f64> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        Array2::from_shape_simple_fn((rows, columns), || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
        })
    }

    /// An adapter: x·A·B, and a bias (the last feature is 1), and y∘g.
    struct Adapter {
        map: Array2<f64>,
        scales: Option<Array1<f64>>,
    }

    impl Adapter {
        fn of(d_in: usize, rank: usize, d_out: usize) -> Adapter {
            Adapter { map: values(d_in, rank, 1).dot(&values(rank, d_out, 2)), scales: None }
        }

        fn rows(&self, x: Array2<f64>, seed: u64) -> Equations {
            let y = self.scales.as_ref().map(|_| values(x.nrows(), self.map.ncols(), seed));
            let mut delta = x.dot(&self.map);
            if let (Some(y), Some(scales)) = (&y, &self.scales) {
                delta += &(y * scales);
            }
            Equations { x, y, delta }
        }
    }

    /// The share of the deltas of `rows` that a fit from its first n rows leaves unknown.
    fn unknown(fit: &Fit, n: usize, rows: &Equations) -> f64 {
        let given = fit.apply(n, rows.x.view(), rows.y.as_ref().map(|y| y.view()));
        let error = squares(&(given - &rows.delta)) / squares(&rows.delta);
        let [other] = fit.errors(&[n], rows)[..] else { return f64::NAN };
        let other = other / squares(&rows.delta);
        assert!((error - other).abs() < 1e-9 * (1.0 + error), "{error} {other}");
        error
    }

    #[test]
    fn as_many_rows_as_features_give_the_whole_map_and_fewer_do_not() {
        let adapter = Adapter::of(24, 4, 9);
        let fit = Fit::of(&adapter.rows(values(24, 24, 3), 0));
        let other = adapter.rows(values(50, 24, 4), 0);
        assert!(unknown(&fit, 24, &other) < 1e-12);
        let shares: Vec<f64> = [23, 12, 4, 1, 0].map(|n| unknown(&fit, n, &other)).into();
        assert!(shares[0] > 1e-3 && shares.is_sorted(), "{shares:?}");
        assert!((shares[4] - 1.0).abs() < 1e-12);
    }

    #[test]
    fn rows_that_were_seen_and_all_that_they_span_are_reproduced() {
        let adapter = Adapter::of(40, 4, 9);
        let seen = adapter.rows(values(7, 40, 3), 0);
        let fit = Fit::of(&seen);
        assert!(unknown(&fit, 7, &seen) < 1e-20);
        // Other rows of the space that the seven span, of other sizes.
        let spanned = adapter.rows(values(30, 7, 5).dot(&seen.x) * 1e3, 0);
        assert!(unknown(&fit, 7, &spanned) < 1e-20);
        assert!(unknown(&fit, 6, &spanned) > 1e-3);
        // Of all maps that agree, it is the one of least norm: it gives nothing in directions that
        // were not seen.
        let mut away = values(1, 40, 6);
        for direction in fit.directions.rows() {
            let part = direction.dot(&away.row(0));
            away.row_mut(0).scaled_add(-part, &direction);
        }
        assert!(squares(&fit.apply(7, away.view(), None)) < 1e-20);
    }

    #[test]
    fn rows_that_say_nothing_new_change_nothing() {
        let adapter = Adapter::of(20, 3, 5);
        let x = values(6, 20, 3);
        let plain = Fit::of(&adapter.rows(x.clone(), 0));
        // Each row twice (once of another length), zeros, and sums of rows before.
        let mut more = Array2::zeros((6 * 3 + 2, 20));
        for row in 0..6 {
            more.row_mut(3 * row + 1).assign(&x.row(row));
            more.row_mut(3 * row + 2).assign(&(&x.row(row) * -1e-4));
            more.row_mut(3 * row + 3).assign(&(&x.row(0) + &(&x.row(row) * 1e4)));
        }
        let dependent = Fit::of(&adapter.rows(more, 0));
        let other = adapter.rows(values(30, 20, 4), 0);
        let (one, two) = (unknown(&plain, 6, &other), unknown(&dependent, 20, &other));
        assert!((one - two).abs() < 1e-6, "{one} {two}");
        let nothing = Fit::of(&adapter.rows(Array2::zeros((3, 20)), 0));
        assert!((unknown(&nothing, 3, &other) - 1.0).abs() < 1e-12);
        let no_rows = Fit::of(&adapter.rows(Array2::zeros((0, 20)), 0));
        assert!((unknown(&no_rows, 0, &other) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_bias_is_known_from_two_rows_of_one_direction() {
        // delta = x·w + b: rows (x, 1).
        let adapter = Adapter { map: ndarray::array![[2.0, -1.0], [0.5, 4.0]], scales: None };
        let fit = Fit::of(&adapter.rows(ndarray::array![[3.0, 1.0], [-1.0, 1.0]], 0));
        let other = adapter.rows(ndarray::array![[7.0, 1.0], [0.0, 1.0]], 0);
        assert!(unknown(&fit, 2, &other) < 1e-20 && unknown(&fit, 1, &other) > 1e-3);
    }

    #[test]
    fn scales_alone_are_known_from_the_first_row_where_it_is_not_zero() {
        let adapter =
            Adapter { map: Array2::zeros((0, 6)), scales: Some(values(1, 6, 8).row(0).to_owned()) };
        let mut seen = adapter.rows(Array2::zeros((2, 0)), 3);
        if let (Some(y), Some(scales)) = (&mut seen.y, &adapter.scales) {
            y[[0, 2]] = 0.0;
            y[[1, 2]] = 0.0;
            seen.delta = &*y * scales;
        }
        let fit = Fit::of(&seen);
        let other = adapter.rows(Array2::zeros((9, 0)), 4);
        let given = fit.apply(1, other.x.view(), other.y.as_ref().map(|y| y.view()));
        for (column, (given, delta)) in
            given.columns().into_iter().zip(other.delta.columns()).enumerate()
        {
            let error = length((&given - &delta).view()) / length(delta);
            if column == 2 {
                assert!((error - 1.0).abs() < 1e-9)
            } else {
                assert!(error < 1e-6, "{error}")
            }
        }
    }

    #[test]
    fn a_map_and_scales_together_are_known_after_one_row_more_than_features() {
        let scales = Some(values(1, 7, 8).row(0).to_owned());
        let adapter = Adapter { scales, ..Adapter::of(12, 2, 7) };
        let fit = Fit::of(&adapter.rows(values(16, 12, 3), 5));
        let other = adapter.rows(values(30, 12, 4), 6);
        assert!(unknown(&fit, 16, &other) < 1e-12);
        assert!(unknown(&fit, 13, &other) < 1e-9);
        assert!(unknown(&fit, 8, &other) > 1e-3);
    }
}
