//! Turns the affine expression of the output into a [`LinearMap`] and the layouts of its rows in
//! the graph's tensors.
//!
//! Checks the requirements on a module as a whole. Knows neither operators nor weights.

use tract_onnx::tract_core::internal::TDim;

use super::terms::scaled_terms;
use crate::{
    ingest::{
        affine::{
            axes::{Atom, Space, concrete_extent, offsets, tile},
            expression::Affine,
        },
        error::{IngestError, PRODUCT, Reason},
    },
    layout::Layout,
    linear_map::{InputSpec, LinearMap},
};

/// A map and the layouts of its rows.
pub(in crate::ingest) struct Lowered {
    pub map: LinearMap,
    pub inputs: Vec<Layout>,
    pub output: Layout,
    /// Most rows of the graph that are one row of the map.
    pub joined: usize,
}

/// Lowers the expression of the output of a graph with these inputs.
pub(in crate::ingest) fn lower(
    affine: Affine,
    inputs: &[String],
    name: &str,
) -> Result<Lowered, IngestError> {
    let refuse = |what: String| IngestError::Graph { name: name.into(), what };
    let said = |reason: Reason| match reason {
        Reason::NotLinear(what) | Reason::TooMuch(what) => refuse(what),
        Reason::Product => refuse(PRODUCT.into()),
        Reason::NonFinite(_) => refuse("a product of weights is not finite".into()),
        Reason::Internal(what) => IngestError::Internal { name: name.into(), what },
    };
    let (output, affine) = output_layout(affine).map_err(said)?;
    let width = affine.width;
    let terms = scaled_terms(affine, inputs.len()).map_err(said)?;
    if let Some((unused, _)) = inputs.iter().zip(&terms.rows).find(|(_, rows)| rows.dim == 0) {
        return Err(refuse(format!(
            "the output does not depend on input `{unused}`; remove that input from the export"
        )));
    }
    let joined = terms.rows.iter().map(|rows| rows.joined).max().unwrap_or(1);
    let layouts = terms.rows.iter().map(|rows| Layout::with_positions(rows.positions)).collect();
    let inputs = inputs.iter().zip(&terms.rows);
    let inputs =
        inputs.map(|(name, rows)| InputSpec { name: name.clone(), dim: rows.dim }).collect();
    let map = LinearMap {
        name: name.into(),
        inputs,
        d_out: width,
        scale: terms.scale,
        terms: terms.terms,
    };
    map.check()
        .map_err(|error| IngestError::Internal { name: name.into(), what: error.to_string() })?;
    Ok(Lowered { map, inputs: layouts, output, joined })
}

/// Checks that the output's buffer holds all rows in the order of the input, each with all its
/// features, up to positions. Puts the features into the order of the buffer.
fn output_layout(affine: Affine) -> Result<(Layout, Affine), Reason> {
    let transposed = || {
        Reason::new(
            "its output is transposed: rows must come in the order of the input, with all features of each together; leave out the \
             last Transpose",
        )
    };
    let atoms = affine.axes.flat();
    let is_feature = |atom: &Atom| atom.space == Space::Feature;
    let features: Vec<Atom> = atoms.iter().filter(|atom| is_feature(atom)).cloned().collect();
    let (before, rest) = atoms.split_at(atoms.iter().position(is_feature).unwrap_or(atoms.len()));
    let (together, after) = rest.split_at(features.len());
    if !together.iter().all(is_feature) || !tile(&features, affine.width) {
        return Err(transposed());
    }
    let positions = concrete_extent(after).ok_or_else(|| {
        Reason::new("its output has a symbolic number of positions; export with fixed ones")
    })?;
    let stride = TDim::from(i64::try_from(positions).map_err(|_| transposed())?);
    let in_order = |rows: &[Atom], stride: &TDim| match rows {
        [] => true,
        [row] => row.stride == *stride,
        _ => false,
    };
    if !in_order(before, &stride) || !in_order(after, &TDim::from(1)) {
        return Err(transposed());
    }
    let affine = if features.len() > 1 {
        let order = offsets(&features).ok_or_else(transposed)?;
        let columns: Vec<_> = order.into_iter().map(Some).collect();
        affine.selected(columns)?
    } else {
        affine
    };
    Ok((Layout::with_positions(positions), affine))
}
