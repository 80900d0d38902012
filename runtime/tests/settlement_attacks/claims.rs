//! Public claims: what was claimed for everybody is compared with what a buyer gets.

use std::fs;

use zklora_evaluation::request::UnitGroup;
use zklora_runtime::evaluate::{BuyOptions, ClaimComparison, Verdict, groups, make_claim};

use crate::parties::{Changed, LINES, OTHER, Purchase, Server, Shop, judge_file, world};

fn own_groups() -> Vec<UnitGroup> {
    let shop = Shop::new();
    let options = Purchase::start(&shop).options(LINES);
    groups(&options.source, &options.terms, 64).unwrap().groups
}

/// How the answer of a server compares with a claim of another one.
fn compared(claimant: &Server, shop: &Shop, mut server: Server) -> (ClaimComparison, Purchase) {
    let (_, bytes) = make_claim(&claimant.answering, own_groups(), 2, &mut |_, _| {}).unwrap();
    let purchase = Purchase::start(shop);
    let claim = purchase.folder.path().join("claim.json");
    fs::write(&claim, bytes).unwrap();
    let options = BuyOptions { claims: vec![claim], ..purchase.options(LINES) };
    let bought = purchase.buy_with(&mut server, &options).unwrap();
    (bought.claims[0].1.clone(), purchase)
}

#[test]
fn an_honest_claim_has_the_same_values() {
    let shop = Shop::new();
    let (found, _) = compared(&shop.honest(), &shop, shop.honest());
    assert_eq!(found, ClaimComparison::Same(vec!["text".into(), "questions".into()]));
}

/// Better numbers for everybody than for the one who pays.
#[test]
fn a_claim_that_contradicts_an_answer_is_evidence() {
    let shop = Shop::new();
    let better = Changed {
        programs: world().programs(shop.adapter),
        change: |scores: &mut [zklora_evaluation::unit_scores::UnitScores]| {
            for score in scores.iter_mut().flat_map(|unit| unit.adapted.as_mut().unwrap()) {
                score.sum /= 2;
            }
        },
    };
    let (found, purchase) = compared(&shop.server(better), &shop, shop.honest());
    assert!(matches!(found, ClaimComparison::Contradicts(_)), "{found:?}");
    let evidence = fs::read(purchase.path("claim-evidence-1.tar")).unwrap();
    let third = judge_file(&evidence, shop.offer.offer.key);
    assert_eq!(third.verdict, Verdict::Contradicted, "{:?}", third.reasons);
    let another = judge_file(&evidence, Shop::new().offer.offer.key);
    assert_eq!(another.verdict, Verdict::Undecidable);
}

/// A claim for the same adapter on other layers says nothing of this offer, and is not called the
/// same.
#[test]
fn a_claim_for_something_else_is_not_compared() {
    let shop = Shop::new();
    let layers = Shop::new().with(|terms| terms.layers.swap(0, 1));
    let (found, _) = compared(&layers.honest(), &shop, shop.honest());
    assert_eq!(found, ClaimComparison::OtherOffer, "another key");
    let other = Shop::of(OTHER);
    let (found, _) = compared(&other.honest(), &shop, shop.honest());
    assert_eq!(found, ClaimComparison::OtherOffer);
    // The same key.
    let shop = Shop::new();
    let pinned = shop.offer.clone();
    let mut shop = shop.with(|terms| terms.layers.swap(0, 1));
    let claimant = shop.honest();
    shop.offer = pinned;
    let (found, purchase) = compared(&claimant, &shop, shop.honest());
    assert_eq!(found, ClaimComparison::OtherOffer, "other layers");
    assert!(!purchase.path("claim-evidence-1.tar").exists());
}

/// A claim whose answer gives the names of its groups to other values.
#[test]
fn a_claim_with_exchanged_groups_is_none() {
    use zklora_evaluation::{
        canonical,
        digest::Digest,
        envelope::{Envelope, Kind},
    };
    use zklora_runtime::evaluate::Claim;

    let shop = Shop::new();
    let (claim, bytes) =
        make_claim(&shop.honest().answering, own_groups(), 2, &mut |_, _| {}).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("claim.json");
    for change in 0..3 {
        let mut answer = claim.answer.clone();
        match change {
            0 => answer.groups.reverse(),
            1 => drop(answer.groups.pop()),
            _ => answer.nonce = Digest([1; 32]),
        }
        let payload = canonical::to_bytes(&answer).unwrap();
        let signed =
            Envelope::sign(&shop.identity().key, Kind::Answer, &payload).to_bytes().unwrap();
        let mut file: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        file["answer"] = serde_json::from_slice(&signed).unwrap();
        fs::write(&path, serde_json::to_vec(&file).unwrap()).unwrap();
        let refused = Claim::read(&path).unwrap_err().to_string();
        assert!(refused.contains("answer.json"), "{refused}");
    }
    fs::write(&path, bytes).unwrap();
    Claim::read(&path).unwrap();
}
