//! A proof shows its own statement and no other.

use zklora_integer::unit::Sequence;
use zklora_proof::{commit, srs::Srs, verifier::SrsPolicy};

use super::session::{Session, is_refused, llama};
use crate::{
    Error,
    proof::Proof,
    registration,
    statement::Claimed,
    testing::{Contributor, Kind, QUERIES_AND_VALUES, keys, srs},
    verifier::verify,
};

fn changed(session: &Session, change: impl Fn(&mut Claimed)) -> Result<(), Error> {
    let mut claimed = session.claimed.clone();
    change(&mut claimed);
    session.verify_as(&claimed, session.honest())
}

#[test]
fn a_proof_of_other_values_of_the_same_shape_breaks_the_relations() {
    let session = llama();
    let changes: [&dyn Fn(&mut Claimed); 11] = [
        &|c| c.sequences[0].tokens[0] ^= 1,
        &|c| *c.sequences[1].tokens.last_mut().unwrap() ^= 1,
        &|c| c.sequences[0].tokens.swap(0, 1),
        &|c| c.bounds[0].least += 1,
        &|c| c.bounds[0].most -= 1,
        &|c| c.bounds[1].least += 1,
        &|c| c.bounds[0].weights[1] += 1,
        &|c| c.bounds[1].weights.swap(0, 1),
        &|c| c.model[31] ^= 1,
        &|c| c.context[0] ^= 1,
        &|c| (c.model, c.context) = (c.context, c.model),
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let mut claimed = session.claimed.clone();
        change(&mut claimed);
        assert_ne!(claimed, session.claimed, "{at}");
        let answer = changed(session, change);
        // `least` above `most` is no bound at all.
        let is_none = claimed.bounds.iter().any(|bound| bound.least > bound.most);
        match is_none {
            true => assert!(matches!(answer, Err(Error::Statement(_))), "{at}: {answer:?}"),
            false => assert!(is_refused(&answer), "{at}: {answer:?}"),
        }
    }
}

#[test]
fn a_proof_of_another_shape_is_malformed_or_breaks_the_relations() {
    let session = llama();
    let changes: [&dyn Fn(&mut Claimed); 8] = [
        &|c| c.sequences[0].from = 2,
        &|c| c.sequences.swap(0, 1),
        &|c| c.sequences[0].tokens.push(3),
        &|c| c.sequences[0].tokens.truncate(3),
        &|c| drop(c.bounds.pop()),
        &|c| {
            let again = c.bounds[0].clone();
            c.bounds.push(again);
        },
        &|c| c.bounds.swap(0, 1),
        &|c| c.bounds[0].most += 1 << 40,
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let answer = changed(session, change);
        let malformed =
            matches!(answer, Err(Error::Malformed { part: "columns" | "messages" | "T", .. }));
        assert!(malformed || is_refused(&answer), "{at}: {answer:?}");
    }
}

#[test]
fn a_proof_under_another_manifest_breaks_the_relations() {
    let session = llama();
    let kind = Kind { seed: 99, ..QUERIES_AND_VALUES };
    let other = Contributor::new("tiny-llama", &kind);
    let registered = other.registered();
    let (own, policy) = (other.program(false), SrsPolicy::AllowUntrusted);
    let answer =
        verify(srs(), keys(), &registered, &own, &session.claimed, session.honest(), policy);
    assert!(is_refused(&answer.map(drop)));
    // Its registration is not this one's.
    let manifest = &session.contributor.manifest;
    let answer = registration::verify(srs(), keys(), manifest, &other.registration, policy);
    assert!(is_refused(&answer.map(drop)));
    // The weights of one, the mask key and manifest of the other.
    let Contributor { manifest, mask_key, .. } = session.contributor;
    let answer = registration::prove(srs(), keys(), manifest, &other.weights, mask_key);
    assert!(is_refused(&answer.map(drop)));
    let answer =
        registration::prove(srs(), keys(), manifest, &session.contributor.weights, &other.mask_key);
    assert!(is_refused(&answer.map(drop)));
    let differing = commit::audit(srs(), manifest, &other.weights, mask_key).unwrap();
    assert_eq!(differing.len(), manifest.modules().len());
}

#[test]
fn a_registration_is_no_proof_of_scores_and_the_reverse() {
    let session = llama();
    let Contributor { manifest, registration: registered, .. } = session.contributor;
    let policy = SrsPolicy::AllowUntrusted;
    let answer = session.verify(registered);
    assert!(matches!(answer, Err(Error::Malformed { part: "columns", .. })), "{answer:?}");
    let answer = registration::verify(srs(), keys(), manifest, session.honest(), policy);
    assert!(matches!(answer, Err(Error::Malformed { part: "columns", .. })), "{answer:?}");
}

#[test]
fn another_srs_is_refused() {
    let session = llama();
    let Contributor { manifest, registration: proof, .. } = session.contributor;
    let other = Srs::insecure_dev(crate::testing::K + 1).unwrap();
    let policy = SrsPolicy::AllowUntrusted;
    let mismatch = |error| matches!(error, Error::Proof(zklora_proof::Error::SrsMismatch { .. }));
    let answer = registration::verify(&other, keys(), manifest, proof, policy);
    assert!(mismatch(answer.unwrap_err()));
    let (registered, claimed) = (&session.registered, &session.claimed);
    let answer =
        verify(&other, keys(), registered, &session.own, claimed, session.honest(), policy);
    assert!(mismatch(answer.unwrap_err()));
    // An SRS that nobody made in public.
    let policy = SrsPolicy::TrustedOnly;
    let answer = verify(srs(), keys(), registered, &session.own, claimed, session.honest(), policy);
    assert!(matches!(answer, Err(Error::Proof(zklora_proof::Error::UntrustedSrs(_)))));
    let answer = registration::verify(srs(), keys(), manifest, proof, policy);
    assert!(matches!(answer, Err(Error::Proof(zklora_proof::Error::UntrustedSrs(_)))));
}

#[test]
fn a_claim_that_does_not_hold_has_no_proof() {
    let session = llama();
    let honest = session.claimed.clone();
    let total = honest.bounds[1].least;
    let changes: [&dyn Fn(&mut Claimed); 4] = [
        &|c| (c.bounds[1].least, c.bounds[1].most) = (total + 1, total + 1),
        &|c| (c.bounds[1].least, c.bounds[1].most) = (total - 1, total - 1),
        &|c| c.bounds[1].weights[0] += 1,
        &|c| c.sequences[0] = Sequence { tokens: vec![1, 2, 3, 4], from: 1 },
    ];
    for change in changes {
        let mut claimed = honest.clone();
        change(&mut claimed);
        let answer = session.prover().prove(&claimed);
        assert!(matches!(answer, Err(Error::OutOfRange)), "{answer:?}");
    }
    let (proof, _) = session.prover().prove(&honest).unwrap();
    session.verify(&proof).unwrap();
    assert!(Proof::parse(&proof, session.plan.catalog.columns()).is_ok());
}
