//! Measures one stage on a folder: the library calls of the commands.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zklora_artifacts::{
    folder as artifacts, folder::Artifacts, own_session::OwnSession, session_rows::SessionRows,
    srs_file, synthetic::Synthetic, trace_reader::TraceReader, verify,
};
use zklora_files::{Access, MAX_FILE};
use zklora_proof::{
    checked_manifest::CheckedManifest, commit::commit, cost::best_k, field::F, keys::KeyStore,
    manifest, masks::Seed, projection::Projection, srs::Srs, trace::Trace,
    transcript::FirstChallenges, verifier::SrsPolicy,
};
use zklora_runtime::{compile, process::peak_memory};
use zklora_session::{deltas::Deltas, prove, record};

use super::{
    bench_stage::BenchStage,
    figures::{Cost, Item, Size, StageReport},
    profile::Profile,
    synthetic_adapter,
    usage::{cost, cost_of, timed},
};
use crate::{Error, integer_vs_float};

/// The work of one process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// The stage.
    pub stage: BenchStage,
    /// The adapter's shapes.
    pub profile: Profile,
    /// Rows of every module.
    pub rows: usize,
    /// The folder for the files of all stages of one profile.
    pub folder: PathBuf,
    /// An SRS file instead of the Ethereum ceremony.
    pub srs: Option<PathBuf>,
}

/// Paths of the trace and of the proof of a session of `rows` rows per module.
pub fn files_of(folder: &Path, rows: usize) -> (PathBuf, PathBuf) {
    (folder.join(format!("{rows}.safetensors")), folder.join(format!("{rows}.pf")))
}

impl Task {
    /// Runs and measures the stage.
    ///
    /// # Errors
    /// Those of the library calls, and [`BenchStage::Process`], which the caller must start as a
    /// process.
    pub fn run(&self) -> Result<StageReport, Error> {
        let mut report = StageReport::default();
        let srs = srs_file::load(self.srs.as_deref())?;
        match self.stage {
            BenchStage::Commit => self.commit(&srs, &mut report)?,
            BenchStage::StartUp => self.start_up(&mut report)?,
            BenchStage::Record => self.record(&srs, &mut report)?,
            BenchStage::Pass => self.pass(&srs, &mut report)?,
            BenchStage::Pieces => self.pieces(&mut report)?,
            BenchStage::Prove => self.prove(&srs, &mut report)?,
            BenchStage::Verify => self.verify(&srs, &mut report)?,
            BenchStage::Row => self.row(&srs, &mut report)?,
            BenchStage::Process => {
                return Err(Error::input("only a process of its own can measure this"));
            }
        }
        report.peak_memory = peak_memory();
        Ok(report)
    }

    fn artifacts(&self) -> PathBuf {
        self.folder.join("artifacts")
    }

    fn pinned(&self) -> Result<CheckedManifest, Error> {
        let path = self.artifacts().join("public").join(artifacts::MANIFEST);
        Ok(CheckedManifest::parse(&zklora_files::read(&path, manifest::MAX_BYTES as u64)?)?)
    }

    fn commit(&self, srs: &Srs, report: &mut StageReport) -> Result<(), Error> {
        let pairs = synthetic_adapter::pairs(&self.profile);
        let mut draft = synthetic_adapter::draft(&self.profile, &pairs, srs.k())?;
        // As `compile` does.
        draft.k = best_k(&draft, srs.k())?;
        let seed = Seed::generate()?;
        // Made for every run, so that no second copy adds to the peak memory.
        let mut first = Some(pairs);
        let pairs = || Ok(first.take().unwrap_or_else(|| synthetic_adapter::pairs(&self.profile)));
        let (committing, committed) =
            cost_of(pairs, |pairs| Ok(commit(srs, &draft, pairs, &seed)?))?;
        report.costs.insert(Item::Commit, committing);
        let keys = KeyStore::default();
        let write = |committed| {
            Ok(compile::write_committed(&self.artifacts(), committed, &seed, srs, &keys)?)
        };
        let (writing, _) = timed(committed, write)?;
        report.costs.insert(Item::WriteArtifacts, writing);
        for (size, name) in [
            (Size::Manifest, format!("public/{}", artifacts::MANIFEST)),
            (Size::VerifyingKey, format!("public/{}", artifacts::VK)),
            (Size::Weights, format!("private/{}", artifacts::WEIGHTS)),
        ] {
            report.sizes.insert(
                size,
                zklora_files::read(&self.artifacts().join(name), MAX_FILE)?.len() as u64,
            );
        }
        Ok(())
    }

    fn start_up(&self, report: &mut StageReport) -> Result<(), Error> {
        let (loading, srs) = cost(|| Ok(srs_file::load(self.srs.as_deref())?))?;
        let (parsing, manifest) = cost(|| self.pinned())?;
        let (bytes, points) = (manifest.contents().to_bytes()?, manifest.points_to_bytes());
        let (knowing, _) = cost(|| Ok(CheckedManifest::parse_with_points(&bytes, &points)?))?;
        report.costs.insert(Item::KnownManifest, knowing);
        let (deriving, _) = cost(|| Ok(KeyStore::default().get(&srs, manifest.layout())?))?;
        report.costs.extend([
            (Item::Srs, loading),
            (Item::Manifest, parsing),
            (Item::VerifyingKey, deriving),
        ]);
        Ok(())
    }

    /// Also records a session of one row, whose cost is the part that does not depend on the rows.
    fn record(&self, srs: &Srs, report: &mut StageReport) -> Result<(), Error> {
        let artifacts = Artifacts::load(&self.artifacts(), srs, &KeyStore::default())?;
        let record = |rows: usize| {
            let out = files_of(&self.folder, rows).0;
            Ok(record::record_to(&artifacts, &Synthetic { rows }, None, None, &out)?)
        };
        record(1)?;
        // Every run records a new session. The last one is kept.
        let (recording, _) = cost(|| record(self.rows))?;
        report.costs.insert(Item::Record, recording);
        Ok(())
    }

    fn trace(&self, rows: usize) -> PathBuf {
        files_of(&self.folder, rows).0
    }

    fn pass(&self, srs: &Srs, report: &mut StageReport) -> Result<(), Error> {
        let artifacts = Artifacts::load(&self.artifacts(), srs, &KeyStore::default())?;
        let manifest = &artifacts.manifest;
        let file = SessionRows::read(&self.trace(self.rows), manifest)?;
        let laid_out = Deltas::new(manifest.modules(), &artifacts.weights);
        let deltas = || {
            for (m, rows) in file.modules.iter().enumerate() {
                let (modules, weights) = (manifest.modules(), &artifacts.weights);
                std::hint::black_box(laid_out.compute(modules, weights, m, rows));
            }
            Ok(())
        };
        report.costs.insert(Item::Deltas, cost(deltas)?.0);
        report.sizes.insert(Size::Trace, slices(&file).map(|bytes| bytes.len() as u64).sum());
        let opening = any_challenges();
        let digest = || file.with_trace(manifest, |trace| Ok(trace.digest()));
        report.costs.insert(Item::Digest, cost(digest)?.0);
        let project = |trace: &Trace<'_>| {
            cost(|| Ok(std::hint::black_box(Projection::of(manifest, trace, &opening)?)))
        };
        report.costs.insert(Item::Projection, file.with_trace(manifest, project)?.0);
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build();
        let one = one.map_err(|e| Error::input(format!("a thread cannot be started: {e}")))?;
        let both = || {
            file.with_trace(manifest, |trace| {
                Ok(std::hint::black_box(Projection::of(manifest, trace, &opening)?))
            })
        };
        report.costs.insert(Item::PassOneCore, one.install(|| cost(both))?.0);
        let mut copies: Vec<Vec<u8>> = slices(&file).map(<[u8]>::to_vec).collect();
        let copy = || {
            slices(&file).zip(&mut copies).for_each(|(from, to)| to.copy_from_slice(from));
            std::hint::black_box(&mut copies);
            Ok(())
        };
        report.costs.insert(Item::MemcpyOneCore, cost(copy)?.0);
        Ok(())
    }

    /// The file is read twice: checked and digested, then projected and digested again.
    fn pieces(&self, report: &mut StageReport) -> Result<(), Error> {
        let manifest = self.pinned()?;
        let opening = any_challenges();
        let pass = || {
            let trace = TraceReader::trace(&self.trace(self.rows), &manifest)?;
            Ok(std::hint::black_box(Projection::of(&manifest, &trace, &opening)?))
        };
        report.costs.insert(Item::PassInPieces, cost(pass)?.0);
        Ok(())
    }

    fn prove(&self, srs: &Srs, report: &mut StageReport) -> Result<(), Error> {
        let artifacts = Artifacts::load(&self.artifacts(), srs, &KeyStore::default())?;
        let layout = artifacts.manifest.layout();
        let keys = KeyStore::default();
        let fresh = || Ok(KeyStore::default().get(srs, layout)?);
        report
            .costs
            .insert(Item::ProvingKey, cost_of(fresh, |keys| Ok(keys.prepare_proving()?))?.0);
        keys.get(srs, layout)?.prepare_proving()?;
        let again = || Ok(keys.get(srs, layout)?.prepare_proving()?);
        report.costs.insert(Item::KeysAgain, cost(again)?.0);
        for (item, rows) in [(Item::ProveOneRow, 1), (Item::Prove, self.rows)] {
            let prove = || {
                let trace = TraceReader::trace(&self.trace(rows), &artifacts.manifest)?;
                Ok(prove::prove(&artifacts, &trace, srs, &keys)?)
            };
            let (proving, proof) = cost(prove)?;
            report.costs.insert(item, proving);
            report.sizes.insert(Size::Proof, proof.len() as u64);
            zklora_files::write(&files_of(&self.folder, rows).1, &proof, Access::Public)?;
        }
        Ok(())
    }

    fn verify(&self, srs: &Srs, report: &mut StageReport) -> Result<(), Error> {
        let manifest = self.pinned()?;
        let keys = KeyStore::default();
        for (item, rows) in [(Item::VerifyOneRow, 1), (Item::Verify, self.rows)] {
            let proof = zklora_files::read(&files_of(&self.folder, rows).1, verify::MAX_PROOF)?;
            let verify = || {
                let trace = TraceReader::trace(&self.trace(rows), &manifest)?;
                let (expected, policy) = (OwnSession::default(), SrsPolicy::AllowUntrusted);
                Ok(verify::verify(&manifest, &trace, &expected, &proof, srs, &keys, policy)?)
            };
            report.costs.insert(item, cost(verify)?.0);
        }
        Ok(())
    }

    fn row(&self, srs: &Srs, report: &mut StageReport) -> Result<(), Error> {
        let profile = Profile::large_module();
        let pairs = synthetic_adapter::pairs(&profile);
        let draft = synthetic_adapter::draft(&profile, &pairs, srs.k())?;
        let seed = Seed::generate()?;
        let committed = commit(srs, &draft, pairs, &seed)?;
        let keys = KeyStore::default();
        let artifacts =
            compile::write_committed(&self.folder.join("row"), committed, &seed, srs, &keys)?;
        let compared = integer_vs_float::compare(&artifacts, 1, 100)?;
        // One thread does all the work, so its CPU time is the wall time.
        let one = |seconds| Cost { seconds, cpu_seconds: seconds };
        report.costs.extend([
            (Item::RowIntegers, one(compared.zklora_seconds)),
            (Item::RowFloats, one(compared.other_seconds)),
        ]);
        Ok(())
    }
}

/// The challenges of the projection. The time does not depend on them.
fn any_challenges() -> FirstChallenges {
    FirstChallenges { s0: [1; 32], rho_key: [2; 32], gamma: F::from(3), c: F::from(5) }
}

/// The numbers of a trace as bytes, in the order of the digest.
fn slices(trace: &SessionRows) -> impl Iterator<Item = &[u8]> {
    trace.modules.iter().flat_map(|rows| {
        let inputs = rows.inputs.iter().map(|values| bytemuck::cast_slice(values));
        inputs.chain([
            bytemuck::cast_slice(&rows.ones),
            bytemuck::cast_slice(&rows.scales),
            bytemuck::cast_slice(&rows.delta),
        ])
    })
}
