//! From relations to one halo2 proof (docs/inference-proof.md, "Relations").

use ff::Field;
use group::Group;
use zklora_proof::{
    checked_manifest::CheckedManifest,
    field::{F, G1, G1Affine, Secret, powers},
    layout::{Layout, columns_for, data_rows},
    msm::msm,
    relations::CellWeights,
};

use crate::{
    cells::Expression,
    channel::{Channel, Slot},
    openings::Folded,
    relations::Relations,
    tensors::{Catalog, Source},
};

/// The columns of the halo2 proof.
pub(crate) fn layout(channel: &Channel<'_>, relations: &Relations, k: u32) -> Layout {
    Layout {
        a_columns: 1,
        b_columns: channel.columns(),
        k,
        pair_columns: columns_for(relations.products.len(), k).max(1),
        rounds: 0,
    }
}

/// All relations, added up with powers of η, as weights on the columns.
pub(crate) fn weights(
    relations: &Relations,
    folded: &Folded,
    slots: &[Slot],
    k: u32,
    chi: F,
    eta: F,
) -> CellWeights {
    let rows = data_rows(k);
    let inverse = Option::<F>::from(chi.invert()).unwrap_or(F::ZERO);
    let messages = slots.last().map_or(0, |slot| slot.message);
    let inverses = powers(inverse, messages + 1);
    let columns = slots.last().map_or(0, |slot| slot.column) + 1;
    let places = relations.products.len();
    let mut sum = CellWeights {
        t: vec![F::ZERO; places],
        u: vec![F::ZERO; places],
        e: vec![F::ZERO; places],
        b: vec![F::ZERO; columns * rows],
        ..CellWeights::default()
    };
    let mut power = F::ONE;
    let add = |sum: &mut CellWeights, expression: &Expression, factor: F| {
        for (cell, coefficient) in &expression.terms {
            let Slot { message, column, row } = slots[cell.0];
            sum.b[column * rows + row] += *coefficient * factor * inverses[message];
        }
        sum.constant -= expression.constant * factor;
    };
    for (place, (x, y)) in relations.products.iter().enumerate() {
        #[cfg(test)]
        if crate::attacks::rules::is_off(crate::attacks::rules::Broken::Pinned) {
            continue;
        }
        sum.t[place] += power;
        add(&mut sum, x, -power);
        power *= eta;
        sum.u[place] += power;
        add(&mut sum, y, -power);
        power *= eta;
    }
    for relation in &relations.zero {
        add(&mut sum, &relation.linear, power);
        for (factor, place) in &relation.products {
            sum.e[*place] += *factor * power;
        }
        power *= eta;
    }
    sum.a = folded.inner.iter().map(|weight| *weight * power).collect();
    add(&mut sum, &folded.value, -power);
    sum
}

/// X without its blinder: the columns' commitments with the weights of the openings.
pub(crate) fn opened(
    catalog: &Catalog,
    folded: &Folded,
    manifest: &CheckedManifest,
    columns: &[G1Affine],
    earlier: &[G1Affine],
) -> G1 {
    let (mut points, mut scalars) = (Vec::new(), Vec::new());
    let mut own = columns.iter();
    for (pack, weights) in catalog.packs.iter().zip(&folded.weights) {
        match &pack.source {
            Source::Proof => points.extend(own.by_ref().take(weights.len())),
            Source::Earlier(index) => points.extend(earlier.get(*index)),
            Source::Manifest(published) => points.extend(published.iter().filter_map(|at| {
                let pair = manifest.points().get(at.pair)?;
                if at.is_b { pair.b.get(at.column) } else { pair.a.get(at.column) }.copied()
            })),
        }
        scalars.extend_from_slice(weights);
    }
    if points.is_empty() { G1::identity() } else { msm(&points, &scalars) }
}

/// A column of data and two masks.
pub(crate) fn column(layout: &Layout, data: &[F], masks: [F; 2]) -> Secret {
    let mut column = Vec::with_capacity(layout.usable());
    column.extend_from_slice(data);
    column.resize(layout.data_rows(), F::ZERO);
    column.extend(masks);
    Secret(column)
}
