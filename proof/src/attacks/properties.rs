//! Random shapes and extreme integers: deltas equal a big-integer oracle, proofs verify, and do not
//! verify after a change.

use ff::PrimeField;
use num_bigint::{BigInt, BigUint, Sign};
use proptest::prelude::*;

use crate::{
    Error,
    error::Check,
    field::{F, from_i64},
    manifest::TermKind,
    projection::{Sums, row_weights},
    row_sums::TWO_PARTS,
    testing::{
        OwnedRows, Session, Shape, draft, integer, keys, lora, random_pairs, random_rows, srs,
        with_rows,
    },
    verifier::{SrsPolicy, verify},
    weights::PairWeights,
};

fn order() -> BigInt {
    BigInt::from(BigUint::from_bytes_le((-F::from(1)).to_repr().as_ref()) + 1u8)
}

fn to_field(value: &BigInt) -> F {
    let reduced = ((value % order()) + order()) % order();
    let (sign, bytes) = reduced.to_bytes_le();
    assert_ne!(sign, Sign::Minus);
    let mut repr = [0u8; 32];
    repr[..bytes.len()].copy_from_slice(&bytes);
    F::from_repr(repr).unwrap()
}

fn rho_as_integer(limbs: &[u32; 4]) -> BigInt {
    limbs.iter().rev().fold(BigInt::from(0), |value, limb| (value << 32) + limb)
}

/// `ρᵀV` as integers, for the rows of `v`.
fn projected(rho: &[[u32; 4]], v: &[i64], dim: usize) -> Vec<F> {
    (0..dim)
        .map(|k| {
            to_field(
                &rho.iter()
                    .enumerate()
                    .map(|(l, r)| rho_as_integer(r) * v[l * dim + k])
                    .sum::<BigInt>(),
            )
        })
        .collect()
}

fn project_inputs(rho: &[[u32; 4]], x: &[i32], dim: usize) -> Vec<F> {
    let mut sums = Sums::default();
    sums.add_inputs(rho, x, dim);
    sums.finish()
}

fn project_deltas(rho: &[[u32; 4]], d: &[i64], dim: usize, bits: u32) -> Vec<F> {
    let mut sums = Sums::default();
    sums.add_deltas(rho, d, dim, bits);
    sums.finish()
}

#[test]
fn three_hundred_rows_of_extreme_integers_project_without_wrapping() {
    let most = [u32::MAX; 4];
    for rows in [127, 128, 129, 256, 257, 300] {
        let all_ones = vec![most; rows];
        let x_limit = (1 << 23) - 1;
        for x in [x_limit, -x_limit] {
            let wide: Vec<i64> = vec![i64::from(x); rows * 2];
            assert_eq!(
                project_inputs(&all_ones, &vec![x; rows * 2], 2),
                projected(&all_ones, &wide, 2)
            );
        }
        // The largest of every number of parts, and the smallest with one part more.
        let two = (1 << TWO_PARTS) - 1;
        for (d, bits) in
            [(i64::MAX, 63), (two, TWO_PARTS), (two + 1, TWO_PARTS + 1), (1, TWO_PARTS), (1, 63)]
        {
            for d in [d, -d] {
                let deltas = vec![d; rows * 2];
                assert_eq!(
                    project_deltas(&all_ones, &deltas, 2, bits),
                    projected(&all_ones, &deltas, 2),
                    "{d}"
                );
            }
        }
    }
}

#[test]
fn projections_longer_than_a_stripe_equal_the_oracle() {
    let (rows, dim) = (5, 600);
    let rho = row_weights(&[3; 32], 7, 0..rows);
    let x: Vec<i32> = (0..rows * dim).map(|_| integer((1 << 23) - 1) as i32).collect();
    let wide: Vec<i64> = x.iter().map(|v| i64::from(*v)).collect();
    assert_eq!(project_inputs(&rho, &x, dim), projected(&rho, &wide, dim));
    let d: Vec<i64> = (0..rows * dim).map(|_| integer(i64::MAX >> 1)).collect();
    assert_eq!(project_deltas(&rho, &d, dim, 63), projected(&rho, &d, dim));
    let d: Vec<i64> = d.iter().map(|d| d >> (63 - TWO_PARTS)).collect();
    assert_eq!(project_deltas(&rho, &d, dim, TWO_PARTS), projected(&rho, &d, dim));
}

#[test]
fn rows_in_pieces_and_blocks_project_to_what_they_do_at_once() {
    let (rows, dim) = (5000, 3);
    let rho = row_weights(&[3; 32], 7, 0..rows);
    let x: Vec<i32> = (0..rows * dim).map(|_| integer((1 << 23) - 1) as i32).collect();
    let wide: Vec<i64> = x.iter().map(|v| i64::from(*v)).collect();
    let expected = projected(&rho, &wide, dim);
    assert_eq!(project_inputs(&rho, &x, dim), expected);
    let mut sums = Sums::default();
    for rows in [0..1, 1..2049, 2049..4990, 4990..5000] {
        sums.add_inputs(&rho[rows.clone()], &x[rows.start * dim..rows.end * dim], dim);
    }
    assert_eq!(sums.finish(), expected);
}

#[test]
fn row_weights_of_rows_and_modules_all_differ() {
    let mut all: Vec<[u32; 4]> =
        (0..5).flat_map(|module| row_weights(&[3; 32], module, 0..50)).collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 250);
    // A longer session keeps the weights of its first rows: they depend on the challenge alone.
    let all = row_weights(&[3; 32], 1, 0..50);
    assert_eq!(all[..20], row_weights(&[3; 32], 1, 0..20));
    // Rows that are read in pieces have the weights that they have when they are read at once.
    assert_eq!(all[7..43], row_weights(&[3; 32], 1, 7..43));
}

/// The deltas of a session, computed with big integers from the definition.
fn oracle(session: &Session) -> Vec<Vec<BigInt>> {
    let mut rest = session.weights.pairs().iter();
    let mut out = Vec::new();
    for (module, rows) in session.manifest.modules.iter().zip(&session.rows) {
        let n = rows.scales.len();
        let mut delta = vec![BigInt::from(0); n * module.d_out];
        for term in &module.terms {
            for PairWeights { a, b } in rest.by_ref().take(term.rank) {
                for (at, d) in delta.iter_mut().enumerate() {
                    let (l, k) = (at / module.d_out, at % module.d_out);
                    let x = |i: usize| {
                        let input = term.input.unwrap();
                        BigInt::from(rows.inputs[input][l * module.inputs[input].dim + i])
                    };
                    *d += match term.kind {
                        TermKind::LowRank => {
                            (0..a.len()).map(|i| x(i) * a[i]).sum::<BigInt>() * b[k]
                        }
                        TermKind::Bias => (BigInt::from(rows.ones[l]) << term.shift) * b[k],
                        TermKind::Scale => (x(k) << term.shift) * a[k],
                    };
                }
            }
        }
        out.push(delta);
    }
    out
}

fn equals_the_oracle(session: &Session) {
    for (rows, exact) in session.rows.iter().zip(oracle(session)) {
        assert_eq!(rows.delta.iter().map(|d| BigInt::from(*d)).collect::<Vec<_>>(), exact);
    }
}

fn shape() -> impl Strategy<Value = Shape> {
    (1usize..60, 0usize..4, 1usize..60, any::<bool>(), any::<bool>(), 0usize..6).prop_map(
        |(d_in, rank, d_out, bias, scale, rows)| {
            // A module has at least one term.
            let rank = if bias || scale { rank } else { rank.max(1) };
            Shape { d_in, rank, d_out, bias, scale, rows }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn proofs_of_random_shapes_verify_and_a_flipped_delta_does_not(
        mut shapes in prop::collection::vec(shape(), 1..7),
        at in any::<prop::sample::Index>(),
        bit in 0u32..20,
    ) {
        shapes[0].rows = shapes[0].rows.max(1);
        let mut session = Session::of(&shapes);
        equals_the_oracle(&session);
        let proof = session.prove();
        session.verify(&proof).unwrap();

        let cells: Vec<(usize, usize)> =
            session.rows.iter().enumerate().flat_map(|(m, r)| (0..r.delta.len()).map(move |i| (m, i))).collect();
        let (module, cell) = *at.get(&cells);
        session.rows[module].delta[cell] ^= 1 << bit;
        let answer = with_rows(&session.checked, session.context, &session.rows, |trace| {
            verify(session.srs, keys(), &session.checked, trace, &proof, SrsPolicy::AllowUntrusted)
        });
        // A wide flip may leave the certified bound: then the trace itself is refused.
        let refused = matches!(answer, Ok(Err(Error::Rejected(Check::MaskSpan))) | Err(Error::BeyondBound { .. }));
        prop_assert!(refused, "{answer:?}");
    }
}

fn extreme(shapes: &[Shape], sign: i32) -> Session {
    let mut draft = draft(shapes);
    for module in &mut draft.modules {
        (module.a_bits, module.b_bits, module.x_bits) = (16, 16, 24);
    }
    let mut pairs = random_pairs(&draft);
    for value in pairs.iter_mut().flat_map(|p| p.a.iter_mut().chain(p.b.iter_mut())) {
        *value = (1 << 15) - 1;
    }
    let mut rows: Vec<OwnedRows> = random_rows(&draft, shapes);
    for value in
        rows.iter_mut().flat_map(|r| r.inputs.iter_mut().flatten().chain(r.ones.iter_mut()))
    {
        *value = sign * ((1 << 23) - 1);
    }
    Session::build(srs(), draft, pairs, rows)
}

#[test]
fn integers_at_their_bounds_are_proven_exactly() {
    let mixed = Shape { d_in: 30, rank: 2, d_out: 26, bias: true, scale: true, rows: 300 };
    for sign in [1, -1] {
        let session = extreme(&[mixed.clone(), lora(40, 6, 3, 40)], sign);
        equals_the_oracle(&session);
        let delta = session.rows[1].delta[0];
        assert!(delta.unsigned_abs() >= 1 << 60, "not extreme: {delta}");
        session.verify(&session.prove()).unwrap();
    }
}

#[test]
fn small_integers_map_to_the_field_with_their_sign() {
    for value in [0, 1, -1, i64::MAX, -i64::MAX, i64::MIN] {
        assert_eq!(from_i64(value), to_field(&BigInt::from(value)));
    }
}

#[test]
fn one_vector_far_longer_than_a_column_and_many_modules() {
    let mut shapes = vec![lora(1000, 1, 1, 2), lora(1, 1, 1000, 2)];
    shapes.extend((0..30).map(|m| lora(1 + m % 3, 1, 1, m % 4)));
    let session = Session::of(&shapes);
    assert_eq!(session.checked.layout().rounds, 5);
    equals_the_oracle(&session);
    session.verify(&session.prove()).unwrap();
}

#[test]
fn no_module_but_one_was_called() {
    let mut shapes: Vec<Shape> = (0..6).map(|m| lora(4 + m, 2, 3, 0)).collect();
    shapes[4].rows = 1;
    let session = Session::of(&shapes);
    let verdict = session.verify(&session.prove()).unwrap();
    assert_eq!(verdict.rows.iter().map(|(_, n)| n).sum::<usize>(), 1);
}
