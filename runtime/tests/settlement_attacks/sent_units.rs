//! A buyer's memory: units that were sent before an adapter was first seen may be what it was
//! trained on.

use zklora_evaluation::proving::PROOF;
use zklora_runtime::evaluate::{
    BuyOptions, Earlier, EarlierSamples, Memory, SampleOptions, SentUnits,
};

use crate::parties::{LINES, OTHER, Purchase, Shop};

fn remembering(sent: &std::path::Path) -> Memory {
    Memory { sent: Some(sent.into()), secret: None }
}

fn buy(shop: &Shop, lines: &str, memory: &std::path::Path) -> Vec<Earlier> {
    let purchase = Purchase::start(shop);
    let options = BuyOptions { memory: remembering(memory), ..purchase.options(lines) };
    purchase.buy_with(&mut shop.honest(), &options).unwrap().earlier
}

#[test]
fn units_that_were_sent_before_an_adapter_was_seen_are_marked() {
    let folder = tempfile::tempdir().unwrap();
    let memory = folder.path().join("sent.jsonl");
    let (first, second) = (Shop::new(), Shop::of(OTHER));
    assert_eq!(buy(&first, LINES, &memory), []);
    // The same adapter again: known, and no reason to worry.
    let again = buy(&first, LINES, &memory);
    assert_eq!((again.len(), again[0].units, again[0].before_adapter), (1, 5, false));
    // An adapter that turns up after the units were sent, under another key.
    let later = buy(&second, LINES, &memory);
    assert_eq!(later.len(), 2);
    for earlier in &later {
        assert!(earlier.before_adapter && earlier.units == 5);
        assert_eq!(earlier.adapter_id, first.offer.offer.adapter_id);
        assert_eq!(earlier.key, first.offer.offer.key);
    }
    // Of the next request, the second adapter saw the units after it was seen itself.
    let last = buy(&first, LINES, &memory);
    assert_eq!(last.iter().filter(|of| of.before_adapter).count(), 0);
}

#[test]
fn an_adapter_that_was_seen_first_is_not_marked() {
    let folder = tempfile::tempdir().unwrap();
    let memory = folder.path().join("sent.jsonl");
    let (first, second) = (Shop::new(), Shop::of(OTHER));
    SentUnits::new(&memory).saw(&second.offer).unwrap();
    buy(&first, LINES, &memory);
    let found = buy(&second, LINES, &memory);
    assert_eq!((found.len(), found[0].before_adapter), (1, false));
    // Fewer of the same units are those units; others are not.
    let fewer = LINES.rsplit_once("{\"group\": \"questions\", \"prompt\"").unwrap().0;
    assert!(buy(&second, fewer, &memory).iter().all(|earlier| earlier.units == 4));
    assert_eq!(buy(&second, "{\"text\": \"never sent\"}\n", &memory), []);
}

/// Nothing is sent that is not remembered.
#[test]
fn a_memory_that_cannot_be_written_sends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::new();
    let purchase = Purchase::start(&shop);
    let options = BuyOptions { memory: remembering(folder.path()), ..purchase.options(LINES) };
    let mut server = shop.honest();
    assert!(purchase.buy_with(&mut server, &options).is_err());
    assert!(server.answering.spent().unwrap().charges.is_empty());
}

/// A crash in the middle of a line costs that line alone.
#[test]
fn a_torn_line_does_not_break_the_memory() {
    let folder = tempfile::tempdir().unwrap();
    let memory = folder.path().join("sent.jsonl");
    let (first, second) = (Shop::new(), Shop::of(OTHER));
    buy(&first, LINES, &memory);
    for _ in 0..2 {
        let whole = std::fs::read(&memory).unwrap();
        std::fs::write(&memory, [whole.as_slice(), b"{\"adapter_id\":\"0"].concat()).unwrap();
        assert!(buy(&second, LINES, &memory).iter().any(|earlier| earlier.before_adapter));
    }
}

/// A contributor that gives no proof until a sample flatters it is marked, under another key, too.
#[test]
fn samples_that_were_not_proven_are_remembered() {
    const TEXT: &str = "{\"tokens\": [7, 9, 4, 3], \"from\": 1}\n";
    let folder = tempfile::tempdir().unwrap();
    let memory = folder.path().join("sent.jsonl");
    let (shop, rekeyed, other) = (Shop::new(), Shop::new(), Shop::of(OTHER));
    let prove = |shop: &Shop, lines: &str, refuses: bool| {
        let purchase = Purchase::start(shop);
        let sample = SampleOptions { units: 1, metric: None };
        let memory = remembering(&memory);
        let options = BuyOptions { prove: Some(sample), memory, ..purchase.options(lines) };
        let mut server = shop.proving(1000);
        if refuses {
            server.change_proof = Box::new(|_| vec![]);
        }
        let found = purchase.buy_with(&mut server, &options).ok().map(|found| {
            let of = found.proven.unwrap().earlier_samples;
            assert_eq!(Some(of), found.earlier_samples);
            of
        });
        assert_eq!(found.is_none(), refuses);
        // The same folder once more is the same sample.
        if !refuses {
            assert!(purchase.path(PROOF).exists());
            let again = purchase.buy_with(&mut server, &options).unwrap();
            assert_eq!(again.earlier_samples, found);
        }
        found
    };
    let seen = |asked, unproven| Some(EarlierSamples { asked, unproven });
    assert_eq!(prove(&shop, TEXT, false), seen(0, 0));
    prove(&shop, TEXT, true);
    prove(&shop, TEXT, true);
    assert_eq!(prove(&shop, TEXT, false), seen(3, 2));
    // The same adapter under another key.
    assert_ne!(rekeyed.offer.offer.key, shop.offer.offer.key);
    assert_eq!(prove(&rekeyed, TEXT, false), seen(4, 2));
    // Another adapter of another key, and other units.
    assert_eq!(prove(&other, TEXT, false), seen(0, 0));
    assert_eq!(prove(&shop, "{\"tokens\": [8, 9, 4], \"from\": 1}\n", false), seen(0, 0));
}
