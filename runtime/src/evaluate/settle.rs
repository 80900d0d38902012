//! Settling: what was delivered is compared with what was promised, number by number.
//!
//! A contributor is contradicted only by its own signatures. Whatever depends on this machine, on
//! its files or on a format that it does not know leaves the question open.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;
use zklora_artifacts::{folder as names, secret_files, weights_file};
use zklora_evaluation::{
    Error as Statement,
    answer::Answer,
    archive::{self, Entry},
    delivery::{Delivery, QUANTISATION, check_header, decrypt},
    digest::Digest,
    evidence::{self, Evidence, SETTLEMENT},
    offer::SignedOffer,
    request::{self, FullRequest},
    unit_scores::Scorer,
};
use zklora_files::Access;
use zklora_integer::unit::Unit;
use zklora_proof::{
    checked_manifest::CheckedManifest, commit, manifest::AdapterId, srs::Srs, weights::Weights,
};

use super::{
    folder::{EVIDENCE, Folder},
    memory::Memory,
    scorer::ModelScorer,
    terms::{CheckedTerms, OfferFrom, TermsOptions},
};
use crate::{Error, audit};

/// The folder of the adapter's own files in an archive.
pub(super) const ADAPTER: &str = "adapter/";
/// Units that are scored between two reports of progress.
const AT_ONCE: usize = 64;

/// The verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// Before payment: everything that can be checked without the key is right.
    Payable,
    /// The delivered adapter is the pinned one, and every number of the answer is its own.
    Settled,
    /// The contributor's own signatures contradict each other.
    Contradicted,
    /// This tool, or what it was given, cannot tell.
    Undecidable,
}

/// What settling found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    /// The verdict.
    pub verdict: Verdict,
    /// Why.
    pub reasons: Vec<String>,
    /// The contributor's key.
    pub key: Option<Digest>,
    /// The adapter.
    pub adapter_id: Option<Digest>,
    /// The answer.
    pub answer: Option<Digest>,
    /// The price, as the statement says.
    pub price: Option<String>,
    /// Until when the key is handed over.
    pub key_by: Option<String>,
    /// Until when the buyer settles.
    pub verdict_by: Option<String>,
    /// The digest of the key that is paid for.
    pub key_digest: Option<Digest>,
    /// Units that were scored again.
    pub units: u64,
    /// Where the evidence is.
    pub evidence: Option<PathBuf>,
    /// Where the adapter is.
    pub adapter: Option<PathBuf>,
    /// Whether the adapter is registered; none if that was not looked at, as in evidence, which has
    /// no registration.
    #[serde(default)]
    pub registered: Option<bool>,
}

/// What a buyer or a third party has.
#[derive(Debug, Clone)]
pub struct SettleOptions {
    /// The own model.
    pub terms: TermsOptions,
    /// The key's file; none checks what can be checked before payment.
    pub key: Option<PathBuf>,
    /// The folder of the delivery; none is the buyer's.
    pub delivery: Option<PathBuf>,
    /// The folder for the delivered adapter; none writes no adapter.
    pub adapter_out: Option<PathBuf>,
    /// The key that the contributor is known by; none takes the offer's.
    pub signer: Option<Digest>,
    /// What marks the buyer's own files.
    pub memory: Memory,
}

impl Settlement {
    /// Whether a wrong file later on does not undo it.
    pub(super) fn is_decided(&self) -> bool {
        matches!(self.verdict, Verdict::Settled | Verdict::Contradicted)
    }

    fn new(verdict: Verdict, reason: impl Into<String>) -> Settlement {
        Settlement {
            verdict,
            reasons: vec![reason.into()],
            key: None,
            adapter_id: None,
            answer: None,
            price: None,
            key_by: None,
            verdict_by: None,
            key_digest: None,
            units: 0,
            evidence: None,
            adapter: None,
            registered: None,
        }
    }
}

/// Why settling ends early.
enum End {
    /// The contributor contradicted itself.
    Contradicted(String),
    /// Nothing can be said.
    Undecidable(String),
}

impl From<Error> for End {
    fn from(error: Error) -> End {
        End::Undecidable(error.to_string())
    }
}

impl From<Statement> for End {
    fn from(error: Statement) -> End {
        End::Undecidable(error.to_string())
    }
}

/// The files of a settlement, as bytes.
struct Files {
    offer: Vec<u8>,
    manifest: Vec<u8>,
    /// What is known of the registration: none in evidence.
    registration: Option<Option<Vec<u8>>>,
    request: Vec<u8>,
    units: Vec<u8>,
    answer: Vec<u8>,
    delivery: Vec<u8>,
    ciphertext: Vec<u8>,
    key: Option<Zeroizing<Vec<u8>>>,
}

/// Settles a buyer's folder. With a verdict CONTRADICTED, evidence is written into the folder.
///
/// # Errors
/// A file of the folder is missing, or the folder cannot be written. Everything else is a verdict.
pub fn settle(
    path: &Path,
    srs: &Srs,
    options: &SettleOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Settlement, Error> {
    const MAX_KEY: u64 = 4096;
    let folder = Folder::new(path, &options.memory);
    // Where it is judged: what is wrong does not replace what is here.
    let delivered = options.delivery.as_deref().map(|path| Folder::new(path, &options.memory));
    let delivered = delivered.as_ref().unwrap_or(&folder);
    if let Some(out) = &options.adapter_out {
        require_new(out)?;
    }
    let key = match &options.key {
        Some(key) => Some(Zeroizing::new(zklora_files::read(key, MAX_KEY)?)),
        None => None,
    };
    // What they say is judged, and not read here: a file that was changed is a verdict, too.
    let files = Files {
        offer: folder.read(evidence::OFFER, zklora_evaluation::envelope::MAX_BYTES)?,
        manifest: folder.manifest()?,
        registration: Some(folder.registration()?),
        request: folder.read(evidence::REQUEST, request::MAX_BYTES)?,
        units: folder.read(evidence::UNITS, zklora_files::MAX_FILE)?,
        answer: folder.read(evidence::ANSWER, zklora_evaluation::envelope::MAX_BYTES)?,
        delivery: delivered.read(evidence::DELIVERY, zklora_evaluation::envelope::MAX_BYTES)?,
        ciphertext: delivered.ciphertext()?,
        key,
    };
    let mut found = judge(&files, srs, options, progress);
    if found.verdict != Verdict::Undecidable && options.delivery.is_some() {
        folder.take_delivery(&files.delivery, &files.ciphertext)?;
    }
    if found.verdict == Verdict::Contradicted {
        let path = folder.file(EVIDENCE);
        zklora_files::write(&path, &write_evidence(&files)?, Access::Private)?;
        found.evidence = Some(path);
    }
    let is_first = || -> Result<bool, Error> {
        Ok(found.verdict == Verdict::Payable && folder.settlement()?.is_none())
    };
    if found.is_decided() || is_first()? {
        let json = serde_json::to_vec(&found).map_err(|error| Error::input(error.to_string()))?;
        folder.keep_settlement(&json)?;
    }
    Ok(found)
}

/// Checks that a folder for an adapter is new or empty: another adapter may be there.
fn require_new(folder: &Path) -> Result<(), Error> {
    let is_empty =
        |folder: &Path| std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
    match !folder.exists() || is_empty(folder) {
        true => Ok(()),
        false => Err(Error::file(folder, "it is there and not empty: name a new folder")),
    }
}

/// Judges evidence, as a third party.
///
/// # Errors
/// The file cannot be read. Everything else is a verdict.
pub fn settle_evidence(
    path: &Path,
    srs: &Srs,
    options: &SettleOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Settlement, Error> {
    let bytes = Zeroizing::new(zklora_files::read(path, zklora_files::MAX_FILE)?);
    match evidence::read(&bytes) {
        Err(error) => Ok(Settlement::new(Verdict::Undecidable, error.to_string())),
        Ok(Evidence::TwoAnswers(found)) => {
            let (a, b) = &found.groups;
            if let Some(signer) = options.signer.filter(|signer| *signer != found.key) {
                return Ok(Settlement::new(
                    Verdict::Undecidable,
                    other_signer(&found.key, &signer),
                ));
            }
            let why = format!(
                "its key signed two answers: group {a} of the first and group {b} of the second \
                 have the same units and other values"
            );
            let adapter_id = Some(found.adapter_id);
            let key = Some(found.key);
            Ok(Settlement { key, adapter_id, ..Settlement::new(Verdict::Contradicted, why) })
        }
        Ok(Evidence::Settlement(entries)) => {
            let mut entries = entries.into_iter().map(|entry| entry.bytes);
            let mut next = || entries.next().map(|mut bytes| std::mem::take(&mut *bytes));
            let all = [(); SETTLEMENT.len()].map(|()| next().unwrap_or_default());
            let [offer, manifest, request, units, answer, delivery, ciphertext, key] = all;
            let key = Some(Zeroizing::new(key));
            let registration = None;
            let files = Files {
                offer,
                manifest,
                registration,
                request,
                units,
                answer,
                delivery,
                ciphertext,
                key,
            };
            Ok(judge(&files, srs, options, progress))
        }
    }
}

pub(super) fn other_signer(found: &Digest, expected: &Digest) -> String {
    format!("it is signed by key {found}, and the contributor is known by {expected}")
}

fn write_evidence(files: &Files) -> Result<Vec<u8>, Error> {
    let none = Zeroizing::default();
    let contents: [&[u8]; 8] = [
        &files.offer,
        &files.manifest,
        &files.request,
        &files.units,
        &files.answer,
        &files.delivery,
        &files.ciphertext,
        files.key.as_ref().unwrap_or(&none),
    ];
    let mut bytes = Vec::new();
    archive::write(SETTLEMENT.into_iter().zip(contents), &mut bytes)?;
    Ok(bytes)
}

fn judge(
    files: &Files,
    srs: &Srs,
    options: &SettleOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Settlement {
    let mut found = Settlement::new(Verdict::Undecidable, "");
    match steps(files, srs, options, progress, &mut found) {
        Ok((verdict, reason)) => (found.verdict, found.reasons) = (verdict, vec![reason]),
        Err(End::Contradicted(why)) => {
            (found.verdict, found.reasons) = (Verdict::Contradicted, vec![why]);
        }
        Err(End::Undecidable(why)) => found.reasons = vec![why],
    }
    found
}

/// The steps of docs/evaluation.md, "Delivery and settlement".
fn steps(
    files: &Files,
    srs: &Srs,
    options: &SettleOptions,
    progress: &mut dyn FnMut(u64, u64),
    found: &mut Settlement,
) -> Result<(Verdict, String), End> {
    // 1. Everything is signed, by one key, for each other.
    let offer = SignedOffer::parse(&files.offer)?;
    found.key = Some(offer.offer.key);
    found.adapter_id = Some(offer.offer.adapter_id);
    if let Some(signer) = options.signer.filter(|signer| *signer != offer.offer.key) {
        return Err(End::Undecidable(other_signer(&offer.offer.key, &signer)));
    }
    let most = offer.offer.limits.tokens;
    let request = FullRequest::parse_within(&files.request, files.units.clone(), most)?;
    let answer = Answer::read(&files.answer, &offer, &request)?;
    let answer_digest = answer.digest()?;
    found.answer = Some(answer_digest);
    let delivery = Delivery::read(&files.delivery, &offer, &answer_digest)?;
    found.price = Some(delivery.price.clone());
    found.key_by = Some(delivery.key_by.clone());
    found.verdict_by = Some(delivery.verdict_by.clone());
    found.key_digest = Some(delivery.key);
    let registration = files.registration.as_ref();
    let published = (files.manifest.as_slice(), registration.and_then(|of| of.as_deref()));
    let terms =
        CheckedTerms::check((offer.clone(), OfferFrom::Others), published, srs, &options.terms)?;
    found.registered = registration.map(|_| terms.registration.is_registered());
    if delivery.is_newer() || delivery.quantisation != QUANTISATION {
        return Err(End::Undecidable(format!(
            "it was delivered with zklora {}, which this one ({}) is older than or differs from: \
             use that version",
            delivery.tool,
            env!("CARGO_PKG_VERSION")
        )));
    }
    delivery.check_ciphertext(&files.ciphertext)?;
    // The contributor signed this ciphertext.
    check_header(&files.ciphertext).map_err(|error| End::Contradicted(error.to_string()))?;
    if !are_adapter(&delivery.files) {
        let files = delivery.files.join(", ");
        return Err(End::Contradicted(format!("what it delivers is no adapter: {files}")));
    }
    // 2. The key.
    let Some(key) = &files.key else {
        let why = "what can be checked without the key is right: the contributor signed this \
                   ciphertext and this price for this answer";
        return Ok((Verdict::Payable, why.into()));
    };
    let key = delivery.key(key).map_err(|error| match error {
        Statement::Form { .. } => End::Contradicted(error.to_string()),
        other => End::Undecidable(other.to_string()),
    })?;
    let entries = decrypt(&key, &files.ciphertext)
        .map_err(|error| End::Contradicted(format!("the key does not open it: {error}")))?;
    if !entries.iter().map(|entry| &entry.name).eq(&delivery.files) {
        let why = "the archive has other files than the statement names";
        return Err(End::Contradicted(why.into()));
    }
    // 3. The adapter.
    let weights = check_files(&entries, &terms.manifest, srs)?.map_err(|why| {
        End::Contradicted(format!("the delivered adapter is not the pinned one: {why}"))
    })?;
    if let Some(out) = &options.adapter_out {
        write_adapter(&entries, out)?;
        found.adapter = Some(out.clone());
    }
    // 4. The numbers.
    let adapted = terms.bound.program(&terms.manifest, &weights).map_err(|error| {
        End::Contradicted(format!("the delivered weights have no integer model: {error}"))
    })?;
    let CheckedTerms { offer, base, .. } = terms;
    let scorer = ModelScorer { base, adapted };
    let own = compute(&offer, &request, &scorer, progress)?;
    found.units = request.units.len() as u64;
    match own == answer {
        true => Ok((
            Verdict::Settled,
            "the delivered adapter is the pinned one, and every number of the answer is its own"
                .into(),
        )),
        false => Err(End::Contradicted(difference(&own, &answer))),
    }
}

/// Whether names are those of an adapter that this version delivers.
fn are_adapter(files: &[String]) -> bool {
    let [opening, weights, adapter @ ..] = files else { return false };
    let own: Vec<&str> = adapter.iter().filter_map(|name| name.strip_prefix(ADAPTER)).collect();
    // In one folder: the archive's files are written to the disk by their names.
    let is_onnx = |name: &str| name.ends_with(".onnx") && !name.contains('/');
    let is_peft = own == ["adapter_config.json", "adapter_model.safetensors"];
    let is_export =
        own.contains(&"export.json") && own.iter().all(|n| *n == "export.json" || is_onnx(n));
    opening == names::OPENING
        && weights == names::WEIGHTS
        && own.len() == adapter.len()
        && (is_peft || is_export)
}

/// Compares delivered files with the manifest, and with nothing that the buyer has: the base
/// model's folder is not read. The outer error is one of this machine; the inner one says how the
/// adapter differs.
pub(super) fn check_files(
    entries: &[Entry],
    manifest: &CheckedManifest,
    srs: &Srs,
) -> Result<Result<Weights, String>, Error> {
    let names: Vec<String> = entries.iter().map(|entry| entry.name.clone()).collect();
    if !are_adapter(&names) {
        return Ok(Err(format!("its files are {}", names.join(", "))));
    }
    // On the disk, in a folder of mode 0700, for the readers of files.
    let scratch = zklora_files::scratch()?;
    let folder = scratch.path();
    zklora_files::create_folder(&folder.join(ADAPTER), Access::Private)?;
    for entry in entries {
        zklora_files::write(&folder.join(&entry.name), &entry.bytes, Access::Private)?;
    }
    let (id, key) = match secret_files::read_opening(&folder.join(names::OPENING)) {
        Ok(opening) => opening,
        Err(error) => return of_content(error.into(), entries, folder),
    };
    if id != AdapterId(manifest.id().0) {
        return Ok(Err(format!("its opening is of adapter {id}")));
    }
    let path = folder.join(names::WEIGHTS);
    let bytes = Zeroizing::new(zklora_files::read(&path, zklora_files::MAX_FILE)?);
    let weights = match weights_file::parse(&path, &bytes, manifest.contents()) {
        Ok(weights) => weights,
        Err(error) => return of_content(error.into(), entries, folder),
    };
    if let Some(module) = commit::audit(srs, manifest, &weights, &key)?.first() {
        return Ok(Err(format!("module {module} has other integers than were committed to")));
    }
    let report = match audit::audit(&folder.join(ADAPTER), None, manifest, &key, srs) {
        Ok(report) => report,
        Err(error) => return of_content(error, entries, folder),
    };
    Ok(match report.differences.first() {
        Some(of) => Err(format!("module {}: {}", of.module, of.why)),
        None => Ok(weights),
    })
}

/// An error about delivered files: of their content, which the contributor signed, or of this
/// machine, which cannot read the files that it wrote.
fn of_content(
    error: Error,
    entries: &[Entry],
    folder: &Path,
) -> Result<Result<Weights, String>, Error> {
    for entry in entries {
        let bytes =
            Zeroizing::new(zklora_files::read(&folder.join(&entry.name), zklora_files::MAX_FILE)?);
        if bytes != entry.bytes {
            return Err(error);
        }
    }
    match error.is_of_full_machine() {
        true => Err(error),
        false => {
            let shown = format!("{}/", folder.display());
            Ok(Err(error.to_string().replace(&shown, "")))
        }
    }
}

fn write_adapter(entries: &[Entry], out: &Path) -> Result<(), Error> {
    zklora_files::create_folder(out, Access::Private)?;
    for entry in entries {
        if let Some(name) = entry.name.strip_prefix(ADAPTER) {
            zklora_files::write(&out.join(name), &entry.bytes, Access::Private)?;
        }
    }
    Ok(())
}

/// The answer that a scorer makes.
fn compute(
    offer: &SignedOffer,
    request: &FullRequest,
    scorer: &dyn Scorer,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Answer, Error> {
    let units: &[Unit] = &request.units;
    let mut scores = Vec::with_capacity(units.len());
    for part in units.chunks(AT_ONCE) {
        progress(scores.len() as u64, units.len() as u64);
        scores.extend(scorer.score(part)?);
    }
    Ok(Answer::compute(offer, request, &scores)?)
}

/// How two answers to one request differ.
fn difference(own: &Answer, signed: &Answer) -> String {
    let groups = own.groups.iter().zip(&signed.groups);
    let differing: Vec<&str> =
        groups.filter(|(own, signed)| own != signed).map(|(own, _)| own.name.as_str()).collect();
    match differing.as_slice() {
        [] => "the delivered adapter gives another answer: other units without a score, or other \
               scores of single units"
            .into(),
        names => format!(
            "the delivered adapter gives other numbers than the contributor signed, in {} of {} \
             groups: {}",
            names.len(),
            own.groups.len(),
            names[..names.len().min(8)].join(", ")
        ),
    }
}
