//! Requests: every part of one is under its digest, and what breaks a rule costs nothing and is not
//! scored.

use serde_json::json;
use zklora_evaluation::{
    Error,
    answer::Answer,
    digest::Digest,
    metric::Metric,
    offer::{Limits, SignedOffer, Terms},
    request::{Choices, FullRequest, Request, UnitGroup},
};
use zklora_integer::unit::{Sequence, Unit};

use crate::parties::{
    NeverReached, OF_SEQUENCES, Shop, VOCABULARY, changes, choices, group, groups, question,
    request, sequence, terms, with,
};

/// Nobody but the one who was asked gets an answer, and it is to what was asked.
#[test]
fn every_field_of_a_request_is_under_its_digest() {
    let shop = Shop::new();
    let good = request(&shop.offer, "nonce");
    let answer = shop.answer(&good);
    let server = shop.start(NeverReached);
    let all = changes(&good.bytes);
    assert!(all.len() > 12);
    for (place, bytes) in all {
        let Ok(other) = FullRequest::parse(&bytes, good.unit_bytes.clone()) else { continue };
        assert_ne!(other.digest, good.digest, "{place}");
        assert!(Answer::read(&answer, &shop.offer, &other).is_err(), "{place}");
        if place == "/offer" {
            assert!(server.check_request(&bytes).is_err());
            assert!(matches!(server.accept(&other, "buyer"), Err(Error::Refused(_))));
        }
    }
}

#[test]
fn units_are_those_of_the_request_in_its_order() {
    let good = request(&Shop::new().offer, "nonce");
    let bytes = |groups: Vec<UnitGroup>| {
        FullRequest::new(good.request.offer, &choices("nonce"), groups).unwrap().unit_bytes
    };
    let changed = |change: &dyn Fn(&mut Vec<Unit>, &mut Vec<Unit>)| {
        let mut groups = groups();
        let [first, second] = groups.as_mut_slice() else { panic!() };
        change(&mut first.units, &mut second.units);
        bytes(groups)
    };
    let swapped = bytes(groups().into_iter().rev().collect());
    let all = [
        ("groups are swapped", swapped),
        ("a unit is dropped", changed(&|a, _| drop(a.remove(3)))),
        ("the last unit is dropped", changed(&|_, b| drop(b.pop()))),
        ("a unit is doubled", changed(&|a, _| a.insert(4, a[3].clone()))),
        ("a unit is there in place of another", changed(&|a, _| a[4] = a[3].clone())),
        ("units are in another order", changed(&|a, _| a.swap(0, 1))),
        ("a unit is in the other group", changed(&|a, b| b.push(a.remove(0)))),
        ("units are exchanged", changed(&|a, b| std::mem::swap(&mut a[0], &mut b[0]))),
        ("there are more bytes", [&good.unit_bytes[..], &[0]].concat()),
        ("bytes are missing", good.unit_bytes[..good.unit_bytes.len() - 1].to_vec()),
        ("there are none", Vec::new()),
    ];
    for (why, units) in all {
        assert!(FullRequest::parse(&good.bytes, units).is_err(), "{why}");
    }
    for at in 0..good.unit_bytes.len() {
        let mut units = good.unit_bytes.clone();
        units[at] ^= 1;
        assert!(FullRequest::parse(&good.bytes, units).is_err(), "byte {at}");
    }
}

#[test]
fn names_are_plain_and_each_is_there_once() {
    let offer = Shop::new().offer;
    let of = |names: &[&str]| {
        let groups = names.iter().map(|name| group(name, &OF_SEQUENCES, (0..2).map(sequence)));
        FullRequest::new(offer.digest, &choices("nonce"), groups.collect())
    };
    let good = of(&["a", "A-b_c.9"]).unwrap();
    let long = "x".repeat(65);
    for name in [
        "",
        " ",
        "a b",
        "../../etc/passwd",
        "a/b",
        "<script>",
        "$(rm -rf /)",
        "`id`",
        "a\"b",
        "a'b",
        "a\\b",
        "a\nb",
        "\u{1b}[2J",
        "a\u{0}",
        "Zo\u{eb}",
        "\u{202e}",
        "%s",
        long.as_str(),
    ] {
        let error = of(&[name]).unwrap_err().to_string();
        assert!(!error.contains('\u{1b}'), "{error:?}");
        assert!(Request::parse(&with(&good.bytes, "/groups/0/name", name)).is_err(), "{name:?}");
    }
    assert!(of(&["a", "a"]).is_err());
    assert!(Request::parse(&with(&good.bytes, "/groups/1/name", "a")).is_err());
}

#[test]
fn metrics_have_one_order() {
    let good = request(&Shop::new().offer, "nonce");
    for metrics in [
        json!(["greedy", "error", "log_probability"]),
        json!(["error", "error", "log_probability"]),
        json!(["error", "error"]),
        json!(["perplexity"]),
        json!(["Error"]),
        json!([0]),
    ] {
        let bytes = with(&good.bytes, "/groups/0/metrics", metrics.clone());
        assert!(Request::parse(&bytes).is_err(), "{metrics}");
    }
    // No metric at all is for requests of scores of single units.
    let none = with(&good.bytes, "/groups/0/metrics", json!([]));
    Request::parse(&none).unwrap();
    assert!(Request::parse(&with(&none, "/per_unit", false)).is_err());
}

#[test]
fn a_request_has_one_form() {
    let good = String::from_utf8(request(&Shop::new().offer, "nonce").bytes).unwrap();
    for changed in [
        format!("{good}\n"),
        good.replacen(':', ": ", 1),
        good.replacen("\"per_unit\":true", "\"per_unit\":true,\"per_unit\":true", 1),
        good.replacen("\"version\":1", "\"version\":1,\"wersion\":1", 1),
        good.replacen("\"version\":1", "\"version\":2", 1),
        good.replacen("\"version\":1", "\"version\":1.0", 1),
        good.replacen("zklora-request", "zklora-answer", 1),
        good.replacen("\"list_unscored\":2", "\"list_unscored\":17", 1),
        good.replacen("\"list_unscored\":2", "\"list_unscored\":-1", 1),
        good.replacen("\"units\":12", "\"units\":0", 1),
        good.replacen("\"units\":12", "\"units\":18446744073709551615", 1),
        good.replacen("\"text\"", "\"\\u0074ext\"", 1),
        String::new(),
    ] {
        assert_ne!(changed, good);
        assert!(Request::parse(changed.as_bytes()).is_err(), "{changed}");
    }
    Request::parse(good.as_bytes()).unwrap();
}

/// A contributor with small limits whose scorer nothing reaches.
fn strict() -> Shop {
    let limits = Limits { tokens: 300, unit_tokens: 40, units: 20 };
    Shop::with(Terms { limits, per_unit: false, ..terms("adapter") })
}

/// `why` this request is refused, before it is charged and before anything is scored.
#[track_caller]
fn refused(shop: &Shop, groups: Vec<UnitGroup>, choices: &Choices, why: &str) {
    let server = shop.start(NeverReached);
    let full = FullRequest::new(shop.offer.digest, choices, groups).unwrap();
    let error = server.accept(&full, "buyer").unwrap_err();
    assert!(matches!(error, Error::Refused(_)), "{error}");
    assert!(error.to_string().contains(why), "{error}");
    assert!(server.spent().unwrap().charges.is_empty());
    assert!(server.answer(&full.digest, &mut |_, _| true).is_err());
}

#[test]
fn metrics_are_for_the_right_units() {
    let shop = strict();
    let one = Choices { per_unit: false, ..choices("nonce") };
    let unanswered = |at| match question(at, 3) {
        Unit::Choice { choices, lengths, normalisation, .. } => {
            Unit::Choice { choices, lengths, normalisation, answer: None }
        }
        unit => unit,
    };
    let mixed = || vec![sequence(1), sequence(2), question(1, 3)];
    let refuse = |metric, units: Vec<Unit>, why| {
        refused(&shop, vec![group("g", &[metric], units)], &one, why);
    };
    for metric in OF_SEQUENCES {
        refuse(metric, mixed(), "is for sequences");
    }
    for metric in [Metric::Accuracy, Metric::AccuracyNormalised, Metric::Confusion] {
        refuse(metric, mixed(), "is for questions");
        refuse(metric, vec![unanswered(1)], "needs an answer");
    }
    refuse(Metric::Error, vec![sequence(1)], "two units");
    refuse(Metric::Confusion, vec![question(1, 2), question(2, 3)], "the same number of choices");
    refuse(Metric::Confusion, vec![question(1, 17)], "at most 16");
}

#[test]
fn requests_beyond_the_limits_are_refused() {
    let shop = strict();
    let one = Choices { per_unit: false, ..choices("nonce") };
    let likelihood = [Metric::LogProbability];
    let of = |units: Vec<Unit>| vec![group("g", &likelihood, units)];
    let long =
        |tokens: u32| Unit::LogProbability(Sequence { tokens: (0..tokens).collect(), from: 1 });
    refused(&shop, of((0..21).map(sequence).collect()), &one, "at most 20 a request");
    refused(&shop, of(vec![long(41)]), &one, "at most 40");
    refused(&shop, of((0..8).map(|_| long(40)).collect()), &one, "320 tokens, at most 300");
    // What choices share counts for each.
    let shared = vec![group("g", &[Metric::Accuracy], vec![question(0, 61)])];
    refused(&shop, shared, &one, "305 tokens, at most 300");
    let unit = Choices { per_unit: true, ..one.clone() };
    refused(&shop, of(vec![sequence(1)]), &unit, "scores of single units");
    // What the model refuses.
    let unknown = Unit::LogProbability(Sequence { tokens: vec![1, VOCABULARY], from: 1 });
    refused(&shop, of(vec![sequence(1), unknown]), &one, "unit 1: no such token");
}

/// Choices that share a long prefix are small messages and large units: a server stops at the first
/// one that is too much.
#[test]
fn small_messages_do_not_become_large_units() {
    let shop = strict();
    let prefix = 0..900;
    let choice = |last| Sequence { tokens: prefix.clone().chain([last]).collect(), from: 900 };
    let large = |at: u32| match question(at, 500) {
        Unit::Choice { lengths, normalisation, answer, .. } => {
            let choices = (0..500).map(choice).collect();
            Unit::Choice { choices, lengths, normalisation, answer }
        }
        unit => unit,
    };
    let groups = vec![group("g", &[Metric::Accuracy], (0..20).map(large))];
    let full = FullRequest::new(shop.offer.digest, &choices("nonce"), groups).unwrap();
    assert!(full.unit_bytes.len() < 250_000);
    let parse = |tokens| FullRequest::parse_within(&full.bytes, full.unit_bytes.clone(), tokens);
    let refused = parse(shop.offer.offer.limits.tokens).unwrap_err();
    assert!(refused.to_string().contains("450500 tokens and more"), "{refused}");
    parse(20 * 450_500).unwrap();
    assert!(matches!(parse(20 * 450_500 - 1), Err(Error::Refused(_))));
}

#[test]
fn a_request_for_another_offer_is_refused() {
    let shop = Shop::new();
    // The same adapter, under the same key, for another contact.
    let other = Terms { contact: "somebody else".into(), ..terms("adapter") };
    let other = SignedOffer::sign(&shop.identity().key, other).unwrap();
    let full = request(&other, "nonce");
    let server = shop.start(NeverReached);
    let refused = server.check_request(&full.bytes).unwrap_err();
    assert!(refused.to_string().contains("get the offer again"), "{refused}");
    assert!(matches!(server.accept(&full, "buyer"), Err(Error::Refused(_))));
    assert!(server.spent().unwrap().charges.is_empty());
}

/// Only the contributor makes public claims, from its own budget.
#[test]
fn a_zero_nonce_is_refused_over_the_network() {
    let shop = Shop::new();
    let claim = Choices { nonce: Digest::ZERO, ..choices("") };
    let full = FullRequest::new(shop.offer.digest, &claim, groups()).unwrap();
    let refused = shop.start(NeverReached).check_request(&full.bytes).unwrap_err();
    assert!(refused.to_string().contains("nonce"), "{refused}");
    shop.start(NeverReached).check_request(&request(&shop.offer, "nonce").bytes).unwrap();
}
