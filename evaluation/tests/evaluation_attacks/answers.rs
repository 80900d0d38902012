//! Answers: a buyer accepts only what the contributor's key signed, for this request, with values
//! that scores of its units could have.

use serde_json::{Value, json};
use zklora_evaluation::{
    Error,
    answer::Answer,
    envelope::Kind,
    offer::SignedOffer,
    request::{Choices, FullRequest},
    signing_key::SigningKey,
};

use crate::parties::{
    OF_SEQUENCES, Shop, changes, choices, group, payload, request, sequence, terms, with,
    with_payload,
};

#[track_caller]
fn is_of_signature<T>(result: Result<T, Error>, place: &str) {
    assert!(matches!(result, Err(Error::Signature { .. })), "{place}");
}

#[test]
fn an_answer_that_was_changed_after_the_signature_is_refused() {
    let shop = Shop::new();
    let asked = request(&shop.offer, "nonce");
    let answer = shop.answer(&asked);
    Answer::read(&answer, &shop.offer, &asked).unwrap();
    let all = changes(&payload(&answer));
    assert!(all.len() > 100);
    for (place, changed) in all {
        let changed = with_payload(&answer, &changed);
        is_of_signature(Answer::read(&changed, &shop.offer, &asked), &place);
    }
    for (place, changed) in changes(&answer) {
        assert!(Answer::read(&changed, &shop.offer, &asked).is_err(), "{place}");
    }
}

#[test]
fn an_answer_by_another_key_is_refused() {
    let shop = Shop::new();
    let asked = request(&shop.offer, "nonce");
    let answer = shop.answer(&asked);
    let thief = SigningKey::generate();
    let signed =
        zklora_evaluation::envelope::Envelope::sign(&thief, Kind::Answer, &payload(&answer));
    let signed = signed.to_bytes().unwrap();
    is_of_signature(Answer::read(&signed, &shop.offer, &asked), "another key");
    // The envelope names the right key.
    let own = shop.identity().key.public().to_string();
    let renamed = with(&signed, "/signatures/0/keyid", own);
    is_of_signature(Answer::read(&renamed, &shop.offer, &asked), "another key's name");
    for kind in [Kind::Offer, Kind::Delivery, Kind::Rotation] {
        let other = shop.sign(kind, &payload(&answer));
        is_of_signature(Answer::read(&other, &shop.offer, &asked), "another kind");
    }
}

#[test]
fn an_answer_is_to_one_request_and_one_offer() {
    let shop = Shop::new();
    let asked = request(&shop.offer, "nonce");
    let answer = shop.answer(&asked);
    let later = request(&shop.offer, "another nonce");
    assert!(matches!(Answer::read(&answer, &shop.offer, &later), Err(Error::Mismatch { .. })));
    for terms in [
        zklora_evaluation::offer::Terms { contact: "other".into(), ..terms("adapter") },
        terms("recompiled"),
    ] {
        let offer = SignedOffer::sign(&shop.identity().key, terms).unwrap();
        let for_it = request(&offer, "nonce");
        assert!(matches!(Answer::read(&answer, &offer, &for_it), Err(Error::Mismatch { .. })));
    }
}

/// The contributor signs what no scores could make. Its signature is valid, and the answer is not
/// accepted all the same.
#[test]
fn values_that_no_scores_make_are_refused() {
    let shop = Shop::new();
    let asked = request(&shop.offer, "nonce");
    let good = payload(&shop.answer(&asked));
    let answer: Value = serde_json::from_slice(&good).unwrap();
    let (text, questions) = ("/groups/0/metrics", "/groups/1/metrics");
    let at = |group: &str, name: &str| format!("{group}/{name}");
    let bits = answer["bits"].as_u64().unwrap();
    let base_unscored = answer["base_unscored"].clone();
    let scored: Vec<u64> =
        (0..24).filter(|unit| !base_unscored.as_array().unwrap().contains(&json!(unit))).collect();
    assert!(scored.len() < 24, "some unit has no score");
    let counted =
        |from: u64| scored.iter().filter(|unit| (from..from + 12).contains(*unit)).count();
    let (texts, asked_questions) = (counted(0), counted(12));
    let unscored_unit = base_unscored[0].clone();
    let row = answer.pointer("/groups/1/metrics/confusion/base/0").unwrap().clone();
    let moved_to_none = {
        let mut row: Vec<u64> = serde_json::from_value(row.clone()).unwrap();
        let some = row.iter().position(|count| *count > 0).unwrap();
        row[some] -= 1;
        row[3] += 1;
        json!(row)
    };
    let single = |value: Value| {
        let mut units = answer["per_unit"].clone();
        units[scored[0] as usize] = value;
        units
    };
    let dropped = |place: &str| {
        let mut all = answer.clone();
        all.pointer_mut(place).unwrap().as_array_mut().unwrap().pop();
        all.pointer(place).unwrap().clone()
    };
    for (why, place, value) in [
        ("another adapter", "/adapter_id".into(), json!("0".repeat(64))),
        ("another model", "/integer_model".into(), json!("0".repeat(64))),
        ("another offer", "/offer".into(), json!("0".repeat(64))),
        ("another request", "/request".into(), json!("0".repeat(64))),
        ("another nonce", "/nonce".into(), json!("0".repeat(64))),
        ("another draw", "/draw".into(), json!("0".repeat(64))),
        ("other rules", "/rules".into(), json!(2)),
        ("another version", "/version".into(), json!(2)),
        ("another format", "/format".into(), json!("zklora-offer")),
        ("fewer bits", "/bits".into(), json!(bits - 1)),
        ("more bits", "/bits".into(), json!(bits + 1)),
        ("another group", "/groups/0/name".into(), json!("texts")),
        ("a group is missing", "/groups".into(), dropped("/groups")),
        ("no values", text.into(), Value::Null),
        ("a gain in log-probability beyond 0", at(text, "log_probability/adapted"), json!(1)),
        ("a base beyond 0", at(text, "log_probability/base"), json!(1)),
        ("less than the worst", at(text, "log_probability/adapted"), json!(-128_002)),
        ("no number", at(text, "log_probability/adapted"), json!(i64::MIN)),
        ("a negative error", at(text, "error"), json!(-1)),
        ("a larger error than any", at(text, "error"), json!(65_536)),
        ("more units than there are", at(text, "greedy/base"), json!(texts + 1)),
        ("more are gained than were wrong", at(text, "greedy/gained"), json!(texts + 1)),
        ("more are lost than were right", at(text, "greedy/lost"), json!(texts + 1)),
        ("counts that wrap around", at(text, "greedy/gained"), json!(u64::MAX)),
        ("counts that wrap around", at(questions, "accuracy/lost"), json!(u64::MAX)),
        ("more right answers", at(questions, "accuracy/base"), json!(asked_questions + 1)),
        (
            "more right answers",
            at(questions, "accuracy_normalised/gained"),
            json!(asked_questions + 1),
        ),
        ("a row of other length", at(questions, "confusion/base/0"), json!([1, 2])),
        ("a row that adds up to more", at(questions, "confusion/adapted/0/0"), json!(13)),
        ("a row that wraps around", at(questions, "confusion/adapted/0/0"), json!(u64::MAX)),
        ("a matrix without rows", at(questions, "confusion/adapted"), json!([])),
        (
            "a row is missing",
            at(questions, "confusion/base"),
            dropped("/groups/1/metrics/confusion/base"),
        ),
        (
            "the base has no score of a unit that counts",
            at(questions, "confusion/base/0"),
            moved_to_none,
        ),
        ("unscored units are not sorted", "/base_unscored".into(), json!([3, 2])),
        ("a unit is unscored twice", "/base_unscored".into(), json!([2, 2])),
        ("a unit that is none", "/base_unscored".into(), json!([24])),
        (
            "all units are unscored and have values",
            "/base_unscored".into(),
            json!((0..24).collect::<Vec<_>>()),
        ),
        ("listed units are not sorted", "/unscored/listed".into(), json!([scored[1], scored[0]])),
        ("a listed unit that is none", "/unscored/listed".into(), json!([24])),
        ("more are listed than was asked for", "/unscored/listed".into(), json!(scored[..3])),
        ("a unit is in both lists", "/unscored/listed".into(), json!([unscored_unit])),
        (
            "there are more, and fewer are listed",
            "/unscored".into(),
            json!({"listed": [], "more": true}),
        ),
        ("no scores of units", "/per_unit".into(), Value::Null),
        ("a unit less", "/per_unit".into(), dropped("/per_unit")),
        ("a score beyond 0", "/per_unit".into(), single(json!([[1, true]]))),
        ("less than the worst score", "/per_unit".into(), single(json!([[-(1i64 << 40), true]]))),
        ("two scores of a sequence", "/per_unit".into(), single(json!([[0, true], [0, true]]))),
        ("no score of a sequence", "/per_unit".into(), single(json!([]))),
    ] {
        let changed = with(&good, &place, value);
        assert_ne!(changed, good, "{why}");
        let refused = Answer::read(&shop.sign(Kind::Answer, &changed), &shop.offer, &asked);
        assert!(refused.is_err(), "{why}: {place}");
    }
    // Metrics that are missing, or that nobody asked for.
    for (group, own) in [
        (0, ["error", "greedy", "log_probability"]),
        (1, ["accuracy", "confusion", "accuracy_normalised"]),
    ] {
        let other = answer["groups"][1 - group]["metrics"].clone();
        for name in own {
            let mut changed = answer.clone();
            changed["groups"][group]["metrics"].as_object_mut().unwrap().remove(name);
            let changed = serde_json::to_vec(&changed).unwrap();
            let refused = Answer::read(&shop.sign(Kind::Answer, &changed), &shop.offer, &asked);
            assert!(refused.is_err(), "without {name}");
        }
        for (name, value) in other.as_object().unwrap() {
            let mut changed = answer.clone();
            changed["groups"][group]["metrics"][name] = value.clone();
            let changed = serde_json::to_vec(&changed).unwrap();
            let refused = Answer::read(&shop.sign(Kind::Answer, &changed), &shop.offer, &asked);
            assert!(refused.is_err(), "with {name}");
        }
    }
    // The same payload, signed again, is the same answer.
    assert_eq!(shop.sign(Kind::Answer, &good), shop.answer(&asked));
}

#[test]
fn scores_of_units_that_nobody_asked_for_are_refused() {
    let shop = Shop::new();
    let groups = vec![group("text", &OF_SEQUENCES, (0..4).map(sequence))];
    let choices = Choices { per_unit: false, ..choices("nonce") };
    let asked = FullRequest::new(shop.offer.digest, &choices, groups).unwrap();
    let good = payload(&shop.answer(&asked));
    let changed = with(&good, "/per_unit", json!([null, null, null, null]));
    let refused = Answer::read(&shop.sign(Kind::Answer, &changed), &shop.offer, &asked);
    assert!(matches!(refused, Err(Error::Mismatch { .. })));
}

/// A contributor cannot drop a unit by saying that the adapter has no score of it: it is in the
/// list, and as bad as a unit can be.
#[test]
fn units_that_the_adapter_leaves_are_scored_worst() {
    use zklora_evaluation::unit_scores::{SequenceScore, UnitScores};
    let shop = Shop::new();
    let groups = vec![group("text", &OF_SEQUENCES, (0..4).map(sequence))];
    let asked = FullRequest::new(shop.offer.digest, &choices("nonce"), groups).unwrap();
    let side = |sum| Some(vec![SequenceScore { sum, greedy: true }]);
    let honest = UnitScores { base: side(-100), adapted: side(-50) };
    let left = UnitScores { base: side(-100), adapted: None };
    let compute = |scores: [&UnitScores; 4]| {
        let scores = scores.map(Clone::clone);
        Answer::compute(&shop.offer, &asked, &scores).unwrap()
    };
    let gains = compute([&honest; 4]);
    let leaves = compute([&honest, &left, &honest, &left]);
    let mean =
        |answer: &Answer| answer.groups[0].metrics.as_ref().unwrap().log_probability.unwrap();
    assert!(mean(&leaves).adapted < mean(&leaves).base - 10_000);
    assert!(mean(&gains).adapted > mean(&gains).base);
    let greedy = leaves.groups[0].metrics.as_ref().unwrap().greedy.unwrap();
    assert_eq!((greedy.base, greedy.gained, greedy.lost), (4, 0, 2));
    assert_eq!((leaves.unscored.listed, leaves.unscored.more), (vec![1, 3], false));
    let all = compute([&left; 4]);
    assert_eq!(mean(&all).adapted, -128_000);
    assert_eq!((all.unscored.listed, all.unscored.more), (vec![0, 1], true));
}
