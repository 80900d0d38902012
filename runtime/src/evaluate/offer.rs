//! Makes an offer.

use std::path::{Path, PathBuf};

use zklora_artifacts::{folder, folder::Artifacts, manifest_cache};
use zklora_evaluation::{
    digest::Digest,
    evidence,
    identity::{DEFAULT_LINEAGE, Identity},
    offer::{Bits, Limits, SignedOffer, Terms},
};
use zklora_files::Access;
use zklora_integer::rules;
use zklora_proof::{
    keys::KeyStore,
    manifest::{self, AdapterId},
    srs::Srs,
    verifier::SrsPolicy,
};

use crate::{
    Error,
    integer::{BaseModel, Setup},
    registration::Registration,
};

/// What a contributor offers.
#[derive(Debug, Clone)]
pub struct OfferOptions {
    /// The folder of the identity; it is made if it has none.
    pub identity: PathBuf,
    /// The lineage; none is the one that has the adapter, or the default one.
    pub lineage: Option<String>,
    /// The folder of the integer model; it is made if it has none.
    pub model: PathBuf,
    /// The base model.
    pub base: BaseModel,
    /// Its tokenizer.
    pub tokenizer: Option<PathBuf>,
    /// The budget.
    pub budget: Bits,
    /// The largest request; `unit_tokens` 0 is the model's own limit.
    pub limits: Limits,
    /// Answer scores of single units.
    pub per_unit: bool,
    /// How the key is bound to somebody.
    pub contact: String,
}

/// An offer, and what its contributor should know.
#[derive(Debug, Clone)]
pub struct Offered {
    /// The offer.
    pub offer: SignedOffer,
    /// Its file.
    pub path: PathBuf,
    /// The lineage.
    pub lineage: String,
    /// Adapters that share its budget, other than this one.
    pub others: Vec<Digest>,
    /// Bits that are spent.
    pub spent: u64,
    /// Whether the adapter is registered.
    pub registration: Registration,
}

/// Signs an offer, and writes it into the public folder of the artifacts.
///
/// # Errors
/// The adapter has no integer model, or a term breaks a rule.
pub fn make_offer(
    artifacts: Artifacts,
    srs: &Srs,
    options: &OfferOptions,
) -> Result<Offered, Error> {
    let path = artifacts.folder.join("public").join(evidence::OFFER);
    let registration = Registration::of_public(
        &artifacts.folder.join("public"),
        &artifacts.manifest,
        srs,
        &KeyStore::default(),
        SrsPolicy::AllowUntrusted,
    )?;
    let OfferOptions { identity, model, base, tokenizer, .. } = options;
    let setup = Setup::load_or_make(model, base, tokenizer.as_deref(), artifacts, srs)?;
    let Some(artifacts) = &setup.artifacts else {
        return Err(Error::input("an offer needs an adapter"));
    };
    let identity = Identity::open_or_create(identity)?;
    let adapter_id = Digest(artifacts.manifest.id().0);
    let known = identity.lineage_of(&adapter_id)?;
    let name = options.lineage.clone().or(known.map(|known| known.name));
    let name = match (name, identity.lineages()?.as_slice()) {
        (Some(name), _) => name,
        (None, []) => DEFAULT_LINEAGE.into(),
        (None, lineages) => {
            let names: Vec<&str> = lineages.iter().map(|known| known.name.as_str()).collect();
            return Err(Error::input(format!(
                "this identity has offered other adapters, in lineage {}: if this is one of them, \
                 compiled or trained again, name its lineage, whose budget it shares (--lineage \
                 {}); else name a new one",
                names.join(", "),
                names[0]
            )));
        }
    };
    let longest = setup.bound.model.tokens as u64;
    let mut limits = options.limits;
    if limits.unit_tokens == 0 || limits.unit_tokens > longest {
        limits.unit_tokens = longest;
    }
    let terms = Terms {
        adapter_id,
        base_model: plain(&artifacts.manifest.contents().base_model.name),
        budget: options.budget,
        contact: options.contact.clone(),
        integer_model: parse(&setup.bound.digest)?,
        layers: setup.bound.layers(),
        limits,
        per_unit: options.per_unit,
        rotations: identity.rotations.clone(),
        rules: rules::VERSION,
        score_bits: setup.bound.model.score_bits,
    };
    let offer = SignedOffer::sign(&identity.key, terms)?;
    // Only now: an offer that breaks a rule makes no lineage.
    let lineage = identity.lineage(&name, &adapter_id)?;
    lineage.keep_offer(&offer)?;
    let others = lineage.adapters()?.into_iter().filter(|other| *other != adapter_id).collect();
    let spent = lineage.spending().read()?.bits();
    zklora_files::write(&path, &offer.bytes, Access::Public)?;
    Ok(Offered { offer, path, lineage: lineage.name, others, spent, registration })
}

/// A digest that this program made.
pub(super) fn parse(digest: &str) -> Result<Digest, Error> {
    digest.parse().map_err(|why: String| zklora_evaluation::Error::Internal(why).into())
}

/// A name as text of a statement.
fn plain(name: &str) -> String {
    let plain = |c: char| if (' '..='~').contains(&c) && !"\"\\".contains(c) { c } else { '?' };
    name.chars().take(256).map(plain).collect()
}

/// Reads a signed offer.
///
/// # Errors
/// It is none, or its signature is not valid.
pub fn read_offer(path: &Path) -> Result<SignedOffer, Error> {
    const MAX_OFFER: u64 = 4 << 20;
    let bytes = zklora_files::read(path, MAX_OFFER)?;
    SignedOffer::parse(&bytes).map_err(|error| match error {
        zklora_evaluation::Error::Form { why, .. } => {
            Error::file(path, format!("it is no offer: {why}"))
        }
        error => error.into(),
    })
}

/// Whether the adapter of an offer is registered, by the manifest and the registration beside the
/// offer's file. None: there is no manifest of the adapter.
///
/// # Errors
/// The registration beside it is not one of the adapter.
pub fn registration_beside(
    path: &Path,
    signed: &SignedOffer,
    srs: &Srs,
    policy: SrsPolicy,
) -> Result<Option<Registration>, Error> {
    let beside = path.parent().unwrap_or(Path::new(""));
    let pin = AdapterId(signed.offer.adapter_id.0);
    let file = beside.join(folder::MANIFEST);
    if !file.is_file() {
        return Ok(None);
    }
    let bytes = zklora_files::read(&file, manifest::MAX_BYTES as u64)?;
    if AdapterId::of(&bytes) != pin {
        return Ok(None);
    }
    let manifest = manifest_cache::parse(&bytes, Some(&pin))?;
    Registration::of_public(beside, &manifest, srs, &KeyStore::default(), policy).map(Some)
}

/// Refuses an offer whose key an earlier offer's key, if one is named, is not and never signed.
///
/// # Errors
/// The earlier file is no offer, or another contributor's.
pub fn require_same_contributor(signed: &SignedOffer, after: Option<&Path>) -> Result<(), Error> {
    let Some(path) = after else { return Ok(()) };
    let earlier = read_offer(path)?;
    if signed.follows(&earlier.offer) {
        return Ok(());
    }
    Err(zklora_evaluation::Error::Mismatch {
        what: path.display().to_string(),
        why: format!(
            "the key of this earlier offer, {}, never signed the new key, {}: this may be another \
             contributor",
            earlier.offer.key, signed.offer.key
        ),
    }
    .into())
}
