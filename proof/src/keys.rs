//! Derives the keys of a layout. Each party derives its own keys and takes none from the other
//! (docs/protocol.md, "Circuit").

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use halo2_proofs::{
    plonk::{Circuit, ProvingKey, VerifyingKey, keygen_pk, keygen_vk_with_k},
    poly::kzg::KZGCommitmentScheme,
    utils::SerdeFormat,
};
use midnight_curves::Bls12;

use crate::{
    Error,
    field::F,
    gate::RunningSum,
    layout::{BLINDING_FACTORS, Layout},
    scheme::ProverScheme,
    srs::Srs,
};

pub(crate) type Scheme = KZGCommitmentScheme<Bls12>;

/// Verifying key of one layout under one SRS, and the proving key after the first
/// proof.
#[derive(Debug)]
pub struct Keys {
    layout: Layout,
    vk: VerifyingKey<F, Scheme>,
    pk: OnceLock<ProvingKey<F, ProverScheme>>,
}

impl Keys {
    /// Derives the verifying key.
    ///
    /// # Errors
    /// [`Error::Manifest`] if the layout is impossible, or has another size than the SRS.
    pub fn generate(srs: &Srs, layout: Layout) -> Result<Keys, Error> {
        layout.check()?;
        // Commitments under a longer basis are commitments to other polynomials
        // (docs/protocol.md, "Structured reference string").
        if srs.k() != layout.k {
            return Err(Error::Manifest(format!(
                "the circuit has 2^{} rows, the SRS 2^{} points",
                layout.k,
                srs.k()
            )));
        }
        let circuit = RunningSum { layout, acc: None };
        let vk: VerifyingKey<F, Scheme> =
            keygen_vk_with_k(srs.library(), &circuit, layout.k).map_err(failed)?;
        if vk.cs().blinding_factors() != BLINDING_FACTORS || vk.cs().degree() != 3 {
            return Err(Error::Library(format!(
                "it keeps {} blinding rows at degree {}, this protocol requires {BLINDING_FACTORS} at degree 3",
                vk.cs().blinding_factors(),
                vk.cs().degree()
            )));
        }
        Ok(Keys { layout, vk, pk: OnceLock::new() })
    }

    /// The layout that the keys are for.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The verifying key, as `circuit.vk` holds it.
    pub fn vk_bytes(&self) -> Vec<u8> {
        self.vk().to_bytes(SerdeFormat::Processed)
    }

    /// The key's digest, which is part of every statement.
    pub fn fingerprint(&self) -> F {
        self.vk().transcript_repr()
    }

    pub(crate) fn vk(&self) -> &VerifyingKey<F, Scheme> {
        &self.vk
    }

    /// Derives the proving key now instead of at the first proof.
    pub fn prepare_proving(&self) -> Result<(), Error> {
        self.pk().map(|_| ())
    }

    /// The proving key, derived at the first call.
    pub(crate) fn pk(&self) -> Result<&ProvingKey<F, ProverScheme>, Error> {
        if let Some(pk) = self.pk.get() {
            return Ok(pk);
        }
        let circuit = RunningSum { layout: self.layout, acc: None };
        // The same key for the prover's scheme.
        let format = SerdeFormat::RawBytesUnchecked;
        let vk = VerifyingKey::from_bytes::<RunningSum>(
            &self.vk.to_bytes(format),
            format,
            circuit.params(),
        )
        .map_err(|e| Error::Library(format!("verifying key: {e}")))?;
        if vk.transcript_repr() != self.fingerprint() {
            return Err(Error::Internal("the prover's verifying key has another digest".into()));
        }
        let pk = keygen_pk(vk, &circuit).map_err(failed)?;
        Ok(self.pk.get_or_init(|| pk))
    }
}

fn failed(e: halo2_proofs::plonk::Error) -> Error {
    Error::Library(format!("key generation: {e}"))
}

/// Keys by the digest of their SRS and their layout.
type KeyMap = HashMap<([u8; 32], Layout), Arc<Keys>>;

/// Keys by SRS and layout. One verifying key serves many adapters.
#[derive(Debug, Default)]
pub struct KeyStore(Mutex<KeyMap>);

/// Most keys that a store holds. A full store is emptied.
const STORE_SIZE: usize = 32;

impl KeyStore {
    /// The keys of `layout` under the parameters of its k, derived at the first call.
    pub fn get(&self, srs: &Srs, layout: Layout) -> Result<Arc<Keys>, Error> {
        let srs = srs.at(layout.k)?;
        let name = (srs.digest(), layout);
        if let Some(keys) = self.lock().get(&name) {
            return Ok(keys.clone());
        }
        let keys = Arc::new(Keys::generate(srs, layout)?);
        let mut store = self.lock();
        if store.len() >= STORE_SIZE {
            store.clear();
        }
        store.insert(name, keys.clone());
        Ok(keys)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, KeyMap> {
        // A map that a panic poisoned still holds finished keys only.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
