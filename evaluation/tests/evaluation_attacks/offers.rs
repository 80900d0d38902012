//! Offers: whoever reads one knows which key made it, and that all of it is signed.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;
use zklora_evaluation::{
    Error,
    digest::Digest,
    envelope::{Envelope, Kind},
    offer::{self, SignedOffer, Terms},
    signing_key::SigningKey,
};

use crate::parties::{Shop, changes, digest, payload, terms, with, with_payload};

#[track_caller]
fn is_of_signature(result: Result<SignedOffer, Error>) {
    let error = result.unwrap_err();
    assert!(matches!(error, Error::Signature { .. }), "{error}");
}

#[test]
fn an_offer_is_signed_by_the_key_that_it_names() {
    let (shop, other) = (Shop::new(), SigningKey::generate());
    let statement = payload(&shop.offer.bytes);
    // Another key signs it, and says so, or hides it.
    let by_other = Envelope::sign(&other, Kind::Offer, &statement).to_bytes().unwrap();
    is_of_signature(SignedOffer::parse(&by_other));
    let own = shop.identity().key.public().to_string();
    is_of_signature(SignedOffer::parse(&with(&by_other, "/signatures/0/keyid", own)));
    // The offer names another key than the one that signs it.
    let named = with(&statement, "/key", other.public().to_string());
    is_of_signature(SignedOffer::parse(&shop.sign(Kind::Offer, &named)));
}

#[test]
fn every_field_of_an_offer_is_signed() {
    let mut terms = terms("adapter");
    let (old, new) = (SigningKey::generate(), SigningKey::generate());
    terms.rotations = vec![offer::rotation(&old, &new.public()).unwrap()];
    let good = SignedOffer::sign(&new, terms).unwrap();
    let all = changes(&payload(&good.bytes));
    assert!(all.len() > 20);
    for (place, changed) in all {
        let refused = SignedOffer::parse(&with_payload(&good.bytes, &changed));
        assert!(refused.is_err(), "{place}");
    }
    for (place, changed) in changes(&good.bytes) {
        assert!(SignedOffer::parse(&changed).is_err(), "{place}");
    }
}

#[test]
fn a_signature_over_one_kind_of_statement_is_none_over_another() {
    let shop = Shop::new();
    let key = shop.identity().key;
    let kinds = [Kind::Offer, Kind::Answer, Kind::Delivery, Kind::Rotation];
    for (signed, read) in kinds.iter().flat_map(|a| kinds.map(|b| (*a, b))) {
        let envelope = Envelope::sign(&key, signed, b"{}");
        assert_eq!(envelope.open(read, &key.public()).is_ok(), signed == read);
        // Nor if the envelope says so.
        let name = |kind| {
            let envelope = Envelope::sign(&key, kind, b"{}").to_bytes().unwrap();
            let envelope: serde_json::Value = serde_json::from_slice(&envelope).unwrap();
            envelope["payloadType"].clone()
        };
        let renamed = with(&envelope.to_bytes().unwrap(), "/payloadType", name(read));
        let renamed = Envelope::parse(&renamed, read).unwrap();
        assert_eq!(renamed.open(read, &key.public()).is_ok(), signed == read);
    }
    is_of_signature(SignedOffer::parse(&shop.sign(Kind::Answer, &payload(&shop.offer.bytes))));
}

#[test]
fn a_chain_of_rotations_has_all_its_links() {
    let keys: [SigningKey; 4] = std::array::from_fn(|_| SigningKey::generate());
    let link = |from: usize, to: usize| offer::rotation(&keys[from], &keys[to].public()).unwrap();
    let offered = |key: usize, rotations: &[Envelope]| {
        let terms = Terms { rotations: rotations.to_vec(), ..terms("adapter") };
        SignedOffer::sign(&keys[key], terms)
    };
    let whole = [link(0, 1), link(1, 2), link(2, 3)];
    let good = offered(3, &whole).unwrap();
    assert_eq!(good.keys, keys.iter().map(SigningKey::public).collect::<Vec<_>>());
    for (at, key) in keys.iter().enumerate() {
        let earlier = SignedOffer::sign(key, terms("adapter")).unwrap();
        assert!(good.follows(&earlier.offer), "{at}");
    }
    let stranger = SignedOffer::sign(&SigningKey::generate(), terms("adapter")).unwrap();
    assert!(!good.follows(&stranger.offer));
    // Without its first links, it is a shorter chain, which the oldest keys are not in.
    let shorter = offered(3, &whole[1..]).unwrap();
    assert!(!shorter.follows(&SignedOffer::sign(&keys[0], terms("adapter")).unwrap().offer));

    for (why, key, rotations) in [
        ("the last link is missing", 3, vec![link(0, 1), link(1, 2)]),
        ("a link in the middle is missing", 3, vec![link(0, 1), link(2, 3)]),
        ("links are in another order", 3, vec![link(1, 2), link(0, 1), link(2, 3)]),
        ("a link is there twice", 3, vec![link(0, 1), link(0, 1), link(1, 2), link(2, 3)]),
        ("the offer is signed by an earlier key", 1, whole.to_vec()),
        ("the offer is signed by a key that no link is to", 0, vec![link(1, 2), link(2, 3)]),
    ] {
        assert!(offered(key, &rotations).is_err(), "{why}");
    }
    // Each link, signed by another key, as another kind, or changed after it was signed.
    for broken in 0..whole.len() {
        let old = payload(&whole[broken].to_bytes().unwrap());
        let thief = Envelope::sign(&keys[(broken + 1) % 4], Kind::Rotation, &old);
        let kind = Envelope::sign(&keys[broken], Kind::Offer, &old);
        let version = with(&old, "/version", 2);
        let version = Envelope::sign(&keys[broken], Kind::Rotation, &version);
        let spaced = [&old[..], b" "].concat();
        let spaced = Envelope::sign(&keys[broken], Kind::Rotation, &spaced);
        let mut bad = vec![thief, kind, version, spaced];
        for (_, changed) in changes(&whole[broken].to_bytes().unwrap()) {
            bad.extend(Envelope::parse(&changed, Kind::Rotation));
        }
        for envelope in bad {
            let mut rotations = whole.to_vec();
            rotations[broken] = envelope;
            assert!(offered(3, &rotations).is_err(), "{broken}");
        }
    }
    let many: Vec<Envelope> = (0..65).map(|at| link(at % 2, (at + 1) % 2)).collect();
    assert!(offered(0, &many[..64]).is_ok());
    assert!(offered(1, &many).is_err());
}

/// With such a key, one signature is valid for many statements.
#[test]
fn keys_of_small_order_sign_nothing() {
    let statement = payload(&Shop::new().offer.bytes);
    for key in [
        "0100000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000080",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    ] {
        let mut nothing = [0; 64];
        nothing[0] = 1;
        let envelope = json!({
            "payload": STANDARD.encode(with(&statement, "/key", key)),
            "payloadType": "application/vnd.zklora.offer.v1+json",
            "signatures": [{ "keyid": key, "sig": STANDARD.encode(nothing) }],
        });
        is_of_signature(SignedOffer::parse(&serde_json::to_vec(&envelope).unwrap()));
    }
}

#[test]
fn a_signature_has_one_form() {
    let good = Shop::new().offer.bytes;
    let text = |place: &str| {
        let envelope: serde_json::Value = serde_json::from_slice(&good).unwrap();
        envelope.pointer(place).unwrap().clone()
    };
    let sig = text("/signatures/0/sig").as_str().unwrap().to_string();
    let mut bytes = STANDARD.decode(&sig).unwrap();
    // The same scalar, plus the order of the group.
    let order = "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010";
    let mut carry = 0;
    for (byte, add) in bytes[32..].iter_mut().zip(hex::decode(order).unwrap()) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        (*byte, carry) = (sum as u8, sum >> 8);
    }
    for other in [
        STANDARD.encode(&bytes),
        STANDARD.encode(&bytes[..63]),
        STANDARD.encode([&bytes[..], &[0]].concat()),
        sig.trim_end_matches('=').into(),
        format!("{sig}\n"),
        // Bits of the last character that are not used.
        sig.replacen("A==", "B==", 1).replacen("Q==", "R==", 1).replacen("g==", "h==", 1),
        String::new(),
    ] {
        if other != sig {
            is_of_signature(SignedOffer::parse(&with(&good, "/signatures/0/sig", other)));
        }
    }
    let one = text("/signatures/0");
    is_of_signature(SignedOffer::parse(&with(&good, "/signatures", json!([one, one]))));
    is_of_signature(SignedOffer::parse(&with(&good, "/signatures", json!([]))));
}

#[test]
fn a_file_has_one_form() {
    let shop = Shop::new();
    let statement = String::from_utf8(payload(&shop.offer.bytes)).unwrap();
    let moved =
        statement.replacen("\"per_unit\":true,", "", 1).replacen('{', "{\"per_unit\":true,", 1);
    let bad = [
        statement.replacen(':', ": ", 1),
        format!("{statement}\n"),
        format!(" {statement}"),
        format!("\u{feff}{statement}"),
        moved,
        statement.replacen("\"rules\":1", "\"rules\":1.0", 1),
        statement.replacen("\"rules\":1", "\"rules\":1e0", 1),
        statement.replacen("\"rules\":1", "\"rules\":01", 1),
        statement.replacen("\"rules\":1", "\"rules\":1,\"rules\":1", 1),
        statement.replacen("\"rules\":1", "\"rules\":2,\"rules\":1", 1),
        statement.replacen("\"rules\":1", "\"rules\":1,\"rulez\":1", 1),
        statement.replacen("somebody", "\\u0073omebody", 1),
        statement.replacen("https://", "https:\\/\\/", 1),
        statement.replacen("\"version\":1", "\"version\":2", 1),
        statement.replacen("zklora-offer", "zklora-other", 1),
        statement.replacen(&digest("adapter").to_string(), &"AB".repeat(32), 1),
    ];
    for changed in &bad {
        assert_ne!(*changed, statement);
        let refused = SignedOffer::parse(&shop.sign(Kind::Offer, changed.as_bytes()));
        assert!(refused.is_err(), "{changed}");
    }
    // The envelope, too.
    let envelope = String::from_utf8(shop.offer.bytes.clone()).unwrap();
    for changed in [
        format!("{envelope}\n"),
        envelope.replacen(':', " :", 1),
        envelope.replacen("{\"payload\"", "{\"more\":1,\"payload\"", 1),
        envelope.replacen("{\"payload\":", "{\"payload\":\"\",\"payload\":", 1),
    ] {
        assert!(SignedOffer::parse(changed.as_bytes()).is_err(), "{changed}");
    }
}

#[test]
fn texts_are_plain() {
    let shop = Shop::new();
    let statement = payload(&shop.offer.bytes);
    let long = "x".repeat(1025);
    for text in [
        "a \"quote\"",
        "a\\b",
        "two\nlines",
        "\u{1b}[2J",
        "tab\t",
        "\u{0}",
        "\u{7f}",
        "Zo\u{eb}",
        "\u{202e}txt",
        long.as_str(),
    ] {
        for place in ["/contact", "/base_model"] {
            let bytes = shop.sign(Kind::Offer, &with(&statement, place, text));
            let error = SignedOffer::parse(&bytes).unwrap_err().to_string();
            // And the error says so in plain text.
            assert!(!error.contains(['\u{1b}', '\n', '\u{0}', '\u{202e}']), "{error:?}");
        }
    }
    SignedOffer::parse(&shop.sign(Kind::Offer, &with(&statement, "/contact", "<b>'$`&"))).unwrap();
}

#[test]
fn terms_that_nobody_can_keep_are_refused() {
    let shop = Shop::new();
    let statement = payload(&shop.offer.bytes);
    for (place, value) in [
        ("/layers", json!([])),
        ("/layers/0", json!(-1)),
        ("/layers/0", json!(1u64 << 32)),
        ("/limits/units", json!(0)),
        ("/limits/units", json!((1 << 20) + 1)),
        ("/limits/tokens", json!((1u64 << 31) + 1)),
        ("/limits/unit_tokens", json!(1)),
        ("/score_bits", json!(-1)),
        ("/score_bits", json!(17)),
        ("/budget/bits_per_client", json!(100_001)),
        ("/budget/bits", json!(-1)),
    ] {
        let bytes = shop.sign(Kind::Offer, &with(&statement, place, value.clone()));
        assert!(SignedOffer::parse(&bytes).is_err(), "{place} {value}");
    }
    assert_eq!(SignedOffer::parse(&shop.offer.bytes).unwrap().digest, Digest::of(&statement));
}
