//! The first record of a session's log.

use std::path::Path;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::Error;

const FORMAT: &str = "zklora-session-log";
const VERSION: u32 = 1;

/// The first record of a log.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Adapter id, hex.
    pub adapter_id: String,
    /// In the contributor's log, the client. In the user's log, the URL of the contributor.
    pub peer: String,
    format: String,
    /// In the contributor's log, the BLAKE3 hash of the session key. In the user's log, the key.
    #[serde(with = "hex32")]
    pub key: [u8; 32],
    /// Session id.
    #[serde(with = "hex32")]
    pub session: [u8; 32],
    version: u32,
}

impl Drop for Header {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl std::fmt::Debug for Header {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Header(session {}, key not shown)", hex::encode(self.session))
    }
}

impl Header {
    /// A header of this version.
    pub fn new(adapter_id: String, peer: String, session: &[u8; 32], key: &[u8; 32]) -> Header {
        let format = FORMAT.into();
        Header { adapter_id, peer, format, key: *key, session: *session, version: VERSION }
    }

    pub(super) fn parse(path: &Path, payload: &[u8]) -> Result<Header, Error> {
        let header: Header = serde_json::from_slice(payload)
            .map_err(|e| Error::file(path, format!("not the log of a session: {e}")))?;
        if header.format != FORMAT || header.version != VERSION {
            return Err(Error::file(path, "the log of a session in another format or version"));
        }
        Ok(header)
    }
}

/// 32 bytes as hex.
mod hex32 {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use zeroize::Zeroizing;

    pub fn serialize<S: Serializer>(bytes: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(hex::encode(bytes)))
    }

    pub fn deserialize<'a, D: Deserializer<'a>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        let mut bytes = [0u8; 32];
        hex::decode_to_slice(&*text, &mut bytes)
            .map_err(|_| D::Error::custom("expected 64 hex digits"))?;
        Ok(bytes)
    }
}
