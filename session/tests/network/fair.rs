//! What one user does with what all of them share: the others have theirs all the same.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use zklora_proof::checked_manifest::CheckedManifest;
use zklora_session::{
    server::{Limits, ServerOptions, Tokens},
    session_log::{Event, SessionLog},
    wire::{
        FinishRequest, FinishResponse, InferRequest, OpenSessionRequest, SessionRef, SessionState,
        infer_request::Kind,
    },
};

use crate::{
    party::{self, Server, artifacts, limits, load},
    raw::{self, RawClient, batch, begun, fetch, fresh, wait},
};

const MALLORY: &str = "00000000000000000000a";
const ALICE: &str = "00000000000000000000b";

fn with_tokens(folder: &Path, limits: Limits) -> ServerOptions {
    let file = folder.join("tokens");
    fs::write(&file, format!("mallory {MALLORY}\nalice {ALICE}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    ServerOptions { tokens: Some(Tokens::read(&file).unwrap()), limits, ..Server::options(folder) }
}

fn signed<T>(message: T, token: &str) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

fn open(manifest: &CheckedManifest, session: &SessionRef) -> OpenSessionRequest {
    let adapter_id = bytes::Bytes::copy_from_slice(&manifest.id().0);
    OpenSessionRequest { session: Some(session.clone()), adapter_id }
}

/// A session of one batch is ended: what its owner hears first.
async fn ended(client: &mut RawClient, token: &str, manifest: &CheckedManifest) -> FinishResponse {
    let session = fresh();
    client.open_session(signed(open(manifest, &session), token)).await.unwrap();
    let (requests, outgoing) = tokio::sync::mpsc::channel(2);
    let kinds = [Kind::Start(session.clone()), Kind::Batch(batch(manifest, 0, 30, 0))];
    kinds
        .into_iter()
        .for_each(|kind| requests.try_send(InferRequest { kind: Some(kind) }).unwrap());
    let mut answers =
        client.infer(signed(ReceiverStream::new(outgoing), token)).await.unwrap().into_inner();
    answers.message().await.unwrap().unwrap();
    let request = signed(FinishRequest { session: Some(session), sequence: 1 }, token);
    let mut stages = client.finish(request).await.unwrap().into_inner();
    stages.message().await.unwrap().unwrap()
}

#[test]
fn a_queue_of_one_identity_does_not_come_before_the_session_of_another() {
    let contributor = artifacts();
    let limits = Limits { proving_threads: 1, ..limits() };
    let server = Server::with(contributor.path(), &with_tokens(contributor.path(), limits));
    let manifest = load(contributor.path()).manifest;
    wait(async {
        let mut client = raw::client(&server.url()).await;
        let mut last = 0;
        for _ in 0..24 {
            last = ended(&mut client, MALLORY, &manifest).await.ahead;
        }
        let alice = ended(&mut client, ALICE, &manifest).await.ahead;
        // The one that is being proven, and one whose turn it is.
        assert!(
            last > 3 && alice <= 2,
            "{last} before the last of mallory's, {alice} before alice's"
        );
    });
}

#[test]
fn a_client_with_too_many_waiting_sessions_cannot_end_another() {
    let contributor = artifacts();
    let limits = Limits { proving_threads: 1, max_waiting_per_client: 2, ..limits() };
    let server = Server::with(
        contributor.path(),
        &ServerOptions { limits, ..Server::options(contributor.path()) },
    );
    let manifest = load(contributor.path()).manifest;
    wait(async {
        let mut client = raw::client(&server.url()).await;
        let mut sessions = Vec::new();
        for _ in 0..3 {
            sessions.push(begun(&mut client, &manifest, 60).await.0);
        }
        let finish =
            |session: &SessionRef| FinishRequest { session: Some(session.clone()), sequence: 1 };
        for session in &sessions[..2] {
            client.finish(finish(session)).await.unwrap();
        }
        let refused = client.finish(finish(&sessions[2])).await.err().unwrap();
        assert_eq!(refused.code(), Code::Unavailable);
        assert!(
            refused.message().contains("2 sessions of yours wait for their proof"),
            "{refused}"
        );
        // Finish of those that wait can be repeated, and the other one stays open.
        client.finish(finish(&sessions[1])).await.unwrap();
        let state = raw::open(&mut client, &sessions[2], &manifest.id().0).await.unwrap();
        assert_eq!((state.state(), state.next_sequence), (SessionState::Open, 1));
        raw::finish(&mut client, &sessions[0], 1).await.unwrap();
        raw::finish(&mut client, &sessions[2], 1).await.unwrap();
    });
}

#[test]
fn unproven_sessions_do_not_shut_other_clients_out() {
    let contributor = artifacts();
    let path = contributor.path();
    // 64 sessions may be in memory.
    let limits = Limits { max_sessions: 1, proving_threads: 1, ..limits() };
    let options = ServerOptions { limits, ..Server::options(path) };
    let manifest = load(path).manifest;
    let data = path.join("private/sessions");
    let server = Server::with(path, &options);
    let (open, ended) = wait(async {
        let mut client = raw::client(&server.url()).await;
        let open = begun(&mut client, &manifest, 1).await.0;
        let mut ended = Vec::new();
        while ended.len() < 70 {
            let session = fresh();
            raw::open(&mut client, &session, &manifest.id().0).await.unwrap();
            // The place of the stream before may not be free yet.
            let Ok(mut talk) = raw::talk(&mut client, &session).await else { continue };
            talk.say(batch(&manifest, 0, 1, 0)).await.unwrap();
            ended.push(session);
        }
        (open, ended)
    });
    server.stop();
    // They have ended, and half of them are set aside; the others wait as if for ever.
    for (number, session) in ended.iter().enumerate() {
        let log = data.join(format!("{}.rows", hex::encode(&session.id)));
        SessionLog::open(&log, &mut |_| Ok(())).unwrap().0.append_to_disk(&Event::Ended).unwrap();
        let attempts = if number % 2 == 0 { "3\n" } else { "2\n" };
        fs::write(log.with_extension("proving"), attempts).unwrap();
    }
    let server = Server::with(path, &options);
    wait(async {
        let mut client = raw::client(&server.url()).await;
        let next = raw::open(&mut client, &open, &manifest.id().0).await.unwrap().next_sequence;
        assert_eq!(next, 1);
        for _ in 0..130 {
            raw::open(&mut client, &fresh(), &manifest.id().0).await.unwrap();
        }
        // What had to go from the memory is found again.
        for session in ended.iter().step_by(2) {
            let state = raw::open(&mut client, session, &manifest.id().0).await.unwrap().state();
            assert_eq!(state, SessionState::Failed);
            let why = fetch(&mut client, session).await.unwrap_err();
            assert!(why.code() == Code::Internal && why.message().contains("set aside"), "{why}");
        }
        let state = raw::open(&mut client, &ended[1], &manifest.id().0).await.unwrap().state();
        assert_eq!(state, SessionState::Proving);
    });
}

#[test]
fn batches_counted_under_larger_limits_are_answered_again() {
    let contributor = artifacts();
    let path = contributor.path();
    let artifacts = load(path);
    let user = tempfile::tempdir().unwrap();
    let server = Server::start(path);
    let mut session =
        party::open(&server.url(), Some(artifacts.manifest.id()), user.path()).unwrap();
    let calls = party::calls(&session, 900, 0);
    session.deltas(&calls).unwrap();
    drop(session);
    // Its process died before the answer was in the file.
    let log = user.path().join("rows.log");
    let length = fs::metadata(&log).unwrap().len();
    fs::OpenOptions::new().write(true).open(&log).unwrap().set_len(length - 10).unwrap();
    let address = server.address;
    server.stop();
    let limits = Limits { max_batch_rows: 100, max_session_rows: 4000, ..limits() };
    let server =
        Server::with(path, &ServerOptions { limits, listen: address, ..Server::options(path) });
    let mut session =
        party::open(&server.url(), Some(artifacts.manifest.id()), user.path()).unwrap();
    assert_eq!(session.rows(), 3600);
    let more = party::calls(&session, 3, 5000);
    assert_eq!(session.deltas(&more).unwrap(), party::expected(&artifacts, &more));
    party::finish(&mut session).unwrap();
    // A new batch of that size is not taken.
    wait(async {
        let mut client = raw::client(&server.url()).await;
        let session = fresh();
        raw::open(&mut client, &session, &artifacts.manifest.id().0).await.unwrap();
        let mut talk = raw::talk(&mut client, &session).await.unwrap();
        let why = talk.say(batch(&artifacts.manifest, 0, 101, 0)).await.unwrap_err();
        assert!(
            why.code() == Code::ResourceExhausted && why.message().contains("split it"),
            "{why}"
        );
    });
}

#[test]
fn a_silent_connection_does_not_delay_a_stop() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let silent = std::net::TcpStream::connect(server.address).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let start = Instant::now();
    server.stop();
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    drop(silent);
}

#[test]
fn silent_streams_take_no_permits() {
    let contributor = artifacts();
    let limits = Limits { max_sessions: 4, idle: Duration::from_secs(20), ..limits() };
    let server = Server::with(contributor.path(), &with_tokens(contributor.path(), limits));
    let manifest = load(contributor.path()).manifest;
    wait(async {
        let mut kept = Vec::new();
        let mut client = raw::client(&server.url()).await;
        for _ in 0..20 {
            let (requests, outgoing) = tokio::sync::mpsc::channel::<InferRequest>(1);
            kept.push(requests);
            let mut client = client.clone();
            tokio::spawn(async move {
                client.infer(signed(ReceiverStream::new(outgoing), MALLORY)).await.map(drop)
            });
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        ended(&mut client, ALICE, &manifest).await;
        // Nor do those that name a session that is not theirs.
        let other = InferRequest { kind: Some(Kind::Start(fresh())) };
        let why = client.infer(signed(tokio_stream::once(other), MALLORY)).await.err().unwrap();
        assert_eq!(why.code(), Code::PermissionDenied, "{why}");
        // They are not waited for as long as those that exchange batches.
        let (_requests, outgoing) = tokio::sync::mpsc::channel::<InferRequest>(1);
        let start = Instant::now();
        let why = client.infer(signed(ReceiverStream::new(outgoing), MALLORY)).await.err().unwrap();
        assert!(
            why.message().contains("no whole message in 15 s") && start.elapsed().as_secs() < 19,
            "{why}"
        );
    });
}

#[test]
fn proving_is_retried_while_the_folder_is_missing() {
    let contributor = artifacts();
    let path = contributor.path();
    let server = Server::start(path);
    let manifest = load(path).manifest;
    let (data, away) = (path.join("private/sessions"), path.join("private/away"));
    wait(async {
        let mut client = raw::client(&server.url()).await;
        let (session, _talk) = begun(&mut client, &manifest, 3).await;
        fs::rename(&data, &away).unwrap();
        client.finish(FinishRequest { session: Some(session.clone()), sequence: 1 }).await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        fs::rename(&away, &data).unwrap();
        raw::finish(&mut client, &session, 1).await.unwrap();
        fetch(&mut client, &session).await.unwrap();
    });
}

#[test]
fn an_existing_folder_keeps_its_mode() {
    let contributor = artifacts();
    let home = tempfile::tempdir().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let (there, new) = (home.path().join("there"), home.path().join("new"));
    fs::create_dir(&there).unwrap();
    fs::set_permissions(&there, fs::Permissions::from_mode(0o755)).unwrap();
    for data in [&there, &new] {
        Server::with(
            contributor.path(),
            &ServerOptions { data: data.clone(), ..Server::options(contributor.path()) },
        )
        .stop();
    }
    assert_eq!((mode(&there), mode(&new)), (0o755, 0o700));
}
