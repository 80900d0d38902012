//! Makes a delivery: audits the adapter, encrypts it, reads it back, and signs.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;
use zklora_artifacts::{folder as names, folder::Artifacts, secret_files, weights_file};
use zklora_evaluation::{
    Error as Statement,
    answering::Answering,
    delivery::{Delivery, DeliveryKey, DeliveryTerms, decrypt, encrypt},
    digest::Digest,
    evidence::{CIPHERTEXT, DELIVERY},
    identity::Identity,
};
use zklora_files::{Access, MAX_FILE};
use zklora_proof::srs::Srs;

use super::settle::{ADAPTER, check_files};
use crate::Error;

/// The files of a PEFT adapter that are delivered.
const PEFT: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];
const EXPORT: &str = "export.json";

/// What is delivered.
#[derive(Debug, Clone)]
pub struct DeliverOptions {
    /// The folder of the identity.
    pub identity: PathBuf,
    /// The adapter: a PEFT folder, or a folder that `zklora export` wrote.
    pub adapter: PathBuf,
    /// The request whose answer the delivery is for.
    pub request: Digest,
    /// The price.
    pub price: String,
    /// Until when the key is handed over.
    pub key_by: String,
    /// Until when the buyer settles.
    pub verdict_by: String,
    /// The folder of the two public files.
    pub out: PathBuf,
}

/// A delivery.
#[derive(Debug, Clone)]
pub struct Delivered {
    /// The statement.
    pub delivery: Delivery,
    /// The digest of the statement's envelope.
    pub digest: Digest,
    /// The file of the key, which is handed over for the price.
    pub key: PathBuf,
    /// The two files for the buyer.
    pub files: [PathBuf; 2],
}

/// A file of the archive: its name and its bytes.
type File = (String, Zeroizing<Vec<u8>>);

/// The files of an adapter.
fn adapter_files(folder: &Path) -> Result<Vec<File>, Error> {
    let read = |name: &str| -> Result<File, Error> {
        let bytes = Zeroizing::new(zklora_files::read(&folder.join(name), MAX_FILE)?);
        Ok((format!("{ADAPTER}{name}"), bytes))
    };
    if folder.join(PEFT[0]).is_file() {
        return PEFT.into_iter().map(read).collect();
    }
    if !folder.join(EXPORT).is_file() {
        return Err(Error::file(
            folder,
            "no adapter_config.json and no export.json here: name the adapter's PEFT folder, or a \
             folder that `zklora export` wrote",
        ));
    }
    let failed = |error| Error::file(folder, error);
    let mut files = vec![read(EXPORT)?];
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if let Some(name) = name.to_str().filter(|name| name.ends_with(".onnx")) {
            files.push(read(name)?);
        }
    }
    files.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(files)
}

/// Removes a file, unless it is kept.
struct RemoveOnDrop<'a>(Option<&'a Path>);

impl RemoveOnDrop<'_> {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for RemoveOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(path) = self.0 {
            let _ = zklora_files::remove(path);
        }
    }
}

/// Delivers.
///
/// # Errors
/// The adapter is not the committed one, or there is no such answer.
pub fn deliver(
    artifacts: &Artifacts,
    srs: &Srs,
    options: &DeliverOptions,
) -> Result<Delivered, Error> {
    let identity = Identity::open(&options.identity)?;
    let adapter_id = Digest(artifacts.manifest.id().0);
    let (offer, answer, lineage) =
        Answering::stored_answer(&identity, &adapter_id, &options.request)?;
    zklora_files::create_folder(&options.out, Access::Private)?;
    let (path, statement) = (options.out.join(CIPHERTEXT), options.out.join(DELIVERY));
    if path.exists() || statement.exists() {
        let why = "there is a delivery here, with a key of its own: name another folder";
        return Err(Error::file(&options.out, why));
    }
    let terms = DeliveryTerms {
        answer: answer.digest()?,
        key_by: options.key_by.clone(),
        price: options.price.clone(),
        verdict_by: options.verdict_by.clone(),
    };
    terms.check()?;
    let opening = secret_files::opening_bytes(&artifacts.manifest.id(), &artifacts.mask_key)?;
    let mut files = vec![
        (names::OPENING.to_string(), opening),
        (names::WEIGHTS.to_string(), weights_file::to_bytes(&artifacts.weights)),
    ];
    files.extend(adapter_files(&options.adapter)?);
    let key = DeliveryKey::generate();
    let contents = files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
    let ciphertext = encrypt(&key, contents)?;
    zklora_files::write(&path, &ciphertext, Access::Private)?;
    // Without its statement it is no delivery.
    let unfinished = RemoveOnDrop(Some(&path));
    // As the buyer will: what is on the disk, with the key's text.
    let ciphertext = zklora_files::read(&path, MAX_FILE)?;
    let entries = decrypt(&DeliveryKey::parse(key.expose())?, &ciphertext)?;
    let checked = check_files(&entries, &artifacts.manifest, srs)?;
    if let Err(why) = checked.map(|_| ()) {
        return Err(Statement::Mismatch {
            what: options.adapter.display().to_string(),
            why: format!(
                "it is not the adapter that was committed to: {why} (an adapter that needs its base \
                 model to be read is delivered as a folder that `zklora export` wrote)"
            ),
        }
        .into());
    }
    let names = entries.into_iter().map(|entry| entry.name).collect();
    let bytes = Delivery::sign(&identity.key, &offer, terms, &key, (&ciphertext, names))?;
    let digest = Digest::of(&bytes);
    let key_file = lineage.delivery_key(&digest)?;
    // The key first: without it, a statement is a promise that cannot be kept.
    zklora_files::write(&key_file, key.expose().as_bytes(), Access::Private)?;
    zklora_files::write(&statement, &bytes, Access::Private)?;
    unfinished.keep();
    let delivery = Delivery::read(&bytes, &offer, &answer.digest()?)?;
    Ok(Delivered { delivery, digest, key: key_file, files: [path, statement] })
}
