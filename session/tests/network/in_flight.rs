//! Several batches that are sent before the first one is answered: the deltas are right and each
//! row is counted once, wherever a party dies, the connection breaks or a batch is refused.

use std::{path::Path, sync::Mutex};

use zklora_session::{
    Error,
    client::{DeltaRequest, DeltaStep, UserSession},
    server::ServerOptions,
    session_log::{self, Event},
    wire::{Batch, InferResponse},
};

use crate::{
    party::{
        Server, artifacts, assert_serves, calls, connect, expected, finish, limited, load, open,
    },
    proxy::{Interceptor, Proxy},
    tap::Tap,
};

/// Rows of every module that a request of these tests has.
const ROWS: usize = 2;

/// Begins requests of different rows, of which the session sends as many as it may.
fn begin(session: &mut UserSession, requests: std::ops::Range<usize>) -> Vec<DeltaRequest> {
    let seeds = requests.map(|at| at * ROWS);
    let begun = seeds.map(|seed| {
        let calls = calls(session, ROWS, seed);
        let request = session.request(&calls).unwrap();
        session.advance(&request).map(|_| ()).unwrap();
        request
    });
    begun.collect()
}

/// A session with an answer, so that further batches are sent without waiting. It has `ROWS` rows.
fn started(url: &str, user: &Path) -> UserSession {
    let mut session = open(url, None, user).unwrap();
    let calls = calls(&session, ROWS, 100 * ROWS);
    session.deltas(&calls).unwrap();
    session
}

fn end(session: &mut UserSession, request: &DeltaRequest) -> Result<Vec<Vec<i64>>, Error> {
    loop {
        match session.advance(request)? {
            DeltaStep::Deltas(deltas) => return Ok(deltas),
            DeltaStep::Waits(waiter) => waiter.wait(),
        }
    }
}

/// Ends requests, and compares their deltas with those of the adapter.
fn check(session: &mut UserSession, folder: &Path, first: usize, requests: &[DeltaRequest]) {
    let artifacts = load(folder);
    for (at, request) in (first..).zip(requests) {
        let calls = calls(session, ROWS, at * ROWS);
        assert_eq!(end(session, request).unwrap(), expected(&artifacts, &calls), "{at}");
    }
}

/// The most batches without an answer that a user's log ever had.
fn most_in_flight(user: &Path) -> usize {
    let (mut now, mut most) = (0, 0);
    session_log::read(&user.join("rows.log"), &mut |event| {
        match event {
            Event::Sent(_) => now += 1,
            Event::Answered(_) => now -= 1,
            Event::Withdrawn => now = 0,
            _ => {}
        }
        most = most.max(now);
        Ok(())
    })
    .unwrap();
    most
}

/// The proof is of this many rows of every module, and the contributor counted no more.
fn assert_rows(session: &mut UserSession, server: &Server, rows: usize) {
    let verdict = finish(session).unwrap().verdict;
    assert!(verdict.rows.iter().all(|(_, proven)| *proven == rows), "{:?}", verdict.rows);
    assert_eq!(connect(&server.url(), None).unwrap().rows_served, rows as u64);
}

#[test]
fn batches_are_sent_before_the_first_answer_and_no_more_of_them_than_the_limit() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let user = tempfile::tempdir().unwrap();
    let mut session = open(&server.url(), None, user.path()).unwrap();
    let requests: Vec<_> = (0..40)
        .map(|at| {
            let calls = calls(&session, ROWS, at * ROWS);
            session.request(&calls).unwrap()
        })
        .collect();
    // The same rows again, while they are in flight, are not sent again.
    let again = begin(&mut session, 0..40);
    check(&mut session, contributor.path(), 0, &requests);
    check(&mut session, contributor.path(), 0, &again);
    let most = most_in_flight(user.path());
    assert!((2..=16).contains(&most), "{most}");
    assert_rows(&mut session, &server, 40 * ROWS);
}

#[test]
fn threads_that_share_a_session_get_their_own_deltas() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let user = tempfile::tempdir().unwrap();
    let session = Mutex::new(open(&server.url(), None, user.path()).unwrap());
    let artifacts = load(contributor.path());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (session, artifacts) = (&session, &artifacts);
            scope.spawn(move || {
                // Two threads each have the same rows.
                for at in 0..12 {
                    let calls =
                        calls(&session.lock().unwrap(), ROWS, (at + thread / 2 * 12) * ROWS);
                    let request = session.lock().unwrap().request(&calls).unwrap();
                    let deltas = loop {
                        let step = session.lock().unwrap().advance(&request).unwrap();
                        match step {
                            DeltaStep::Deltas(deltas) => break deltas,
                            DeltaStep::Waits(waiter) => waiter.wait(),
                        }
                    };
                    assert_eq!(deltas, expected(artifacts, &calls));
                }
            });
        }
    });
    assert_rows(&mut session.into_inner().unwrap(), &server, 24 * ROWS);
}

#[test]
fn a_user_that_dies_with_batches_in_flight_resumes_them_in_order() {
    let contributor = artifacts();
    for answered in 0..6 {
        let (server, user) = (Server::start(contributor.path()), tempfile::tempdir().unwrap());
        let before = connect(&server.url(), None).unwrap().rows_served as usize;
        let mut session = started(&server.url(), user.path());
        let requests = begin(&mut session, 0..5);
        check(&mut session, contributor.path(), 0, &requests[..answered.min(5)]);
        // Its log has what it sent: a process that is killed leaves the same.
        drop(session);
        let mut session = open(&server.url(), None, user.path()).unwrap();
        assert!(session.rows_per_module().iter().all(|rows| *rows == 6 * ROWS));
        let again = begin(&mut session, 0..6);
        check(&mut session, contributor.path(), 0, &again);
        let verdict = finish(&mut session).unwrap().verdict;
        assert!(verdict.rows.iter().all(|(_, rows)| *rows == 7 * ROWS));
        let after = connect(&server.url(), None).unwrap().rows_served as usize;
        assert_eq!(after - before, 7 * ROWS, "{answered} answered");
    }
}

#[test]
fn a_connection_that_breaks_with_batches_in_flight_costs_no_row() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let length = {
        let (tap, user) = (Tap::start(server.address), tempfile::tempdir().unwrap());
        let mut session = started(&tap.url(), user.path());
        let before = tap.sent().len();
        let requests = begin(&mut session, 0..6);
        check(&mut session, contributor.path(), 0, &requests);
        2 * (tap.sent().len() - before)
    };
    let mut rows = 7 * ROWS as u64;
    for at in 0..14 {
        let (tap, user) = (Tap::start(server.address), tempfile::tempdir().unwrap());
        let mut session = started(&tap.url(), user.path());
        tap.cut_after(length * at / 14 + at % 3);
        let requests = begin(&mut session, 0..6);
        check(&mut session, contributor.path(), 0, &requests);
        let verdict = finish(&mut session).unwrap().verdict;
        assert!(verdict.rows.iter().all(|(_, rows)| *rows == 7 * ROWS), "{at}");
        rows += 7 * ROWS as u64;
        assert_eq!(connect(&server.url(), None).unwrap().rows_served, rows, "{at}");
    }
}

#[test]
fn a_contributor_that_restarts_with_batches_in_flight_costs_no_row() {
    let contributor = artifacts();
    let mut server = Server::start(contributor.path());
    let user = tempfile::tempdir().unwrap();
    let mut session = started(&server.url(), user.path());
    for first in [0, 5, 10] {
        let requests = begin(&mut session, first..first + 5);
        let options =
            ServerOptions { listen: server.address, ..Server::options(contributor.path()) };
        server.stop();
        server = Server::with(contributor.path(), &options);
        check(&mut session, contributor.path(), first, &requests);
    }
    assert_rows(&mut session, &server, 16 * ROWS);
}

#[test]
fn a_batch_that_is_refused_takes_none_of_those_after_it_with_it() {
    let contributor = artifacts();
    let mut options = Server::options(contributor.path());
    options.limits = limited(24);
    let server = Server::with(contributor.path(), &options);
    let user = tempfile::tempdir().unwrap();
    let mut session = started(&server.url(), user.path());
    let first = begin(&mut session, 0..4);
    // One row more than the server still answers.
    let many = calls(&session, 15, 1000);
    let refused = session.request(&many).unwrap();
    let later = begin(&mut session, 4..8);
    check(&mut session, contributor.path(), 0, &first);
    let error = end(&mut session, &refused).unwrap_err();
    assert!(matches!(error, Error::Contributor { .. }), "{error}");
    check(&mut session, contributor.path(), 4, &later);
    // Its log says so, and is read again.
    assert!(most_in_flight(user.path()) > 1);
    drop(session);
    let mut session = open(&server.url(), None, user.path()).unwrap();
    assert_rows(&mut session, &server, 9 * ROWS);
}

/// Answers out of order: with the answer to the batch before.
struct Late(Mutex<Option<InferResponse>>);

impl Interceptor for Late {
    fn answered(&self, batch: &Batch, answer: &mut InferResponse) {
        let before = self.0.lock().unwrap().replace(answer.clone());
        if let (2, Some(before)) = (batch.sequence, before) {
            *answer = before;
        }
    }
}

#[test]
fn an_answer_out_of_order_is_refused() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let user = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(&server.url(), Late(Mutex::default()));
    let mut session = open(&proxy.url(), None, user.path()).unwrap();
    let requests: Vec<_> = (0..4)
        .map(|at| {
            let calls = calls(&session, ROWS, at * ROWS);
            session.request(&calls).unwrap()
        })
        .collect();
    check(&mut session, contributor.path(), 0, &requests[..2]);
    let error = end(&mut session, &requests[2]).unwrap_err();
    assert!(
        error.to_string().contains("it answers batch") && error.to_string().contains("not 2"),
        "{error}"
    );
    assert_serves(&server, contributor.path());
}
