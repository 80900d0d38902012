//! The layout of a map's rows and features in a tensor of the ONNX graph.
//!
//! Knows shapes only. The rest of the crate works on rows; this converts tensors to rows and back.

/// How a tensor's row-major buffer is divided into rows of features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
#[non_exhaustive]
pub enum Layout {
    /// `[…rows…, features]`: a row's features are neighbours, as in linear layers.
    #[default]
    FeaturesLast,
    /// `[batch, features, …positions…]`: row `batch * positions + position` has the values of the
    /// tensor at that position, as in convolutions with a kernel of size 1.
    FeaturesFirst {
        /// Number of positions (height times width).
        positions: usize,
    },
}

impl Layout {
    /// The layout in which this many neighbouring values belong to one feature.
    pub(crate) fn with_positions(positions: usize) -> Self {
        if positions == 1 { Self::FeaturesLast } else { Self::FeaturesFirst { positions } }
    }

    /// The tensor's values as rows of `dim` features each; an incomplete last block is dropped.
    #[must_use]
    pub fn rows_of<T: Copy>(self, tensor: &[T], dim: usize) -> Vec<T> {
        match self {
            Self::FeaturesLast => tensor.to_vec(),
            Self::FeaturesFirst { positions } => transpose_blocks(tensor, dim, positions),
        }
    }

    /// The tensor whose rows of `dim` features are these: the inverse of [`Layout::rows_of`].
    #[must_use]
    pub fn tensor_of<T: Copy>(self, rows: &[T], dim: usize) -> Vec<T> {
        match self {
            Self::FeaturesLast => rows.to_vec(),
            Self::FeaturesFirst { positions } => transpose_blocks(rows, positions, dim),
        }
    }
}

/// Transposes every `outer x inner` block.
fn transpose_blocks<T: Copy>(values: &[T], outer: usize, inner: usize) -> Vec<T> {
    let mut transposed = Vec::with_capacity(values.len());
    for block in values.chunks_exact(outer.saturating_mul(inner).max(1)) {
        for i in 0..inner {
            transposed.extend((0..outer).map(|o| block[o * inner + i]));
        }
    }
    transposed
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
