//! The budget: what is told of an adapter costs bits, once, whoever asks, however often, and under
//! whatever name.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use proptest::prelude::*;
use zklora_evaluation::{
    Error,
    answer::Answer,
    answering::{Answering, Known},
    identity::DEFAULT_LINEAGE,
    offer::{Bits, SignedOffer, Terms},
    request::{FullRequest, UnitGroup},
    unit_scores::{Scorer, UnitScores},
};
use zklora_integer::unit::Unit;

use crate::parties::{
    NeverReached, OF_SEQUENCES, Scores, Shop, choices, digest, group, request, sequence, terms,
};

/// Counts units that are scored.
#[derive(Clone, Default)]
struct Counting(Arc<AtomicUsize>);

impl Scorer for Counting {
    fn refuses(&self, unit: &Unit) -> Option<String> {
        Scores(7).refuses(unit)
    }

    fn score(&self, units: &[Unit]) -> Result<Vec<UnitScores>, Error> {
        self.0.fetch_add(units.len(), Ordering::SeqCst);
        Scores(7).score(units)
    }
}

/// Requests of different prices whose groups overlap.
fn overlapping(offer: &SignedOffer) -> Vec<FullRequest> {
    let parts: Vec<Vec<UnitGroup>> = (0..8)
        .map(|at| {
            let own = (at..at + 2 + at % 3).map(sequence);
            vec![group("g", &OF_SEQUENCES[..1 + at as usize % 3], own)]
        })
        .collect();
    let one =
        |(at, groups)| FullRequest::new(offer.digest, &choices(&format!("{at}")), groups).unwrap();
    parts.into_iter().enumerate().map(one).collect()
}

const BUDGET: Bits = Bits { bits: 900, bits_per_client: 400 };

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Repeated and overlapping requests of several buyers, for an adapter and its recompilation,
    /// with restarts and stops between them.
    #[test]
    fn no_sequence_of_requests_learns_more_than_the_budget(
        steps in prop::collection::vec((0usize..8, 0usize..3, any::<bool>(), any::<bool>()), 24),
    ) {
        let shop = Shop::with(Terms { budget: BUDGET, ..terms("adapter") });
        let again = Terms { budget: BUDGET, ..terms("recompiled") };
        let again = SignedOffer::sign(&shop.identity().key, again).unwrap();
        shop.identity().lineage(DEFAULT_LINEAGE, &again.offer.adapter_id).unwrap();
        let scored = Counting::default();
        let open = |offer: &SignedOffer| {
            Answering::new(offer.clone(), shop.identity(), Arc::new(scored.clone())).unwrap()
        };
        let offers = [&shop.offer, &again];
        let requests = offers.map(overlapping);
        let mut paid = std::collections::BTreeMap::new();
        for (which, client, recompiled, stops) in steps {
            let of = usize::from(recompiled);
            let (server, request) = (open(offers[of]), &requests[of][which]);
            let client = format!("client {client}");
            let bits = request.price(offers[of]).unwrap();
            let before = scored.0.load(Ordering::SeqCst);
            match server.known(&request.digest, &client) {
                Ok(Known::New) => match server.accept(request, &client) {
                    Ok(()) => {
                        prop_assert!(paid.insert((of, which), (client.clone(), bits)).is_none());
                    }
                    Err(Error::Refused(why)) => {
                        prop_assert!(why.contains("bits"), "{}", why);
                        let left = BUDGET.bits - server.spent().unwrap().bits();
                        prop_assert!(server.left(&client).unwrap().min(left) < bits);
                    }
                    Err(error) => prop_assert!(false, "{error}"),
                },
                Ok(_) => prop_assert_eq!(&paid[&(of, which)].0, &client),
                Err(error) => {
                    prop_assert!(matches!(error, Error::Refused(_)));
                    prop_assert!(paid[&(of, which)].0 != client);
                }
            }
            let is_paid = paid.get(&(of, which)).is_some_and(|(payer, _)| *payer == client);
            if is_paid {
                let _ = server.answer(&request.digest, &mut |_, _| !stops);
            } else {
                prop_assert_eq!(scored.0.load(Ordering::SeqCst), before);
            }
            let spent = server.spent().unwrap();
            let all: u64 = paid.values().map(|(_, bits)| bits).sum();
            prop_assert_eq!(spent.bits(), all);
            prop_assert!(all <= BUDGET.bits);
            for (client, bits) in spent.clients() {
                prop_assert!(bits <= BUDGET.bits_per_client, "{client}");
            }
        }
    }
}

#[test]
fn parallel_requests_learn_no_more_than_the_budget() {
    let shop = Shop::with(Terms { budget: BUDGET, ..terms("adapter") });
    let requests = overlapping(&shop.offer);
    // Servers of several processes would be the same: each opens the ledger anew.
    std::thread::scope(|scope| {
        for client in 0..6 {
            let (shop, requests) = (&shop, &requests);
            scope.spawn(move || {
                for request in requests {
                    let _ = shop.start(NeverReached).accept(request, &format!("client {client}"));
                }
            });
        }
    });
    let spent = shop.start(NeverReached).spent().unwrap();
    assert!(spent.bits() <= BUDGET.bits && spent.bits() > BUDGET.bits / 2);
    assert!(spent.clients().iter().all(|(_, bits)| *bits <= BUDGET.bits_per_client));
    let mut requests: Vec<_> = spent.charges.iter().map(|charge| charge.request).collect();
    requests.sort();
    requests.dedup();
    assert_eq!(requests.len(), spent.charges.len(), "each is charged once");
}

#[test]
fn an_adapter_belongs_to_one_lineage() {
    let shop = Shop::new();
    let identity = shop.identity();
    let adapter = shop.offer.offer.adapter_id;
    let refused = identity.lineage("fresh-budget", &adapter).unwrap_err();
    assert!(refused.to_string().contains("its budget is there"), "{refused}");
    assert_eq!(identity.lineages().unwrap().len(), 1, "no empty lineage is left");
    for name in ["..", ".", "../x", "a/b", "", ".hidden"] {
        assert!(identity.lineage(name, &digest("new")).is_err(), "{name}");
    }
    // Another adapter has its own.
    identity.lineage("other", &digest("other adapter")).unwrap();
    assert_eq!(identity.lineage_of(&digest("other adapter")).unwrap().unwrap().name, "other");
    assert!(identity.lineage(DEFAULT_LINEAGE, &digest("other adapter")).is_err());
}

#[test]
fn an_offer_of_no_lineage_or_another_identity_is_not_answered() {
    let shop = Shop::new();
    let stranger = SignedOffer::sign(&shop.identity().key, terms("never offered")).unwrap();
    assert!(Answering::new(stranger, shop.identity(), Arc::new(NeverReached)).is_err());
    let other = Shop::new();
    assert!(Answering::new(shop.offer.clone(), other.identity(), Arc::new(NeverReached)).is_err());
}

#[test]
fn a_refused_request_costs_nothing_and_is_not_scored() {
    let shop = Shop::with(Terms { budget: Bits { bits: 10, bits_per_client: 10 }, ..terms("a") });
    let server = shop.start(NeverReached);
    let asked = request(&shop.offer, "nonce");
    for _ in 0..3 {
        let refused = server.accept(&asked, "buyer").unwrap_err();
        assert!(matches!(refused, Error::Refused(_)), "{refused}");
        assert!(server.spent().unwrap().charges.is_empty());
        assert_eq!(server.left("buyer").unwrap(), 10);
        assert_eq!(server.known(&asked.digest, "buyer").unwrap(), Known::New);
        assert!(server.answer(&asked.digest, &mut |_, _| true).is_err());
    }
}

/// What one client has spent is not told to another.
#[test]
fn a_refusal_says_nothing_of_other_clients() {
    let shop = Shop::with(Terms { budget: Bits { bits: 900, bits_per_client: 900 }, ..terms("a") });
    let requests = overlapping(&shop.offer);
    let server = shop.start(NeverReached);
    let refusals: Vec<String> = requests
        .iter()
        .chain(&overlapping(&shop.offer))
        .enumerate()
        .filter_map(|(at, request)| {
            let refused = server.accept(request, &format!("client {}", at % 2)).err()?;
            Some(refused.to_string())
        })
        .collect();
    let spent = server.spent().unwrap();
    for refusal in refusals.iter().filter(|refusal| refusal.contains("bits")) {
        assert!(!refusal.contains(&spent.bits().to_string()), "{refusal}");
    }
    let request = FullRequest::new(
        shop.offer.digest,
        &choices("new"),
        vec![group("g", &OF_SEQUENCES, (0..4).map(sequence))],
    );
    let _ = server.accept(&request.unwrap(), "client 2");
}

/// The machine fails after the charge: the same request is answered later, and costs nothing more.
#[test]
fn what_was_charged_is_answered_after_a_failure() {
    struct Fails;
    impl Scorer for Fails {
        fn refuses(&self, _: &Unit) -> Option<String> {
            None
        }

        fn score(&self, _: &[Unit]) -> Result<Vec<UnitScores>, Error> {
            Err(Error::Internal("no memory".into()))
        }
    }
    let shop = Shop::new();
    let asked = request(&shop.offer, "nonce");
    let server = shop.start(Fails);
    server.accept(&asked, "buyer").unwrap();
    server.answer(&asked.digest, &mut |_, _| true).unwrap_err();
    let spent = server.spent().unwrap();
    drop(server);
    let server = shop.start(Scores(7));
    assert_eq!(server.known(&asked.digest, "buyer").unwrap(), Known::Accepted);
    let answer = server.answer(&asked.digest, &mut |_, _| true).unwrap().unwrap();
    Answer::read(&answer, &shop.offer, &asked).unwrap();
    assert_eq!(server.spent().unwrap(), spent);
    // Sent again, it is not charged again; another client does not get it.
    server.accept(&asked, "buyer").unwrap();
    assert_eq!(server.spent().unwrap(), spent);
    assert!(server.accept(&asked, "thief").is_err());
    assert!(server.known(&asked.digest, "thief").is_err());
}
