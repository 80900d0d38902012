//! An honest sale is SETTLED, for the buyer and for whoever judges it later.

use std::fs;

use zklora_runtime::evaluate::{
    DeliverOptions, SettleOptions, TermsOptions, Verdict, deliver, settle,
};

use crate::parties::{
    ADAPTER, LINES, OTHER, Purchase, Shop, WILD, delivered, fixture, judge, world,
};

fn deliver_options(shop: &Shop, purchase: &Purchase) -> DeliverOptions {
    DeliverOptions {
        identity: shop.identity_folder(),
        adapter: world().peft(shop.adapter),
        request: purchase.request().digest,
        price: "100".into(),
        key_by: "2027-01-01".into(),
        verdict_by: "2027-01-08".into(),
        out: purchase.path(""),
    }
}

#[test]
fn an_honest_sale_is_payable_and_then_settled() {
    let shop = Shop::new();
    let purchase = Purchase::start(&shop);
    let mut options = purchase.options(LINES);
    options.check_base = true;
    let bought = purchase.buy_with(&mut shop.honest(), &options).unwrap();
    assert!(bought.base_checked && !bought.terms.offer.offer.layers.is_empty());
    let srs = &world().srs;
    let delivered = deliver(&shop.artifacts(), srs, &deliver_options(&shop, &purchase)).unwrap();
    let out = tempfile::tempdir().unwrap();
    let adapter = out.path().join("adapter");
    let settle_with = |key| {
        let adapter_out = Some(adapter.clone());
        let options = SettleOptions { key, adapter_out, ..purchase.settle_options() };
        settle(&purchase.path(""), srs, &options, &mut |_, _| {}).unwrap()
    };
    let before = settle_with(None);
    assert_eq!(before.verdict, Verdict::Payable, "{:?}", before.reasons);
    assert_eq!(before.price.as_deref(), Some("100"));
    assert!(!adapter.exists());
    let after = settle_with(Some(delivered.key.clone()));
    assert_eq!(after.verdict, Verdict::Settled, "{:?}", after.reasons);
    assert_eq!(after.units, 5);
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        let own = fs::read(world().peft(ADAPTER).join(name)).unwrap();
        assert!(fs::read(adapter.join(name)).unwrap() == own);
    }
    fs::copy(delivered.key, purchase.path("key")).unwrap();
    let third = judge(&purchase.files(), shop.offer.offer.key);
    assert_eq!(third.verdict, Verdict::Settled, "{:?}", third.reasons);
}

#[test]
fn scores_of_single_units_and_exported_adapters_settle_too() {
    let shop = Shop::new();
    let purchase = Purchase::start(&shop);
    let mut options = purchase.options(LINES);
    options.per_unit = true;
    purchase.buy_with(&mut shop.honest(), &options).unwrap();
    let mut delivery = deliver_options(&shop, &purchase);
    delivery.adapter = world().exported(ADAPTER);
    let delivered = deliver(&shop.artifacts(), &world().srs, &delivery).unwrap();
    fs::copy(delivered.key, purchase.path("key")).unwrap();
    let found = purchase.settle();
    assert_eq!(found.verdict, Verdict::Settled, "{:?}", found.reasons);
}

/// An adapter that leaves the range is scored worst, and that is what settles.
#[test]
fn an_adapter_that_leaves_the_range_is_worst_and_settles() {
    let shop = Shop::of(WILD);
    let purchase = Purchase::of(&shop, shop.honest());
    let answer = purchase.answer();
    assert_eq!(answer.unscored.listed, [0, 1]);
    assert!(answer.unscored.more && answer.base_unscored.is_empty());
    let values = answer.groups[0].metrics.clone().unwrap();
    assert_eq!(
        values.log_probability.unwrap().adapted,
        -(65_536_000 >> shop.offer.offer.score_bits)
    );
    assert_eq!(values.greedy.unwrap().gained, 0);
    let confusion = answer.groups[1].metrics.clone().unwrap().confusion.unwrap();
    assert_eq!(confusion.adapted[0], [0, 0, 2]);
    purchase.receive(&shop, &delivered(WILD));
    let found = purchase.settle();
    assert_eq!(found.verdict, Verdict::Settled, "{:?}", found.reasons);
}

#[test]
fn an_honest_contributor_cannot_deliver_another_adapter_by_mistake() {
    let shop = Shop::new();
    let purchase = Purchase::of(&shop, shop.honest());
    let mut options = deliver_options(&shop, &purchase);
    options.adapter = world().peft(OTHER);
    let error = deliver(&shop.artifacts(), &world().srs, &options).unwrap_err().to_string();
    assert!(error.contains("not the adapter that was committed to"), "{error}");
    assert!(!purchase.path("delivery.json").exists(), "nothing was signed");
    // Nor for a request that it never answered.
    let mut options = deliver_options(&shop, &purchase);
    options.request = shop.offer.digest;
    assert!(deliver(&shop.artifacts(), &world().srs, &options).is_err());
}

#[test]
fn a_folder_holds_one_evaluation() {
    let shop = Shop::new();
    let purchase = Purchase::of(&shop, shop.honest());
    let answer = fs::read(purchase.path("answer.json")).unwrap();
    // Again, it is the same answer, and nobody is asked.
    purchase.buy_with(&mut shop.honest(), &purchase.options(LINES)).unwrap();
    assert!(fs::read(purchase.path("answer.json")).unwrap() == answer);
    let fewer = LINES.rsplit_once("{\"group\": \"questions\", \"prompt\"").unwrap().0;
    let error = purchase.buy_with(&mut shop.honest(), &purchase.options(fewer)).err().unwrap();
    assert!(error.to_string().contains("another request"), "{error}");
    let other = Shop::new();
    let moved = Purchase { offer: other.offer.clone(), ..purchase };
    let error = moved.buy_with(&mut other.honest(), &moved.options(LINES)).err().unwrap();
    assert!(error.to_string().contains("another offer"), "{error}");
}

/// What the buyer has is wrong: nobody is blamed.
#[test]
fn another_base_model_at_the_buyer_is_undecidable() {
    let shop = Shop::new();
    let purchase = Purchase::of(&shop, shop.honest());
    purchase.receive(&shop, &delivered(ADAPTER));
    let mut options = purchase.settle_options();
    let model = tempfile::tempdir().unwrap();
    let mut base = options.terms.base.clone();
    base.base = fixture("base/tiny-mistral/dynamo.onnx");
    let tokenizer = Some(fixture("base/tiny-llama/tokenizer.json"));
    options.terms = TermsOptions { model: model.path().into(), base, tokenizer, ..options.terms };
    let found = settle(&purchase.path(""), &world().srs, &options, &mut |_, _| {}).unwrap();
    assert_eq!(found.verdict, Verdict::Undecidable, "{:?}", found.reasons);
}
