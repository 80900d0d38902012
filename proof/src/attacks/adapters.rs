//! Proofs, parameters and openings of another adapter.

use std::sync::OnceLock;

use super::provers::altered;
use crate::{
    Error,
    checked_manifest::CheckedManifest,
    commit::audit,
    error::Check,
    srs::Srs,
    testing::{K, Session, Shape, keys, lora, with_rows},
    verifier::{SrsPolicy, verify},
    weights::{PairWeights, Weights},
};

fn session() -> Session {
    Session::of(&[lora(7, 2, 5, 3), lora(30, 1, 4, 2)])
}

#[test]
fn a_proof_made_with_another_adapter_of_the_same_shape_is_refused() {
    let session = session();
    let mut other = Session::of(&[lora(7, 2, 5, 3), lora(30, 1, 4, 2)]);
    assert_eq!(session.checked.layout(), other.checked.layout());
    other.rows = session.rows.clone();
    other.context = session.context;
    other.compute();
    let proof = other.prove();
    // Against the adapter's own deltas, and against the deltas of the other adapter.
    let answer = session.verify(&proof);
    assert!(matches!(answer, Err(Error::Rejected(Check::MaskSpan))), "{answer:?}");
    let answer = with_rows(&session.checked, session.context, &other.rows, |trace| {
        verify(session.srs, keys(), &session.checked, trace, &proof, SrsPolicy::AllowUntrusted)
    });
    // Its bounds differ, so the trace may be refused before the proof is parsed.
    let refused = matches!(
        answer,
        Ok(Err(Error::Rejected(Check::MaskSpan))) | Err(Error::BeyondBound { .. })
    );
    assert!(refused, "{answer:?}");
}

fn other_srs() -> &'static Srs {
    static SRS: OnceLock<Srs> = OnceLock::new();
    SRS.get_or_init(|| Srs::insecure_dev(K).unwrap())
}

#[test]
fn another_srs_is_refused() {
    let session = session();
    let proof = session.prove();
    let verify_with = |srs: &Srs, policy| {
        session.with_trace(|t| verify(srs, keys(), &session.checked, t, &proof, policy))
    };
    let answer = verify_with(other_srs(), SrsPolicy::AllowUntrusted);
    assert!(matches!(answer, Err(Error::SrsMismatch { .. })), "{answer:?}");
    let longer = Srs::insecure_dev(K + 1).unwrap();
    let answer = verify_with(&longer, SrsPolicy::AllowUntrusted);
    assert!(matches!(answer, Err(Error::Srs(_))), "{answer:?}");
    let answer = verify_with(session.srs, SrsPolicy::TrustedOnly);
    assert!(
        matches!(&answer, Err(Error::UntrustedSrs(why)) if why.contains("INSECURE")),
        "{answer:?}"
    );
    let mut prover = session.prover();
    prover.srs = other_srs();
    let answer = session.with_trace(|trace| prover.prove(trace));
    assert!(matches!(answer, Err(Error::SrsMismatch { .. })), "{answer:?}");
}

#[test]
fn a_prover_with_the_wrong_mask_key_publishes_nothing() {
    let mut session = session();
    session.key = crate::masks::MaskKey::from_bytes([9; 32]);
    let answer = session.with_trace(|trace| session.prover().prove(trace));
    assert!(matches!(answer, Err(Error::Rejected(Check::MaskSpan))), "{answer:?}");
}

#[test]
fn the_audit_accepts_the_committed_weights_and_names_exactly_the_module_that_differs() {
    let shape = Shape { d_in: 6, rank: 1, d_out: 30, bias: true, scale: true, rows: 1 };
    let session = Session::of(&[lora(7, 2, 5, 1), shape, lora(30, 1, 4, 1)]);
    let audited = |pairs: Vec<PairWeights>| {
        let weights = Weights::new(&session.manifest, pairs).unwrap();
        audit(session.srs, &session.checked, &weights, &session.key).unwrap()
    };
    assert_eq!(audited(session.weights.pairs().to_vec()), Vec::<String>::new());
    // Pairs: 0, 1 of module 0; 2 low rank, 3 bias, 4 scale of module 1; 5 of module 2.
    for (pair, in_b, module) in [
        (0, false, 0),
        (1, true, 0),
        (2, false, 1),
        (2, true, 1),
        (3, true, 1),
        (4, false, 1),
        (5, false, 2),
    ] {
        assert_eq!(audited(altered(&session, pair, in_b)), vec![format!("layers.{module}.q_proj")]);
    }
}

#[test]
fn the_audit_needs_the_manifests_own_srs() {
    let session = session();
    let answer = audit(other_srs(), &session.checked, &session.weights, &session.key);
    assert!(matches!(answer, Err(Error::SrsMismatch { .. })), "{answer:?}");
    let longer = Srs::insecure_dev(K + 1).unwrap();
    let answer = audit(&longer, &session.checked, &session.weights, &session.key);
    assert!(matches!(answer, Err(Error::Srs(_))), "{answer:?}");
}

#[test]
fn the_audit_refuses_weights_that_were_checked_against_another_manifest() {
    let session = session();
    // Fewer pairs: a missing pair must not count as equal.
    let fewer = Session::of(&[lora(7, 2, 5, 3)]);
    let answer = audit(session.srs, &session.checked, &fewer.weights, &session.key);
    assert!(matches!(answer, Err(Error::Weights(_))), "{answer:?}");
    // Wider integers that agree in the low bits: they must not be truncated.
    let mut wide = session.manifest.clone();
    for module in &mut wide.modules {
        (module.a_bits, module.b_bits, module.delta_bits, module.x_bits) = (24, 24, 63, 2);
    }
    let mut pairs = session.weights.pairs().to_vec();
    pairs[0].a[0] = pairs[0].a[0].abs() + (1 << 16);
    let weights = Weights::new(&wide, pairs).unwrap();
    let answer = audit(session.srs, &session.checked, &weights, &session.key);
    assert!(matches!(answer, Err(Error::Weights(_))), "{answer:?}");
}

#[test]
fn a_prover_with_weights_of_another_shape_publishes_nothing() {
    let session = session();
    let fewer = Session::of(&[lora(7, 2, 5, 3)]);
    let mut prover = session.prover();
    prover.weights = &fewer.weights;
    let answer = session.with_trace(|trace| prover.prove(trace));
    assert!(matches!(answer, Err(Error::Weights(_))), "{answer:?}");
}

#[test]
fn weights_beyond_their_widths_shapes_or_bounds_are_refused() {
    let session = session();
    let refused = |change: &dyn Fn(&mut Vec<PairWeights>)| {
        let mut pairs = session.weights.pairs().to_vec();
        change(&mut pairs);
        assert!(matches!(Weights::new(&session.manifest, pairs), Err(Error::Weights(_))));
    };
    refused(&|p| p[0].a[0] = 1 << 11);
    refused(&|p| p[2].b[3] = i32::MIN);
    refused(&|p| drop(p.pop()));
    refused(&|p| p.push(p[0].clone()));
    refused(&|p| p[1].a.push(0));
    refused(&|p| p[1].b.clear());
    // The manifest's bound is the smallest power of two above the certified one, so half of it is
    // too small.
    let mut tight = session.manifest.clone();
    tight.modules[0].delta_bits -= 1;
    let answer = Weights::new(&tight, session.weights.pairs().to_vec());
    assert!(
        matches!(&answer, Err(Error::Weights(why)) if why.contains("its deltas may reach")),
        "{answer:?}"
    );
}

#[test]
fn settings_of_another_layout_are_another_digest() {
    let digest = |shapes: &[Shape]| Session::of(shapes).checked.settings().digest_hex().unwrap();
    let all = [
        digest(&[lora(7, 2, 5, 1)]),
        digest(&[lora(25, 2, 5, 1)]),
        digest(&[lora(7, 2, 25, 1)]),
        digest(&[lora(7, 25, 5, 1)]),
        digest(&[lora(7, 2, 5, 1), lora(7, 2, 5, 1)]),
    ];
    for (i, a) in all.iter().enumerate() {
        assert!(all[i + 1..].iter().all(|b| a != b));
    }
    assert_eq!(all[0], digest(&[lora(3, 9, 24, 1)]), "a layout knows nothing of shapes");
}

#[test]
fn a_manifest_parses_to_what_was_committed() {
    let session = session();
    let again = CheckedManifest::parse(&session.manifest.to_bytes().unwrap()).unwrap();
    assert_eq!((again.contents(), again.id()), (&session.manifest, session.checked.id()));
}
