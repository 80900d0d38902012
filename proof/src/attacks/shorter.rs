//! Adapters whose k is smaller than that of the ceremony: an attacker knows more powers of τ than a
//! column has rows, and could confuse parameters of several sizes.

use std::sync::OnceLock;

use group::{Curve, GroupEncoding, prime::PrimeCurveAffine};

use crate::{
    Error,
    checked_manifest::CheckedManifest,
    commit::{audit, commit},
    error::Check,
    field::{G1, G1Affine},
    keys::{KeyStore, Keys},
    manifest::{Manifest, Point},
    masks::Seed,
    srs::Srs,
    testing::{Session, Shape, draft, lora, random_pairs, random_rows},
    verifier::{SrsPolicy, verify},
};

/// k of the ceremony.
const WHOLE: u32 = 10;

fn ceremony() -> &'static Srs {
    static SRS: OnceLock<Srs> = OnceLock::new();
    SRS.get_or_init(|| Srs::insecure_dev(WHOLE).unwrap())
}

fn shapes() -> Vec<Shape> {
    // Vectors of two columns at k = 8, and terms of all kinds.
    let mixed = Shape { d_in: 300, rank: 2, d_out: 300, bias: true, scale: true, rows: 2 };
    vec![lora(70, 3, 5, 3), mixed]
}

fn session_at(k: u32) -> Session {
    let shapes = shapes();
    let draft = Manifest { k, ..draft(&shapes) };
    let (pairs, rows) = (random_pairs(&draft), random_rows(&draft, &shapes));
    Session::build(ceremony(), draft, pairs, rows)
}

fn answer(session: &Session, srs: &Srs, proof: &[u8]) -> Result<(), Error> {
    let policy = SrsPolicy::AllowUntrusted;
    session
        .with_trace(|t| verify(srs, &KeyStore::default(), &session.checked, t, proof, policy))
        .map(|_| ())
}

#[test]
fn each_k_of_a_ceremony_is_proven_verified_and_audited() {
    for k in 8..=WHOLE {
        let session = session_at(k);
        assert_eq!(session.manifest.srs_digest, ceremony().at(k).unwrap().digest_hex());
        let proof = session.prove();
        answer(&session, ceremony(), &proof).unwrap();
        // A party that has the shorter parameters only.
        answer(&session, ceremony().at(k).unwrap(), &proof).unwrap();
        let audited = audit(ceremony(), &session.checked, &session.weights, &session.key);
        assert_eq!(audited.unwrap(), Vec::<String>::new());
    }
}

#[test]
fn a_false_delta_is_refused_at_every_k() {
    for k in 8..=WHOLE {
        let mut session = session_at(k);
        let proof = session.prove();
        session.rows[1].delta[7] += 1;
        let answer = answer(&session, ceremony(), &proof);
        assert!(matches!(answer, Err(Error::Rejected(_))), "{answer:?}");
    }
}

/// The same adapter and seed at two k: neither proof is one for the other, and no mask is shared.
#[test]
fn proofs_and_masks_of_one_k_are_of_no_other() {
    let shapes = shapes();
    let draft = draft(&shapes);
    let (pairs, rows) = (random_pairs(&draft), random_rows(&draft, &shapes));
    let build = |k| {
        let seed = Seed::from_bytes([3; 32]);
        let draft = Manifest { k, ..draft.clone() };
        Session::build_from(ceremony(), draft, pairs.clone(), rows.clone(), &seed, [8; 32])
    };
    let (short, long) = (build(8), build(WHOLE));
    assert_ne!(short.key.expose(), long.key.expose());
    for (of, other) in [(&short, &long), (&long, &short)] {
        let answer = answer(of, ceremony(), &other.prove());
        assert!(answer.is_err());
    }
    // Nor is a manifest that claims another k, or the digest of another.
    let mut renamed = short.manifest.clone();
    renamed.k = 9;
    assert!(CheckedManifest::parse(&renamed.to_bytes().unwrap()).is_err());
    let mut renamed = short.manifest.clone();
    renamed.srs_digest.clone_from(&long.manifest.srs_digest);
    let checked = CheckedManifest::parse(&renamed.to_bytes().unwrap()).unwrap();
    assert!(matches!(checked.parameters(ceremony()), Err(Error::SrsMismatch { .. })));
}

/// Keys, commitments, proofs and verifiers of one size work with parameters of that size only.
#[test]
fn parameters_of_another_size_are_refused() {
    let session = session_at(8);
    let layout = session.checked.layout();
    for k in 9..=WHOLE {
        assert!(Keys::generate(ceremony().at(k).unwrap(), layout).is_err());
        let other = ceremony().at(k).unwrap();
        let answer = answer(&session, other, &session.prove());
        // The shorter parameters are found in any longer ones.
        assert!(answer.is_ok(), "{answer:?}");
    }
    let other = Srs::insecure_dev(8).unwrap();
    let refused = answer(&session, &other, &session.prove());
    assert!(matches!(refused, Err(Error::SrsMismatch { .. })), "{refused:?}");
    let keys = Keys::generate(ceremony().at(8).unwrap(), layout).unwrap();
    let public = crate::relations::PublicColumns {
        weights: vec![],
        products: vec![],
        output: crate::field::F::from(0),
    };
    let first = crate::field::F::from(1);
    let wrong = crate::argument::verify(ceremony(), &keys, &[], &public, first, &[]);
    let size = |error: &Error| matches!(error, Error::Internal(why) if why.contains("parameters"));
    assert!(wrong.as_ref().is_err_and(size), "{wrong:?}");
    let none = crate::argument::Columns { values: &[], commitments: &[] };
    let wrong = crate::argument::prove(ceremony(), &keys, none, &public, first, rand_core::OsRng);
    assert!(wrong.as_ref().is_err_and(size), "{wrong:?}");
    for k in [0, 4, 7, WHOLE + 1, 12, u32::MAX] {
        let draft = Manifest { k, ..draft(&shapes()) };
        let pairs = random_pairs(&draft);
        assert!(commit(ceremony(), &draft, pairs, &Seed::generate().unwrap()).is_err(), "{k}");
    }
}

/// `[τⁿ − 1]`: zero on all rows of a column of n rows, which no shorter power is.
fn vanishing(k: u32) -> G1 {
    let powers = ceremony().powers();
    G1::from(powers[1 << k]) - G1::from(G1Affine::generator())
}

/// A contributor adds a polynomial of higher degree to a commitment, which changes no row. It can
/// neither be proven with nor audited.
#[test]
fn a_commitment_of_higher_degree_passes_neither_the_span_nor_the_audit() {
    let mut session = session_at(8);
    let point = &mut session.manifest.modules[0].terms[0].a[0][0];
    let old = crate::manifest::parse_point(&point.0).unwrap();
    let higher = (G1::from(old) + vanishing(8)).to_affine();
    let mut bytes = [0; 48];
    bytes.copy_from_slice(higher.to_bytes().as_ref());
    *point = Point(bytes);
    session.checked = CheckedManifest::parse(&session.manifest.to_bytes().unwrap()).unwrap();
    let answer = session.with_trace(|trace| session.prover().prove(trace));
    assert!(matches!(answer, Err(Error::Rejected(Check::MaskSpan))), "{answer:?}");
    let audited = audit(ceremony(), &session.checked, &session.weights, &session.key).unwrap();
    assert_eq!(audited, vec!["layers.0.q_proj".to_owned()]);
}
