//! An EZKL adapter's artifact folder: `public/` for all users, `private/` for the contributor alone
//! (`docs/formats.md`).
//!
//! The folder is built under a temporary name and renamed, so it is never incomplete.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use zklora_artifacts::{folder as artifacts, session_rows::SessionRows};
use zklora_files::Access;
use zklora_proof::manifest::AdapterId;
use zklora_session::ledger;

use super::{
    Check, EzklError,
    manifest::{self, CheckedManifest, Module},
    settings::{self, Settings},
    srs_file,
};
use crate::Error;

/// The settings. EZKL's names of a circuit's files, in a folder with the name of the module.
pub const SETTINGS: &str = "settings.json";
/// The verifying key.
pub const VK: &str = "vk.key";
/// The proving key.
pub const PK: &str = "pk.key";
/// The compiled circuit, which holds the weights.
pub const CIRCUIT: &str = "model.compiled";

/// Largest verifying key that is read, in bytes.
pub(super) const MAX_VK: u64 = 1 << 30;

/// Name of an SRS that EZKL made, in `public/`.
pub fn dev_srs(logrows: u32) -> String {
    format!("insecure-dev-{logrows}.srs")
}

/// Which SRS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Srs<'a> {
    /// A file that the user named.
    pub file: Option<&'a Path>,
    /// Make or accept an SRS of EZKL's `gen_srs`. The party that runs `gen_srs` can forge proofs.
    pub insecure_dev: bool,
}

/// Whether an artifact folder was compiled for EZKL.
///
/// # Errors
/// Those of [`artifacts::public_folder`], and a manifest that is too large.
pub fn is_ezkl(folder: &Path) -> Result<bool, Error> {
    Ok(artifacts::manifest_format(folder)?.is_some_and(|format| format == manifest::FORMAT))
}

/// The public part of an adapter.
pub struct Public {
    folder: PathBuf,
    /// The manifest.
    pub manifest: CheckedManifest,
}

/// A circuit's public files, whose digests are those of the manifest.
pub(super) struct Keys {
    pub settings: Vec<u8>,
    pub vk: Vec<u8>,
}

impl Public {
    /// Reads the manifest of a public folder; with a pin, it must have that adapter id.
    pub fn load(folder: &Path, pin: Option<&AdapterId>) -> Result<Public, Error> {
        let folder = artifacts::public_folder(folder)?;
        let bytes = zklora_files::read(&folder.join(artifacts::MANIFEST), manifest::MAX_BYTES)?;
        Ok(Public { manifest: CheckedManifest::parse(&bytes, pin)?, folder })
    }

    /// Reads a trace of this adapter.
    pub fn trace(&self, path: &Path) -> Result<SessionRows, Error> {
        let trace = SessionRows::read_shapes(path, self.manifest.id(), &self.manifest.shapes())?;
        super::rows::check_scales(&self.manifest, &trace)?;
        Ok(trace)
    }

    /// Writes a trace of this adapter.
    pub fn write_trace(&self, trace: &SessionRows, path: &Path) -> Result<(), Error> {
        Ok(trace.write_shapes(path, &self.manifest.shapes())?)
    }

    /// Reads and checks a module's settings and key.
    ///
    /// # Errors
    /// [`Check::Settings`] or [`Check::VerifyingKey`]: the digest of a file is not the pinned one.
    pub(super) fn keys(&self, module: &Module) -> Result<Keys, Error> {
        let folder = self.folder.join(&module.name);
        let read = |name: &str, most: u64, digest: &str, check| {
            let path = folder.join(name);
            let bytes = zklora_files::read(&path, most)?;
            if blake3::hash(&bytes).to_hex().as_str() != digest {
                let why = format!("{} is not the one that the manifest names", path.display());
                return Err(Error::from(EzklError::refused(check, why)));
            }
            Ok(bytes)
        };
        let settings =
            read(SETTINGS, settings::MAX_BYTES, &module.settings_digest, Check::Settings)?;
        let meaning = Settings::parse(&settings).and_then(|parsed| module.fits(&parsed));
        meaning.map_err(|why| {
            EzklError::refused(Check::Settings, format!("module `{}`: {why}", module.name))
        })?;
        Ok(Keys { settings, vk: read(VK, MAX_VK, &module.vk_digest, Check::VerifyingKey)? })
    }

    /// The SRS file of a module. Its digest must be that of the manifest.
    ///
    /// # Errors
    /// [`Check::Srs`] if the digest differs, or if EZKL made the SRS and the user did not allow
    /// that.
    pub(super) fn srs(&self, module: &Module, srs: &Srs<'_>) -> Result<PathBuf, Error> {
        let path = self.srs_path(module, srs)?;
        require_digest(&path, &path, module)?;
        std::path::absolute(&path).map_err(|e| Error::file(&path, e))
    }

    /// Copies that file into `folder`, so that the checked bytes are the used bytes even if another
    /// process writes to the file.
    ///
    /// # Errors
    /// As [`Public::srs`].
    pub(super) fn copied_srs(
        &self,
        module: &Module,
        srs: &Srs<'_>,
        folder: &Path,
    ) -> Result<PathBuf, Error> {
        let path = self.srs_path(module, srs)?;
        let copy = folder.join(format!("{}.srs", module.srs_digest));
        if !copy.is_file() {
            // The file may grow while it is read.
            let mut file =
                zklora_files::open(&path, srs_file::MAX_BYTES)?.0.take(srs_file::MAX_BYTES);
            let mut to = fs::File::create(&copy).map_err(|e| Error::file(&copy, e))?;
            std::io::copy(&mut file, &mut to).map_err(|e| Error::file(&copy, e))?;
            require_digest(&path, &copy, module)?;
        }
        Ok(copy)
    }

    fn srs_path(&self, module: &Module, srs: &Srs<'_>) -> Result<PathBuf, Error> {
        if module.srs_insecure && !srs.insecure_dev {
            let why = "these keys were made with an INSECURE SRS: the party that ran EZKL's gen_srs can forge proofs. To use them anyway, pass \
                       --insecure-dev-srs";
            return Err(EzklError::refused(Check::Srs, why).into());
        }
        match srs.file {
            Some(path) => Ok(path.to_path_buf()),
            None if module.srs_insecure => Ok(self.folder.join(dev_srs(module.logrows))),
            None => Err(Error::input(format!(
                "name the SRS file with --srs: EZKL's keys here are for one with 2^{} points and the digest {}",
                module.logrows, module.srs_digest
            ))),
        }
    }
}

/// Checks that a file is the SRS of a module. `named` is its name for the error message.
fn require_digest(named: &Path, file: &Path, module: &Module) -> Result<(), Error> {
    let found = srs_file::inspect(named, file)?;
    if found.digest != module.srs_digest {
        let why = format!(
            "{} has the digest {}, the manifest names {}",
            named.display(),
            found.digest,
            module.srs_digest
        );
        return Err(EzklError::refused(Check::Srs, why).into());
    }
    Ok(())
}

/// The contributor's folder.
pub struct Artifacts {
    folder: PathBuf,
    /// The public part.
    pub public: Public,
}

impl Artifacts {
    /// Reads a folder that `compile` wrote.
    pub fn load(folder: &Path) -> Result<Artifacts, Error> {
        let public = Public::load(&folder.join("public"), None)?;
        Ok(Artifacts { folder: folder.to_path_buf(), public })
    }

    /// A private file of a module.
    ///
    /// # Errors
    /// The file is missing. A folder made from the keys of an EZKL run need not have it.
    pub(super) fn private(&self, module: &Module, name: &str) -> Result<PathBuf, Error> {
        let path = self.folder.join("private").join(&module.name).join(name);
        if !path.is_file() {
            return Err(Error::file(
                &path,
                "this file is missing: the folder can verify, but neither record nor prove",
            ));
        }
        std::path::absolute(&path).map_err(|e| Error::file(&path, e))
    }

    /// Path of the ledger.
    pub fn ledger(&self) -> PathBuf {
        self.folder.join("private").join(artifacts::LEDGER)
    }
}

/// A folder in the making, beside its final path.
pub(super) struct Staging {
    /// Removed at the end, with everything that is still in it.
    scratch: zklora_files::Scratch,
}

impl Staging {
    pub fn beside(out: &Path) -> Result<Staging, Error> {
        zklora_files::require_folder_of(out)?;
        let parent = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let parent = std::path::absolute(parent).map_err(|e| Error::file(parent, e))?;
        let scratch =
            zklora_files::Scratch::within(&parent).map_err(|e| Error::file(&parent, e))?;
        zklora_files::create_folder(&scratch.path().join("out"), Access::Public)?;
        Ok(Staging { scratch })
    }

    /// The folder that [`Staging::publish`] moves.
    pub fn out(&self) -> PathBuf {
        self.scratch.path().join("out")
    }

    /// A folder for temporary files.
    pub fn work(&self) -> &Path {
        self.scratch.path()
    }

    /// Syncs everything to disk and moves the folder to its final path. Removes the folder that was
    /// there.
    pub fn publish(self, out: &Path) -> Result<(), Error> {
        sync(&self.out())?;
        let old = self.scratch.path().join("old");
        let had_one = out.exists();
        if had_one {
            fs::rename(out, &old).map_err(|e| Error::file(out, e))?;
        }
        if let Err(e) = fs::rename(self.out(), out) {
            if had_one {
                let _ = fs::rename(&old, out);
            }
            return Err(Error::file(out, e));
        }
        Ok(())
    }
}

fn sync(path: &Path) -> Result<(), Error> {
    let failed = |e| Error::file(path, e);
    if path.is_dir() {
        for entry in fs::read_dir(path).map_err(failed)? {
            sync(&entry.map_err(failed)?.path())?;
        }
        return Ok(());
    }
    fs::File::open(path).and_then(|file| file.sync_all()).map_err(failed)
}

/// Checks that `out` may be replaced: it does not exist, is empty, or is an EZKL adapter that has
/// served no rows.
pub(super) fn may_replace(out: &Path) -> Result<(), Error> {
    let failed = |e| Error::file(out, e);
    if !out.try_exists().map_err(failed)? {
        return Ok(());
    }
    if fs::read_dir(out).map_err(failed)?.next().is_none() {
        return Ok(());
    }
    if !out.join("public").join(artifacts::MANIFEST).is_file() || !is_ezkl(out)? {
        return Err(Error::file(
            out,
            "this is not the folder of an EZKL adapter: choose another --out",
        ));
    }
    if !ledger::read(&out.join("private").join(artifacts::LEDGER))?.is_empty() {
        return Err(Error::file(
            out,
            "the adapter in this folder has served rows: choose another --out",
        ));
    }
    Ok(())
}
