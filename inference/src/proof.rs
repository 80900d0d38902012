//! A proof as bytes: magic, version, and parts with their lengths (docs/formats.md).

use group::{Curve, GroupEncoding};
use rayon::prelude::*;
use zklora_proof::{
    field::{G1, G1Affine},
    layout::MAX_COLUMNS,
    manifest::parse_point,
    proof::MAX_ARGUMENT,
};

use crate::{Error, channel::MOST_CELLS};

/// First bytes of every proof of this crate.
pub const MAGIC: &[u8; 8] = b"zklorain";
/// Version of the format.
pub const VERSION: u8 = 2;
const POINT: usize = 48;
/// Most columns of tensors.
const MAX_POINTS: usize = 1 << 24;

/// A parsed proof: every point is in the prime-order group and not the identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// Commitments to columns of tensors.
    pub columns: Vec<G1Affine>,
    /// Commitments to messages.
    pub messages: Vec<G1Affine>,
    /// Commitments to T.
    pub t: Vec<G1Affine>,
    /// Commitments to U.
    pub u: Vec<G1Affine>,
    /// The blinders of the columns of W, then that of X.
    pub blinders: Vec<G1Affine>,
    /// The halo2 proof.
    pub argument: Vec<u8>,
}

impl Proof {
    /// The bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.push(VERSION);
        for points in [&self.columns, &self.messages, &self.t, &self.u, &self.blinders] {
            out.extend_from_slice(&(points.len() as u32).to_le_bytes());
            points.iter().for_each(|point| out.extend_from_slice(point.to_bytes().as_ref()));
        }
        out.extend_from_slice(&(self.argument.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.argument);
        out
    }

    /// Parses a proof with this many columns.
    ///
    /// # Errors
    /// [`Error::Malformed`] names the part.
    pub fn parse(bytes: &[u8], columns: usize) -> Result<Proof, Error> {
        let mut rest = bytes;
        if take(&mut rest, "header", MAGIC.len())? != MAGIC {
            return Err(Error::malformed("header", "this is no inference proof"));
        }
        let version = take(&mut rest, "header", 1)?[0];
        if version != VERSION {
            return Err(Error::malformed(
                "header",
                format!("version {version}, and this build reads version {VERSION}: make it again"),
            ));
        }
        // How many messages and T columns there are is known later. Points beyond what any proof
        // has are not worth the time that their checks take.
        let columns = points(&mut rest, "columns", Some(columns), MAX_POINTS)?;
        let messages = points(&mut rest, "messages", None, MOST_CELLS)?;
        let t = points(&mut rest, "T", None, MAX_COLUMNS)?;
        let u = points(&mut rest, "U", Some(t.len()), MAX_COLUMNS)?;
        let blinders = points(&mut rest, "blinders", None, MAX_COLUMNS + 1)?;
        let length = number(&mut rest, "halo2")?;
        if length > MAX_ARGUMENT {
            return Err(Error::malformed("halo2", format!("it claims {length} bytes")));
        }
        let argument = take(&mut rest, "halo2", length)?.to_vec();
        if !rest.is_empty() {
            return Err(Error::malformed("end", format!("{} bytes too many", rest.len())));
        }
        Ok(Proof { columns, messages, t, u, blinders, argument })
    }
}

/// Commitments in affine coordinates.
pub(crate) fn affine(points: &[G1]) -> Vec<G1Affine> {
    points.iter().map(Curve::to_affine).collect()
}

fn take<'a>(rest: &mut &'a [u8], part: &'static str, count: usize) -> Result<&'a [u8], Error> {
    let (taken, left) = rest.split_at_checked(count).ok_or_else(|| {
        Error::malformed(part, format!("the file ends {} bytes early", count - rest.len()))
    })?;
    *rest = left;
    Ok(taken)
}

fn number(rest: &mut &[u8], part: &'static str) -> Result<usize, Error> {
    let mut bytes = [0u8; 4];
    bytes.copy_from_slice(take(rest, part, 4)?);
    Ok(u32::from_le_bytes(bytes) as usize)
}

fn points(
    rest: &mut &[u8],
    part: &'static str,
    expected: Option<usize>,
    most: usize,
) -> Result<Vec<G1Affine>, Error> {
    let count = number(rest, part)?;
    if count > most || expected.is_some_and(|expected| expected != count) {
        let expected = expected.unwrap_or(most);
        return Err(Error::malformed(part, format!("it claims {count} points, not {expected}")));
    }
    let bytes = take(rest, part, count * POINT)?;
    bytes
        .par_chunks_exact(POINT)
        .enumerate()
        .map(|(at, chunk)| {
            let mut point = [0u8; POINT];
            point.copy_from_slice(chunk);
            parse_point(&point).map_err(|why| Error::malformed(part, format!("point {at} {why}")))
        })
        .collect()
}
