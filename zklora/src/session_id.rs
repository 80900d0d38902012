//! The id of a session.

use std::{fmt, str::FromStr};

use crate::{Error, error::Inner};

/// 32 random bytes that the user draws for a session, and sends to the contributor before it.
///
/// They tie the proof to this session: a proof of another one, with the same rows or not, is
/// refused.
///
/// ```
/// let id = zklora::SessionId::random()?;
/// assert_eq!(id.to_string().parse::<zklora::SessionId>()?, id);
/// # Ok::<(), zklora::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId([u8; 32]);

impl SessionId {
    /// A new id from the operating system's random generator.
    ///
    /// # Errors
    /// The generator failed.
    pub fn random() -> Result<SessionId, Error> {
        Ok(SessionId(*zklora_proof::masks::os_bytes()?))
    }

    /// The bytes.
    pub fn to_bytes(self) -> [u8; 32] {
        self.0
    }
}

impl From<[u8; 32]> for SessionId {
    fn from(bytes: [u8; 32]) -> SessionId {
        SessionId(bytes)
    }
}

impl FromStr for SessionId {
    type Err = Error;

    /// From 64 hex digits.
    fn from_str(text: &str) -> Result<SessionId, Error> {
        let mut bytes = [0u8; 32];
        hex::decode_to_slice(text.trim(), &mut bytes)
            .map_err(|_| Inner::SessionId(zklora_files::text::shortened(text, 80)))?;
        Ok(SessionId(bytes))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
