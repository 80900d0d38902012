//! The structured reference string: powers of a secret τ that no party may know, and the ceremony
//! that made them (docs/protocol.md, "Structured reference string").
//!
//! The default is the Ethereum KZG ceremony, which is part of the program: no download, no locally
//! made secret. The public constructors check every point, with one exception: [`Srs::ethereum`]
//! reads the copy embedded in the program, and compares its digest with [`ETHEREUM_DIGEST`]
//! instead. The digest covers the powers. A test compares the whole copy, Lagrange basis included,
//! with the checked ceremony.

use std::sync::OnceLock;

use ff::{Field, PrimeField};
use group::{Curve, Group, GroupEncoding, UncompressedEncoding, prime::PrimeCurveAffine};
use halo2_proofs::{
    poly::kzg::params::{ParamsKZG, ParamsVerifierKZG},
    utils::arithmetic::g_to_lagrange,
};
use midnight_curves::{Bls12, G2Affine, G2Projective, pairing::Engine};
use rand_core::{OsRng, RngCore};
use rayon::prelude::*;

use crate::{
    Error,
    field::{F, G1, G1Affine},
    msm::{msm, to_affine},
    scheme::ProverParameters,
};

/// Largest k that is accepted: 2²⁰ points are 96 MiB.
pub const MAX_K: u32 = 20;
/// Smallest k that has rows left for data.
pub const MIN_K: u32 = 4;

/// k of the whole Ethereum ceremony.
pub const ETHEREUM_K: u32 = 12;
/// Smallest k that an adapter has under a longer ceremony.
pub const LEAST_SHORTER_K: u32 = 8;
/// Largest k that an adapter has under a longer ceremony.
pub const MOST_SHORTER_K: u32 = 12;

/// Digest of the Ethereum ceremony's parameters ([`Srs::digest`]); a test recomputes it from the
/// points.
pub const ETHEREUM_DIGEST: &str =
    "62157976931b54d5b315b0f94dc2320ee1088fc5fe80e873bc1ec70deb408f59";
/// Digests of the first 2^k powers of the Ethereum ceremony, for k from [`LEAST_SHORTER_K`] to one
/// below [`ETHEREUM_K`]; the test recomputes them, too.
pub const ETHEREUM_SHORTER_DIGESTS: [&str; 4] = [
    "6b7484cce18844cc1a125eb46b988e81848f83e3777edd6db5eb103ad067cea8",
    "f75a540611b3e8a3942aa0cf1a712a24cd69917670140d8cd76e9f7e3d3595b5",
    "73ab087f737b49ba5f52dcdfeba1e479c3f54ac3adf768a63723c9dc05b9773b",
    "3f9f2cdf6e0039a9df647ae543d9edc2b7188d98f0ef61f835345c521d2e7935",
];
/// `[τ]₂` of the Ethereum ceremony, compressed, as EIP-4844 clients publish it: a value to compare
/// with a second source.
pub const ETHEREUM_TAU_G2: &str = "b5bfd7dd8cdeb128843bc287230af38926187075cbfbefa81009a2ce615ac53d2914e5870cb452d2afaaab24f3499f72185cbfee53492714734429b7b38608e23926c911cceceac9a36851477ba4c60b087041de621000edc98edada20c1def2";
/// The Ethereum ceremony with its Lagrange bases for all k, as [`Srs::to_bytes`] writes it. A test
/// makes it again, with all checks.
const ETHEREUM: &[u8] = include_bytes!("ethereum.srs");

const MAGIC: &[u8; 16] = b"zklora-srs-v0002";
const G1_BYTES: usize = 96;
const G2_BYTES: usize = 192;

/// The ceremony whose secret the soundness of every proof rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provenance {
    /// The Ethereum KZG ceremony of 2023 (141,416 contributors; one honest one suffices).
    EthereumCeremony,
    /// Parameters of a ceremony that this crate does not know. A party that knows τ can prove any
    /// statement.
    Unknown,
    /// Made on this machine, for tests. The process that made them can prove any statement.
    InsecureDev,
}

impl Provenance {
    /// Whether the default policy of a verifier accepts these parameters.
    pub fn is_trusted(self) -> bool {
        self == Provenance::EthereumCeremony
    }
}

impl std::fmt::Display for Provenance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Provenance::EthereumCeremony => "Ethereum KZG ceremony (2023, 141,416 contributors)",
            Provenance::Unknown => "UNKNOWN CEREMONY: INSECURE unless you know who made this file",
            Provenance::InsecureDev => "INSECURE: MADE LOCALLY FOR TESTS",
        })
    }
}

/// A checked structured reference string of 2^k points.
#[derive(Debug, Clone)]
pub struct Srs {
    k: u32,
    params: ProverParameters,
    verifier: ParamsVerifierKZG<Bls12>,
    digest: [u8; 32],
    provenance: Provenance,
    /// The same ceremony with fewer powers, by k from [`LEAST_SHORTER_K`] on; see [`Srs::at`].
    shorter: Vec<OnceLock<Srs>>,
}

impl Srs {
    /// The first 2^k powers of the same ceremony, with the Lagrange basis over the subgroup of
    /// order 2^k: the parameters of an adapter with this k (docs/protocol.md, "Structured reference
    /// string"). Made at the first call; those of the Ethereum ceremony are part of the program.
    ///
    /// # Errors
    /// [`Error::Srs`] if k is neither that of the ceremony, nor a smaller one from
    /// [`LEAST_SHORTER_K`] to [`MOST_SHORTER_K`].
    pub fn at(&self, k: u32) -> Result<&Srs, Error> {
        if k == self.k {
            return Ok(self);
        }
        let place = k.checked_sub(LEAST_SHORTER_K).and_then(|at| self.shorter.get(at as usize));
        let Some(place) = place else {
            return Err(Error::Srs(format!(
                "it is needed for k = {k}, and is there for k = {}, and for smaller k from \
                 {LEAST_SHORTER_K} to {MOST_SHORTER_K}",
                self.k
            )));
        };
        if let Some(known) = place.get() {
            return Ok(known);
        }
        let shorter = self.shortened(k)?;
        Ok(place.get_or_init(|| shorter))
    }

    fn shortened(&self, k: u32) -> Result<Srs, Error> {
        let monomial = self.params.powers[..1 << k].to_vec();
        let lagrange = match embedded_basis(k).filter(|_| self.provenance.is_trusted()) {
            Some(bytes) => embedded_points(bytes)?,
            None => lagrange_of(&monomial, k),
        };
        let [g2, s_g2] =
            [self.params.library.g2(), self.params.library.s_g2()].map(|point| point.to_affine());
        let mut srs = Srs::assemble(k, monomial, lagrange, g2, s_g2)?;
        if self.provenance.is_trusted() != srs.provenance.is_trusted() {
            return Err(Error::Internal(format!(
                "the first 2^{k} powers of the embedded SRS have digest {}",
                srs.digest_hex()
            )));
        }
        srs.provenance = self.provenance;
        Ok(srs)
    }

    /// The Ethereum ceremony (k = 12) with its Lagrange basis, from the copy in the program. Takes
    /// a few milliseconds. Compares the digest of the powers instead of checking each point.
    ///
    /// # Errors
    /// [`Error::Internal`] if the copy is damaged.
    pub fn ethereum() -> Result<Srs, Error> {
        let srs = Srs::from_embedded_bytes(ETHEREUM)?;
        if srs.provenance != Provenance::EthereumCeremony {
            return Err(Error::Internal(format!(
                "the embedded SRS has digest {}, expected {ETHEREUM_DIGEST}",
                srs.digest_hex()
            )));
        }
        Ok(srs)
    }

    /// The copy of the Ethereum ceremony in the program, as [`Srs::to_bytes`] writes it.
    pub fn ethereum_bytes() -> &'static [u8] {
        ETHEREUM
    }

    /// The Ethereum ceremony from the points in the crate `ekzg-trusted-setup`. Computes the
    /// Lagrange basis and checks everything. Takes about 2 s.
    pub fn ethereum_from_ceremony() -> Result<Srs, Error> {
        let setup = ekzg_trusted_setup::TrustedSetup::default();
        let g1: Vec<[u8; 48]> = setup.g1_monomial.iter().map(|p| p.to_compressed()).collect();
        let g2: Vec<[u8; 96]> =
            setup.g2_monomial.iter().take(2).map(|p| p.to_compressed()).collect();
        let [g2, s_g2] = g2.as_slice() else {
            return Err(Error::Srs("the ceremony's G2 points are missing".into()));
        };
        let srs = Srs::from_compressed(&g1, g2, s_g2)?;
        if srs.provenance != Provenance::EthereumCeremony {
            return Err(Error::Srs(format!(
                "the points of ekzg-trusted-setup have digest {}, expected {ETHEREUM_DIGEST}",
                srs.digest_hex()
            )));
        }
        Ok(srs)
    }

    /// Parameters from compressed points: `[τ⁰]₁ … [τ^(2^k − 1)]₁`, `[1]₂`, `[τ]₂`.
    ///
    /// # Errors
    /// [`Error::Srs`] if a point is not in its subgroup, the length is not a power of two, the
    /// first points are not the standard generators, the points are not consecutive powers of
    /// one τ, or τ lies in the evaluation domain (commitments would then hide nothing).
    pub fn from_compressed(g1: &[[u8; 48]], g2: &[u8; 96], s_g2: &[u8; 96]) -> Result<Srs, Error> {
        let k = check_length(g1.len())?;
        let monomial = g1
            .par_iter()
            .enumerate()
            .map(|(i, bytes)| {
                let mut repr = <G1Affine as GroupEncoding>::Repr::default();
                repr.as_mut().copy_from_slice(bytes);
                Option::<G1Affine>::from(G1Affine::from_bytes(&repr)).ok_or_else(|| {
                    Error::Srs(format!("G1 point {i} is not a point of the prime-order group"))
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let g2 = parse_g2(g2, "G2 point 0")?;
        let s_g2 = parse_g2(s_g2, "G2 point 1")?;
        check_powers(&monomial, &g2, &s_g2)?;
        let lagrange = lagrange_of(&monomial, k);
        Srs::assemble(k, monomial, lagrange, g2, s_g2)
    }

    /// Parameters with a fresh τ, for tests and dry runs only. A process that can read this
    /// process's memory can prove any statement. Their provenance is [`Provenance::InsecureDev`].
    pub fn insecure_dev(k: u32) -> Result<Srs, Error> {
        if !(MIN_K..=MAX_K).contains(&k) {
            return Err(Error::Srs(format!("k = {k} is outside {MIN_K}..={MAX_K}")));
        }
        let tau = F::random(OsRng);
        let mut power = F::ONE;
        let projective: Vec<G1> = (0..1u64 << k)
            .map(|_| {
                let point = G1::generator() * power;
                power *= tau;
                point
            })
            .collect();
        let monomial = to_affine(&projective);
        let g2 = G2Projective::generator().to_affine();
        let s_g2 = (G2Projective::generator() * tau).to_affine();
        check_powers(&monomial, &g2, &s_g2)?;
        let lagrange = lagrange_of(&monomial, k);
        let mut srs = Srs::assemble(k, monomial, lagrange, g2, s_g2)?;
        srs.provenance = Provenance::InsecureDev;
        Ok(srs)
    }

    /// Parameters of 2^12 points from the bytes that [`Srs::to_bytes`] wrote. Only for bytes that
    /// are part of the program: it makes no subgroup or pairing checks, and takes the Lagrange
    /// basis without recomputing it.
    fn from_embedded_bytes(bytes: &[u8]) -> Result<Srs, Error> {
        let n = 1usize << ETHEREUM_K;
        let expected =
            embedded_start(LEAST_SHORTER_K) + (G1_BYTES << LEAST_SHORTER_K) + 2 * G2_BYTES;
        if bytes.len() != expected {
            return Err(Error::Internal(format!(
                "the embedded SRS has {} bytes, expected {expected}",
                bytes.len()
            )));
        }
        let points = embedded_points(&bytes[MAGIC.len()..][..2 * n * G1_BYTES])?;
        let g2 = bytes[expected - 2 * G2_BYTES..]
            .chunks_exact(G2_BYTES)
            .map(|chunk| {
                let mut repr = <G2Affine as UncompressedEncoding>::Uncompressed::default();
                repr.as_mut().copy_from_slice(chunk);
                Option::<G2Affine>::from(G2Affine::from_uncompressed(&repr)).ok_or_else(|| {
                    Error::Internal("a G2 point of the embedded SRS is not on the curve".into())
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let (monomial, lagrange) = points.split_at(n);
        Srs::assemble(ETHEREUM_K, monomial.to_vec(), lagrange.to_vec(), g2[0], g2[1])
    }

    /// The powers, and the Lagrange bases of all k from the largest down to [`LEAST_SHORTER_K`],
    /// uncompressed: the content of `ethereum.srs`. Computes the bases.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        let mut write = |points: &[G1Affine]| {
            points.iter().for_each(|point| out.extend_from_slice(point.to_uncompressed().as_ref()));
        };
        write(&self.params.powers);
        write(self.lagrange());
        for k in (LEAST_SHORTER_K..self.k).rev() {
            write(&lagrange_of(&self.params.powers[..1 << k], k));
        }
        for point in [self.params.library.g2(), self.params.library.s_g2()] {
            out.extend_from_slice(point.to_affine().to_uncompressed().as_ref());
        }
        out
    }

    /// The powers in the format of the Ethereum consensus specifications: JSON with `g1_monomial`
    /// and `g2_monomial`.
    pub fn to_json(&self) -> String {
        let g1: Vec<String> =
            self.params.powers.iter().map(|p| format!("0x{}", hex::encode(p.to_bytes()))).collect();
        let g2 = [self.params.library.g2(), self.params.library.s_g2()]
            .map(|p| format!("0x{}", hex::encode(p.to_bytes())));
        serde_json::json!({ "g1_monomial": g1, "g2_monomial": g2 }).to_string()
    }

    fn assemble(
        k: u32,
        monomial: Vec<G1Affine>,
        lagrange: Vec<G1Affine>,
        g2: G2Affine,
        s_g2: G2Affine,
    ) -> Result<Srs, Error> {
        let mut hasher = blake3::Hasher::new_derive_key("zklora v1 srs");
        hasher.update(&k.to_le_bytes());
        for point in &monomial {
            hasher.update(point.to_bytes().as_ref());
        }
        hasher.update(g2.to_bytes().as_ref());
        hasher.update(s_g2.to_bytes().as_ref());
        let digest = *hasher.finalize().as_bytes();
        let params = ParamsKZG::from_parts(
            k,
            monomial.iter().map(G1::from).collect(),
            Some(lagrange.iter().map(G1::from).collect()),
            G2Projective::from(g2),
            G2Projective::from(s_g2),
        );
        let known = match k {
            ETHEREUM_K => Some(ETHEREUM_DIGEST),
            _ => k
                .checked_sub(LEAST_SHORTER_K)
                .and_then(|at| ETHEREUM_SHORTER_DIGESTS.get(at as usize).copied()),
        };
        let provenance = match known == Some(hex::encode(digest).as_str()) {
            true => Provenance::EthereumCeremony,
            false => Provenance::Unknown,
        };
        Ok(Srs {
            k,
            verifier: params.verifier_params(),
            params: ProverParameters::new(params, monomial, lagrange),
            digest,
            provenance,
            shorter: (LEAST_SHORTER_K..k.min(MOST_SHORTER_K + 1))
                .map(|_| OnceLock::new())
                .collect(),
        })
    }

    /// log₂ of the number of points.
    pub fn k(&self) -> u32 {
        self.k
    }

    /// BLAKE3 (derive_key "zklora v1 srs") of k and the compressed points.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// [`Srs::digest`] as lower-case hex.
    pub fn digest_hex(&self) -> String {
        hex::encode(self.digest)
    }

    /// `[τ]₂`, compressed, lower-case hex.
    pub fn tau_g2_hex(&self) -> String {
        hex::encode(self.params.library.s_g2().to_bytes())
    }

    /// The ceremony of these parameters.
    pub fn provenance(&self) -> Provenance {
        self.provenance
    }

    /// The commitments `L_i` to the Lagrange basis polynomials over H, |H| = 2^k.
    pub fn lagrange(&self) -> &[G1Affine] {
        &self.params.lagrange
    }

    /// The powers of τ in G1.
    #[cfg(test)]
    pub(crate) fn powers(&self) -> &[G1Affine] {
        &self.params.powers
    }

    /// The parameters as the library has them.
    pub(crate) fn library(&self) -> &ParamsKZG<Bls12> {
        &self.params.library
    }

    pub(crate) fn params(&self) -> &ProverParameters {
        &self.params
    }

    pub(crate) fn verifier_params(&self) -> &ParamsVerifierKZG<Bls12> {
        &self.verifier
    }
}

/// The Lagrange basis over the subgroup of order 2^k, from as many powers.
fn lagrange_of(powers: &[G1Affine], k: u32) -> Vec<G1Affine> {
    let projective: Vec<G1> = powers.iter().map(G1::from).collect();
    to_affine(&g_to_lagrange(&projective, k))
}

/// Where the Lagrange basis of a k begins in [`ETHEREUM`], after the powers and the longer bases.
fn embedded_start(k: u32) -> usize {
    let points: usize = (k + 1..=ETHEREUM_K).map(|longer| 1usize << longer).sum();
    MAGIC.len() + (points + (1 << ETHEREUM_K)) * G1_BYTES
}

/// The Lagrange basis of a k in [`ETHEREUM`].
fn embedded_basis(k: u32) -> Option<&'static [u8]> {
    (LEAST_SHORTER_K..=ETHEREUM_K).contains(&k).then_some(())?;
    ETHEREUM.get(embedded_start(k)..)?.get(..G1_BYTES << k)
}

/// Uncompressed points that are part of the program.
fn embedded_points(bytes: &[u8]) -> Result<Vec<G1Affine>, Error> {
    bytes
        .par_chunks_exact(G1_BYTES)
        .map(|chunk| {
            let mut repr = <G1Affine as UncompressedEncoding>::Uncompressed::default();
            repr.as_mut().copy_from_slice(chunk);
            Option::<G1Affine>::from(G1Affine::from_uncompressed_unchecked(&repr)).ok_or_else(
                || Error::Internal("a point of the embedded SRS is not on the curve".into()),
            )
        })
        .collect()
}

fn check_length(length: usize) -> Result<u32, Error> {
    let k = length.checked_ilog2().unwrap_or(0);
    if length != 1 << k || !(MIN_K..=MAX_K).contains(&k) {
        return Err(Error::Srs(format!(
            "{length} G1 points: expected 2^k of them with k in {MIN_K}..={MAX_K}"
        )));
    }
    Ok(k)
}

fn parse_g2(bytes: &[u8; 96], what: &str) -> Result<G2Affine, Error> {
    let mut repr = <G2Affine as GroupEncoding>::Repr::default();
    repr.as_mut().copy_from_slice(bytes);
    Option::from(G2Affine::from_bytes(&repr))
        .ok_or_else(|| Error::Srs(format!("{what} is not a point of the prime-order group")))
}

/// Checks the generators, that all powers are of one τ (a random combination, by pairings), and
/// that τ ∉ H (docs/protocol.md, "Structured reference string").
fn check_powers(monomial: &[G1Affine], g2: &G2Affine, s_g2: &G2Affine) -> Result<(), Error> {
    if monomial[0] != G1Affine::generator() || *g2 != G2Affine::generator() {
        return Err(Error::Srs("the first points are not the standard generators".into()));
    }
    if bool::from(s_g2.is_identity()) {
        return Err(Error::Srs("τ is zero".into()));
    }
    let n = monomial.len();
    let weights: Vec<F> =
        (1..n).map(|_| from_u128_parts(OsRng.next_u64(), OsRng.next_u64())).collect();
    let low = msm(&monomial[..n - 1], &weights).to_affine();
    let high = msm(&monomial[1..], &weights).to_affine();
    if Bls12::pairing(&high, g2) != Bls12::pairing(&low, s_g2) {
        return Err(Error::Srs("the points are not consecutive powers of one τ".into()));
    }
    if Bls12::pairing(&monomial[n - 1], s_g2) == Bls12::pairing(&G1Affine::generator(), g2) {
        return Err(Error::Srs(
            "τ lies in the evaluation domain: commitments would hide nothing".into(),
        ));
    }
    Ok(())
}

/// The field element of 128 bits.
fn from_u128_parts(low: u64, high: u64) -> F {
    F::from_u128((u128::from(high) << 64) | u128::from(low))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn compressed(srs: &Srs) -> (Vec<[u8; 48]>, [u8; 96], [u8; 96]) {
        let g1 = srs.powers().iter().map(|p| p.to_bytes().as_ref().try_into().unwrap()).collect();
        let g2 =
            |p: G2Projective| -> [u8; 96] { p.to_affine().to_bytes().as_ref().try_into().unwrap() };
        (g1, g2(srs.params.library.g2()), g2(srs.params.library.s_g2()))
    }

    fn refused(g1: &[[u8; 48]], g2: &[u8; 96], s_g2: &[u8; 96], why: &str) {
        let error = Srs::from_compressed(g1, g2, s_g2).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn the_ethereum_ceremony_of_the_program_is_the_one_with_the_pinned_digests() {
        let ceremony = Srs::ethereum_from_ceremony().unwrap();
        assert_eq!(ceremony.digest_hex(), ETHEREUM_DIGEST);
        if std::env::var_os("ZKLORA_WRITE_SRS").is_some() {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/ethereum.srs");
            std::fs::write(path, ceremony.to_bytes()).unwrap();
        }
        let (g1, g2, s_g2) = compressed(&ceremony);
        let digest = |k: u32| Srs::from_compressed(&g1[..1 << k], &g2, &s_g2).unwrap().digest_hex();
        let digests: Vec<String> = (LEAST_SHORTER_K..ETHEREUM_K).map(digest).collect();
        assert_eq!(digests, ETHEREUM_SHORTER_DIGESTS);
        assert_eq!(ceremony.tau_g2_hex(), ETHEREUM_TAU_G2);
        // Equal bytes, so every check that the ceremony passed holds for the copy in the program.
        assert!(
            ceremony.to_bytes() == ETHEREUM,
            "proof/src/ethereum.srs is not what the ceremony gives"
        );
        let embedded = Srs::ethereum().unwrap();
        assert_eq!(
            (embedded.digest(), embedded.provenance()),
            (ceremony.digest(), Provenance::EthereumCeremony)
        );
        assert_eq!(embedded.lagrange(), ceremony.lagrange());
        assert!(Srs::from_embedded_bytes(&ETHEREUM[1..]).is_err());
        for k in LEAST_SHORTER_K..ETHEREUM_K {
            let [own, again] = [&embedded, &ceremony].map(|srs| srs.at(k).unwrap());
            assert_eq!(own.digest(), again.digest());
            assert_eq!((own.k(), own.provenance()), (k, Provenance::EthereumCeremony));
            // As any ceremony of this length is read, with all checks.
            let (g1, g2, s_g2) = compressed(own);
            let read = Srs::from_compressed(&g1, &g2, &s_g2).unwrap();
            assert_eq!(read.lagrange(), own.lagrange());
            assert_eq!((read.digest(), read.provenance()), (own.digest(), own.provenance()));
        }
        for k in [0, LEAST_SHORTER_K - 1, ETHEREUM_K + 1, u32::MAX] {
            assert!(embedded.at(k).is_err(), "{k}");
        }
    }

    #[test]
    fn fewer_powers_of_a_ceremony_are_those_of_its_beginning() {
        let srs = Srs::insecure_dev(10).unwrap();
        for k in LEAST_SHORTER_K..=10 {
            let shorter = srs.at(k).unwrap();
            assert_eq!((shorter.k(), shorter.provenance()), (k, Provenance::InsecureDev));
            let (g1, g2, s_g2) = compressed(shorter);
            assert_eq!(g1, compressed(&srs).0[..1 << k]);
            let read = Srs::from_compressed(&g1, &g2, &s_g2).unwrap();
            assert_eq!((read.digest(), read.lagrange()), (shorter.digest(), shorter.lagrange()));
            assert!(std::ptr::eq(srs.at(k).unwrap(), shorter), "made once");
        }
        assert!([0, 4, 7, 11, 12, u32::MAX].into_iter().all(|k| srs.at(k).is_err()));
        // Others than the whole of a long ceremony are short.
        let long = Srs::insecure_dev(14).unwrap();
        assert!(long.at(12).is_ok() && long.at(14).is_ok() && long.at(13).is_err());
        assert!(Srs::insecure_dev(7).unwrap().at(6).is_err());
    }

    #[test]
    fn parameters_that_are_not_powers_of_one_tau_are_refused() {
        let srs = Srs::insecure_dev(5).unwrap();
        let (g1, g2, s_g2) = compressed(&srs);
        assert_eq!(
            Srs::from_compressed(&g1, &g2, &s_g2).unwrap().provenance(),
            Provenance::Unknown
        );
        let mut swapped = g1.clone();
        swapped.swap(7, 8);
        refused(&swapped, &g2, &s_g2, "not consecutive powers");
        let (_, _, other) = compressed(&Srs::insecure_dev(5).unwrap());
        refused(&g1, &g2, &other, "not consecutive powers");
        refused(&g1[1..], &g2, &s_g2, "31 G1 points");
        refused(&g1[..8], &g2, &s_g2, "8 G1 points");
        let mut shifted = g1[1..].to_vec();
        shifted.push(g1[0]);
        refused(&shifted, &g2, &s_g2, "generators");
        // With τ = 0 all higher powers are the identity, and every pairing equation holds.
        let mut identity = [0u8; 48];
        identity[0] = 0xc0;
        let mut vanished = vec![identity; g1.len()];
        vanished[0] = g1[0];
        let mut identity_g2 = [0u8; 96];
        identity_g2[0] = 0xc0;
        refused(&vanished, &g2, &identity_g2, "τ is zero");
        let mut broken = g1.clone();
        broken[3][47] ^= 1;
        refused(&broken, &g2, &s_g2, "G1 point 3");
    }

    #[test]
    fn a_tau_in_the_evaluation_domain_is_refused() {
        let k = 5;
        let mut omega = F::ROOT_OF_UNITY;
        for _ in k..F::S {
            omega = omega.square();
        }
        let powers = crate::field::powers(omega, 1 << k);
        let g1: Vec<[u8; 48]> = powers
            .iter()
            .map(|p| (G1::generator() * p).to_bytes().as_ref().try_into().unwrap())
            .collect();
        let g2: [u8; 96] = G2Projective::generator().to_bytes().as_ref().try_into().unwrap();
        let s_g2: [u8; 96] =
            (G2Projective::generator() * omega).to_bytes().as_ref().try_into().unwrap();
        refused(&g1, &g2, &s_g2, "evaluation domain");
    }
}
