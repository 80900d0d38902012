//! Sessions between parties that do what they should, with servers and users that die in between.

use std::sync::Arc;

use crate::party::{Server, artifacts, calls, connect, finish, load, open};

#[test]
fn a_session_over_a_socket_is_proven_and_both_sides_keep_it() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let user = tempfile::tempdir().unwrap();
    let pin = load(contributor.path()).manifest.id();
    let mut session = open(&server.url(), Some(pin), user.path()).unwrap();
    let first = calls(&session, 5, 0);
    let deltas = session.deltas(&first).unwrap();
    // Rows that were answered are not sent again.
    assert_eq!(session.deltas(&first).unwrap(), deltas);
    assert_eq!((session.statistics.rows, session.statistics.reused), (20, 20));
    session.deltas(&calls(&session, 3, 5)).unwrap();
    let finished = finish(&mut session).unwrap();
    assert_eq!(finished.verdict.rows.iter().map(|(_, rows)| rows).sum::<usize>(), 32);
    for file in ["trace.safetensors", "session.pf", "public/manifest.json", "public/settings.json"]
    {
        assert!(user.path().join(file).is_file(), "{file}");
    }
    assert!(!user.path().join("rows.log").exists());
    // What is there is not written over.
    let remote = connect(&server.url(), Some(pin)).unwrap();
    assert_eq!(remote.rows_served, 8);
    let again = zklora_session::client::UserSession::open(remote, user.path());
    assert!(again.err().unwrap().to_string().contains("finished session"));
}

#[test]
fn a_restarted_server_resumes_a_session() {
    let contributor = artifacts();
    let user = tempfile::tempdir().unwrap();
    let server = Server::start(contributor.path());
    let mut options = Server::options(contributor.path());
    options.listen = server.address;
    let mut session = open(&server.url(), None, user.path()).unwrap();
    session.deltas(&calls(&session, 4, 0)).unwrap();
    server.stop();
    let server = Server::with(contributor.path(), &options);
    session.deltas(&calls(&session, 4, 4)).unwrap();
    assert_eq!(session.statistics.reconnections, 1);
    // Ended, and stopped before the proof is fetched.
    server.stop();
    let server = Server::with(contributor.path(), &options);
    finish(&mut session).unwrap();
    drop(server);
}

#[test]
fn a_restarted_user_resumes_from_its_log() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let user = tempfile::tempdir().unwrap();
    let mut session = open(&server.url(), None, user.path()).unwrap();
    let first = calls(&session, 4, 0);
    let deltas = session.deltas(&first).unwrap();
    drop(session);
    // The last answer was not written to its end.
    let log = user.path().join("rows.log");
    let bytes = std::fs::read(&log).unwrap();
    std::fs::write(&log, &bytes[..bytes.len() - 7]).unwrap();
    let mut session = open(&server.url(), None, user.path()).unwrap();
    assert_eq!(session.deltas(&first).unwrap(), deltas);
    let shared: Vec<_> = first.iter().map(|(module, rows)| (*module, Arc::clone(rows))).collect();
    assert_eq!(session.deltas(&shared).unwrap(), deltas);
    finish(&mut session).unwrap();
    assert_eq!(connect(&server.url(), None).unwrap().rows_served, 4);
}
