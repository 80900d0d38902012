//! Every row that leaves is counted, whatever happens to ids, logs, data folders and restarts.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tonic::{Code, Status};
use zklora_artifacts::{activations::Activations, synthetic};
use zklora_proof::{checked_manifest::CheckedManifest, keys::KeyStore};
use zklora_session::{
    Error,
    ledger::{self, Entry, Ledger},
    record,
    row_totals::RowTotals,
    server::{self, ServerOptions},
    wire::SessionRef,
};

use crate::{
    party::{Server, artifacts, limited, load, srs},
    raw::{self, batch, begun, fetch, fresh, talk, wait},
};

/// Rows of every module that a stopped server's folder says were served.
fn counted(folder: &Path) -> Vec<u64> {
    let artifacts = load(folder);
    let ledger = Ledger::lock(&artifacts.ledger()).unwrap();
    RowTotals::count(ledger.index(), &artifacts.manifest).unwrap().total
}

fn log_in(data: &Path, session: &SessionRef) -> PathBuf {
    data.join(format!("{}.rows", hex::encode(&session.id)))
}

fn data_of(folder: &Path) -> PathBuf {
    folder.join("private/sessions")
}

/// Proven, fetched, and its files removed, as an operator may.
fn finish_and_remove(server: &Server, session: &SessionRef, batches: u64, data: &Path) {
    wait(async {
        let mut client = raw::client(&server.url()).await;
        raw::finish(&mut client, session, batches).await.unwrap();
        fetch(&mut client, session).await.unwrap();
    });
    fs::remove_file(log_in(data, session)).unwrap();
    fs::remove_file(log_in(data, session).with_extension("pf")).unwrap();
}

async fn reopened(
    server: &Server,
    session: &SessionRef,
    manifest: &CheckedManifest,
) -> Result<(), Status> {
    let mut client = raw::client(&server.url()).await;
    raw::open(&mut client, session, &manifest.id().0).await.map(drop)
}

fn assert_used(result: Result<(), Status>) {
    let status = result.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("a session of this id was served before"), "{status:?}");
}

fn recorded(folder: &Path, rows: usize, session: Option<[u8; 32]>) -> Result<(), Error> {
    let artifacts = load(folder);
    let activations: Activations = synthetic::activations(artifacts.manifest.modules(), rows);
    record::record(&artifacts, &activations, session, None).map(drop)
}

fn id(session: &SessionRef) -> [u8; 32] {
    session.id[..].try_into().unwrap()
}

#[test]
fn an_id_whose_log_was_removed_begins_no_second_session() {
    let contributor = artifacts();
    let options = ServerOptions { limits: limited(10), ..Server::options(contributor.path()) };
    let server = Server::with(contributor.path(), &options);
    let manifest = load(contributor.path()).manifest;
    let session = wait(async {
        let mut client = raw::client(&server.url()).await;
        begun(&mut client, &manifest, 1).await.0
    });
    finish_and_remove(&server, &session, 1, &data_of(contributor.path()));
    server.stop();
    let server = Server::with(contributor.path(), &options);
    wait(async {
        assert_used(reopened(&server, &session, &manifest).await);
        // Nor with another key.
        let other = SessionRef { key: fresh().key, ..session.clone() };
        assert_used(reopened(&server, &other, &manifest).await);
        let mut client = raw::client(&server.url()).await;
        let status = talk(&mut client, &session).await.err().unwrap();
        assert_eq!(status.code(), Code::PermissionDenied);
    });
    server.stop();
    assert_eq!(counted(contributor.path()), [1; 4]);
}

#[test]
fn a_recording_does_not_hide_the_rows_of_an_open_session() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let manifest = load(contributor.path()).manifest;
    let session = wait(async {
        let mut client = raw::client(&server.url()).await;
        begun(&mut client, &manifest, 8).await.0
    });
    server.stop();
    assert_eq!(counted(contributor.path()), [8; 4]);
    let error = recorded(contributor.path(), 1, Some(id(&session))).unwrap_err();
    assert!(
        matches!(&error, Error::Reused(why) if why.contains("has served a session of this id before")),
        "{error}"
    );
    assert_eq!(counted(contributor.path()), [8; 4]);
    // Nor a recording a recording.
    recorded(contributor.path(), 2, Some([7; 32])).unwrap();
    assert!(matches!(recorded(contributor.path(), 1, Some([7; 32])), Err(Error::Reused(_))));
    assert_eq!(counted(contributor.path()), [10; 4]);
    // Nor can one be resumed over the network.
    let server = Server::start(contributor.path());
    let taken = SessionRef { id: vec![7; 32].into(), ..fresh() };
    wait(async { assert_used(reopened(&server, &taken, &manifest).await) });
}

#[test]
fn another_data_folder_does_not_double_the_budget() {
    let contributor = artifacts();
    let elsewhere = tempfile::tempdir().unwrap();
    let other = ServerOptions {
        data: elsewhere.path().to_path_buf(),
        ..Server::options(contributor.path())
    };
    let manifest = load(contributor.path()).manifest;
    let server = Server::start(contributor.path());
    let session = wait(async {
        let mut client = raw::client(&server.url()).await;
        begun(&mut client, &manifest, 3).await.0
    });
    server.stop();
    let server = Server::with(contributor.path(), &other);
    wait(async { assert_used(reopened(&server, &session, &manifest).await) });
    server.stop();
    assert_eq!(counted(contributor.path()), [3; 4]);
    // A copy of the log is counted too, because which of them was used is unknown. Neither can be
    // resumed.
    fs::copy(log_in(&data_of(contributor.path()), &session), log_in(elsewhere.path(), &session))
        .unwrap();
    for options in [&other, &Server::options(contributor.path())] {
        let server = Server::with(contributor.path(), options);
        wait(async { assert_used(reopened(&server, &session, &manifest).await) });
        server.stop();
        assert_eq!(counted(contributor.path()), [6; 4]);
    }
}

#[test]
fn lines_of_older_ledgers_hide_nothing() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let manifest = load(contributor.path()).manifest;
    let (open, ended) = wait(async {
        let mut client = raw::client(&server.url()).await;
        (begun(&mut client, &manifest, 5).await.0, begun(&mut client, &manifest, 2).await.0)
    });
    finish_and_remove(&server, &ended, 1, &data_of(contributor.path()));
    server.stop();
    // As version 2 wrote them: no log in the line of an ended session; and a recording under the id
    // of an open one.
    let path = contributor.path().join("private/served.jsonl");
    let old = |mut entry: Entry| {
        entry.v = 2;
        entry.log = if entry.has_ended() { None } else { entry.log };
        serde_json::to_string(&entry).unwrap() + "\n"
    };
    let mut lines: String = ledger::read(&path).unwrap().into_iter().map(old).collect();
    let rows = manifest.modules().iter().map(|module| (module.name.clone(), 1)).collect();
    lines += &old(Entry::recorded(&id(&open), zklora_proof::trace::TraceDigest([1; 32]), rows));
    fs::write(&path, &lines).unwrap();
    assert_eq!(counted(contributor.path()), [5 + 2 + 1; 4]);
    let server = Server::start(contributor.path());
    wait(async {
        assert_used(reopened(&server, &open, &manifest).await);
        assert_used(reopened(&server, &ended, &manifest).await);
    });
    server.stop();
    assert_eq!(counted(contributor.path()), [5 + 2 + 1; 4]);
}

#[test]
fn sessions_in_a_moved_folder_are_resumed_and_count_once() {
    let contributor = artifacts();
    let home = tempfile::tempdir().unwrap();
    let manifest = load(contributor.path()).manifest;
    let at = |name: &str| ServerOptions {
        data: home.path().join(name),
        ..Server::options(contributor.path())
    };
    let server = Server::with(contributor.path(), &at("a"));
    let (open, ended) = wait(async {
        let mut client = raw::client(&server.url()).await;
        let (open, ended) =
            (begun(&mut client, &manifest, 5).await.0, begun(&mut client, &manifest, 2).await.0);
        raw::finish(&mut client, &ended, 1).await.unwrap();
        (open, ended)
    });
    server.stop();
    let move_to =
        |from: &str, to: &str| fs::rename(home.path().join(from), home.path().join(to)).unwrap();
    let goes_on = |name: &str| {
        let server = Server::with(contributor.path(), &at(name));
        wait(async {
            reopened(&server, &open, &manifest).await.unwrap();
            fetch(&mut raw::client(&server.url()).await, &ended).await.unwrap();
        });
        server.stop();
        assert_eq!(counted(contributor.path()), [7; 4], "{name}");
    };
    move_to("a", "b");
    // A start that fails writes nothing: the folder can be found again.
    let ledger = fs::read(contributor.path().join("private/served.jsonl")).unwrap();
    assert!(
        server::start(load(contributor.path()), srs().clone(), KeyStore::default(), &at("c"))
            .is_err()
    );
    assert_eq!(fs::read(contributor.path().join("private/served.jsonl")).unwrap(), ledger);
    goes_on("b");
    move_to("b", "a");
    goes_on("a");
    // A link in its place, and back.
    move_to("a", "b");
    std::os::unix::fs::symlink(home.path().join("b"), home.path().join("a")).unwrap();
    goes_on("a");
    fs::remove_file(home.path().join("a")).unwrap();
    move_to("b", "a");
    goes_on("a");
    // A copy of the ended one is no second session; one of the open one is counted, and neither
    // goes on.
    let copy = |session: &SessionRef| {
        fs::create_dir_all(home.path().join("d")).unwrap();
        fs::copy(log_in(&home.path().join("a"), session), log_in(&home.path().join("d"), session))
            .unwrap();
    };
    copy(&ended);
    Server::with(contributor.path(), &at("d")).stop();
    assert_eq!(counted(contributor.path()), [7; 4]);
    copy(&open);
    Server::with(contributor.path(), &at("d")).stop();
    assert_eq!(counted(contributor.path()), [12; 4]);
}

#[test]
fn a_log_that_was_begun_twice_under_an_older_version_counts_with_all_of_its_rows() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let manifest = load(contributor.path()).manifest;
    let session = wait(async {
        let mut client = raw::client(&server.url()).await;
        let session = begun(&mut client, &manifest, 6).await.0;
        raw::finish(&mut client, &session, 1).await.unwrap();
        session
    });
    server.stop();
    // Version 2 had counted a first session of one row, whose log was removed; the one that is
    // there came after it.
    let path = contributor.path().join("private/served.jsonl");
    let old = |mut entry: Entry| {
        entry.v = 2;
        if entry.has_ended() {
            entry.log = None;
            entry.rows.values_mut().for_each(|rows| *rows = 1);
        }
        serde_json::to_string(&entry).unwrap() + "\n"
    };
    fs::write(&path, ledger::read(&path).unwrap().into_iter().map(old).collect::<String>())
        .unwrap();
    assert_eq!(counted(contributor.path()), [1; 4]);
    for _ in 0..2 {
        let server = Server::start(contributor.path());
        wait(async {
            let opened =
                raw::open(&mut raw::client(&server.url()).await, &session, &manifest.id().0)
                    .await
                    .unwrap();
            assert_ne!(opened.state(), zklora_session::wire::SessionState::Open);
        });
        server.stop();
        assert_eq!(counted(contributor.path()), [7; 4]);
    }
}

/// A session of the model: what a user of it knows.
struct Known {
    session: SessionRef,
    batches: u64,
    finished: bool,
}

/// Numbers that look random and are the same at every run.
struct Dice(blake3::OutputReader);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        let mut bytes = [0u8; 8];
        self.0.fill(&mut bytes);
        (u64::from_le_bytes(bytes) % sides as u64) as usize
    }
}

#[test]
fn random_histories_of_a_folder_are_counted_exactly() {
    let mut refused = 0;
    for seed in 0..6u64 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes());
        refused += random_history(&mut Dice(hasher.finalize_xof()), seed);
    }
    assert!(refused > 20, "{refused} attempts with a used id: this tests little");
}

/// How many attempts with a used id were refused.
fn random_history(dice: &mut Dice, seed: u64) -> usize {
    let (contributor, home, elsewhere) =
        (artifacts(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let manifest = load(contributor.path()).manifest;
    let mut folder = contributor.path().to_path_buf();
    // One outside of the folder, which is named by its full path.
    let mut outside = elsewhere.path().join("data");
    let mut other = false;
    macro_rules! data {
        () => {
            if other { outside.clone() } else { data_of(&folder) }
        };
    }
    macro_rules! start {
        () => {
            Server::with(&folder, &ServerOptions { data: data!(), ..Server::options(&folder) })
        };
    }
    let mut server = start!();
    let (mut known, mut left, mut refused): (Vec<Known>, u64, usize) = (Vec::new(), 0, 0);
    for step in 0..60 {
        let what = format!("seed {seed}, step {step}");
        match dice.roll(11) {
            // A session, new or with an id that was used, at any path; then a batch.
            0..=4 => {
                let again = dice.roll(3) > 0 && !known.is_empty();
                let at = if again {
                    dice.roll(known.len())
                } else {
                    known.push(Known { session: fresh(), batches: 0, finished: false });
                    known.len() - 1
                };
                let Known { session, batches, finished } = &mut known[at];
                let rows = 1 + dice.roll(3);
                let said = wait(async {
                    let mut client = raw::client(&server.url()).await;
                    let opened = raw::open(&mut client, session, &manifest.id().0).await?;
                    let mut talk = talk(&mut client, session).await?;
                    talk.say(batch(&manifest, opened.next_sequence, rows, step))
                        .await
                        .map(|_| opened.next_sequence)
                });
                match said {
                    Ok(sequence) => {
                        assert!(!*finished && sequence == *batches, "{what}");
                        *batches += 1;
                        left += rows as u64;
                    }
                    Err(status) => {
                        refused += 1;
                        assert_eq!(status.code(), Code::FailedPrecondition, "{what}: {status:?}");
                    }
                }
            }
            5 => {
                if let Some(open) =
                    known.iter_mut().find(|known| !known.finished && known.batches > 0)
                    && log_in(&data!(), &open.session).exists()
                {
                    wait(async {
                        let mut client = raw::client(&server.url()).await;
                        let stages = raw::finish(&mut client, &open.session, open.batches).await;
                        assert!(stages.is_ok(), "{what}: {stages:?}");
                    });
                    open.finished = true;
                }
            }
            6 => {
                server.stop();
                let used = dice.roll(2) == 0;
                let session = known
                    .first()
                    .filter(|known| used && known.batches > 0)
                    .map(|known| id(&known.session));
                let rows = 1 + dice.roll(3);
                match recorded(&folder, rows, session) {
                    Ok(()) => left += rows as u64,
                    Err(Error::Reused(_)) => {
                        assert!(session.is_some(), "{what}");
                        refused += 1;
                    }
                    Err(error) => panic!("{what}: {error}"),
                }
                server = start!();
            }
            7 => {
                // What the documentation lets an operator remove.
                for ended in known.iter().filter(|known| known.finished) {
                    let log = log_in(&data!(), &ended.session);
                    let _ = fs::remove_file(log.with_extension("pf"))
                        .and_then(|()| fs::remove_file(log));
                }
            }
            8 => {
                server.stop();
                other = !other;
                server = start!();
            }
            9 => {
                // The folder of the sessions moves alone, and some time a link is left in its
                // place.
                server.stop();
                let to = elsewhere.path().join(format!("data-{step}"));
                if outside.exists() {
                    fs::rename(&outside, &to).unwrap();
                    if dice.roll(2) == 0 {
                        std::os::unix::fs::symlink(&to, &outside).unwrap();
                    }
                    outside = to;
                }
                other = true;
                server = start!();
            }
            _ => {
                server.stop();
                let moved = home.path().join(format!("moved-{step}"));
                fs::rename(&folder, &moved).unwrap();
                folder = moved;
                server = start!();
            }
        }
        if step % 10 == 9 {
            server.stop();
            assert_eq!(counted(&folder), vec![left; 4], "{what}");
            server = start!();
        }
    }
    server.stop();
    drop(
        server::start(load(&folder), srs().clone(), KeyStore::default(), &Server::options(&folder))
            .unwrap(),
    );
    fs::create_dir_all(contributor.path()).unwrap();
    refused
}
