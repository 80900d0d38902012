//! Projects the trace: random combinations of its rows (docs/protocol.md, "Steps", step 2).
//!
//! `ρ` has 128 bits for each row. Both parties compute the projection. It is the only reading of
//! the rows after the challenges exist; the reading before them checks and digests the rows
//! (`trace`). The prover reads rows in memory once more, to recompute their deltas (`prover`).

use std::ops::Range;

use rayon::prelude::*;

use crate::{
    Error,
    checked_manifest::CheckedManifest,
    field::{F, from_parts_of_32_bits, inner_product, powers},
    manifest::Module,
    row_source::{self, Piece},
    row_sums::{self, LIMBS, RowWeight, STRIPE, Stripe},
    rows::MAX_ROWS,
    trace::Trace,
    transcript::FirstChallenges,
};

// The sums of all rows fit an `i128`: a delta is below 2^63, a limb below 2^32.
const _: () = assert!(63 + 32 + MAX_ROWS.ilog2() < 127);

/// The 128-bit weights of some rows of module `module`, as 32-bit limbs, least significant first.
pub fn row_weights(rho_key: &[u8; 32], module: usize, rows: Range<usize>) -> Vec<RowWeight> {
    let mut hasher = blake3::Hasher::new_keyed(rho_key);
    hasher.update(&(module as u64).to_le_bytes());
    let mut stream = hasher.finalize_xof();
    stream.set_position(rows.start as u64 * 16);
    let mut bytes = vec![0u8; rows.len() * 16];
    stream.fill(&mut bytes);
    bytes
        .chunks_exact(16)
        .map(|row| {
            let mut limbs = [0u32; LIMBS];
            for (limb, word) in limbs.iter_mut().zip(row.chunks_exact(4)) {
                *limb = word.iter().rev().fold(0, |value, byte| (value << 8) | u32::from(*byte));
            }
            limbs
        })
        .collect()
}

/// `Σ_l ρ_l·row_l` of rows that arrive in pieces: for each feature, a sum for each limb of `ρ`.
#[derive(Debug, Default)]
pub struct Sums(Vec<[i128; LIMBS]>);

/// Rows that one thread sums at a time.
const BLOCK: usize = 2048;

impl Sums {
    /// Adds rows of `dim` integers below 2^23 in magnitude.
    pub fn add_inputs(&mut self, rho: &[RowWeight], x: &[i32], dim: usize) {
        self.add(rho, x, dim, row_sums::of_inputs);
    }

    /// Adds rows of `dim` integers below 2^`bits` in magnitude.
    pub fn add_deltas(&mut self, rho: &[RowWeight], d: &[i64], dim: usize, bits: u32) {
        self.add(rho, d, dim, |rho, d, stripe| row_sums::of_deltas(rho, d, bits, stripe));
    }

    fn add<T: Sync>(
        &mut self,
        rho: &[RowWeight],
        rows: &[T],
        dim: usize,
        sum: impl Fn(&[RowWeight], &[T], Stripe) -> Vec<[i128; LIMBS]> + Sync,
    ) {
        self.0.resize(dim, [0; LIMBS]);
        self.0.par_chunks_mut(STRIPE).enumerate().for_each(|(at, totals)| {
            let stripe = Stripe { dim, first: at * STRIPE, width: totals.len() };
            let blocks = rho.par_chunks(BLOCK).zip(rows.par_chunks(BLOCK * dim));
            let sums: Vec<_> = blocks.map(|(rho, rows)| sum(rho, rows, stripe)).collect();
            for sum in sums {
                for (total, addend) in totals.as_flattened_mut().iter_mut().zip(sum.as_flattened())
                {
                    *total += addend;
                }
            }
        });
    }

    /// The sums as field elements. Empty if there were no rows.
    pub fn finish(&self) -> Vec<F> {
        self.0.par_iter().with_min_len(STRIPE).map(from_parts_of_32_bits).collect()
    }
}

/// The public values that the relations need. Each party computes them from its own trace.
#[derive(Debug, Clone)]
pub struct Projection {
    /// `v_g` for each group.
    pub groups: Vec<Vec<F>>,
    /// `Σ_l ρ_l·w_l` for each module (zero where there is no bias).
    pub ones: Vec<F>,
    /// `1, γ, γ², …`, as long as the longest output.
    pub gamma: Vec<F>,
    /// `c^m` for each module.
    pub c: Vec<F>,
    /// `δ = Σ_m c^m·ρ_mᵀ D_m γ⃗`.
    pub delta: F,
}

impl Projection {
    /// Reads the trace and projects it.
    ///
    /// # Errors
    /// [`Error::Trace`] if the rows are no longer those that were checked and digested.
    pub fn of(
        manifest: &CheckedManifest,
        trace: &Trace<'_>,
        first: &FirstChallenges,
    ) -> Result<Projection, Error> {
        let modules = manifest.modules();
        let longest = modules.iter().map(|m| m.d_out).max().unwrap_or(0);
        let gamma = powers(first.gamma, longest);
        let c = powers(first.c, modules.len());
        let project = |(m, module), hasher: Option<&mut blake3::Hasher>| {
            ModuleProjection::of(trace, m, module, &first.rho_key, &gamma, hasher)
        };
        let projected: Vec<ModuleProjection> = if trace.source().is_constant() {
            modules
                .par_iter()
                .enumerate()
                .map(|module| project(module, None))
                .collect::<Result<_, _>>()?
        } else {
            // The second reading: the projected rows must be those that were checked and digested.
            let mut hasher = row_source::hasher(modules.len());
            let read = modules.iter().enumerate().map(|module| project(module, Some(&mut hasher)));
            let projected = read.collect::<Result<_, _>>()?;
            trace.check_digest(Some(hasher))?;
            projected
        };
        let groups = manifest
            .pairs()
            .groups()
            .iter()
            .map(|group| {
                let vector = &projected[group.module].inputs[group.input];
                if group.scaled {
                    vector.iter().zip(&gamma).map(|(y, g)| *y * g).collect()
                } else {
                    vector.clone()
                }
            })
            .collect();
        let delta = projected.iter().zip(&c).map(|(p, c)| p.delta * c).sum();
        Ok(Projection { groups, ones: projected.iter().map(|p| p.one).collect(), gamma, c, delta })
    }
}

/// The projection of one module's rows.
struct ModuleProjection {
    inputs: Vec<Vec<F>>,
    one: F,
    delta: F,
}

impl ModuleProjection {
    fn of(
        trace: &Trace<'_>,
        m: usize,
        module: &Module,
        rho_key: &[u8; 32],
        gamma: &[F],
        hasher: Option<&mut blake3::Hasher>,
    ) -> Result<ModuleProjection, Error> {
        let mut inputs: Vec<Sums> = module.inputs.iter().map(|_| Sums::default()).collect();
        let (mut one, mut delta) = (Sums::default(), Sums::default());
        row_source::read_module(
            trace.source(),
            m,
            trace.counts()[m],
            module,
            hasher,
            &mut |rows, piece| {
                let rho = || row_weights(rho_key, m, rows);
                match piece {
                    Piece::Input(i, x) => inputs[*i].add_inputs(&rho(), x, module.inputs[*i].dim),
                    Piece::Ones(ones) => one.add_inputs(&rho(), ones, 1),
                    Piece::Scales(_) => {}
                    Piece::Delta(d) => delta.add_deltas(&rho(), d, module.d_out, module.delta_bits),
                }
                Ok(())
            },
        )?;
        Ok(ModuleProjection {
            inputs: inputs.iter().map(Sums::finish).collect(),
            one: one.finish().first().copied().unwrap_or_default(),
            delta: inner_product(&delta.finish(), gamma),
        })
    }
}
