//! Hostile bytes: a reader returns an error and does not panic.

use proptest::prelude::*;

use crate::{
    checked_manifest::CheckedManifest,
    proof::Proof,
    testing::{Session, Shape, keys, lora, with_rows},
};

fn session() -> Session {
    let shape = Shape { d_in: 6, rank: 2, d_out: 30, bias: true, scale: true, rows: 2 };
    Session::of(&[shape, lora(5, 2, 4, 2)])
}

/// Parses. If that succeeds, derives the keys and reads the trace.
fn read(session: &Session, bytes: &[u8]) {
    if let Ok(checked) = CheckedManifest::parse(bytes) {
        let _ = keys().get(session.srs, checked.layout());
        let _ = with_rows(&checked, session.context, &session.rows, |_| ());
        let _ = checked.modules()[0].output_scale();
    }
}

#[test]
fn extreme_numbers_in_a_manifest_do_not_crash() {
    let session = session();
    let text = String::from_utf8(session.manifest.to_bytes().unwrap()).unwrap();
    let bytes = text.as_bytes();
    let extremes = [
        "0",
        "1",
        "2",
        "62",
        "63",
        "64",
        "4096",
        "65536",
        "16777216",
        "16777217",
        "2147483647",
        "2147483648",
        "-2147483648",
        "4294967295",
        "9223372036854775807",
        "18446744073709551615",
        "18446744073709551616",
        "-1",
        "5e-324",
        "1.7976931348623157e308",
        "null",
        "[]",
        "{}",
        "\"\"",
    ];
    let mut at = 0;
    let mut numbers = 0;
    while at < bytes.len() {
        // A number as a value: after a colon, up to a comma or a bracket.
        if bytes[at] == b':' && (bytes[at + 1].is_ascii_digit() || bytes[at + 1] == b'-') {
            let end = at + 1 + text[at + 1..].find([',', '}', ']']).unwrap();
            for extreme in extremes {
                read(&session, format!("{}{extreme}{}", &text[..at + 1], &text[end..]).as_bytes());
            }
            numbers += 1;
        }
        at += 1;
    }
    assert!(numbers > 20, "{numbers}");
}

#[test]
fn extreme_numbers_with_a_settings_digest_that_fits_do_not_crash() {
    let session = session();
    for dim in [1, 24, 25, 1 << 16, 98_304, 98_305, 1 << 24] {
        for rank in [1, 2, 1 << 10, 98_304, 1 << 20] {
            if dim <= 24 && rank == 2 {
                // The number of commitments still fits, so the manifest is valid.
                continue;
            }
            let mut manifest = session.manifest.clone();
            let module = &mut manifest.modules[1];
            (module.d_out, module.inputs[0].dim, module.terms[0].rank) = (dim, dim, rank);
            let settings = crate::pairs::Pairs::of(&manifest.modules)
                .and_then(|pairs| crate::settings::Settings::of(&pairs, manifest.k));
            if let Ok(settings) = settings {
                manifest.settings_digest = settings.digest_hex().unwrap();
            }
            // The number of commitments no longer fits. The parser must notice before it allocates
            // by the shapes.
            let answer = CheckedManifest::parse(&manifest.to_bytes().unwrap());
            assert!(matches!(answer, Err(crate::Error::Manifest(_))), "{dim} {rank}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn spliced_manifests_do_not_crash(from in any::<prop::sample::Index>(), to in any::<prop::sample::Index>(),
                                      length in 0usize..40, noise in prop::collection::vec(any::<u8>(), 0..8)) {
        let session = shared();
        let bytes = session.manifest.to_bytes().unwrap();
        let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
        let piece = &bytes[from..(from + length).min(bytes.len())];
        read(session, &[&bytes[..to], piece, &noise, &bytes[to..]].concat());
        read(session, &[&bytes[..to], piece, &bytes[(to + length).min(bytes.len())..]].concat());
    }

    #[test]
    fn arbitrary_bytes_are_no_proof_and_do_not_crash(bytes in prop::collection::vec(any::<u8>(), 0..300), keep in 0usize..200) {
        let layout = shared().checked.layout();
        prop_assert!(Proof::parse(&bytes, &layout).is_err());
        let mut spliced = proof()[..keep.min(proof().len())].to_vec();
        spliced.extend(&bytes);
        let _ = Proof::parse(&spliced, &layout);
        let _ = shared().verify(&spliced);
    }
}

fn shared() -> &'static Session {
    static SESSION: std::sync::OnceLock<Session> = std::sync::OnceLock::new();
    SESSION.get_or_init(session)
}

fn proof() -> &'static [u8] {
    static PROOF: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    PROOF.get_or_init(|| shared().prove())
}
