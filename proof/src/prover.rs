//! The contributor's side: makes one proof for a whole session (docs/protocol.md, "Steps").

use std::borrow::Cow;

use group::Curve;
use rayon::prelude::*;

use crate::{
    Error,
    argument::{self, Columns},
    checked_manifest::CheckedManifest,
    field::{F, G1, Limbs, Secret, SmallSum, all_limbs, limbs, powers, small_inner_product, wipe},
    fold::Folding,
    keys::{KeyStore, Keys},
    layout::{Layout, MASKS},
    manifest::Module,
    masks::{MaskKey, Side},
    msm::msm,
    pairs::Pairs,
    projection::Projection,
    proof::{Proof, affine},
    randomness::{ProofKey, Stream, Streams},
    relations::{Challenges, PublicColumns, a_weights, combine, pair_weights, relations},
    span,
    srs::Srs,
    statement::Statement,
    trace::Trace,
    transcript::Transcript,
    verifier::{self, SrsPolicy},
    weights::{PairWeights, Weights},
};

/// What a contributor needs to prove sessions.
pub struct Prover<'a> {
    /// The contributor's SRS.
    pub srs: &'a Srs,
    /// Derived keys.
    pub keys: &'a KeyStore,
    /// The published manifest, parsed from its bytes.
    pub manifest: &'a CheckedManifest,
    /// The private integers.
    pub weights: &'a Weights,
    /// The private mask key.
    pub mask_key: &'a MaskKey,
}

impl Prover<'_> {
    /// Proves a session. Refuses a trace that the adapter does not compute, and returns only a
    /// proof that the verifier accepts.
    ///
    /// # Errors
    /// [`Error::FalseTrace`] names a wrong delta of rows in memory; [`Error::Rejected`] means that
    /// weights, mask key and manifest do not belong together, or that rows from a file hold a wrong
    /// delta; those of [`verifier::verify`].
    pub fn prove(&self, trace: &Trace<'_>) -> Result<Vec<u8>, Error> {
        let srs = self.manifest.parameters(self.srs)?;
        let (statement, keys) = Statement::of(srs, self.keys, self.manifest, trace)?;
        // The integer arithmetic below relies on the bound that this manifest certifies.
        self.weights.check(self.manifest.modules())?;
        check_deltas(self.manifest.modules(), self.weights, trace)?;
        let (transcript, first) = Transcript::open(&statement);
        let projection = Projection::of(self.manifest, trace, &first)?;
        let randomness = ProofKey::fresh(self.mask_key, &first.s0)?;
        let attempt =
            Attempt { srs, keys: &keys, pairs: self.manifest.pairs(), projection: &projection };
        let streams = randomness.into_streams();
        let bytes = attempt.run(transcript, self.weights, self.mask_key, streams)?.to_bytes();
        // Whether the ceremony is trusted is the user's decision, made when the user verifies.
        verifier::verify(srs, self.keys, self.manifest, trace, &bytes, SrsPolicy::AllowUntrusted)?;
        Ok(bytes)
    }
}

/// Recomputes every delta as integers, from the buffer that was digested (docs/protocol.md, "Before
/// a proof is published"). Skips rows that may have changed since they were digested: an attacker
/// who changes them would learn from the answer what the adapter computes on rows that were never
/// served. The prover finds a false delta among those when it verifies its own proof.
pub(crate) fn check_deltas(
    modules: &[Module],
    weights: &Weights,
    trace: &Trace<'_>,
) -> Result<(), Error> {
    if !trace.source().is_constant() {
        return Ok(());
    }
    (0..modules.len()).try_for_each(|m| check_module(modules, weights, trace, m))
}

fn check_module(
    modules: &[Module],
    weights: &Weights,
    trace: &Trace<'_>,
    m: usize,
) -> Result<(), Error> {
    let (module, source, pairs) = (&modules[m], trace.source(), weights.of_module(modules, m));
    let rows = trace.counts()[m];
    let values = |dim: usize| 0..rows * dim;
    let read = || {
        let inputs = module
            .inputs
            .iter()
            .enumerate()
            .map(|(i, input)| source.input(m, i, values(input.dim)));
        let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
        let ones = if module.has_bias() { source.ones(m, values(1))? } else { Cow::default() };
        Ok((inputs, ones, source.delta(m, values(module.d_out))?))
    };
    let (inputs, ones, delta) =
        read().map_err(|why: String| Error::Trace(format!("module `{}`: {why}", module.name)))?;
    delta.par_chunks_exact(module.d_out).enumerate().try_for_each_init(
        || vec![0i64; module.d_out],
        |computed, (row, claimed)| {
            let inputs = inputs
                .iter()
                .zip(&module.inputs)
                .map(|(x, input)| &x[row * input.dim..(row + 1) * input.dim]);
            let inputs: Vec<&[i32]> = inputs.collect();
            weights.delta_row(
                module,
                pairs,
                &inputs,
                ones.get(row).copied().unwrap_or(0),
                computed,
            );
            match claimed.iter().zip(computed.iter()).position(|(a, b)| a != b) {
                None => Ok(()),
                Some(output) => Err(Error::FalseTrace {
                    module: module.name.clone(),
                    row,
                    output,
                    claimed: claimed[output],
                    computed: computed[output],
                }),
            }
        },
    )
}

/// One attempt at a proof: the steps after the projection (docs/protocol.md, "Steps", from step 3).
pub(crate) struct Attempt<'a> {
    pub srs: &'a Srs,
    pub keys: &'a Keys,
    pub pairs: &'a Pairs,
    pub projection: &'a Projection,
}

impl Attempt<'_> {
    pub fn run(
        &self,
        mut transcript: Transcript,
        weights: &Weights,
        mask_key: &MaskKey,
        Streams { mut masks, mut fresh, mut nonces, library }: Streams,
    ) -> Result<Proof, Error> {
        let layout = self.keys.layout();

        // Step 3: the products' factors, committed before β exists.
        let (t, u) = products(self.pairs, weights, self.projection);
        let t = self.masked(&t, layout.pair_columns, &mut masks);
        let u = self.masked(&u, layout.pair_columns, &mut masks);
        let (c_t, c_u) = (self.commit(&t), self.commit(&u));
        let beta = transcript.products(&c_t, &c_u);

        // Steps 4 and 5: combine within groups, fold the groups.
        let b = pair_weights(beta, self.pairs);
        let mut folding = Folding::new(
            combine_a(self.pairs, weights, &b),
            self.projection.groups.clone(),
            layout.rounds,
        );
        let (mut s, mut c_s, mut r) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..layout.rounds {
            let mut round = folding.round();
            let column = self.masked(&round, 1, &mut masks);
            wipe(&mut round);
            c_s.extend(self.commit(&column));
            s.extend(column);
            let challenge = transcript.round(&c_s[c_s.len() - 1]);
            folding.bind(challenge);
            r.push(challenge);
        }
        let (a_data, _) = folding.finish();
        let b_data = combine_b(self.pairs, weights, &b);

        // Step 6: the combined columns, re-randomised on their mask rows.
        let column_masks =
            combined_masks(self.pairs, &layout, mask_key, &a_weights(self.pairs, &b, &r), &b);
        // Allocated whole: a vector that grows leaves copies of its secrets in memory.
        let mut fresh_values = Vec::with_capacity(layout.a_columns + layout.b_columns);
        let a = self.rerandomised(&a_data, &column_masks.a, &mut fresh, &mut fresh_values);
        let b = self.rerandomised(&b_data, &column_masks.b, &mut fresh, &mut fresh_values);
        let (c_a, c_b) = (self.commit(&a), self.commit(&b));
        let chi = transcript.columns(&c_a, &c_b);
        let mut combined = span::combine(&fresh_values, &powers(chi, fresh_values.len()));
        let mut nonces = [nonces.scalar(), nonces.scalar()];
        let nonce = span::commit_nonces(&span::mask_bases(&layout, self.srs.lagrange()), &nonces);
        let epsilon = transcript.span(&nonce);
        let z = span::respond(&nonces, epsilon, &combined);
        for secret in [fresh_values.as_flattened_mut(), &mut combined, &mut nonces] {
            wipe(secret);
        }
        let eta = transcript.relations(&z);

        // Steps 7 and 8.
        let challenges = Challenges { beta, r, eta };
        let sum = combine(&relations(&layout, self.pairs, self.projection, &challenges), eta);
        let public_columns = PublicColumns::lay_out(&layout, &sum);
        let columns: Vec<Secret> = t.into_iter().chain(u).chain(s).chain(b).chain(a).collect();
        let commitments: Vec<G1> =
            [&c_t, &c_u, &c_s, &c_b, &c_a].into_iter().flatten().copied().collect();
        let argument = argument::prove(
            self.srs,
            self.keys,
            Columns { values: &columns, commitments: &commitments },
            &public_columns,
            transcript.finish(),
            library,
        )?;
        Ok(Proof {
            t: affine(&c_t),
            u: affine(&c_u),
            s: affine(&c_s),
            a: affine(&c_a),
            b: affine(&c_b),
            r: nonce.to_affine(),
            z,
            argument,
        })
    }

    /// A vector as columns with two fresh masks each.
    pub fn masked(&self, data: &[F], columns: usize, masks: &mut Stream) -> Vec<Secret> {
        let mut data: Vec<&[F]> = data.chunks(self.keys.layout().data_rows()).collect();
        data.resize(columns, &[]);
        data.into_iter()
            .map(|piece| column(&self.keys.layout(), piece, [masks.scalar(), masks.scalar()]))
            .collect()
    }

    /// A combined vector as columns: the combined masks plus fresh values, which are added to
    /// `fresh_values`.
    pub fn rerandomised(
        &self,
        data: &[F],
        masks: &[[F; MASKS]],
        fresh: &mut Stream,
        fresh_values: &mut Vec<[F; MASKS]>,
    ) -> Vec<Secret> {
        let layout = self.keys.layout();
        let mut pieces: Vec<&[F]> = data.chunks(layout.data_rows()).collect();
        pieces.resize(masks.len(), &[]);
        pieces
            .into_iter()
            .zip(masks)
            .map(|(piece, masks)| {
                let fresh = [fresh.scalar(), fresh.scalar()];
                fresh_values.push(fresh);
                column(&layout, piece, [masks[0] + fresh[0], masks[1] + fresh[1]])
            })
            .collect()
    }

    /// Commitments to columns.
    pub fn commit(&self, columns: &[Secret]) -> Vec<G1> {
        columns.par_iter().map(|column| commit_column(self.srs, column)).collect()
    }
}

/// `Commit(column)` in the Lagrange basis, without the zero cells.
pub fn commit_column(srs: &Srs, column: &[F]) -> G1 {
    // Allocated whole: a vector that grows leaves copies of its secrets in memory.
    let (mut points, mut scalars) =
        (Vec::with_capacity(column.len()), Secret(Vec::with_capacity(column.len())));
    for (point, value) in
        srs.lagrange().iter().zip(column).filter(|(_, value)| **value != F::default())
    {
        points.push(*point);
        scalars.push(*value);
    }
    msm(&points, &scalars)
}

fn column(layout: &Layout, data: &[F], masks: [F; MASKS]) -> Secret {
    let mut column = Vec::with_capacity(layout.usable());
    column.extend_from_slice(data);
    column.resize(layout.data_rows(), F::default());
    column.extend(masks);
    Secret(column)
}

/// `t_i = ⟨A_i, v_{g(i)}⟩` and `u_i = ⟨B_i, γ⃗⟩`; zero where the side is missing.
pub fn products(pairs: &Pairs, weights: &Weights, projection: &Projection) -> (Secret, Secret) {
    let groups: Vec<Vec<Limbs>> = projection.groups.par_iter().map(|v| all_limbs(v)).collect();
    let gamma = all_limbs(&projection.gamma);
    let work: Vec<_> = pairs.iter().zip(weights.pairs()).collect();
    let (t, u) = work
        .par_iter()
        .map(|(pair, PairWeights { a, b })| {
            let t = pair.a.map_or(F::default(), |side| small_inner_product(a, &groups[side.group]));
            (t, small_inner_product(b, &gamma))
        })
        .unzip();
    (Secret(t), Secret(u))
}

/// `A*_g = Σ_{g(i) = g} b_i A_i` for each group.
pub(crate) fn combine_a(pairs: &Pairs, weights: &Weights, b: &[F]) -> Vec<Secret> {
    let mut members: Vec<Vec<(&[i32], Limbs)>> = vec![Vec::new(); pairs.groups().len()];
    for ((pair, integers), b) in pairs.iter().zip(weights.pairs()).zip(b) {
        if let Some(side) = pair.a {
            members[side.group].push((&integers.a, limbs(b)));
        }
    }
    members
        .par_iter()
        .zip(pairs.groups())
        .map(|(members, group)| Secret(combine_small(members, group.len)))
        .collect()
}

/// `B* = Σ_i b_i B_i`.
pub fn combine_b(pairs: &Pairs, weights: &Weights, b: &[F]) -> Secret {
    let members: Vec<(&[i32], Limbs)> = weights
        .pairs()
        .iter()
        .zip(b)
        .map(|(integers, b)| (integers.b.as_slice(), limbs(b)))
        .collect();
    Secret(combine_small(&members, pairs.longest_b()))
}

/// `Σ_i b_i·v_i` for integer vectors `v_i`, in stripes whose accumulators fit the first-level
/// cache.
fn combine_small(members: &[(&[i32], Limbs)], length: usize) -> Vec<F> {
    const STRIPE: usize = 256;
    (0..length.div_ceil(STRIPE))
        .into_par_iter()
        .flat_map_iter(|stripe| {
            let first = stripe * STRIPE;
            let mut sums = vec![SmallSum::default(); STRIPE.min(length - first)];
            for (values, b) in members {
                for (sum, value) in sums.iter_mut().zip(values.get(first..).unwrap_or(&[])) {
                    sum.add(*value, b);
                }
            }
            sums.into_iter().map(|sum| sum.reduce())
        })
        .collect()
}

/// The combined masks of the manifest's commitments, column by column.
pub(crate) struct ColumnMasks {
    pub a: Vec<[F; MASKS]>,
    pub b: Vec<[F; MASKS]>,
}

impl Drop for ColumnMasks {
    fn drop(&mut self) {
        wipe(self.a.as_flattened_mut());
        wipe(self.b.as_flattened_mut());
    }
}

/// `Σ_i weight_i·mask(i, column, slot)` over the pairs that have the column.
pub(crate) fn combined_masks(
    pairs: &Pairs,
    layout: &Layout,
    key: &MaskKey,
    a_weights: &[F],
    b_weights: &[F],
) -> ColumnMasks {
    let side = |side: Side, columns: usize, weights: &[F]| -> Vec<[F; MASKS]> {
        (0..columns)
            .map(|column| {
                std::array::from_fn(|slot| {
                    pairs
                        .iter()
                        .zip(weights)
                        .filter(|(pair, _)| {
                            let length =
                                if side == Side::A { pair.a.map(|a| a.len) } else { pair.b };
                            length.is_some_and(|length| {
                                column < crate::layout::columns_for(length, layout.k)
                            })
                        })
                        .map(|(pair, weight)| {
                            *weight * key.mask(pair.module, side, pair.index, column, slot as u8)
                        })
                        .sum()
                })
            })
            .collect()
    };
    ColumnMasks {
        a: side(Side::A, layout.a_columns, a_weights),
        b: side(Side::B, layout.b_columns, b_weights),
    }
}
