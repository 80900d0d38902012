//! A contributor that delivers anything but the pinned adapter is CONTRADICTED, once the buyer paid
//! for it; what the buyer or the machine mixed up never is.

use std::fs;

use serde_json::json;
use zklora_evaluation::{
    delivery::{DeliveryKey, encrypt},
    digest::Digest,
};
use zklora_runtime::evaluate::{SettleOptions, Settlement, Verdict, settle};

use crate::parties::{ADAPTER, OTHER, Purchase, Shop, delivered, judge, world};

type Files = Vec<(String, Vec<u8>)>;

fn names(files: &Files) -> Vec<String> {
    files.iter().map(|(name, _)| name.clone()).collect()
}

/// An answer that was bought from an honest server.
fn bought() -> (Shop, Purchase) {
    let shop = Shop::new();
    let purchase = Purchase::of(&shop, shop.honest());
    (shop, purchase)
}

fn before_payment(purchase: &Purchase) -> Settlement {
    let options = SettleOptions { key: None, ..purchase.settle_options() };
    settle(&purchase.path(""), &world().srs, &options, &mut |_, _| {}).unwrap()
}

#[track_caller]
fn contradicted(shop: &Shop, purchase: &Purchase, why: &str) {
    let found = purchase.settle();
    assert_eq!(found.verdict, Verdict::Contradicted, "{why}: {:?}", found.reasons);
    let third = judge(&purchase.files(), shop.offer.offer.key);
    assert_eq!((third.verdict, third.reasons), (found.verdict, found.reasons), "{why}");
}

/// Changes the honest delivery's files.
fn changed(change: impl FnOnce(&mut Files)) -> Files {
    let mut files = delivered(ADAPTER);
    change(&mut files);
    files
}

fn with(at: usize, bytes: impl Into<Vec<u8>>) -> Files {
    let bytes = bytes.into();
    changed(|files| files[at].1 = bytes)
}

fn config(from: &str, to: &str) -> Files {
    let config = String::from_utf8(delivered(ADAPTER)[2].1.clone()).unwrap();
    let other = config.replacen(from, to, 1);
    assert_ne!(other, config);
    with(2, other)
}

/// The files of the exported adapter, one of them changed.
fn exported(change: impl FnOnce(&mut Files)) -> Files {
    let mut files: Files = fs::read_dir(world().exported(ADAPTER))
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_string();
            (format!("adapter/{name}"), fs::read(path).unwrap())
        })
        .filter(|(name, _)| name.ends_with(".onnx") || name.ends_with("export.json"))
        .collect();
    files.sort();
    let mut all = delivered(ADAPTER);
    all.truncate(2);
    all.extend(files);
    change(&mut all);
    all
}

/// These names are no adapter: the buyer knows it before it pays.
#[test]
fn a_list_of_files_that_is_no_adapter_is_contradicted_before_payment() {
    let (shop, purchase) = bought();
    let more = |name: &str| changed(|files| files.push((name.into(), b"x".to_vec())));
    for (why, files) in [
        ("nothing", Vec::new()),
        ("no adapter", changed(|files| files.truncate(2))),
        ("no weights.bin", changed(|files| drop(files.remove(1)))),
        ("no opening", changed(|files| drop(files.remove(0)))),
        ("another order", changed(|files| files.swap(0, 1))),
        ("another order", changed(|files| files.swap(2, 3))),
        ("one more file", more("adapter/README.md")),
        ("one more file", more("more")),
        ("a pickle", changed(|files| files[3].0 = "adapter/adapter_model.bin".into())),
        ("a pickle, too", more("adapter/adapter_model.bin")),
        ("another folder", changed(|files| files[2].0 = "peft/adapter_config.json".into())),
        (
            "a folder in the folder",
            exported(|files| {
                files.push(("adapter/more/x.onnx".into(), b"x".to_vec()));
            }),
        ),
        ("no index", exported(|files| files.retain(|(name, _)| !name.contains("export.json")))),
    ] {
        purchase.receive(&shop, &files);
        let before = before_payment(&purchase);
        assert_eq!(before.verdict, Verdict::Contradicted, "{why}: {:?}", before.reasons);
        contradicted(&shop, &purchase, why);
    }
}

/// These are seen once the key is there.
#[test]
fn a_delivery_that_is_not_the_pinned_adapter_is_contradicted() {
    let (shop, purchase) = bought();
    let other = delivered(OTHER);
    let good = delivered(ADAPTER);
    let of_other = |at: usize| with(at, other[at].1.clone());
    let mut version = good[1].1.clone();
    version[8] += 1;
    let mut integer = good[1].1.clone();
    let last = integer.len() - 4;
    integer[last] ^= 1;
    let cut = &good[1].1[..good[1].1.len() - 1];
    let weights = &good[3].1;
    let mut other_float = weights.clone();
    let end = other_float.len() - 2;
    other_float[end] ^= 0x40;
    let onnx = |files: &mut Files| {
        let at = files.iter().position(|(name, _)| name.ends_with(".onnx")).unwrap();
        files.remove(at)
    };
    let all_of_other = vec![good[0].clone(), other[1].clone(), other[2].clone(), other[3].clone()];
    for (why, files) in [
        ("the opening of another adapter", of_other(0)),
        ("the integers of another adapter", of_other(1)),
        ("the configuration of another adapter", of_other(2)),
        ("all of another adapter", other.clone()),
        ("all of another adapter, with this opening", all_of_other),
        ("an opening that is none", with(0, "{}")),
        ("an empty opening", with(0, "")),
        ("weights.bin of another version", with(1, version)),
        ("one other integer", with(1, integer)),
        ("cut weights.bin", with(1, cut)),
        ("no weights.bin", with(1, "zklorawt")),
        ("a configuration that is no JSON", with(2, "{")),
        ("an unknown kind of adapter", config("\"LORA\"", "\"HYPNOSIS\"")),
        ("another scale", config("\"lora_alpha\": 8", "\"lora_alpha\": 16")),
        ("another rank", config("\"r\": 4", "\"r\": 2")),
        ("DoRA", config("\"use_dora\": false", "\"use_dora\": true")),
        ("biases that are none", config("\"bias\": \"none\"", "\"bias\": \"some\"")),
        ("weights that are none", with(3, "x")),
        ("cut weights", with(3, &weights[..weights.len() - 4])),
        ("one other float", with(3, other_float)),
        ("a pickle under another name", with(3, b"\x80\x02}q\x00.".to_vec())),
        ("a module is missing", exported(|files| drop(onnx(files)))),
        (
            "a module is another",
            exported(|files| {
                let at = files.iter().position(|(name, _)| name.ends_with(".onnx")).unwrap();
                files[at].1 = files[at + 1].1.clone();
            }),
        ),
        (
            "a module is none",
            exported(|files| {
                let at = files.iter().position(|(name, _)| name.ends_with(".onnx")).unwrap();
                files[at].1 = b"x".to_vec();
            }),
        ),
        (
            "an index that is none",
            exported(|files| {
                let at = files.iter().position(|(name, _)| name.ends_with("export.json")).unwrap();
                files[at].1 = b"{}".to_vec();
            }),
        ),
    ] {
        purchase.receive(&shop, &files);
        let found = purchase.settle();
        assert_eq!(found.verdict, Verdict::Contradicted, "{why}: {:?}", found.reasons);
    }
    assert_eq!(before_payment(&purchase).verdict, Verdict::Payable);
    contradicted(&shop, &purchase, "for a third party, too");
    // And the honest one, in the same folder, twice.
    for files in [good, exported(|_| {})] {
        purchase.receive(&shop, &files);
        let found = purchase.settle();
        assert_eq!(found.verdict, Verdict::Settled, "{:?}", found.reasons);
    }
}

#[test]
fn a_ciphertext_that_is_none_is_contradicted() {
    let (shop, purchase) = bought();
    let files = delivered(ADAPTER);
    let key = DeliveryKey::generate();
    let contents = || files.iter().map(|(name, bytes)| (name.as_str(), &bytes[..]));
    let good = encrypt(&key, contents()).unwrap();
    let to_another = encrypt(&DeliveryKey::generate(), contents()).unwrap();
    let reversed = encrypt(&key, contents().rev()).unwrap();
    let extra = encrypt(&key, contents().chain([("more", &b"x"[..])])).unwrap();
    let doubled = encrypt(&key, contents().chain(contents().skip(3))).unwrap();
    let missing = encrypt(&key, contents().take(3)).unwrap();
    for (why, bytes, is_seen_before) in [
        ("nothing", Vec::new(), true),
        ("an armored file", b"-----BEGIN AGE ENCRYPTED FILE-----\n".to_vec(), true),
        ("a passphrase", b"age-encryption.org/v1\n-> scrypt a 18\nb\n--- c\n".to_vec(), true),
        (
            "two recipients",
            b"age-encryption.org/v1\n-> X25519 a\nb\n-> X25519 c\nd\n--- e\n".to_vec(),
            true,
        ),
        ("for another key", to_another, false),
        ("cut by the contributor", good[..good.len() - 1].to_vec(), false),
        ("changed by the contributor", [&good[..good.len() - 1], b"x"].concat(), false),
        ("in another order", reversed, false),
        ("one more file", extra, false),
        ("a file twice", doubled, false),
        ("a file less", missing, false),
    ] {
        purchase.receive_ciphertext(&shop, &key, &bytes, names(&files), |_| {});
        let before = before_payment(&purchase).verdict;
        assert_eq!(before == Verdict::Contradicted, is_seen_before, "{why}");
        assert!(is_seen_before || before == Verdict::Payable);
        contradicted(&shop, &purchase, why);
    }
}

#[test]
fn a_key_that_is_none_is_contradicted() {
    let (shop, purchase) = bought();
    let files = delivered(ADAPTER);
    let key = DeliveryKey::generate();
    let contents = files.iter().map(|(name, bytes)| (name.as_str(), &bytes[..]));
    let ciphertext = encrypt(&key, contents).unwrap();
    // The digest is of the key with a line's end: whoever pays for that text gets no key.
    let text = format!("{}\n", key.expose());
    let digest = Digest::derived("zklora v1 delivery key", text.as_bytes()).to_string();
    purchase.receive_ciphertext(&shop, &key, &ciphertext, names(&files), |statement| {
        statement["key"] = digest.into();
    });
    fs::write(purchase.path("key"), &text).unwrap();
    contradicted(&shop, &purchase, "a key with a line's end");
    // The two digests are of two keys.
    let other = DeliveryKey::generate();
    purchase.receive_ciphertext(&shop, &key, &ciphertext, names(&files), |statement| {
        statement["key"] = other.digest().to_string().into();
    });
    for paid_for in [&key, &other] {
        fs::write(purchase.path("key"), paid_for.expose()).unwrap();
        contradicted(&shop, &purchase, "digests of two keys");
    }
}

#[test]
fn what_the_buyer_or_the_tool_mixes_up_is_undecidable() {
    let (shop, purchase) = bought();
    let good = delivered(ADAPTER);
    purchase.receive(&shop, &good);
    let keep = |name: &str| fs::read(purchase.path(name)).unwrap();
    let (key, ciphertext) = (keep("key"), keep("delivery.age"));
    let undecidable = |why: &str| {
        for found in [purchase.settle(), judge(&purchase.files(), shop.offer.offer.key)] {
            assert_eq!(found.verdict, Verdict::Undecidable, "{why}: {:?}", found.reasons);
        }
        assert!(!purchase.path("evidence.tar").exists(), "{why}");
    };
    for wrong in [
        b"".to_vec(),
        DeliveryKey::generate().expose().into(),
        key.to_ascii_lowercase(),
        key[..key.len() - 1].to_vec(),
        [&key[..], b"x"].concat(),
    ] {
        fs::write(purchase.path("key"), wrong).unwrap();
        undecidable("a wrong key");
    }
    fs::write(purchase.path("key"), &key).unwrap();
    let mut flipped = ciphertext.clone();
    flipped[300] ^= 1;
    for wrong in [&ciphertext[..ciphertext.len() - 1], &ciphertext[..0], &flipped] {
        fs::write(purchase.path("delivery.age"), wrong).unwrap();
        undecidable("a wrong ciphertext");
    }
    fs::write(purchase.path("delivery.age"), &ciphertext).unwrap();
    // White space around the key is not the key's.
    fs::write(purchase.path("key"), [b" ", &key[..], b"\r\n"].concat()).unwrap();
    assert_eq!(purchase.settle().verdict, Verdict::Settled);
    // Statements of a newer tool.
    for (field, value) in [("tool", json!("99.0.0")), ("quantisation", json!(2))] {
        let own = DeliveryKey::generate();
        let contents = good.iter().map(|(name, bytes)| (name.as_str(), &bytes[..]));
        let bytes = encrypt(&own, contents).unwrap();
        purchase.receive_ciphertext(&shop, &own, &bytes, names(&good), |statement| {
            statement[field] = value;
        });
        assert_eq!(before_payment(&purchase).verdict, Verdict::Undecidable, "{field}");
        undecidable(field);
    }
}
