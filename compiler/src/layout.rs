//! Where the rows and features of a map are in a tensor.
//!
//! Knows shapes only. Everything else in the crate works on rows; this is for whoever holds the
//! tensor of the ONNX graph.

/// How the row-major buffer of a tensor is made of rows of features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
#[non_exhaustive]
pub enum Layout {
    /// `[…rows…, features]`: a row's features are neighbours. Linear layers.
    #[default]
    FeaturesLast,
    /// `[batch, features, …positions…]`: row `batch * positions + position` is what the tensor
    /// holds at that position. Convolutions with a kernel of size 1.
    FeaturesFirst {
        /// Number of positions (height times width).
        positions: usize,
    },
}

impl Layout {
    /// The layout with this many neighbouring values that belong to one feature.
    pub(crate) fn with_positions(positions: usize) -> Self {
        if positions == 1 { Self::FeaturesLast } else { Self::FeaturesFirst { positions } }
    }

    /// The tensor's values as rows of `dim` features each; an incomplete last block of the tensor
    /// is left out.
    #[must_use]
    pub fn rows_of<T: Copy>(self, tensor: &[T], dim: usize) -> Vec<T> {
        match self {
            Self::FeaturesLast => tensor.to_vec(),
            Self::FeaturesFirst { positions } => swap(tensor, dim, positions),
        }
    }

    /// The tensor whose rows of `dim` features are these: the inverse of [`Layout::rows_of`].
    #[must_use]
    pub fn tensor_of<T: Copy>(self, rows: &[T], dim: usize) -> Vec<T> {
        match self {
            Self::FeaturesLast => rows.to_vec(),
            Self::FeaturesFirst { positions } => swap(rows, positions, dim),
        }
    }
}

/// Transposes every `outer x inner` block.
fn swap<T: Copy>(values: &[T], outer: usize, inner: usize) -> Vec<T> {
    let mut swapped = Vec::with_capacity(values.len());
    for block in values.chunks_exact(outer.saturating_mul(inner).max(1)) {
        for i in 0..inner {
            swapped.extend((0..outer).map(|o| block[o * inner + i]));
        }
    }
    swapped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_of_an_image_become_rows_and_go_back() {
        let layout = Layout::FeaturesFirst { positions: 3 };
        // Two images of two channels and three positions.
        let image = [1, 2, 3, 10, 20, 30, 4, 5, 6, 40, 50, 60];
        let rows = layout.rows_of(&image, 2);
        assert_eq!(rows, [1, 10, 2, 20, 3, 30, 4, 40, 5, 50, 6, 60]);
        assert_eq!(layout.tensor_of(&rows, 2), image);
        assert_eq!(Layout::FeaturesLast.rows_of(&image, 2), image);
    }
}
