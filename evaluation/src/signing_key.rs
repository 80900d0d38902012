//! The contributor's Ed25519 key (RFC 8032). The secret lies in a file of mode 0600.

use std::path::Path;

use ed25519_dalek::{Signer, SigningKey as Secret, VerifyingKey};
use rand_core::{OsRng, RngCore};
use zeroize::Zeroizing;
use zklora_files::Access;

use crate::{Error, digest::Digest};

const MAX_KEY_FILE: u64 = 4096;

/// A secret key. It is zeroised when it is dropped, and never shown.
pub struct SigningKey(Secret);

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey(of {}, not shown)", self.public())
    }
}

impl SigningKey {
    /// A new key from the system's generator.
    pub fn generate() -> SigningKey {
        let mut seed = Zeroizing::new([0; 32]);
        OsRng.fill_bytes(seed.as_mut());
        SigningKey(Secret::from_bytes(&seed))
    }

    /// Reads a key file: 64 hex digits.
    ///
    /// # Errors
    /// The file cannot be read, is no key, or other users can read it.
    pub fn read(path: &Path) -> Result<SigningKey, Error> {
        let bytes = Zeroizing::new(zklora_files::read(path, MAX_KEY_FILE)?);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let metadata =
                std::fs::metadata(path).map_err(|e| zklora_files::Error::new(path, e))?;
            let mode = metadata.permissions().mode() & 0o777;
            if mode & 0o077 != 0 {
                let why = format!("mode {mode:o}: other users can read the key; chmod 600 it");
                return Err(zklora_files::Error::new(path, why).into());
            }
        }
        let mut seed = Zeroizing::new([0; 32]);
        hex::decode_to_slice(bytes.trim_ascii(), seed.as_mut()).map_err(|_| {
            zklora_files::Error::new(path, "a key file holds 64 hex digits, as offer make wrote it")
        })?;
        Ok(SigningKey(Secret::from_bytes(&seed)))
    }

    /// Writes the key file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let seed = Zeroizing::new(self.0.to_bytes());
        let mut text = Zeroizing::new(hex::encode(&seed[..]));
        text.push('\n');
        Ok(zklora_files::write(path, text.as_bytes(), Access::Private)?)
    }

    /// The public key.
    pub fn public(&self) -> Digest {
        Digest(self.0.verifying_key().to_bytes())
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

/// Whether a signature of a message is one of this key. Keys of small order and other encodings of
/// a signature are refused.
pub(crate) fn verify(key: &Digest, message: &[u8], signature: &[u8; 64]) -> bool {
    let signature = ed25519_dalek::Signature::from_bytes(signature);
    VerifyingKey::from_bytes(&key.0).is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
}
