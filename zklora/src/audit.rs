//! After payment: whether the delivered weights are the committed ones.

use std::path::Path;

use zklora_artifacts::{folder::Public, secret_files};

use crate::{AdapterId, Error, Verifier, error::Inner};

/// What an audit found.
#[must_use = "an audit that found differences is no error"]
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Audit {
    /// Modules that were compared.
    pub modules: usize,
    /// Whether the base model that the adapter is for was compared. If not, the manifest or the
    /// delivery has no fingerprint of one, and the audit says nothing about it.
    pub base_model_compared: bool,
    /// What differs.
    pub differences: Vec<Difference>,
}

impl Audit {
    /// Whether the delivered adapter is the committed one.
    pub fn is_committed(&self) -> bool {
        self.differences.is_empty()
    }
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
    /// # let pin = zklora::AdapterId::from([0; 32]);
    /// let audit = zklora::Verifier::ethereum()?.audit(
    ///     &pin,
    ///     Path::new("public"),
    ///     Path::new("delivered-lora"),
    ///     None,
    ///     Path::new("opening"),
    /// )?;
    /// assert!(audit.is_committed(), "{:?}", audit.differences);
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
        let load = || {
            let public = Public::load(public, Some(&pin.inner()), &self.srs, &self.keys)?;
            Ok::<_, zklora_artifacts::Error>((public, secret_files::read_opening(opening)?))
        };
        let (Public { manifest }, (found, key)) = load().map_err(Inner::from)?;
        if found != pin.inner() {
            let (found, expected) = (found.to_string(), pin.to_string());
            return Err(Inner::Opening { found, expected }.into());
        }
        let report = zklora_runtime::audit::audit(delivered, base, &manifest, &key, &self.srs);
        let report = report.map_err(Inner::from)?;
        let base_model_compared = report.base_model.not_compared().is_none();
        let differences = report.differences.into_iter();
        let differences =
            differences.map(|found| Difference { module: found.module, why: found.why });
        let (modules, differences) = (report.modules, differences.collect());
        Ok(Audit { modules, base_model_compared, differences })
    }
}
