//! What is on the disk after a death at any moment: what was answered is proven, what is damaged is
//! refused by name.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tonic::Code;
use zklora_proof::keys::KeyStore;
use zklora_session::{
    Error,
    client::UserSession,
    server::{self, Listening, ServerOptions},
    wire::{SessionRef, SessionState},
};

use crate::{
    party::{Server, artifacts, assert_serves, calls, connect, expected, finish, load, open, srs},
    raw::{self, batch, begun, fetch, talk, wait},
};

/// Bytes before the first record of a log, and before the payload of each.
const HEADER: usize = 9;
const FRAME: usize = 24;

/// Where each record of a log ends.
fn ends(log: &[u8]) -> Vec<usize> {
    let (mut at, mut ends) = (HEADER, Vec::new());
    while at < log.len() {
        at += FRAME + u32::from_le_bytes(log[at..at + 4].try_into().unwrap()) as usize;
        ends.push(at);
    }
    assert_eq!(at, log.len());
    ends
}

/// A server that is started again where its users look for it.
fn again(folder: &Path, before: &Server) -> ServerOptions {
    ServerOptions { listen: before.address, ..Server::options(folder) }
}

fn start(folder: &Path) -> Result<Listening, Error> {
    server::start(load(folder), srs().clone(), KeyStore::default(), &Server::options(folder))
}

fn log_of(folder: &Path, session: &UserSession) -> PathBuf {
    folder.join("private/sessions").join(format!("{}.rows", hex::encode(session.id())))
}

/// A session with this many batches of a row for every module; they are the rows from `first` on.
fn talk_on(session: &mut UserSession, folder: &Path, first: usize, batches: usize) {
    for seed in first..first + batches {
        let calls = calls(session, 1, seed);
        assert_eq!(session.deltas(&calls).unwrap(), expected(&load(folder), &calls));
    }
}

fn rows_proven(session: &mut UserSession) -> usize {
    finish(session).unwrap().verdict.rows.iter().map(|(_, rows)| rows).sum()
}

#[test]
fn a_servers_log_that_is_torn_in_its_last_record_is_resumed() {
    let contributor = artifacts();
    let mut server = Server::start(contributor.path());
    let options = again(contributor.path(), &server);
    let user = tempfile::tempdir().unwrap();
    let mut session = open(&server.url(), None, user.path()).unwrap();
    talk_on(&mut session, contributor.path(), 0, 3);
    let log = log_of(contributor.path(), &session);
    server.stop();
    let whole = fs::read(&log).unwrap();
    let ends = ends(&whole);
    assert_eq!(ends.len(), 4);
    let reference = reference_of(user.path());
    let manifest = load(contributor.path()).manifest;
    // Every byte of what surrounds the payload, and some of it.
    let cuts = (ends[2]..ends[2] + FRAME + 2)
        .step_by(3)
        .chain((ends[2]..ends[3]).step_by(487))
        .chain([ends[3] - 1]);
    for cut in cuts {
        fs::write(&log, &whole[..cut]).unwrap();
        server = Server::with(contributor.path(), &options);
        let opened = wait(async {
            let mut client = raw::client(&server.url()).await;
            raw::open(&mut client, &reference, &manifest.id().0).await.unwrap()
        });
        assert_eq!((opened.state(), opened.next_sequence), (SessionState::Open, 2), "cut at {cut}");
        assert_eq!(connect(&server.url(), None).unwrap().rows_served, 2);
        server.stop();
        assert_eq!(fs::read(&log).unwrap(), whole[..ends[2]]);
    }
    let server = Server::with(contributor.path(), &options);
    talk_on(&mut session, contributor.path(), 3, 1);
    assert_eq!(rows_proven(&mut session), 16);
    assert_eq!(connect(&server.url(), None).unwrap().rows_served, 4);
}

/// Id and key of the session that a user keeps in a folder.
fn reference_of(user: &Path) -> SessionRef {
    let header = zklora_session::session_log::header(&user.join("rows.log")).unwrap();
    SessionRef { id: header.session.to_vec().into(), key: header.key.to_vec().into() }
}

#[test]
fn a_servers_log_that_is_damaged_before_its_end_is_refused_by_name() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let user = tempfile::tempdir().unwrap();
    let mut session = open(&server.url(), None, user.path()).unwrap();
    talk_on(&mut session, contributor.path(), 0, 3);
    server.stop();
    let log = log_of(contributor.path(), &session);
    let whole = fs::read(&log).unwrap();
    let ends = ends(&whole);
    // Header, first record, and lengths, checksums and payloads of the next ones.
    for at in [
        0,
        8,
        HEADER + 30,
        ends[0] + 1,
        ends[0] + 3,
        ends[0] + 6,
        ends[0] + 10,
        ends[0] + 900,
        ends[1] + 2,
        ends[2] - 1,
    ] {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        fs::write(&log, &damaged).unwrap();
        let error = start(contributor.path()).err().expect("it starts").to_string();
        assert!(error.contains(&log.display().to_string()), "byte {at}: {error}");
        assert_eq!(fs::read(&log).unwrap(), damaged, "it was written to");
    }
    fs::write(&log, &whole).unwrap();
    drop(start(contributor.path()).unwrap());
}

#[test]
fn an_unlisted_log_is_entered_and_a_missing_log_is_an_error() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let options = again(contributor.path(), &server);
    let user = tempfile::tempdir().unwrap();
    let mut session = open(&server.url(), None, user.path()).unwrap();
    talk_on(&mut session, contributor.path(), 0, 2);
    server.stop();
    let (ledger, log) =
        (contributor.path().join("private/served.jsonl"), log_of(contributor.path(), &session));
    // It died between the two writes.
    let line = fs::read(&ledger).unwrap();
    fs::write(&ledger, &line[..line.len() / 2]).unwrap();
    let server = Server::with(contributor.path(), &options);
    assert_eq!(connect(&server.url(), None).unwrap().rows_served, 2);
    server.stop();
    assert_eq!(fs::read(&ledger).unwrap(), line);
    let aside = contributor.path().join("aside");
    fs::rename(&log, &aside).unwrap();
    let error = start(contributor.path()).err().expect("it starts").to_string();
    assert!(error.contains(&log.display().to_string()), "{error}");
    fs::rename(&aside, &log).unwrap();
    let server = Server::with(contributor.path(), &options);
    assert_eq!(rows_proven(&mut session), 8);
    drop(server);
}

#[test]
fn open_sessions_of_a_moved_folder_are_resumed() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let user = tempfile::tempdir().unwrap();
    let mut session = open(&server.url(), None, user.path()).unwrap();
    talk_on(&mut session, contributor.path(), 0, 2);
    let listen = server.address;
    server.stop();
    let elsewhere = tempfile::tempdir().unwrap();
    let moved = elsewhere.path().join("moved");
    fs::rename(contributor.path(), &moved).unwrap();
    let server = Server::with(&moved, &ServerOptions { listen, ..Server::options(&moved) });
    assert_eq!(connect(&server.url(), None).unwrap().rows_served, 2);
    talk_on(&mut session, &moved, 2, 1);
    assert_eq!(rows_proven(&mut session), 12);
    fs::create_dir(contributor.path()).unwrap();
}

#[test]
fn files_that_only_look_like_logs_are_not_removed() {
    let contributor = artifacts();
    let data = contributor.path().join("private/sessions");
    fs::create_dir(&data).unwrap();
    let (notes, unborn) = (data.join("notes.rows"), data.join(format!("{}.rows", "ab".repeat(32))));
    fs::write(&notes, "these are the operator's").unwrap();
    let error = start(contributor.path()).err().expect("it starts").to_string();
    assert!(error.contains("notes.rows") && error.contains("not a log of zklora"), "{error}");
    assert!(notes.exists());
    fs::remove_file(&notes).unwrap();
    // A machine that died while it made a log leaves the beginning of one.
    for beginning in [&b""[..], b"zklor", b"zkloralg\x01", b"zkloralg\x01\xff\xff"] {
        fs::write(&unborn, beginning).unwrap();
        drop(start(contributor.path()).unwrap());
        assert!(!unborn.exists());
    }
}

#[test]
fn sessions_that_wait_for_their_proof_are_proven_after_a_restart() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let options = again(contributor.path(), &server);
    let manifest = load(contributor.path()).manifest;
    let sessions: Vec<SessionRef> = wait(async {
        let mut client = raw::client(&server.url()).await;
        let mut sessions = Vec::new();
        for _ in 0..3 {
            let (session, _talk) = begun(&mut client, &manifest, 1).await;
            sessions.push(session);
        }
        for session in &sessions {
            let request =
                zklora_session::wire::FinishRequest { session: Some(session.clone()), sequence: 1 };
            drop(client.finish(request).await.unwrap());
        }
        sessions
    });
    server.stop();
    let server = Server::with(contributor.path(), &options);
    wait(async {
        let mut client = raw::client(&server.url()).await;
        for session in &sessions {
            raw::finish(&mut client, session, 1).await.unwrap();
            fetch(&mut client, session).await.unwrap();
            // Ended is ended, whatever happened to the server.
            let mut talk = talk(&mut client, session).await.unwrap();
            assert_eq!(
                talk.say(batch(&manifest, 1, 1, 5)).await.unwrap_err().code(),
                Code::FailedPrecondition
            );
        }
    });
    assert_eq!(connect(&server.url(), None).unwrap().rows_served, 3);
    server.stop();
    let restored = start(contributor.path()).unwrap().restored.clone();
    assert_eq!((restored.open, restored.to_prove, restored.proven), (0, 0, 3));
}

#[test]
fn a_proof_that_could_not_be_written_is_retried() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let user = tempfile::tempdir().unwrap();
    let mut session = open(&server.url(), None, user.path()).unwrap();
    talk_on(&mut session, contributor.path(), 0, 1);
    let obstacle = log_of(contributor.path(), &session).with_extension("pf");
    fs::create_dir_all(obstacle.join("in the way")).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // The others are served meanwhile.
            assert_serves(&server, contributor.path());
            std::thread::sleep(std::time::Duration::from_millis(1200));
            fs::remove_dir_all(&obstacle).unwrap();
        });
        assert_eq!(rows_proven(&mut session), 4);
    });
    assert_eq!(connect(&server.url(), None).unwrap().rows_served, 3);
    // Nothing is left of the attempts.
    let left: Vec<_> = fs::read_dir(contributor.path().join("private/sessions")).unwrap().collect();
    let names = left.iter().map(|entry| entry.as_ref().unwrap().path());
    let known = |path: PathBuf| {
        path.extension().is_some_and(|e| e == "rows" || e == "pf" || e == "fetched")
    };
    assert!(names.into_iter().all(known), "{left:?}");
}

#[test]
fn a_session_whose_proof_killed_the_server_again_and_again_is_set_aside() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let options = again(contributor.path(), &server);
    let manifest = load(contributor.path()).manifest;
    let session =
        wait(async { begun(&mut raw::client(&server.url()).await, &manifest, 2).await.0 });
    server.stop();
    // It ended, and three attempts to prove it did not come back.
    let log = contributor
        .path()
        .join("private/sessions")
        .join(format!("{}.rows", hex::encode(&session.id)));
    let (mut open, _) =
        zklora_session::session_log::SessionLog::open(&log, &mut |_| Ok(())).unwrap();
    open.append(&zklora_session::session_log::Event::Ended).unwrap();
    drop(open);
    let marker = log.with_extension("proving");
    fs::write(&marker, "3\n").unwrap();
    let restored = start(contributor.path()).unwrap().restored.clone();
    assert_eq!((restored.to_prove, restored.set_aside), (0, vec![hex::encode(&session.id)]));
    let server = Server::with(contributor.path(), &options);
    let status = wait(async {
        raw::finish(&mut raw::client(&server.url()).await, &session, 1).await.unwrap_err()
    });
    assert!(status.message().contains("set aside"), "{status:?}");
    assert_eq!(connect(&server.url(), None).unwrap().rows_served, 2);
    assert_serves(&server, contributor.path());
    server.stop();
    // The operator has it tried again.
    fs::remove_file(&marker).unwrap();
    let server = Server::with(contributor.path(), &options);
    wait(async {
        let mut client = raw::client(&server.url()).await;
        raw::finish(&mut client, &session, 1).await.unwrap();
        fetch(&mut client, &session).await.unwrap();
    });
}

#[test]
fn a_stop_during_a_proof_is_not_a_failed_attempt() {
    let contributor = artifacts();
    let manifest = load(contributor.path()).manifest;
    for _ in 0..4 {
        let server = Server::start(contributor.path());
        let session =
            wait(async { begun(&mut raw::client(&server.url()).await, &manifest, 1).await.0 });
        wait(async {
            let request =
                zklora_session::wire::FinishRequest { session: Some(session.clone()), sequence: 1 };
            let mut client = raw::client(&server.url()).await;
            let mut stages = client.finish(request).await.unwrap().into_inner();
            while stages.message().await.unwrap().unwrap().stage()
                == zklora_session::wire::ProofStage::Queued
            {}
        });
        server.stop();
    }
    let restored = start(contributor.path()).unwrap().restored.clone();
    assert_eq!((restored.to_prove + restored.proven, restored.set_aside.len()), (4, 0));
}

#[test]
fn rows_that_a_servers_machine_lost_are_sent_again_and_proven() {
    let contributor = artifacts();
    let mut server = Server::start(contributor.path());
    let options = again(contributor.path(), &server);
    let user = tempfile::tempdir().unwrap();
    let mut session = open(&server.url(), None, user.path()).unwrap();
    talk_on(&mut session, contributor.path(), 0, 4);
    let log = log_of(contributor.path(), &session);
    let lose = |server: Server, records: usize| {
        server.stop();
        let whole = fs::read(&log).unwrap();
        fs::write(&log, &whole[..ends(&whole)[records]]).unwrap();
        Server::with(contributor.path(), &options)
    };
    // Two of four batches are gone, and the session is resumed.
    server = lose(server, 2);
    talk_on(&mut session, contributor.path(), 4, 1);
    // All are gone, right before the end.
    server = lose(server, 0);
    assert_eq!(rows_proven(&mut session), 20);
    assert_eq!(connect(&server.url(), None).unwrap().rows_served, 5);
}

#[test]
fn a_torn_users_log_is_resumed_or_says_what_is_lost() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let user = tempfile::tempdir().unwrap();
    let mut session = open(&server.url(), None, user.path()).unwrap();
    talk_on(&mut session, contributor.path(), 0, 3);
    drop(session);
    let log = user.path().join("rows.log");
    let whole = fs::read(&log).unwrap();
    // Header; sent and answered of three batches.
    let ends = ends(&whole);
    assert_eq!(ends.len(), 7);
    let id = reference_of(user.path()).id;
    for cut in [0, 5, HEADER, HEADER + 10, ends[0] - 1] {
        // It died before it sent anything: another session begins.
        fs::write(&log, &whole[..cut]).unwrap();
        let session = open(&server.url(), None, user.path()).unwrap();
        assert!(session.rows() == 0 && session.id()[..] != id, "cut at {cut}");
    }
    // Batches that were sent and answered are gone: the contributor has more than the user knows.
    fs::write(&log, &whole[..ends[2] + 3]).unwrap();
    let mut session = open(&server.url(), None, user.path()).unwrap();
    let error = session.deltas(&calls(&session, 1, 1)).unwrap_err().to_string();
    assert!(error.contains("another process uses the session"), "{error}");
    drop(session);
    for cut in
        (ends[4]..ends[6]).step_by(331).chain([ends[5] - 1, ends[5], ends[5] + 1, ends[6] - 1])
    {
        fs::write(&log, &whole[..cut]).unwrap();
        let mut session = open(&server.url(), None, user.path()).unwrap();
        // The same command asks for the same rows.
        talk_on(&mut session, contributor.path(), 0, 3);
        assert_eq!(session.rows(), 12, "cut at {cut}");
    }
    let mut session = open(&server.url(), None, user.path()).unwrap();
    // No other process writes to it meanwhile.
    let second = open(&server.url(), None, user.path()).err().unwrap().to_string();
    assert!(second.contains("another process uses this session"), "{second}");
    assert_eq!(rows_proven(&mut session), 12);
    assert_eq!(connect(&server.url(), None).unwrap().rows_served, 3);
}

#[test]
fn a_users_log_that_is_damaged_before_its_end_is_refused_by_name() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let user = tempfile::tempdir().unwrap();
    let mut session = open(&server.url(), None, user.path()).unwrap();
    talk_on(&mut session, contributor.path(), 0, 2);
    drop(session);
    let log = user.path().join("rows.log");
    let whole = fs::read(&log).unwrap();
    for at in [3, HEADER + 2, ends(&whole)[0] + 1, ends(&whole)[0] + 40, ends(&whole)[2] - 1] {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(&log, &damaged).unwrap();
        let error =
            open(&server.url(), None, user.path()).err().expect("it is resumed").to_string();
        assert!(error.contains("rows.log"), "byte {at}: {error}");
    }
    assert_serves(&server, contributor.path());
}
