//! A session that is larger than the memory of its user: each party in a process of its own, and
//! the user's is measured.

use std::{
    fs,
    path::Path,
    process::{Child, Command},
    sync::Arc,
    time::Duration,
};

use zklora_artifacts::module_rows::ModuleRows;
use zklora_session::client::{Remote, UserSession};

use crate::party::{Server, artifacts, finish, network, open, options, srs};

/// What a process of this test is: `server FOLDER` or `user FOLDER URL ROWS`.
const ROLE: &str = "ZKLORA_TEST_LARGE";
/// Rows of a batch.
const BATCH: usize = 4096;

/// A process that plays a role; it ends when this is dropped.
struct Role(Child);

impl Role {
    fn start(test: &str, role: &str) -> Role {
        let exe = std::env::current_exe().unwrap();
        let test = ["--exact", test, "--include-ignored", "--nocapture"];
        Role(
            Command::new(exe)
                .args(test)
                .env(ROLE, role)
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap(),
        )
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for a file that another process renames into place.
fn awaited(path: &Path) -> String {
    for _ in 0..6000 {
        match fs::read_to_string(path) {
            Ok(text) => return text,
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
    panic!("{} never came", path.display());
}

fn tell(path: &Path, text: &str) {
    let half = path.with_extension("half");
    fs::write(&half, text).unwrap();
    fs::rename(&half, path).unwrap();
}

/// The most memory that this process ever had, in bytes.
fn peak() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

/// Different rows of the 64×4×64 module, `from..to`.
fn rows(from: usize, to: usize) -> Arc<ModuleRows> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&from.to_le_bytes());
    let mut bytes = vec![0u8; (to - from) * 64];
    hasher.finalize_xof().fill(&mut bytes);
    let x = bytes.iter().map(|byte| i32::from(*byte) - 128).collect();
    let scales = (from..to).map(|row| 1.0 + row as f32 / 1e7).collect();
    Arc::new(ModuleRows { inputs: vec![x], ones: Vec::new(), scales, delta: Vec::new() })
}

fn user(folder: &Path, url: &str, total: usize) {
    let mut patient = options(url, None);
    patient.proof_timeout = Duration::from_secs(600);
    // What every user needs is not what grows.
    srs();
    let open = || {
        let remote = Remote::connect(patient.clone(), &network()).unwrap();
        UserSession::open(remote, &folder.join("session")).unwrap()
    };
    let mut session = open();
    assert_eq!(session.remote().manifest.modules()[0].inputs[0].dim, 64);
    for from in (0..total).step_by(BATCH) {
        let to = total.min(from + BATCH);
        assert_eq!(session.deltas(&[(0, rows(from, to))]).unwrap()[0].len(), (to - from) * 64);
    }
    // Rows of the beginning are read from the log; they are those that were answered.
    let first = session.deltas(&[(0, rows(0, 100.min(BATCH)))]).unwrap();
    assert_eq!(session.rows(), total);
    drop(session);
    // Going on with it needs no more than beginning it.
    let mut session = open();
    assert_eq!((session.resumed, session.rows()), (total, total));
    assert_eq!(session.deltas(&[(0, rows(0, 100.min(BATCH)))]).unwrap(), first);
    let verdict = finish(&mut session).unwrap().verdict;
    assert_eq!(verdict.rows[0].1, total);
    tell(&folder.join(format!("peak-{total}")), &peak().to_string());
}

/// The role of this process, if it has one. It does not come back from a server.
fn play() -> bool {
    let Ok(role) = std::env::var(ROLE) else { return false };
    match role.split_whitespace().collect::<Vec<_>>()[..] {
        ["server", folder] => {
            let server = Server::start(Path::new(folder));
            tell(&Path::new(folder).join("url"), &server.url());
            loop {
                std::thread::sleep(Duration::from_secs(3600));
            }
        }
        ["user", folder, url, rows] => user(Path::new(folder), url, rows.parse().unwrap()),
        _ => panic!("{role}"),
    }
    true
}

/// The peak of a user's process with this many rows.
fn peak_of(test: &str, rows: usize) -> usize {
    let contributor = artifacts();
    let user = tempfile::tempdir().unwrap();
    let _server = Role::start(test, &format!("server {}", contributor.path().display()));
    let url = awaited(&contributor.path().join("url"));
    let mut running = Role::start(test, &format!("user {} {url} {rows}", user.path().display()));
    assert!(running.0.wait().unwrap().success());
    let peak = awaited(&user.path().join(format!("peak-{rows}"))).parse().unwrap();
    println!("{rows} rows: peak {} MiB", peak >> 20);
    peak
}

#[test]
fn a_users_memory_does_not_grow_with_the_rows() {
    if play() {
        return;
    }
    let test = "large::a_users_memory_does_not_grow_with_the_rows";
    let (few, many) = (peak_of(test, 10_000), peak_of(test, 150_000));
    // The rows have 772 bytes each, 108 MB more; kept in memory, they and their trace would be 370
    // MB. What grows is the index, up to 60 MB, and the deltas that came last, up to 64 MiB.
    assert!(many < few + (112 << 20), "{} MiB, and {} MiB with few rows", many >> 20, few >> 20);
}

#[test]
#[ignore = "takes minutes, and gigabytes of disk"]
fn a_million_rows_need_less_than_300_mb() {
    if play() {
        return;
    }
    let peak = peak_of("large::a_million_rows_need_less_than_300_mb", 1_000_000);
    assert!(peak < 300_000_000, "{} MiB", peak >> 20);
}

#[test]
#[ignore = "takes minutes, and gigabytes of disk"]
fn a_row_that_was_forgotten_is_sent_and_counted_again() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let user = tempfile::tempdir().unwrap();
    let mut session = open(&server.url(), None, user.path()).unwrap();
    let ask = |session: &mut UserSession, from: usize, to: usize| {
        session.deltas(&[(0, rows(from, to))]).unwrap()
    };
    let first = ask(&mut session, 0, BATCH);
    // Twice as many as are surely remembered.
    let total = (2 * (7 << 17) + BATCH).next_multiple_of(BATCH);
    (BATCH..total).step_by(BATCH).for_each(|from| drop(ask(&mut session, from, from + BATCH)));
    let sent = session.statistics.rows;
    assert_eq!(sent, total);
    let latest = ask(&mut session, total - BATCH, total);
    assert_eq!(session.statistics.rows, sent, "the latest rows were forgotten");
    assert_eq!(ask(&mut session, 0, BATCH), first);
    assert_eq!((session.statistics.rows, session.rows()), (sent + BATCH, total + BATCH));
    // Forgotten and known rows in one call.
    let mut mixed = ModuleRows { inputs: vec![Vec::new()], ..ModuleRows::default() };
    mixed.extend(&rows(total - BATCH, total), &[]);
    mixed.extend(&rows(BATCH, 2 * BATCH), &[]);
    let mixed = session.deltas(&[(0, Arc::new(mixed))]).unwrap();
    assert_eq!(mixed[0][..BATCH * 64], latest[0][..]);
}

#[test]
fn rows_that_were_answered_long_ago_have_the_same_deltas() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let user = tempfile::tempdir().unwrap();
    let mut session = open(&server.url(), None, user.path()).unwrap();
    // More than is kept in memory: 64 MiB are 131,072 rows of 64 deltas.
    let total = 140_000;
    let mut sample = Vec::new();
    for from in (0..total).step_by(BATCH) {
        let rows = rows(from, total.min(from + BATCH));
        let deltas = session.deltas(&[(0, Arc::clone(&rows))]).unwrap();
        if from % (BATCH * 8) == 0 {
            sample.push((rows, deltas));
        }
    }
    let served = session.statistics.rows;
    // Whole answers, and rows of several in another order.
    let mixed = |of: &[(Arc<ModuleRows>, Vec<Vec<i64>>)]| {
        let (mut rows, mut expected) =
            (ModuleRows { inputs: vec![Vec::new()], ..ModuleRows::default() }, Vec::<i64>::new());
        for at in [7usize, 8, 9, 3, 0, 4095, 7] {
            for (batch, deltas) in of.iter().rev().filter(|(batch, _)| batch.scales.len() > at) {
                rows.inputs[0].extend_from_slice(&batch.inputs[0][at * 64..(at + 1) * 64]);
                rows.scales.push(batch.scales[at]);
                expected.extend_from_slice(&deltas[0][at * 64..(at + 1) * 64]);
            }
        }
        (Arc::new(rows), expected)
    };
    let (rows, expected) = mixed(&sample);
    let check = |session: &mut UserSession| {
        for (rows, deltas) in &sample {
            assert!(session.deltas(&[(0, Arc::clone(rows))]).unwrap() == *deltas);
        }
        assert!(session.deltas(&[(0, Arc::clone(&rows))]).unwrap() == [expected.clone()]);
    };
    check(&mut session);
    assert_eq!(session.statistics.rows, served, "something was sent twice");
    drop(session);
    let mut session = open(&server.url(), None, user.path()).unwrap();
    check(&mut session);
    assert_eq!((session.statistics.rows, session.statistics.reused > 0), (0, true));
}
