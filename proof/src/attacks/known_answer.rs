//! Known answers of protocol version 1, which every later build must reproduce.
//!
//! Everything but the proof is derived from fixed bytes. The proof was made once and must still
//! verify. To regenerate the files after a deliberate change of the protocol: `cargo test -p
//! zklora-proof -- --ignored regenerate`.

use std::{collections::BTreeMap, path::PathBuf, sync::OnceLock};

use ff::PrimeField;
use group::Group;
use serde::{Deserialize, Serialize};

use crate::{
    Error,
    checked_manifest::CheckedManifest,
    error::Check,
    keys::Keys,
    layout::Layout,
    manifest::AdapterId,
    masks::Seed,
    srs::{Provenance, Srs},
    testing::{OwnedRows, Session, Shape, draft, keys, lora, random_pairs, random_rows, with_rows},
    verifier::{SrsPolicy, verify},
};

const MANIFEST: &[u8] = include_bytes!("vectors/manifest-v1.json");
const PROOF: &[u8] = include_bytes!("vectors/proof-v1.pf");
const ANSWERS: &[u8] = include_bytes!("vectors/answers-v1.json");

/// The answers that are compared.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Answers {
    /// BLAKE3 of the manifest.
    adapter: String,
    /// The settings digest of the manifest.
    settings: String,
    /// Digest of the session's rows.
    trace: String,
    /// `vk.transcript_repr()` by layout, hex.
    verifying_keys: BTreeMap<String, String>,
}

fn ethereum() -> &'static Srs {
    static SRS: OnceLock<Srs> = OnceLock::new();
    SRS.get_or_init(|| Srs::ethereum().unwrap())
}

/// The i-th integer of a fixed sequence, within ±limit.
fn fixed(i: usize, limit: i64) -> i32 {
    let mixed = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    (mixed as i64 % (2 * limit + 1) - limit) as i32
}

/// Three modules: one with every kind of term, one longer than a column, one that was not called.
fn session() -> Session {
    let mixed = Shape { d_in: 16, rank: 2, d_out: 24, bias: true, scale: true, rows: 3 };
    let shapes = [mixed, lora(5000, 1, 6, 2), lora(8, 4, 8, 0)];
    let mut draft = draft(&shapes);
    draft.k = 12;
    let mut next = 0..;
    let mut fill = |values: &mut [i32], limit| {
        values.iter_mut().for_each(|v| *v = fixed(next.next().unwrap(), limit))
    };
    let mut pairs = random_pairs(&draft);
    for pair in &mut pairs {
        fill(&mut pair.a, 2047);
        fill(&mut pair.b, 2047);
    }
    let mut rows: Vec<OwnedRows> = random_rows(&draft, &shapes);
    for rows in &mut rows {
        rows.inputs.iter_mut().for_each(|x| fill(x, (1 << 19) - 1));
        fill(&mut rows.ones, (1 << 19) - 1);
    }
    Session::build_from(ethereum(), draft, pairs, rows, &Seed::from_bytes([7; 32]), [8; 32])
}

/// The layouts of common adapters: one module; 24 modules; wide inputs; biases only.
fn layouts() -> Vec<Layout> {
    let layout = |a_columns, b_columns, pair_columns, rounds| Layout {
        a_columns,
        b_columns,
        k: 12,
        pair_columns,
        rounds,
    };
    vec![
        layout(1, 1, 1, 0),
        layout(1, 1, 1, 5),
        layout(2, 1, 1, 3),
        layout(3, 8, 1, 7),
        layout(0, 1, 1, 0),
    ]
}

fn answers(session: &Session) -> Answers {
    let fingerprint = |layout: &Layout| {
        let name = serde_json::to_string(layout).unwrap();
        (name, hex::encode(Keys::generate(ethereum(), *layout).unwrap().fingerprint().to_repr()))
    };
    Answers {
        adapter: session.checked.id().to_string(),
        settings: session.checked.settings().digest_hex().unwrap(),
        trace: session.with_trace(|trace| hex::encode(trace.digest().0)),
        verifying_keys: layouts()
            .iter()
            .chain([&session.checked.layout()])
            .map(fingerprint)
            .collect(),
    }
}

#[test]
fn seed_and_weights_give_the_pinned_manifest_trace_and_keys() {
    let session = session();
    assert_eq!(session.manifest.to_bytes().unwrap(), MANIFEST);
    assert_eq!(answers(&session), serde_json::from_slice(ANSWERS).unwrap());
}

#[test]
fn the_pinned_proof_still_verifies_under_the_ethereum_ceremony() {
    let pinned_answers: Answers = serde_json::from_slice(ANSWERS).unwrap();
    let pin: AdapterId = pinned_answers.adapter.parse().unwrap();
    let checked = CheckedManifest::parse_pinned(MANIFEST, &pin).unwrap();
    let mut session = session();
    let verify_against = |session: &Session| {
        with_rows(&checked, session.context, &session.rows, |trace| {
            verify(ethereum(), keys(), &checked, trace, PROOF, SrsPolicy::TrustedOnly)
        })
        .unwrap()
    };
    let verdict = verify_against(&session).unwrap();
    assert_eq!((verdict.adapter, verdict.ceremony), (pin, Provenance::EthereumCeremony));
    assert_eq!(verdict.rows.iter().map(|(_, n)| *n).collect::<Vec<_>>(), [3, 2, 0]);
    session.rows[1].delta[5] ^= 1;
    let answer = verify_against(&session);
    assert!(matches!(answer, Err(Error::Rejected(Check::MaskSpan))), "{answer:?}");
}

#[test]
fn the_lagrange_basis_sums_to_the_generator() {
    // Σ L_i = 1: a check of the ceremony's basis that does not go through the library.
    let sum: crate::field::G1 = ethereum().lagrange().iter().map(crate::field::G1::from).sum();
    assert_eq!(sum, crate::field::G1::generator());
}

#[test]
#[ignore = "writes the vectors: only after a deliberate change of the protocol"]
fn regenerate() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/attacks/vectors");
    let session = session();
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("manifest-v1.json"), session.manifest.to_bytes().unwrap()).unwrap();
    std::fs::write(folder.join("proof-v1.pf"), session.prove()).unwrap();
    let mut text = serde_json::to_vec_pretty(&answers(&session)).unwrap();
    text.push(b'\n');
    std::fs::write(folder.join("answers-v1.json"), text).unwrap();
}
