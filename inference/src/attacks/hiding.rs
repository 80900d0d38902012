//! Proofs of one statement share nothing, and masks are never used twice.

use std::collections::HashSet;

use group::GroupEncoding;
use zklora_proof::{
    field::G1Affine,
    masks::MaskKey,
    randomness::{ProofKey, Streams},
};

use super::session::{gpt2, llama};
use crate::{integers::Grid, proof::Proof, statement, testing::srs, values::Value};

fn points(proof: &Proof) -> Vec<Vec<u8>> {
    let lists = [&proof.columns, &proof.messages, &proof.t, &proof.u, &proof.blinders];
    let all = lists.into_iter().flatten();
    all.map(|point: &G1Affine| point.to_bytes().as_ref().to_vec()).collect()
}

#[test]
fn two_proofs_of_one_statement_share_no_point_and_no_run_of_bytes() {
    let session = gpt2();
    let second = session.attempt(&session.witness()).0;
    let first = session.honest();
    let [a, b] = [first, &second].map(|bytes| points(&session.parsed(bytes)));
    assert_eq!(a.len(), b.len());
    let of_first: HashSet<&Vec<u8>> = a.iter().collect();
    assert_eq!(of_first.len(), a.len(), "a point occurs twice within one proof");
    assert!(b.iter().all(|point| !of_first.contains(point)));
    let windows: HashSet<&[u8]> = first[9..].windows(32).collect();
    assert!(second[9..].windows(32).all(|window| !windows.contains(window)));
}

/// Columns without anything in them look like others.
#[test]
fn columns_of_zeros_have_masks_of_their_own() {
    let session = llama();
    let mut witness = session.witness();
    for (tensor, of) in session.plan.catalog.tensors.iter().enumerate() {
        let count = session.plan.catalog.axes[of.axis].len() * of.features;
        witness.tensors[tensor] = Grid::small(of.features, vec![0; count]);
    }
    let proof = session.parsed(&session.attempt(&witness).0);
    let all = points(&proof);
    let different: HashSet<&Vec<u8>> = all.iter().collect();
    assert_eq!(different.len(), all.len());
}

#[test]
fn a_proof_shows_no_commitment_of_the_manifest() {
    let session = llama();
    let own = points(&session.parsed(session.honest()));
    for pair in session.contributor.manifest.points() {
        for point in pair.a.iter().chain(&pair.b) {
            assert!(!own.contains(&point.to_bytes().as_ref().to_vec()));
        }
    }
}

/// The same bytes from the operating system, another statement: other masks.
#[test]
fn masks_depend_on_the_statement() {
    let session = llama();
    let manifest = &session.contributor.manifest;
    let s0 = |context: u8| {
        let mut claimed = session.claimed.clone();
        claimed.context = [context; 32];
        let mut transcript =
            statement::absorb(srs(), manifest, &session.program, &claimed).unwrap();
        statement::name(&mut transcript)
    };
    let registration = {
        let mut transcript = statement::begin("registration", srs(), manifest).unwrap();
        statement::name(&mut transcript)
    };
    let all = [s0(1), s0(2), registration];
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), 3);
    // Streams of one key and two attempts differ, whatever s0 is.
    let key = || MaskKey::from_bytes([3; 32]);
    let mut seen = HashSet::new();
    for s0 in [all[0], all[0], all[1]] {
        let streams = ProofKey::fresh(&key(), &s0).unwrap().into_streams();
        let Streams { mut masks, mut fresh, mut nonces, .. } = streams;
        for stream in [&mut masks, &mut fresh, &mut nonces] {
            for _ in 0..4 {
                assert!(seen.insert(stream.scalar().to_bytes_le().to_vec()));
            }
        }
    }
}

/// Nothing of a hidden value is in an error.
#[test]
fn errors_do_not_tell_where_a_value_is_out_of_range() {
    let session = llama();
    let mut messages = HashSet::new();
    for cell in [0, 5] {
        let mut witness = session.witness();
        let limbs = session
            .plan
            .limbs
            .iter()
            .find(|limbs| matches!(limbs.input.value, Some((Value::Scaled(_), _))));
        let tensor = limbs.unwrap().input.tensors[0].0;
        witness.tensors[tensor].add(0, cell, 1.into());
        let error = witness.finish(&session.plan).unwrap_err();
        messages.insert(format!("{error} {error:?}"));
    }
    assert_eq!(messages.len(), 1);
}
