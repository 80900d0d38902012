//! A contributor that is away, or seems to be: connections that die in silence, servers that start
//! late, and what does not pass.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::Path,
    time::{Duration, Instant},
};

use zklora_artifacts::trace_reader::TraceReader;
use zklora_proof::{keys::KeyStore, verifier::SrsPolicy};
use zklora_session::{
    Error,
    client::{ContributorOptions, Progress, Remote, UserSession},
    server::ServerOptions,
};

use crate::{
    party::{
        Server, artifacts, calls, connect, expected, finish, load, network, open, options, srs,
    },
    tap::Tap,
};

fn within(url: &str, call_timeout: u64, patience: u64) -> ContributorOptions {
    let (call_timeout, patience) =
        (Duration::from_millis(call_timeout), Duration::from_millis(patience));
    ContributorOptions { call_timeout, patience, ..options(url, None) }
}

fn asks(session: &mut UserSession, contributor: &Path, seed: usize) {
    let calls = calls(session, 1, seed);
    assert_eq!(session.deltas(&calls).unwrap(), expected(&load(contributor), &calls));
}

/// An address without a listener.
fn unused() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn a_connection_that_stopped_responding_is_replaced_after_any_timeout() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    // An answer may take longer than a contributor is waited for, or not.
    for (call_timeout, patience) in [(1500, 100), (1000, 0), (700, 20_000)] {
        let (tap, user) = (Tap::start(server.address), tempfile::tempdir().unwrap());
        let remote =
            Remote::connect(within(&tap.url(), call_timeout, patience), &network()).unwrap();
        let mut session = UserSession::open(remote, user.path()).unwrap();
        // It died before the session was opened, between two batches, before the proof was asked
        // for, and while it was made.
        tap.silence();
        asks(&mut session, contributor.path(), 0);
        tap.silence();
        asks(&mut session, contributor.path(), 1);
        tap.silence();
        let mut waiting = 0;
        let mut progress = |progress| {
            if matches!(progress, Progress::Queued(_) | Progress::Proving) {
                waiting += 1;
                if waiting == 1 {
                    tap.silence();
                }
            }
        };
        let finished = session
            .finish(srs(), &KeyStore::default(), SrsPolicy::TrustedOnly, &mut progress)
            .unwrap();
        assert!(finished.verdict.rows.iter().all(|(_, rows)| *rows == 2));
        assert!(tap.connections() >= 4, "{} connections", tap.connections());
        assert_eq!(session.statistics.reconnections, 1);
    }
    assert_eq!(connect(&server.url(), None).unwrap().rows_served, 6);
}

#[test]
fn a_connection_may_stop_responding_after_any_byte() {
    const CUTS: usize = 12;
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let run = |cut: usize| {
        let (tap, user) = (Tap::start(server.address), tempfile::tempdir().unwrap());
        tap.silence_after(cut);
        let remote = Remote::connect(within(&tap.url(), 1500, 20_000), &network()).unwrap();
        let mut session = UserSession::open(remote, user.path()).unwrap();
        asks(&mut session, contributor.path(), 0);
        asks(&mut session, contributor.path(), 1);
        let verdict = finish(&mut session).unwrap().verdict;
        assert!(verdict.rows.iter().all(|(_, rows)| *rows == 2), "silent after {cut}");
        (tap.connections(), tap.was_cut(), tap.left())
    };
    let (connections, _, left) = run(1 << 40);
    assert_eq!(connections, 1);
    // All bytes, both ways: the cuts are in the description, the answers, the wait for the proof,
    // and the proof.
    let total = (1 << 40) - left;
    for at in 0..CUTS {
        let cut = total * at / CUTS + at % 3;
        let (connections, was_cut, _) = run(cut);
        assert!(was_cut && connections >= 2, "no new connection after {cut} of {total} bytes");
    }
    assert_eq!(connect(&server.url(), None).unwrap().rows_served, 2 * (1 + CUTS as u64));
}

#[test]
fn a_silent_contributor_is_given_up_after_a_new_connection_and_the_error_names_the_folder() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let (tap, user) = (Tap::start(server.address), tempfile::tempdir().unwrap());
    let remote = Remote::connect(within(&tap.url(), 300, 500), &network()).unwrap();
    let mut session = UserSession::open(remote, user.path()).unwrap();
    asks(&mut session, contributor.path(), 0);
    let before = tap.connections();
    tap.silence_for_ever();
    let start = Instant::now();
    let error = session.deltas(&calls(&session, 1, 1)).unwrap_err().to_string();
    assert!(
        error.contains("unreachable for") && error.contains(&user.path().display().to_string()),
        "{error}"
    );
    assert!(error.contains("run the same command again"), "{error}");
    assert!(tap.connections() > before && start.elapsed() < Duration::from_secs(20));
    // The trace of what was answered is there although the proof never comes, and the log is kept.
    let error = finish(&mut session).unwrap_err().to_string();
    assert!(error.contains("unreachable for"), "{error}");
    let trace = user.path().join("trace.safetensors");
    let manifest = load(contributor.path()).manifest;
    assert_eq!(TraceReader::trace(&trace, &manifest).unwrap().counts(), [1; 4]);
    assert!(user.path().join("rows.log").exists() && !user.path().join("session.pf").exists());
    drop(session);
    // The batch without an answer is in the proof, too.
    let mut resumed = options(&server.url(), None);
    resumed.moved = true;
    let mut session =
        UserSession::open(Remote::connect(resumed, &network()).unwrap(), user.path()).unwrap();
    finish(&mut session).unwrap();
    assert_eq!(TraceReader::trace(&trace, &manifest).unwrap().counts(), [2; 4]);
    assert!(!user.path().join("rows.log").exists());
    // What was recorded can be looked at afterwards.
    assert_eq!(session.trace().unwrap().rows(), 8);
}

#[test]
fn a_server_that_starts_late_is_waited_for() {
    let contributor = artifacts();
    let address = unused();
    let folder = contributor.path().to_path_buf();
    let starting = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(2));
        Server::with(&folder, &ServerOptions { listen: address, ..Server::options(&folder) })
    });
    let user = tempfile::tempdir().unwrap();
    let remote =
        Remote::connect(within(&format!("http://{address}"), 20_000, 60_000), &network()).unwrap();
    let server = starting.join().unwrap();
    let mut session = UserSession::open(remote, user.path()).unwrap();
    asks(&mut session, contributor.path(), 0);
    finish(&mut session).unwrap();
    drop(server);
}

#[test]
fn a_server_that_hangs_up_before_it_speaks_is_waited_for() {
    let contributor = artifacts();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let dying = std::thread::spawn(move || {
        // With and without a word of the client's, and with something unread.
        for at in 0..3 {
            let (mut stream, _) = listener.accept().unwrap();
            if at > 0 {
                std::io::Read::read_exact(&mut stream, &mut vec![0; 8 * at]).unwrap();
            }
        }
    });
    let folder = contributor.path().to_path_buf();
    let starting = std::thread::spawn(move || {
        dying.join().unwrap();
        Server::with(&folder, &ServerOptions { listen: address, ..Server::options(&folder) })
    });
    let remote =
        Remote::connect(within(&format!("http://{address}"), 20_000, 60_000), &network()).unwrap();
    assert_eq!(remote.rows_served, 0);
    drop(starting.join().unwrap());
}

#[test]
fn an_unreachable_server_is_given_up_and_the_error_says_after_how_long() {
    let connect = |url: &str, patience: u64| -> (Error, Duration) {
        let start = Instant::now();
        let error = Remote::connect(within(url, 5000, patience), &network())
            .err()
            .expect("no server is there");
        (error, start.elapsed())
    };
    let address = unused();
    let (error, time) = connect(&format!("http://{address}"), 1500);
    let text = error.to_string();
    assert!(text.contains("cannot connect") && text.contains("refused"), "{text}");
    assert!(text.contains("tried again for 1.5 s"), "{text}");
    assert!((1500..10_000).contains(&(time.as_millis() as u64)), "{time:?}");
    let (error, time) = connect(&format!("http://{address}"), 0);
    assert!(!error.to_string().contains("tried again") && time < Duration::from_secs(5), "{error}");
    // The same over TLS, whose handshake never ends.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let (error, _) = connect(&url, 600);
    assert!(error.to_string().contains("tried again for"), "{error}");
}

#[test]
fn permanent_failures_are_not_retried() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let refused = |options: ContributorOptions, why: &str| {
        let start = Instant::now();
        let options = ContributorOptions { patience: Duration::from_secs(600), ..options };
        let error = Remote::connect(options, &network()).err().expect("it is served").to_string();
        assert!(error.contains(why) && !error.contains("tried again"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(30));
    };
    refused(options("no url", None), "not a URL");
    refused(options("ftp://127.0.0.1:1", None), "neither http:// nor https://");
    refused(options("http://192.0.2.1:7443", None), "--insecure");
    let missing = Some(contributor.path().join("missing"));
    refused(ContributorOptions { token_file: missing, ..options(&server.url(), None) }, "missing");
    // TLS to a server without it, and a server that speaks HTTP/1.
    refused(options(&server.url().replace("http:", "https:"), None), "cannot connect");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = std::io::Read::read(&mut stream, &mut [0; 1024]);
            let _ = std::io::Write::write_all(
                &mut stream,
                b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
            );
        }
    });
    refused(options(&url, None), "contributor http://");
}

#[test]
fn temporary_files_of_a_killed_process_are_removed_when_the_session_is_opened() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let user = tempfile::tempdir().unwrap();
    let mut session = open(&server.url(), None, user.path()).unwrap();
    asks(&mut session, contributor.path(), 0);
    let leftovers =
        [user.path().join(".zklora-Ab3dEf.tmp"), user.path().join("public/.zklora-x.tmp")];
    let others = [user.path().join("zklora-notes.tmp"), user.path().join(".zklora-notes")];
    leftovers.iter().chain(&others).for_each(|path| fs::write(path, "half").unwrap());
    fs::create_dir(user.path().join(".zklora-folder.tmp")).unwrap();
    // Another process has the session open: none of its files is touched.
    assert!(open(&server.url(), None, user.path()).is_err());
    assert!(leftovers.iter().all(|path| path.exists()));
    drop(session);
    let mut session = open(&server.url(), None, user.path()).unwrap();
    assert!(!leftovers.iter().any(|path| path.exists()));
    assert!(
        others.iter().all(|path| path.exists()) && user.path().join(".zklora-folder.tmp").exists()
    );
    finish(&mut session).unwrap();
}
