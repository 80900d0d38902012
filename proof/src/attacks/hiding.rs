//! Two proofs of one session share no element, and secrets do not print.

use std::collections::HashSet;

use rand_core::RngCore;

use super::proof_bytes::{argument_points, parts};
use crate::{
    masks::{MaskKey, Seed},
    proof::Proof,
    prover::Attempt,
    randomness::{ProofKey, Streams},
    testing::{Session, Shape, lora},
};

/// Every point and every scalar of a proof, the halo2 part's included.
fn elements(session: &Session, bytes: &[u8]) -> Vec<Vec<u8>> {
    let layout = session.checked.layout();
    let mut out = Vec::new();
    for part in parts(bytes).iter().skip(1) {
        let content = &bytes[part.content.clone()];
        match part.name {
            "z" => out.extend(content.chunks_exact(32).map(<[u8]>::to_vec)),
            "halo2" => {
                let points = argument_points(&layout);
                let mut at = 0;
                while at < content.len() {
                    let width = if points.contains(&at) { 48 } else { 32 };
                    out.push(content[at..at + width].to_vec());
                    at += width;
                }
                assert_eq!(at, content.len());
            }
            _ => out.extend(content.chunks_exact(48).map(<[u8]>::to_vec)),
        }
    }
    out
}

#[test]
fn two_proofs_of_one_session_share_no_commitment_and_no_evaluation() {
    let mixed = Shape { d_in: 6, rank: 2, d_out: 30, bias: true, scale: true, rows: 2 };
    let session = Session::of(&[mixed, lora(30, 2, 4, 2), lora(3, 1, 2, 0)]);
    let (first, second) = (session.prove(), session.prove());
    let (a, b) = (elements(&session, &first), elements(&session, &second));
    assert_eq!(a.len(), b.len());
    let of_first: HashSet<_> = a.iter().collect();
    assert_eq!(of_first.len(), a.len(), "an element occurs twice within one proof");
    assert!(b.iter().all(|element| !of_first.contains(element)));
    // They share no run of 32 bytes either.
    let windows: HashSet<&[u8]> = first.windows(32).collect();
    assert!(second.windows(32).all(|window| !windows.contains(window)));
}

#[test]
fn a_proof_shows_no_commitment_of_the_manifest() {
    // With one pair and one module, A** is A_1 itself, up to re-randomisation.
    let session = Session::of(&[lora(5, 1, 4, 2)]);
    let proof = Proof::parse(&session.prove(), &session.checked.layout()).unwrap();
    let pair = &session.checked.points()[0];
    assert!(!proof.a.contains(&pair.a[0]) && !proof.b.contains(&pair.b[0]));
}

#[test]
fn streams_differ_by_label_attempt_key_and_session() {
    let key = |byte: u8| MaskKey::from_bytes([byte; 32]);
    let attempts = [
        ProofKey::derive(&[1; 32], &key(1), &[1; 32]),
        ProofKey::derive(&[2; 32], &key(1), &[1; 32]),
        ProofKey::derive(&[1; 32], &key(2), &[1; 32]),
        ProofKey::derive(&[1; 32], &key(1), &[2; 32]),
        ProofKey::fresh(&key(1), &[1; 32]).unwrap(),
        ProofKey::fresh(&key(1), &[1; 32]).unwrap(),
    ];
    let mut seen = HashSet::new();
    for attempt in attempts {
        let Streams { masks, fresh, nonces, library } = attempt.into_streams();
        for mut stream in [masks, fresh, nonces, library] {
            for _ in 0..3 {
                let mut block = [0u8; 32];
                stream.fill_bytes(&mut block);
                assert!(seen.insert(block));
            }
        }
    }
    assert_eq!(seen.len(), 6 * 4 * 3);
}

/// A second implementation of docs/protocol.md, "Randomness of a proof": all four inputs count.
#[test]
fn streams_are_those_of_the_protocol() {
    let (os, key, s0) = ([1; 32], MaskKey::from_bytes([2; 32]), [3; 32]);
    let threads = (rayon::current_num_threads() as u64).to_le_bytes();
    let proof_key =
        blake3::derive_key("zklora v1 proof rng", &[&os[..], key.expose(), &s0, &threads].concat());
    let Streams { masks, fresh, nonces, library } = ProofKey::derive(&os, &key, &s0).into_streams();
    let labels = ["masks of T, U and S", "masks of A and B", "nonces of the span proof", "library"];
    for (mut stream, label) in [masks, fresh, nonces, library].into_iter().zip(labels) {
        let (mut expected, mut found) = ([0; 100], [0; 100]);
        blake3::Hasher::new_keyed(&proof_key)
            .update(label.as_bytes())
            .finalize_xof()
            .fill(&mut expected);
        stream.fill_bytes(&mut found);
        assert_eq!(found, expected, "{label}");
    }
}

fn within<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

#[test]
fn streams_differ_by_the_number_of_threads_and_by_nothing_else_of_a_pool() {
    let first_bytes = |threads| {
        within(threads, || {
            let key = ProofKey::derive(&[1; 32], &MaskKey::from_bytes([2; 32]), &[3; 32]);
            let Streams { masks, fresh, nonces, library } = key.into_streams();
            [masks, fresh, nonces, library].map(|mut stream| {
                let mut block = [0u8; 32];
                stream.fill_bytes(&mut block);
                block
            })
        })
    };
    let pools = [1, 2, 3, 5].map(first_bytes);
    assert_eq!(pools.as_flattened().iter().collect::<HashSet<_>>().len(), 4 * 4);
    assert_eq!(pools, [1, 2, 3, 5].map(first_bytes));
}

/// An attacker gets two proofs of one statement that were made with the same bytes of the operating
/// system (for example on a copied virtual machine). With equal thread pools they are the same
/// proof. Without the number of threads in the derivation, proofs from different pools would share
/// all masks, and parts of their random polynomials.
#[test]
fn repeated_randomness_gives_the_same_proof_or_one_that_has_nothing_in_common() {
    let session = Session::of(&[lora(30, 2, 4, 2), lora(3, 1, 2, 1)]);
    let prove = |threads| {
        within(threads, || {
            super::cheat::Attack::on(&session).opened(|keys, transcript, _, projection| {
                let attempt = Attempt {
                    srs: session.srs,
                    keys,
                    pairs: session.checked.pairs(),
                    projection: &projection,
                };
                let streams = ProofKey::derive(&[1; 32], &session.key, &[2; 32]).into_streams();
                attempt.run(transcript, &session.weights, &session.key, streams).unwrap().to_bytes()
            })
        })
    };
    let pools = [1, 2, 3].map(prove);
    for proof in &pools {
        session.verify(proof).unwrap();
    }
    assert_eq!(pools, [1, 2, 3].map(prove));
    for [a, b] in [[0, 1], [0, 2], [1, 2]] {
        let of_a = elements(&session, &pools[a]);
        let elements_of_a: HashSet<_> = of_a.iter().collect();
        assert!(
            elements(&session, &pools[b]).iter().all(|element| !elements_of_a.contains(element)),
            "{a} and {b}"
        );
    }
}

/// Whether a type implements Debug: the inherent method takes precedence where its bound holds.
macro_rules! has_debug {
    ($type:ty) => {{
        struct Probe<T>(std::marker::PhantomData<T>);
        #[allow(dead_code)]
        impl<T: std::fmt::Debug> Probe<T> {
            fn has_debug(&self) -> bool {
                true
            }
        }
        #[allow(dead_code)]
        trait Fallback {
            fn has_debug(&self) -> bool {
                false
            }
        }
        impl<T> Fallback for Probe<T> {}
        Probe::<$type>(std::marker::PhantomData).has_debug()
    }};
}

#[test]
fn secrets_do_not_print() {
    assert!(has_debug!(Proof), "the probe itself works");
    assert!(!has_debug!(Seed));
    assert!(!has_debug!(MaskKey));
    assert!(!has_debug!(ProofKey));
    assert!(!has_debug!(crate::randomness::Stream));
    assert!(!has_debug!(crate::field::Secret));
    assert!(!has_debug!(crate::weights::PairWeights));
    let session = Session::of(&[lora(5, 1, 4, 2)]);
    assert_eq!(format!("{:?}", session.weights), "Weights(1 pairs, not shown)");
    let error = {
        let mut session = session;
        session.rows[0].delta[0] ^= 1;
        session.with_trace(|trace| session.prover().prove(trace)).unwrap_err()
    };
    // The error contains only what the user sees anyway.
    assert!(error.to_string().contains("nothing is proven"));
}
