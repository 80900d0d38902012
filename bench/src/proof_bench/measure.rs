//! Runs stages and collects what they measured.

use std::path::Path;

use super::{
    bench_stage::BenchStage,
    figures::{Measured, StageReport},
    profile::Profile,
    task::Task,
};
use crate::Error;

/// Runs stages one after the other. `run` gets each task and decides in which process it runs.
///
/// # Errors
/// Those of the stages.
pub fn measure(
    profile: &Profile,
    rows: usize,
    folder: &Path,
    srs: Option<&Path>,
    stages: &[BenchStage],
    run: &mut dyn FnMut(&Task) -> Result<StageReport, Error>,
) -> Result<Measured, Error> {
    let mut measured = Measured::of(profile, rows);
    for stage in stages {
        let task = Task {
            stage: *stage,
            profile: profile.clone(),
            rows,
            folder: folder.to_path_buf(),
            srs: srs.map(Path::to_path_buf),
        };
        measured.add(*stage, run(&task)?);
    }
    Ok(measured)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use zklora_artifacts::{
        folder::Public, own_session::OwnSession, srs_file, trace_reader::TraceReader, verify,
    };
    use zklora_proof::{keys::KeyStore, verifier::SrsPolicy};

    use super::*;
    use crate::proof_bench::{ALL_STAGES, Item, Size, files_of, targets};

    #[test]
    fn the_smallest_profile_gives_a_session_that_verifies_and_every_figure() {
        let folder = tempfile::tempdir().unwrap();
        let profile = Profile::named("module").unwrap();
        let measured =
            measure(&profile, 3, folder.path(), None, &ALL_STAGES, &mut |task| task.run()).unwrap();
        assert_eq!((measured.modules, measured.parameters), (1, 4 * (768 + 2304)));
        for item in Item::ALL.into_iter().filter(|item| !item.is_of_a_process()) {
            assert!(measured.cost(item).is_some_and(|cost| cost.seconds > 0.0), "{item}");
        }
        let (srs, keys) = (srs_file::load(None).unwrap(), KeyStore::default());
        let public = Public::load(&folder.path().join("artifacts"), None, &srs, &keys).unwrap();
        for rows in [1, 3] {
            let (trace, proof) = files_of(folder.path(), rows);
            let trace = TraceReader::trace(&trace, &public.manifest).unwrap();
            assert_eq!(trace.rows(), rows);
            let proof = zklora_files::read(&proof, verify::MAX_PROOF).unwrap();
            assert_eq!(Some(proof.len() as u64), measured.size(Size::Proof));
            let (expected, policy) = (OwnSession::default(), SrsPolicy::TrustedOnly);
            verify::verify(&public.manifest, &trace, &expected, &proof, &srs, &keys, policy)
                .unwrap();
        }
        // Every target of this profile has a figure, except those that only another process can
        // measure.
        let judged = targets::judge(std::slice::from_ref(&measured));
        let missing: Vec<_> = judged
            .iter()
            .filter(|j| j.target.profile == "module" && j.measured.is_none())
            .collect();
        assert!(missing.iter().all(|j| j.target.quantity.is_of_a_process()), "{missing:?}");
    }
}
