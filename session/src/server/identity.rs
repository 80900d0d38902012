//! The identity of a client: the name of its bearer token, its certificate, or anonymous.

use std::path::Path;

use tonic::{Status, metadata::MetadataMap};

use crate::Error;

/// The identity of all clients of a server that asks for neither tokens nor certificates.
pub const ANONYMOUS: &str = "anonymous";

const MAX_TOKEN_FILE: u64 = 1 << 20;
/// Shortest token, in characters: 80 bits in hex.
const MIN_TOKEN: usize = 20;
const MAX_TOKEN: usize = 512;

/// The tokens that a server accepts. Only their hashes are kept.
#[derive(Clone)]
pub struct Tokens {
    known: Vec<(String, blake3::Hash)>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokens({}, not shown)", self.known.len())
    }
}

impl Tokens {
    /// Reads a token file: one `NAME TOKEN` a line. Empty lines and lines that begin with `#` are
    /// skipped.
    ///
    /// # Errors
    /// [`Error::Artifact`] names an invalid line, or says that other users can read the file.
    pub fn read(path: &Path) -> Result<Tokens, Error> {
        let bytes = zeroize::Zeroizing::new(zklora_files::read(path, MAX_TOKEN_FILE)?);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode =
                std::fs::metadata(path).map_err(|e| Error::file(path, e))?.permissions().mode();
            if mode & 0o077 != 0 {
                return Err(Error::file(
                    path,
                    format!(
                        "mode {:o}: other users can read the tokens; chmod 600 it",
                        mode & 0o777
                    ),
                ));
            }
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| Error::file(path, "not text"))?;
        let mut known: Vec<(String, blake3::Hash)> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let refuse = |why: &str| Error::file(path, format!("line {}: {why}", number + 1));
            let mut parts = line.split_whitespace();
            let (Some(name), Some(token), None) = (parts.next(), parts.next(), parts.next()) else {
                return Err(refuse("expected a name and a token, separated by a space"));
            };
            if !(MIN_TOKEN..=MAX_TOKEN).contains(&token.len())
                || !token.bytes().all(|b| b.is_ascii_graphic())
            {
                return Err(refuse(
                    "a token has 20 to 512 characters; make one with `openssl rand -hex 32`",
                ));
            }
            if name.len() > 64 || name.chars().any(char::is_control) {
                return Err(refuse("a name has at most 64 bytes"));
            }
            let hash = blake3::hash(token.as_bytes());
            if known.iter().any(|(other, known)| other == name || *known == hash) {
                return Err(refuse("an earlier line has this name or token"));
            }
            known.push((name.to_string(), hash));
        }
        if known.is_empty() {
            return Err(Error::file(path, "no tokens: write one `NAME TOKEN` a line"));
        }
        Ok(Tokens { known })
    }

    /// The name of a token. Takes the same time for any token of one length: it compares hashes,
    /// and all of them.
    fn name_of(&self, token: &str) -> Option<&str> {
        let hash = blake3::hash(token.as_bytes());
        let mut found = None;
        for (name, known) in &self.known {
            // `blake3::Hash` compares in constant time.
            if *known == hash {
                found = Some(name.as_str());
            }
        }
        found
    }
}

/// The identity of the client, which the middleware puts into each request.
#[derive(Debug, Clone)]
pub(super) struct ClientName(pub String);

/// The client's identity: the name of its token if the server asks for tokens, else the digest of
/// its certificate, else [`ANONYMOUS`].
pub(super) fn identify(
    tokens: Option<&Tokens>,
    metadata: &MetadataMap,
    certificate: Option<&[u8]>,
) -> Result<String, Status> {
    let Some(tokens) = tokens else {
        return Ok(certificate.map_or_else(
            || ANONYMOUS.to_string(),
            |der| format!("cert:{}", &blake3::hash(der).to_hex()[..32]),
        ));
    };
    let header = metadata.get("authorization").ok_or_else(|| {
        Status::unauthenticated(
            "this server requires a token: pass the one that the contributor gave you \
             (--token-file)",
        )
    })?;
    let token = header.to_str().ok().and_then(|value| value.strip_prefix("Bearer "));
    match token.and_then(|token| tokens.name_of(token)) {
        Some(name) => Ok(name.to_string()),
        None => Err(Status::unauthenticated(
            "this server does not know this token: ask the contributor for a new one",
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn tokens(text: &str) -> Result<Tokens, Error> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        Tokens::read(file.path())
    }

    #[test]
    fn only_an_exact_token_names_its_owner() {
        let known = tokens("# people\nalice 00000000000000000000a\n\n bob 00000000000000000000b\n")
            .unwrap();
        assert_eq!(known.name_of("00000000000000000000a"), Some("alice"));
        assert_eq!(known.name_of("00000000000000000000b"), Some("bob"));
        for other in
            ["", "alice", "00000000000000000000", "00000000000000000000aa", "00000000000000000000A"]
        {
            assert_eq!(known.name_of(other), None);
        }
        let mut metadata = MetadataMap::new();
        assert!(identify(Some(&known), &metadata, None).is_err());
        for wrong in
            ["00000000000000000000a", "Bearer 00000000000000000000c", "Basic 00000000000000000000a"]
        {
            metadata.insert("authorization", wrong.parse().unwrap());
            assert!(identify(Some(&known), &metadata, None).is_err(), "{wrong}");
        }
        metadata.insert("authorization", "Bearer 00000000000000000000a".parse().unwrap());
        assert_eq!(identify(Some(&known), &metadata, None).unwrap(), "alice");
        assert_eq!(identify(None, &metadata, None).unwrap(), ANONYMOUS);
        assert!(format!("{known:?}").contains("not shown"));
    }

    #[test]
    fn token_files_that_could_be_misread_are_refused() {
        for (text, why) in [
            ("", "no tokens"),
            ("alice", "a name and a token"),
            ("alice short", "20 to 512"),
            ("alice 00000000000000000000a x", "a name and a token"),
            ("alice 00000000000000000000a\nalice 00000000000000000000b", "earlier line"),
            ("alice 00000000000000000000a\nbob 00000000000000000000a", "earlier line"),
        ] {
            assert!(tokens(text).unwrap_err().to_string().contains(why), "{text}");
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
            assert!(Tokens::read(file.path()).unwrap_err().to_string().contains("chmod 600"));
        }
    }
}
