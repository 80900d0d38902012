//! The folder of a contributor's identity: its key, and for each lineage of adapters what answers
//! told and which requests were answered.
//!
//! ```text
//! key                                        the secret key, mode 0600
//! lock                                       held while the identity changes
//! rotations.json                             earlier keys
//! lineages/NAME/adapters                     the adapter ids of the lineage, one a line
//! lineages/NAME/spent.jsonl                  the charges
//! lineages/NAME/offers/DIGEST.json           the offers that were made
//! lineages/NAME/requests/DIGEST/…            request.json, units.bin, and answer.json or scores
//! lineages/NAME/deliveries/DIGEST.key        keys of deliveries
//! ```

use std::{
    fs,
    path::{Path, PathBuf},
};

use zklora_files::Access;

use crate::{
    Error, canonical,
    digest::Digest,
    envelope::Envelope,
    offer::{self, SignedOffer},
    request::is_name,
    signing_key::SigningKey,
    spending::Spending,
};

const KEY: &str = "key";
const LOCK: &str = "lock";
const NEXT_KEY: &str = "key.next";
const ROTATIONS: &str = "rotations.json";
const LINEAGES: &str = "lineages";
const ADAPTERS: &str = "adapters";
const OFFERS: &str = "offers";
const MAX_OFFER: u64 = 4 << 20;
const MAX_LIST: u64 = 1 << 20;

/// The lineage of adapters that no other is named for.
pub const DEFAULT_LINEAGE: &str = "adapter";

/// An identity.
#[derive(Debug)]
pub struct Identity {
    folder: PathBuf,
    /// The key.
    pub key: SigningKey,
    /// Earlier keys.
    pub rotations: Vec<Envelope>,
}

impl Identity {
    /// Opens an identity, and makes it if the folder has none.
    ///
    /// # Errors
    /// The folder cannot be read or written.
    pub fn open_or_create(folder: &Path) -> Result<Identity, Error> {
        let key = folder.join(KEY);
        if !key.try_exists().map_err(|error| zklora_files::Error::new(&key, error))? {
            // A key that vanished must not be replaced while its lineages are there.
            if folder.join(LINEAGES).exists() {
                let why = "this identity has lineages and no key: restore it from a backup";
                return Err(zklora_files::Error::new(&key, why).into());
            }
            zklora_files::create_folder(folder, Access::Private)?;
            SigningKey::generate().write(&key)?;
        }
        Identity::open(folder)
    }

    /// Opens an identity.
    ///
    /// # Errors
    /// The folder has none.
    pub fn open(folder: &Path) -> Result<Identity, Error> {
        let path = folder.join(KEY);
        if !path.exists() {
            let why = "there is no identity here: `zklora offer make` makes one";
            return Err(zklora_files::Error::new(folder, why).into());
        }
        let list = folder.join(ROTATIONS);
        let rotations: Vec<Envelope> = match list.exists() {
            true => canonical::parse(&zklora_files::read(&list, MAX_LIST)?, ROTATIONS)?,
            false => Vec::new(),
        };
        let mut key = SigningKey::read(&path)?;
        // A rotation that ended before its last step.
        let next = folder.join(NEXT_KEY);
        if let Some(last) = rotations.last().filter(|_| next.exists())
            && offer::rotated_to(last)? != key.public()
            && offer::rotated_to(last)? == SigningKey::read(&next)?.public()
        {
            fs::rename(&next, &path).map_err(|error| zklora_files::Error::new(&path, error))?;
            key = SigningKey::read(&path)?;
        }
        Ok(Identity { folder: folder.to_path_buf(), key, rotations })
    }

    /// Replaces the key. The old one signs the new one, and is then destroyed. Returns the new key.
    /// A crash leaves the old key, or a rotation that opening the identity completes.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn rotate(self) -> Result<Digest, Error> {
        let _lock = self.lock()?;
        // Another process may have rotated since this identity was opened.
        let mut this = Identity::open(&self.folder)?;
        let new = SigningKey::generate();
        this.rotations.push(offer::rotation(&this.key, &new.public())?);
        let rotations = canonical::to_bytes(&this.rotations)?;
        let (next, path) = (this.folder.join(NEXT_KEY), this.folder.join(KEY));
        new.write(&next)?;
        zklora_files::write(&this.folder.join(ROTATIONS), &rotations, Access::Private)?;
        fs::rename(&next, &path).map_err(|error| zklora_files::Error::new(&path, error))?;
        Ok(new.public())
    }

    /// The lineage of an adapter. An adapter belongs to one lineage, and a new lineage is made for
    /// the first of its adapters.
    ///
    /// # Errors
    /// Another lineage has the adapter.
    pub fn lineage(&self, name: &str, adapter: &Digest) -> Result<Lineage, Error> {
        if !is_name(name) || name.starts_with('.') {
            return Err(Error::Refused(
                "the name of a lineage has 1 to 64 letters, digits, `.`, `_`, `-`, and does not \
                 begin with `.`"
                    .into(),
            ));
        }
        // Two processes must not put one adapter into two lineages.
        let _lock = self.lock()?;
        if let Some(other) = self.lineage_of(adapter)?.filter(|other| other.name != name) {
            return Err(Error::Refused(format!(
                "adapter {adapter} belongs to lineage {}: its budget is there",
                other.name
            )));
        }
        let lineage = self.named(name);
        zklora_files::create_folder(&lineage.folder, Access::Private)?;
        let mut adapters = lineage.adapters()?;
        if !adapters.contains(adapter) {
            adapters.push(*adapter);
            let lines: String = adapters.iter().map(|adapter| format!("{adapter}\n")).collect();
            let path = lineage.folder.join(ADAPTERS);
            zklora_files::write(&path, lines.as_bytes(), Access::Private)?;
        }
        Ok(lineage)
    }

    /// Locks the identity until the file is dropped.
    fn lock(&self) -> Result<fs::File, Error> {
        let path = self.folder.join(LOCK);
        let failed = |error| zklora_files::Error::new(&path, error);
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(false);
        let file = options.open(&path).map_err(failed)?;
        file.lock().map_err(failed)?;
        Ok(file)
    }

    fn named(&self, name: &str) -> Lineage {
        Lineage { name: name.into(), folder: self.folder.join(LINEAGES).join(name) }
    }

    /// All lineages, by name.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn lineages(&self) -> Result<Vec<Lineage>, Error> {
        let folder = self.folder.join(LINEAGES);
        if !folder.exists() {
            return Ok(Vec::new());
        }
        let failed = |error| zklora_files::Error::new(&folder, error);
        let mut found = Vec::new();
        for entry in fs::read_dir(&folder).map_err(failed)? {
            if let Some(name) = entry.map_err(failed)?.file_name().to_str().filter(|n| is_name(n)) {
                found.push(self.named(name));
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// The lineage that has an adapter.
    ///
    /// # Errors
    /// A lineage cannot be read.
    pub fn lineage_of(&self, adapter: &Digest) -> Result<Option<Lineage>, Error> {
        for lineage in self.lineages()? {
            if lineage.adapters()?.contains(adapter) {
                return Ok(Some(lineage));
            }
        }
        Ok(None)
    }
}

/// A lineage: an adapter with its recompilations.
#[derive(Debug, Clone)]
pub struct Lineage {
    /// Its name.
    pub name: String,
    folder: PathBuf,
}

impl Lineage {
    /// Its adapters, oldest first.
    ///
    /// # Errors
    /// The list cannot be read.
    pub fn adapters(&self) -> Result<Vec<Digest>, Error> {
        let path = self.folder.join(ADAPTERS);
        if !path.exists() {
            return Ok(Vec::new());
        }
        let bytes = zklora_files::read(&path, MAX_LIST)?;
        let text = String::from_utf8_lossy(&bytes);
        let lines = text.lines().filter(|line| !line.is_empty());
        let adapters = lines.map(|line| line.parse().map_err(|why| Error::form(ADAPTERS, why)));
        adapters.collect()
    }

    /// Its charges.
    pub fn spending(&self) -> Spending {
        Spending::new(&self.folder.join("spent.jsonl"))
    }

    /// Keeps an offer: its answers are delivered for it, also after a new offer.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep_offer(&self, offer: &SignedOffer) -> Result<(), Error> {
        let folder = self.folder.join(OFFERS);
        zklora_files::create_folder(&folder, Access::Private)?;
        let path = folder.join(format!("{}.json", offer.digest));
        Ok(zklora_files::write(&path, &offer.bytes, Access::Private)?)
    }

    /// An offer that was made.
    ///
    /// # Errors
    /// It was not made here.
    pub fn offer(&self, digest: &Digest) -> Result<SignedOffer, Error> {
        let path = self.folder.join(OFFERS).join(format!("{digest}.json"));
        SignedOffer::parse(&zklora_files::read(&path, MAX_OFFER)?)
    }

    /// The folder of a request. It may not exist.
    pub fn request(&self, digest: &Digest) -> PathBuf {
        self.folder.join("requests").join(digest.to_string())
    }

    /// The file of a delivery's key. Its folder is made.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn delivery_key(&self, statement: &Digest) -> Result<PathBuf, Error> {
        let folder = self.folder.join("deliveries");
        zklora_files::create_folder(&folder, Access::Private)?;
        Ok(folder.join(format!("{statement}.key")))
    }
}
