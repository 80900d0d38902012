//! Users that ask and do not read, that connect and say nothing: what they cost is bounded, and
//! others are served meanwhile.

use std::{
    io::Write,
    net::TcpStream,
    path::Path,
    sync::OnceLock,
    time::{Duration, Instant},
};

use tonic::{Code, Request};
use zklora_session::{
    client::{ContributorOptions, Remote, UserSession},
    server::{Limits, ServerOptions, Tokens},
    wire::{
        Call, DescribeRequest, FinishRequest, InferRequest, OpenSessionRequest, SessionRef,
        infer_request::Kind,
    },
};

use crate::{
    child::{ALICE, BOB, Child, tokens},
    http2::{Conversation, PREFACE, frame, message},
    party::{
        Server, artifacts, assert_serves, calls, compiled, expected, fixture, limits, load,
        network, options,
    },
    raw::{self, batch, fresh, wait},
};

const MIB: usize = 1 << 20;
const DESCRIBE: &str = "/zklora.v1.Contributor/Describe";

/// A user with a token is served.
fn is_served(url: &str, folder: &Path, token: &str) {
    let artifacts = load(folder);
    let options = ContributorOptions { token_file: Some(folder.join(token)), ..options(url, None) };
    let user = tempfile::tempdir().unwrap();
    let mut session =
        UserSession::open(Remote::connect(options, &network()).unwrap(), user.path()).unwrap();
    let calls = calls(&session, 2, 1000);
    assert_eq!(session.deltas(&calls).unwrap(), expected(&artifacts, &calls));
}

/// An adapter with a long manifest.
fn large() -> &'static Path {
    static COMPILED: OnceLock<tempfile::TempDir> = OnceLock::new();
    COMPILED.get_or_init(|| compiled(&fixture("adapters/smollm2-r4-qv"))).path()
}

#[test]
fn descriptions_that_are_not_read_share_their_bytes_and_their_connections_are_closed() {
    tokens(large());
    let server = Child::start(large(), "idle=3000", "").unwrap();
    let manifest = std::fs::metadata(large().join("public/manifest.json")).unwrap().len() as usize;
    is_served(&server.url(), large(), "bob");
    let before = server.memory();
    let ask = vec![message(&DescribeRequest { version: 1 })];
    let mut flood: Vec<_> = (0..16)
        .map(|_| {
            let mut conversation = Conversation::open(server.address, 1);
            (0..60).for_each(|_| conversation.ask(DESCRIBE, Some(ALICE), &ask, true));
            conversation
        })
        .collect();
    flood
        .iter_mut()
        .for_each(|conversation| conversation.wait_for_answers(60, Duration::from_secs(20)));
    let answered: usize = flood.iter().map(|conversation| conversation.answered).sum();
    let grown = server.memory().saturating_sub(before);
    println!("{answered} answers of {manifest} bytes are held in {grown} bytes");
    assert!(answered >= 900, "{answered}");
    assert!(grown < answered * manifest / 2, "{grown} bytes, {answered} x {manifest}");
    is_served(&server.url(), large(), "bob");
    let time = Duration::from_secs(30);
    assert!(flood.iter_mut().all(|conversation| conversation.is_closed_within(time)));
    // The line is written when the connection is closed, a moment after this.
    let is_logged = |_| {
        std::thread::sleep(Duration::from_millis(100));
        server.logged("its answers were not read in time") > 0
    };
    assert!((0..50).any(is_logged));
}

#[test]
fn deltas_that_are_not_read_are_bounded_and_leave_others_their_share() {
    let contributor = artifacts();
    tokens(contributor.path());
    let held = 24 * MIB;
    let server = Child::start(contributor.path(), &format!("held={held} idle=60000"), "").unwrap();
    let manifest = load(contributor.path()).manifest;
    // One set of rows that all modules read: the answer is several times as long as the question.
    let mut question = batch(&manifest, 0, 2048, 0);
    question.rows.truncate(1);
    question.calls =
        (0..manifest.modules().len() as u32).map(|module| Call { module, rows: 0 }).collect();
    let answer: usize = manifest.modules().iter().map(|module| module.d_out * 8 * 2048).sum();
    let kind = |kind: Kind| message(&InferRequest { kind: Some(kind) });
    let question = kind(Kind::Batch(question));
    is_served(&server.url(), contributor.path(), "bob");
    // Before the flood: once her share is taken, even this is refused.
    let sessions: Vec<SessionRef> = (0..96).map(|_| fresh()).collect();
    open_as_alice(&server.url(), &sessions, &manifest.id().0);
    let before = server.memory();
    let mut flood = Vec::new();
    for sessions in sessions.chunks(4) {
        let mut conversation = Conversation::open(server.address, 1);
        for session in sessions.iter().cloned() {
            let ask = [kind(Kind::Start(session)), question.clone()];
            conversation.ask("/zklora.v1.Contributor/Infer", Some(ALICE), &ask, false);
        }
        flood.push(conversation);
    }
    let mut most = 0;
    let until = Instant::now() + Duration::from_secs(5);
    while Instant::now() < until {
        most = most.max(server.memory().saturating_sub(before));
        std::thread::sleep(Duration::from_millis(50));
    }
    println!("{most} bytes for 96 answers of {answer} bytes");
    // What may be held, the questions, which wait in the windows of their streams, and what is
    // being computed.
    let allowed = held + 96 * question.len() + 40 * MIB;
    assert!(
        most < allowed && 96 * answer > 2 * allowed,
        "{most} bytes for 96 answers of {answer} bytes, {allowed}"
    );
    is_served(&server.url(), contributor.path(), "bob");
}

fn open_as_alice(url: &str, sessions: &[SessionRef], adapter: &[u8]) {
    wait(async {
        let mut client = raw::client(url).await;
        for session in sessions {
            let adapter_id = bytes::Bytes::copy_from_slice(adapter);
            let mut request =
                Request::new(OpenSessionRequest { session: Some(session.clone()), adapter_id });
            request
                .metadata_mut()
                .insert("authorization", format!("Bearer {ALICE}").parse().unwrap());
            client.open_session(request).await.unwrap();
        }
    });
}

#[test]
fn progress_that_is_not_read_ends_the_connection() {
    let contributor = artifacts();
    let mut options = Server::options(contributor.path());
    options.limits.idle = Duration::from_millis(800);
    let server = Server::with(contributor.path(), &options);
    let manifest = load(contributor.path()).manifest;
    let session = wait(async {
        let mut client = raw::client(&server.url()).await;
        raw::begun(&mut client, &manifest, 1).await.0
    });
    let ask = [message(&FinishRequest { session: Some(session), sequence: 1 })];
    // A user that reads nothing at all, and one that takes what it is sent and has no window for
    // more.
    for window in [0, 1] {
        let mut conversation = Conversation::open(server.address, window);
        (0..60).for_each(|_| conversation.ask("/zklora.v1.Contributor/Finish", None, &ask, true));
        assert!(conversation.is_closed_within(Duration::from_secs(15)), "window {window}");
    }
    assert_serves(&server, contributor.path());
}

fn with_tokens(folder: &Path) -> ServerOptions {
    tokens(folder);
    ServerOptions {
        tokens: Some(Tokens::read(&folder.join("tokens")).unwrap()),
        ..Server::options(folder)
    }
}

#[test]
fn nothing_but_health_answers_without_a_token() {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest,
    };
    let contributor = artifacts();
    let server = Server::with(contributor.path(), &with_tokens(contributor.path()));
    wait(async {
        let channel =
            tonic::transport::Endpoint::from_shared(server.url()).unwrap().connect().await.unwrap();
        let list = |token: Option<&str>| {
            let message_request = Some(MessageRequest::ListServices(String::new()));
            let one = ServerReflectionRequest { host: String::new(), message_request };
            let mut request = Request::new(tokio_stream::once(one));
            if let Some(token) = token {
                request
                    .metadata_mut()
                    .insert("authorization", format!("Bearer {token}").parse().unwrap());
            }
            request
        };
        let mut reflection = ServerReflectionClient::new(channel.clone());
        let status = reflection.server_reflection_info(list(None)).await.err().unwrap();
        assert!(
            status.code() == Code::Unauthenticated && status.message().contains("requires a token"),
            "{status}"
        );
        let mut listed =
            reflection.server_reflection_info(list(Some(BOB))).await.unwrap().into_inner();
        listed.message().await.unwrap().unwrap();
        // Nor does it say which services there are not.
        let mut anything = tonic::client::Grpc::new(channel.clone());
        anything.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static("/some.Other/Service");
        let codec = tonic_prost::ProstCodec::<DescribeRequest, DescribeRequest>::default();
        let status = anything
            .unary(Request::new(DescribeRequest { version: 1 }), path, codec)
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{status}");
        let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
        health.check(tonic_health::pb::HealthCheckRequest::default()).await.unwrap();
    });
    is_served(&server.url(), contributor.path(), "alice");
}

#[test]
fn requests_without_rows_are_short() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    wait(async {
        let mut client = raw::client(&server.url()).await;
        let status = raw::open(&mut client, &fresh(), &vec![0; 20 << 10]).await.unwrap_err();
        let text = "message length too large";
        assert!(status.code() == Code::OutOfRange && status.message().contains(text), "{status}");
    });
    assert_serves(&server, contributor.path());
}

#[test]
fn silent_connections_are_closed_for_new_ones() {
    let contributor = artifacts();
    let mut options = with_tokens(contributor.path());
    options.limits = Limits {
        max_unknown_connections: 4,
        max_connections: 4,
        handshake: Duration::from_secs(60),
        ..limits()
    };
    let server = Server::with(contributor.path(), &options);
    // What the server said in the beginning may be there to read.
    let closed = |stream: &mut TcpStream| {
        stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        match std::io::copy(stream, &mut std::io::sink()) {
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    };
    let mut silent: Vec<TcpStream> =
        (0..40).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    // Users come and go while unauthenticated clients take all connections that they can get.
    for user in ["alice", "bob", "alice", "bob"] {
        is_served(&server.url(), contributor.path(), user);
        silent.extend((0..10).map(|_| TcpStream::connect(server.address).unwrap()));
    }
    is_served(&server.url(), contributor.path(), "alice");
    let youngest = silent.pop().unwrap();
    assert!(silent.iter_mut().take(40).all(closed));
    assert!(!closed(&mut { youngest }));
}

#[test]
fn an_unauthenticated_client_that_reads_nothing_is_closed_in_time() {
    let contributor = artifacts();
    let mut options = Server::options(contributor.path());
    options.limits.handshake = Duration::from_millis(500);
    let server = Server::with(contributor.path(), &options);
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(&[PREFACE, &frame(4, 0, 0, &[])].concat()).unwrap();
    // Pings whose answers are not read: soon the server waits for room to write, and reads
    // nothing.
    let pings = frame(6, 0, 0, &[0; 8]).repeat(1000);
    let start = Instant::now();
    let failed = loop {
        match stream.write_all(&pings) {
            Ok(()) if start.elapsed() < Duration::from_secs(10) => {}
            Ok(()) => break None,
            Err(error) => break Some(error.kind()),
        }
    };
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
    assert!(matches!(failed, Some(ConnectionReset | BrokenPipe)), "{failed:?}");
    assert_serves(&server, contributor.path());
}

#[test]
fn a_server_without_enough_descriptors_says_so_and_raises_what_it_may() {
    let contributor = artifacts();
    let limits = "connections=40 unknown=10 sessions=8";
    let why = Child::start(contributor.path(), limits, "ulimit -n 100;").err().expect("it starts");
    assert!(
        why.contains("this server may need 1") && why.contains("40 connections, 10 unidentified"),
        "{why}"
    );
    assert!(why.contains("this process may have 100: raise the limit"), "{why}");
    let server = Child::start(contributor.path(), limits, "ulimit -Sn 100;").unwrap();
    let user = tempfile::tempdir().unwrap();
    let mut session = crate::party::open(&server.url(), None, user.path()).unwrap();
    session.deltas(&calls(&session, 1, 0)).unwrap();
}

#[test]
fn a_server_without_descriptors_logs_at_a_bounded_rate_and_recovers() {
    let contributor = artifacts();
    let limits = "connections=40 unknown=10 sessions=8 handshake=60000";
    let mut server = Child::start(contributor.path(), limits, "ulimit -n 256;").unwrap();
    let user = tempfile::tempdir().unwrap();
    let mut session = crate::party::open(&server.url(), None, user.path()).unwrap();
    server.tell("take files");
    std::thread::sleep(Duration::from_millis(500));
    let waiting: Vec<_> = (0..30).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    std::thread::sleep(Duration::from_millis(2500));
    let lines = server.logged("a connection was not accepted");
    assert!((1..=4).contains(&lines), "{lines} lines");
    assert!(server.logged("other parts of this process") > 0);
    server.tell("give files back");
    drop(waiting);
    session.deltas(&calls(&session, 1, 0)).unwrap();
    drop(crate::party::open(&server.url(), None, tempfile::tempdir().unwrap().path()).unwrap());
}

#[test]
fn a_server_with_little_address_space_says_so_and_serves() {
    let contributor = artifacts();
    // The allocator of the tests sets 64 MiB of addresses aside for every thread, that of the
    // program does not.
    let shell = "export MALLOC_ARENA_MAX=1; ulimit -v 524288;";
    let server = Child::start(contributor.path(), "", shell).unwrap();
    let said = "512 MiB of address space (ulimit -v): requests and answers may take 128 MiB";
    let start = std::time::Instant::now();
    while server.logged(said) == 0 {
        assert!(start.elapsed() < Duration::from_secs(10), "it does not say: {said}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let user = tempfile::tempdir().unwrap();
    let mut session = crate::party::open(&server.url(), None, user.path()).unwrap();
    session.deltas(&calls(&session, 1, 0)).unwrap();
}
