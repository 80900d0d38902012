//! Whether an adapter is registered: a proof shows that every committed weight is an integer of 16
//! bits (docs/inference-proof.md, "Registration").

use std::{fmt, path::Path};

use zklora_artifacts::{
    Error as Artifact,
    folder::{self, REGISTRATION},
};
use zklora_files::Kind;
use zklora_inference::{Error as Inference, registration};
use zklora_proof::{
    checked_manifest::CheckedManifest, keys::KeyStore, srs::Srs, verifier::SrsPolicy,
};

use crate::Error;

/// Most bits of a weight of a registered adapter, the sign included.
pub const BITS: u32 = zklora_inference::schedule::LIMB;

/// Whether an adapter is registered. The proof was verified for its manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// Every committed weight is an integer of [`BITS`] bits.
    Registered,
    /// There is no proof of that.
    NotRegistered,
}

impl Registration {
    /// Whether it is registered.
    pub fn is_registered(self) -> bool {
        self == Registration::Registered
    }

    /// What was found earlier.
    pub fn of(is_registered: bool) -> Registration {
        if is_registered { Registration::Registered } else { Registration::NotRegistered }
    }

    /// Verifies the registration in the public folder of an adapter, if there is one. `folder` is
    /// the public folder, or the one that has it.
    ///
    /// # Errors
    /// The file is too long, or is not a registration of this adapter.
    pub fn of_folder(
        folder: &Path,
        manifest: &CheckedManifest,
        srs: &Srs,
        keys: &KeyStore,
        policy: SrsPolicy,
    ) -> Result<Registration, Error> {
        let public = folder::public_folder(folder)?;
        Registration::of_public(&public, manifest, srs, keys, policy)
    }

    /// The same for the public folder itself.
    ///
    /// # Errors
    /// Those of [`Registration::of_folder`].
    pub fn of_public(
        public: &Path,
        manifest: &CheckedManifest,
        srs: &Srs,
        keys: &KeyStore,
        policy: SrsPolicy,
    ) -> Result<Registration, Error> {
        let what = public.join(REGISTRATION).display().to_string();
        match folder::read_registration(public) {
            Ok(None) => Ok(Registration::NotRegistered),
            Ok(Some(proof)) => verify(&what, &proof, manifest, srs, keys, policy),
            Err(Artifact::File(error)) if error.kind == Kind::TooLarge => {
                Err(Error::Registration { what, adapter: manifest.id(), why: error.why })
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl fmt::Display for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Registration::Registered => {
                write!(f, "registered: every weight is an integer of {BITS} bits")
            }
            Registration::NotRegistered => f.write_str("not registered"),
        }
    }
}

/// Verifies a registration. `what` names its file, or who sent it.
///
/// # Errors
/// It is not one of this adapter.
pub fn verify(
    what: &str,
    proof: &[u8],
    manifest: &CheckedManifest,
    srs: &Srs,
    keys: &KeyStore,
    policy: SrsPolicy,
) -> Result<Registration, Error> {
    let why = match registration::verify(srs, keys, manifest, proof, policy) {
        Ok(_) => return Ok(Registration::Registered),
        // The SRS is not the manifest's, or not trusted: that says nothing of the file.
        Err(Inference::Proof(error)) => return Err(error.into()),
        Err(Inference::Rejected(_)) => {
            format!("it does not show that every weight is an integer of {BITS} bits")
        }
        Err(error) => error.to_string(),
    };
    Err(Error::Registration { what: what.into(), adapter: manifest.id(), why })
}
