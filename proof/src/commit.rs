//! Commits to weights under masks, and audits delivered weights against a manifest
//! (docs/protocol.md, "Commitments" and "Audit").

use group::Group;
use rayon::prelude::*;
use zeroize::Zeroizing;

use crate::{
    Error,
    checked_manifest::CheckedManifest,
    column_msm::commit_columns,
    field::{F, G1, G1Affine, Secret, limbs},
    layout::{MASKS, columns_for, data_rows},
    manifest::{Manifest, Module, Point, commitments},
    masks::{MaskKey, Seed, Side},
    msm::to_affine,
    pairs::{Pair, Pairs},
    settings::Settings,
    srs::Srs,
    weights::{PairWeights, Weights},
};

/// One column to commit to, and where it belongs.
struct Column<'a> {
    module: usize,
    side: Side,
    j: usize,
    column: usize,
    piece: &'a [i32],
}

/// The columns of a vector.
fn columns_of<'a>(
    k: u32,
    pair: &Pair,
    side: Side,
    values: &'a [i32],
) -> impl Iterator<Item = Column<'a>> + use<'a> {
    let (module, j) = (pair.module, pair.index);
    let pieces = values.chunks(data_rows(k)).enumerate();
    pieces.map(move |(column, piece)| Column { module, side, j, column, piece })
}

/// The commitments of each pair: for each column, `Commit(piece at its rows, masks at u−2 and
/// u−1)`.
fn commit_pairs(
    srs: &Srs,
    modules: &[Module],
    k: u32,
    weights: &Weights,
    key: &MaskKey,
) -> Result<Vec<[Vec<Point>; 2]>, Error> {
    let pairs = Pairs::of(modules)?;
    let columns: Vec<Column<'_>> = pairs
        .iter()
        .zip(weights.pairs())
        .flat_map(|(pair, PairWeights { a, b })| {
            let columns = |side, values| columns_of(k, pair, side, values);
            columns(Side::A, a).chain(columns(Side::B, b))
        })
        .collect();
    let (data_bases, mask_bases) = srs.lagrange()[..data_rows(k) + MASKS].split_at(data_rows(k));
    let pieces: Vec<&[i32]> = columns.iter().map(|column| column.piece).collect();
    // Allocated whole: a vector that grows leaves copies of its secrets in memory.
    let mut masks = Secret(vec![F::default(); MASKS * columns.len()]);
    masks.par_chunks_exact_mut(MASKS).zip(&columns).for_each(|(masks, of)| {
        for (slot, mask) in (0u8..).zip(masks) {
            *mask = key.mask(of.module, of.side, of.j, of.column, slot);
        }
    });
    let mut masked = commit_columns(data_bases, &pieces);
    let mut mask_sums = commit_masks(mask_bases, &masks);
    masked.iter_mut().zip(&mask_sums).for_each(|(sum, masks)| *sum += masks);
    mask_sums.fill(G1::identity());
    std::hint::black_box(&mut mask_sums);
    let mut points = to_affine(&masked).into_iter().map(|point| Point::of(&point));
    let mut vector = |values: &[i32]| -> Vec<Point> {
        points.by_ref().take(columns_for(values.len(), k)).collect()
    };
    Ok(weights.pairs().iter().map(|PairWeights { a, b }| [vector(a), vector(b)]).collect())
}

/// `mask_0·L_{u−2} + mask_1·L_{u−1}` of each column. A mask is 16 integers of 16 bits, over the
/// bases times 1, 2^16, 2^32, ….
pub(crate) fn commit_masks(bases: &[G1Affine], masks: &[F]) -> Vec<G1> {
    const BITS: usize = 16;
    const PARTS: usize = 256 / BITS;
    let shifted = bases.iter().flat_map(|base| {
        let next = |point: &G1| Some((0..BITS).fold(*point, |point, _| point.double()));
        std::iter::successors(Some(G1::from(base)), next).take(PARTS)
    });
    let shifted = to_affine(&shifted.collect::<Vec<G1>>());
    let mut parts: Zeroizing<Vec<i64>> = Zeroizing::new(Vec::with_capacity(masks.len() * PARTS));
    for limb in masks.iter().flat_map(limbs) {
        parts.extend([0, 16, 32, 48].map(|bit| (limb >> bit & 0xffff) as i64));
    }
    commit_columns(&shifted, &parts.chunks_exact(MASKS * PARTS).collect::<Vec<_>>())
}

/// Fills in a manifest's digests and commitments. `draft` has k, the names, shapes, bit widths and
/// scales; its digests and commitments are overwritten. Returns the finished manifest, the
/// weights and the mask key (the opening).
///
/// # Errors
/// [`Error::Manifest`] if a shape, name or bit width breaks a rule; [`Error::Weights`] if the
/// integers do not fit.
pub fn commit(
    srs: &Srs,
    draft: &Manifest,
    pairs: Vec<PairWeights>,
    seed: &Seed,
) -> Result<(Manifest, Weights, MaskKey), Error> {
    let mut manifest = draft.clone();
    let srs = srs.at(manifest.k)?;
    manifest.srs_digest = srs.digest_hex();
    manifest.check_shapes()?;
    manifest.settings_digest =
        Settings::of(&Pairs::of(&manifest.modules)?, manifest.k)?.digest_hex()?;
    let weights = Weights::new(&manifest, pairs)?;
    let key = MaskKey::derive(seed, &manifest, &weights)?;
    let mut commitments =
        commit_pairs(srs, &manifest.modules, manifest.k, &weights, &key)?.into_iter();
    for term in manifest.modules.iter_mut().flat_map(|module| &mut module.terms) {
        term.a.clear();
        term.b.clear();
        for [a, b] in commitments.by_ref().take(term.rank) {
            if !a.is_empty() {
                term.a.push(a);
            }
            if !b.is_empty() {
                term.b.push(b);
            }
        }
    }
    Ok((manifest, weights, key))
}

/// Recomputes the commitments of delivered weights under the delivered mask key and compares them
/// with the manifest's. Returns the names of the modules that differ. If there are none, the
/// delivered integers are the committed ones.
pub fn audit(
    srs: &Srs,
    manifest: &CheckedManifest,
    weights: &Weights,
    key: &MaskKey,
) -> Result<Vec<String>, Error> {
    let srs = manifest.parameters(srs)?;
    // The commitments below skip integers of another shape and truncate wider ones.
    weights.check(manifest.modules())?;
    let delivered = commit_pairs(srs, manifest.modules(), manifest.contents().k, weights, key)?;
    let mut differing: Vec<usize> = commitments(manifest.modules())
        .zip(&delivered)
        .zip(manifest.pairs().iter())
        .filter(|(((a, b), [delivered_a, delivered_b]), _)| {
            *a != delivered_a.as_slice() || *b != delivered_b.as_slice()
        })
        .map(|(_, pair)| pair.module)
        .collect();
    differing.dedup();
    Ok(differing.into_iter().map(|m| manifest.modules()[m].name.clone()).collect())
}
