//! Reads and writes a proof: magic, version, and parts with their lengths (docs/formats.md).
//!
//! The layout gives the length of every part but the last, and the last is bounded. So the reader
//! never allocates by a length that the file states.

use ff::PrimeField;
use group::{Curve, GroupEncoding};

use crate::{
    Error,
    field::{F, G1, G1Affine},
    layout::Layout,
    manifest::parse_point,
};

/// First bytes of every proof.
pub const MAGIC: &[u8; 8] = b"zklorapf";
/// Version of the format.
pub const VERSION: u8 = 1;
/// Longest halo2 part that is read, in bytes.
pub const MAX_ARGUMENT: usize = 1 << 22;

const POINT: usize = 48;
const SCALAR: usize = 32;

/// The parsed proof of a session: every point is in the prime-order group and not the identity,
/// every scalar is canonical.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// Commitments to the columns of T.
    pub t: Vec<G1Affine>,
    /// Commitments to the columns of U.
    pub u: Vec<G1Affine>,
    /// Commitments to the rounds of the fold.
    pub s: Vec<G1Affine>,
    /// Commitments to the re-randomised columns of `A**`.
    pub a: Vec<G1Affine>,
    /// Commitments to the re-randomised columns of `B*`.
    pub b: Vec<G1Affine>,
    /// The nonce commitment R of the span proof.
    pub r: G1Affine,
    /// The responses of the span proof.
    pub z: [F; 2],
    /// The halo2 proof.
    pub argument: Vec<u8>,
}

impl Proof {
    /// The committed columns in the order of the circuit: T, U, S, B, A.
    pub fn columns(&self) -> Vec<G1> {
        [&self.t, &self.u, &self.s, &self.b, &self.a].into_iter().flatten().map(G1::from).collect()
    }

    /// The bytes of a `.pf` file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.push(VERSION);
        for points in [&self.t, &self.u, &self.s, &self.a, &self.b] {
            let bytes: Vec<u8> =
                points.iter().flat_map(|p| p.to_bytes().as_ref().to_vec()).collect();
            part(&mut out, &bytes);
        }
        part(&mut out, self.r.to_bytes().as_ref());
        part(&mut out, &self.z.iter().flat_map(F::to_repr).collect::<Vec<u8>>());
        part(&mut out, &self.argument);
        out
    }

    /// Parses a `.pf` file of a session with this layout.
    ///
    /// # Errors
    /// [`Error::Malformed`] names the part and what is wrong with it.
    pub fn parse(bytes: &[u8], layout: &Layout) -> Result<Proof, Error> {
        let mut reader = Reader { rest: bytes };
        if reader.take("header", MAGIC.len())? != MAGIC {
            return Err(malformed("header", "this is not a zklora proof"));
        }
        match reader.take("header", 1)? {
            [VERSION] => {}
            other => {
                return Err(malformed(
                    "header",
                    format!("version {}: this build reads version {VERSION}", other[0]),
                ));
            }
        }
        let proof = Proof {
            t: reader.points("T", layout.pair_columns)?,
            u: reader.points("U", layout.pair_columns)?,
            s: reader.points("S", layout.rounds)?,
            a: reader.points("A**", layout.a_columns)?,
            b: reader.points("B*", layout.b_columns)?,
            r: reader.points("R", 1)?[0],
            z: reader.scalars("z")?,
            argument: reader.part("halo2", None)?.to_vec(),
        };
        if !reader.rest.is_empty() {
            return Err(malformed("end", format!("{} bytes too many", reader.rest.len())));
        }
        Ok(proof)
    }
}

/// Commitments in affine coordinates.
pub(crate) fn affine(points: &[G1]) -> Vec<G1Affine> {
    points.iter().map(Curve::to_affine).collect()
}

fn malformed(part: &'static str, why: impl Into<String>) -> Error {
    Error::Malformed { part, why: why.into() }
}

/// Appends the length as an unsigned LEB128 number, then the bytes.
fn part(out: &mut Vec<u8>, bytes: &[u8]) {
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, part: &'static str, count: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or_else(|| {
            malformed(part, format!("the file ends {} bytes early", count - self.rest.len()))
        })?;
        self.rest = rest;
        Ok(taken)
    }

    fn length(&mut self, part: &'static str) -> Result<u64, Error> {
        let mut length = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = u64::from(self.take(part, 1)?[0]);
            length |= (byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                // Each length has one encoding: no padding, no bits beyond the 64th.
                if (byte == 0 && shift > 0) || (shift == 63 && byte > 1) {
                    break;
                }
                return Ok(length);
            }
        }
        Err(malformed(part, "its length is not a canonical LEB128 number"))
    }

    /// The next part: `expected` bytes, or at most [`MAX_ARGUMENT`] bytes.
    fn part(&mut self, part: &'static str, expected: Option<usize>) -> Result<&'a [u8], Error> {
        let length = self.length(part)?;
        let bound = expected.unwrap_or(MAX_ARGUMENT);
        match usize::try_from(length) {
            Ok(length) if length <= bound && expected.is_none_or(|e| e == length) => {
                self.take(part, length)
            }
            _ => Err(malformed(
                part,
                format!(
                    "it claims {length} bytes, expected {}{bound}",
                    if expected.is_none() { "at most " } else { "" }
                ),
            )),
        }
    }

    fn points(&mut self, part: &'static str, count: usize) -> Result<Vec<G1Affine>, Error> {
        let bytes = self.part(part, Some(count * POINT))?;
        bytes
            .chunks_exact(POINT)
            .enumerate()
            .map(|(i, chunk)| {
                let mut repr = [0u8; POINT];
                repr.copy_from_slice(chunk);
                parse_point(&repr).map_err(|why| malformed(part, format!("point {i} {why}")))
            })
            .collect()
    }

    fn scalars(&mut self, part: &'static str) -> Result<[F; 2], Error> {
        let bytes = self.part(part, Some(2 * SCALAR))?;
        let scalar = |i: usize| {
            let mut repr = [0u8; SCALAR];
            repr.copy_from_slice(&bytes[i * SCALAR..(i + 1) * SCALAR]);
            Option::<F>::from(F::from_repr(repr)).ok_or_else(|| {
                malformed(part, format!("scalar {i} is not below the field's order"))
            })
        };
        Ok([scalar(0)?, scalar(1)?])
    }
}
