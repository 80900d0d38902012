//! Points outside the group and scalars that are not canonical, at every place of a proof.

use ff::PrimeField;
use group::GroupEncoding;
use num_bigint::BigUint;

use super::proof_bytes::{argument_points, malformed, parts, session};
use crate::{
    Error,
    error::Check,
    field::{F, G1Affine},
};

/// On the curve, but not in the prime-order group.
pub fn outside_the_subgroup() -> [u8; 48] {
    (1u8..).map(point_with_x).find(is_on_curve).unwrap()
}

fn point_with_x(x: u8) -> [u8; 48] {
    let mut bytes = [0u8; 48];
    (bytes[0], bytes[47]) = (0x80, x);
    bytes
}

fn is_on_curve(bytes: &[u8; 48]) -> bool {
    let mut repr = <G1Affine as GroupEncoding>::Repr::default();
    repr.as_mut().copy_from_slice(bytes);
    G1Affine::from_bytes_unchecked(&repr).is_some().into()
        && !bool::from(G1Affine::from_bytes(&repr).is_some())
}

pub fn identity() -> [u8; 48] {
    let mut bytes = [0u8; 48];
    bytes[0] = 0xc0;
    bytes
}

/// A point whose x is encoded as x + p: a second encoding of the same point.
fn x_not_reduced() -> [u8; 48] {
    let p = BigUint::parse_bytes(
        b"1a0111ea397fe69a4b1ba7b6434bacd764774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab",
        16,
    )
    .unwrap();
    for i in 1u64.. {
        let point: G1Affine = (<crate::field::G1 as group::Group>::generator() * F::from(i)).into();
        let mut x: Vec<u8> = point.to_bytes().as_ref().to_vec();
        let flags = x[0] & 0xe0;
        x[0] &= 0x1f;
        let sum = (BigUint::from_bytes_be(&x) + &p).to_bytes_be();
        if sum.len() == 48 && sum[0] < 0x20 {
            let mut out: [u8; 48] = sum.try_into().unwrap();
            out[0] |= flags;
            return out;
        }
    }
    unreachable!()
}

#[test]
fn points_outside_the_group_are_refused_in_every_part() {
    let session = session();
    let proof = session.prove();
    let bad = [outside_the_subgroup(), identity(), x_not_reduced(), [0; 48], [0xff; 48]];
    for part in parts(&proof).iter().filter(|p| ["T", "U", "S", "A**", "B*", "R"].contains(&p.name))
    {
        for at in part.content.clone().step_by(48) {
            for (i, point) in bad.iter().enumerate() {
                let mut other = proof.clone();
                other[at..at + 48].copy_from_slice(point);
                let why = if i == 1 {
                    "is the identity"
                } else {
                    "is not a point of the prime-order group"
                };
                malformed(&session.verify(&other), part.name, why);
            }
        }
    }
}

#[test]
fn points_outside_the_group_are_refused_inside_the_halo2_part() {
    let session = session();
    let proof = session.prove();
    let argument = parts(&proof).pop().unwrap().content;
    let layout = session.checked.layout();
    let offsets = argument_points(&layout);
    assert_eq!(offsets.last().unwrap() + 48, argument.len(), "the halo2 part has another form");
    for offset in offsets {
        let at = argument.start + offset;
        let replaced = |point: &[u8; 48]| {
            let mut other = proof.clone();
            other[at..at + 48].copy_from_slice(point);
            session.verify(&other)
        };
        for point in [outside_the_subgroup(), x_not_reduced()] {
            malformed(&replaced(&point), "halo2", "");
        }
        let answer = replaced(&identity());
        assert!(matches!(answer, Err(Error::Rejected(Check::Relations))), "{answer:?}");
    }
}

/// The field's order, and the scalar 1 plus the order.
fn not_canonical() -> [[u8; 32]; 3] {
    let order = BigUint::from_bytes_le((-F::from(1)).to_repr().as_ref()) + 1u8;
    let bytes = |value: BigUint| -> [u8; 32] { value.to_bytes_le().try_into().unwrap() };
    [bytes(order.clone()), bytes(order + 1u8), [0xff; 32]]
}

#[test]
fn scalars_that_are_not_canonical_are_refused() {
    let session = session();
    let proof = session.prove();
    let all = parts(&proof);
    let z = all.iter().find(|p| p.name == "z").unwrap().content.clone();
    let argument = all.last().unwrap().content.clone();
    let columns = session.checked.layout().committed_columns();
    for scalar in not_canonical() {
        let replaced = |at: usize| {
            let mut other = proof.clone();
            other[at..at + 32].copy_from_slice(&scalar);
            session.verify(&other)
        };
        malformed(&replaced(z.start), "z", "scalar 0 is not below");
        malformed(&replaced(z.start + 32), "z", "scalar 1 is not below");
        for evaluation in 0..columns + 6 {
            malformed(&replaced(argument.start + 192 + 32 * evaluation), "halo2", "");
        }
        for opening in 0..2 {
            malformed(&replaced(argument.end - 48 - 64 + 32 * opening), "halo2", "");
        }
    }
}
