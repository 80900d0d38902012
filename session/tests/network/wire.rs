//! What comes over a socket when it is not what was agreed: malformed, too large, cut off, or slow.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use tonic::Code;
use zklora_session::{
    client::Remote,
    server::Limits,
    wire::{Batch, InferRequest, Rows, infer_request::Kind},
};

use crate::{
    http2::{PREFACE, frame},
    party::{
        self, Server, artifacts, assert_serves, calls, connect, expected, finish, limits, load,
        network, open,
    },
    raw::{self, batch, begun, fresh, stream, talk, wait},
    tap::Tap,
};

fn with_limits(folder: &std::path::Path, limits: Limits) -> Server {
    let mut options = Server::options(folder);
    options.limits = limits;
    Server::with(folder, &options)
}

/// Whether the other side ends the connection within ten seconds.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut buffer = [0u8; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(e) => return e.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

#[test]
fn bytes_that_are_no_request_end_only_their_connection() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let noise: Vec<u8> = blake3::hash(b"noise").as_bytes().repeat(64);
    let settings = frame(4, 0, 0, &[]);
    let begun = |frame: Vec<u8>| [PREFACE, &settings, &frame].concat();
    let mut oversize = frame(0, 0, 1, &[]);
    oversize[..3].copy_from_slice(&[0xff; 3]);
    for bytes in [
        noise.clone(),
        b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec(),
        b"POST /zklora.v1.Contributor/Describe HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n"
            .to_vec(),
        // The beginning of TLS.
        [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3], &noise[..]].concat(),
        // Frames that break rules: a length beyond the limit, data of no stream, headers that are
        // none, an unknown setting's half.
        begun(oversize),
        begun(frame(0, 1, 1, b"data")),
        begun(frame(1, 5, 1, &noise[..64])),
        begun(frame(4, 0, 0, &[0, 1, 2])),
        begun(frame(8, 0, 0, &[0; 4])),
        begun(frame(9, 4, 1, &[0; 4])),
    ] {
        let mut stream = TcpStream::connect(server.address).unwrap();
        // It may be closed while it is written to.
        let _ = stream.write_all(&bytes);
        assert!(is_closed(&mut stream), "{:?}", &bytes[..bytes.len().min(60)]);
    }
    assert_serves(&server, contributor.path());
}

#[test]
fn malformed_messages_are_answered_with_a_status() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let manifest = load(contributor.path()).manifest;
    wait(async {
        let mut client = raw::client(&server.url()).await;
        let session = fresh();
        raw::open(&mut client, &session, &manifest.id().0).await.unwrap();
        // Two bytes each on the wire, a hundred in memory.
        let many = Batch { rows: vec![Rows::default(); 3_000_000], ..Batch::default() };
        let mut talk = talk(&mut client, &session).await.unwrap();
        let status = talk.say(many).await.unwrap_err();
        assert!(status.message().contains("a list has more than 65536"), "{status}");
        // As the first message, too.
        let many = Batch { rows: vec![Rows::default(); 3_000_000], ..Batch::default() };
        let status = stream(&mut client, Some(Kind::Batch(many))).await.err().unwrap();
        assert!(status.message().contains("a list has more than 65536"), "{status}");
        // More than a message may have.
        let mut talk = raw::talk(&mut client, &session).await.unwrap();
        let mut long = batch(&manifest, 0, 1, 0);
        long.rows[0].inputs[0] = vec![0; 17 << 20].into();
        let status = talk.say(long).await.unwrap_err();
        assert!(
            status.code() == Code::OutOfRange
                && status.message().contains("message length too large"),
            "{status}"
        );
    });
    assert_eq!(connect(&server.url(), None).unwrap().rows_served, 0);
    assert_serves(&server, contributor.path());
}

#[test]
fn a_conversation_that_is_replayed_and_cut_anywhere_counts_its_rows_once() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let tap = Tap::start(server.address);
    let user = tempfile::tempdir().unwrap();
    let mut session = open(&tap.url(), None, user.path()).unwrap();
    session.deltas(&calls(&session, 1, 0)).unwrap();
    session.deltas(&calls(&session, 1, 1)).unwrap();
    finish(&mut session).unwrap();
    let recorded = tap.sent();
    assert_eq!(tap.connections(), 1);
    // Another server of the same adapter, which has not seen it.
    let other = artifacts();
    let replayed = Server::start(other.path());
    for at in 0..150 {
        let cut = recorded.len() * at / 149;
        let mut stream = TcpStream::connect(replayed.address).unwrap();
        let _ = stream.write_all(&recorded[..cut]);
        let _ = stream.shutdown(Shutdown::Write);
        // Most are let go of at once, as a user does that dies.
        if at % 10 == 9 {
            assert!(is_closed(&mut stream), "cut at {cut} of {}", recorded.len());
        }
    }
    let served = connect(&replayed.url(), None).unwrap().rows_served;
    assert!(served <= 2, "{served} rows");
    assert_serves(&replayed, other.path());
    replayed.stop();
    // What was counted is what the log holds: the server starts with it.
    assert_serves(&Server::start(other.path()), other.path());
}

#[test]
fn a_connection_that_breaks_after_any_number_of_bytes_costs_a_reconnection_and_no_row() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let artifacts = load(contributor.path());
    // How much is said after Describe.
    let length = {
        let (tap, user) = (Tap::start(server.address), tempfile::tempdir().unwrap());
        let mut session = open(&tap.url(), None, user.path()).unwrap();
        let before = tap.sent().len();
        session.deltas(&calls(&session, 2, 0)).unwrap();
        session.deltas(&calls(&session, 2, 2)).unwrap();
        finish(&mut session).unwrap();
        tap.sent().len() - before
    };
    let mut rows = 4;
    for at in 0..14 {
        // Answers are as long as batches: twice what was sent is more than all.
        let cut = 2 * length * at / 14 + at % 3;
        let (tap, user) = (Tap::start(server.address), tempfile::tempdir().unwrap());
        let mut session = open(&tap.url(), None, user.path()).unwrap();
        tap.cut_after(cut);
        for seed in [0, 2] {
            let calls = calls(&session, 2, seed);
            assert_eq!(
                session.deltas(&calls).unwrap(),
                expected(&artifacts, &calls),
                "cut at {cut}"
            );
        }
        let verdict = finish(&mut session).unwrap().verdict;
        assert!(verdict.rows.iter().all(|(_, rows)| *rows == 4), "cut at {cut}");
        assert!(
            tap.connections() == 2 || !tap.was_cut(),
            "cut at {cut}: {} connections",
            tap.connections()
        );
        rows += 4;
    }
    // No repeated batch was counted twice.
    assert_eq!(connect(&server.url(), None).unwrap().rows_served, rows);
}

#[test]
fn slow_connections_are_closed_in_time_and_honest_users_are_served() {
    let contributor = artifacts();
    let limits = Limits { handshake: Duration::from_millis(500), max_connections: 6, ..limits() };
    let server = with_limits(contributor.path(), limits);
    let start = Instant::now();
    let slow: Vec<_> = (0..6)
        .map(|_| {
            let address = server.address;
            std::thread::spawn(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                let mut bytes =
                    PREFACE.iter().chain(frame(4, 0, 0, &[]).iter()).copied().collect::<Vec<u8>>();
                bytes.extend(frame(6, 0, 0, &[0; 8]).repeat(40));
                for byte in bytes {
                    if stream.write_all(&[byte]).is_err() {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(100));
                    if start.elapsed() > Duration::from_secs(4) {
                        break;
                    }
                }
                is_closed(&mut stream)
            })
        })
        .collect();
    // One that says nothing at all.
    let mut silent = TcpStream::connect(server.address).unwrap();
    assert_serves(&server, contributor.path());
    assert!(is_closed(&mut silent));
    assert!(slow.into_iter().all(|slow| slow.join().unwrap()));
}

#[test]
fn a_stream_that_is_silent_ends_and_its_session_does_not() {
    let contributor = artifacts();
    let limits = Limits { idle: Duration::from_millis(400), max_sessions: 1, ..limits() };
    let server = with_limits(contributor.path(), limits);
    let manifest = load(contributor.path()).manifest;
    wait(async {
        let mut client = raw::client(&server.url()).await;
        let (session, mut talk) = begun(&mut client, &manifest, 1).await;
        let status = talk.next().await.unwrap_err();
        assert!(
            status.code() == Code::DeadlineExceeded
                && status.message().contains("no whole message in 0.4 s"),
            "{status}"
        );
        // One that never says whose it is holds its place as long.
        let (requests, outgoing) = tokio::sync::mpsc::channel::<InferRequest>(1);
        let status = client
            .infer(tokio_stream::wrappers::ReceiverStream::new(outgoing))
            .await
            .err()
            .unwrap();
        assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status}");
        drop(requests);
        let mut talk = raw::talk(&mut client, &session).await.unwrap();
        talk.say(batch(&manifest, 1, 1, 1)).await.unwrap();
        raw::finish(&mut client, &session, 2).await.unwrap();
    });
}

#[test]
fn a_user_that_does_not_read_its_answers_loses_its_permit() {
    let contributor = artifacts();
    let limits = Limits { idle: Duration::from_millis(400), max_sessions: 1, ..limits() };
    let server = with_limits(contributor.path(), limits);
    let manifest = load(contributor.path()).manifest;
    wait(async {
        let mut client = raw::client(&server.url()).await;
        let session = fresh();
        raw::open(&mut client, &session, &manifest.id().0).await.unwrap();
        let unread = talk(&mut client, &session).await.unwrap();
        for sequence in 0..6 {
            unread.send(Some(Kind::Batch(batch(&manifest, sequence, 500, 0)))).await;
        }
        let mut other = raw::client(&server.url()).await;
        let start = Instant::now();
        loop {
            let session = fresh();
            raw::open(&mut other, &session, &manifest.id().0).await.unwrap();
            match talk(&mut other, &session).await {
                Ok(mut talk) => break drop(talk.say(batch(&manifest, 0, 1, 0)).await.unwrap()),
                Err(status) => assert_eq!(status.code(), Code::Unavailable),
            }
            assert!(start.elapsed() < Duration::from_secs(10), "the place is not given back");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        drop(unread);
    });
}

#[test]
fn a_peer_that_is_no_contributor_is_named_in_the_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let case = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let now = Arc::clone(&case);
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let answer: &[u8] = match now.load(std::sync::atomic::Ordering::Relaxed) {
                0 => b"",
                1 => b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n",
                _ => &[0xff; 100],
            };
            let _ = stream.write_all(answer);
            held.push(stream);
        }
    });
    for (at, why) in [(0, "did not answer Describe within 400ms"), (1, ""), (2, "")] {
        case.store(at, std::sync::atomic::Ordering::Relaxed);
        let mut options = party::options(&format!("http://{address}"), None);
        options.call_timeout = Duration::from_millis(400);
        options.patience = Duration::from_millis(500);
        let error = Remote::connect(options, &network()).err().unwrap().to_string();
        assert!(error.contains(&address.to_string()) && error.contains(why), "{at}: {error}");
    }
    let unused =
        format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let error = connect(&unused, None).err().unwrap().to_string();
    assert!(error.contains("cannot connect") && error.contains("refused"), "{error}");
}
