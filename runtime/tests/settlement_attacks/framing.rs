//! A buyer never gets CONTRADICTED against an honest contributor, whatever it does to its files.

use std::fs;

use zklora_evaluation::{archive, evidence::SETTLEMENT};
use zklora_runtime::evaluate::{Verdict, settle};

use crate::parties::{ADAPTER, LINES, OTHER, Purchase, Shop, delivered, judge, judge_file, world};

fn sold(shop: &Shop, lines: &str) -> Purchase {
    let purchase = Purchase::start(shop);
    purchase.buy_with(&mut shop.honest(), &purchase.options(lines)).unwrap();
    purchase.receive(shop, &delivered(shop.adapter));
    purchase
}

/// Random numbers that are the same in every run.
fn random(name: &str) -> impl FnMut(usize) -> usize {
    let mut reader = blake3::Hasher::new().update(name.as_bytes()).finalize_xof();
    move |below| {
        let mut bytes = [0; 8];
        reader.fill(&mut bytes);
        (u64::from_le_bytes(bytes) % below as u64) as usize
    }
}

/// Flips a bit, cuts the end, or adds a byte.
fn damage(bytes: &[u8], random: &mut impl FnMut(usize) -> usize) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    match random(10) {
        0 => changed.truncate(random(bytes.len())),
        1 => changed.insert(random(bytes.len()), random(256) as u8),
        _ => changed[random(bytes.len())] ^= 1 << random(8),
    }
    changed
}

#[test]
fn no_damage_to_the_folder_is_a_contradiction() {
    let shop = Shop::new();
    let purchase = sold(&shop, LINES);
    assert_eq!(purchase.settle().verdict, Verdict::Settled);
    let good = purchase.files();
    let mut random = random("folder");
    // A key is looked at last, so that its rounds take longer.
    for at in (0..7).cycle().take(350).chain([7; 16]) {
        let path = purchase.path(SETTLEMENT[at]);
        fs::write(&path, damage(&good[at], &mut random)).unwrap();
        let options = purchase.settle_options();
        let verdict = settle(&purchase.path(""), &world().srs, &options, &mut |_, _| {})
            .map_or(Verdict::Undecidable, |found| found.verdict);
        // White space after the key is nothing; all else is seen.
        let is_seen = verdict == Verdict::Undecidable;
        assert!(is_seen || SETTLEMENT[at] == "key" && verdict == Verdict::Settled, "{path:?}");
        assert!(!purchase.path("evidence.tar").exists());
        fs::write(&path, &good[at]).unwrap();
    }
    assert_eq!(purchase.settle().verdict, Verdict::Settled);
}

#[test]
fn no_damage_to_evidence_is_a_contradiction() {
    let shop = Shop::new();
    let purchase = sold(&shop, LINES);
    let key = shop.offer.offer.key;
    let good = purchase.files();
    let mut archived = Vec::new();
    let contents = good.iter().map(Vec::as_slice);
    archive::write(SETTLEMENT.into_iter().zip(contents), &mut archived).unwrap();
    assert_eq!(judge_file(&archived, key).verdict, Verdict::Settled);
    let mut random = random("evidence");
    for _ in 0..300 {
        let found = judge_file(&damage(&archived, &mut random), key);
        assert_eq!(found.verdict, Verdict::Undecidable, "{:?}", found.reasons);
    }
    for at in (0..7).cycle().take(140).chain([7; 4]) {
        let mut files = good.clone();
        files[at] = damage(&files[at], &mut random);
        let found = judge(&files, key);
        assert_ne!(found.verdict, Verdict::Contradicted, "{:?}", found.reasons);
    }
}

/// Files of two honest sales, put together in every way that differs in one or two files.
#[test]
fn no_splice_of_two_honest_sales_is_a_contradiction() {
    let shop = Shop::new();
    let first = sold(&shop, LINES);
    // Another request to the same offer; the same request to another offer of the same key; another
    // adapter of another key.
    let fewer = LINES.rsplit_once("{\"group\": \"questions\", \"prompt\"").unwrap().0;
    let second = sold(&shop, fewer);
    let other = Shop::of(OTHER);
    let third = sold(&other, LINES);
    let files = first.files();
    for foreign in [second.files(), third.files()] {
        for a in 0..files.len() {
            for b in a..files.len() {
                let mut spliced = files.clone();
                spliced[a] = foreign[a].clone();
                spliced[b] = foreign[b].clone();
                if spliced == files {
                    continue;
                }
                let found = judge(&spliced, shop.offer.offer.key);
                assert_eq!(found.verdict, Verdict::Undecidable, "{a} {b}: {:?}", found.reasons);
            }
        }
    }
    assert_eq!(judge(&second.files(), shop.offer.offer.key).verdict, Verdict::Settled);
    // Deliveries of two keys for one answer.
    let (statement, ciphertext, key) = (files[5].clone(), files[6].clone(), files[7].clone());
    first.receive(&shop, &delivered(ADAPTER));
    for (at, old) in [(5, statement), (6, ciphertext), (7, key)] {
        let mut spliced = first.files();
        spliced[at] = old;
        let found = judge(&spliced, shop.offer.offer.key);
        assert_eq!(found.verdict, Verdict::Undecidable, "{at}: {:?}", found.reasons);
    }
}
