//! The verifiers of an [`Attack`]: the real one, and one that follows the attack's (weakened)
//! rules.

use group::Group;

use super::cheat::{Attack, Cheat, Forgery};
use crate::{
    Error, argument,
    error::Check,
    field::{F, G1, G1Affine},
    relations::{Challenges, PublicColumns, RelationName, combine},
    span,
    testing::{Session, keys, with_rows},
    verifier::{SrsPolicy, Verdict, verify},
};

impl Attack<'_> {
    /// The real verifier's answer.
    pub fn verify(&self, forgery: &Forgery) -> Result<Verdict, Error> {
        let Session { srs, checked, context, .. } = self.session;
        let bytes = forgery.proof.to_bytes();
        with_rows(checked, *context, &self.rows, |trace| {
            verify(srs, keys(), checked, trace, &bytes, SrsPolicy::AllowUntrusted)
        })
        .unwrap()
    }

    /// The answer of the verifier that follows the rules of this attack.
    pub fn verify_by_the_rules(&self, forgery: &Forgery) -> Result<(), Error> {
        let (srs, proof) = (self.session.srs, &forgery.proof);
        let projective = |points: &[G1Affine]| points.iter().map(G1::from).collect::<Vec<_>>();
        self.opened(|_, mut transcript, _, projection| {
            let early_eta = self.rules.eta_first.then(|| transcript.relations(&[F::from(0); 2]));
            let early_beta = self.rules.beta_first.then(|| transcript.products(&[], &[]));
            let late_beta = transcript.products(&projective(&proof.t), &projective(&proof.u));
            let beta = early_beta.unwrap_or(late_beta);
            let mut r: Vec<F> = Vec::new();
            for s in &proof.s {
                let early_r = self.rules.r_first.then(|| transcript.round(&G1::identity()));
                let late_r = transcript.round(&G1::from(s));
                r.push(early_r.unwrap_or(late_r));
            }
            let (a, b) = (projective(&proof.a), projective(&proof.b));
            let early_chi = self.rules.chi_first.then(|| transcript.columns(&[], &[]));
            let late_chi = transcript.columns(&a, &b);
            let chi = early_chi.unwrap_or(late_chi);
            let early_epsilon = self.rules.epsilon_first.then(|| transcript.span(&G1::identity()));
            let late_epsilon = transcript.span(&G1::from(proof.r));
            let epsilon = early_epsilon.unwrap_or(late_epsilon);
            let late_eta = transcript.relations(&proof.z);
            let eta = early_eta.unwrap_or(late_eta);

            let p = self.difference(&a, &b, beta, &r, chi);
            let bases = span::mask_bases(&self.session.checked.layout(), srs.lagrange());
            if span::commit_nonces(&bases, &proof.z) != G1::from(proof.r) + p * epsilon {
                return Err(Error::Rejected(Check::MaskSpan));
            }
            let all = self.relations(&projection, &Challenges { beta, r, eta });
            let laid_out = PublicColumns::lay_out(&self.layout(), &combine(&all, eta));
            let mut s = projective(&proof.s);
            if self.rules.rounds_in_one && !s.is_empty() {
                s = vec![s.iter().fold(G1::identity(), |sum, point| sum + point)];
            }
            let (t, u) = (projective(&proof.t), projective(&proof.u));
            let columns: Vec<G1> = t.into_iter().chain(u).chain(s).chain(b).chain(a).collect();
            let keys = keys().get(srs, self.layout()).unwrap();
            argument::verify(srs, &keys, &columns, &laid_out, transcript.finish(), &proof.argument)
        })
    }

    /// Asserts that exactly these relations are broken and that the real verifier fails at `check`.
    pub fn is_refused(&self, cheat: Cheat<'_>, broken: &[RelationName], check: Check) {
        let forgery = self.forge(cheat);
        assert_eq!(forgery.broken(), broken);
        let answer = self.verify(&forgery);
        assert!(matches!(answer, Err(Error::Rejected(found)) if found == check), "{answer:?}");
    }

    /// Asserts that the verifier with the weakened rules accepts, although these relations are
    /// broken.
    pub fn succeeds(&self, cheat: Cheat<'_>, broken: &[RelationName]) {
        let forgery = self.forge(cheat);
        assert_eq!(forgery.broken(), broken);
        self.verify_by_the_rules(&forgery).unwrap();
    }
}
