//! Attacks on the front door: each changes one thing that a verification or an audit rests on, and
//! is refused by the check of that thing.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use zklora::{Adapter, AdapterId, Error, SessionId, Verdict, Verifier};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

/// A session that was made just now: everything that the user has, and the contributor's folder.
struct Session {
    folder: tempfile::TempDir,
    pin: AdapterId,
    id: SessionId,
}

impl Session {
    fn new() -> Session {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        Adapter::export(&examples().join("adapter"), None, &path("onnx")).unwrap();
        let adapter = Adapter::compile(&[path("onnx")], &path("artifacts")).unwrap();
        let id = SessionId::random().unwrap();
        fs::copy(examples().join("session/inputs.safetensors"), path("inputs.safetensors"))
            .unwrap();
        adapter.record(&id, &path("inputs.safetensors"), &path("trace.safetensors")).unwrap();
        adapter.prove(&path("trace.safetensors"), &path("session.pf")).unwrap();
        Session { pin: adapter.id(), folder, id }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn verify(&self, pin: &AdapterId, id: &SessionId) -> Result<Verdict, Error> {
        Verifier::ethereum()?.verify_inputs(
            pin,
            id,
            &self.path("inputs.safetensors"),
            &self.path("artifacts/public"),
            &self.path("trace.safetensors"),
            &self.path("session.pf"),
        )
    }

    /// Adds one to the byte at `offset` from the end of a file, and takes it back after `then`.
    fn with_changed<T>(&self, name: &str, offset: usize, then: impl FnOnce() -> T) -> T {
        let bytes = fs::read(self.path(name)).unwrap();
        let mut changed = bytes.clone();
        let at = changed.len() - offset;
        changed[at] = changed[at].wrapping_add(1);
        fs::write(self.path(name), changed).unwrap();
        let result = then();
        fs::write(self.path(name), bytes).unwrap();
        result
    }
}

fn assert_refused<T>(result: Result<T, Error>, by: &str) {
    let error = result.err().unwrap();
    assert!(error.is_refusal() && error.to_string().contains(by), "{error}");
}

#[test]
fn every_change_is_refused_by_its_own_check() {
    let session = Session::new();
    let (pin, id) = (session.pin, session.id);
    let verdict = session.verify(&pin, &id).unwrap();
    assert_eq!((verdict.adapter, verdict.session, verdict.total_rows()), (pin, id, 14));

    assert_refused(session.verify(&AdapterId::from([7; 32]), &id), "was pinned");
    assert_refused(session.verify(&pin, &SessionId::random().unwrap()), "not of yours");
    let verify = || session.verify(&pin, &id);
    let inputs = session.with_changed("inputs.safetensors", 2, verify);
    assert_refused(inputs, "not of your activations");
    // The last byte of the KZG opening.
    let proof = session.with_changed("session.pf", 1, verify);
    let error = proof.err().unwrap();
    assert!(error.is_refusal() && error.to_string().starts_with("proof "), "{error}");
    session.verify(&pin, &id).unwrap();
}

#[test]
fn a_proof_of_other_deltas_is_rejected() {
    let session = Session::new();
    // Deltas come first in a trace: 64-bit numbers are aligned before the others.
    let trace = session.path("trace.safetensors");
    let header = u64::from_le_bytes(fs::read(&trace).unwrap()[..8].try_into().unwrap());
    let length = fs::metadata(&trace).unwrap().len();
    let first_delta = (length - 8 - header) as usize;
    let forged = session.with_changed("trace.safetensors", first_delta, || {
        session.verify(&session.pin, &session.id)
    });
    assert_refused(forged, "proof rejected");
}

#[test]
fn an_audit_tells_the_committed_adapter_from_another_one() {
    let session = Session::new();
    let (public, opening) =
        (session.path("artifacts/public"), session.path("artifacts/private/opening"));
    let audit = |delivered: &Path| {
        let verifier = Verifier::ethereum().unwrap();
        verifier.audit(&session.pin, &public, delivered, None, &opening).unwrap()
    };
    let honest = audit(&examples().join("adapter"));
    assert!(honest.is_committed() && honest.modules == 2 && !honest.base_model_compared);
    let weights = session.path("artifacts/private/weights.bin");
    assert!(audit(&weights).is_committed());
    let other = session.with_changed("artifacts/private/weights.bin", 4, || audit(&weights));
    assert!(!other.is_committed());
    assert_eq!(other.differences.len(), 1, "{other:?}");
}
