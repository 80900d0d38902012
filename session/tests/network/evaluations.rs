//! Requests for evaluations over the network, with scores that a test makes up.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, transport::Channel};
use zklora_evaluation::{
    Error as Evaluating,
    answer::Answer,
    answering::Answering,
    digest::Digest,
    identity::{DEFAULT_LINEAGE, Identity},
    metric::Metric,
    offer::{Bits, Limits, SignedOffer, Terms},
    request::{Choices, FullRequest, UnitGroup, sequences},
    unit_scores::{Scorer, SequenceScore, UnitScores},
};
use zklora_integer::unit::{Sequence, Unit};
use zklora_session::{
    client::{ContributorOptions, Evaluator, Step},
    server::{ServerOptions, Tokens},
    wire::evaluation::{
        EvaluateRequest, OfferRequest, PART, evaluate_request::Kind, evaluate_response,
        evaluation_client::EvaluationClient,
    },
};

use crate::{
    child::{ALICE, BOB, tokens},
    party::{Server, artifacts, load, network, options},
    raw::wait,
};

/// Scores that depend on the tokens; counts and delays the units.
#[derive(Default)]
struct Counting {
    units: AtomicUsize,
    delay: Duration,
}

impl Scorer for Counting {
    fn refuses(&self, unit: &Unit) -> Option<String> {
        let is_foreign = |of: &Sequence| of.tokens.iter().any(|token| *token >= 1000);
        sequences(unit).iter().any(is_foreign).then(|| "a token of another model".into())
    }

    fn score(&self, units: &[Unit]) -> Result<Vec<UnitScores>, Evaluating> {
        self.units.fetch_add(units.len(), Ordering::Relaxed);
        std::thread::sleep(self.delay * units.len() as u32);
        let side = |unit: &Unit, by: i64| {
            let sum = |of: &Sequence| of.tokens.iter().map(|token| i64::from(*token)).sum::<i64>();
            let score = |of| SequenceScore { sum: -sum(of) * 7 - by, greedy: false };
            Some(sequences(unit).iter().map(score).collect())
        };
        Ok(units.iter().map(|of| UnitScores { base: side(of, 9), adapted: side(of, 0) }).collect())
    }
}

/// A contributor's folder with an identity and an offer.
struct Shop {
    folder: tempfile::TempDir,
    offer: SignedOffer,
}

impl Shop {
    fn new(bits: u64, bits_per_client: u64) -> Shop {
        let folder = artifacts();
        let adapter_id = Digest(load(folder.path()).manifest.id().0);
        let identity = Identity::open_or_create(&folder.path().join("identity")).unwrap();
        identity.lineage(DEFAULT_LINEAGE, &adapter_id).unwrap();
        let terms = Terms {
            adapter_id,
            base_model: "tiny".into(),
            budget: Bits { bits, bits_per_client },
            contact: String::new(),
            integer_model: Digest([2; 32]),
            layers: vec![0],
            limits: Limits { tokens: 200_000, unit_tokens: 64, units: 5000 },
            per_unit: false,
            rotations: vec![],
            rules: 1,
            score_bits: 9,
        };
        let offer = SignedOffer::sign(&identity.key, terms).unwrap();
        Shop { folder, offer }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn answering(&self, scorer: &Arc<Counting>) -> Answering {
        let identity = Identity::open(&self.path().join("identity")).unwrap();
        Answering::new(self.offer.clone(), identity, Arc::clone(scorer) as _).unwrap()
    }

    fn serve(&self, options: &ServerOptions, scorer: &Arc<Counting>) -> Server {
        Server::evaluating(self.path(), options, Some(self.answering(scorer)))
    }

    fn request(&self, nonce: u8, units: usize) -> FullRequest {
        let token =
            |at: usize, place: usize| ((at * 13 + place * 5 + usize::from(nonce)) % 1000) as u32;
        let unit = |at| {
            let tokens = (0..30).map(|place| token(at, place)).collect();
            Unit::LogProbability(Sequence { tokens, from: 1 })
        };
        let group = UnitGroup {
            name: "g".into(),
            metrics: vec![Metric::LogProbability],
            units: (0..units).map(unit).collect(),
        };
        let choices = Choices {
            nonce: Digest([nonce; 32]),
            draw: Digest([4; 32]),
            list_unscored: 0,
            per_unit: false,
        };
        FullRequest::new(self.offer.digest, &choices, vec![group]).unwrap()
    }

    fn charges(&self) -> usize {
        self.answering(&Arc::default()).spent().unwrap().charges.len()
    }

    /// Evaluates, and checks the answer.
    fn buy(&self, options: &ContributorOptions, request: &FullRequest) -> Result<Vec<u8>, String> {
        let network = network();
        let mut evaluator = Evaluator::new(options, &network).unwrap();
        let answer = evaluator.evaluate(request, &mut |_| {}).map_err(|error| error.to_string())?;
        Answer::read(&answer, &self.offer, request).unwrap();
        Ok(answer)
    }
}

fn buyer(url: &str, folder: &Path, name: Option<&str>) -> ContributorOptions {
    ContributorOptions {
        token_file: name.map(|name| folder.join(name)),
        patience: Duration::from_secs(5),
        ..options(url, None)
    }
}

fn with_tokens(folder: &Path) -> ServerOptions {
    tokens(folder);
    let tokens = Tokens::read(&folder.join("tokens")).unwrap();
    ServerOptions { tokens: Some(tokens), ..Server::options(folder) }
}

#[test]
fn clients_have_budgets_of_their_own_and_answers_of_their_own() {
    assert_ne!(ALICE, BOB);
    // A request costs 17 bits for the mean, 2 besides.
    let shop = Shop::new(40, 20);
    let scorer = Arc::new(Counting::default());
    let server = shop.serve(&with_tokens(shop.path()), &scorer);
    let alice = buyer(&server.url(), shop.path(), Some("alice"));
    let bob = buyer(&server.url(), shop.path(), Some("bob"));
    let request = shop.request(1, 3);
    let answer = shop.buy(&alice, &request).unwrap();
    assert_eq!(scorer.units.load(Ordering::Relaxed), 3);
    // The same request is free, gets the same bytes, and is not scored again.
    assert_eq!(shop.buy(&alice, &request).unwrap(), answer);
    // It is Alice's.
    let refused = shop.buy(&bob, &request).unwrap_err();
    assert!(refused.contains("another client"), "{refused}");
    // A second request exceeds Alice's share, and not Bob's; then the adapter's budget is spent.
    let refused = shop.buy(&alice, &shop.request(2, 3)).unwrap_err();
    assert!(refused.contains("19 of your 20 are spent"), "{refused}");
    shop.buy(&bob, &shop.request(3, 3)).unwrap();
    let network = network();
    let left = |of| Evaluator::new(of, &network).unwrap().offer().unwrap().bits_left;
    assert_eq!((left(&alice), left(&bob)), (1, 1));
    assert_eq!((shop.charges(), scorer.units.load(Ordering::Relaxed)), (2, 6));
    // Without a token there is nothing.
    let stranger = buyer(&server.url(), shop.path(), None);
    let refused = shop.buy(&stranger, &shop.request(4, 3)).unwrap_err();
    assert!(refused.contains("requires a token"), "{refused}");
}

#[test]
fn parallel_requests_do_not_exceed_the_budget_and_one_request_is_scored_once() {
    let shop = Shop::new(19 * 3, 19 * 3);
    let scorer = Arc::new(Counting { delay: Duration::from_millis(1), ..Counting::default() });
    let server = shop.serve(&Server::options(shop.path()), &scorer);
    let own = buyer(&server.url(), shop.path(), None);
    let same = shop.request(9, 20);
    let answers: Vec<Result<Vec<u8>, String>> = std::thread::scope(|scope| {
        let one = |nonce: u8| {
            let (shop, own, same) = (&shop, &own, &same);
            let other = shop.request(nonce, 20);
            scope.spawn(move || shop.buy(own, if nonce < 4 { same } else { &other }))
        };
        let threads: Vec<_> = (0..9).map(one).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let given: std::collections::BTreeSet<&Vec<u8>> =
        answers.iter().filter_map(|answer| answer.as_ref().ok()).collect();
    assert_eq!(given.len(), 3, "{answers:?}");
    assert_eq!((shop.charges(), scorer.units.load(Ordering::Relaxed)), (3, 60));
}

#[test]
fn a_server_that_stops_in_the_middle_goes_on_where_it_was() {
    let shop = Shop::new(1000, 1000);
    let slow = Arc::new(Counting { delay: Duration::from_millis(2), ..Counting::default() });
    let first = shop.serve(&Server::options(shop.path()), &slow);
    let own = ContributorOptions {
        patience: Duration::from_secs(30),
        ..buyer(&first.url(), shop.path(), None)
    };
    let request = shop.request(1, 2000);
    let (mut steps, network) = (Vec::new(), network());
    std::thread::scope(|scope| {
        let buyer = scope.spawn(|| {
            let mut evaluator = Evaluator::new(&own, &network).unwrap();
            evaluator.evaluate(&request, &mut |step| steps.push(step))
        });
        let start = Instant::now();
        while slow.units.load(Ordering::Relaxed) < 500 {
            assert!(start.elapsed() < Duration::from_secs(30));
            std::thread::sleep(Duration::from_millis(5));
        }
        let options = ServerOptions { listen: first.address, ..Server::options(shop.path()) };
        first.stop();
        let before = slow.units.load(Ordering::Relaxed);
        assert!(before < 2000);
        let second = shop.serve(&options, &slow);
        let answer = buyer.join().unwrap().unwrap();
        Answer::read(&answer, &shop.offer, &request).unwrap();
        // At most the units that were being scored are scored again.
        assert!(slow.units.load(Ordering::Relaxed) <= 2000 + 200);
        second.stop();
    });
    assert!(steps.contains(&Step::Retrying), "{steps:?}");
    assert_eq!(shop.charges(), 1);
}

/// After a new offer, an answer that was paid for is still given. A request that was charged and
/// not answered is refused for good, and not tried for ever.
#[test]
fn a_new_offer_keeps_old_answers() {
    let mut shop = Shop::new(1000, 1000);
    let scorer = Arc::new(Counting::default());
    let server = shop.serve(&Server::options(shop.path()), &scorer);
    let answered = shop.request(1, 3);
    let answer = shop.buy(&buyer(&server.url(), shop.path(), None), &answered).unwrap();
    server.stop();
    let charged = shop.request(2, 3);
    shop.answering(&scorer).accept(&charged, "anonymous").unwrap();
    let key = Identity::open(&shop.path().join("identity")).unwrap().key;
    let terms = Terms {
        adapter_id: shop.offer.offer.adapter_id,
        base_model: "tiny".into(),
        budget: shop.offer.offer.budget,
        contact: "moved".into(),
        integer_model: Digest([2; 32]),
        layers: vec![0],
        limits: shop.offer.offer.limits,
        per_unit: false,
        rotations: vec![],
        rules: 1,
        score_bits: 9,
    };
    let old = std::mem::replace(&mut shop.offer, SignedOffer::sign(&key, terms).unwrap());
    let server = shop.serve(&Server::options(shop.path()), &scorer);
    let own = buyer(&server.url(), shop.path(), None);
    let network = network();
    let mut evaluator = Evaluator::new(&own, &network).unwrap();
    let again = evaluator.evaluate(&answered, &mut |_| {}).unwrap();
    assert_eq!(again, answer);
    Answer::read(&again, &old, &answered).unwrap();
    let start = Instant::now();
    let refused = evaluator.evaluate(&charged, &mut |_| {}).unwrap_err().to_string();
    assert!(refused.contains("the request is for offer"), "{refused}");
    assert!(start.elapsed() < Duration::from_secs(3), "it is not tried again");
    assert_eq!(scorer.units.load(Ordering::Relaxed), 3);
}

/// A buyer who asks again and again sees neither when the answer was made, nor how fast each unit
/// was.
#[test]
fn asking_again_and_again_shows_no_times() {
    let shop = Shop::new(1000, 1000);
    let scorer = Arc::new(Counting { delay: Duration::from_millis(1), ..Counting::default() });
    let server = shop.serve(&Server::options(shop.path()), &scorer);
    // About 400 ms of scoring, in three parts.
    let request = shop.request(1, 400);
    let own = buyer(&server.url(), shop.path(), None);
    let start = Instant::now();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| shop.buy(&own, &request).unwrap());
        while scorer.units.load(Ordering::Relaxed) == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let polls = wait(async {
            let mut client = EvaluationClient::connect(server.url()).await.unwrap();
            let (mut seen, mut polls) = (std::collections::BTreeSet::new(), 0);
            loop {
                let (sender, outgoing) = tokio::sync::mpsc::channel(1);
                let kind = Some(Kind::Request(request.bytes.clone().into()));
                sender.send(EvaluateRequest { kind }).await.unwrap();
                let responses = client.evaluate(ReceiverStream::new(outgoing)).await.unwrap();
                polls += 1;
                match responses.into_inner().message().await.unwrap().unwrap().kind.unwrap() {
                    evaluate_response::Kind::Answer(_) => break (seen.len(), polls),
                    evaluate_response::Kind::Progress(now) => seen.insert(now.scored),
                    evaluate_response::Kind::SendUnits(_) => panic!("they were sent"),
                };
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
        assert!(polls.0 <= 2 && polls.1 > 10, "{polls:?}");
        first.join().unwrap();
    });
}

type Raw = EvaluationClient<Channel>;

/// Sends messages, closes, and returns the last status or answer.
async fn say(client: &mut Raw, messages: Vec<Kind>) -> Result<Vec<u8>, Status> {
    let (sender, outgoing) = tokio::sync::mpsc::channel(messages.len().max(1));
    for kind in messages {
        sender.send(EvaluateRequest { kind: Some(kind) }).await.unwrap();
    }
    drop(sender);
    let mut responses = client.evaluate(ReceiverStream::new(outgoing)).await?.into_inner();
    let mut answer = Vec::new();
    while let Some(response) = responses.message().await? {
        if let Some(evaluate_response::Kind::Answer(part)) = response.kind {
            answer.extend(part);
        }
    }
    Ok(answer)
}

#[test]
fn what_is_no_request_is_refused_and_costs_nothing() {
    let shop = Shop::new(1000, 1000);
    let scorer = Arc::new(Counting::default());
    let server = shop.serve(&Server::options(shop.path()), &scorer);
    let request = shop.request(1, 3);
    let header = |of: &FullRequest| Kind::Request(of.bytes.clone().into());
    let units = |bytes: &[u8]| Kind::Units(Bytes::copy_from_slice(bytes));
    let own = units(&request.unit_bytes);
    let claim = FullRequest::new(
        shop.offer.digest,
        &Choices { nonce: Digest::ZERO, draw: Digest::ZERO, list_unscored: 0, per_unit: false },
        vec![UnitGroup {
            name: "g".into(),
            metrics: vec![Metric::LogProbability],
            units: request.units.clone(),
        }],
    )
    .unwrap();
    let other = Shop::new(1000, 1000);
    let foreign = other.request(1, 3);
    let mut cut = request.unit_bytes.clone();
    cut.pop();
    let longer = [request.unit_bytes.as_slice(), &[0]].concat();
    let unknown = {
        let tokens = vec![5000; 3];
        let unit = Unit::LogProbability(Sequence { tokens, from: 1 });
        let group = UnitGroup {
            name: "g".into(),
            metrics: vec![Metric::LogProbability],
            units: vec![unit],
        };
        let choices = Choices {
            nonce: Digest([7; 32]),
            draw: Digest([7; 32]),
            list_unscored: 0,
            per_unit: false,
        };
        FullRequest::new(shop.offer.digest, &choices, vec![group]).unwrap()
    };
    let cases: Vec<(Vec<Kind>, &str)> = vec![
        (vec![own.clone()], "first message"),
        (vec![Kind::Request(b"{}".as_slice().into())], "request.json"),
        (vec![header(&claim)], "all zeros"),
        (vec![header(&foreign)], "the request is for offer"),
        (vec![header(&request)], "ends early"),
        (vec![header(&request), header(&request)], "expected a part"),
        (vec![header(&request), units(&[])], "in parts of up to"),
        (vec![header(&request), units(&vec![1; PART + 1])], "in parts of up to"),
        (vec![header(&request), units(&cut)], "ends early"),
        (vec![header(&request), units(&longer)], "after the last unit"),
        (vec![header(&request), units(&shop.request(2, 3).unit_bytes)], "not those of the request"),
        (vec![header(&unknown), units(&unknown.unit_bytes)], "token of another model"),
    ];
    wait(async {
        let mut client = EvaluationClient::connect(server.url())
            .await
            .unwrap()
            .max_encoding_message_size(usize::MAX);
        for (messages, why) in cases {
            let refused = say(&mut client, messages).await.unwrap_err();
            assert!(refused.message().contains(why), "{why}: {refused}");
            assert!(
                [Code::InvalidArgument, Code::ResourceExhausted].contains(&refused.code()),
                "{refused}"
            );
        }
        let version = client.offer(OfferRequest { version: 1 }).await.unwrap_err();
        assert_eq!(version.code(), Code::FailedPrecondition);
        assert_eq!(shop.charges(), 0);
        assert_eq!(scorer.units.load(Ordering::Relaxed), 0);
        // In any parts it is one request.
        let parts = request.unit_bytes.chunks(7).map(units);
        let answer = say(&mut client, [header(&request)].into_iter().chain(parts).collect());
        Answer::read(&answer.await.unwrap(), &shop.offer, &request).unwrap();
    });
    assert_eq!(shop.charges(), 1);
    // Units on the disk are the buyer's, for the contributor alone.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let folder = shop.path().join("identity/lineages/adapter/requests");
        let stored = fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
        for file in ["request.json", "units.bin", "answer.json"] {
            let mode = fs::metadata(stored.join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
        assert!(!stored.join("scores").exists());
    }
}

#[test]
fn a_server_of_rows_alone_offers_no_evaluations() {
    let folder = artifacts();
    let server = Server::start(folder.path());
    let own = buyer(&server.url(), folder.path(), None);
    let network = network();
    let refused = Evaluator::new(&own, &network).unwrap().offer().unwrap_err().to_string();
    assert!(refused.contains("offers no evaluations"), "{refused}");
}
