//! The same request gets the same bytes, whatever happened in between: an honest contributor never
//! signs two answers to one request.

use std::{fs, path::PathBuf};

use zklora_evaluation::{
    answer::Answer, answering::Known, metric::Metric, request::FullRequest, signing_key::SigningKey,
};
use zklora_integer::unit::{Sequence, Unit};

use crate::parties::{NeverReached, Scores, Shop, choices, group};

/// A request that is scored in several steps: two units at once.
fn long_request(shop: &Shop) -> FullRequest {
    let unit = |at: u32| {
        let tokens = (0..1800).map(|place| (at * 7 + place) % 1000).collect();
        Unit::LogProbability(Sequence { tokens, from: 1 })
    };
    let metrics = [Metric::Error, Metric::LogProbability];
    let groups = vec![group("long", &metrics, (0..7).map(unit))];
    FullRequest::new(shop.offer.digest, &choices("nonce"), groups).unwrap()
}

fn file(shop: &Shop, request: &FullRequest, name: &str) -> PathBuf {
    let lineage = shop.identity().lineage_of(&shop.offer.offer.adapter_id).unwrap().unwrap();
    lineage.request(&request.digest).join(name)
}

fn stop_after(steps: u32) -> impl FnMut(u64, u64) -> bool {
    let mut done = 0;
    move |_, _| {
        done += 1;
        done <= steps
    }
}

/// The answer of a shop whose server has just started.
fn go_on(shop: &Shop, request: &FullRequest) -> Vec<u8> {
    let server = shop.start(Scores(7));
    if server.known(&request.digest, "buyer").unwrap() == Known::New {
        server.accept(request, "buyer").unwrap();
    }
    let answer = match server.known(&request.digest, "buyer").unwrap() {
        Known::Answered(answer) => answer,
        known => {
            assert_eq!(known, Known::Accepted);
            server.answer(&request.digest, &mut |_, _| true).unwrap().unwrap()
        }
    };
    assert_eq!(server.spent().unwrap().charges.len(), 1, "charged once");
    assert!(!file(shop, request, "scores").exists(), "scores of units do not stay");
    answer
}

#[test]
fn an_answer_is_the_same_bytes_after_a_stop_in_every_step() {
    let shop = Shop::new();
    let request = long_request(&shop);
    let before_all = shop.backup();
    shop.start(Scores(7)).accept(&request, "buyer").unwrap();
    let accepted = shop.backup();
    let mut stopped = Vec::new();
    for steps in 0.. {
        let shop = accepted.backup();
        let mut stop = stop_after(steps);
        if shop.start(Scores(7)).answer(&request.digest, &mut stop).unwrap().is_some() {
            break;
        }
        stopped.push(shop);
    }
    assert!(stopped.len() >= 4, "{}", stopped.len());
    let expected = go_on(&shop, &request);
    Answer::read(&expected, &shop.offer, &request).unwrap();
    for shop in [&before_all, &accepted].into_iter().chain(&stopped) {
        assert!(go_on(shop, &request) == expected);
        // And again, without scoring anything.
        let server = shop.start(NeverReached);
        assert_eq!(
            server.known(&request.digest, "buyer").unwrap(),
            Known::Answered(expected.clone())
        );
        assert!(server.answer(&request.digest, &mut |_, _| true).unwrap().unwrap() == expected);
        assert!(server.known(&request.digest, "another buyer").is_err());
    }
}

#[test]
fn an_answer_is_the_same_bytes_after_a_checkpoint_was_cut_anywhere() {
    let shop = Shop::new();
    let request = long_request(&shop);
    let server = shop.start(Scores(7));
    server.accept(&request, "buyer").unwrap();
    assert!(server.answer(&request.digest, &mut stop_after(3)).unwrap().is_none());
    drop(server);
    let whole = fs::read(file(&shop, &request, "scores")).unwrap();
    let expected = go_on(&shop.backup(), &request);
    // The answer is there, and a crash left the scores.
    let crashed = shop.backup();
    go_on(&crashed, &request);
    fs::write(file(&crashed, &request, "scores"), &whole).unwrap();
    assert!(go_on(&crashed, &request) == expected);
    for cut in (0..=whole.len()).step_by(11) {
        for rest in [&[][..], &[0; 40], &[0xff; 40]] {
            fs::write(file(&shop, &request, "scores"), [&whole[..cut], rest].concat()).unwrap();
            let server = shop.start(Scores(7));
            let answer = server.answer(&request.digest, &mut |_, _| true).unwrap().unwrap();
            assert!(answer == expected, "{cut}");
            fs::remove_file(file(&shop, &request, "answer.json")).unwrap();
        }
    }
}

#[test]
fn a_restored_backup_gives_the_same_bytes() {
    let shop = Shop::new();
    let request = long_request(&shop);
    let backup = shop.backup();
    let first = go_on(&shop, &request);
    // The answer is lost, or the whole request with its charge is.
    fs::remove_file(file(&shop, &request, "answer.json")).unwrap();
    assert!(go_on(&shop, &request) == first);
    fs::remove_dir_all(file(&shop, &request, "")).unwrap();
    assert_eq!(shop.start(NeverReached).known(&request.digest, "buyer").unwrap(), Known::New);
    assert!(go_on(&shop, &request) == first);
    assert!(go_on(&backup, &request) == first);
}

/// A key that was lost is not replaced in silence: that would be another contributor.
#[test]
fn an_identity_without_its_key_is_no_new_identity() {
    use zklora_evaluation::identity::Identity;
    let shop = Shop::new();
    fs::remove_file(shop.folder.path().join("key")).unwrap();
    let error = Identity::open_or_create(shop.folder.path()).unwrap_err();
    assert!(error.to_string().contains("backup"), "{error}");
}

/// Whatever step of a change of keys a crash leaves undone, the identity has one key, and its
/// rotations lead to it.
#[test]
fn a_change_of_keys_is_done_or_not_done() {
    use zklora_evaluation::{
        identity::Identity,
        offer::{SignedOffer, Terms},
    };
    let shop = Shop::new();
    let before = shop.backup();
    let new = shop.identity().rotate().unwrap();
    let file = |shop: &Shop, name: &str| shop.folder.path().join(name);
    let check = |shop: &Shop, expected| {
        let identity = shop.identity();
        assert_eq!(identity.key.public(), expected);
        let rotations = identity.rotations.clone();
        let terms = Terms { rotations, ..crate::parties::terms("adapter") };
        let offer = SignedOffer::sign(&identity.key, terms).unwrap();
        assert!(offer.follows(&before.offer.offer));
    };
    check(&shop, new);
    // Before the rotation is written, the old key stays.
    let old = before.identity().key.public();
    SigningKey::generate().write(&file(&before, "key.next")).unwrap();
    check(&before, old);
    // After it, the new key is taken.
    fs::copy(file(&shop, "rotations.json"), file(&before, "rotations.json")).unwrap();
    fs::copy(file(&shop, "key"), file(&before, "key.next")).unwrap();
    check(&before, new);
    assert!(!file(&before, "key.next").exists());
    check(&before, new);
    let again = Identity::open(shop.folder.path()).unwrap().rotate().unwrap();
    check(&shop, again);
}
