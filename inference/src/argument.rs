//! The steps of every proof of this crate, for both parties (docs/inference-proof.md, "The order of
//! messages").

use ff::Field;
use rayon::prelude::*;
use zklora_proof::{
    argument,
    checked_manifest::CheckedManifest,
    column_msm::commit_columns,
    field::{F, G1, G1Affine, Secret, inner_product, powers},
    framed::Framed,
    keys::{KeyStore, Keys},
    layout::{Layout, data_rows},
    masks::{MaskKey, Side},
    msm::to_affine,
    prover::commit_column,
    randomness::{Stream, Streams},
    relations::PublicColumns,
    srs::Srs,
};

#[cfg(test)]
use crate::attacks::rules;
use crate::{
    Error,
    channel::{Channel, combined_messages},
    claims::Claims,
    error::Check,
    fe::{Fe, Wiped, library},
    finish::{column, layout, opened, weights},
    fixed_base::FixedBase,
    integers::Grid,
    lookups::{Argument, Indices, Known},
    openings::{Columns, Folded, Opening, fold},
    proof::{Proof, affine},
    relations::{Relations, Rule},
    schedule::Schedule,
    tensors::{Catalog, PackId, Published, Source},
    values::Values,
};

/// What both parties know.
pub(crate) struct Shape<'a> {
    pub srs: &'a Srs,
    pub keys: &'a KeyStore,
    pub manifest: &'a CheckedManifest,
    pub schedule: &'a Schedule,
    /// Columns of earlier proofs.
    pub earlier: &'a [G1Affine],
}

/// What the prover knows.
pub(crate) struct Hidden<'a> {
    pub tensors: &'a [Grid],
    pub values: &'a Values,
    pub indices: &'a [Indices],
    pub mask_key: &'a MaskKey,
    /// The masks of columns of earlier proofs.
    pub earlier_masks: &'a [F],
}

/// A made proof.
pub(crate) struct Made {
    pub proof: Proof,
    /// The rules that the hidden values break: none for a true statement.
    pub violated: Vec<Rule>,
    /// For each pack, the masks of its columns.
    pub masks: Vec<Secret>,
}

impl Made {
    /// Whether the hidden values keep all rules. The verification of the proof would say so, too;
    /// this names the rule.
    pub fn check(&self) -> Result<(), Error> {
        match self.violated.first() {
            None => Ok(()),
            Some(rule) => Err(Error::Internal(format!("the hidden values break a rule: {rule:?}"))),
        }
    }
}

/// The state that the reduction of an operator's claims works on.
pub(crate) struct State<'s, 'c> {
    pub channel: &'s mut Channel<'c>,
    pub relations: &'s mut Relations,
    pub openings: &'s mut Vec<Opening>,
    pub claims: &'s mut Claims,
}

/// Lookups, operators and the fold: everything between the columns and T, U.
fn drive(
    shape: &Shape<'_>,
    channel: &mut Channel<'_>,
    hidden: Option<&Hidden<'_>>,
    reduce: impl FnOnce(State<'_, '_>) -> Result<(), Error>,
) -> Result<(Relations, Folded), Error> {
    let mut relations = Relations::default();
    let (mut openings, mut claims) = (Vec::new(), Claims::default());
    let Schedule { catalog, lookups, tables, .. } = shape.schedule;
    let known = hidden.map(|hidden| Known { tensors: hidden.tensors, values: hidden.values });
    let counted: Option<Vec<&Grid>> = hidden
        .map(|hidden| tables.iter().map(|table| &hidden.tensors[table.multiplicities]).collect());
    let indices = hidden.zip(counted.as_deref()).map(|(hidden, counted)| (hidden.indices, counted));
    Argument { catalog, lookups, tables }.run(
        channel,
        &mut relations,
        &mut openings,
        &mut claims,
        indices,
        known.as_ref(),
    )?;
    reduce(State {
        channel,
        relations: &mut relations,
        openings: &mut openings,
        claims: &mut claims,
    })?;
    if !claims.is_empty() {
        return Err(Error::Internal("a claim is left".into()));
    }
    let folded = match hidden {
        None => fold(channel, catalog, &openings, None)?,
        Some(hidden) => {
            let columns = |pack: PackId| columns_of(catalog, hidden.tensors, pack);
            let columns: &Columns<'_> = &columns;
            fold(channel, catalog, &openings, Some(columns))?
        }
    };
    Ok((relations, folded))
}

/// The columns of a pack: a row for each element.
fn columns_of(catalog: &Catalog, tensors: &[Grid], pack: PackId) -> Grid {
    #[cfg(test)]
    if let Some(columns) = rules::wide_columns(catalog, tensors, pack) {
        return columns;
    }
    let pack = &catalog.packs[pack];
    let mut cells = vec![0; pack.used * catalog.axes[pack.axis].len()];
    cells.par_chunks_mut(pack.used.max(1)).enumerate().for_each(|(element, column)| {
        for (tensor, piece) in &pack.tensors {
            let cells = &mut column[piece.row..piece.row + piece.count];
            let features = piece.first..piece.first + piece.count;
            match tensors[*tensor].small_row(element, features.clone()) {
                Some(row) => cells.copy_from_slice(row),
                None => cells.iter_mut().zip(features).for_each(|(cell, feature)| {
                    *cell = tensors[*tensor].low(element, feature) as i64;
                }),
            }
        }
    });
    Grid::small(pack.used, cells)
}

/// Columns that are committed to together.
const TOGETHER: usize = 5000;

/// Commitments to the columns of all tensors, with a fresh mask each, and the masks.
fn commit(
    shape: &Shape<'_>,
    hidden: &Hidden<'_>,
    masks: &mut Stream,
) -> (Vec<G1Affine>, Vec<Secret>) {
    let lagrange = shape.srs.lagrange();
    let catalog = &shape.schedule.catalog;
    let mask_base = FixedBase::new(&lagrange[data_rows(catalog.k)]);
    let mut commitments = Vec::new();
    let mut waiting: Vec<Grid> = Vec::new();
    let mut all: Vec<Secret> = Vec::new();
    for (at, pack) in catalog.packs.iter().enumerate() {
        let is_own = pack.source == Source::Proof;
        let elements = if is_own { catalog.axes[pack.axis].len() } else { 0 };
        all.push(Secret((0..elements).map(|_| masks.scalar()).collect()));
        if is_own {
            waiting.push(columns_of(catalog, hidden.tensors, at));
        }
        let is_last = at + 1 == catalog.packs.len();
        if is_last || waiting.iter().map(Grid::rows).sum::<usize>() >= TOGETHER {
            let columns: Vec<&[i64]> = waiting.iter().flat_map(Grid::small_rows).collect();
            commitments.extend(commit_columns(lagrange, &columns));
            waiting.clear();
        }
    }
    let masks = all.iter().flat_map(|masks| masks.iter()).collect::<Vec<_>>();
    commitments.par_iter_mut().zip(masks).for_each(|(commitment, mask)| {
        *commitment += mask_base.times(mask);
    });
    (to_affine(&commitments), all)
}

/// Makes a proof.
///
/// # Errors
/// Those of the steps.
pub(crate) fn prove(
    shape: &Shape<'_>,
    transcript: Framed,
    hidden: &Hidden<'_>,
    streams: Streams,
    reduce: impl FnOnce(State<'_, '_>) -> Result<(), Error>,
    change: &dyn Fn(&mut Channel<'_>),
) -> Result<Made, Error> {
    let Shape { srs, keys, .. } = *shape;
    let catalog = &shape.schedule.catalog;
    let k = catalog.k;
    let Streams { masks, mut fresh, mut nonces, library } = streams;
    let (columns, column_masks) = commit(shape, hidden, &mut fresh);
    let mut channel = Channel::prover(transcript, srs.lagrange(), k, masks);
    change(&mut channel);
    channel.absorb_points("columns", &points(&columns));
    let (relations, folded) = drive(shape, &mut channel, Some(hidden), reduce)?;
    let layout = layout(&channel, &relations, k);
    let keys = keys.get(srs, layout)?;

    // T, U and the blinders.
    let cells = channel.cells().unwrap_or(&[]);
    let mut x = Secret(opened_column(shape, hidden, &folded, &column_masks, &layout));
    let violated = violated(&relations, &folded, &x, cells);
    #[cfg(test)]
    let wished = rules::wished(&relations, cells);
    #[cfg(test)]
    let (said, cells) = (cells, wished.as_slice());
    let factor = |first: bool| -> Secret {
        let each = relations.products.iter();
        Secret(each.map(|(x, y)| if first { x.value(cells) } else { y.value(cells) }).collect())
    };
    let mut masked = |data: &[F]| -> Vec<Secret> {
        let mut pieces: Vec<&[F]> = data.chunks(layout.data_rows()).collect();
        pieces.resize(layout.pair_columns, &[]);
        let each = pieces.into_iter();
        each.map(|piece| column(&layout, piece, [nonces.scalar(), nonces.scalar()])).collect()
    };
    let (first, second) = (factor(true), factor(false));
    #[cfg(test)]
    let first = rules::bend(&relations, cells, first);
    let (t, u) = (masked(&first), masked(&second));
    let blinders: Vec<Secret> = (0..=layout.b_columns)
        .map(|_| column(&layout, &[], [nonces.scalar(), nonces.scalar()]))
        .collect();
    #[cfg(test)]
    let blinders = {
        let mut blinders = blinders;
        for (at, blinder) in blinders.iter_mut().enumerate() {
            let data = match at < layout.b_columns {
                true => rules::of_column(at, &channel.slots, said, cells),
                false => rules::of_opening(&folded, &x, said),
            };
            blinder.iter_mut().zip(data).for_each(|(cell, data)| *cell += data);
        }
        blinders
    };
    let commit = |columns: &[Secret]| -> Vec<G1> {
        columns.iter().map(|column| commit_column(srs, column)).collect()
    };
    let (c_t, c_u, c_d) = (commit(&t), commit(&u), commit(&blinders));
    let last = Last::draw(&mut channel, &keys, [&c_t, &c_u, &c_d], (&relations, &folded), &layout)?;
    let Last { chi, powers, public } = last;

    // The columns W and X.
    let rows = layout.data_rows();
    let mut w: Vec<Secret> =
        (0..layout.b_columns).map(|_| Secret(vec![F::ZERO; layout.usable()])).collect();
    let in_columns: Vec<usize> = channel.messages.iter().map(|(column, _)| *column).collect();
    let slots = std::mem::take(&mut channel.slots);
    if let Some(prover) = channel.as_prover() {
        for (slot, cell) in slots.iter().zip(prover.cells.iter()) {
            w[slot.column][slot.row] += powers[slot.message] * cell;
        }
        for ((column, mask), power) in
            in_columns.iter().zip(prover.message_masks.iter()).zip(&powers[1..])
        {
            w[*column][rows] += *power * mask;
        }
    }
    for (w, d) in w.iter_mut().zip(&blinders) {
        w.iter_mut().zip(d.iter()).for_each(|(w, d)| *w += d);
    }
    if let Some(d) = blinders.last() {
        let factor = of_blinder(chi);
        x.iter_mut().zip(d.iter()).for_each(|(x, d)| *x += factor * d);
    }
    let all: Vec<Secret> = t.into_iter().chain(u).chain(w).chain([x]).collect();
    let all = argument::Columns { values: &all, commitments: &[c_t.as_slice(), &c_u].concat() };
    let argument = argument::prove(srs, &keys, all, &public, channel.finish(), library)?;
    let messages: Vec<G1> = channel.messages.iter().map(|(_, point)| *point).collect();
    let proof = Proof {
        columns,
        messages: affine(&messages),
        t: affine(&c_t),
        u: affine(&c_u),
        blinders: affine(&c_d),
        argument,
    };
    Ok(Made { proof, violated, masks: column_masks })
}

/// The rules that do not hold.
fn violated(relations: &Relations, folded: &Folded, x: &[F], cells: &[F]) -> Vec<Rule> {
    let mut violated = relations.violated(cells);
    if inner_product(&x[..folded.inner.len()], &folded.inner) != folded.value.value(cells) {
        violated.push(Rule::Opening);
    }
    violated
}

/// The last challenges, and what both parties make of them.
struct Last {
    chi: F,
    /// Of what tells messages apart: one for each message, after 1.
    powers: Vec<F>,
    public: PublicColumns,
}

impl Last {
    /// Absorbs the key and T, U and the blinders, and draws χ and η.
    fn draw(
        channel: &mut Channel<'_>,
        keys: &Keys,
        [t, u, d]: [&[G1]; 3],
        (relations, folded): (&Relations, &Folded),
        layout: &Layout,
    ) -> Result<Last, Error> {
        channel.absorb("vk", &keys.fingerprint().to_bytes_le());
        channel.absorb_points("T", t);
        channel.absorb_points("U", u);
        channel.absorb_points("D", d);
        let (chi, eta) = (channel.challenge("chi"), channel.challenge("eta"));
        if chi == F::ZERO {
            return Err(Error::Rejected(Check::Public));
        }
        let apart = of_messages(chi);
        let sum = weights(relations, folded, &channel.slots, layout.k, apart, eta);
        let public = PublicColumns::lay_out(layout, &sum);
        Ok(Last { chi, powers: powers(apart, channel.messages.len() + 1), public })
    }
}

/// What tells messages apart: χ.
fn of_messages(chi: F) -> F {
    #[cfg(test)]
    if rules::is_off(rules::Broken::Apart) {
        return F::ONE;
    }
    chi
}

/// The weight of X's blinder: χ.
fn of_blinder(chi: F) -> F {
    #[cfg(test)]
    if rules::is_off(rules::Broken::Blinder) {
        return F::ONE;
    }
    chi
}

/// X with its masks, without its blinder.
fn opened_column(
    shape: &Shape<'_>,
    hidden: &Hidden<'_>,
    folded: &Folded,
    masks: &[Secret],
    layout: &Layout,
) -> Vec<F> {
    let rows = layout.data_rows();
    let pairs: Vec<_> = shape.manifest.pairs().iter().collect();
    let mut x = Wiped(vec![Fe::ZERO; rows]);
    let mut of_masks = [F::ZERO; 2];
    let catalog = &shape.schedule.catalog;
    for (at, (pack, weights)) in catalog.packs.iter().zip(&folded.weights).enumerate() {
        if weights.iter().all(|weight| *weight == F::ZERO) {
            continue;
        }
        let columns = columns_of(catalog, hidden.tensors, at);
        let sum = columns.fold(weights, 0..columns.columns);
        x.iter_mut().zip(sum.iter()).for_each(|(x, sum)| *x += *sum);
        match &pack.source {
            Source::Proof => of_masks[0] += inner_product(weights, &masks[at]),
            Source::Earlier(index) => {
                let mask = hidden.earlier_masks.get(*index).copied().unwrap_or_default();
                of_masks[0] += weights[0] * mask;
            }
            Source::Manifest(published) => {
                for (published, weight) in published.iter().zip(weights) {
                    let Published { pair, is_b, column } = *published;
                    let side = if is_b { Side::B } else { Side::A };
                    let pair = pairs[pair];
                    for (slot, sum) in (0..2u8).zip(&mut of_masks) {
                        let mask =
                            hidden.mask_key.mask(pair.module, side, pair.index, column, slot);
                        *sum += *weight * mask;
                    }
                }
            }
        }
    }
    let mut x = library(&x);
    x.resize(layout.usable(), F::ZERO);
    x[rows..].iter_mut().zip(of_masks).for_each(|(x, mask)| *x += mask);
    x
}

/// A proof up to T and U, without commitments to columns: for tests of many changes.
#[cfg(test)]
pub(crate) struct Trial {
    pub relations: Relations,
    pub folded: Folded,
    pub cells: Vec<F>,
    pub slots: Vec<crate::channel::Slot>,
    /// The data of X.
    pub x: Vec<F>,
}

#[cfg(test)]
impl Trial {
    /// The rules that do not hold, each once.
    pub fn violated(&self, cells: &[F]) -> Vec<Rule> {
        let mut violated = violated(&self.relations, &self.folded, &self.x, cells);
        violated.sort();
        violated.dedup();
        violated
    }
}

#[cfg(test)]
pub(crate) fn trial(
    shape: &Shape<'_>,
    transcript: Framed,
    hidden: &Hidden<'_>,
    streams: Streams,
    reduce: impl FnOnce(State<'_, '_>) -> Result<(), Error>,
    change: &dyn Fn(&mut Channel<'_>),
) -> Result<Trial, Error> {
    let Streams { masks, mut fresh, .. } = streams;
    let catalog = &shape.schedule.catalog;
    let mut channel = Channel::prover(transcript, shape.srs.lagrange(), catalog.k, masks);
    change(&mut channel);
    channel.absorb("columns", &fresh.scalar().to_bytes_le());
    let (relations, folded) = drive(shape, &mut channel, Some(hidden), reduce)?;
    let masks = catalog.packs.iter().map(|pack| vec![F::ZERO; catalog.axes[pack.axis].len()]);
    let masks: Vec<Secret> = masks.map(Secret).collect();
    let layout = layout(&channel, &relations, catalog.k);
    let x = opened_column(shape, hidden, &folded, &masks, &layout);
    let cells = channel.cells().unwrap_or(&[]).to_vec();
    Ok(Trial { relations, folded, cells, slots: channel.slots.clone(), x })
}

fn points(affine: &[G1Affine]) -> Vec<G1> {
    affine.iter().map(G1::from).collect()
}

/// Verifies a proof.
///
/// # Errors
/// [`Error::Malformed`], [`Error::Rejected`].
pub(crate) fn verify(
    shape: &Shape<'_>,
    transcript: Framed,
    proof: &Proof,
    reduce: impl FnOnce(State<'_, '_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let Shape { srs, keys, manifest, .. } = *shape;
    let catalog = &shape.schedule.catalog;
    let k = catalog.k;
    let mut channel = Channel::verifier(transcript, &proof.messages, k);
    channel.absorb_points("columns", &points(&proof.columns));
    let (relations, folded) = drive(shape, &mut channel, None, reduce)?;
    if channel.left() != 0 {
        return Err(Error::malformed("messages", format!("{} too many", channel.left())));
    }
    let layout = layout(&channel, &relations, k);
    let counts = (proof.t.len(), proof.u.len(), proof.blinders.len());
    if counts != (layout.pair_columns, layout.pair_columns, layout.b_columns + 1) {
        return Err(Error::malformed("T", "its columns are not those of the statement"));
    }
    let keys = keys.get(srs, layout)?;
    let (t, u, d) = (points(&proof.t), points(&proof.u), points(&proof.blinders));
    let last = Last::draw(&mut channel, &keys, [&t, &u, &d], (&relations, &folded), &layout)?;
    let Last { chi, powers, public } = last;
    let (blinder_x, blinders) =
        d.split_last().ok_or_else(|| Error::malformed("blinders", "there is none"))?;
    let w = combined_messages(&channel.messages, &powers, layout.b_columns);
    let w = w.into_iter().zip(blinders).map(|(w, d)| w + d);
    let x = opened(catalog, &folded, manifest, &proof.columns, shape.earlier);
    let x = x + *blinder_x * of_blinder(chi);
    let commitments: Vec<G1> = t.into_iter().chain(u).chain(w).chain([x]).collect();
    argument::verify(srs, &keys, &commitments, &public, channel.finish(), &proof.argument)?;
    Ok(())
}
