//! Honest sessions, which the verifier must accept.

use crate::testing::{Session, Shape, lora};

fn accepts(shapes: &[Shape]) {
    let session = Session::of(shapes);
    let proof = session.prove();
    let verdict = session.verify(&proof).unwrap();
    assert_eq!(verdict.adapter, session.checked.id());
    assert_eq!(
        verdict.rows.iter().map(|(_, n)| *n).collect::<Vec<_>>(),
        shapes.iter().map(|s| s.rows).collect::<Vec<_>>()
    );
}

#[test]
fn one_module() {
    accepts(&[lora(7, 2, 5, 3)]);
}

#[test]
fn smallest_shapes() {
    accepts(&[lora(1, 1, 1, 1)]);
}

#[test]
fn vectors_longer_than_a_column() {
    accepts(&[lora(70, 2, 24, 3), lora(25, 3, 100, 2)]);
}

#[test]
fn more_pairs_than_a_column_has_rows() {
    accepts(&[lora(3, 20, 4, 2), lora(5, 13, 2, 1)]);
}

#[test]
fn two_to_nine_modules_with_some_not_called() {
    for modules in 2..=9 {
        let shapes: Vec<Shape> = (0..modules)
            .map(|m| lora(3 + m, 1 + m % 3, 2 + 2 * m, if m == 1 { 0 } else { m + 1 }))
            .collect();
        accepts(&shapes);
    }
}

#[test]
fn biases_and_scales_in_every_mixture() {
    for bits in 1..8u32 {
        let shape = |rows| Shape {
            d_in: 6,
            rank: if bits & 1 != 0 { 2 } else { 0 },
            d_out: 30,
            bias: bits & 2 != 0,
            scale: bits & 4 != 0,
            rows,
        };
        accepts(&[shape(4)]);
        accepts(&[shape(2), lora(9, 2, 4, 3), shape(0)]);
    }
}

#[test]
fn thousands_of_rows() {
    accepts(&[lora(4, 2, 3, 5000), lora(6, 1, 2, 129)]);
}
