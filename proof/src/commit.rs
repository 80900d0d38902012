//! Commits to weights under masks, and audits delivered weights against a manifest
//! (docs/protocol.md, "Commitments" and "Audit").

use group::{Curve, GroupEncoding};
use rayon::prelude::*;

use crate::{
    Error,
    checked_manifest::CheckedManifest,
    field::G1,
    layout::data_rows,
    manifest::{Manifest, Module, Point, commitments},
    masks::{MaskKey, Seed, Side},
    msm::{msm, small_msm},
    pairs::Pairs,
    settings::Settings,
    srs::Srs,
    weights::{PairWeights, Weights},
};

/// One vector to commit to, and where it belongs.
struct Vector<'a> {
    module: usize,
    side: Side,
    j: usize,
    values: &'a [i32],
    bits: u32,
}

/// The commitment to one column: `Commit(piece at its rows, masks at u−2 and u−1)`.
fn commit_column(
    srs: &Srs,
    k: u32,
    key: &MaskKey,
    vector: &Vector<'_>,
    column: usize,
    piece: &[i32],
) -> Point {
    let lagrange = srs.lagrange();
    let rows = data_rows(k);
    let data = small_msm(&lagrange[..piece.len()], piece, vector.bits - 1);
    let masks = [0u8, 1].map(|slot| key.mask(vector.module, vector.side, vector.j, column, slot));
    let commitment: G1 = data + msm(&lagrange[rows..rows + 2], &masks);
    let mut bytes = [0u8; 48];
    bytes.copy_from_slice(commitment.to_affine().to_bytes().as_ref());
    Point(bytes)
}

fn commit_vector(srs: &Srs, k: u32, key: &MaskKey, vector: &Vector<'_>) -> Vec<Point> {
    vector
        .values
        .chunks(data_rows(k))
        .enumerate()
        .map(|(column, piece)| commit_column(srs, k, key, vector, column, piece))
        .collect()
}

fn commit_pairs(
    srs: &Srs,
    modules: &[Module],
    k: u32,
    weights: &Weights,
    key: &MaskKey,
) -> Result<Vec<[Vec<Point>; 2]>, Error> {
    let pairs = Pairs::of(modules)?;
    let work: Vec<_> = pairs.iter().zip(weights.pairs()).collect();
    Ok(work
        .par_iter()
        .map(|(pair, PairWeights { a, b })| {
            let module = &modules[pair.module];
            let vector = |side, values, bits| Vector {
                module: pair.module,
                side,
                j: pair.index,
                values,
                bits,
            };
            [
                commit_vector(srs, k, key, &vector(Side::A, a, module.a_bits)),
                commit_vector(srs, k, key, &vector(Side::B, b, module.b_bits)),
            ]
        })
        .collect())
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
