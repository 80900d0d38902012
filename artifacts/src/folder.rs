//! An adapter's artifact folder: `public/` for all users, `private/` for the contributor alone
//! (`docs/formats.md`).

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;
use zklora_files::MAX_FILE;
use zklora_proof::{
    checked_manifest::CheckedManifest,
    keys::KeyStore,
    manifest::{self, AdapterId},
    masks::MaskKey,
    srs::Srs,
    weights::Weights,
};

use crate::{Error, manifest_cache, secret_files, weights_file};

/// The manifest, in `public/`.
pub const MANIFEST: &str = "manifest.json";
/// The settings, in `public/`. The verifier derives them itself.
pub const SETTINGS: &str = "settings.json";
/// The verifying key, in `public/`. The verifier derives it itself.
pub const VK: &str = "circuit.vk";
/// The proof that every committed weight is an integer of 16 bits, in `public/` of a registered
/// adapter. `zklora-runtime` verifies it.
pub const REGISTRATION: &str = "registration.proof";
/// Digests of every input and output.
pub const LOCK: &str = "zklora.lock";
/// The integers of the weights, in `private/`.
pub const WEIGHTS: &str = "weights.bin";
/// The seed of all masks, in `private/`.
pub const SEED: &str = "seed";
/// The adapter's mask key, in `private/`.
pub const OPENING: &str = "opening";
/// The errors that calibration measured, in `private/`.
pub const CALIBRATION: &str = "calibration.json";
/// How much rows leak, as `zklora leak` measured it.
pub const LEAK: &str = "leak.json";
/// The ledger of served sessions.
pub const LEDGER: &str = "served.jsonl";

const MAX_VK: u64 = 1 << 20;
/// Longest registration that is read, in bytes.
pub const MAX_REGISTRATION: u64 = 1 << 20;

/// The public folder of `folder`: itself if it holds a manifest, else its `public/`.
pub fn public_folder(folder: &Path) -> Result<PathBuf, Error> {
    [folder.to_path_buf(), folder.join("public")]
        .into_iter()
        .find(|candidate| candidate.join(MANIFEST).is_file())
        .ok_or_else(|| {
            Error::file(
                folder,
                format!("no {MANIFEST} here or in public/: name the folder that compile wrote"),
            )
        })
}

/// The id of the adapter in a folder that `compile` wrote. `None` if its manifest cannot be read.
pub fn adapter_in(folder: &Path) -> Option<AdapterId> {
    let bytes =
        zklora_files::read(&folder.join("public").join(MANIFEST), manifest::MAX_BYTES as u64)
            .ok()?;
    Some(AdapterId::of(&bytes))
}

/// The `format` that the manifest in a folder names, of any backend. `None` if it is not a
/// manifest: the parsers give a better error for that.
///
/// # Errors
/// [`Error::File`]: there is no manifest, or it is larger than those of any backend.
pub fn manifest_format(folder: &Path) -> Result<Option<String>, Error> {
    #[derive(serde::Deserialize)]
    struct Format {
        format: String,
    }
    let path = public_folder(folder)?.join(MANIFEST);
    let bytes = zklora_files::read(&path, manifest::MAX_BYTES as u64)?;
    Ok(serde_json::from_slice::<Format>(&bytes).ok().map(|file| file.format))
}

/// The bytes of the registration in a folder that has a manifest. `None`: the adapter is not
/// registered. Nothing is verified here.
///
/// # Errors
/// [`Error::File`]: it cannot be read, or is longer than [`MAX_REGISTRATION`].
pub fn read_registration(folder: &Path) -> Result<Option<Vec<u8>>, Error> {
    let path = folder.join(REGISTRATION);
    match path.symlink_metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        _ => Ok(Some(zklora_files::read(&path, MAX_REGISTRATION)?)),
    }
}

/// The public part of an adapter, parsed and checked.
pub struct Public {
    /// The manifest.
    pub manifest: CheckedManifest,
}

impl Public {
    /// Reads a public folder; with a pin, the manifest must have that adapter id.
    ///
    /// `settings.json` and `circuit.vk` are for other tools. The verifier derives both, and a file
    /// that differs from the derived bytes is an error.
    pub fn load(
        folder: &Path,
        pin: Option<&AdapterId>,
        srs: &Srs,
        keys: &KeyStore,
    ) -> Result<Public, Error> {
        let public = public_folder(folder)?;
        let bytes = zklora_files::read(&public.join(MANIFEST), manifest::MAX_BYTES as u64)?;
        let manifest = manifest_cache::parse(&bytes, pin)?;
        let settings = manifest.settings().to_bytes()?;
        same(&public.join(SETTINGS), &settings, "settings")?;
        match manifest.parameters(srs) {
            Ok(srs) => {
                let keys = keys.get(srs, manifest.layout())?;
                same(&public.join(VK), &keys.vk_bytes(), "verifying key")?;
            }
            // Whoever verifies refuses it, and says which ceremony it needs.
            Err(zklora_proof::Error::SrsMismatch { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Public { manifest })
    }
}

fn same(path: &Path, derived: &[u8], what: &str) -> Result<(), Error> {
    if path.exists() && zklora_files::read(path, MAX_VK)? != derived {
        return Err(Error::Proof(zklora_proof::Error::Manifest(format!(
            "{} is not the {what} of this manifest: the file was changed or belongs to another adapter",
            path.display()
        ))));
    }
    Ok(())
}

/// The contributor's adapter: the public part and the secrets.
pub struct Artifacts {
    /// The folder.
    pub folder: PathBuf,
    /// The manifest.
    pub manifest: CheckedManifest,
    /// The private integers.
    pub weights: Weights,
    /// The private mask key.
    pub mask_key: MaskKey,
}

impl Artifacts {
    /// Reads a folder that `compile` wrote.
    pub fn load(folder: &Path, srs: &Srs, keys: &KeyStore) -> Result<Artifacts, Error> {
        let private = folder.join("private");
        // The contributor's own adapter counts as pinned. Whether both parts belong together is
        // checked below.
        let opening = secret_files::read_opening(&private.join(OPENING)).ok();
        let pin = opening.map(|(adapter, _)| adapter).filter(|id| adapter_in(folder) == Some(*id));
        let Public { manifest } = Public::load(&folder.join("public"), pin.as_ref(), srs, keys)?;
        let path = private.join(WEIGHTS);
        let bytes = Zeroizing::new(zklora_files::read(&path, MAX_FILE)?);
        let weights = weights_file::parse(&path, &bytes, manifest.contents())?;
        let (adapter, mask_key) = secret_files::read_opening(&private.join(OPENING))?;
        if adapter != manifest.id() {
            return Err(Error::file(
                &private,
                "the private part belongs to another adapter than the public part: compile again",
            ));
        }
        Ok(Artifacts::new(folder, manifest, weights, mask_key))
    }

    /// Artifacts from their parts, which must belong together.
    pub fn new(
        folder: &Path,
        manifest: CheckedManifest,
        weights: Weights,
        mask_key: MaskKey,
    ) -> Artifacts {
        Artifacts { folder: folder.to_path_buf(), manifest, weights, mask_key }
    }

    /// Path of the ledger.
    pub fn ledger(&self) -> PathBuf {
        self.folder.join("private").join(LEDGER)
    }
}
