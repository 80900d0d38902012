//! Proofs of samples: what a buyer learns, and what a contributor cannot pass off as a proof.

use std::{cell::RefCell, fs, rc::Rc};

use zklora_evaluation::{
    answering::Answering,
    archive,
    metric::Metric,
    offer::Bits,
    proving::{KnownProof, PROOF, ProofLimits},
    sample::ProofRequest,
    unit_scores::{Scorer, UnitScores},
    values::{Means, Values, mean},
};
use zklora_inference::proof;
use zklora_integer::unit::Unit;
use zklora_runtime::{
    Error,
    evaluate::{Bought, BuyOptions, EarlierSamples, Folder, Proven, Report, SampleOptions},
};

use crate::parties::{OTHER, Purchase, Server, Shop, world};

fn bought(purchase: &Purchase, server: &mut Server, units: u32) -> Result<Bought, Error> {
    asked(purchase, server, TEXTS, SampleOptions { units, metric: None })
}

/// Three short texts, which fit one part of a proof.
const TEXTS: &str = r#"{"group": "text", "tokens": [7, 9, 4, 3], "from": 1}
{"group": "text", "tokens": [1, 5, 2, 8, 6], "from": 2}
{"group": "text", "tokens": [3, 3, 7], "from": 1}
"#;

/// An evaluation of these lines, with a sample.
fn asked(
    purchase: &Purchase,
    server: &mut Server,
    lines: &str,
    sample: SampleOptions,
) -> Result<Bought, Error> {
    let options = BuyOptions { prove: Some(sample), ..purchase.options(lines) };
    purchase.buy_with(server, &options)
}

fn grade(purchase: &Purchase) -> &'static str {
    Report::of(&Folder::new(&purchase.path(""), &purchase.memory())).unwrap().grade
}

type Change = Box<dyn Fn(Vec<u8>) -> Vec<u8>>;

/// A server whose proofs go through `change`.
fn changing(shop: &Shop, change: Change) -> Server {
    let mut server = shop.proving(1000);
    server.change_proof = change;
    server
}

type Files = Vec<(String, Vec<u8>)>;

fn unpacked(proof: &[u8]) -> Files {
    let entries = archive::read(proof, "proof").unwrap();
    entries.into_iter().map(|entry| (entry.name, entry.bytes.to_vec())).collect()
}

fn packed(files: &Files) -> Vec<u8> {
    let mut bytes = Vec::new();
    let files = files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
    archive::write(files, &mut bytes).unwrap();
    bytes
}

fn on_files(change: impl Fn(&mut Files) + 'static) -> Change {
    Box::new(move |proof| {
        let mut files = unpacked(&proof);
        change(&mut files);
        packed(&files)
    })
}

/// The nonce that a buyer shows when it asks for a proof.
fn nonce(purchase: &Purchase) -> [u8; 32] {
    let secret = fs::read_to_string(purchase.path("draw")).unwrap();
    let mut bytes = [0; 32];
    hex::decode_to_slice(secret.trim(), &mut bytes).unwrap();
    blake3::derive_key("zklora v1 evaluation draw nonce", &bytes)
}

/// A server that accepted the request to prove a sample of so many units, and has proven nothing.
fn accepted(shop: &Shop, units: u32) -> (Server, ProofRequest) {
    let purchase = Purchase::start(shop);
    let mut server = shop.proving(1000);
    let found = purchase.buy_with(&mut server, &purchase.options(TEXTS)).unwrap();
    let nonce = nonce(&purchase);
    let request = ProofRequest::new(&found.answer, nonce, Metric::LogProbability, units).unwrap();
    server.answering.accept_proof(&request, "buyer").unwrap();
    (server, request)
}

#[test]
fn the_mean_of_a_drawn_sample_is_proven() {
    let shop = Shop::new();
    let purchase = Purchase::start(&shop);
    let mut server = shop.proving(1000);
    let found = bought(&purchase, &mut server, 2).unwrap();
    let proven = found.proven.unwrap();
    assert_eq!(grade(&purchase), "proven");
    assert_eq!((proven.units.len(), proven.bits), (2, 33));

    // The same mean as by hand, from the scores of single units.
    let request = &found.request;
    let drawn: Vec<Unit> =
        proven.units.iter().map(|at| request.units[*at as usize].clone()).collect();
    let scores = world().programs(shop.adapter).score(&drawn).unwrap();
    let by_hand = |side: fn(&UnitScores) -> i64| {
        let sum: i64 = scores.iter().map(side).sum();
        mean(sum.into(), proven.tokens as i64, found.terms.offer.offer.score_bits)
    };
    let values = proven.values.clone().unwrap();
    let adapted = by_hand(|of| of.adapted.as_ref().unwrap()[0].sum);
    let base = by_hand(|of| of.base.as_ref().unwrap()[0].sum);
    assert_eq!(values.log_probability, Some(Means { adapted, base }));
    assert!(values.error.is_some());

    // Asked again, the same bytes, and nothing is charged twice.
    let before = fs::read(purchase.path(PROOF)).unwrap();
    fs::remove_file(purchase.path(PROOF)).unwrap();
    assert_eq!(bought(&purchase, &mut server, 2).unwrap().proven, Some(proven));
    assert_eq!(fs::read(purchase.path(PROOF)).unwrap(), before);
    assert_eq!(server.answering.spent().unwrap().charges.len(), 2);
    // Nothing secret is left in the contributor's folder.
    let folder = shop.identity().lineages().unwrap()[0].request(&request.digest);
    assert!(!folder.join("proof-parts").exists() && folder.join(PROOF).exists());
}

/// Two questions, asked for both kinds of accuracy.
const QUESTIONS: &str = r#"{"group": "q", "metrics": ["accuracy", "accuracy_normalised"]}
{"group": "q", "choices": [{"tokens": [7, 9, 4], "from": 1, "length": 3}, {"tokens": [7, 5], "from": 1, "length": 1}], "answer": 1}
{"group": "q", "choices": [{"tokens": [3, 2], "from": 1, "length": 9}, {"tokens": [3, 8, 1], "from": 1, "length": 2}], "answer": 0}
{"group": "q", "choices": [{"tokens": [5, 2], "from": 1, "length": 1}, {"tokens": [5, 2], "from": 1, "length": 1}], "answer": 1}
"#;

#[test]
fn counts_of_right_answers_are_proven() {
    let shop = Shop::new();
    for metric in [None, Some(Metric::AccuracyNormalised)] {
        let purchase = Purchase::start(&shop);
        let mut server = shop.proving(1000);
        let found = asked(&purchase, &mut server, QUESTIONS, SampleOptions { units: 3, metric });
        let found = found.unwrap();
        let proven = found.proven.unwrap();
        assert_eq!((proven.units.as_slice(), proven.bits), (&[0, 1, 2][..], 5));
        // A sample of all units has the values that were answered.
        let answered = found.answer.groups[0].metrics.clone().unwrap();
        let values = proven.values.unwrap();
        match metric {
            None => assert_eq!(values.accuracy, answered.accuracy),
            Some(_) => assert_eq!(values.accuracy_normalised, answered.accuracy_normalised),
        }
        assert_eq!(grade(&purchase), "proven");
        // Other counts are none.
        for field in ["base", "gained", "lost"] {
            let name = metric.map_or("accuracy", Metric::name);
            let change: Change = on_files(move |files| {
                let mut said: serde_json::Value = serde_json::from_slice(&files[0].1).unwrap();
                let value = &mut said["values"][name][field];
                *value = (1 - value.as_i64().unwrap().min(1)).into();
                files[0].1 = serde_json::to_vec(&said).unwrap();
            });
            fs::remove_file(purchase.path(PROOF)).unwrap();
            let mut server = changing(&shop, change);
            let sample = SampleOptions { units: 3, metric };
            assert!(asked(&purchase, &mut server, QUESTIONS, sample).is_err(), "{field}");
            fs::rename(purchase.path("proof.refused"), purchase.path(PROOF)).unwrap();
        }
    }
}

#[test]
fn only_what_is_asked_for_and_has_a_proof_is_proven() {
    let shop = Shop::new();
    let purchase = Purchase::start(&shop);
    let mut server = shop.proving(1000);
    let sample = |metric| SampleOptions { units: 3, metric: Some(metric) };
    let error = asked(&purchase, &mut server, TEXTS, sample(Metric::Accuracy)).err().unwrap();
    assert!(error.to_string().contains("0 can be drawn"), "{error}");
    assert!(!purchase.path("answer.json").exists());
    let found = purchase.buy_with(&mut server, &purchase.options(TEXTS)).unwrap();
    for metric in [Metric::Greedy, Metric::Error, Metric::Confusion] {
        let error = ProofRequest::new(&found.answer, nonce(&purchase), metric, 1).unwrap_err();
        assert!(error.to_string().contains("there is no proof of"), "{error}");
    }
}

#[test]
fn there_is_one_draw_an_answer() {
    let shop = Shop::new();
    let purchase = Purchase::start(&shop);
    let mut server = shop.proving(1000);
    let found = bought(&purchase, &mut server, 1).unwrap();
    let error = bought(&purchase, &mut server, 2).err().unwrap().to_string();
    assert!(error.contains("one draw an answer"), "{error}");
    // Also for a buyer that forgets, and at the contributor.
    let asked = fs::read(purchase.path("proof-request.json")).unwrap();
    let own = ProofRequest::parse(&asked).unwrap();
    let other = ProofRequest::new(&found.answer, own.nonce.0, Metric::LogProbability, 2).unwrap();
    let error = server.answering.accept_proof(&other, "buyer").unwrap_err().to_string();
    assert!(error.contains("one draw an answer"), "{error}");
    // Nor with another nonce, or by another client.
    let other = ProofRequest::new(&found.answer, [7; 32], Metric::LogProbability, 1).unwrap();
    assert!(server.answering.accept_proof(&other, "buyer").is_err());
    assert!(server.answering.accept_proof(&own, "somebody").is_err());
}

#[test]
fn a_sample_is_limited_by_public_numbers() {
    let shop = Shop::new();
    for (tokens, units, why) in [(2, 1, "up to 2"), (1000, 4, "3 can be drawn")] {
        let purchase = Purchase::start(&shop);
        let mut server = shop.proving(tokens);
        let error = bought(&purchase, &mut server, units).err().unwrap();
        assert!(error.to_string().contains(why), "{error}");
        // Before anything was sent or paid.
        assert!(!purchase.path("answer.json").exists());
        // And by the contributor, for a buyer that does not ask itself.
        let found = purchase.buy_with(&mut server, &purchase.options(TEXTS)).unwrap();
        let nonce = nonce(&purchase);
        let request =
            ProofRequest::new(&found.answer, nonce, Metric::LogProbability, units).unwrap();
        let charges = server.answering.spent().unwrap().charges.len();
        let error = server.answering.accept_proof(&request, "buyer").unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        assert_eq!(server.answering.spent().unwrap().charges.len(), charges);
    }
    let purchase = Purchase::start(&shop);
    let error = bought(&purchase, &mut shop.honest(), 1).err().unwrap().to_string();
    assert!(error.contains("proves no samples"), "{error}");
}

/// What a proof takes of memory, and how many samples a client may have, is said before units are
/// sent.
#[test]
fn the_size_and_the_number_of_samples_are_limited_before_anything_is_paid() {
    let shop = Shop::new();
    let small = ProofLimits { tokens: 1000, leaves: 1000, samples: 9 };
    let few = ProofLimits { tokens: 1000, leaves: 1 << 27, samples: 1 };
    let mut proven = 0;
    for (limits, allowed, why) in [(small, 0, "more memory"), (few, 1, "for one client")] {
        let mut server = shop.proving_within(limits);
        for _ in 0..allowed {
            bought(&Purchase::start(&shop), &mut server, 1).unwrap();
            proven += 1;
        }
        let purchase = Purchase::start(&shop);
        let error = bought(&purchase, &mut server, 1).err().unwrap().to_string();
        assert!(error.contains(why), "{error}");
        assert!(!purchase.path("answer.json").exists());
        // And by the contributor, for a buyer that does not ask itself.
        let found = purchase.buy_with(&mut server, &purchase.options(TEXTS)).unwrap();
        let nonce = nonce(&purchase);
        let request = ProofRequest::new(&found.answer, nonce, Metric::LogProbability, 1).unwrap();
        assert!(server.answering.accept_proof(&request, "buyer").is_err());
        let spent = server.answering.spent().unwrap();
        assert_eq!(spent.samples_of("buyer"), proven);
        assert_eq!(server.answering.proofs_left("buyer").unwrap().samples, limits.samples - proven);
    }
}

/// A second server of one identity has one thread for all requests: it does not wait for a proof.
#[test]
fn a_sample_that_another_process_proves_is_not_waited_for() {
    let shop = Shop::new();
    let (server, request) = accepted(&shop, 1);
    let other = shop.proving(1000);
    let digest = request.request;
    let mut refused = None;
    let proof = server.answering.prove(&digest, &mut |_, _| {
        refused = other.answering.prove(&digest, &mut |_, _| panic!("it is proven")).err();
        true
    });
    assert!(proof.unwrap().is_some());
    let refused = refused.unwrap().to_string();
    assert!(refused.contains("another process proves this sample"), "{refused}");
    // It has the proof of the other one.
    let known = other.answering.known_proof(&request, "buyer").unwrap();
    assert!(matches!(known, KnownProof::Proven(_)));
}

/// A nonce is shown once: also a buyer that asks for a proof later checks first what would be
/// refused, and may then ask for less.
#[test]
fn a_proof_that_is_asked_for_later_is_checked_before_the_nonce_is_shown() {
    // Enough for the answer, which costs 38 bits, and not for a proof.
    let shop = Shop::new().with(|terms| terms.budget = Bits { bits: 45, bits_per_client: 45 });
    fs::write(shop.artifacts().folder.join("public/offer.json"), &shop.offer.bytes).unwrap();
    let purchase = Purchase::start(&shop);
    let mut server = shop.proving(5);
    purchase.buy_with(&mut server, &purchase.options(TEXTS)).unwrap();
    let asked_for = |server: &mut Server, units, why: &str| {
        let error = bought(&purchase, server, units).err().unwrap().to_string();
        assert!(error.contains(why), "{error}");
        assert!(!purchase.path("proof-request.json").exists());
    };
    asked_for(&mut server, 2, "up to 5");
    asked_for(&mut server, 257, "1 to 256");
    asked_for(&mut server, 1, "are left for you");
    asked_for(&mut shop.honest(), 1, "proves no samples");
}

/// Proofs of another adapter, another answer, another draw; changed, incomplete, swapped.
#[test]
fn nothing_else_passes_for_a_proof() {
    let shop = Shop::new();
    let kept = Rc::new(RefCell::new(Vec::new()));
    for shop in [&Shop::of(OTHER), &shop] {
        let keep = Rc::clone(&kept);
        let keeping: Change = Box::new(move |proof| {
            keep.borrow_mut().push(proof.clone());
            proof
        });
        bought(&Purchase::start(shop), &mut changing(shop, keeping), 2).unwrap();
    }
    let purchase = Purchase::start(&shop);
    let mut changes: Vec<Change> = Vec::new();
    for foreign in kept.borrow().iter() {
        let (whole, foreign) = (foreign.clone(), unpacked(foreign));
        changes.push(Box::new(move |_| whole.clone()));
        for at in 1..foreign.len() {
            let bytes = foreign[at].1.clone();
            changes.push(on_files(move |files| files[at].1.clone_from(&bytes)));
        }
    }
    for place in
        ["/values/log_probability/adapted", "/values/log_probability/base", "/values/error"]
    {
        changes.push(on_files(move |files| {
            let mut said: serde_json::Value = serde_json::from_slice(&files[0].1).unwrap();
            let value = said.pointer_mut(place).unwrap();
            *value = (value.as_i64().unwrap() + 1).into();
            files[0].1 = serde_json::to_vec(&said).unwrap();
        }));
    }
    changes.push(on_files(|files| drop(files.pop())));
    changes.push(on_files(|files| files.push(("9.proof".into(), vec![]))));
    changes.push(on_files(|files| *files[1].1.last_mut().unwrap() ^= 1));
    changes.push(on_files(|files| files[2].1.truncate(1000)));
    changes.push(on_files(|files| files[2].1.push(0)));
    for (at, change) in changes.into_iter().enumerate() {
        let error = bought(&purchase, &mut changing(&shop, change), 2).err();
        let error = error.unwrap_or_else(|| panic!("change {at} was accepted"));
        let refused = matches!(error, Error::Evaluation(_) | Error::Inference(_));
        assert!(refused, "{at}: {error:?}");
        assert_eq!(grade(&purchase), "not proven", "{at}");
    }
    // The honest one, at last.
    let found = bought(&purchase, &mut shop.proving(1000), 2).unwrap();
    assert!(found.proven.unwrap().values.is_some());
    assert_eq!(grade(&purchase), "proven");
}

/// What leaves are the mean, commitments and a proof whose form follows from the statement: for
/// another adapter on the same units every file has the same length.
#[test]
fn nothing_leaves_but_commitments_and_a_mean() {
    let kept = Rc::new(RefCell::new(Vec::new()));
    for shop in [Shop::new(), Shop::of(OTHER)] {
        let keep = Rc::clone(&kept);
        let keeping: Change = Box::new(move |proof| {
            keep.borrow_mut().push(unpacked(&proof));
            proof
        });
        // All units that can be drawn.
        bought(&Purchase::start(&shop), &mut changing(&shop, keeping), 3).unwrap();
    }
    let kept = kept.borrow();
    let [first, second] = kept.as_slice() else { panic!("two proofs") };
    let names: Vec<&str> = first.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["proof.json", "sum.proof", "0.proof"]);
    let said: serde_json::Value = serde_json::from_slice(&first[0].1).unwrap();
    let fields: Vec<&String> = said.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["format", "values", "version"]);
    let fields: Vec<&String> = said["values"].as_object().unwrap().keys().collect();
    assert_eq!(fields, ["error", "log_probability"]);
    for (of_first, of_second) in first.iter().zip(second).skip(1) {
        let (name, bytes) = of_first;
        assert_eq!(bytes.len(), of_second.1.len(), "{name}");
        let columns = u32::from_le_bytes(bytes[9..13].try_into().unwrap()) as usize;
        let parsed = proof::Proof::parse(bytes, columns).unwrap();
        // The halo2 proof has as many commitments and values as its columns ask for.
        let parts = [&parsed.columns, &parsed.messages, &parsed.t, &parsed.u, &parsed.blinders];
        let points: usize = parts.iter().map(|part| part.len()).sum();
        assert_eq!(bytes.len(), 9 + 24 + 48 * points + parsed.argument.len(), "{name}");
        assert!(parsed.argument.len() < 8192, "{name}: {}", parsed.argument.len());
        // No commitment is another one's, in one proof or in both.
        let mut all = std::collections::HashSet::new();
        for chunk in [bytes, &of_second.1].iter().flat_map(|b| b[13..].chunks(48).take(columns)) {
            assert!(all.insert(chunk.to_vec()), "{name}");
        }
    }
}

/// A contributor that stops goes on with the part that it was at.
#[test]
fn a_proof_goes_on_where_it_was_interrupted() {
    let shop = Shop::new();
    let (server, request) = accepted(&shop, 3);
    let digest = request.request;
    assert_eq!(server.answering.prove(&digest, &mut |_, _| false).unwrap(), None);
    let mut parts = 0;
    let proof = shop.proving(1000).answering.prove(&digest, &mut |_, of| {
        parts = of;
        true
    });
    assert!(proof.unwrap().is_some() && parts == 1);
}

/// A part that ended three processes is not tried again, whoever asks, before anything is scored.
#[test]
fn a_part_that_ends_processes_is_not_tried_for_ever() {
    let shop = Shop::new();
    let (server, request) = accepted(&shop, 1);
    let digest = request.request;
    let parts = shop.identity().lineages().unwrap()[0].request(&digest).join("proof-parts");
    fs::create_dir_all(&parts).unwrap();
    let prove = || server.answering.prove(&digest, &mut |_, _| false);
    fs::write(parts.join("0.attempts"), [2]).unwrap();
    assert_eq!(prove().unwrap(), None);
    fs::write(parts.join("0.attempts"), [3]).unwrap();
    let error = prove().unwrap_err().to_string();
    assert!(error.contains("3 processes ended"), "{error}");
}

/// A contributor may give a proof up: nobody makes it, and the buyer is told.
#[test]
fn a_proof_that_was_given_up_is_not_made() {
    let shop = Shop::new();
    let purchase = Purchase::start(&shop);
    let mut server = shop.proving(1000);
    let found = purchase.buy_with(&mut server, &purchase.options(TEXTS)).unwrap();
    let (adapter, digest) = (found.terms.offer.offer.adapter_id, found.request.digest);
    let give_up = || Answering::give_up_proof(&shop.identity(), &adapter, &digest);
    assert!(give_up().unwrap_err().to_string().contains("no proof was asked for"));
    let nonce = nonce(&purchase);
    let request = ProofRequest::new(&found.answer, nonce, Metric::LogProbability, 1).unwrap();
    server.answering.accept_proof(&request, "buyer").unwrap();
    // While a part is being proven.
    let proof = server.answering.prove(&digest, &mut |_, _| {
        give_up().unwrap();
        true
    });
    assert!(proof.unwrap_err().to_string().contains("gave this proof up"));
    let folder = shop.identity().lineages().unwrap()[0].request(&digest);
    assert!(!folder.join("proof-parts").exists() && !folder.join(PROOF).exists());
    // What a process left that was killed goes, too.
    fs::create_dir(folder.join("proof-parts")).unwrap();
    fs::write(folder.join("proof-parts/0.part"), "secrets").unwrap();
    let error = server.answering.known_proof(&request, "buyer").unwrap_err().to_string();
    assert!(error.contains("gave this proof up"), "{error}");
    assert!(!folder.join("proof-parts").exists());
    assert!(server.answering.prove(&digest, &mut |_, _| panic!("it is proven")).is_err());
    assert_eq!(grade(&purchase), "claimed");
}

/// What a verified proof says is the buyer's own note: one that came with a folder does not count.
#[test]
fn a_forged_note_of_a_proof_does_not_count() {
    let shop = Shop::new();
    let purchase = Purchase::of(&shop, shop.honest());
    let proven = Proven {
        values: Some(Values::default()),
        metric: Metric::LogProbability,
        answer: purchase.answer().digest().unwrap(),
        units: vec![0],
        tokens: 9,
        bits: 18,
        earlier_samples: EarlierSamples::default(),
    };
    let json = serde_json::to_string(&proven).unwrap();
    for end in [String::new(), format!("\n{}\n", "0".repeat(64))] {
        fs::write(purchase.path("sample.json"), format!("{json}{end}")).unwrap();
        assert_eq!(grade(&purchase), "claimed");
    }
    let marked = |secret: &[u8]| {
        let key = blake3::derive_key("zklora v2 sample", secret);
        let code = blake3::keyed_hash(&key, json.as_bytes()).to_hex();
        fs::write(purchase.path("sample.json"), format!("{json}\n{code}\n")).unwrap();
        grade(&purchase)
    };
    // Not even with all that lies in the folder, of which somebody else may have made every file.
    let draw = hex::decode(fs::read(purchase.path("draw")).unwrap()).unwrap();
    let memory = purchase.memory().secret.unwrap();
    assert!(!memory.exists(), "what is not written needs no secret");
    assert_eq!((marked(&draw), marked(&nonce(&purchase))), ("claimed", "claimed"));
    fs::create_dir_all(memory.parent().unwrap()).unwrap();
    fs::write(&memory, "07".repeat(32)).unwrap();
    assert_eq!((marked(&draw), marked(&[8; 32])), ("claimed", "claimed"));
    assert_eq!(marked(&[7; 32]), "proven", "the user's secret marks the user's notes");
}

/// A contributor cannot keep units out of the draw by saying that the base model has no score.
#[test]
fn units_cannot_be_kept_out_of_the_draw() {
    let shop = Shop::new();
    let purchase = Purchase::start(&shop);
    let mut server = shop.proving(1000);
    server.lie = Box::new(|answer| answer["base_unscored"] = serde_json::json!([0, 1]));
    let error = bought(&purchase, &mut server, 1).err().unwrap().to_string();
    assert!(error.contains("chooses which units count"), "{error}");
    assert!(!purchase.path("proof-request.json").exists());
}

/// A sample that came out badly cannot be called unprovable.
#[test]
fn a_unit_is_unprovable_only_if_the_answer_said_so() {
    let shop = Shop::new();
    let purchase = Purchase::start(&shop);
    for bytes in [&[][..], b"x"] {
        let mut files = Vec::new();
        archive::write([("not-provable", bytes)], &mut files).unwrap();
        let mut server = changing(&shop, Box::new(move |_| files.clone()));
        assert!(bought(&purchase, &mut server, 1).is_err());
        assert_eq!(grade(&purchase), "not proven");
    }
}
