//! After payment: whether the delivered weights are the committed ones.

use std::path::Path;

use zklora_artifacts::{folder::Public, secret_files};
use zklora_proof::keys::KeyStore;

use crate::{AdapterId, Error, Verifier, error::Inner};

/// What an audit found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Audit {
    /// Modules that were compared.
    pub modules: usize,
    /// What differs. Empty: the delivered adapter is the committed one.
    pub differences: Vec<Difference>,
}

/// A module that is not the committed one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Difference {
    /// Name of the module.
    pub module: String,
    /// How it differs.
    pub why: String,
}

impl Verifier {
    /// Compares a delivered adapter with the pinned one. `delivered` is a PEFT folder, a folder
    /// that [`Adapter::export`](crate::Adapter::export) wrote, or a `weights.bin`; `base` is
    /// the base model's folder, which DoRA and VeRA need; `opening` is the contributor's file
    /// of that name.
    ///
    /// # Errors
    /// A file cannot be used, or the manifest or the opening is not of the pinned adapter.
    ///
    /// ```no_run
    /// # use std::path::Path;
    /// # let pin = zklora::AdapterId([0; 32]);
    /// let audit = zklora::Verifier::ethereum()?.audit(
    ///     &pin,
    ///     Path::new("public"),
    ///     Path::new("delivered-lora"),
    ///     None,
    ///     Path::new("opening"),
    /// )?;
    /// assert!(audit.differences.is_empty(), "{:?}", audit.differences);
    /// # Ok::<(), zklora::Error>(())
    /// ```
    pub fn audit(
        &self,
        pin: &AdapterId,
        public: &Path,
        delivered: &Path,
        base: Option<&Path>,
        opening: &Path,
    ) -> Result<Audit, Error> {
        let Public { manifest } = Public::load(public, Some(pin), &self.srs, &KeyStore::default())?;
        let (found, key) = secret_files::read_opening(opening)?;
        if found != *pin {
            return Err(Inner::Opening { found, manifest: *pin }.into());
        }
        let report = zklora_runtime::audit::audit(delivered, base, &manifest, &key, &self.srs)?;
        let differences = report.differences.into_iter();
        let differences =
            differences.map(|found| Difference { module: found.module, why: found.why });
        Ok(Audit { modules: report.modules, differences: differences.collect() })
    }
}
