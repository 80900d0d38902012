//! The ids of adapters and of sessions: 32 bytes, written as 64 hex digits.

use std::{fmt, str::FromStr};

use crate::{Error, error::Inner};

/// The id of an adapter: the hash of its public manifest, which has a commitment to every weight.
///
/// A user records it before the session ("pins" it). `zklora compile` prints it.
///
/// ```
/// let text = "514cb3aaeb990f228033d3619571550e59cc0da546f6db3793c9ecfe4caae3e7";
/// let id: zklora::AdapterId = text.parse()?;
/// assert_eq!(id.to_string(), text);
/// # Ok::<(), zklora::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AdapterId([u8; 32]);

/// 32 random bytes that the user draws for a session, and sends to the contributor before it.
///
/// They tie the proof to this session: a proof of another one, with the same rows or not, is
/// refused. Keep it with the pin, and use it once.
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
        Ok(SessionId(*zklora_proof::masks::os_bytes().map_err(Inner::from)?))
    }
}

macro_rules! hex_id {
    ($id:ident) => {
        impl $id {
            /// The bytes.
            pub fn to_bytes(self) -> [u8; 32] {
                self.0
            }
        }

        impl From<[u8; 32]> for $id {
            fn from(bytes: [u8; 32]) -> $id {
                $id(bytes)
            }
        }

        impl FromStr for $id {
            type Err = Error;

            /// From 64 hex digits.
            fn from_str(text: &str) -> Result<$id, Error> {
                let mut bytes = [0u8; 32];
                hex::decode_to_slice(text.trim(), &mut bytes)
                    .map_err(|_| Inner::Id(zklora_files::text::shortened(text, 80)))?;
                Ok($id(bytes))
            }
        }

        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

hex_id!(AdapterId);
hex_id!(SessionId);

impl AdapterId {
    pub(crate) fn inner(self) -> zklora_proof::manifest::AdapterId {
        zklora_proof::manifest::AdapterId(self.0)
    }
}
