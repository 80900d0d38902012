//! What a buyer's tool keeps beside the folders of evaluations, in zklora's folder below
//! `$XDG_STATE_HOME` or `~/.local/state`.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use rand_core::{OsRng, RngCore};
use zeroize::Zeroizing;
use zklora_files::Access;

use crate::Error;

/// Where it is. Without a home folder, nothing is kept.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// Units that were sent, and samples that were asked for ([`super::SentUnits`]).
    pub sent: Option<PathBuf>,
    /// The user's secret, which marks what this user's tool wrote into a folder.
    pub secret: Option<PathBuf>,
}

impl Memory {
    /// The usual places, but for what the user names.
    pub fn usual(sent: Option<PathBuf>) -> Memory {
        let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let home = || Some(PathBuf::from(folder("HOME")?).join(".local/state"));
        let state = folder("XDG_STATE_HOME").map(PathBuf::from).or_else(home);
        let file = |name: &str| Some(state.as_ref()?.join("zklora").join(name));
        Memory { sent: sent.or_else(|| file("sent-units.jsonl")), secret: file("secret") }
    }

    /// The user's secret; none if there is none yet.
    pub(super) fn secret(&self) -> Result<Option<Zeroizing<[u8; 32]>>, Error> {
        let path = self.secret.as_deref().filter(|path| path.exists());
        path.map(read_secret).transpose()
    }

    /// The user's secret, made if there is none yet; none without a home.
    pub(super) fn secret_or_new(&self) -> Result<Option<Zeroizing<[u8; 32]>>, Error> {
        match &self.secret {
            Some(path) if !path.exists() => make_secret(path),
            _ => Ok(()),
        }?;
        self.secret()
    }
}

/// Reads 64 hex digits; none if the file holds something else.
pub(super) fn read_hex(path: &Path) -> Result<Option<Zeroizing<[u8; 32]>>, Error> {
    let text = Zeroizing::new(zklora_files::read(path, 4096)?);
    let mut secret = Zeroizing::new([0; 32]);
    let is_hex = hex::decode_to_slice(text.trim_ascii(), secret.as_mut()).is_ok();
    Ok(is_hex.then_some(secret))
}

fn read_secret(path: &Path) -> Result<Zeroizing<[u8; 32]>, Error> {
    read_hex(path)?.ok_or_else(|| {
        let why = "not 64 hex digits: remove it; a new one is made, and `zklora evaluate` and \
                   `settle` have to be run again for the reports of older folders";
        Error::file(path, why)
    })
}

fn make_secret(path: &Path) -> Result<(), Error> {
    let folder = zklora_files::folder_of(path);
    zklora_files::create_folder(folder, Access::Private)?;
    let mut secret = Zeroizing::new([0; 32]);
    OsRng.fill_bytes(secret.as_mut());
    let text = Zeroizing::new(hex::encode(&secret[..]));
    let failed = |error: std::io::Error| Error::file(path, error);
    let mut file = zklora_files::temporary_in(folder).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(()),
        // Another process made it.
        Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed(error.error)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_secret_is_made_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/zklora/secret");
        let memory = Memory { sent: None, secret: Some(path.clone()) };
        assert!(memory.secret().unwrap().is_none() && !path.exists());
        let made: Vec<[u8; 32]> = std::thread::scope(|scope| {
            let make = || *memory.secret_or_new().unwrap().unwrap();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(made.iter().all(|secret| *secret == made[0] && *secret != [0; 32]));
        assert_eq!(*memory.secret().unwrap().unwrap(), made[0]);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        std::fs::write(&path, "no secret").unwrap();
        assert!(memory.secret_or_new().is_err(), "it is not replaced silently");
        assert!(Memory::default().secret_or_new().unwrap().is_none());
    }
}
