//! Deliveries: the statement binds ciphertext, key and price to one answer.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;
use zklora_evaluation::{
    Error,
    answer::Answer,
    delivery::{Delivery, DeliveryKey, DeliveryTerms, check_header, decrypt, encrypt},
    digest::Digest,
    envelope::Kind,
};

use crate::parties::{Shop, changes, digest, payload, request, with, with_payload};

const FILES: [(&str, &[u8]); 3] =
    [("opening", b"1"), ("weights.bin", b"22"), ("adapter/export.json", b"{}")];

struct Sale {
    shop: Shop,
    answer: Digest,
    key: DeliveryKey,
    ciphertext: Vec<u8>,
    statement: Vec<u8>,
}

fn terms(answer: Digest) -> DeliveryTerms {
    DeliveryTerms {
        answer,
        key_by: "2027-01-01".into(),
        price: "100 of something".into(),
        verdict_by: "2027-01-08".into(),
    }
}

impl Sale {
    fn new() -> Sale {
        let shop = Shop::new();
        let asked = request(&shop.offer, "nonce");
        let answer = Answer::read(&shop.answer(&asked), &shop.offer, &asked).unwrap();
        let answer = answer.digest().unwrap();
        let key = DeliveryKey::generate();
        let ciphertext = encrypt(&key, FILES).unwrap();
        let names = FILES.map(|(name, _)| name.to_string()).to_vec();
        let signing = shop.identity().key;
        let of = (&ciphertext[..], names);
        let statement = Delivery::sign(&signing, &shop.offer, terms(answer), &key, of).unwrap();
        Sale { shop, answer, key, ciphertext, statement }
    }

    fn read(&self, statement: &[u8]) -> Result<Delivery, Error> {
        Delivery::read(statement, &self.shop.offer, &self.answer)
    }

    /// The statement with another value, signed by the contributor.
    fn signed_with(&self, place: &str, value: impl Into<serde_json::Value>) -> Vec<u8> {
        self.shop.sign(Kind::Delivery, &with(&payload(&self.statement), place, value))
    }
}

#[test]
fn every_field_of_a_statement_is_signed() {
    let sale = Sale::new();
    sale.read(&sale.statement).unwrap();
    let all = changes(&payload(&sale.statement));
    assert!(all.len() > 14);
    for (place, changed) in all {
        let refused = sale.read(&with_payload(&sale.statement, &changed));
        assert!(matches!(refused, Err(Error::Signature { .. })), "{place}");
    }
    for (place, changed) in changes(&sale.statement) {
        assert!(sale.read(&changed).is_err(), "{place}");
    }
}

#[test]
fn a_statement_is_for_one_answer_and_one_offer() {
    let sale = Sale::new();
    for place in ["/answer", "/offer"] {
        let refused = sale.read(&sale.signed_with(place, digest("other").to_string()));
        assert!(matches!(refused, Err(Error::Mismatch { .. })), "{place}");
    }
    let other = Delivery::read(&sale.statement, &sale.shop.offer, &digest("other answer"));
    assert!(matches!(other, Err(Error::Mismatch { .. })));
    let other = Delivery::read(&sale.statement, &Shop::new().offer, &sale.answer);
    assert!(matches!(other, Err(Error::Signature { .. })));
}

#[test]
fn statements_of_another_form_are_refused() {
    let sale = Sale::new();
    for (place, value) in [
        ("/version", json!(2)),
        ("/format", json!("zklora-offer")),
        ("/tool", json!("0.2")),
        ("/tool", json!("1.2.3-rc")),
        ("/tool", json!("a.b.c")),
        ("/price", json!("1\n2")),
        ("/price", json!("\u{1b}[31m")),
        ("/price", json!("\"")),
        ("/key_by", json!("x".repeat(2000))),
        ("/verdict_by", json!("\u{202e}")),
        ("/files/0", json!("x".repeat(101))),
        ("/files/0", json!("\u{1b}[2J")),
        ("/files/0", json!("../opening")),
        ("/files", json!(vec!["x"; 5000])),
        ("/ciphertext_bytes", json!(-1)),
        ("/key", json!("AB".repeat(32))),
    ] {
        let error = sale.read(&sale.signed_with(place, value)).unwrap_err().to_string();
        assert!(!error.contains(['\u{1b}', '\n']), "{error:?}");
    }
    for (tool, is_newer) in [("0.1.0", false), ("0.2.0", false), ("99.0.0", true)] {
        let delivery = sale.read(&sale.signed_with("/tool", tool)).unwrap();
        assert_eq!(delivery.is_newer(), is_newer, "{tool}");
    }
}

#[test]
fn another_ciphertext_is_not_the_signed_one() {
    let sale = Sale::new();
    let delivery = sale.read(&sale.statement).unwrap();
    delivery.check_ciphertext(&sale.ciphertext).unwrap();
    let bytes = &sale.ciphertext;
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert!(delivery.check_ciphertext(&changed).is_err());
        assert!(delivery.check_ciphertext(&bytes[..at]).is_err());
    }
    assert!(delivery.check_ciphertext(&[&bytes[..], b"\n"].concat()).is_err());
    // The same files for the same key, encrypted once more.
    assert!(delivery.check_ciphertext(&encrypt(&sale.key, FILES).unwrap()).is_err());
    // The right digest with another length.
    let length = sale.read(&sale.signed_with("/ciphertext_bytes", 7)).unwrap();
    assert!(length.check_ciphertext(bytes).is_err());
}

#[test]
fn a_ciphertext_means_the_same_to_all_tools() {
    use age::x25519::Identity;
    let sale = Sale::new();
    check_header(&sale.ciphertext).unwrap();
    assert_eq!(decrypt(&sale.key, &sale.ciphertext).unwrap().len(), FILES.len());
    let own: Identity = sale.key.expose().parse().unwrap();
    let (own, other) = (own.to_public(), Identity::generate().to_public());
    let to = |recipients: &[&dyn age::Recipient]| {
        let encryptor = age::Encryptor::with_recipients(recipients.iter().copied()).unwrap();
        let mut bytes = Vec::new();
        encryptor.wrap_output(&mut bytes).unwrap().finish().unwrap();
        bytes
    };
    let line = sale.ciphertext.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let with_stanza = |stanza: &str| {
        [&sale.ciphertext[..line], stanza.as_bytes(), &sale.ciphertext[line..]].concat()
    };
    let base64 = STANDARD.encode(&sale.ciphertext);
    let armored = format!("-----BEGIN AGE ENCRYPTED FILE-----\n{base64}\n");
    let scrypt = "age-encryption.org/v1\n-> scrypt bBjlhJVYZeE4aqUdmtRHfw 15\nZV\n--- m\nbody";
    for (why, bytes) in [
        ("two recipients", to(&[&own, &other])),
        ("the same one twice", to(&[&own, &own])),
        ("text", armored.into_bytes()),
        ("a passphrase", scrypt.as_bytes().to_vec()),
        ("another kind of recipient", with_stanza("-> ssh-ed25519 AAAA BBBB\nCCCC\n")),
        ("a plugin", with_stanza("-> yubikey AAAA\nCCCC\n")),
        (
            "another version",
            sale.ciphertext.iter().map(|b| if *b == b'1' { b'2' } else { *b }).collect(),
        ),
        ("no end", sale.ciphertext[..line + 20].to_vec()),
        ("nothing", Vec::new()),
        ("a tar archive", vec![0; 1024]),
    ] {
        let refused = check_header(&bytes).unwrap_err();
        assert!(matches!(refused, Error::Form { .. }), "{why}");
        assert!(decrypt(&sale.key, &bytes).is_err(), "{why}");
    }
    // What the header does not show.
    for (why, bytes) in [
        ("it is for another key", to(&[&other])),
        ("it has no archive", to(&[&own])),
        ("its end is missing", sale.ciphertext[..sale.ciphertext.len() - 1].to_vec()),
        ("there is more", [&sale.ciphertext[..], b"x"].concat()),
    ] {
        check_header(&bytes).unwrap();
        assert!(matches!(decrypt(&sale.key, &bytes), Err(Error::Form { .. })), "{why}");
    }
}

#[test]
fn a_key_is_the_signed_text() {
    let sale = Sale::new();
    let delivery = sale.read(&sale.statement).unwrap();
    let text = sale.key.expose();
    for known in [text.to_string(), format!("{text}\n"), format!(" \t{text}\r\n")] {
        assert_eq!(delivery.key(known.as_bytes()).unwrap().digest(), delivery.key);
    }
    for other in [
        text.to_lowercase(),
        format!("# created by age\n{text}\n"),
        format!("{text}{text}"),
        text[..text.len() - 1].to_string(),
        DeliveryKey::generate().expose().to_string(),
        String::new(),
    ] {
        // Whoever holds it may have mixed it up: no fault of the contributor.
        let refused = delivery.key(other.as_bytes());
        assert!(matches!(refused, Err(Error::Mismatch { .. })), "{other:?}");
    }
    assert!(DeliveryKey::parse(&text.to_lowercase()).is_err());
}

fn sha256(text: &str) -> Digest {
    use sha2::{Digest as _, Sha256};
    Digest(Sha256::digest(text.as_bytes()).into())
}

/// The contributor signs the digest of a text that is no key: its fault, and provable.
#[test]
fn a_signed_digest_of_no_key_is_the_contributors_fault() {
    let sale = Sale::new();
    let digest = |text: &str| Digest::derived("zklora v1 delivery key", text.as_bytes());
    let key = sale.key.expose();
    for text in [
        format!("{key}\n"),
        format!(" {key}"),
        key.to_lowercase(),
        format!("{key}x"),
        "the key is in another castle".into(),
        String::new(),
        "\u{fffd}".into(),
    ] {
        let statement = payload(&sale.signed_with("/key", digest(&text).to_string()));
        let statement = with(&statement, "/key_sha256", sha256(&text).to_string());
        let delivery = sale.read(&sale.shop.sign(Kind::Delivery, &statement)).unwrap();
        let refused = delivery.key(text.as_bytes()).unwrap_err();
        assert!(matches!(refused, Error::Form { .. }), "{text:?}");
        assert!(!refused.to_string().contains("two texts"), "{refused}");
    }
}

/// An escrow that knows SHA-256 alone pays for another text than one that knows BLAKE3: whatever it
/// hands over shows that the contributor signed digests of two texts.
#[test]
fn two_digests_of_two_keys_are_the_contributors_fault() {
    let sale = Sale::new();
    let other = DeliveryKey::generate();
    let statement = sale.signed_with("/key_sha256", sha256(other.expose()).to_string());
    let delivery = sale.read(&statement).unwrap();
    for paid_for in [other.expose(), sale.key.expose()] {
        let refused = delivery.key(paid_for.as_bytes());
        assert!(matches!(refused, Err(Error::Form { .. })));
    }
    let third = DeliveryKey::generate();
    assert!(matches!(delivery.key(third.expose().as_bytes()), Err(Error::Mismatch { .. })));
}
