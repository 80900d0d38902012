//! Many users at once: each gets its own deltas, proofs do not starve inference, and a stop in the
//! middle loses nothing.

use std::time::{Duration, Instant};

use zklora_proof::verifier::{self, SrsPolicy};
use zklora_session::{
    client::UserSession,
    wire::{Batch, InferResponse},
};

use crate::{
    party::{Server, artifacts, calls, connect, expected, finish, load, open, rows_of, srs},
    raw::{self, batch, begun, fresh, talk, wait},
};

/// The answer to [`batch`], computed here.
fn right(
    artifacts: &zklora_artifacts::folder::Artifacts,
    batch: &Batch,
    rows: usize,
    seed: usize,
) -> InferResponse {
    let deltas = expected(artifacts, &rows_of(&artifacts.manifest, rows, seed));
    zklora_session::batch::deltas_to_wire(batch.sequence, deltas)
}

#[test]
fn two_hundred_sessions_at_once_each_get_their_own_deltas() {
    const SESSIONS: usize = 200;
    const BATCHES: usize = 4;
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let artifacts = std::sync::Arc::new(load(contributor.path()));
    let sessions = wait(async {
        let mut clients = Vec::new();
        for _ in 0..10 {
            clients.push(raw::client(&server.url()).await);
        }
        let tasks: Vec<_> = (0..SESSIONS)
            .map(|user| {
                let (mut client, artifacts) =
                    (clients[user % clients.len()].clone(), artifacts.clone());
                tokio::spawn(async move {
                    let session = fresh();
                    raw::open(&mut client, &session, &artifacts.manifest.id().0).await.unwrap();
                    let mut talk = talk(&mut client, &session).await.unwrap();
                    for sequence in 0..BATCHES {
                        let seed = user * BATCHES + sequence;
                        let batch = batch(&artifacts.manifest, sequence as u64, 1, seed);
                        let right = right(&artifacts, &batch, 1, seed);
                        assert_eq!(talk.say(batch).await.unwrap(), right, "user {user}");
                    }
                    session
                })
            })
            .collect();
        let mut sessions = Vec::new();
        for task in tasks {
            sessions.push(task.await.unwrap());
        }
        sessions
    });
    assert_eq!(connect(&server.url(), None).unwrap().rows_served, (SESSIONS * BATCHES) as u64);
    // A sample is proven, all at once, and verified against what its user knows.
    let sample: Vec<usize> = (0..SESSIONS).step_by(29).collect();
    let proofs = wait(async {
        let client = raw::client(&server.url()).await;
        let tasks: Vec<_> = sample
            .iter()
            .map(|user| {
                let (mut client, session) = (client.clone(), sessions[*user].clone());
                tokio::spawn(async move {
                    raw::finish(&mut client, &session, BATCHES as u64).await.unwrap();
                    raw::fetch(&mut client, &session).await.unwrap()
                })
            })
            .collect();
        let mut proofs = Vec::new();
        for task in tasks {
            proofs.push(task.await.unwrap());
        }
        proofs
    });
    let keys = zklora_proof::keys::KeyStore::default();
    for (user, proof) in sample.iter().zip(proofs) {
        let manifest = &artifacts.manifest;
        let mut modules: Vec<_> = manifest
            .modules()
            .iter()
            .map(zklora_artifacts::module_rows::ModuleRows::none)
            .collect();
        for seed in user * BATCHES..(user + 1) * BATCHES {
            let calls = rows_of(manifest, 1, seed);
            for ((module, rows), delta) in calls.iter().zip(expected(&artifacts, &calls)) {
                modules[*module].extend(rows, &delta);
            }
        }
        let session = sessions[*user].id[..].try_into().unwrap();
        let trace = zklora_artifacts::session_rows::SessionRows {
            adapter: manifest.id(),
            session,
            modules,
        };
        trace
            .with_trace::<_, zklora_artifacts::Error>(manifest, |rows| {
                Ok(verifier::verify(srs(), &keys, manifest, rows, &proof, SrsPolicy::TrustedOnly)?)
            })
            .unwrap();
    }
}

/// The time that most batches of one row took.
fn latency(session: &mut UserSession, seeds: std::ops::Range<usize>) -> Duration {
    let mut times: Vec<Duration> = seeds
        .map(|seed| {
            let calls = calls(session, 1, seed);
            let start = Instant::now();
            session.deltas(&calls).unwrap();
            start.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() * 3 / 4]
}

#[test]
fn proofs_do_not_starve_inference() {
    let contributor = artifacts();
    let mut options = Server::options(contributor.path());
    options.limits.proving_threads = 1;
    let server = Server::with(contributor.path(), &options);
    let manifest = load(contributor.path()).manifest;
    let user = tempfile::tempdir().unwrap();
    let mut session = open(&server.url(), None, user.path()).unwrap();
    latency(&mut session, 0..10);
    let alone = latency(&mut session, 10..40);
    let waiting = wait(async {
        let mut client = raw::client(&server.url()).await;
        let mut waiting = Vec::new();
        for _ in 0..8 {
            let (session, _talk) = begun(&mut client, &manifest, 4).await;
            let (mut client, session) = (client.clone(), session.clone());
            waiting.push(tokio::spawn(async move {
                raw::finish(&mut client, &session, 1).await.unwrap()
            }));
        }
        waiting
    });
    let beside = latency(&mut session, 40..70);
    let left = waiting.iter().filter(|task| !task.is_finished()).count();
    // Other tests run on the same cores: what is excluded is inference that waits for proofs.
    assert!(
        beside < alone * 30 + Duration::from_millis(300),
        "{beside:?} beside proofs, {alone:?} alone"
    );
    assert!(left > 0, "the proofs were over before anything was measured");
    wait(async {
        for task in waiting {
            task.await.unwrap();
        }
    });
    finish(&mut session).unwrap();
}

#[test]
fn a_server_that_is_stopped_and_started_under_its_users_loses_nothing() {
    const USERS: usize = 6;
    const BATCHES: usize = 12;
    let contributor = artifacts();
    let mut server = Server::start(contributor.path());
    let mut options = Server::options(contributor.path());
    options.listen = server.address;
    let (url, known) = (server.url(), std::sync::Arc::new(load(contributor.path())));
    let users: Vec<_> = (0..USERS)
        .map(|user| {
            let (url, known) = (url.clone(), known.clone());
            let folder = tempfile::tempdir().unwrap();
            let mut session = open(&url, Some(known.manifest.id()), folder.path()).unwrap();
            std::thread::spawn(move || {
                for seed in user * BATCHES..(user + 1) * BATCHES {
                    let calls = calls(&session, 1, seed);
                    assert_eq!(session.deltas(&calls).unwrap(), expected(&known, &calls));
                    std::thread::sleep(Duration::from_millis(30));
                }
                let rows: usize =
                    finish(&mut session).unwrap().verdict.rows.iter().map(|(_, rows)| rows).sum();
                drop(folder);
                (rows, session.statistics.reconnections)
            })
        })
        .collect();
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(150));
        server.stop();
        server = Server::with(contributor.path(), &options);
    }
    let mut reconnections = 0;
    for user in users {
        let (rows, again) = user.join().unwrap();
        assert_eq!(rows, 4 * BATCHES);
        reconnections += again;
    }
    assert!(reconnections > 0, "no client reconnected");
    assert_eq!(connect(&url, None).unwrap().rows_served, (USERS * BATCHES) as u64);
}
