//! One step of a branch: a constant tensor, and the operation that applies it to a row.
//!
//! Must not know the form of adapter that it belongs to.

/// A constant tensor and its operation. Its name is unique in the module.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Name of the tensor.
    pub name: String,
    /// The operation.
    pub action: Action,
    /// The tensor, row-major.
    pub values: Vec<f32>,
}

/// The operation of a step on a row `v`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// `v Mᵀ` with `M` `[d_out, d_in]`, the orientation in which torch stores the weight of a
    /// linear layer.
    Matrix {
        /// Rows of `M`.
        d_out: usize,
        /// Columns of `M`.
        d_in: usize,
    },
    /// `v ∘ factors`
    Scale,
    /// `v + row`
    Shift,
}

impl Step {
    /// Multiplication by a matrix `[d_out, d_in]`.
    pub(crate) fn matrix(name: &str, [d_out, d_in]: [usize; 2], values: Vec<f32>) -> Step {
        Step { name: name.into(), action: Action::Matrix { d_out, d_in }, values }
    }

    /// Multiplication feature by feature.
    pub(crate) fn scale(name: &str, values: Vec<f32>) -> Step {
        Step { name: name.into(), action: Action::Scale, values }
    }

    /// Addition of a row.
    pub(crate) fn shift(name: &str, values: Vec<f32>) -> Step {
        Step { name: name.into(), action: Action::Shift, values }
    }

    /// The row after this step; values without a counterpart are dropped.
    pub(super) fn apply(&self, row: Vec<f64>) -> Vec<f64> {
        let pairs = |row: Vec<f64>| row.into_iter().zip(self.values.iter().map(|&v| f64::from(v)));
        match self.action {
            Action::Matrix { d_in, .. } => {
                let dot = |weights: &[f32]| {
                    weights.iter().zip(&row).map(|(&w, &v)| f64::from(w) * v).sum()
                };
                self.values.chunks_exact(d_in.max(1)).map(dot).collect()
            }
            Action::Scale => pairs(row).map(|(v, factor)| v * factor).collect(),
            Action::Shift => pairs(row).map(|(v, summand)| v + summand).collect(),
        }
    }

    /// The number of features after this step if `width` go in, or what does not fit.
    pub(super) fn width_after(&self, width: usize) -> Result<usize, String> {
        let (takes, gives, size) = match self.action {
            Action::Matrix { d_out, d_in } => (d_in, d_out, d_out.checked_mul(d_in)),
            Action::Scale | Action::Shift => {
                (self.values.len(), self.values.len(), Some(self.values.len()))
            }
        };
        if size != Some(self.values.len()) {
            return Err(format!(
                "{} has {} values, which is not its shape",
                self.name,
                self.values.len()
            ));
        }
        if takes != width || gives == 0 {
            return Err(format!(
                "{} goes from {takes} to {gives} features where {width} come in",
                self.name
            ));
        }
        Ok(gives)
    }
}
