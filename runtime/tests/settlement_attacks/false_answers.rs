//! A contributor that signs anything but its adapter's numbers is CONTRADICTED, or refused before
//! it is paid.

use std::fs;

use serde_json::Value;
use zklora_evaluation::{
    answer::Answer,
    digest::Digest,
    request::{Choices, FullRequest},
    unit_scores::UnitScores,
};
use zklora_runtime::evaluate::{Contributor, Settlement, Verdict, groups};

use crate::parties::{
    ADAPTER, Changed, LINES, OTHER, Purchase, Server, Shop, WILD, delivered, judge_file, world,
};

fn changed(shop: &Shop, change: impl Fn(&mut [UnitScores]) + Send + Sync + 'static) -> Server {
    shop.server(Changed { programs: world().programs(shop.adapter), change })
}

/// What settling this server's answer finds, for the buyer and for a third party alike.
fn settled(shop: &Shop, server: Server, per_unit: bool) -> Settlement {
    let purchase = Purchase::start(shop);
    let mut options = purchase.options(LINES);
    options.per_unit = per_unit;
    purchase.buy_with(&mut { server }, &options).unwrap();
    purchase.receive(shop, &delivered(shop.adapter));
    let found = purchase.settle();
    if found.verdict == Verdict::Contradicted {
        let evidence = fs::read(purchase.path("evidence.tar")).unwrap();
        let third = judge_file(&evidence, shop.offer.offer.key);
        assert_eq!((third.verdict, &third.reasons), (found.verdict, &found.reasons));
        assert_eq!((third.key, third.answer), (found.key, found.answer));
        let another = judge_file(&evidence, Digest([7; 32]));
        assert_eq!(another.verdict, Verdict::Undecidable, "known by another key");
    } else {
        assert!(!purchase.path("evidence.tar").exists());
    }
    found
}

#[track_caller]
fn contradicted(shop: &Shop, server: Server, per_unit: bool) {
    let found = settled(shop, server, per_unit);
    assert_eq!(found.verdict, Verdict::Contradicted, "{:?}", found.reasons);
}

#[test]
fn scores_of_another_adapter_are_contradicted() {
    let shop = Shop::new();
    contradicted(&shop, shop.server(world().programs(OTHER)), false);
}

#[test]
fn scores_of_the_base_model_alone_are_contradicted() {
    let shop = Shop::new();
    let server = changed(&shop, |scores| {
        scores.iter_mut().for_each(|unit| unit.adapted = unit.base.clone());
    });
    contradicted(&shop, server, false);
}

#[test]
fn a_score_that_is_off_by_one_is_contradicted() {
    let shop = Shop::new();
    for unit in [0, 4] {
        let server = changed(&shop, move |scores| {
            scores[unit].adapted.as_mut().unwrap()[0].sum -= 1;
        });
        contradicted(&shop, server, true);
    }
    let server = changed(&shop, |scores| {
        scores[2].adapted.as_mut().unwrap()[0].greedy ^= true;
    });
    contradicted(&shop, server, true);
}

/// Each number of an answer, off by one: it is refused, or contradicted.
#[test]
fn an_aggregate_that_is_not_that_of_its_scores_is_contradicted() {
    fn numbers(value: &Value, at: String, found: &mut Vec<String>) {
        match value {
            Value::Object(all) => {
                all.iter().for_each(|(name, of)| numbers(of, format!("{at}/{name}"), found));
            }
            Value::Array(all) => {
                (0..).zip(all).for_each(|(n, of)| numbers(of, format!("{at}/{n}"), found));
            }
            Value::Number(_) => found.push(at),
            _ => {}
        }
    }
    let shop = Shop::new();
    let honest = Purchase::of(&shop, shop.honest());
    let answer = serde_json::to_value(honest.answer()).unwrap();
    let mut places = Vec::new();
    numbers(&answer["groups"], "/groups".into(), &mut places);
    assert!(places.len() > 20);
    let request = honest.request();
    let (mut refused, mut contradicted) = (0, 0);
    for place in places {
        // The first of these values that a buyer accepts.
        let accepted = [-1, 1].into_iter().find_map(|step| {
            let mut changed = answer.clone();
            let value = changed.pointer_mut(&place).unwrap();
            *value = (value.as_i64().unwrap() + step).into();
            let signed = shop.sign_answer(&changed);
            let is_accepted = Answer::read(&signed, &shop.offer, &request).is_ok();
            refused += u32::from(!is_accepted);
            is_accepted.then_some(signed)
        });
        let Some(signed) = accepted else { continue };
        fs::write(honest.path("answer.json"), signed).unwrap();
        honest.receive(&shop, &delivered(ADAPTER));
        let found = honest.settle();
        assert_eq!(found.verdict, Verdict::Contradicted, "{place}: {:?}", found.reasons);
        contradicted += 1;
    }
    assert!(refused > 10 && contradicted > 5, "{refused} {contradicted}");
    // The buyer keeps a refused answer, and does not take it for one.
    let purchase = Purchase::start(&shop);
    let mut server = shop.honest();
    server.lie = Box::new(|answer| answer["bits"] = 1.into());
    assert!(purchase.buy_with(&mut server, &purchase.options(LINES)).is_err());
    assert!(purchase.path("answer.refused").exists() && !purchase.path("answer.json").exists());
}

#[test]
fn units_that_the_adapter_leaves_cannot_be_hidden() {
    let shop = Shop::of(WILD);
    // It gives the base model's scores instead.
    let server = changed(&shop, |scores| {
        scores.iter_mut().for_each(|unit| unit.adapted = unit.base.clone());
    });
    contradicted(&shop, server, false);
    // It hides that there are others than the listed ones.
    let mut server = shop.honest();
    server.lie = Box::new(|answer| answer["unscored"]["more"] = false.into());
    contradicted(&shop, server, false);
    // It lists others.
    let mut server = shop.honest();
    server.lie = Box::new(|answer| answer["unscored"]["listed"] = serde_json::json!([1, 2]));
    contradicted(&shop, server, false);
}

#[test]
fn units_that_the_adapter_scores_cannot_be_dropped() {
    let shop = Shop::new();
    let server = changed(&shop, |scores| scores[1].adapted = None);
    contradicted(&shop, server, false);
    // Nor by saying that the base model has no score of them.
    let drops = |scores: &mut [UnitScores]| scores[1] = UnitScores { base: None, adapted: None };
    contradicted(&shop, changed(&shop, drops), false);
    caught_by_check_base(&shop, changed(&shop, drops));
}

#[track_caller]
fn caught_by_check_base(shop: &Shop, mut server: Server) {
    let purchase = Purchase::start(shop);
    let mut options = purchase.options(LINES);
    options.check_base = true;
    let error = purchase.buy_with(&mut server, &options).err().unwrap();
    assert!(error.to_string().contains("values of the base model"), "{error}");
}

#[test]
fn other_values_of_the_base_model_are_caught_before_or_after() {
    let shop = Shop::new();
    let worse = |scores: &mut [UnitScores]| {
        scores.iter_mut().flat_map(|unit| unit.base.as_mut().unwrap()).for_each(|score| {
            score.sum -= 3000;
            score.greedy = false;
        });
    };
    contradicted(&shop, changed(&shop, worse), false);
    caught_by_check_base(&shop, changed(&shop, worse));
}

/// An answer to an offer that the buyer should have refused, kept all the same.
fn kept_without_checks(shop: &Shop) -> Purchase {
    let purchase = Purchase::start(shop);
    let options = purchase.options(LINES);
    let choices = Choices {
        nonce: Digest::of(b"nonce"),
        draw: Digest::of(b"draw"),
        list_unscored: 2,
        per_unit: false,
    };
    let groups = groups(&options.source, &options.terms, 64).unwrap().groups;
    let request = FullRequest::new(shop.offer.digest, &choices, groups).unwrap();
    let answer = shop.honest().evaluate(&request, &mut |_| {}).unwrap();
    fs::create_dir_all(purchase.path("")).unwrap();
    for (name, bytes) in [
        ("offer.json", &shop.offer.bytes),
        ("manifest.json", &shop.manifest()),
        ("request.json", &request.bytes),
        ("units.bin", &request.unit_bytes),
        ("answer.json", &answer),
    ] {
        fs::write(purchase.path(name), bytes).unwrap();
    }
    purchase
}

#[track_caller]
fn refused_before_a_unit_is_sent(shop: &Shop, why: &str) {
    let purchase = Purchase::start(shop);
    let mut server = shop.honest();
    let error = purchase.buy_with(&mut server, &purchase.options(LINES)).err().unwrap();
    assert!(error.to_string().contains(why), "{error}");
    assert!(server.answering.spent().unwrap().charges.is_empty());
    assert!(!purchase.path("request.json").exists());
    // Whoever buys it all the same has no case.
    let purchase = kept_without_checks(shop);
    purchase.receive(shop, &delivered(ADAPTER));
    let found = purchase.settle();
    assert_eq!(found.verdict, Verdict::Undecidable, "{:?}", found.reasons);
    assert!(found.reasons[0].contains(why), "{:?}", found.reasons);
}

#[test]
fn an_offer_of_other_layers_is_refused() {
    refused_before_a_unit_is_sent(&Shop::new().with(|terms| terms.layers.swap(0, 1)), "layers");
    let fewer = Shop::new().with(|terms| terms.layers.truncate(1));
    refused_before_a_unit_is_sent(&fewer, "layers");
}

#[test]
fn an_offer_of_another_integer_model_is_refused() {
    let other = Shop::new().with(|terms| terms.integer_model = Digest([7; 32]));
    refused_before_a_unit_is_sent(&other, "integer model");
    let rules = Shop::new().with(|terms| terms.rules += 1);
    refused_before_a_unit_is_sent(&rules, "rules");
    let bits = Shop::new().with(|terms| terms.score_bits -= 1);
    refused_before_a_unit_is_sent(&bits, "integer model");
}

#[test]
fn an_offer_that_was_exchanged_is_refused() {
    let (pinned, other) = (Shop::new(), Shop::new());
    let purchase = Purchase::start(&pinned);
    let error = purchase.buy_with(&mut other.honest(), &purchase.options(LINES)).err().unwrap();
    assert!(error.to_string().contains("offers something else now"), "{error}");
}
