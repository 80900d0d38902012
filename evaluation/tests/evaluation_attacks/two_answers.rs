//! Two answers of one key that contradict each other are evidence; honest ones never do.

use proptest::prelude::*;
use serde_json::json;
use zklora_evaluation::{
    answer::Answer,
    envelope::Kind,
    evidence::{self, Evidence, two_answers, write_two_answers},
    metric::Metric,
    offer::{SignedOffer, Terms},
    request::{FullRequest, UnitGroup},
    signing_key::SigningKey,
    unit_scores::Scorer,
};

use crate::parties::{
    OF_QUESTIONS, OF_SEQUENCES, Scores, Shop, choices, group, payload, question, request, sequence,
    terms, with,
};

/// An answer with one count changed, signed by the contributor.
fn lie(shop: &Shop, answer: &[u8]) -> Vec<u8> {
    let honest = payload(answer);
    let value: serde_json::Value = serde_json::from_slice(&honest).unwrap();
    let error = value.pointer("/groups/0/metrics/error").unwrap().as_u64().unwrap();
    shop.sign(Kind::Answer, &with(&honest, "/groups/0/metrics/error", json!(error - 1)))
}

#[test]
fn two_answers_to_one_question_are_evidence() {
    let shop = Shop::new();
    let (first, second) = (request(&shop.offer, "one"), request(&shop.offer, "two"));
    let (a, b) = (shop.answer(&first), shop.answer(&second));
    let offer = &shop.offer.bytes[..];
    let honest = two_answers((offer, &first.bytes, &a), (offer, &second.bytes, &b)).unwrap();
    assert_eq!(honest, None);
    let b = lie(&shop, &b);
    Answer::read(&b, &shop.offer, &second).unwrap();
    for (one, other) in [
        ((offer, &first.bytes[..], &a[..]), (offer, &second.bytes[..], &b[..])),
        ((offer, &second.bytes[..], &b[..]), (offer, &first.bytes[..], &a[..])),
    ] {
        let file = write_two_answers(one, other).unwrap();
        let Evidence::TwoAnswers(found) = evidence::read(&file).unwrap() else { panic!() };
        assert_eq!(found.key, shop.offer.offer.key);
        assert_eq!(found.adapter_id, shop.offer.offer.adapter_id);
        assert_eq!(found.groups, ("text".into(), "text".into()));
    }
    // Two answers to one and the same request, too.
    let a_lie = lie(&shop, &a);
    assert!(
        two_answers((offer, &first.bytes, &a), (offer, &first.bytes, &a_lie)).unwrap().is_some()
    );
    // An answer with the other one's request is none.
    let crossed = two_answers((offer, &second.bytes, &a), (offer, &first.bytes, &b));
    assert!(crossed.is_err());
}

#[test]
fn no_change_of_the_files_makes_evidence_of_honest_answers() {
    let shop = Shop::new();
    let (first, second) = (request(&shop.offer, "one"), request(&shop.offer, "two"));
    let (a, b) = (shop.answer(&first), shop.answer(&second));
    let offer = &shop.offer.bytes[..];
    let file = write_two_answers((offer, &first.bytes, &a), (offer, &second.bytes, &b)).unwrap();
    assert!(evidence::read(&file).is_err());
    let mut random = blake3::Hasher::new().update(b"changes").finalize_xof();
    for _ in 0..2000 {
        let mut bytes = [0; 9];
        random.fill(&mut bytes);
        let [bit, at @ ..] = bytes;
        let mut changed = file.clone();
        changed[(u64::from_le_bytes(at) % file.len() as u64) as usize] ^= 1 << (bit % 8);
        assert!(evidence::read(&changed).is_err());
    }
    // An answer that is not for the same thing.
    let thief = SigningKey::generate();
    let mut stolen = terms("adapter");
    stolen.contact = "thief".into();
    let other = SignedOffer::sign(&thief, stolen).unwrap();
    let asked = request(&other, "one");
    let scores = Scores(8).score(&asked.units).unwrap();
    let by_thief = Answer::compute(&other, &asked, &scores).unwrap().sign(&thief).unwrap();
    let both = two_answers((offer, &first.bytes, &a), (&other.bytes, &asked.bytes, &by_thief));
    assert_eq!(both.unwrap(), None);
}

#[test]
fn offers_that_differ_in_contact_or_limits_alone_contradict_all_the_same() {
    let shop = Shop::new();
    let first = request(&shop.offer, "one");
    let a = shop.answer(&first);
    let mut other = terms("adapter");
    (other.contact, other.limits.units, other.budget.bits) = ("new".into(), 63, 99_999);
    let other = SignedOffer::sign(&shop.identity().key, other).unwrap();
    let second = request(&other, "two");
    let scores = Scores(8).score(&second.units).unwrap();
    let b = Answer::compute(&other, &second, &scores).unwrap().sign(&shop.identity().key).unwrap();
    let offer = &shop.offer.bytes[..];
    let found = two_answers((offer, &first.bytes, &a), (&other.bytes, &second.bytes, &b)).unwrap();
    assert!(found.is_some());
}

/// Other layers, another model, other rules: these are other numbers for a good reason.
#[test]
fn answers_of_other_adapters_or_models_do_not_contradict() {
    let shop = Shop::new();
    let key = shop.identity().key;
    let first = request(&shop.offer, "one");
    let a = shop.answer(&first);
    let own = || terms("adapter");
    for other in [
        terms("another"),
        Terms { layers: vec![3, 5, 9], ..own() },
        Terms { integer_model: shop.offer.digest, ..own() },
        Terms { rules: 2, ..own() },
        Terms { score_bits: 8, ..own() },
    ] {
        let other = SignedOffer::sign(&key, other).unwrap();
        let second = request(&other, "two");
        let scores = Scores(8).score(&second.units).unwrap();
        let b = Answer::compute(&other, &second, &scores).unwrap().sign(&key).unwrap();
        let offer = &shop.offer.bytes[..];
        let both = two_answers((offer, &first.bytes, &a), (&other.bytes, &second.bytes, &b));
        assert_eq!(both.unwrap(), None);
    }
}

fn some_groups() -> impl Strategy<Value = Vec<UnitGroup>> {
    let one = (any::<bool>(), 0u32..4, 2u32..6, prop::sample::subsequence(vec![0, 1, 2], 1..=3));
    prop::collection::vec(one, 1..6).prop_map(|all| {
        let groups = all.into_iter().enumerate().map(|(at, (is_text, first, count, metrics))| {
            let pick = |from: [Metric; 3]| metrics.iter().map(|at| from[*at]).collect::<Vec<_>>();
            let (name, own) = (format!("g{at}"), first..first + count);
            match is_text {
                true => group(&name, &pick(OF_SEQUENCES), own.map(sequence)),
                false => group(&name, &pick(OF_QUESTIONS), own.map(|at| question(at, 3))),
            }
        });
        groups.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn honest_answers_to_overlapping_requests_never_contradict(
        first in some_groups(),
        second in some_groups(),
        adapter in 0u64..1000,
    ) {
        let key = SigningKey::generate();
        let offer = SignedOffer::sign(&key, terms("adapter")).unwrap();
        let answer = |nonce: &str, groups: Vec<UnitGroup>| {
            let request = FullRequest::new(offer.digest, &choices(nonce), groups).unwrap();
            let scores = Scores(adapter).score(&request.units).unwrap();
            let answer = Answer::compute(&offer, &request, &scores).unwrap();
            let signed = answer.sign(&key).unwrap();
            // What an honest contributor signs is accepted.
            assert_eq!(Answer::read(&signed, &offer, &request).unwrap(), answer);
            (request.bytes, signed)
        };
        let (a, b) = (answer("one", first), answer("two", second));
        let both = two_answers((&offer.bytes, &a.0, &a.1), (&offer.bytes, &b.0, &b.1)).unwrap();
        prop_assert_eq!(both, None);
    }
}
