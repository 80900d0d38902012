//! What an operator sees and does: stored sessions, and what a server counts about itself.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use tonic::Code;
use zklora_artifacts::{Error as Artifact, synthetic};
use zklora_proof::trace::TraceDigest;
use zklora_session::{
    Error,
    ledger::{self, Entry, Ledger, Rows},
    record,
    row_totals::RowTotals,
    server::{ServerOptions, Tokens},
    stored_sessions::{Folder, State, Stored, upkeep},
    wire::{FinishRequest, SessionRef},
};

use crate::{
    party::{Server, artifacts, limited, load},
    raw::{self, batch, begun, fetch, fresh, talk, wait},
};

const NOW: Duration = Duration::ZERO;

fn folder(path: &Path) -> Folder {
    Folder::new(path, None).unwrap()
}

fn hex_of(session: &SessionRef) -> String {
    hex::encode(&session.id)
}

fn log_of(path: &Path, session: &SessionRef) -> PathBuf {
    path.join("private/sessions").join(format!("{}.rows", hex_of(session)))
}

fn stored(path: &Path, session: &SessionRef) -> Stored {
    folder(path).session(&hex_of(session)).unwrap()
}

fn counted(path: &Path) -> Vec<u64> {
    let artifacts = load(path);
    let ledger = Ledger::lock(&artifacts.ledger()).unwrap();
    RowTotals::count(ledger.index(), &artifacts.manifest).unwrap().total
}

/// A session with one batch of these rows; finished and fetched if so.
fn session(server: &Server, path: &Path, rows: usize, finished: bool, fetched: bool) -> SessionRef {
    let manifest = load(path).manifest;
    wait(async {
        let mut client = raw::client(&server.url()).await;
        let session = begun(&mut client, &manifest, rows).await.0;
        if finished {
            raw::finish(&mut client, &session, 1).await.unwrap();
        }
        if fetched {
            fetch(&mut client, &session).await.unwrap();
        }
        session
    })
}

fn assert_used(server: &Server, path: &Path, session: &SessionRef) {
    let manifest = load(path).manifest;
    wait(async {
        let mut client = raw::client(&server.url()).await;
        let status = raw::open(&mut client, session, &manifest.id().0).await.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
        assert!(status.message().contains("a session of this id was served before"), "{status:?}");
        assert!(talk(&mut client, session).await.is_err());
        assert!(fetch(&mut client, session).await.is_err());
    });
}

#[test]
fn a_folder_shows_what_became_of_each_session() {
    let contributor = artifacts();
    let path = contributor.path();
    assert!(folder(path).sessions().unwrap().is_empty() && !folder(path).is_served());
    let artifacts = load(path);
    let activations = synthetic::activations(artifacts.manifest.modules(), 2);
    record::record(&artifacts, &activations, Some([9; 32]), None).unwrap();
    let server = Server::start(path);
    let open = session(&server, path, 3, false, false);
    let proven = session(&server, path, 1, true, false);
    let fetched = session(&server, path, 4, true, true);
    // A server may run, and the newest is the first.
    assert!(folder(path).is_served());
    let all = folder(path).sessions().unwrap();
    let states: Vec<(State, u64)> = all.iter().map(|s| (s.state, s.rows_in_all())).collect();
    assert_eq!(
        states,
        [(State::Fetched, 16), (State::Proven, 4), (State::Open, 12), (State::Recorded, 8)]
    );
    assert_eq!(all[0].id, hex_of(&fetched));
    assert!(
        all[0].proof_bytes > 0
            && all[0].log_bytes > 0
            && all[0].age.is_some()
            && all[0].is_counted()
    );
    assert!(!all[2].is_counted() && all[2].batches == Some(1) && all[2].client == "anonymous");
    assert!(all[2].rows.values().all(|rows| *rows == 3) && all[2].rows.len() == 4);
    // Those of an ended session are in its log.
    assert_eq!(stored(path, &proven).batches, Some(1));
    server.stop();
    assert!(!folder(path).is_served());
    // Beginnings of ids, and what is none.
    let beginning = &hex_of(&open)[..10];
    assert_eq!(folder(path).session(&beginning.to_uppercase()).unwrap().id, hex_of(&open));
    for (id, why) in [
        ("", "64 hex digits"),
        ("../..", "64 hex digits"),
        (&"0".repeat(65), "64 hex digits"),
        (&"12345678".repeat(8), "no session begins with"),
    ] {
        let error = folder(path).session(id).unwrap_err();
        assert!(
            matches!(&error, Error::Artifact(Artifact::Input(said)) if said.contains(why)),
            "{id}: {error}"
        );
    }
    assert_eq!(folder(path).session("09090909").unwrap().id, "09".repeat(32));
    let mut similar = [9; 32];
    similar[31] = 1;
    record::record(&artifacts, &activations, Some(similar), None).unwrap();
    let error = folder(path).session("09090909").unwrap_err().to_string();
    assert!(
        error.contains("2 sessions begin with 09090909") && error.contains("give more digits"),
        "{error}"
    );
    // The rows of an open session are only in its log.
    fs::remove_file(log_of(path, &open)).unwrap();
    assert_eq!(stored(path, &open).state, State::LogMissing);
    fs::write(log_of(path, &open), "these are the operator's").unwrap();
    let damaged = stored(path, &open);
    assert!(
        damaged.state == State::Damaged && damaged.problem.unwrap().contains("not a log of zklora")
    );
    assert!(
        Folder::new(&path.join("public"), None)
            .unwrap_err()
            .to_string()
            .contains("name the folder that compile wrote")
    );
}

#[test]
fn files_of_fetched_sessions_are_removed_beside_a_running_server() {
    let contributor = artifacts();
    let path = contributor.path();
    let server = Server::start(path);
    let open = session(&server, path, 3, false, false);
    let proven = session(&server, path, 1, true, false);
    let (first, second) =
        (session(&server, path, 4, true, true), session(&server, path, 2, true, true));
    let marker = log_of(path, &first).with_extension("fetched");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&marker).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    // Not yet; and not really.
    assert!(
        upkeep::prune(&folder(path), Duration::from_secs(3600), false).unwrap().sessions.is_empty()
    );
    assert_eq!(upkeep::prune(&folder(path), NOW, true).unwrap().sessions.len(), 2);
    assert_eq!(stored(path, &first).state, State::Fetched);
    // Long ago, but the first of them alone.
    let old = std::time::SystemTime::now() - Duration::from_secs(8 * 86_400);
    fs::File::options().append(true).open(&marker).unwrap().set_modified(old).unwrap();
    let pruned = upkeep::prune(&folder(path), Duration::from_secs(7 * 86_400), false).unwrap();
    let ids: Vec<&str> = pruned.sessions.iter().map(|s| s.id.as_str()).collect();
    assert_eq!((ids, pruned.failed.len()), (vec![hex_of(&first).as_str()], 0));
    assert!(pruned.bytes > 0);
    for extension in ["rows", "pf", "fetched"] {
        assert!(!log_of(path, &first).with_extension(extension).exists(), "{extension}");
        assert!(log_of(path, &second).with_extension(extension).exists(), "{extension}");
    }
    assert_eq!(
        (stored(path, &first).state, stored(path, &first).rows_in_all()),
        (State::Removed, 16)
    );
    // The server knew the session, and knows what became of it. The others it serves on.
    assert_used(&server, path, &first);
    wait(async {
        let mut client = raw::client(&server.url()).await;
        fetch(&mut client, &second).await.unwrap();
        fetch(&mut client, &proven).await.unwrap();
        let manifest = load(path).manifest;
        talk(&mut client, &open).await.unwrap().say(batch(&manifest, 1, 1, 7)).await.unwrap();
    });
    server.stop();
    // Whatever is beside its log: an open session has its rows nowhere else.
    for extension in ["pf", "fetched"] {
        fs::write(log_of(path, &open).with_extension(extension), "x").unwrap();
    }
    let rest = upkeep::prune(&folder(path), NOW, false).unwrap();
    assert_eq!(rest.sessions.len(), 2);
    assert!(log_of(path, &open).exists());
    // What a crash left of a removal is removed, too.
    for extension in ["pf", "fetched"] {
        fs::write(log_of(path, &first).with_extension(extension), "x").unwrap();
    }
    assert_eq!(upkeep::prune(&folder(path), NOW, false).unwrap().sessions.len(), 1);
    assert!(!log_of(path, &first).with_extension("pf").exists());
    assert_eq!(counted(path), [3 + 1 + 1 + 4 + 2; 4]);
    let server = Server::start(path);
    assert_used(&server, path, &first);
    assert_used(&server, path, &proven);
}

#[test]
fn the_log_of_an_open_session_is_not_removed() {
    let contributor = artifacts();
    let path = contributor.path();
    let data = path.join("private/sessions");
    fs::create_dir_all(&data).unwrap();
    let (id, log) =
        ([7u8; 32], data.canonicalize().unwrap().join(format!("{}.rows", "07".repeat(32))));
    for extension in ["rows", "pf", "fetched"] {
        fs::write(log.with_extension(extension), "x").unwrap();
    }
    // As older programs wrote them: the id was opened again after its log had been removed.
    let rows: Rows = [("m".to_string(), 5)].into();
    let ended = Entry {
        log: None,
        v: 2,
        ..Entry::ended(&id, "anonymous", &log, TraceDigest([1; 32]), rows)
    };
    let opened = Entry { v: 2, ..Entry::opened(&id, "anonymous", &log) };
    let write = |entries: &[&Entry]| {
        let lines: String =
            entries.iter().map(|entry| serde_json::to_string(entry).unwrap() + "\n").collect();
        fs::write(path.join("private/served.jsonl"), lines).unwrap();
    };
    write(&[&opened, &ended, &opened]);
    assert!(folder(path).sessions().unwrap().iter().any(|session| session.state == State::Fetched));
    assert!(upkeep::prune(&folder(path), NOW, false).unwrap().sessions.is_empty());
    assert!(log.exists());
    // The same without the second opening.
    write(&[&opened, &ended]);
    assert_eq!(upkeep::prune(&folder(path), NOW, false).unwrap().sessions.len(), 1);
    assert!(!log.exists());
}

#[test]
fn a_ledger_that_names_another_file_as_a_log_removes_nothing() {
    let contributor = artifacts();
    let path = contributor.path();
    let elsewhere = tempfile::tempdir().unwrap();
    let precious = elsewhere.path().join("precious.rows");
    for extension in ["rows", "pf", "fetched"] {
        fs::write(precious.with_extension(extension), "x").unwrap();
    }
    let entry = Entry::ended(&[7; 32], "anonymous", &precious, TraceDigest([1; 32]), Rows::new());
    let opened = Entry::opened(&[8; 32], "anonymous", &precious);
    let lines = [entry, opened].map(|entry| serde_json::to_string(&entry).unwrap() + "\n").concat();
    fs::write(path.join("private/served.jsonl"), lines).unwrap();
    let all = folder(path).sessions().unwrap();
    assert!(all.len() == 2 && all.iter().all(|session| session.state == State::Damaged));
    assert!(upkeep::prune(&folder(path), NOW, false).unwrap().sessions.is_empty());
    let error = upkeep::abandon(&folder(path), "08").unwrap_err().to_string();
    assert!(error.contains("it has no log"), "{error}");
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 3);
}

#[test]
fn an_abandoned_session_has_its_rows_counted() {
    let contributor = artifacts();
    let path = contributor.path();
    let server = Server::start(path);
    let (open, proven) =
        (session(&server, path, 8, false, false), session(&server, path, 1, true, false));
    let error = upkeep::abandon(&folder(path), &hex_of(&open)).unwrap_err().to_string();
    assert!(error.contains("another process serves from this folder"), "{error}");
    server.stop();
    let error = upkeep::abandon(&folder(path), &hex_of(&proven)).unwrap_err().to_string();
    assert!(error.contains("only a session that is open or set aside"), "{error}");
    let log = log_of(path, &open);
    let copy = fs::read(&log).unwrap();
    let abandoned = upkeep::abandon(&folder(path), &hex_of(&open)[..12]).unwrap();
    assert_eq!((abandoned.state, abandoned.rows_in_all()), (State::Abandoned, 32));
    assert!(!log.exists());
    let entries = ledger::read(&path.join("private/served.jsonl")).unwrap();
    assert!(
        entries.last().unwrap().abandoned
            && entries.last().unwrap().rows.values().all(|rows| *rows == 8)
    );
    assert_eq!(counted(path), [9; 4]);
    // It died before the log was removed: the same command removes it, and counts nothing twice.
    fs::write(&log, copy).unwrap();
    let server = Server::start(path);
    assert_used(&server, path, &open);
    server.stop();
    upkeep::abandon(&folder(path), &hex_of(&open)).unwrap();
    assert!(!log.exists() && counted(path) == [9; 4]);
    let error = upkeep::abandon(&folder(path), &hex_of(&open)).unwrap_err().to_string();
    assert!(error.contains("is abandoned"), "{error}");
    let server = Server::start(path);
    assert_used(&server, path, &open);
}

#[test]
fn a_session_that_was_set_aside_is_retried_or_abandoned() {
    let contributor = artifacts();
    let path = contributor.path();
    let server = Server::start(path);
    let (one, two) =
        (session(&server, path, 2, true, false), session(&server, path, 3, true, false));
    server.stop();
    for session in [&one, &two] {
        fs::remove_file(log_of(path, session).with_extension("pf")).unwrap();
        assert_eq!(stored(path, session).state, State::ToProve);
        let error = upkeep::retry(&folder(path), &hex_of(session)).unwrap_err().to_string();
        assert!(error.contains("only a session that was set aside"), "{error}");
        fs::write(log_of(path, session).with_extension("proving"), "3\n").unwrap();
        assert_eq!(
            (stored(path, session).state, stored(path, session).attempts),
            (State::SetAside, 3)
        );
    }
    upkeep::retry(&folder(path), &hex_of(&one)).unwrap();
    upkeep::abandon(&folder(path), &hex_of(&two)).unwrap();
    assert!(!log_of(path, &two).exists() && !log_of(path, &two).with_extension("proving").exists());
    assert_eq!((stored(path, &two).state, stored(path, &two).rows_in_all()), (State::Removed, 12));
    let server = Server::start(path);
    wait(async {
        let mut client = raw::client(&server.url()).await;
        raw::finish(&mut client, &one, 1).await.unwrap();
        fetch(&mut client, &one).await.unwrap();
    });
    assert_used(&server, path, &two);
    server.stop();
    assert_eq!(counted(path), [5; 4]);
}

#[test]
fn twenty_one_thousand_sessions_are_listed_in_a_second() {
    const SESSIONS: u32 = 21_000;
    let contributor = artifacts();
    let path = contributor.path();
    let data = path.join("private/sessions");
    fs::create_dir_all(&data).unwrap();
    let data = data.canonicalize().unwrap();
    let rows: Rows =
        load(path).manifest.modules().iter().map(|module| (module.name.clone(), 7)).collect();
    let mut lines = String::new();
    for number in 0..SESSIONS {
        let id = *blake3::hash(&number.to_le_bytes()).as_bytes();
        let log = data.join(format!("{}.rows", hex::encode(id)));
        for entry in [
            Entry::opened(&id, "anonymous", &log),
            Entry::ended(&id, "anonymous", &log, TraceDigest(id), rows.clone()),
        ] {
            lines += &serde_json::to_string(&entry).unwrap();
            lines.push('\n');
        }
        for extension in ["rows", "pf", "fetched"] {
            fs::write(log.with_extension(extension), "x").unwrap();
        }
    }
    fs::write(path.join("private/served.jsonl"), lines).unwrap();
    // Of this thread: other tests run beside.
    let start = cpu_time::ThreadTime::now();
    let all = folder(path).sessions().unwrap();
    let took = start.elapsed();
    assert!(
        all.len() == SESSIONS as usize && all.iter().all(|session| session.state == State::Fetched)
    );
    assert!(took < Duration::from_secs(1), "{took:?}");
}

/// What a server says at `/metrics`, or to another request.
fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    // One that is cut off has no more to say.
    let _ = stream.read_to_string(&mut answer);
    answer
}

fn scrape(address: SocketAddr) -> String {
    let answer = ask(address, "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    let (head, page) = answer.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("HTTP/1.1 200") && head.contains("text/plain; version=0.0.4"),
        "{head}"
    );
    page.to_string()
}

fn value(page: &str, series: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in\n{page}")).parse().unwrap()
}

fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn metrics_follow_a_session() {
    let contributor = artifacts();
    let path = contributor.path();
    let tokens = path.join("tokens");
    fs::write(&tokens, "alice 00000000000000000000a\n").unwrap();
    fs::set_permissions(&tokens, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let metrics = free();
    let options =
        ServerOptions { metrics: Some(metrics), limits: limited(10), ..Server::options(path) };
    let server = Server::with(path, &options);
    let manifest = load(path).manifest;
    let module = &manifest.modules()[0].name;
    let series = |name: &str, label: &str, of: &str| format!("zklora_{name}{{{label}=\"{of}\"}}");
    let page = scrape(metrics);
    assert_eq!(value(&page, &series("rows_served", "module", module)), 0.0);
    assert_eq!(value(&page, &series("refusals_total", "cause", "budget")), 0.0);
    let (mut talk, session) = wait(async {
        let mut client = raw::client(&server.url()).await;
        let (session, mut talk) = begun(&mut client, &manifest, 3).await;
        talk.say(batch(&manifest, 1, 2, 4)).await.unwrap();
        (talk, session)
    });
    let page = scrape(metrics);
    for module in manifest.modules() {
        assert_eq!(value(&page, &series("rows_served", "module", &module.name)), 5.0);
        assert_eq!(value(&page, &series("rows_left", "module", &module.name)), 5.0);
    }
    assert_eq!(value(&page, &series("client_rows", "client", "anonymous")), 20.0);
    assert_eq!(value(&page, &series("sessions", "state", "open")), 1.0);
    assert_eq!(value(&page, "zklora_batches_total"), 2.0);
    assert!(value(&page, "zklora_connections") >= 1.0);
    assert!(
        value(&page, "zklora_received_bytes_total") > 1000.0
            && value(&page, "zklora_sent_bytes_total") > 1000.0
    );
    assert!(value(&page, "process_resident_memory_bytes") > 1e6);
    // Refused for its budget, for its bytes, for its order, for its id, and for whose it is.
    wait(async {
        let mut client = raw::client(&server.url()).await;
        talk.say(batch(&manifest, 2, 6, 4)).await.unwrap_err();
        let mut again = raw::talk(&mut client, &session).await.unwrap();
        let mut bad = batch(&manifest, 2, 1, 4);
        bad.rows[0].count = 7;
        again.say(bad).await.unwrap_err();
        let mut again = raw::talk(&mut client, &session).await.unwrap();
        again.say(batch(&manifest, 5, 1, 4)).await.unwrap_err();
        raw::talk(&mut client, &fresh()).await.err().unwrap();
        client
            .finish(FinishRequest { session: Some(session.clone()), sequence: 9 })
            .await
            .unwrap_err();
        raw::finish(&mut client, &session, 2).await.unwrap();
        fetch(&mut client, &session).await.unwrap();
    });
    upkeep::prune(&folder(path), NOW, false).unwrap();
    assert_used(&server, path, &session);
    let page = scrape(metrics);
    for (cause, least) in [
        ("budget", 1.0),
        ("malformed", 1.0),
        ("state", 2.0),
        ("not_yours", 3.0),
        ("reused_id", 1.0),
    ] {
        assert!(
            value(&page, &series("refusals_total", "cause", cause)) >= least,
            "{cause}\n{page}"
        );
    }
    assert_eq!(value(&page, &series("refusals_total", "cause", "identity")), 0.0);
    assert_eq!(value(&page, &series("sessions", "state", "open")), 0.0);
    assert_eq!(value(&page, &series("sessions", "state", "proven")), 1.0);
    assert_eq!(value(&page, "zklora_proof_seconds_count"), 1.0);
    assert_eq!(value(&page, "zklora_proof_queue_length"), 0.0);
    server.stop();
    // Requests without a token are counted, and so are the rows served before.
    let metrics = free();
    let tokens = Some(Tokens::read(&tokens).unwrap());
    let server = Server::with(
        path,
        &ServerOptions { tokens, metrics: Some(metrics), ..Server::options(path) },
    );
    wait(async {
        let mut client = raw::client(&server.url()).await;
        raw::open(&mut client, &fresh(), &manifest.id().0).await.unwrap_err();
    });
    let page = scrape(metrics);
    assert_eq!(value(&page, &series("refusals_total", "cause", "identity")), 1.0);
    assert_eq!(value(&page, &series("rows_served", "module", module)), 5.0);
    assert!(!page.contains("zklora_rows_left"));
}

#[test]
fn the_metrics_page_is_bounded_and_says_nothing_else() {
    let contributor = artifacts();
    let metrics = free();
    let options = ServerOptions { metrics: Some(metrics), ..Server::options(contributor.path()) };
    let server = Server::with(contributor.path(), &options);
    assert!(ask(metrics, "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").starts_with("HTTP/1.1 404"));
    assert!(
        ask(metrics, "POST /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 3\r\n\r\nabc")
            .starts_with("HTTP/1.1 405")
    );
    // The host name of an attacker's page that resolves to this machine.
    let named =
        |host: &str| ask(metrics, &format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    for host in [
        "evil.example",
        "evil.example:9464",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "",
    ] {
        assert!(named(host).starts_with("HTTP/1.1 403"), "{host}");
    }
    for accepted in ["localhost", "LOCALHOST:9464", "127.0.0.1:9464", "[::1]:9464", "[::1]"] {
        assert!(named(accepted).starts_with("HTTP/1.1 200"), "{accepted}");
    }
    let long =
        format!("GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nX: {}\r\n\r\n", "y".repeat(20_000));
    assert!(!ask(metrics, &long).contains("zklora_"));
    assert!(!ask(metrics, "\u{0}\u{1}\r\n\r\n").contains("zklora_"));
    // Silent connections are closed, and those behind them are answered.
    let silent: Vec<TcpStream> = (0..9).map(|_| TcpStream::connect(metrics).unwrap()).collect();
    scrape(metrics);
    drop(silent);
    server.stop();
    // Other addresses than loopback need --insecure.
    let options = ServerOptions {
        metrics: Some("0.0.0.0:0".parse().unwrap()),
        ..Server::options(contributor.path())
    };
    let error = zklora_session::server::start(
        load(contributor.path()),
        crate::party::srs().clone(),
        zklora_proof::keys::KeyStore::default(),
        &options,
    );
    let error = error.err().unwrap().to_string();
    assert!(error.contains("--metrics 0.0.0.0:0 is not a loopback address"), "{error}");
}
