//! A server whose contributor did not choose to serve rows.

use std::{fs, path::Path};

use tonic::Code;
use zklora_session::server::{Limits, ServerOptions};

use crate::{
    party::{Server, artifacts, calls, connect, finish, load, open, rows_of},
    raw::{self, batch, begun, fetch, fresh, talk, wait},
};

const NO_ROWS: &str = "this contributor serves no rows (it did not choose --max-rows): ask for an \
                       evaluation instead";
const NO_FURTHER_ROWS: &str =
    "serves no further rows (it did not choose --max-rows): end the session";

/// The server of this folder without a choice of rows, at the address of one before it.
fn without_rows(folder: &Path, before: Option<Server>) -> Server {
    let mut options = ServerOptions { limits: Limits::default(), ..Server::options(folder) };
    if let Some(before) = before {
        options.listen = before.address;
        before.stop();
    }
    Server::with(folder, &options)
}

#[test]
fn no_session_begins_and_nothing_is_counted() {
    let contributor = artifacts();
    let path = contributor.path();
    let server = without_rows(path, None);
    let manifest = load(path).manifest;
    // Describe answers.
    let remote = connect(&server.url(), Some(manifest.id())).unwrap();
    assert_eq!((remote.rows_served, remote.limits.max_rows), (0, 0));
    let user = tempfile::tempdir().unwrap();
    let mut session = open(&server.url(), Some(manifest.id()), user.path()).unwrap();
    let error = session.deltas(&calls(&session, 1, 0)).unwrap_err().to_string();
    assert!(error.contains(NO_ROWS), "{error}");
    wait(async {
        let mut client = raw::client(&server.url()).await;
        let session = fresh();
        let refused = raw::open(&mut client, &session, &manifest.id().0).await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, NO_ROWS));
        // A stream without a session, neither.
        let refused = talk(&mut client, &session).await.err().unwrap();
        assert_eq!(refused.code(), Code::PermissionDenied);
    });
    assert_eq!(connect(&server.url(), None).unwrap().rows_served, 0);
    server.stop();
    assert_eq!(fs::read_dir(path.join("private/sessions")).unwrap().count(), 0);
    let ledger = path.join("private/served.jsonl");
    assert!(!fs::read_to_string(ledger).unwrap_or_default().contains("rows"));
}

#[test]
fn a_session_of_an_earlier_run_gets_no_further_row_and_is_proven() {
    let contributor = artifacts();
    let path = contributor.path();
    let manifest = load(path).manifest;
    let user = tempfile::tempdir().unwrap();
    let server = Server::start(path);
    let mut session = open(&server.url(), Some(manifest.id()), user.path()).unwrap();
    session.deltas(&rows_of(&manifest, 4, 0)).unwrap();
    let server = without_rows(path, Some(server));
    let error = session.deltas(&rows_of(&manifest, 1, 9)).unwrap_err().to_string();
    assert!(error.contains(NO_FURTHER_ROWS), "{error}");
    assert_eq!(connect(&server.url(), None).unwrap().rows_served, 4);
    // Proven and verified, by a user that begins again from its log.
    drop(session);
    let mut session = open(&server.url(), Some(manifest.id()), user.path()).unwrap();
    let finished = finish(&mut session).unwrap();
    assert_eq!(finished.verdict.rows.iter().map(|(_, rows)| rows).sum::<usize>(), 16);
    assert_eq!(connect(&server.url(), None).unwrap().rows_served, 4);
}

#[test]
fn rows_that_were_served_are_answered_again_and_proofs_are_fetched() {
    let contributor = artifacts();
    let path = contributor.path();
    let manifest = load(path).manifest;
    let server = Server::start(path);
    let (unfinished, finished) = wait(async {
        let mut client = raw::client(&server.url()).await;
        let (finished, _) = begun(&mut client, &manifest, 2).await;
        raw::finish(&mut client, &finished, 1).await.unwrap();
        (begun(&mut client, &manifest, 3).await.0, finished)
    });
    let server = without_rows(path, Some(server));
    wait(async {
        let mut client = raw::client(&server.url()).await;
        fetch(&mut client, &finished).await.unwrap();
        let opened = raw::open(&mut client, &unfinished, &manifest.id().0).await.unwrap();
        assert_eq!(opened.next_sequence, 1);
        let mut stream = talk(&mut client, &unfinished).await.unwrap();
        // Its answer may have been lost.
        stream.say(batch(&manifest, 0, 3, 0)).await.unwrap();
        let refused = stream.say(batch(&manifest, 1, 1, 7)).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(refused.message().contains(NO_FURTHER_ROWS), "{refused}");
        raw::finish(&mut client, &unfinished, 1).await.unwrap();
        fetch(&mut client, &unfinished).await.unwrap();
    });
    assert_eq!(connect(&server.url(), None).unwrap().rows_served, 5);
}
