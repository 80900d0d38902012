//! Compiles ONNX files to an artifact folder: `zklora compile`. The same inputs, seed and SRS give
//! the same bytes on any machine, but for the registration, whose proof is randomised.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;
use zklora_artifacts::{
    activations::Activations,
    folder as artifacts,
    folder::Artifacts,
    lock_file::{LockFile, digest, keyed_digest},
    secret_files, weights_file,
};
use zklora_compiler::{
    Explanation,
    compile::{ModuleReport, draft},
    quantize::MOST_AUTOMATIC,
    sources::{Sources, sources},
};
use zklora_files::{Access, MAX_FILE};
use zklora_proof::{
    checked_manifest::CheckedManifest,
    commit,
    cost::{self, Estimate, OperationTimes},
    keys::KeyStore,
    manifest::{AdapterId, Manifest, Module},
    masks::{MaskKey, Seed},
    srs::Srs,
    verifier::SrsPolicy,
    weights::Weights,
};
use zklora_session::ledger;

use crate::{Error, registration};

/// What to compile.
pub struct Options<'a> {
    /// ONNX files, or folders that export wrote.
    pub paths: &'a [PathBuf],
    /// Where `public/` and `private/` go.
    pub out: &'a Path,
    /// The seed file to use instead of the folder's seed or a fresh one.
    pub seed_file: Option<&'a Path>,
    /// Activations to calibrate bit widths on.
    pub calibrate: Option<&'a Path>,
    /// Give every weight at most [`registration::BITS`] bits, and prove it.
    pub registered: bool,
    /// log₂ of the rows of a column. None: that of the manifest in the folder, else the one that
    /// takes least time; the whole ceremony's for a registered adapter.
    pub k: Option<u32>,
}

impl Options<'_> {
    /// The k of an adapter with these shapes.
    fn k(&self, srs: &Srs, draft: &Manifest) -> Result<u32, Error> {
        Ok(match self.k {
            Some(k) => k,
            None if self.registered => srs.k(),
            // Adapters too large for a short one need the whole ceremony.
            None => k_of_same_shapes(self.out, draft)
                .or_else(|| cost::best_k(draft, srs.k()).ok())
                .unwrap_or(srs.k()),
        })
    }

    /// Most bits of a weight.
    fn most_bits(&self) -> u32 {
        if self.registered { registration::BITS } else { MOST_AUTOMATIC }
    }
}

/// The result of a compilation.
pub struct Compiled {
    /// The artifacts, as they are on disk.
    pub artifacts: Artifacts,
    /// The other adapter that was in the folder before, if any.
    pub replaced: Option<AdapterId>,
    /// The report of each module.
    pub reports: Vec<ModuleReport>,
    /// The bytes of every file, by path within the folder.
    pub files: Vec<(String, usize)>,
    /// The registration, if one was asked for.
    pub registered: Option<Registered>,
}

/// The registration of a compiled adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Registered {
    /// Its proof was made.
    Made,
    /// The proof in the folder was verified and kept: a new one would have other bytes.
    Kept,
}

/// The result of `--locked` for one file.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct FileCheck {
    /// Path in the folder, or `input <module>` for an ONNX file whose digest is not the locked
    /// one.
    pub path: String,
    /// How the file compares.
    pub state: FileState,
}

/// How a file compares with the regenerated one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FileState {
    /// The same bytes; of a registration, a valid proof.
    Same,
    /// Other bytes.
    Different,
    /// The file is missing.
    Missing,
}

/// The result of [`commit::commit`].
pub type Committed = (Manifest, Weights, MaskKey);

/// The result of a compilation in memory. The files are in the order in which they are written.
struct Build {
    manifest: CheckedManifest,
    weights: Weights,
    mask_key: MaskKey,
    reports: Vec<ModuleReport>,
    files: Vec<(String, Zeroizing<Vec<u8>>, Access)>,
}

/// Compiles, commits and writes the folder. The seed is that of `seed_file`, else the folder's,
/// else a fresh one, so the same inputs in the same folder give the same bytes.
pub fn compile(options: &Options<'_>, srs: &Srs, keys: &KeyStore) -> Result<Compiled, Error> {
    let folder_seed = options.out.join("private").join(artifacts::SEED);
    let seed = match (options.seed_file, folder_seed.exists()) {
        (Some(path), false) => secret_files::read_seed(path)?,
        (Some(path), true) => {
            let seed = secret_files::read_seed(path)?;
            if secret_files::read_seed(&folder_seed)?.expose() != seed.expose() {
                return Err(Error::file(
                    &folder_seed,
                    "this folder has another seed, which would be lost: choose another --out",
                ));
            }
            seed
        }
        (None, true) => secret_files::read_seed(&folder_seed)?,
        (None, false) => Seed::generate()?,
    };
    let build = build(options, &seed, srs, keys)?;
    let out = options.out;
    let replaced = replaced(out, &build)?;
    // Proven before anything is written: what cannot be proven changes no folder.
    let registration = match options.registered {
        true => Some(register(out, &build, srs, keys)?),
        false => None,
    };
    let registration_path = out.join(REGISTRATION);
    if artifacts::adapter_in(out) != Some(build.manifest.id()) {
        // One of another adapter would be refused beside this manifest.
        zklora_files::remove(&registration_path)?;
    }
    build.write(out)?;
    if let Some((Registered::Made, proof)) = &registration {
        zklora_files::write(&registration_path, proof, Access::Public)?;
    }
    if options.calibrate.is_none() {
        // A calibration report of an earlier compilation would be about other integers.
        zklora_files::remove(&out.join("private").join(artifacts::CALIBRATION))?;
    }
    let mut files: Vec<(String, usize)> =
        build.files.iter().map(|(name, bytes, _)| (name.clone(), bytes.len())).collect();
    files.extend(registration.iter().map(|(_, proof)| (REGISTRATION.into(), proof.len())));
    Ok(Compiled {
        replaced,
        files,
        registered: registration.map(|(how, _)| how),
        artifacts: Artifacts::new(out, build.manifest, build.weights, build.mask_key),
        reports: build.reports,
    })
}

/// The registration in the folder, relative to it.
const REGISTRATION: &str = "public/registration.proof";

/// The registration of an adapter: that of the folder if it is valid, else a new one.
fn register(
    out: &Path,
    build: &Build,
    srs: &Srs,
    keys: &KeyStore,
) -> Result<(Registered, Vec<u8>), Error> {
    // Whatever is wrong with the old one, it is made again.
    if let Ok(Some(proof)) = artifacts::read_registration(&out.join("public"))
        && verified(&proof, build, srs, keys)
    {
        return Ok((Registered::Kept, proof));
    }
    let Build { manifest, weights, mask_key, .. } = build;
    let proof = zklora_inference::registration::prove(srs, keys, manifest, weights, mask_key)?;
    Ok((Registered::Made, proof))
}

/// Whether a registration is one of the adapter.
fn verified(proof: &[u8], build: &Build, srs: &Srs, keys: &KeyStore) -> bool {
    let policy = SrsPolicy::AllowUntrusted;
    registration::verify(REGISTRATION, proof, &build.manifest, srs, keys, policy).is_ok()
}

/// The other adapter that is in the folder, if any. An adapter that has served rows is not
/// replaced: its sessions could no longer be proven, and its buyers could not get the opening.
fn replaced(out: &Path, build: &Build) -> Result<Option<AdapterId>, Error> {
    let path = out.join("public").join(artifacts::MANIFEST);
    if !path.exists() {
        return Ok(None);
    }
    let old = AdapterId::of(&zklora_files::read(&path, MAX_FILE)?);
    if old == build.manifest.id() {
        return Ok(None);
    }
    if !ledger::read(&out.join("private").join(artifacts::LEDGER))?.is_empty() {
        return Err(Error::file(
            out,
            format!(
                "adapter {old} in this folder has served rows, and these inputs give another adapter: choose another --out"
            ),
        ));
    }
    Ok(Some(old))
}

/// The k of the manifest in a folder if that has the same shapes, so that compiling again gives the
/// same adapter.
fn k_of_same_shapes(folder: &Path, draft: &Manifest) -> Option<u32> {
    let path = folder.join("public").join(artifacts::MANIFEST);
    let bytes = zklora_files::read(&path, zklora_proof::manifest::MAX_BYTES as u64).ok()?;
    let found: Manifest = serde_json::from_slice(&bytes).ok()?;
    let shapes = |of: &Manifest| -> Vec<_> {
        let shape = |module: &Module| {
            let terms: Vec<_> =
                module.terms.iter().map(|term| (term.kind, term.input, term.rank)).collect();
            (module.name.clone(), module.inputs.clone(), module.d_out, terms)
        };
        of.modules.iter().map(shape).collect()
    };
    (shapes(&found) == shapes(draft)).then_some(found.k)
}

/// Explains what each module's graph compiles to, node by node. Writes nothing.
pub fn explain(options: &Options<'_>) -> Result<Vec<Explanation>, Error> {
    let sources = sources(options.paths)?;
    let explained = sources
        .modules
        .iter()
        .map(|s| zklora_compiler::explain(&s.onnx, &s.name, s.folder.as_deref()));
    explained.map(|e| e.map_err(|e| Error::Compile(e.into()))).collect()
}

/// Estimates what compiling, proving and verifying cost on this machine. Reads and quantises the
/// modules, but does not commit.
pub fn plan(options: &Options<'_>, srs: &Srs) -> Result<Estimate, Error> {
    let Sources { modules, base_model, .. } = sources(options.paths)?;
    let mut draft = draft(base_model, srs.k(), &modules, None, options.most_bits())?;
    draft.manifest.k = options.k(srs, &draft.manifest)?;
    let times = OperationTimes::measure(srs.at(draft.manifest.k)?);
    Ok(cost::estimate(&draft.manifest, &times)?)
}

/// Regenerates everything in memory and compares it with the folder. Writes nothing.
pub fn check_locked(
    options: &Options<'_>,
    srs: &Srs,
    keys: &KeyStore,
) -> Result<Vec<FileCheck>, Error> {
    let folder_seed = options.out.join("private").join(artifacts::SEED);
    let seed_file = options.seed_file.unwrap_or(&folder_seed);
    if !seed_file.exists() {
        return Err(Error::file(seed_file, "no seed here: name it with --seed-file"));
    }
    let seed = secret_files::read_seed(seed_file)?;
    let build = build(options, &seed, srs, keys)?;
    let mut checks = Vec::new();
    for (name, bytes, _) in &build.files {
        let path = options.out.join(name);
        // A CI pipeline that has the seed need not keep the other private files.
        let state = if !path.exists() {
            if name.starts_with("private/") {
                continue;
            }
            FileState::Missing
        } else if Zeroizing::new(zklora_files::read(&path, MAX_FILE)?).as_slice()
            == bytes.as_slice()
        {
            FileState::Same
        } else {
            FileState::Different
        };
        checks.push(FileCheck { path: name.clone(), state });
    }
    if options.registered {
        // A proof is randomised: it is verified, not compared.
        let state = match artifacts::read_registration(&options.out.join("public"))? {
            None => FileState::Missing,
            Some(proof) if verified(&proof, &build, srs, keys) => FileState::Same,
            Some(_) => FileState::Different,
        };
        checks.push(FileCheck { path: REGISTRATION.into(), state });
    }
    checks.extend(changed_inputs(options.out, &build)?);
    Ok(checks)
}

/// ONNX files whose keyed digest is not the one in the folder's lock file.
fn changed_inputs(out: &Path, build: &Build) -> Result<Vec<FileCheck>, Error> {
    let name = format!("public/{}", artifacts::LOCK);
    let path = out.join(&name);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let parse = |bytes: &[u8]| serde_json::from_slice::<LockFile>(bytes).ok();
    let regenerated = build
        .files
        .iter()
        .find(|(file, _, _)| *file == name)
        .map_or(&[][..], |(_, bytes, _)| bytes);
    let (Some(old), Some(new)) = (parse(&zklora_files::read(&path, MAX_FILE)?), parse(regenerated))
    else {
        // A damaged lock file is reported as a file that differs. It cannot tell which inputs
        // changed.
        return Ok(Vec::new());
    };
    let modules: std::collections::BTreeSet<&String> =
        old.inputs.keys().chain(new.inputs.keys()).collect();
    let state = |module: &String| match (old.inputs.get(module), new.inputs.get(module)) {
        (Some(old), Some(new)) if old == new => None,
        (Some(_), Some(_)) | (None, Some(_)) => Some(FileState::Different),
        _ => Some(FileState::Missing),
    };
    let changed = modules.into_iter().filter_map(|module| Some((module, state(module)?)));
    Ok(changed
        .map(|(module, state)| FileCheck { path: format!("input {module}"), state })
        .collect())
}

fn build(options: &Options<'_>, seed: &Seed, srs: &Srs, keys: &KeyStore) -> Result<Build, Error> {
    let Sources { modules: sources, base_model, left_out, digests } = sources(options.paths)?;
    let calibration = match options.calibrate {
        None => None,
        Some(path) => {
            // A first draft gives the inputs of the modules.
            let modules = draft(base_model.clone(), srs.k(), &sources, None, options.most_bits())?
                .manifest
                .modules;
            let bytes = zklora_files::read(path, MAX_FILE)?;
            Some((Activations::parse(path, &bytes, &modules, None)?.modules, bytes))
        }
    };
    let mut drafted = draft(
        base_model,
        srs.k(),
        &sources,
        calibration.as_ref().map(|(activations, _)| activations),
        options.most_bits(),
    )?;
    drafted.manifest.left_out = left_out.into_iter().collect();
    drafted.manifest.k = options.k(srs, &drafted.manifest)?;
    let committed = commit::commit(srs, &drafted.manifest, drafted.pairs, seed)?;
    let mut inputs: BTreeMap<String, String> = digests
        .iter()
        .map(|(name, digest)| (name.clone(), keyed_digest(seed, digest.as_bytes())))
        .collect();
    if let Some((_, bytes)) = &calibration {
        inputs.insert(CALIBRATION.into(), keyed_digest(seed, blake3::hash(bytes).as_bytes()));
    }
    let mut build = Build::of(committed, inputs, seed, srs, keys)?;
    if calibration.is_some() {
        let report = Zeroizing::new(calibration_report(&drafted.reports));
        build
            .files
            .insert(1, (format!("private/{}", artifacts::CALIBRATION), report, Access::Private));
    }
    build.reports = drafted.reports;
    Ok(build)
}

impl Build {
    /// The files of a committed adapter. `inputs` has the keyed digests for the lock file, by name.
    fn of(
        (manifest, weights, mask_key): Committed,
        inputs: BTreeMap<String, String>,
        seed: &Seed,
        srs: &Srs,
        keys: &KeyStore,
    ) -> Result<Build, Error> {
        let manifest_bytes = manifest.to_bytes()?;
        let manifest = CheckedManifest::parse(&manifest_bytes)?;
        let settings = manifest.settings().to_bytes()?;
        let vk = keys.get(srs, manifest.layout())?.vk_bytes();
        let weights_bytes = weights_file::to_bytes(&weights);
        let mut lock =
            LockFile::new(manifest.id().to_string(), manifest.contents().srs_digest.clone());
        lock.inputs = inputs;
        let outputs = [
            (artifacts::MANIFEST, &manifest_bytes),
            (artifacts::SETTINGS, &settings),
            (artifacts::VK, &vk),
        ];
        lock.outputs =
            outputs.map(|(name, bytes)| (format!("public/{name}"), digest(bytes))).into();
        lock.outputs
            .insert(format!("private/{}", artifacts::WEIGHTS), keyed_digest(seed, &weights_bytes));
        let opening = secret_files::opening_bytes(&manifest.id(), &mask_key)?;
        // Private files are first, and the seed is the very first. After a crash in between, the
        // old manifest is beside secrets of the new one: `Artifacts::load` refuses that and advises
        // to compile again.
        let private = |name: &str, bytes| (format!("private/{name}"), bytes, Access::Private);
        let public =
            |name: &str, bytes| (format!("public/{name}"), Zeroizing::new(bytes), Access::Public);
        let files = vec![
            private(artifacts::SEED, secret_files::seed_bytes(seed)),
            private(artifacts::OPENING, opening),
            private(artifacts::WEIGHTS, weights_bytes),
            public(artifacts::SETTINGS, settings),
            public(artifacts::VK, vk),
            public(artifacts::LOCK, lock.to_bytes()),
            public(artifacts::MANIFEST, manifest_bytes),
        ];
        Ok(Build { manifest, weights, mask_key, reports: Vec::new(), files })
    }

    fn write(&self, out: &Path) -> Result<(), Error> {
        zklora_files::create_folder(&out.join("public"), Access::Public)?;
        zklora_files::create_folder(&out.join("private"), Access::Private)?;
        for (name, bytes, access) in &self.files {
            zklora_files::write(&out.join(name), bytes, *access)?;
        }
        Ok(())
    }
}

/// Writes the artifact folder of an adapter that was given as integers, not as ONNX. The benchmarks
/// use it.
pub fn write_committed(
    out: &Path,
    committed: Committed,
    seed: &Seed,
    srs: &Srs,
    keys: &KeyStore,
) -> Result<Artifacts, Error> {
    let build = Build::of(committed, BTreeMap::new(), seed, srs, keys)?;
    build.write(out)?;
    Ok(Artifacts::new(out, build.manifest, build.weights, build.mask_key))
}

/// Name of the calibration file among a lock file's inputs. No module has this name, because it
/// contains spaces.
const CALIBRATION: &str = "(calibration activations: pass the file with --calibrate)";

/// The measured errors per module. Private, because they are exact functions of the weights.
fn calibration_report(reports: &[ModuleReport]) -> Vec<u8> {
    let modules: BTreeMap<&str, _> =
        reports.iter().map(|r| (r.name.as_str(), (r.bits, r.measured))).collect();
    let report =
        serde_json::json!({ "format": "zklora-calibration", "modules": modules, "version": 1 });
    report.to_string().into_bytes()
}
