//! Parses a manifest and enforces every rule for it (docs/protocol.md, "Manifest and adapter id").

use group::{GroupEncoding, UncompressedEncoding};
use rayon::prelude::*;

use crate::{
    Error,
    error::manifest as refuse,
    field::G1Affine,
    layout::Layout,
    manifest::{
        AdapterId, MAX_BYTES, Manifest, Module, Point, check_not_identity, commitments,
        parse_on_curve, parse_point,
    },
    pairs::Pairs,
    settings::Settings,
    srs::Srs,
    subgroup,
};

/// The commitments of one pair, parsed: one point a column. A missing side is empty.
#[derive(Debug, Clone)]
pub struct PairPoints {
    /// Commitments to A, column by column.
    pub a: Vec<G1Affine>,
    /// Commitments to B, column by column.
    pub b: Vec<G1Affine>,
}

/// A manifest that was parsed from its canonical bytes and obeys every rule.
#[derive(Debug, Clone)]
pub struct CheckedManifest {
    manifest: Manifest,
    id: AdapterId,
    settings: Settings,
    pairs: Pairs,
    points: Vec<PairPoints>,
}

impl CheckedManifest {
    /// Parses and checks canonical manifest bytes.
    ///
    /// # Errors
    /// [`Error::Manifest`] says which rule is broken: size, JSON, canonical form, names, shapes,
    /// bit widths, settings digest, number of commitments, a point that is not in the
    /// prime-order group or is the identity.
    pub fn parse(bytes: &[u8]) -> Result<CheckedManifest, Error> {
        CheckedManifest::parse_by(bytes, parse_points)
    }

    /// [`CheckedManifest::parse`] with the points that [`CheckedManifest::points_to_bytes`]
    /// returned for the same manifest. Each point is compared with the manifest: it must be on
    /// the curve, have the same compressed form and not be the identity. The one rule that is
    /// not checked again is that it lies in the prime-order group, so `points` must come from a
    /// file that only this user can write.
    ///
    /// # Errors
    /// Those of [`CheckedManifest::parse`]; [`Error::Manifest`] if `points` are not this
    /// manifest's.
    pub fn parse_with_points(bytes: &[u8], points: &[u8]) -> Result<CheckedManifest, Error> {
        CheckedManifest::parse_by(bytes, |manifest| known_points(manifest, points))
    }

    fn parse_by(
        bytes: &[u8],
        points: impl FnOnce(&Manifest) -> Result<Vec<PairPoints>, Error>,
    ) -> Result<CheckedManifest, Error> {
        if bytes.len() > MAX_BYTES {
            return Err(refuse(format!("{} bytes: more than {MAX_BYTES}", bytes.len())));
        }
        let manifest: Manifest =
            serde_json::from_slice(bytes).map_err(|e| refuse(format!("not a manifest: {e}")))?;
        if manifest.to_bytes()? != bytes {
            return Err(refuse(
                "not in canonical form (sorted keys, no white space): use the bytes that compile wrote",
            ));
        }
        manifest.check_shapes()?;
        let pairs = Pairs::of(&manifest.modules)?;
        let settings = Settings::of(&pairs, manifest.k)?;
        if manifest.settings_digest != settings.digest_hex()? {
            return Err(refuse("the settings digest is not the one that its shapes and k give"));
        }
        manifest.check_commitments()?;
        let points = points(&manifest)?;
        let id = AdapterId::of(bytes);
        Ok(CheckedManifest { manifest, id, settings, pairs, points })
    }

    /// [`CheckedManifest::parse`] for a manifest whose id must be `pin`.
    ///
    /// # Errors
    /// [`Error::Pin`] if the id is another one; those of [`CheckedManifest::parse`].
    pub fn parse_pinned(bytes: &[u8], pin: &AdapterId) -> Result<CheckedManifest, Error> {
        let found = AdapterId::of(bytes);
        if found != *pin {
            return Err(Error::Pin { pinned: pin.to_string(), found: found.to_string() });
        }
        CheckedManifest::parse(bytes)
    }

    /// The document.
    pub fn contents(&self) -> &Manifest {
        &self.manifest
    }

    /// The modules, in order.
    pub fn modules(&self) -> &[Module] {
        &self.manifest.modules
    }

    /// BLAKE3 of the canonical bytes.
    pub fn id(&self) -> AdapterId {
        self.id
    }

    /// The settings that the shapes and k give.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The columns of every session of this adapter.
    pub fn layout(&self) -> Layout {
        self.settings.layout
    }

    /// The pairs and groups.
    pub fn pairs(&self) -> &Pairs {
        &self.pairs
    }

    /// The commitments, uncompressed. Decompressing them and checking their group is most of the
    /// work of parsing a manifest.
    pub fn points_to_bytes(&self) -> Vec<u8> {
        let all = self.points.iter().flat_map(|pair| pair.a.iter().chain(&pair.b));
        all.flat_map(|point| point.to_uncompressed().as_ref().to_vec()).collect()
    }

    /// The parameters of this adapter: the first 2^k powers of the caller's own ceremony
    /// ([`Srs::at`]), if the manifest names their digest. Commitments under a longer Lagrange basis
    /// are commitments to other polynomials (docs/protocol.md, "Structured reference string"), so k
    /// counts, too.
    ///
    /// # Errors
    /// [`Error::SrsMismatch`]: the manifest was made for another ceremony.
    pub fn parameters<'s>(&self, srs: &'s Srs) -> Result<&'s Srs, Error> {
        let own = srs.at(self.manifest.k)?;
        if self.manifest.srs_digest != own.digest_hex() {
            return Err(Error::SrsMismatch {
                manifest: self.manifest.srs_digest.clone(),
                own: own.digest_hex(),
            });
        }
        Ok(own)
    }

    /// The commitments, one entry a pair.
    pub fn points(&self) -> &[PairPoints] {
        &self.points
    }
}

fn parse_points(manifest: &Manifest) -> Result<Vec<PairPoints>, Error> {
    let sides: Vec<_> = commitments(&manifest.modules).collect();
    let pairs: Vec<PairPoints> = sides
        .par_iter()
        .map(|(a, b)| Ok(PairPoints { a: parse_side(a)?, b: parse_side(b)? }))
        .collect::<Result<_, Error>>()?;
    let points = pairs.iter().flat_map(|pair| pair.a.iter().chain(&pair.b));
    if !subgroup::contains(&points.copied().collect::<Vec<G1Affine>>()) {
        // Says which.
        sides.par_iter().try_for_each(|(a, b)| {
            a.iter().chain(*b).try_for_each(|point| {
                parse_point(&point.0).map(|_| ()).map_err(|why| refused(point, why))
            })
        })?;
        return Err(Error::Internal("the sums of commitments are not in their group".into()));
    }
    Ok(pairs)
}

fn refused(point: &Point, why: &str) -> Error {
    refuse(format!("commitment {point:?} {why}"))
}

/// Bytes of an uncompressed point.
const UNCOMPRESSED: usize = 96;

/// The points of `bytes`, if they are those of the manifest. Refuses what [`parse_point`] refuses,
/// except a point that lies on the curve and not in the prime-order group.
fn known_points(manifest: &Manifest, bytes: &[u8]) -> Result<Vec<PairPoints>, Error> {
    let refuse = |why| refuse(format!("its kept points are not its commitments: {why}"));
    let sides: Vec<_> = commitments(&manifest.modules).collect();
    let count = sides.iter().map(|(a, b)| a.len() + b.len()).sum::<usize>();
    if bytes.len() != count * UNCOMPRESSED {
        return Err(refuse("their number differs"));
    }
    let mut chunks = bytes.chunks_exact(UNCOMPRESSED);
    let mut side = |compressed: &[Point]| -> Result<Vec<G1Affine>, &'static str> {
        compressed.iter().zip(&mut chunks).map(|(point, bytes)| known_point(point, bytes)).collect()
    };
    let pairs = sides.into_iter().map(|(a, b)| Ok(PairPoints { a: side(a)?, b: side(b)? }));
    pairs.collect::<Result<_, _>>().map_err(refuse)
}

/// The point of these bytes, if it is on the curve, has this compressed form and is not the
/// identity.
fn known_point(compressed: &Point, bytes: &[u8]) -> Result<G1Affine, &'static str> {
    let mut repr = <G1Affine as UncompressedEncoding>::Uncompressed::default();
    repr.as_mut().copy_from_slice(bytes);
    // "Unchecked" refers to the group, not to the curve.
    let point: G1Affine = Option::from(G1Affine::from_uncompressed_unchecked(&repr))
        .ok_or("a point is not on the curve")?;
    if point.to_bytes().as_ref() != compressed.0 {
        return Err("a point differs");
    }
    check_not_identity(point)
}

/// Points of the curve, which may lie outside the prime-order group.
fn parse_side(points: &[Point]) -> Result<Vec<G1Affine>, Error> {
    let parse = |point: &Point| parse_on_curve(&point.0).map_err(|why| refused(point, why));
    points.iter().map(parse).collect()
}
