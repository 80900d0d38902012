//! Contributors that answer what the pinned adapter does not compute, or prove something else: the
//! user's client says no, and says why.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tonic::Status;
use zklora_artifacts::Error as Artifact;
use zklora_proof::{
    error::{Check, Error as Proof},
    keys::KeyStore,
    verifier::SrsPolicy,
};
use zklora_session::{
    Error,
    client::{ContributorOptions, Progress, Remote, UserSession},
    wire::{
        Batch, DescribeResponse, FetchProofResponse, FinishResponse, InferResponse,
        OpenSessionResponse, ProofStage, SessionRef, SessionState,
    },
};

use crate::{
    party::{
        self, Server, artifacts, calls, expected, finish, impostor, load, network, open, options,
    },
    proxy::{Digest, Interceptor, Proxy, Route},
    raw,
};

struct Honest;
impl Interceptor for Honest {}

/// A session with the pinned adapter, with 3 batches, through a liar.
fn session(proxy: &Proxy, folder: &Path, user: &Path) -> Result<UserSession, Error> {
    let mut session = open(&proxy.url(), Some(load(folder).manifest.id()), user)?;
    for seed in 0..3 {
        session.deltas(&calls(&session, 2, 2 * seed))?;
    }
    Ok(session)
}

/// The error of the user's client with a contributor behind this interceptor.
fn verdict(interceptor: impl Interceptor) -> Error {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let user = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(&server.url(), interceptor);
    let result = session(&proxy, contributor.path(), user.path())
        .and_then(|mut session| finish(&mut session));
    assert!(!user.path().join("session.pf").exists(), "there is a proof");
    result.map(|_| ()).expect_err("the user is content")
}

/// The session of that folder, with the contributor where it is now.
fn moved(server: &Server, user: &Path) -> UserSession {
    let options = ContributorOptions { moved: true, ..options(&server.url(), None) };
    UserSession::open(Remote::connect(options, &network()).unwrap(), user).unwrap()
}

fn contributor_says(error: &Error, text: &str) {
    assert!(
        matches!(error, Error::Contributor { .. }) && error.to_string().contains(text),
        "expected {text}: {error}"
    );
}

#[test]
fn a_proxy_that_changes_nothing_is_accepted() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let user = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(&server.url(), Honest);
    finish(&mut session(&proxy, contributor.path(), user.path()).unwrap()).unwrap();
}

/// One delta of batch 1 is one more than what was computed.
struct OneMore;

fn change(answer: &mut InferResponse, by: i64) {
    let mut bytes = answer.deltas[0].to_vec();
    let delta = i64::from_le_bytes(bytes[..8].try_into().unwrap()).wrapping_add(by);
    bytes[..8].copy_from_slice(&delta.to_le_bytes());
    answer.deltas[0] = bytes.into();
}

impl Interceptor for OneMore {
    fn answered(&self, batch: &Batch, answer: &mut InferResponse) {
        if batch.sequence == 1 {
            change(answer, 1);
        }
    }
}

#[test]
fn a_delta_that_is_off_by_one_is_not_accepted() {
    let error = verdict(OneMore);
    assert!(
        matches!(&error, Error::Artifact(Artifact::NotYours(why)) if why.contains("it proves other rows than you have")),
        "{error}"
    );
    assert!(error.is_refusal());
}

/// Says of everything that the user's own digest is what was proven.
struct WithDigest<L>(L, Digest);

impl<L: Interceptor> Interceptor for WithDigest<L> {
    fn described(&self, d: &mut DescribeResponse) {
        self.0.described(d);
    }
    fn route(&self, batch: &Batch) -> Route {
        self.0.route(batch)
    }
    fn answered(&self, batch: &Batch, answer: &mut InferResponse) {
        self.0.answered(batch, answer);
    }
    fn finished(&self, stage: &mut FinishResponse) {
        if stage.stage() == ProofStage::Done {
            stage.trace_digest = self.1.lock().unwrap().clone();
        }
    }
    fn fetching(&self, session: &mut SessionRef) {
        self.0.fetching(session);
    }
    fn fetched(&self, proof: &mut FetchProofResponse) {
        self.0.fetched(proof);
    }
}

/// The same as [`verdict`], with the user's digest in what the liar says.
fn verdict_with_digest(server: &Server, folder: &Path, interceptor: impl Interceptor) -> Error {
    let digest = Digest::default();
    let user = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(&server.url(), WithDigest(interceptor, Arc::clone(&digest)));
    let mut session = session(&proxy, folder, user.path()).unwrap();
    let manifest = load(folder).manifest;
    let user_digest = session
        .trace()
        .unwrap()
        .with_trace::<_, Artifact>(&manifest, |rows| Ok(rows.digest()))
        .unwrap();
    *digest.lock().unwrap() = Bytes::copy_from_slice(&user_digest.0);
    let error = finish(&mut session).expect_err("the user is content");
    assert!(!user.path().join("session.pf").exists(), "there is a proof");
    assert!(error.is_refusal(), "{error}");
    error
}

/// A proof of another statement: every challenge is another one, so the first check that depends on
/// one says no.
fn rejected(error: &Error) {
    assert!(
        matches!(
            error,
            Error::Artifact(Artifact::Proof(Proof::Rejected(Check::MaskSpan | Check::Relations)))
        ),
        "{error}"
    );
}

#[test]
fn a_proof_of_other_deltas_is_rejected_whatever_digest_comes_with_it() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    rejected(&verdict_with_digest(&server, contributor.path(), OneMore));
}

struct Beyond(u32);
impl Interceptor for Beyond {
    fn answered(&self, batch: &Batch, answer: &mut InferResponse) {
        if batch.sequence == 1 {
            let mut bytes = answer.deltas[2].to_vec();
            bytes[8..16].copy_from_slice(&(-(1i64 << self.0)).to_le_bytes());
            answer.deltas[2] = bytes.into();
        }
    }
}

#[test]
fn a_delta_beyond_the_certified_bound_is_refused_at_once() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let manifest = load(contributor.path()).manifest;
    let bits = manifest.modules()[2].delta_bits;
    let proxy = Proxy::start(&server.url(), Beyond(bits));
    let user = tempfile::tempdir().unwrap();
    let mut session = open(&proxy.url(), None, user.path()).unwrap();
    session.deltas(&calls(&session, 2, 0)).unwrap();
    let error = session.deltas(&calls(&session, 2, 2)).unwrap_err();
    contributor_says(
        &error,
        &format!("row 0: delta {} is outside the certified bound 2^{bits}", -(1i64 << bits)),
    );
    assert_eq!(session.rows(), 8);
    // Neither a later call nor a new process of the user's takes it for an answer.
    contributor_says(&session.deltas(&calls(&session, 1, 9)).unwrap_err(), "certified bound");
    contributor_says(&finish(&mut session).unwrap_err(), "certified bound");
    drop(session);
    contributor_says(&open(&proxy.url(), None, user.path()).err().unwrap(), "certified bound");
    // Once it is honest again, the session is resumed and proven.
    let mut session = moved(&server, user.path());
    assert_eq!(session.rows(), 16);
    finish(&mut session).unwrap();
}

struct Swap(String);
impl Interceptor for Swap {
    fn route(&self, batch: &Batch) -> Route {
        if batch.sequence == 1 { Route::Elsewhere(self.0.clone()) } else { Route::On }
    }
}

#[test]
fn deltas_of_another_adapter_in_the_middle_of_a_session_are_not_proven() {
    let (contributor, other) = (artifacts(), impostor());
    let (server, impostor) = (Server::start(contributor.path()), Server::start(other.path()));
    let manifest = load(contributor.path()).manifest;
    assert_ne!(manifest.id(), load(other.path()).manifest.id());
    let user = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(&server.url(), Swap(impostor.url()));
    let mut session = session(&proxy, contributor.path(), user.path()).unwrap();
    // They are what the other adapter computes, so nothing was wrong with their shape.
    let second = calls(&session, 2, 2);
    assert_eq!(session.deltas(&second).unwrap(), expected(&load(other.path()), &second));
    let error = finish(&mut session).unwrap_err();
    assert!(matches!(error, Error::Artifact(Artifact::NotYours(_))), "{error}");
    rejected(&verdict_with_digest(&server, contributor.path(), Swap(impostor.url())));
}

#[test]
fn a_proof_of_fewer_rows_is_rejected_although_every_delta_is_right() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    // Batch 1 is answered from another session of the honest server, and is no part of the proof.
    let error = verdict(Swap(server.url()));
    assert!(matches!(error, Error::Artifact(Artifact::NotYours(_))), "{error}");
    rejected(&verdict_with_digest(&server, contributor.path(), Swap(server.url())));
}

struct OtherProof(SessionRef);
impl Interceptor for OtherProof {
    fn fetching(&self, session: &mut SessionRef) {
        *session = self.0.clone();
    }
}

#[test]
fn a_proof_of_another_session_with_the_same_rows_is_rejected() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let manifest = load(contributor.path()).manifest;
    let other = raw::wait(async {
        let mut client = raw::client(&server.url()).await;
        let (session, mut talk) = raw::begun(&mut client, &manifest, 2).await;
        for sequence in 1..3 {
            talk.say(raw::batch(&manifest, sequence, 2, 2 * sequence as usize)).await.unwrap();
        }
        raw::finish(&mut client, &session, 3).await.unwrap();
        session
    });
    rejected(&verdict_with_digest(&server, contributor.path(), OtherProof(other)));
}

struct Proofs<F>(F);
impl<F: Fn(&mut Vec<u8>) + Send + Sync + 'static> Interceptor for Proofs<F> {
    fn fetched(&self, answer: &mut FetchProofResponse) {
        let mut proof = answer.proof.to_vec();
        (self.0)(&mut proof);
        answer.proof = proof.into();
    }
}

#[test]
fn a_proof_that_is_cut_longer_or_changed_is_refused_and_the_true_one_still_accepted() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let user = tempfile::tempdir().unwrap();
    let count = Arc::new(AtomicU64::new(0));
    let next = Arc::clone(&count);
    let proxy = Proxy::start(
        &server.url(),
        Proofs(move |proof: &mut Vec<u8>| {
            let length = proof.len();
            match next.fetch_add(1, Ordering::Relaxed) {
                0 => proof.clear(),
                1 => proof.truncate(length - 1),
                2 => proof.truncate(length / 2),
                3 => proof.push(0),
                at if at < 12 => proof[length * (at as usize - 4) / 8] ^= 1,
                _ => {}
            }
        }),
    );
    let mut session = session(&proxy, contributor.path(), user.path()).unwrap();
    for attempt in 0..12 {
        let error = finish(&mut session).expect_err("a changed proof is accepted");
        let refused = matches!(
            error,
            Error::Artifact(Artifact::Proof(Proof::Malformed { .. } | Proof::Rejected(_)))
        );
        assert!(refused, "attempt {attempt}: {error}");
        assert!(!user.path().join("session.pf").exists());
    }
    finish(&mut session).unwrap();
}

struct Manifest(Vec<u8>);
impl Interceptor for Manifest {
    fn described(&self, description: &mut DescribeResponse) {
        description.manifest = self.0.clone().into();
    }
}

#[test]
fn a_manifest_that_is_not_the_pinned_one_is_refused_before_anything_is_sent() {
    let (contributor, other) = (artifacts(), impostor());
    let server = Server::start(contributor.path());
    let pin = load(contributor.path()).manifest;
    let bytes = pin.contents().to_bytes().unwrap();
    let mut changed = bytes.clone();
    let at = changed.len() / 2;
    changed[at] ^= 1;
    let another = load(other.path()).manifest.contents().to_bytes().unwrap();
    for manifest in [
        another,
        changed,
        Vec::new(),
        [&bytes[..], b"\n"].concat(),
        bytes[..bytes.len() - 1].to_vec(),
    ] {
        let user = tempfile::tempdir().unwrap();
        let proxy = Proxy::start(&server.url(), Manifest(manifest));
        let error = open(&proxy.url(), Some(pin.id()), &user.path().join("session")).err().unwrap();
        assert!(
            matches!(
                error,
                Error::Artifact(Artifact::Proof(Proof::Pin { .. } | Proof::Manifest(_)))
            ),
            "{error}"
        );
        assert_eq!(proxy.opened.load(Ordering::Relaxed), 0);
        // Not even a folder for it.
        assert!(!user.path().join("session").exists());
    }
    assert_eq!(party::connect(&server.url(), None).unwrap().rows_served, 0);
}

struct Version;
impl Interceptor for Version {
    fn described(&self, description: &mut DescribeResponse) {
        description.version = 7;
    }
}

#[test]
fn another_version_of_the_protocol_is_refused() {
    contributor_says(
        &verdict(Version),
        "it speaks version 7 of the protocol, this program version 1",
    );
}

struct Answers<F>(F);
impl<F: Fn(&mut InferResponse) + Send + Sync + 'static> Interceptor for Answers<F> {
    fn answered(&self, batch: &Batch, answer: &mut InferResponse) {
        if batch.sequence == 1 {
            (self.0)(answer);
        }
    }
}

#[test]
fn answers_of_another_shape_are_refused() {
    contributor_says(
        &verdict(Answers(|a: &mut InferResponse| a.sequence = 0)),
        "it answers batch 0, not 1",
    );
    contributor_says(&verdict(Answers(|a: &mut InferResponse| a.sequence = u64::MAX)), "not 1");
    contributor_says(
        &verdict(Answers(|a: &mut InferResponse| a.deltas.truncate(3))),
        "3 answers to 4 calls",
    );
    contributor_says(
        &verdict(Answers(|a: &mut InferResponse| a.deltas.push(Bytes::new()))),
        "5 answers to 4 calls",
    );
    contributor_says(
        &verdict(Answers(|a: &mut InferResponse| a.deltas.swap(0, 1))),
        "bytes of deltas, expected 2 rows of",
    );
    let short = |a: &mut InferResponse| a.deltas[3] = a.deltas[3].slice(1..);
    contributor_says(&verdict(Answers(short)), "bytes of deltas, expected 2 rows of 32");
    let empty = |a: &mut InferResponse| a.deltas[0] = Bytes::new();
    contributor_says(&verdict(Answers(empty)), "0 bytes of deltas");
}

/// Answers batch 1 as it answered batch 0.
struct Replay(std::sync::Mutex<InferResponse>);
impl Interceptor for Replay {
    fn answered(&self, batch: &Batch, answer: &mut InferResponse) {
        match batch.sequence {
            0 => *self.0.lock().unwrap() = answer.clone(),
            1 => *answer = InferResponse { sequence: 1, ..self.0.lock().unwrap().clone() },
            _ => {}
        }
    }
}

#[test]
fn an_answer_that_is_replayed_for_other_rows_is_not_proven() {
    let error = verdict(Replay(Default::default()));
    assert!(matches!(error, Error::Artifact(Artifact::NotYours(_))), "{error}");
}

#[test]
fn an_answer_beyond_the_message_limit_is_not_read() {
    struct Oversize;
    impl Interceptor for Oversize {
        fn described(&self, description: &mut DescribeResponse) {
            description.limits.as_mut().unwrap().max_message_bytes = 1 << 20;
        }
        fn answered(&self, _: &Batch, answer: &mut InferResponse) {
            answer.deltas[0] = Bytes::from(vec![0; 2 << 20]);
        }
    }
    contributor_says(&verdict(Oversize), "message length too large");
}

#[test]
fn an_answer_with_very_many_parts_is_refused_before_it_takes_memory() {
    struct Parts;
    impl Interceptor for Parts {
        fn answered(&self, _: &Batch, answer: &mut InferResponse) {
            answer.deltas = vec![Bytes::new(); 1_000_000];
        }
    }
    contributor_says(&verdict(Parts), "a list has more than");
}

#[test]
fn a_contributor_that_does_not_answer_is_named_after_the_timeout() {
    struct Silent;
    impl Interceptor for Silent {
        fn route(&self, batch: &Batch) -> Route {
            if batch.sequence == 1 { Route::Nowhere } else { Route::On }
        }
    }
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let proxy = Proxy::start(&server.url(), Silent);
    let user = tempfile::tempdir().unwrap();
    let mut options = options(&proxy.url(), None);
    options.call_timeout = Duration::from_millis(300);
    options.patience = Duration::from_millis(500);
    let start = std::time::Instant::now();
    let remote = Remote::connect(options, &network()).unwrap();
    let mut session = UserSession::open(remote, user.path()).unwrap();
    session.deltas(&calls(&session, 1, 0)).unwrap();
    let error = session.deltas(&calls(&session, 1, 1)).unwrap_err();
    contributor_says(&error, "no answer within 0.3 s");
    assert!(error.to_string().contains(&proxy.url()));
    assert!(start.elapsed() < Duration::from_secs(10));
    // The session is kept, and can be resumed with the server itself.
    drop(session);
    finish(&mut moved(&server, user.path())).unwrap();
}

struct State(SessionState, u64);
impl Interceptor for State {
    fn opened(&self, opened: &mut OpenSessionResponse) {
        opened.set_state(self.0);
        opened.next_sequence += self.1;
    }
}

#[test]
fn a_session_with_unknown_batches_is_refused() {
    contributor_says(&verdict(State(SessionState::Open, 2)), "another process uses the session");
    contributor_says(
        &verdict(State(SessionState::Open, u64::MAX / 2)),
        "another process uses the session",
    );
    contributor_says(
        &verdict(State(SessionState::Proven, 0)),
        "this session has ended, which you did not ask for",
    );
}

struct Refuses(Status);
impl Interceptor for Refuses {
    fn route(&self, batch: &Batch) -> Route {
        if batch.sequence == 1 { Route::Refused(self.0.clone()) } else { Route::On }
    }
}

#[test]
fn control_characters_of_a_contributor_are_escaped() {
    let error = verdict(Refuses(Status::permission_denied(
        "\u{1b}[2J\u{1b}[1;1Hproof accepted\r\n\u{202e}",
    )));
    contributor_says(&error, "proof accepted");
    assert!(!error.to_string().chars().any(char::is_control), "{error}");
}

#[test]
fn a_done_message_with_an_empty_digest_is_rejected() {
    struct Digests;
    impl Interceptor for Digests {
        fn finished(&self, stage: &mut FinishResponse) {
            stage.trace_digest = Bytes::new();
        }
    }
    let error = verdict(Digests);
    assert!(matches!(error, Error::Artifact(Artifact::NotYours(_))), "{error}");
}

/// The answer after a reconnection differs from the one before.
#[test]
fn a_contributor_that_answers_lost_rows_with_other_deltas_is_detected() {
    struct Changed(AtomicU64);
    impl Interceptor for Changed {
        fn route(&self, batch: &Batch) -> Route {
            // A connection that breaks once, after batch 1.
            let broken = batch.sequence == 2 && self.0.fetch_add(1, Ordering::Relaxed) == 0;
            if broken { Route::Refused(Status::unavailable("gone")) } else { Route::On }
        }
        fn opened(&self, opened: &mut OpenSessionResponse) {
            // It claims to have lost batch 1.
            opened.next_sequence = opened.next_sequence.min(1);
        }
        fn answered(&self, batch: &Batch, answer: &mut InferResponse) {
            if batch.sequence == 1 && self.0.load(Ordering::Relaxed) > 0 {
                change(answer, -1);
            }
        }
    }
    contributor_says(
        &verdict(Changed(AtomicU64::new(0))),
        "answers the same rows with other deltas than before",
    );
}

#[test]
fn a_contributor_that_stays_queued_is_waited_for_until_the_timeout() {
    struct Queued;
    impl Interceptor for Queued {
        fn finished(&self, stage: &mut FinishResponse) {
            stage.set_stage(ProofStage::Queued);
        }
    }
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let user = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(&server.url(), Queued);
    let patient = ContributorOptions {
        proof_timeout: Duration::from_secs(1),
        patience: Duration::from_secs(600),
        ..options(&proxy.url(), None)
    };
    let mut session =
        UserSession::open(Remote::connect(patient, &network()).unwrap(), user.path()).unwrap();
    session.deltas(&calls(&session, 1, 0)).unwrap();
    contributor_says(
        &finish(&mut session).unwrap_err(),
        "no proof within 1 s; the session is kept",
    );
}

/// Sends progress messages without end; with `changing`, each one differs from the one before.
struct Flood {
    changing: bool,
}

impl Interceptor for Flood {
    fn finished_again(&self, _: &FinishResponse, at: u32) -> Option<FinishResponse> {
        let mut stage = FinishResponse {
            ahead: if self.changing { at } else { 7 },
            ..FinishResponse::default()
        };
        stage.set_stage(ProofStage::Queued);
        Some(stage)
    }
}

#[test]
fn a_flood_of_progress_messages_ends_the_call() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    for (changing, most) in [(false, 1), (true, 1100)] {
        let user = tempfile::tempdir().unwrap();
        let proxy = Proxy::start(&server.url(), Flood { changing });
        let mut session = open(&proxy.url(), None, user.path()).unwrap();
        session.deltas(&calls(&session, 1, 0)).unwrap();
        let mut told = Vec::new();
        let mut progress = |now| told.push(now);
        let error = session
            .finish(party::srs(), &KeyStore::default(), SrsPolicy::TrustedOnly, &mut progress)
            .unwrap_err();
        contributor_says(&error, "than can be needed; the session is kept in");
        assert!((1..=most).contains(&told.len()), "{} calls", told.len());
        // The contributor itself has the proof, and the session is finished with it.
        drop(session);
        finish(&mut moved(&server, user.path())).unwrap();
    }
}

#[test]
fn repeated_progress_is_reported_once() {
    struct Stutters;
    impl Interceptor for Stutters {
        fn finished_again(&self, stage: &FinishResponse, at: u32) -> Option<FinishResponse> {
            (at < 100 && stage.stage() != ProofStage::Done).then(|| stage.clone())
        }
    }
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let user = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(&server.url(), Stutters);
    let mut session = session(&proxy, contributor.path(), user.path()).unwrap();
    let mut told = Vec::new();
    let mut progress = |now| told.push(now);
    session
        .finish(party::srs(), &KeyStore::default(), SrsPolicy::TrustedOnly, &mut progress)
        .unwrap();
    assert!(told.windows(2).all(|pair| pair[0] != pair[1]), "{told:?}");
    assert_eq!(told.last(), Some(&Progress::Verifying));
}

#[test]
fn a_trace_without_its_log_is_not_written_over() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let user = tempfile::tempdir().unwrap();
    let mut session = open(&server.url(), None, user.path()).unwrap();
    session.deltas(&calls(&session, 1, 0)).unwrap();
    finish(&mut session).unwrap();
    drop(session);
    std::fs::remove_file(user.path().join("session.pf")).unwrap();
    let kept = std::fs::read(user.path().join("trace.safetensors")).unwrap();
    let error = open(&server.url(), None, user.path()).err().expect("another session begins there");
    let expected = "holds the trace of another session and no log: name another folder";
    assert!(
        matches!(&error, Error::Artifact(Artifact::Input(why)) if why.contains(expected)),
        "{error}"
    );
    assert_eq!(std::fs::read(user.path().join("trace.safetensors")).unwrap(), kept);
    assert!(!user.path().join("rows.log").exists());
}

#[test]
fn a_session_resumes_at_another_url_only_with_moved() {
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let user = tempfile::tempdir().unwrap();
    let mut session = open(&server.url(), None, user.path()).unwrap();
    session.deltas(&calls(&session, 1, 0)).unwrap();
    drop(session);
    let proxy = Proxy::start(&server.url(), Honest);
    let error = open(&proxy.url(), None, user.path()).err().expect("it goes on").to_string();
    assert!(error.contains(&format!("holds a session with {}", server.url())), "{error}");
    assert_eq!(proxy.opened.load(Ordering::Relaxed), 0, "the other server got the key");
    drop(proxy);
    let server = Server::with(contributor.path(), &{
        server.stop();
        Server::options(contributor.path())
    });
    let mut session = moved(&server, user.path());
    assert_eq!(session.resumed, 4);
    finish(&mut session).unwrap();
}

#[test]
fn a_session_that_is_forgotten_before_its_first_row_is_opened_again() {
    struct Forgets(AtomicU64);
    impl Interceptor for Forgets {
        fn route(&self, batch: &Batch) -> Route {
            let first = batch.sequence == 0 && self.0.fetch_add(1, Ordering::Relaxed) == 0;
            if first {
                Route::Refused(Status::permission_denied("no session of yours"))
            } else {
                Route::On
            }
        }
    }
    let contributor = artifacts();
    let server = Server::start(contributor.path());
    let user = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(&server.url(), Forgets(AtomicU64::new(0)));
    let mut session = session(&proxy, contributor.path(), user.path()).unwrap();
    assert_eq!(proxy.opened.load(Ordering::Relaxed), 2);
    finish(&mut session).unwrap();
}
