//! The library's commitment scheme as the prover uses it (docs/protocol.md, "Proving library"):
//! with the multi-exponentiation of this crate, and without commitments that the prover already
//! made.
//!
//! Commitments, proofs and keys are those of [`KZGCommitmentScheme`], which the verifier uses. A
//! commitment that is wrong here gives a proof that the verifier refuses.

use std::{hash::Hash, sync::Arc};

use halo2_proofs::{
    poly::{
        Coeff, Error, LagrangeCoeff, Polynomial, ProverQuery, VerifierQuery,
        commitment::{Guard, Params, PolynomialCommitmentScheme},
        kzg::{
            KZGCommitmentScheme,
            params::{ParamsKZG, ParamsVerifierKZG},
        },
    },
    transcript::{Hashable, Sampleable, Transcript},
};
use midnight_curves::Bls12;
use zeroize::{Zeroize, Zeroizing};

use crate::{
    field::{F, G1, G1Affine, Secret},
    msm::{msm, to_affine},
};

type Kzg = KZGCommitmentScheme<Bls12>;

/// The scheme of a prover.
#[derive(Clone, Debug)]
pub struct ProverScheme;

/// Parameters, and the commitments that one proof already has.
#[derive(Clone)]
pub struct ProverParameters {
    pub library: Arc<ParamsKZG<Bls12>>,
    pub powers: Arc<Vec<G1Affine>>,
    pub lagrange: Arc<Vec<G1Affine>>,
    known: Vec<Known>,
}

impl std::fmt::Debug for ProverParameters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProverParameters").field("k", &self.max_k()).finish_non_exhaustive()
    }
}

/// A column's commitment, under a digest of the column.
#[derive(Clone)]
pub struct Known {
    digest: blake3::Hash,
    commitment: G1,
}

impl Known {
    pub fn new(column: &Secret, commitment: G1) -> Self {
        Known { digest: digest(column), commitment }
    }
}

/// The digest of a column without its last zeros.
fn digest(column: &[F]) -> blake3::Hash {
    let used = column.iter().rposition(|value| *value != F::default()).map_or(0, |last| last + 1);
    let mut hasher = blake3::Hasher::new();
    for value in &column[..used] {
        hasher.update(Zeroizing::new(value.to_bytes_le()).as_slice());
    }
    let digest = hasher.finalize();
    // It holds the last values, which are masks.
    hasher.zeroize();
    digest
}

impl ProverParameters {
    /// The library's parameters, and the same points once more.
    pub fn new(library: ParamsKZG<Bls12>, powers: Vec<G1Affine>, lagrange: Vec<G1Affine>) -> Self {
        let (powers, lagrange) = (Arc::new(powers), Arc::new(lagrange));
        ProverParameters { library: Arc::new(library), powers, lagrange, known: Vec::new() }
    }

    /// The same parameters for a proof that has these commitments.
    pub fn with_known(&self, known: Vec<Known>) -> Self {
        ProverParameters { known, ..self.clone() }
    }

    fn of_library(library: ParamsKZG<Bls12>, powers: Vec<G1Affine>) -> Self {
        let lagrange = to_affine(library.g_lagrange());
        ProverParameters::new(library, powers, lagrange)
    }
}

impl Params for ProverParameters {
    fn max_k(&self) -> u32 {
        self.library.max_k()
    }

    fn downsize(&mut self, k: u32) {
        let mut library = ParamsKZG::clone(&self.library);
        library.downsize(k);
        let powers = self.powers.iter().take(1 << k).copied().collect();
        *self = Self::of_library(library, powers);
    }
}

impl PolynomialCommitmentScheme<F> for ProverScheme {
    type Parameters = ProverParameters;
    type VerifierParameters = ParamsVerifierKZG<Bls12>;
    type Commitment = G1;
    type VerificationGuard = NeverVerifies;

    /// Never called: parameters come from [`Srs`](crate::srs::Srs), with its powers, which the
    /// library does not show. Without them, `commit` refuses to run.
    fn gen_params(k: u32) -> ProverParameters {
        ProverParameters::of_library(Kzg::gen_params(k), Vec::new())
    }

    fn get_verifier_params(params: &ProverParameters) -> ParamsVerifierKZG<Bls12> {
        params.library.verifier_params()
    }

    fn commit(params: &ProverParameters, polynomial: &Polynomial<F, Coeff>) -> G1 {
        // As the library: a polynomial that was cut off would be another one.
        assert!(polynomial.len() <= params.powers.len());
        msm(&params.powers, polynomial)
    }

    fn commit_lagrange(params: &ProverParameters, polynomial: &Polynomial<F, LagrangeCoeff>) -> G1 {
        assert!(polynomial.len() <= params.lagrange.len());
        let digest = digest(polynomial);
        match params.known.iter().find(|known| known.digest == digest) {
            Some(known) => known.commitment,
            None => msm(&params.lagrange, polynomial),
        }
    }

    fn multi_open<T: Transcript>(
        params: &ProverParameters,
        queries: &[ProverQuery<'_, F>],
        transcript: &mut T,
    ) -> Result<(), Error>
    where
        F: Sampleable<T::Hash> + Hash + Ord + Hashable<T::Hash>,
        G1: Hashable<T::Hash>,
    {
        Kzg::multi_open(&params.library, queries, transcript)
    }

    /// Refuses: verifiers use the library's scheme.
    fn multi_prepare<'com, T: Transcript>(
        _: &[VerifierQuery<'com, F, Self>],
        _: &mut T,
    ) -> Result<NeverVerifies, Error>
    where
        F: Sampleable<T::Hash> + Hash + Ord + Hashable<T::Hash>,
        G1: 'com + Hashable<T::Hash>,
    {
        Err(Error::OpeningError)
    }
}

/// What the library asks of a scheme for its verifier.
#[derive(Debug)]
pub enum NeverVerifies {}

impl Guard<F, ProverScheme> for NeverVerifies {
    fn verify(self, _: &ParamsVerifierKZG<Bls12>) -> Result<(), Error> {
        match self {}
    }
}
