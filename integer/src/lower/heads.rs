//! Recognises which features of which value each head of attention reads, and how they are rotated.

use super::view::{Cell, Source, Term, Wave};
use crate::graph::{Rotation, ValueId};

/// The cells of every head.
pub(super) type HeadCells = Vec<Vec<Cell>>;

/// What the heads of a tensor read.
#[derive(Debug, Clone)]
pub(super) struct Heads {
    pub source: Source,
    /// The operator, once it is known.
    pub value: ValueId,
    /// The first feature.
    pub from: usize,
    /// Features of a head.
    pub size: usize,
    /// For each head, which block of `size` features it reads.
    pub groups: Vec<usize>,
    pub rotations: Option<Vec<Rotation>>,
    pub factor: f64,
}

/// Reads what heads are.
pub(super) fn heads(cells: &HeadCells) -> Result<Heads, String> {
    let what = || "queries, keys or values in an unknown form".to_string();
    let first = cells.first().ok_or_else(what)?;
    let size = first.len();
    let main = |cell: &Cell| cell.iter().copied().find(|term| !is_sine(term));
    let lead = first.first().and_then(main).ok_or_else(what)?;
    let (source, factor) = (lead.source, lead.factor);
    let mut starts = Vec::with_capacity(cells.len());
    let mut rotations: Option<Vec<Rotation>> = None;
    for head in cells {
        let start = head.first().and_then(main).ok_or_else(what)?.feature;
        let found: Vec<Rotation> = head
            .iter()
            .enumerate()
            .map(|(at, cell)| rotation(cell, at, start, size, source, factor))
            .collect::<Option<_>>()
            .ok_or_else(what)?;
        if head.len() != size || rotations.as_ref().is_some_and(|known| *known != found) {
            return Err(what());
        }
        rotations = Some(found);
        starts.push(start);
    }
    let rotations = rotations.ok_or_else(what)?;
    check_pairs(&rotations).ok_or_else(what)?;
    let from = starts.iter().copied().min().unwrap_or(0);
    if starts.iter().any(|start| (start - from) % size != 0) {
        return Err(what());
    }
    let groups = starts.iter().map(|start| (start - from) / size).collect();
    let turned = rotations.iter().enumerate().any(|(at, rotation)| rotation.partner != at);
    Ok(Heads {
        source,
        value: 0,
        from,
        size,
        groups,
        rotations: turned.then_some(rotations),
        factor,
    })
}

fn is_sine(term: &Term) -> bool {
    matches!(term.wave, Some(Wave::Sine(_)))
}

/// How cell `at` of a head that begins at feature `start` is rotated.
fn rotation(
    cell: &Cell,
    at: usize,
    start: usize,
    size: usize,
    source: Source,
    factor: f64,
) -> Option<Rotation> {
    if cell.iter().any(|term| term.source != source) {
        return None;
    }
    match cell[..] {
        [Term { wave: None, factor: own, feature, .. }] => {
            (own == factor && feature == start + at).then(|| Rotation::none(at))
        }
        [first, second] => {
            let (cosine, sine) = if is_sine(&first) { (second, first) } else { (first, second) };
            let (Some(Wave::Cosine(frequency)), Some(Wave::Sine(same))) = (cosine.wave, sine.wave)
            else {
                return None;
            };
            let partner = sine.feature.checked_sub(start).filter(|partner| *partner < size)?;
            let fits = frequency == same
                && partner != at
                && cosine.factor == factor
                && sine.factor.abs() == factor.abs()
                && cosine.feature == start + at
                && f64::from(frequency as f32) == frequency;
            let negative = sine.factor != factor;
            fits.then_some(Rotation { partner, frequency: frequency as f32, negative })
        }
        _ => None,
    }
}

/// Every rotated feature belongs to one pair, whose members turn against each other.
fn check_pairs(rotations: &[Rotation]) -> Option<()> {
    for (at, rotation) in rotations.iter().enumerate() {
        let other = rotations.get(rotation.partner)?;
        let is_pair = other.partner == at
            && other.frequency == rotation.frequency
            && other.negative != rotation.negative;
        if rotation.partner != at && !is_pair {
            return None;
        }
    }
    Some(())
}
