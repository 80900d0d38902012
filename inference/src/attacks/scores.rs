//! Commitments to scores, and sums of scores, that are not the model's.

use std::sync::OnceLock;

use ff::Field;
use zklora_proof::{field::F, manifest::AdapterId, verifier::SrsPolicy};

use super::session::{Session, is_refused, llama};
use crate::{
    Error,
    prover::ResultOpening,
    relations::Rule,
    statement::Bound,
    sums::{self, SumClaim},
    testing::{keys, srs},
    verifier::{ResultCommitment, verify},
};

/// A claim that commits to two scores.
fn committing() -> &'static Session {
    static SESSION: OnceLock<Session> = OnceLock::new();
    SESSION.get_or_init(|| {
        let own = llama();
        let mut claimed = own.claimed.clone();
        (claimed.bounds, claimed.commits) = (vec![], true);
        own.claiming(claimed)
    })
}

#[test]
fn committed_scores_that_are_not_the_models_are_refused() {
    let session = committing();
    let sums = session.plan.sums.unwrap();
    // One of them, and both such that their sum is right.
    for changes in [&[(1, 1i64)][..], &[(0, 1), (1, -1)]] {
        let mut witness = session.witness();
        for (at, by) in changes {
            witness.tensors[sums].add(0, *at, (*by).into());
        }
        let (bytes, violated) = session.attempt(&witness);
        assert_eq!(violated, [Rule::Opening]);
        assert!(is_refused(&session.verify(&bytes)));
    }
}

fn claim(commitment: ResultCommitment, total: i64) -> SumClaim {
    let bounds = vec![Bound { weights: vec![1, 1], least: total, most: total }];
    SumClaim { results: vec![commitment], bounds, squares: None, context: [3; 32] }
}

fn prove(session: &Session, claim: &SumClaim, opening: &ResultOpening) -> Result<Vec<u8>, Error> {
    let mask_key = &session.contributor.mask_key;
    sums::prove(srs(), keys(), &session.registered, mask_key, claim, &[opening])
}

#[test]
fn sums_of_other_scores_than_the_committed_ones_are_refused() {
    let session = committing();
    let (proof, opening) = session.prover().prove(&session.claimed).unwrap();
    let (opening, policy) = (opening.unwrap(), SrsPolicy::AllowUntrusted);
    let Session { registered, own, claimed, .. } = session;
    let commitment = verify(srs(), keys(), registered, own, claimed, &proof, policy);
    let commitment = commitment.unwrap().unwrap();
    let total: i64 = opening.results.iter().sum();
    let honest = claim(commitment, total);
    let sum = prove(session, &honest, &opening).unwrap();
    let verify = |claim: &SumClaim| sums::verify(srs(), keys(), registered, claim, &sum, policy);
    verify(&honest).unwrap();

    // Other scores, with the mask or another one.
    let scores = vec![opening.results[0] + 1, opening.results[1]];
    for mask in [opening.mask, opening.mask + F::ONE] {
        let other = ResultOpening { results: scores.clone(), mask };
        assert!(is_refused(&prove(session, &claim(commitment, total + 1), &other).map(drop)));
    }
    let other = ResultOpening { results: opening.results.clone(), mask: opening.mask + F::ONE };
    assert!(is_refused(&prove(session, &honest, &other).map(drop)));

    // Commitments of another adapter, ceremony or shape, and other statements.
    let is_statement = |answer| matches!(answer, Err(Error::Statement(_)));
    let with = |commitment| claim(commitment, total);
    assert!(is_statement(verify(&with(ResultCommitment {
        adapter: AdapterId([0; 32]),
        ..commitment
    }))));
    assert!(is_statement(verify(&with(ResultCommitment { srs: [0; 32], ..commitment }))));
    assert!(is_statement(verify(&with(ResultCommitment { results: 1, ..commitment }))));
    let tokens = commitment.tokens + 1;
    assert!(is_refused(&verify(&with(ResultCommitment { tokens, ..commitment }))));
    let point = session.parsed(&proof).columns[0];
    assert_ne!(point, commitment.point);
    assert!(is_refused(&verify(&with(ResultCommitment { point, ..commitment }))));
    assert!(is_refused(&verify(&SumClaim { context: [4; 32], ..honest.clone() })));
    let mut weighted = honest.clone();
    weighted.bounds[0].weights = vec![1, 2];
    assert!(is_refused(&verify(&weighted)));
    let twice = SumClaim {
        results: vec![commitment; 2],
        bounds: vec![Bound { weights: vec![1, 1, 0, 0], least: total, most: total }],
        ..honest
    };
    let answer = verify(&twice);
    assert!(is_refused(&answer) || matches!(answer, Err(Error::Malformed { .. })), "{answer:?}");
}
