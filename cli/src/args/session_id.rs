//! Session ids on the command line.

/// The 32 random bytes that a user drew for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionId(pub [u8; 32]);

/// Parses the value of `--session-id`.
pub(super) fn session_id(text: &str) -> Result<SessionId, String> {
    let mut id = [0u8; 32];
    hex::decode_to_slice(text.trim(), &mut id)
        .map_err(|_| "a session id is 64 hex digits: 32 random bytes")?;
    Ok(SessionId(id))
}
