//! Warns the owner of an adapter about costs and leaks of its map, before anything is published.
//!
//! Knows terms and layouts, not the graph that they came from.

use super::linear_map::Lowered;
use crate::{layout::Layout, linear_map::Term};

/// The warnings, most important first.
pub(in crate::ingest) fn warnings(lowered: &Lowered) -> Vec<String> {
    [constant_added_everywhere(lowered), mixed_rows(lowered), dense(lowered), positions(lowered)]
        .into_iter()
        .flatten()
        .collect()
}

/// The original ZKLoRA exporter adds `A.sum() + B.sum()` to every output.
fn constant_added_everywhere(lowered: &Lowered) -> Option<String> {
    let map = &lowered.map;
    let has_weights = map.terms.iter().any(|term| !matches!(term, Term::Bias { .. }));
    let constant = map.terms.iter().find_map(|term| match term {
        Term::Bias { b } => b.first().copied().filter(|first| b.iter().all(|value| value == first)),
        _ => None,
    })?;
    (has_weights && map.d_out > 1 && constant != 0.0).then(|| {
        format!(
            "`{}` adds one constant to every output, as the original ZKLoRA exporter does with the sum of all weights \
             (A.sum() + B.sum()): a user who sees the delta of a zero input learns that sum. Export the delta alone, for example \
             with `zklora export`",
            map.name
        )
    })
}

/// A mean over all rows joins them to one long row.
fn mixed_rows(lowered: &Lowered) -> Option<String> {
    let map = &lowered.map;
    (lowered.joined > 1).then(|| {
        format!(
            "`{}` mixes its {} rows (by a mean or sum over all of them), so one row of its map is a whole input of {} \
             values: every proof costs accordingly, and sessions must use exactly that many. Export the delta alone, for \
             example with `zklora export`",
            map.name,
            lowered.joined,
            map.inputs.first().map_or(0, |input| input.dim)
        )
    })
}

/// A matrix of full rank is committed to as that many pairs. If it is one matrix and no product,
/// one of its factors is an identity.
fn dense(lowered: &Lowered) -> Option<String> {
    let map = &lowered.map;
    let full = |term: &Term| match term {
        Term::LowRank { a, b, .. } if a.cols > 1 && a.cols >= a.rows.min(b.cols) => {
            Some((a.rows, a.cols, b.cols))
        }
        _ => None,
    };
    map.terms.iter().filter_map(full).max_by_key(|(d_in, rank, d_out)| rank * (d_in + d_out)).map(|(d_in, rank, d_out)| {
        format!(
            "`{}` has a dense matrix of {d_in} x {d_out}: it is committed to as {rank} pairs with {} integers, and commitments, \
             manifest and proofs cost accordingly. Instead of a base layer or a merged adapter, export the delta of the LoRA \
             matrices alone; an adapter whose rank is not below its features costs as much",
            map.name,
            rank * (d_in + d_out)
        )
    })
}

fn positions(lowered: &Lowered) -> Option<String> {
    let first = |layout: &Layout| *layout != Layout::FeaturesLast;
    let name = &lowered.map.name;
    if lowered.inputs.iter().any(first) {
        return Some(format!(
            "rows of `{name}` are the positions of an image and features its channels: give activations as \
             [batch * height * width, channels], that is, channels last; deltas are given like that too"
        ));
    }
    first(&lowered.output).then(|| {
        format!(
            "the graph of `{name}` puts the features of its output before the rows; deltas are given with features last"
        )
    })
}
