//! Users that send what no client of ours sends: each is told which check says no, nothing is
//! counted, and the server lives on.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use tonic::{Code, Status};
use zklora_proof::{checked_manifest::CheckedManifest, manifest::Module};
use zklora_session::{
    frame_log::FrameLog,
    ledger::Ledger,
    row_totals::RowTotals,
    server::Limits,
    wire::{
        Batch, Call, DescribeRequest, FinishRequest, Rows, SessionRef, SessionState,
        infer_request::Kind,
    },
};

use crate::{
    party::{
        Server, artifacts, assert_serves, connect, expected, finish as user_finish, limited,
        limits, load, open as user_open, rows_of,
    },
    raw::{self, RawClient, batch, begun, client, fetch, finish, fresh, open, stream, talk, wait},
};

fn assert_says<T>(result: Result<T, Status>, code: Code, text: &str) {
    let status = result.err().expect("it is accepted");
    assert!(
        status.code() == code && status.message().contains(text),
        "expected {code:?} {text:?}, got {status:?}"
    );
}

/// Rows of every module that a stopped server's folder says were served, and by whom.
fn counted(folder: &Path) -> RowTotals {
    let artifacts = load(folder);
    let ledger = Ledger::lock(&artifacts.ledger()).unwrap();
    RowTotals::count(ledger.index(), &artifacts.manifest).unwrap()
}

fn rows_served(url: &str) -> u64 {
    connect(url, None).unwrap().rows_served
}

fn with_limits(folder: &Path, limits: Limits) -> Server {
    let mut options = Server::options(folder);
    options.limits = limits;
    Server::with(folder, &options)
}

#[test]
fn invalid_batches_are_refused_and_not_counted() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let manifest = load(contributor.path()).manifest;
    let x_bits = manifest.modules()[0].x_bits;
    let good = || batch(&manifest, 0, 2, 0);
    let scale = |value: f32| {
        let mut batch = good();
        batch.rows[0].scales = Bytes::from([1f32.to_le_bytes(), value.to_le_bytes()].concat());
        batch
    };
    let first = |value: i32| {
        let mut batch = good();
        let mut bytes = batch.rows[0].inputs[0].to_vec();
        bytes[..4].copy_from_slice(&value.to_le_bytes());
        batch.rows[0].inputs[0] = bytes.into();
        batch
    };
    let with = |change: &dyn Fn(&mut Batch)| {
        let mut batch = good();
        change(&mut batch);
        batch
    };
    let outside = format!("outside ±(2^{} − 1)", x_bits - 1);
    let invalid: Vec<(&str, Batch, &str)> = vec![
        ("NaN", scale(f32::NAN), "row 1: scale NaN is not a positive number"),
        ("infinite", scale(f32::INFINITY), "scale inf is not a positive number"),
        ("negative", scale(-1.0), "scale -1 is not a positive number"),
        ("zero", scale(0.0), "scale 0 is not a positive number"),
        ("minus zero", scale(-0.0), "scale -0 is not a positive number"),
        ("x at the limit", first(1 << (x_bits - 1)), &outside),
        ("x at the negative limit", first(-(1 << (x_bits - 1))), &outside),
        ("smallest integer", first(i32::MIN), &outside),
        ("unknown module", with(&|b| b.calls[0].module = 99), "there is no such module or set"),
        (
            "largest module",
            with(&|b| b.calls[0].module = u32::MAX),
            "there is no such module or set",
        ),
        ("unknown set", with(&|b| b.calls[0].rows = 99), "there is no such module or set"),
        ("module twice", with(&|b| b.calls[1] = b.calls[0]), "is called twice in one batch"),
        ("count of another size", with(&|b| b.rows[0].count = 3), "bytes of scales for 3 rows"),
        (
            "count beyond all memory",
            with(&|b| b.rows[0].count = u32::MAX),
            "bytes of scales for 4294967295 rows",
        ),
        ("no rows", with(&|b| b.rows[0] = Rows::default()), "set 0 of rows: no rows"),
        (
            "half an integer",
            with(&|b| b.rows[0].inputs[0] = Bytes::from(vec![0; 511])),
            "not whole 32-bit integers",
        ),
        (
            "too few values",
            with(&|b| b.rows[0].inputs[0] = Bytes::from(vec![0; 508])),
            "expected 2 rows of 64",
        ),
        (
            "too many inputs",
            with(&|b| b.rows[0].inputs.push(Bytes::new())),
            "2 inputs, the manifest has 1",
        ),
        ("no inputs", with(&|b| b.rows[0].inputs.clear()), "0 inputs, the manifest has 1"),
        (
            "a bias that is not there",
            with(&|b| b.rows[0].ones = Bytes::from(vec![1; 8])),
            "values of the constant 1",
        ),
        ("empty", Batch::default(), "0 calls"),
        ("only rows", with(&|b| b.calls.clear()), "0 calls"),
        ("rows that no call reads", with(&|b| b.calls[1].rows = 0), "no call reads set 1 of rows"),
        (
            "more sets than calls",
            with(&|b| b.rows.push(b.rows[0].clone())),
            "5 sets of rows for 4 calls",
        ),
        (
            "more calls than modules",
            with(&|b| b.calls.push(Call { module: 0, rows: 0 })),
            "5 calls: expected 1 to 4",
        ),
    ];
    wait(async {
        let mut client = client(&server.url()).await;
        let session = fresh();
        open(&mut client, &session, &manifest.id().0).await.unwrap();
        for (name, batch, text) in invalid {
            println!("{name}");
            let mut talk = talk(&mut client, &session).await.unwrap();
            assert_says(talk.say(batch).await, Code::InvalidArgument, text);
        }
        // None of them is part of the session.
        let opened = open(&mut client, &session, &manifest.id().0).await.unwrap();
        assert_eq!((opened.state(), opened.next_sequence), (SessionState::Open, 0));
        // The largest activations that there may be are served.
        let mut talk = talk(&mut client, &session).await.unwrap();
        talk.say(first((1 << (x_bits - 1)) - 1)).await.unwrap();
    });
    assert_eq!(rows_served(&server.url()), 2);
    assert_serves(&server, contributor.path());
}

#[test]
fn streams_that_do_not_keep_to_the_order_are_ended() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let manifest = load(contributor.path()).manifest;
    wait(async {
        let mut client = client(&server.url()).await;
        let session = fresh();
        open(&mut client, &session, &manifest.id().0).await.unwrap();
        let start = "the first message of a stream must be `start`";
        let first = stream(&mut client, Some(Kind::Batch(batch(&manifest, 0, 1, 0)))).await;
        assert_says(first, Code::InvalidArgument, start);
        assert_says(stream(&mut client, None).await, Code::InvalidArgument, start);
        let only = "only the first message of a stream is `start`";
        let mut twice = talk(&mut client, &session).await.unwrap();
        twice.send(Some(Kind::Start(session.clone()))).await;
        assert_says(twice.next().await, Code::InvalidArgument, only);
        let mut empty = talk(&mut client, &session).await.unwrap();
        empty.send(None).await;
        assert_says(empty.next().await, Code::InvalidArgument, only);
        // Gaps, and places in the past with other content.
        let mut gap = talk(&mut client, &session).await.unwrap();
        assert_says(
            gap.say(batch(&manifest, 1, 1, 0)).await,
            Code::OutOfRange,
            "batch 1 came, expected batch 0",
        );
        let mut far = talk(&mut client, &session).await.unwrap();
        assert_says(
            far.say(batch(&manifest, u64::MAX, 1, 0)).await,
            Code::OutOfRange,
            "expected batch 0",
        );
        let mut good = talk(&mut client, &session).await.unwrap();
        let answer = good.say(batch(&manifest, 0, 2, 0)).await.unwrap();
        // The same, byte for byte, is answered the same and not counted.
        assert_eq!(good.say(batch(&manifest, 0, 2, 0)).await.unwrap(), answer);
        assert_says(
            good.say(batch(&manifest, 0, 2, 1)).await,
            Code::FailedPrecondition,
            "sent before with other content",
        );
        assert_eq!(open(&mut client, &session, &manifest.id().0).await.unwrap().next_sequence, 1);
    });
    assert_eq!(rows_served(&server.url()), 2);
    assert_serves(&server, contributor.path());
}

#[test]
fn only_the_client_that_opened_a_session_can_resume_it() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let manifest = load(contributor.path()).manifest;
    wait(async {
        let mut client = client(&server.url()).await;
        let (session, _talk) = begun(&mut client, &manifest, 1).await;
        let other = SessionRef { id: session.id.clone(), key: fresh().key };
        let unknown = fresh();
        let no = "no session of yours has this id and key";
        for stranger in [&other, &unknown] {
            assert_says(talk(&mut client, stranger).await, Code::PermissionDenied, no);
            assert_says(finish(&mut client, stranger, 1).await, Code::PermissionDenied, no);
            assert_says(fetch(&mut client, stranger).await, Code::PermissionDenied, no);
        }
        assert_says(open(&mut client, &other, &manifest.id().0).await, Code::PermissionDenied, no);
        // Ids and keys of other lengths, among them names of files.
        let of = |id: &[u8], key: &[u8]| SessionRef {
            id: Bytes::copy_from_slice(id),
            key: Bytes::copy_from_slice(key),
        };
        let long = [0u8; 33];
        let traversal = format!("../../{}", "x".repeat(26));
        for reference in [
            of(&[], &[]),
            of(&long, &[1; 32]),
            of(&[1; 31], &[1; 32]),
            of(&[1; 32], &long),
            of(&[1; 32], &[]),
        ] {
            let length = "an id of 32 bytes and a key of 32 bytes";
            assert_says(
                open(&mut client, &reference, &manifest.id().0).await,
                Code::InvalidArgument,
                length,
            );
            assert_says(talk(&mut client, &reference).await, Code::InvalidArgument, length);
            assert_says(finish(&mut client, &reference, 0).await, Code::InvalidArgument, length);
            assert_says(fetch(&mut client, &reference).await, Code::InvalidArgument, length);
        }
        let nobody = client.finish(FinishRequest::default()).await;
        assert_says(nobody, Code::InvalidArgument, "names no session");
        // An id that reads like a path is a name of 64 hex digits.
        let path = of(traversal.as_bytes(), &[7; 32]);
        open(&mut client, &path, &manifest.id().0).await.unwrap();
        talk(&mut client, &path).await.unwrap().say(batch(&manifest, 0, 1, 0)).await.unwrap();
        assert_says(
            open(&mut client, &fresh(), &[7; 32]).await,
            Code::FailedPrecondition,
            "you asked for 0707",
        );
        assert_says(
            open(&mut client, &fresh(), &[]).await,
            Code::FailedPrecondition,
            "this server serves adapter",
        );
        let described = client.describe(DescribeRequest { version: 2 }).await;
        assert_says(described, Code::FailedPrecondition, "you speak version 2");
    });
    let sessions = contributor.path().join("private/sessions");
    let names = std::fs::read_dir(sessions)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(names.into_iter().all(|name| name.len() == 69 && name.ends_with(".rows")));
    assert_serves(&server, contributor.path());
}

#[test]
fn a_session_ends_once_with_all_of_its_batches_and_stays_ended() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let manifest = load(contributor.path()).manifest;
    wait(async {
        let mut client = client(&server.url()).await;
        let empty = fresh();
        open(&mut client, &empty, &manifest.id().0).await.unwrap();
        assert_says(
            finish(&mut client, &empty, 0).await,
            Code::FailedPrecondition,
            "nothing to prove",
        );
        let (session, mut talk) = begun(&mut client, &manifest, 2).await;
        assert_says(fetch(&mut client, &session).await, Code::FailedPrecondition, "has not ended");
        for wrong in [0, 2, u64::MAX] {
            let text = format!("you count {wrong} batches, this server counts 1");
            assert_says(
                finish(&mut client, &session, wrong).await,
                Code::FailedPrecondition,
                &text,
            );
        }
        let stages = finish(&mut client, &session, 1).await.unwrap();
        // Neither the old stream nor a new one adds rows.
        let ended = "this session has ended";
        assert_says(talk.say(batch(&manifest, 1, 1, 9)).await, Code::FailedPrecondition, ended);
        let mut later = raw::talk(&mut client, &session).await.unwrap();
        assert_says(later.say(batch(&manifest, 1, 1, 9)).await, Code::FailedPrecondition, ended);
        // Finishing again tells the same, and there is one proof.
        let again = finish(&mut client, &session, 1).await.unwrap();
        assert_eq!(stages.last().unwrap().trace_digest, again.last().unwrap().trace_digest);
        let proof = fetch(&mut client, &session).await.unwrap();
        assert_eq!(fetch(&mut client, &session).await.unwrap(), proof);
    });
    assert_eq!(rows_served(&server.url()), 2);
    server.stop();
    assert_eq!(counted(contributor.path()).total, [2; 4]);
}

#[test]
fn limits_of_rows_hold_to_the_row() {
    let contributor = artifacts();
    let manifest = load(contributor.path()).manifest;
    let limits = Limits { max_batch_rows: 4, max_session_rows: 24, ..limits() };
    let server = with_limits(contributor.path(), limits);
    wait(async {
        let mut client = client(&server.url()).await;
        let (session, mut talk) = begun(&mut client, &manifest, 4).await;
        let split = "5 rows of a module, this server takes 4: split it";
        assert_says(talk.say(batch(&manifest, 1, 5, 0)).await, Code::ResourceExhausted, split);
        let mut talk = raw::talk(&mut client, &session).await.unwrap();
        // 16 are there: 12 more are too many, 8 are not.
        let too_many = "the session would have 28 rows, this server proves at most 24";
        assert_says(talk.say(batch(&manifest, 1, 3, 4)).await, Code::ResourceExhausted, too_many);
        let mut talk = raw::talk(&mut client, &session).await.unwrap();
        talk.say(batch(&manifest, 1, 2, 4)).await.unwrap();
        let too_many = "would have 28 rows";
        assert_says(talk.say(batch(&manifest, 2, 1, 6)).await, Code::ResourceExhausted, too_many);
        assert_eq!(
            finish(&mut client, &session, 2).await.unwrap().last().unwrap().trace_digest.len(),
            32
        );
    });
    assert_eq!(rows_served(&server.url()), 6);
    assert_serves(&server, contributor.path());
}

#[test]
fn a_session_takes_no_more_memory_than_its_limit() {
    let contributor = artifacts();
    let manifest = load(contributor.path()).manifest;
    // A row: activations and scale in 32 bits each, deltas in 64.
    let row = |module: &Module| {
        (module.inputs.iter().map(|x| x.dim).sum::<usize>() + 1) * 4 + module.d_out * 8
    };
    let row: u64 = manifest.modules().iter().map(|module| row(module) as u64).sum();
    let limits = Limits { max_session_bytes: 5 * row - 1, ..limits() };
    let server = with_limits(contributor.path(), limits);
    wait(async {
        let mut client = client(&server.url()).await;
        let (session, mut talk) = begun(&mut client, &manifest, 3).await;
        let too_much =
            format!("a trace of {} bytes, this server proves at most {}", 5 * row, 5 * row - 1);
        assert_says(talk.say(batch(&manifest, 1, 2, 3)).await, Code::ResourceExhausted, &too_much);
        let mut talk = raw::talk(&mut client, &session).await.unwrap();
        talk.say(batch(&manifest, 1, 1, 3)).await.unwrap();
        finish(&mut client, &session, 2).await.unwrap();
    });
    assert_serves(&server, contributor.path());
}

#[test]
fn an_answer_that_exceeds_the_message_limit_is_not_computed() {
    let contributor = artifacts();
    let manifest = load(contributor.path()).manifest;
    // 4 modules with 192 outputs in all: 1536 bytes a row.
    let server = with_limits(contributor.path(), Limits { max_message_bytes: 6000, ..limits() });
    wait(async {
        let mut client = client(&server.url()).await;
        let session = fresh();
        open(&mut client, &session, &manifest.id().0).await.unwrap();
        let mut talk = raw::talk(&mut client, &session).await.unwrap();
        let mut shared = batch(&manifest, 0, 4, 0);
        // Every module reads the same rows: small to send, large to answer.
        shared.rows.truncate(1);
        shared.calls.iter_mut().for_each(|call| call.rows = 0);
        assert_says(
            talk.say(shared).await,
            Code::ResourceExhausted,
            "would be answered with 6144 bytes",
        );
        let mut talk = raw::talk(&mut client, &session).await.unwrap();
        let long = talk.say(batch(&manifest, 0, 8, 0)).await;
        assert_says(long, Code::OutOfRange, "message length too large");
    });
    assert_eq!(rows_served(&server.url()), 0);
    assert_serves(&server, contributor.path());
}

/// Sessions on threads, a row of every module a batch, until the server says no. How many batches
/// were answered.
async fn drain(mut client: RawClient, manifest: CheckedManifest, seed: usize) -> (u64, Status) {
    let session = fresh();
    open(&mut client, &session, &manifest.id().0).await.unwrap();
    let mut talk = talk(&mut client, &session).await.unwrap();
    let mut sequence = 0;
    loop {
        match talk.say(batch(&manifest, sequence, 1, seed)).await {
            Ok(_) => sequence += 1,
            Err(status) => return (sequence, status),
        }
        // Repeating costs nothing.
        talk.say(batch(&manifest, sequence - 1, 1, seed)).await.unwrap();
    }
}

#[test]
fn the_budget_is_exact_shared_by_all_sessions_and_kept_over_a_restart() {
    let contributor = artifacts();
    let limits = limited(37);
    let manifest = load(contributor.path()).manifest;
    let limit = "would have served 38 rows in all, the limit is 37";
    let server = with_limits(contributor.path(), limits.clone());
    wait(async {
        let client = client(&server.url()).await;
        let sessions: Vec<_> = (0..8)
            .map(|seed| tokio::spawn(drain(client.clone(), manifest.clone(), seed)))
            .collect();
        let mut answered = 0;
        for session in sessions {
            let (batches, status) = session.await.unwrap();
            answered += batches;
            assert_says(Err::<(), _>(status), Code::ResourceExhausted, limit);
        }
        assert_eq!(answered, 37);
    });
    assert_eq!(rows_served(&server.url()), 37);
    server.stop();
    assert_eq!(counted(contributor.path()).clients["anonymous"], [37; 4]);
    let server = with_limits(contributor.path(), limits);
    wait(async {
        let mut client = client(&server.url()).await;
        let (batches, status) = drain(client.clone(), manifest.clone(), 99).await;
        assert_eq!(batches, 0);
        assert_says(Err::<(), _>(status), Code::ResourceExhausted, limit);
        // A batch with one row too many for one module is refused as a whole.
        let session = fresh();
        open(&mut client, &session, &manifest.id().0).await.unwrap();
    });
    assert_eq!(rows_served(&server.url()), 37);
}

#[test]
fn a_user_whose_rows_the_budget_refuses_still_gets_the_proof_of_those_before() {
    let contributor = artifacts();
    let server = with_limits(contributor.path(), limited(5));
    let artifacts = load(contributor.path());
    let user = tempfile::tempdir().unwrap();
    let mut session = user_open(&server.url(), None, user.path()).unwrap();
    let first = rows_of(&artifacts.manifest, 4, 0);
    assert_eq!(session.deltas(&first).unwrap(), expected(&artifacts, &first));
    for seed in [4, 8] {
        let refused = session.deltas(&rows_of(&artifacts.manifest, 2, seed)).unwrap_err();
        assert!(refused.to_string().contains("the limit is 5"), "{refused}");
    }
    // The user's process ends with this error, and another one resumes.
    drop(session);
    let mut session = user_open(&server.url(), None, user.path()).unwrap();
    assert_eq!(session.rows(), 16);
    let fits = rows_of(&artifacts.manifest, 1, 12);
    assert_eq!(session.deltas(&fits).unwrap(), expected(&artifacts, &fits));
    session.deltas(&rows_of(&artifacts.manifest, 1, 13)).unwrap_err();
    let rows: usize =
        user_finish(&mut session).unwrap().verdict.rows.iter().map(|(_, rows)| rows).sum();
    assert_eq!(rows, 20);
}

#[test]
fn rows_whose_log_cannot_be_written_are_given_back() {
    let contributor = artifacts();
    let manifest = load(contributor.path()).manifest;
    let server = with_limits(contributor.path(), limited(4));
    let sessions = contributor.path().join("private/sessions");
    let aside = contributor.path().join("private/aside");
    wait(async {
        let mut client = client(&server.url()).await;
        let session = fresh();
        open(&mut client, &session, &manifest.id().0).await.unwrap();
        // Its folder is away, as when a disk is.
        std::fs::rename(&sessions, &aside).unwrap();
        for _ in 0..3 {
            let mut talk = talk(&mut client, &session).await.unwrap();
            assert_says(
                talk.say(batch(&manifest, 0, 4, 0)).await,
                Code::Unavailable,
                "cannot write its log",
            );
        }
        std::fs::rename(&aside, &sessions).unwrap();
        let mut talk = talk(&mut client, &session).await.unwrap();
        talk.say(batch(&manifest, 0, 4, 0)).await.unwrap();
        assert_says(
            talk.say(batch(&manifest, 1, 1, 0)).await,
            Code::ResourceExhausted,
            "the limit is 4",
        );
        finish(&mut client, &session, 1).await.unwrap();
    });
    server.stop();
    assert_eq!(counted(contributor.path()).total, [4; 4]);
}

#[test]
fn a_log_that_disappears_under_a_session_ends_it() {
    let contributor = artifacts();
    let manifest = load(contributor.path()).manifest;
    let server = Server::start(contributor.path());
    wait(async {
        let mut client = client(&server.url()).await;
        let (session, talk) = begun(&mut client, &manifest, 1).await;
        drop(talk);
        let log = contributor
            .path()
            .join("private/sessions")
            .join(format!("{}.rows", hex::encode(&session.id)));
        // The server lets go of it when it sees that the stream is gone.
        while FrameLog::open(&log, &mut |_| Ok(())).is_err() {
            tokio::task::yield_now().await;
        }
        std::fs::remove_file(&log).unwrap();
        // A log that begins with batch 1 would prove, and count, less than was served.
        let mut talk = raw::talk(&mut client, &session).await.unwrap();
        assert_says(
            talk.say(batch(&manifest, 1, 1, 1)).await,
            Code::Unavailable,
            "cannot write its log",
        );
        assert!(!log.exists());
    });
    assert_serves(&server, contributor.path());
}

#[test]
fn sessions_that_are_only_opened_do_not_fill_the_server() {
    let contributor = artifacts();
    let manifest = load(contributor.path()).manifest;
    let server = with_limits(contributor.path(), Limits { max_sessions: 2, ..limits() });
    wait(async {
        let mut client = client(&server.url()).await;
        let (kept, mut talk) = begun(&mut client, &manifest, 1).await;
        for _ in 0..1000 {
            open(&mut client, &fresh(), &manifest.id().0).await.unwrap();
        }
        // A session with rows is not pushed out.
        talk.say(batch(&manifest, 1, 1, 1)).await.unwrap();
        finish(&mut client, &kept, 2).await.unwrap();
    });
    assert_serves(&server, contributor.path());
}

#[test]
fn sessions_with_rows_do_not_fill_the_server() {
    let contributor = artifacts();
    let manifest = load(contributor.path()).manifest;
    // 64 sessions are known at the same time.
    let limits = Limits { max_sessions: 1, ..limits() };
    let server = with_limits(contributor.path(), limits.clone());
    let (open_one, proven_one) = wait(async {
        let mut client = client(&server.url()).await;
        let (proven, _) = begun(&mut client, &manifest, 1).await;
        finish(&mut client, &proven, 1).await.unwrap();
        let (left, _) = begun(&mut client, &manifest, 1).await;
        for _ in 0..70 {
            // One place for streams: the one before has to be seen to be gone.
            let session = fresh();
            open(&mut client, &session, &manifest.id().0).await.unwrap();
            loop {
                match talk(&mut client, &session).await {
                    Ok(mut talk) => break drop(talk.say(batch(&manifest, 0, 1, 0)).await.unwrap()),
                    Err(status) => {
                        assert_says(Err::<(), _>(status), Code::Unavailable, "active sessions")
                    }
                }
                tokio::task::yield_now().await;
            }
        }
        (left, proven)
    });
    // What was pushed out of memory is found again: before a restart, and after one.
    let check = |server: &Server| {
        wait(async {
            let mut client = client(&server.url()).await;
            assert_eq!(
                open(&mut client, &open_one, &manifest.id().0).await.unwrap().next_sequence,
                1
            );
            assert_eq!(
                open(&mut client, &proven_one, &manifest.id().0).await.unwrap().state(),
                SessionState::Proven
            );
            fetch(&mut client, &proven_one).await.unwrap();
            let stranger = SessionRef { id: open_one.id.clone(), key: fresh().key };
            let no = "no session of yours";
            assert_says(
                open(&mut client, &stranger, &manifest.id().0).await,
                Code::PermissionDenied,
                no,
            );
            assert_says(finish(&mut client, &stranger, 1).await, Code::PermissionDenied, no);
        });
    };
    check(&server);
    server.stop();
    let server = with_limits(contributor.path(), limits);
    check(&server);
    wait(async {
        let mut client = client(&server.url()).await;
        finish(&mut client, &open_one, 1).await.unwrap();
    });
    assert_eq!(rows_served(&server.url()), 72);
    assert_serves(&server, contributor.path());
}

#[test]
fn a_second_stream_takes_the_session_over() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let manifest = load(contributor.path()).manifest;
    wait(async {
        let mut client = client(&server.url()).await;
        let (session, mut first) = begun(&mut client, &manifest, 1).await;
        let mut second = talk(&mut client, &session).await.unwrap();
        assert_says(first.next().await, Code::Aborted, "another stream resumed this session");
        second.say(batch(&manifest, 1, 1, 1)).await.unwrap();
        finish(&mut client, &session, 2).await.unwrap();
    });
    assert_eq!(rows_served(&server.url()), 2);
}

#[test]
fn streams_and_finishes_that_race_leave_one_proof_of_all_rows_that_were_answered() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let manifest = load(contributor.path()).manifest;
    let mut total = 0;
    for round in 0..4u64 {
        total += wait(async {
            let mut client = client(&server.url()).await;
            let (session, _first) = begun(&mut client, &manifest, 1).await;
            let racers: Vec<_> = (0..4)
                .map(|racer: usize| {
                    let (mut client, session, manifest) =
                        (client.clone(), session.clone(), manifest.clone());
                    tokio::spawn(async move {
                        if racer.is_multiple_of(2) {
                            let mut talk = talk(&mut client, &session).await.ok()?;
                            // The same content: the second sender repeats it.
                            talk.say(batch(&manifest, 1, 1, 7)).await.ok().map(|_| ())
                        } else {
                            finish(&mut client, &session, round % 2 + 1).await.ok().map(|_| ())
                        }
                    })
                })
                .collect();
            let mut done = Vec::new();
            for racer in racers {
                done.push(racer.await.unwrap().is_some());
            }
            let batches =
                open(&mut client, &session, &manifest.id().0).await.unwrap().next_sequence;
            finish(&mut client, &session, batches).await.unwrap();
            fetch(&mut client, &session).await.unwrap();
            // A batch that was answered is part of the session.
            assert!(batches == 2 || !(done[0] || done[2]), "{done:?} {batches}");
            batches
        });
        assert_eq!(rows_served(&server.url()), total);
    }
    server.stop();
    assert_eq!(counted(contributor.path()).total, [total; 4]);
}

#[test]
fn a_cancelled_finish_is_proven() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let manifest = load(contributor.path()).manifest;
    wait(async {
        for round in 0..8u64 {
            // A connection of its own, which goes away with the request.
            let mut given_up = client(&server.url()).await;
            let (session, talk) = begun(&mut given_up, &manifest, 1).await;
            drop(talk);
            let reference = session.clone();
            let request = tokio::spawn(async move { finish(&mut given_up, &reference, 1).await });
            tokio::time::sleep(std::time::Duration::from_micros(1000 * round)).await;
            request.abort();
            let _ = request.await;
            let mut client = client(&server.url()).await;
            let last = finish(&mut client, &session, 1).await.unwrap().pop().unwrap();
            assert_eq!(last.trace_digest.len(), 32, "round {round}");
        }
    });
}

#[test]
fn what_can_be_asked_without_a_session_is_public() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let manifest = load(contributor.path()).manifest;
    let description = wait(async {
        let mut client = client(&server.url()).await;
        client.describe(DescribeRequest { version: 1 }).await.unwrap().into_inner()
    });
    assert_eq!(description.manifest, manifest.contents().to_bytes().unwrap());
    assert_eq!(description.settings, manifest.settings().to_bytes().unwrap());
    assert_eq!(
        Arc::new(description).limits.unwrap().max_batch_rows,
        Limits::default().max_batch_rows
    );
}
