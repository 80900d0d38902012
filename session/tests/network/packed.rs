//! Packed batches and answers: the same integers as without packing, between parties of which only
//! one packs, and refused if anything is wrong with them.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use tonic::Code;
use zklora_session::{
    Error, packing,
    server::Limits,
    wire::{Batch, InferResponse, infer_request::Kind},
};

use crate::{
    party::{
        Server, artifacts, assert_serves, calls, connect, expected, finish, limits, load, open,
    },
    proxy::{Interceptor, Proxy},
    raw::{self, batch, begun, talk, wait},
};

/// Enough rows for factors, and too few.
const MANY: usize = 40;
const FEW: usize = 2;

/// A contributor that packs, or one of a version before packing.
struct Honest {
    packs: bool,
    /// Bytes of the answers' deltas.
    answered: Arc<AtomicUsize>,
}

impl Interceptor for Honest {
    fn packs(&self) -> bool {
        self.packs
    }
    fn answered(&self, _: &Batch, answer: &mut InferResponse) {
        let bytes = answer.deltas.iter().map(Bytes::len).sum();
        self.answered.fetch_add(bytes, Ordering::Relaxed);
    }
}

#[test]
fn users_get_the_same_deltas_with_and_without_packing() {
    let contributor = artifacts();
    let (server, artifacts) = (Server::start(contributor.path()), load(contributor.path()));
    let mut answered = Vec::new();
    for packs in [false, true] {
        let (user, bytes) = (tempfile::tempdir().unwrap(), Arc::new(AtomicUsize::new(0)));
        let proxy = Proxy::start(&server.url(), Honest { packs, answered: Arc::clone(&bytes) });
        let mut session = open(&proxy.url(), Some(artifacts.manifest.id()), user.path()).unwrap();
        for (rows, seed) in [(FEW, 0), (MANY, 10), (1, 100)] {
            let calls = calls(&session, rows, seed);
            assert_eq!(session.deltas(&calls).unwrap(), expected(&artifacts, &calls));
        }
        // Besides these, a message has numbers and lengths.
        let (all, deltas) = (session.statistics.received as usize, bytes.load(Ordering::Relaxed));
        assert!(deltas < all && all < deltas + 200, "{all} of {deltas}");
        finish(&mut session).unwrap();
        answered.push(bytes.load(Ordering::Relaxed));
    }
    assert!(answered[1] * 2 < answered[0], "{answered:?}");
}

#[test]
fn one_session_may_have_both_kinds_of_batches_and_repeat_each_as_the_other() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let artifacts = load(contributor.path());
    let manifest = &artifacts.manifest;
    wait(async {
        let mut client = raw::client(&server.url()).await;
        let (session, mut talk) = begun(&mut client, manifest, FEW).await;
        let many = batch(manifest, 1, MANY, 10);
        let packed = Kind::Packed(packing::pack_batch(&many));
        let answer = talk.ask(packed).await.unwrap();
        let unpacked = packing::unpack_answer(&many, &answer, manifest).unwrap();
        assert_eq!(talk.say(many.clone()).await.unwrap(), unpacked);
        let first = batch(manifest, 0, FEW, 0);
        let plain = talk.say(first.clone()).await.unwrap();
        let answer = talk.ask(Kind::Packed(packing::pack_batch(&first))).await.unwrap();
        assert_eq!(packing::unpack_answer(&first, &answer, manifest).unwrap(), plain);
        raw::finish(&mut client, &session, 2).await.unwrap();
    });
    let rows = (FEW + MANY) as u64;
    assert_eq!(connect(&server.url(), None).unwrap().rows_served, rows);
}

#[test]
fn packed_batches_with_anything_wrong_are_refused_and_not_counted() {
    let contributor = artifacts();
    let most = 64 << 10;
    let mut options = Server::options(contributor.path());
    options.limits = Limits { max_message_bytes: most, ..limits() };
    let server = Server::with(contributor.path(), &options);
    let manifest = load(contributor.path()).manifest;
    let good = packing::pack_batch(&batch(&manifest, 1, FEW, 10));
    let with = |change: &dyn Fn(&mut Batch)| {
        let mut batch = good.clone();
        change(&mut batch);
        batch
    };
    let input = |change: &dyn Fn(&mut Vec<u8>)| {
        with(&|batch| {
            let mut bytes = batch.rows[0].inputs[0].to_vec();
            change(&mut bytes);
            batch.rows[0].inputs[0] = bytes.into();
        })
    };
    let invalid: Vec<(Batch, Code, &str)> = vec![
        (input(&|bytes| bytes[0] = 33), Code::InvalidArgument, "33 bits"),
        (input(&|bytes| bytes.push(0)), Code::InvalidArgument, "1 bytes follow"),
        (
            input(&|bytes| {
                bytes.pop();
            }),
            Code::InvalidArgument,
            "end early",
        ),
        (input(&|bytes| bytes.clear()), Code::InvalidArgument, "are too few for"),
        // 128 zeros at a width of one bit, which need none.
        (input(&|bytes| *bytes = [1, 0, 0, 0, 0].repeat(4)), Code::InvalidArgument, "needs fewer"),
        // Wide integers: unpacked, and outside the range of the module.
        (
            input(&|bytes| {
                *bytes = [&[32][..], &[0xff; 128]].concat().repeat(4);
            }),
            Code::InvalidArgument,
            "outside ±",
        ),
        (with(&|b| b.rows[0].count = 3), Code::InvalidArgument, "end early"),
        // Two million bytes on the wire would be needed, and none are taken.
        (with(&|b| b.rows[0].count = u32::MAX), Code::ResourceExhausted, "packed and unpacked"),
        (with(&|b| b.rows[0].count = 250), Code::ResourceExhausted, "packed and unpacked"),
        (with(&|b| b.rows[0].inputs.clear()), Code::InvalidArgument, "0 inputs"),
        (with(&|b| b.calls.clear()), Code::InvalidArgument, "no module of this adapter reads"),
        (with(&|b| b.calls[0].module = 99), Code::InvalidArgument, "no module of this adapter"),
        (with(&|b| b.rows.clear()), Code::InvalidArgument, "there is no such module or set"),
        (
            with(&|b| b.calls = b.calls.repeat(5)),
            Code::InvalidArgument,
            "20 calls: expected 1 to 4",
        ),
        (batch(&manifest, 1, FEW, 10), Code::InvalidArgument, "set 0 of rows: input"),
    ];
    wait(async {
        let mut client = raw::client(&server.url()).await;
        let (session, _) = begun(&mut client, &manifest, 1).await;
        for (batch, code, text) in invalid {
            let mut talk = talk(&mut client, &session).await.unwrap();
            let status = talk.ask(Kind::Packed(batch)).await.unwrap_err();
            assert!(
                status.code() == code && status.message().contains(text),
                "expected {code:?} {text}: {status}"
            );
        }
        let mut talk = talk(&mut client, &session).await.unwrap();
        talk.ask(Kind::Packed(good)).await.unwrap();
        raw::finish(&mut client, &session, 2).await.unwrap();
    });
    assert_eq!(connect(&server.url(), None).unwrap().rows_served, 1 + FEW as u64);
    assert_serves(&server, contributor.path());
}

/// Changes the packed deltas of the first call.
struct Changed<F>(F);

impl<F: Fn(&mut Vec<u8>) + Send + Sync + 'static> Interceptor for Changed<F> {
    fn packs(&self) -> bool {
        true
    }
    fn answered(&self, _: &Batch, answer: &mut InferResponse) {
        let mut bytes = answer.deltas[0].to_vec();
        (self.0)(&mut bytes);
        answer.deltas[0] = bytes.into();
    }
}

#[test]
fn packed_answers_with_anything_wrong_are_refused() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    type Change = fn(&mut Vec<u8>);
    let of_factors: &[(Change, &str)] = &[
        (|bytes| bytes.clear(), "no deltas"),
        (|bytes| bytes[0] = 7, "unknown kind 7"),
        (|bytes| bytes[0] = 0, "expected the other kind"),
        (
            |bytes| {
                bytes.pop();
            },
            "bytes of factors",
        ),
        (|bytes| bytes.push(0), "bytes of factors"),
        // A rank that the module does not have.
        (|bytes| bytes.extend_from_within(1..), "bytes of factors"),
        // Factors whose product has -2^63.
        (
            |bytes| {
                bytes[1..].fill(0);
                (bytes[8], bytes[1 + 4 * MANY * 8]) = (0x80, 1);
            },
            "is outside the certified bound",
        ),
    ];
    let of_integers: &[(Change, &str)] = &[
        (|bytes| bytes.clear(), "no deltas"),
        (|bytes| bytes[0] = 1, "expected the other kind"),
        (|bytes| bytes.push(0), "1 bytes follow"),
        (
            |bytes| {
                bytes.pop();
            },
            "end early",
        ),
        (|bytes| bytes[1] = 40, "40 bits"),
        (|bytes| bytes.truncate(2), "are too few for"),
    ];
    for (rows, changes) in [(MANY, of_factors), (FEW, of_integers)] {
        for (change, why) in changes {
            let user = tempfile::tempdir().unwrap();
            let proxy = Proxy::start(&server.url(), Changed(change));
            let mut session = open(&proxy.url(), None, user.path()).unwrap();
            let calls = calls(&session, rows, 0);
            let error = session.deltas(&calls).map(|_| ()).unwrap_err();
            let text = error.to_string();
            assert!(
                matches!(error, Error::Contributor { .. })
                    && text.contains(why)
                    && text.contains("module `"),
                "expected {why}: {error}"
            );
        }
    }
    // Factors that were changed and have a product within the bound: the proof is of other rows.
    let user = tempfile::tempdir().unwrap();
    let half: Change = |bytes| bytes[1..9].copy_from_slice(&0u64.to_le_bytes());
    let proxy = Proxy::start(&server.url(), Changed(half));
    let mut session = open(&proxy.url(), None, user.path()).unwrap();
    session.deltas(&calls(&session, MANY, 0)).unwrap();
    let error = finish(&mut session).unwrap_err();
    assert!(error.is_refusal(), "{error}");
}
