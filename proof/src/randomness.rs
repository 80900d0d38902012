//! The prover's randomness: one labelled stream for each use (docs/protocol.md, "Randomness of a
//! proof").
//!
//! `derive_key("zklora v1 proof rng", 32 fresh OS bytes ‖ K ‖ s0 ‖ number of threads)`. The OS
//! bytes must be fresh. The rest is a hedge against a generator that returns the same bytes twice
//! (a copied virtual machine): two attempts with the same bytes either have the same randomness and
//! the same proof, or share nothing. The number of threads is included because the library draws
//! its random polynomial in as many pieces. Opening the streams consumes the key, so no stream can
//! be opened twice.

use rand_core::{CryptoRng, RngCore};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{
    Error,
    field::{F, from_wide},
    masks::{MaskKey, os_bytes},
};

/// The key of one proof attempt. Overwritten when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct ProofKey([u8; 32]);

impl ProofKey {
    /// A key for one attempt, from fresh bytes of the operating system.
    pub fn fresh(key: &MaskKey, s0: &[u8; 32]) -> Result<ProofKey, Error> {
        Ok(ProofKey::derive(&*os_bytes()?, key, s0))
    }

    /// The derivation itself. It depends on the current thread pool, so the proof must be made in
    /// the same pool. Only tests call it directly.
    pub(crate) fn derive(os: &[u8; 32], key: &MaskKey, s0: &[u8; 32]) -> ProofKey {
        let mut hasher = blake3::Hasher::new_derive_key("zklora v1 proof rng");
        hasher.update(os);
        hasher.update(key.expose());
        hasher.update(s0);
        hasher.update(&(rayon::current_num_threads() as u64).to_le_bytes());
        let derived = ProofKey(*hasher.finalize().as_bytes());
        hasher.zeroize();
        derived
    }

    /// The streams of the attempt.
    pub fn into_streams(self) -> Streams {
        let stream = |label: &str| {
            let mut hasher = blake3::Hasher::new_keyed(&self.0);
            hasher.update(label.as_bytes());
            let stream = Stream(hasher.finalize_xof());
            hasher.zeroize();
            stream
        };
        Streams {
            masks: stream("masks of T, U and S"),
            fresh: stream("masks of A and B"),
            nonces: stream("nonces of the span proof"),
            library: stream("library"),
        }
    }
}

/// One stream for each use.
pub struct Streams {
    /// Two masks for each column of T and U and each round.
    pub masks: Stream,
    /// Two fresh values for each column of `A**` and `B*`.
    pub fresh: Stream,
    /// The nonces of the span proof.
    pub nonces: Stream,
    /// The randomness that halo2 draws.
    pub library: Stream,
}

/// A stream of random bytes: BLAKE3's extendable output under a secret key. Overwritten when
/// dropped.
pub struct Stream(blake3::OutputReader);

impl Stream {
    /// A uniform field element.
    pub fn scalar(&mut self) -> F {
        let mut wide = [0u8; 64];
        self.0.fill(&mut wide);
        let value = from_wide(&wide);
        wide.zeroize();
        value
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl RngCore for Stream {
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0u8; 4];
        self.0.fill(&mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0u8; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn fill_bytes(&mut self, out: &mut [u8]) {
        self.0.fill(out);
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), rand_core::Error> {
        self.0.fill(out);
        Ok(())
    }
}

impl CryptoRng for Stream {}
