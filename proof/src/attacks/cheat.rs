//! A prover that can lie at every step.
//!
//! [`Attack::forge`] repeats `prover::Attempt::run` without its self-checks and calls the hooks of
//! a [`Cheat`] between the steps. With the default [`Rules`] its proofs are proofs of the protocol
//! and go to the real verifier. Other rules weaken the protocol on both sides, to show that only
//! the missing rule stops a forgery.

use ff::Field;
use group::{Curve, Group};

use super::variants::Rules;
use crate::{
    argument::{self, Columns},
    field::{F, G1, Secret, powers},
    fold::Folding,
    keys::Keys,
    layout::Layout,
    pairs::Pairs,
    projection::Projection,
    proof::{Proof, affine},
    prover::{Attempt, combine_a, combine_b, combined_masks, products},
    randomness::{ProofKey, Streams},
    relations::{
        Challenges, PublicColumns, Relation, RelationName, a_weights, combine, pair_weights,
    },
    span,
    statement::Statement,
    testing::{OwnedRows, Session, keys, with_rows},
    transcript::Transcript,
    weights::Weights,
};

/// What a cheat knows when its hook is called. Challenges that do not exist yet are zero or
/// missing.
pub struct View<'a> {
    pub pairs: &'a Pairs,
    pub projection: &'a Projection,
    pub beta: F,
    pub r: Vec<F>,
    pub chi: F,
    pub epsilon: F,
    pub eta: F,
}

impl View<'_> {
    /// `δ − Σ c·t·u` over the two-sided pairs: the error of the trace's (false) deltas.
    pub fn missing(&self, t: &[F], u: &[F]) -> F {
        let two_sided =
            self.pairs.iter().enumerate().filter(|(_, p)| p.a.is_some() && p.b.is_some());
        self.projection.delta
            - two_sided.map(|(i, p)| self.projection.c[p.module] * t[i] * u[i]).sum::<F>()
    }
}

type Products<'c> = Option<Box<dyn FnMut(&View<'_>, &mut [F], &mut [F]) + 'c>>;
type Round<'c> = Option<Box<dyn FnMut(&View<'_>, usize, &mut Vec<F>) + 'c>>;
type Commitment<'c> = Option<Box<dyn FnMut(usize, &mut G1) + 'c>>;
type Combined<'c> = Option<Box<dyn FnMut(&View<'_>, &mut [Secret], &mut [Secret]) + 'c>>;

/// The lies of one prover, in the order of the steps.
#[derive(Default)]
pub struct Cheat<'c> {
    /// Changes t and u before they are committed.
    pub products: Products<'c>,
    /// Changes the cells of a round before they are committed.
    pub round: Round<'c>,
    /// Changes the commitment to a round and leaves its cells.
    pub round_commitment: Commitment<'c>,
    /// Answers the span proof with its simulator, from a known or guessed ε.
    pub simulate_span: bool,
    /// Changes all cells of the re-randomised columns A** and B* before they are committed.
    pub combined: Combined<'c>,
}

/// A session, and the lies of its prover.
pub struct Attack<'a> {
    pub session: &'a Session,
    /// The trace that verifier and prover see.
    pub rows: Vec<OwnedRows>,
    /// The weights that the prover uses.
    pub weights: Weights,
    pub rules: Rules,
}

/// A forged proof, and the residual of each relation on its columns.
pub struct Forgery {
    pub proof: Proof,
    pub residuals: Vec<(RelationName, F)>,
}

impl Forgery {
    /// The relations that do not hold.
    pub fn broken(&self) -> Vec<RelationName> {
        self.residuals
            .iter()
            .filter(|(_, value)| *value != F::ZERO)
            .map(|(name, _)| *name)
            .collect()
    }
}

impl<'a> Attack<'a> {
    /// The true trace, the true weights, the protocol's rules.
    pub fn on(session: &'a Session) -> Attack<'a> {
        Attack {
            session,
            rows: session.rows.clone(),
            weights: session.weights.clone(),
            rules: Rules::default(),
        }
    }

    /// The same with one delta of module 0 changed by 1: a false statement.
    pub fn on_a_false_delta(session: &'a Session) -> Attack<'a> {
        let mut attack = Attack::on(session);
        let delta = &mut attack.rows[0].delta[0];
        *delta += if *delta > 0 { -1 } else { 1 };
        attack
    }

    pub fn under(mut self, rules: Rules) -> Attack<'a> {
        self.rules = rules;
        self
    }

    pub fn layout(&self) -> Layout {
        let layout = self.session.checked.layout();
        Layout {
            rounds: if self.rules.rounds_in_one { layout.rounds.min(1) } else { layout.rounds },
            ..layout
        }
    }

    pub fn opened<T>(
        &self,
        f: impl FnOnce(&Keys, Transcript, crate::transcript::FirstChallenges, Projection) -> T,
    ) -> T {
        let Session { srs, checked, context, .. } = self.session;
        with_rows(checked, *context, &self.rows, |trace| {
            let (statement, keys) = Statement::of(srs, keys(), checked, trace).unwrap();
            let (transcript, first) = Transcript::open(&statement);
            let projection = Projection::of(checked, trace, &first).unwrap();
            f(&keys, transcript, first, projection)
        })
        .unwrap()
    }

    /// Makes a proof with the lies of the cheat.
    pub fn forge(&self, mut cheat: Cheat<'_>) -> Forgery {
        let Session { srs, checked, key, .. } = self.session;
        let (layout, pairs, weights) = (checked.layout(), checked.pairs(), &self.weights);
        self.opened(|keys, mut transcript, first, projection| {
            let Streams { mut masks, mut fresh, nonces: mut nonce_stream, library } =
                ProofKey::fresh(key, &first.s0).unwrap().into_streams();
            let attempt = Attempt { srs, keys, pairs, projection: &projection };
            let mut view = View {
                pairs,
                projection: &projection,
                beta: F::ZERO,
                r: vec![],
                chi: F::ZERO,
                epsilon: F::from(5),
                eta: F::from(7),
            };
            if self.rules.eta_first {
                view.eta = transcript.relations(&[F::ZERO; 2]);
            }
            let (mut t, mut u) = products(pairs, weights, &projection);
            if self.rules.beta_first {
                view.beta = transcript.products(&[], &[]);
            }
            if let Some(lie) = &mut cheat.products {
                lie(&view, &mut t, &mut u);
            }
            let t = attempt.masked(&t, layout.pair_columns, &mut masks);
            let u = attempt.masked(&u, layout.pair_columns, &mut masks);
            let (c_t, c_u) = (attempt.commit(&t), attempt.commit(&u));
            let beta = transcript.products(&c_t, &c_u);
            if !self.rules.beta_first {
                view.beta = beta;
            }

            let b = pair_weights(view.beta, pairs);
            let mut folding = Folding::new(
                combine_a(pairs, weights, &b),
                projection.groups.clone(),
                layout.rounds,
            );
            let (mut s, mut c_s) = (Vec::new(), Vec::new());
            for j in 0..layout.rounds {
                if self.rules.r_first {
                    view.r.push(transcript.round(&G1::identity()));
                }
                let mut round = vec![F::ZERO; if self.rules.rounds_in_one { 3 * j } else { 0 }];
                round.extend(folding.round());
                if let Some(lie) = &mut cheat.round {
                    lie(&view, j, &mut round);
                }
                let column = attempt.masked(&round, 1, &mut masks);
                let mut commitment = attempt.commit(&column)[0];
                if let Some(lie) = &mut cheat.round_commitment {
                    lie(j, &mut commitment);
                }
                s.extend(column);
                c_s.push(commitment);
                let r = transcript.round(&commitment);
                if !self.rules.r_first {
                    view.r.push(r);
                }
                folding.bind(view.r[j]);
            }
            let (a_data, _) = folding.finish();
            let b_data = combine_b(pairs, weights, &b);

            if self.rules.chi_first {
                view.chi = transcript.columns(&[], &[]);
            }
            let masks = combined_masks(pairs, &layout, key, &a_weights(pairs, &b, &view.r), &b);
            let mut values = Vec::new();
            let mut a = attempt.rerandomised(&a_data, &masks.a, &mut fresh, &mut values);
            let mut b = attempt.rerandomised(&b_data, &masks.b, &mut fresh, &mut values);
            if let Some(lie) = &mut cheat.combined {
                lie(&view, &mut a, &mut b);
            }
            let (c_a, c_b) = (attempt.commit(&a), attempt.commit(&b));
            let chi = transcript.columns(&c_a, &c_b);
            if !self.rules.chi_first {
                view.chi = chi;
            }
            let combined = span::combine(&values, &powers(view.chi, values.len()));
            if self.rules.epsilon_first {
                view.epsilon = transcript.span(&G1::identity());
            }
            let nonces = [nonce_stream.scalar(), nonce_stream.scalar()];
            let mut nonce =
                span::commit_nonces(&span::mask_bases(&layout, srs.lagrange()), &nonces);
            if cheat.simulate_span {
                // This R makes the nonces the right responses.
                nonce -= self.difference(&c_a, &c_b, view.beta, &view.r, view.chi) * view.epsilon;
            }
            let epsilon = transcript.span(&nonce);
            let z = if cheat.simulate_span {
                nonces
            } else {
                span::respond(&nonces, epsilon, &combined)
            };
            let late_eta = transcript.relations(&z);
            let eta = if self.rules.eta_first { view.eta } else { late_eta };

            if self.rules.rounds_in_one && !s.is_empty() {
                s = vec![added_up(&s)];
            }
            let columns: Vec<Secret> = t.into_iter().chain(u).chain(s).chain(b).chain(a).collect();
            let challenges = Challenges { beta: view.beta, r: view.r.clone(), eta };
            let all = self.relations(&projection, &challenges);
            let residuals = all
                .iter()
                .map(|relation| (relation.name, self.residual(&columns, relation)))
                .collect();
            let laid_out = PublicColumns::lay_out(&self.layout(), &combine(&all, eta));
            let acc = argument::running_sum(&self.layout(), &columns, &laid_out);
            let keys = crate::testing::keys().get(srs, self.layout()).unwrap();
            // The library refuses columns that reach into its blinding rows. Such a proof has no
            // halo2 part.
            let argument = argument::prove_with_accumulator(
                srs,
                &keys,
                Columns { values: &columns, commitments: &[] },
                &laid_out,
                Secret(acc),
                transcript.finish(),
                library,
            )
            .unwrap_or_default();
            let proof = Proof {
                t: affine(&c_t),
                u: affine(&c_u),
                s: affine(&c_s),
                a: affine(&c_a),
                b: affine(&c_b),
                r: nonce.to_affine(),
                z,
                argument,
            };
            Forgery { proof, residuals }
        })
    }

    /// `Σ weights·cells − constant` of one relation, over the data rows of the columns.
    fn residual(&self, columns: &[Secret], relation: &Relation) -> F {
        let layout = self.layout();
        let laid_out = PublicColumns::lay_out(&layout, &relation.weights);
        let linear = columns
            .iter()
            .zip(&laid_out.weights)
            .map(|(c, w)| crate::field::inner_product(c, w))
            .sum::<F>();
        let products = laid_out.products.iter().enumerate().flat_map(|(j, e)| {
            let (t, u) = (&columns[j], &columns[layout.pair_columns + j]);
            e.iter().zip(t.iter()).zip(u.iter()).map(|((e, t), u)| *e * t * u)
        });
        linear + products.sum::<F>() - laid_out.output
    }
}

fn added_up(columns: &[Secret]) -> Secret {
    let mut sum = vec![F::ZERO; columns.iter().map(|c| c.len()).max().unwrap_or(0)];
    for column in columns {
        for (total, value) in sum.iter_mut().zip(column.iter()) {
            *total += value;
        }
    }
    Secret(sum)
}
