//! Manifests that break a rule, and manifests that were edited after the user pinned them.

use group::{UncompressedEncoding, prime::PrimeCurveAffine};

use super::encodings::{identity, outside_the_subgroup};
use crate::{
    Error,
    checked_manifest::CheckedManifest,
    commit::commit,
    error::Check,
    keys::Keys,
    layout::Layout,
    manifest::{AdapterId, Manifest, Point, TermKind},
    masks::Seed,
    settings::Settings,
    testing::{Session, Shape, draft, keys, lora, random_pairs, srs, with_rows},
    verifier::{SrsPolicy, verify},
};

fn mixed() -> Session {
    let shape = Shape { d_in: 6, rank: 2, d_out: 30, bias: true, scale: true, rows: 2 };
    Session::of(&[shape, lora(5, 2, 4, 2), lora(5, 2, 4, 2)])
}

fn edited(session: &Session, edit: impl FnOnce(&mut Manifest)) -> Vec<u8> {
    let mut manifest = session.manifest.clone();
    edit(&mut manifest);
    assert_ne!(manifest, session.manifest, "the edit changes nothing");
    manifest.to_bytes().unwrap()
}

/// The settings digest that an edited manifest's shapes give.
fn redigested(manifest: &mut Manifest) {
    let pairs = crate::pairs::Pairs::of(&manifest.modules).unwrap();
    manifest.settings_digest = Settings::of(&pairs, manifest.k).unwrap().digest_hex().unwrap();
}

fn rule(session: &Session, text: &str, edit: impl FnOnce(&mut Manifest)) {
    rule_of(&edited(session, edit), text);
}

fn rule_of(bytes: &[u8], text: &str) {
    match CheckedManifest::parse(bytes) {
        Err(Error::Manifest(why)) => assert!(why.contains(text), "`{text}` is not in: {why}"),
        other => panic!("expected `{text}`, got {other:?}"),
    }
}

#[test]
fn the_pin_names_one_manifest_and_no_other() {
    let session = mixed();
    let bytes = session.manifest.to_bytes().unwrap();
    CheckedManifest::parse_pinned(&bytes, &session.checked.id()).unwrap();
    for bit in [0, 7, 100, 255] {
        let mut pin = session.checked.id();
        pin.0[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(CheckedManifest::parse_pinned(&bytes, &pin), Err(Error::Pin { .. })));
    }
    let other = edited(&session, |m| m.modules.swap(1, 2));
    assert!(matches!(
        CheckedManifest::parse_pinned(&other, &session.checked.id()),
        Err(Error::Pin { .. })
    ));
    assert!("00".parse::<AdapterId>().is_err());
    assert_eq!(
        session.checked.id().to_string().parse::<AdapterId>().unwrap(),
        session.checked.id()
    );
}

#[test]
fn points_that_were_kept_are_the_manifests_or_refused() {
    let session = mixed();
    let (bytes, kept) = (session.manifest.to_bytes().unwrap(), session.checked.points_to_bytes());
    let again = CheckedManifest::parse_with_points(&bytes, &kept).unwrap();
    assert_eq!(again.points_to_bytes(), kept);
    let refused = |points: &[u8]| {
        let error = CheckedManifest::parse_with_points(&bytes, points).unwrap_err().to_string();
        assert!(error.contains("are not its commitments"), "{error}");
    };
    refused(&kept[96..]);
    refused(&[&kept[..], &kept[..96]].concat());
    refused(&[&kept[96..192], &kept[..96], &kept[192..]].concat());
    for at in (0..kept.len()).step_by(7) {
        // Another x, another y, or another encoding: on the curve or not.
        let mut changed = kept.clone();
        changed[at] ^= 1 << (at % 8);
        refused(&changed);
    }
    // The same x with the other sign, which is on the curve.
    let negated = -session.checked.points()[0].a[0];
    let mut other = kept.clone();
    other[..96].copy_from_slice(negated.to_uncompressed().as_ref());
    refused(&other);
    // A manifest that breaks a rule is refused with points, too.
    assert!(CheckedManifest::parse_with_points(&[&bytes[..], b" "].concat(), &kept).is_err());
}

/// Kept points obey every rule for parsed points but one: the group is not checked again, as the
/// documentation of `parse_with_points` says.
#[test]
fn a_kept_identity_is_refused_as_a_parsed_one_is() {
    let session = mixed();
    let count = session.checked.points_to_bytes().len() / 96;
    let mut at = 0;
    for (m, module) in session.manifest.modules.iter().enumerate() {
        for (t, term) in module.terms.iter().enumerate() {
            // In the order of the file: pair by pair, the A side first.
            for j in 0..term.rank {
                let columns = |side: &[Vec<Point>]| side.get(j).map_or(0, Vec::len);
                for (is_a, columns) in [(true, columns(&term.a)), (false, columns(&term.b))] {
                    for column in 0..columns {
                        let bytes = edited(&session, |manifest| {
                            let term = &mut manifest.modules[m].terms[t];
                            let side = if is_a { &mut term.a } else { &mut term.b };
                            side[j][column] = Point(identity());
                        });
                        let mut kept = session.checked.points_to_bytes();
                        let infinity = <crate::field::G1Affine as PrimeCurveAffine>::identity()
                            .to_uncompressed();
                        kept[at * 96..(at + 1) * 96].copy_from_slice(infinity.as_ref());
                        match CheckedManifest::parse_with_points(&bytes, &kept) {
                            Err(Error::Manifest(why)) => {
                                assert!(why.ends_with("is the identity"), "{why}")
                            }
                            other => panic!("point {at}: {other:?}"),
                        }
                        at += 1;
                    }
                }
            }
        }
    }
    assert_eq!(at, count);
}

type Edit = Box<dyn Fn(&mut Manifest)>;

/// With the pin, every edit is a [`Error::Pin`]. Without it, an edit that breaks no rule leaves a
/// proof that fails.
#[test]
fn an_edited_manifest_that_obeys_the_rules_has_no_proof() {
    let session = mixed();
    let proof = session.prove();
    let point = |m: &Manifest| m.modules[1].terms[0].a[0][0];
    let edits: Vec<Edit> = vec![
        Box::new(|m| m.modules[1].terms[0].a.swap(0, 1)),
        Box::new(|m| m.modules[1].terms[0].b.swap(0, 1)),
        Box::new(|m| m.modules[0].terms[0].b[0].swap(0, 1)),
        Box::new(move |m| m.modules[2].terms[0].a[0][0] = point(m)),
        Box::new(|m| {
            m.modules.swap(1, 2);
            // Their bounds differ, and the trace is checked against them before the proof is
            // parsed.
            (m.modules[1].delta_bits, m.modules[2].delta_bits) = (63, 63);
        }),
        Box::new(|m| m.modules[0].name.push('x')),
        Box::new(|m| m.modules[0].inputs[0].name.push('x')),
        Box::new(|m| m.base_model.name.push('x')),
        Box::new(|m| m.left_out = vec!["score.weight".into()]),
        Box::new(|m| m.base_model.fingerprint = Some("00".into())),
        Box::new(|m| m.modules[0].scaling = 4.0),
        Box::new(|m| m.modules[0].scale_log2 += 1),
        Box::new(|m| m.modules[0].delta_bits = 63),
        Box::new(|m| m.modules[0].x_bits += 1),
        Box::new(|m| m.modules[0].a_bits += 1),
        Box::new(|m| m.modules[0].b_bits += 1),
        Box::new(|m| m.modules[0].terms[1].shift += 1),
        Box::new(|m| m.modules[0].terms[2].shift -= 1),
    ];
    for (i, edit) in edits.iter().enumerate() {
        let bytes = edited(&session, edit);
        assert!(
            matches!(
                CheckedManifest::parse_pinned(&bytes, &session.checked.id()),
                Err(Error::Pin { .. })
            ),
            "edit {i}"
        );
        let checked = CheckedManifest::parse(&bytes).unwrap();
        let answer = with_rows(&checked, session.context, &session.rows, |trace| {
            verify(session.srs, keys(), &checked, trace, &proof, SrsPolicy::AllowUntrusted)
        })
        .unwrap();
        assert!(matches!(answer, Err(Error::Rejected(Check::MaskSpan))), "edit {i}: {answer:?}");
    }
}

#[test]
fn digests_that_do_not_belong_are_refused() {
    let session = mixed();
    rule(&session, "settings digest", |m| m.settings_digest = "00".repeat(32));
    rule(&session, "settings digest", |m| m.settings_digest.make_ascii_uppercase());
    rule(&session, "settings digest", |m| m.k = 6);
    rule(&session, "k = 3", |m| m.k = 3);
    rule(&session, "k = 21", |m| m.k = 21);
    rule(&session, "settings digest", |m| m.modules[1].d_out = 1000);
    let bytes = edited(&session, |m| m.srs_digest = "00".repeat(32));
    let checked = CheckedManifest::parse(&bytes).unwrap();
    let proof = session.prove();
    let answer = with_rows(&checked, session.context, &session.rows, |trace| {
        verify(session.srs, keys(), &checked, trace, &proof, SrsPolicy::AllowUntrusted)
    })
    .unwrap();
    assert!(matches!(answer, Err(Error::SrsMismatch { .. })), "{answer:?}");
}

#[test]
fn names_dimensions_and_widths_outside_their_rules_are_refused() {
    let session = mixed();
    rule(&session, "two modules are called", |m| m.modules[1].name = m.modules[0].name.clone());
    rule(&session, "two inputs are called", |m| m.modules[0].inputs[1].name = "x".into());
    rule(&session, "a module's name", |m| m.modules[1].name = String::new());
    rule(&session, "a module's name", |m| m.modules[1].name = "a\nb".into());
    rule(&session, "a module's name", |m| m.modules[1].name = "a".repeat(513));
    rule(&session, "an input's name", |m| m.modules[1].inputs[0].name = String::new());
    let left_out = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    rule(&session, "left_out", |m| m.left_out = left_out(&["b", "a"]));
    rule(&session, "left_out", |m| m.left_out = left_out(&["a", "a"]));
    rule(&session, "left_out", |m| {
        m.left_out = (0..(1 << 16) + 1).map(|at| format!("{at:05}")).collect()
    });
    for name in ["", "a\nb", &"a".repeat(513)] {
        rule(&session, "left out", |m| m.left_out = left_out(&[name]));
    }
    rule(&session, "fingerprint", |m| m.base_model.fingerprint = Some(String::new()));
    rule(&session, "0 modules", |m| m.modules.clear());
    rule(&session, "dimension", |m| m.modules[1].d_out = 0);
    rule(&session, "dimension", |m| m.modules[1].inputs[0].dim = 0);
    rule(&session, "dimension", |m| m.modules[1].inputs[0].dim = usize::MAX);
    rule(&session, "no terms", |m| m.modules[1].terms.clear());
    rule(&session, "more than 4096 terms", |m| {
        m.modules[0].terms = vec![m.modules[0].terms[1].clone(); 4097]
    });
    rule(&session, "more than 16 inputs", |m| {
        let input = m.modules[0].inputs[0].clone();
        let named =
            (0..17).map(|i| crate::manifest::Input { name: format!("x{i}"), ..input.clone() });
        m.modules[0].inputs = named.collect();
    });
    rule(&session, "LowRank", |m| m.modules[1].terms[0].rank = 0);
    rule(&session, "LowRank", |m| m.modules[1].terms[0].rank = usize::MAX);
    rule(&session, "more than 1048576 pairs", |m| m.modules[1].terms[0].rank = 1 << 20);
    rule(&session, "names an input", |m| m.modules[1].terms[0].input = Some(1));
    for bits in [0, 1, 25, u32::MAX] {
        rule(&session, "x_bits", |m| m.modules[1].x_bits = bits);
        rule(&session, "a_bits", |m| m.modules[1].a_bits = bits);
        rule(&session, "b_bits", |m| m.modules[1].b_bits = bits);
    }
    rule(&session, "delta_bits", |m| m.modules[1].delta_bits = 0);
    rule(&session, "delta_bits", |m| m.modules[1].delta_bits = 64);
    rule(&session, "usable number", |m| m.modules[1].scaling = 0.0);
    rule(&session, "usable number", |m| m.modules[1].scale_log2 = 1001);
    rule(&session, "version 2", |m| m.version = 2);
    rule(&session, "format `other`", |m| m.format = "other".into());
}

#[test]
fn one_sided_terms_have_exactly_their_side() {
    let session = mixed();
    let shape = "does not fit its shape";
    let some = |m: &Manifest| m.modules[0].terms[0].b[0].clone();
    // Module 0: low rank, bias, scale.
    rule(&session, shape, |m| m.modules[0].terms[2].b = vec![some(m)]);
    rule(&session, shape, |m| m.modules[0].terms[1].a = vec![some(m)]);
    rule(&session, "a vector has no commitments", |m| m.modules[0].terms[1].a = vec![vec![]]);
    rule(&session, shape, |m| m.modules[0].terms[0].a.clear());
    rule(&session, shape, |m| m.modules[0].terms[0].b.clear());
    rule(&session, shape, |m| m.modules[0].terms[1].b.clear());
    rule(&session, shape, |m| m.modules[0].terms[2].a.clear());
    rule(&session, shape, |m| m.modules[0].terms[0].a.truncate(1));
    rule(&session, shape, |m| {
        let extra = some(m);
        m.modules[0].terms[0].a.push(extra);
    });
    rule(&session, shape, |m| m.modules[0].terms[0].b[1].truncate(1));
    rule(&session, shape, |m| m.modules[0].terms[0].b[1].push(Point(identity())));
    let impossible = "impossible input, rank or shift";
    rule(&session, impossible, |m| m.modules[0].terms[1].input = Some(0));
    rule(&session, impossible, |m| m.modules[0].terms[2].input = None);
    rule(&session, impossible, |m| m.modules[0].terms[2].input = Some(0));
    rule(&session, impossible, |m| m.modules[0].terms[0].input = None);
    rule(&session, impossible, |m| m.modules[0].terms[0].shift = 1);
    rule(&session, impossible, |m| m.modules[0].terms[1].shift = 63);
    rule(&session, impossible, |m| m.modules[0].terms[2].shift = u32::MAX);
    rule(&session, impossible, |m| m.modules[0].terms[1].rank = 2);
    rule(&session, impossible, |m| m.modules[0].terms[2].rank = 2);
    rule(&session, impossible, |m| m.modules[0].terms[1].kind = TermKind::LowRank);
    rule(&session, impossible, |m| m.modules[0].terms[1].kind = TermKind::Scale);
    rule(&session, impossible, |m| m.modules[0].terms[2].kind = TermKind::Bias);
    // A scale that claims to be low rank lacks a committed B side.
    rule(&session, "settings digest", |m| m.modules[0].terms[2] = m.modules[1].terms[0].clone());
    rule(&session, shape, |m| {
        m.modules[0].terms[2].kind = TermKind::LowRank;
        m.modules[0].terms[2].shift = 0;
        redigested(m);
    });
}

#[test]
fn commitments_outside_the_group_are_refused() {
    let session = mixed();
    for (bytes, why) in [
        (identity(), "is the identity"),
        (outside_the_subgroup(), "prime-order group"),
        ([0; 48], "prime-order group"),
        ([0xff; 48], "prime-order group"),
    ] {
        rule(&session, why, |m| m.modules[2].terms[0].a[1][0] = Point(bytes));
        rule(&session, why, |m| m.modules[0].terms[0].b[1][1] = Point(bytes));
        rule(&session, why, |m| m.modules[0].terms[2].a[0][0] = Point(bytes));
    }
}

/// So many commitments are checked by the sums of random subsets, and the wrong one is named.
#[test]
fn a_commitment_of_many_outside_the_group_is_refused() {
    let shapes = vec![lora(20, 150, 20, 2); 2];
    let draft = draft(&shapes);
    let seed = Seed::generate().unwrap();
    let (manifest, ..) = commit(srs(), &draft, random_pairs(&draft), &seed).unwrap();
    CheckedManifest::parse(&manifest.to_bytes().unwrap()).unwrap();
    for j in [0, 77, 149] {
        let mut manifest = manifest.clone();
        let bytes = outside_the_subgroup();
        manifest.modules[1].terms[0].a[j][0] = Point(bytes);
        rule_of(&manifest.to_bytes().unwrap(), &format!("{} is not a point", hex::encode(bytes)));
        manifest.modules[1].terms[0].a[j][0] = Point(identity());
        rule_of(&manifest.to_bytes().unwrap(), "is the identity");
    }
}

#[test]
fn bytes_that_are_not_canonical_are_refused() {
    let session = mixed();
    let bytes = session.manifest.to_bytes().unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let replaced = |from: &str, to: &str| {
        assert!(text.contains(from));
        text.replacen(from, to, 1).into_bytes()
    };
    rule_of(format!(" {text}").as_bytes(), "canonical");
    rule_of(format!("{text}\n").as_bytes(), "canonical");
    rule_of(&replaced(":", ": "), "canonical");
    rule_of(&replaced("\"rank\":2,\"shift\":0", "\"shift\":0,\"rank\":2"), "canonical");
    rule_of(&replaced("\"scaling\":2.0", "\"scaling\":2"), "canonical");
    rule_of(&replaced("\"scaling\":2.0", "\"scaling\":2e0"), "canonical");
    rule_of(&replaced("\"tiny\"", "\"\\u0074iny\""), "canonical");
    let point = format!("{:?}", session.manifest.modules[0].terms[0].a[0][0]);
    rule_of(&replaced(&point, &point.to_uppercase()), "canonical");
    rule_of(&replaced(&point, &point[2..]), "96 hex digits");
    rule_of(&replaced("\"version\":1", "\"version\":1,\"version\":1"), "duplicate field");
    rule_of(&replaced("\"version\":1", "\"unknown\":1,\"version\":1"), "unknown field");
    rule_of(&replaced("\"shift\":0", "\"shift\":0,\"zeta\":0"), "unknown field");
    rule_of(&replaced("\"version\":1", "\"version\":-1"), "not a manifest");
    rule_of(&replaced("\"version\":1", "\"version\":1.0"), "not a manifest");
    rule_of(&replaced("\"scaling\":2.0", "\"scaling\":1e999"), "not a manifest");
    rule_of(&replaced("\"kind\":\"bias\"", "\"kind\":\"dense\""), "unknown variant");
    rule_of(format!("{text}{text}").as_bytes(), "not a manifest");
    rule_of(&text.as_bytes()[..text.len() - 1], "not a manifest");
    rule_of(b"", "not a manifest");
    rule_of(&b"[".repeat(100_000), "not a manifest");
    rule_of(&[0xff; 64], "not a manifest");
}

#[test]
fn inputs_whose_tensors_a_trace_could_not_tell_apart_are_refused() {
    let session = mixed();
    // `m` with the input `x.scale` and `m.x` would both have a tensor `m.x.scale`.
    for name in ["x.scale", ".", "one", "scale", "delta"] {
        rule(&session, "has a dot or is taken", |m| m.modules[0].inputs[1].name = name.into());
    }
}

#[test]
fn a_manifest_beyond_the_limit_is_not_even_parsed() {
    rule_of(&vec![b' '; crate::manifest::MAX_BYTES + 1], "more than 134217728");
}

#[test]
fn empty_lists_of_commitments_are_refused_at_the_first() {
    let session = mixed();
    let text = String::from_utf8(session.manifest.to_bytes().unwrap()).unwrap();
    let many = text.replacen("\"b\":[", &format!("\"b\":[{}", "[],".repeat(1 << 20)), 1);
    rule_of(many.as_bytes(), "a vector has no commitments at line 1 column");
}

/// Keys are derived from a manifest's layout before its SRS is compared.
#[test]
fn a_layout_of_another_size_than_the_srs_is_an_error_of_the_manifest() {
    let bytes = mixed().manifest.to_bytes().unwrap();
    let layout = CheckedManifest::parse(&bytes).unwrap().layout();
    let larger = Layout { k: layout.k + 1, ..layout };
    let refused = Keys::generate(srs(), larger).err().unwrap();
    assert!(matches!(&refused, Error::Manifest(why) if why.contains("the SRS 2^")), "{refused}");
}
