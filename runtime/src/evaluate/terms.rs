//! The terms of an offer, as a buyer checks them before anything is sent or paid: the manifest, the
//! ceremony, the own integer model, and the layers that the manifest's names mean.

use std::path::PathBuf;

use zklora_artifacts::{folder::REGISTRATION, manifest_cache};
use zklora_evaluation::{Error as Statement, offer::SignedOffer};
use zklora_integer::{program::Program, rules};
use zklora_proof::{
    checked_manifest::CheckedManifest,
    keys::KeyStore,
    manifest::{AdapterId, Module, Term},
    srs::Srs,
    verifier::SrsPolicy,
    weights::{PairWeights, Weights},
};

use crate::{
    Error,
    integer::{BaseModel, BoundModel},
    registration::{self, Registration},
};

/// What a buyer has of its own.
#[derive(Debug, Clone)]
pub struct TermsOptions {
    /// The folder of the integer model; it is made if it has none.
    pub model: PathBuf,
    /// The base model.
    pub base: BaseModel,
    /// Its tokenizer.
    pub tokenizer: Option<PathBuf>,
    /// Which ceremonies are accepted.
    pub policy: SrsPolicy,
}

/// Who chose an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfferFrom {
    /// The buyer, who pinned it.
    Buyer,
    /// Somebody else, with the rest of a folder or of evidence. Nothing of it is cached.
    Others,
}

/// Terms that fit the buyer's own base model.
pub struct CheckedTerms {
    /// The offer.
    pub offer: SignedOffer,
    /// The manifest that it pins.
    pub manifest: CheckedManifest,
    /// Whether its adapter is registered.
    pub registration: Registration,
    /// The buyer's integer model.
    pub bound: BoundModel,
    /// The base model without an adapter.
    pub(super) base: Program,
}

impl CheckedTerms {
    /// Checks an offer, its manifest, and the registration that came with it.
    ///
    /// # Errors
    /// The manifest is not the pinned one, the registration is not this adapter's, the ceremony is
    /// none that is trusted, or the offer is for another integer model, other layers, or an adapter
    /// that has no integer model.
    pub fn check(
        (offer, from): (SignedOffer, OfferFrom),
        (manifest, registration): (&[u8], Option<&[u8]>),
        srs: &Srs,
        options: &TermsOptions,
    ) -> Result<CheckedTerms, Error> {
        let differs = |why: String| -> Error {
            Statement::Mismatch { what: "offer.json".into(), why }.into()
        };
        let pin = AdapterId(offer.offer.adapter_id.0);
        let manifest = match from {
            OfferFrom::Buyer => manifest_cache::parse(manifest, Some(&pin)),
            OfferFrom::Others => manifest_cache::parse_unkept(manifest, &pin),
        }?;
        options.policy.check(srs)?;
        if let Err(zklora_proof::Error::SrsMismatch { manifest, own }) = manifest.parameters(srs) {
            return Err(differs(format!(
                "its adapter was compiled with the SRS {manifest}, and yours is {own}: name its \
                 file with --srs"
            )));
        }
        let registration = match registration {
            None => Registration::NotRegistered,
            Some(proof) => {
                let keys = KeyStore::default();
                registration::verify(REGISTRATION, proof, &manifest, srs, &keys, options.policy)?
            }
        };
        if offer.offer.rules != rules::VERSION {
            return Err(differs(format!(
                "it follows version {} of the integer model's rules, and this zklora version {}",
                offer.offer.rules,
                rules::VERSION
            )));
        }
        let TermsOptions { model, base, tokenizer, .. } = options;
        let named = Some(("the offer", &manifest));
        let bound = BoundModel::load_or_make(model, base, tokenizer.as_deref(), named)?;
        let SignedOffer { offer: terms, .. } = &offer;
        if terms.integer_model.to_string() != bound.digest
            || terms.score_bits != bound.model.score_bits
        {
            return Err(differs(format!(
                "it is for integer model {}, and the one of your base model is {}: use the base \
                 model {} and its tokenizer",
                terms.integer_model, bound.digest, terms.base_model
            )));
        }
        let layers = bound.layers();
        if terms.layers != layers {
            let at = terms.layers.iter().zip(&layers).position(|(a, b)| a != b).unwrap_or(0);
            let name = manifest.modules().get(at).map_or("", |module| &module.name);
            return Err(differs(format!(
                "it adapts other layers than the manifest names: see module `{name}`; with \
                 --map you name the layers that you would use it on"
            )));
        }
        // An adapter that the integer model refuses could never be settled.
        bound.program(&manifest, &zeros(&manifest)?)?;
        let base = bound.base_program()?;
        Ok(CheckedTerms { offer, manifest, registration, bound, base })
    }

    /// The model with an adapter of the manifest's shapes: what a proof is verified with.
    ///
    /// # Errors
    /// Those of [`CheckedTerms::check`].
    pub(super) fn adapted_shape(&self) -> Result<Program, Error> {
        self.bound.program(&self.manifest, &zeros(&self.manifest)?)
    }
}

/// Most integers of an adapter that a buyer evaluates: what its shapes take of memory. The largest
/// adapters that people have are a quarter of it.
const MAX_INTEGERS: u128 = 1 << 29;

/// Weights of the manifest's shapes.
fn zeros(manifest: &CheckedManifest) -> Result<Weights, Error> {
    let contents = manifest.contents();
    let of_term = |module: &Module, term: &Term| {
        let (a, b) = module.side_lengths(term);
        (a as u128 + b as u128) * term.rank as u128
    };
    let modules = contents.modules.iter();
    let integers: u128 =
        modules.flat_map(|of| of.terms.iter().map(move |term| of_term(of, term))).sum();
    if integers > MAX_INTEGERS {
        return Err(Error::input(format!(
            "the adapter has {integers} integers, and at most {MAX_INTEGERS} can be evaluated"
        )));
    }
    let mut pairs = Vec::new();
    for module in &contents.modules {
        for term in &module.terms {
            let (a, b) = module.side_lengths(term);
            let pair = || PairWeights { a: vec![0; a], b: vec![0; b] };
            pairs.extend((0..term.rank).map(|_| pair()));
        }
    }
    Ok(Weights::new(contents, pairs)?)
}
