//! Modules whose terms share inputs, and several one-sided terms in one module: every cell counts.

use super::cheat::{Attack, Cheat};
use crate::{
    Error,
    error::Check,
    manifest::{Input, Term, TermKind},
    relations::RelationName::Product,
    testing::{OwnedRows, Session, Shape, draft, integer, lora, random_pairs, srs},
};

/// Two scales and two low-rank terms on one input, a second input, two biases with different
/// shifts; a module that was not called; a module that is a bias alone; vectors longer than a
/// column.
fn session() -> Session {
    let term = |kind, input, rank, shift| Term { a: vec![], b: vec![], input, kind, rank, shift };
    let bias = Shape { d_in: 1, rank: 0, d_out: 3, bias: true, scale: false, rows: 2 };
    let shapes = [lora(9, 1, 9, 3), lora(4, 1, 30, 0), bias, lora(26, 2, 2, 2)];
    let mut draft = draft(&shapes);
    draft.modules[0].inputs =
        vec![Input { dim: 9, name: "x".into() }, Input { dim: 5, name: "z".into() }];
    draft.modules[0].terms = vec![
        term(TermKind::Scale, Some(0), 1, 4),
        term(TermKind::LowRank, Some(0), 2, 0),
        term(TermKind::Bias, None, 1, 1),
        term(TermKind::LowRank, Some(1), 3, 0),
        term(TermKind::Scale, Some(0), 1, 0),
        term(TermKind::Bias, None, 1, 7),
        term(TermKind::LowRank, Some(0), 1, 0),
    ];
    let pairs = random_pairs(&draft);
    let values = |count: usize| (0..count).map(|_| integer(500_000) as i32).collect::<Vec<_>>();
    let rows = draft.modules.iter().zip(&shapes).map(|(module, Shape { rows, .. })| OwnedRows {
        inputs: module.inputs.iter().map(|input| values(rows * input.dim)).collect(),
        ones: values(if module.has_bias() { *rows } else { 0 }),
        scales: vec![0.5; *rows],
        delta: vec![],
    });
    let rows = rows.collect();
    Session::build(srs(), draft, pairs, rows)
}

#[test]
fn every_delta_and_every_input_of_a_mixture_counts() {
    let session = session();
    session.verify(&session.prove()).unwrap();
    for module in [0, 2, 3] {
        for cell in 0..session.rows[module].delta.len() {
            let mut attack = Attack::on(&session);
            let delta = &mut attack.rows[module].delta[cell];
            *delta += if *delta > 0 { -1 } else { 1 };
            attack.is_refused(Cheat::default(), &[Product], Check::Relations);
        }
    }
    let refused = |change: &dyn Fn(&mut Vec<OwnedRows>)| {
        let mut attack = Attack::on(&session);
        change(&mut attack.rows);
        // The weights are the committed ones, so the projections and δ no longer belong together.
        let forgery = attack.forge(Cheat::default());
        assert_eq!(forgery.broken(), vec![Product]);
        assert!(matches!(attack.verify(&forgery), Err(Error::Rejected(Check::Relations))));
    };
    for module in [0, 3] {
        for input in 0..session.rows[module].inputs.len() {
            for cell in 0..session.rows[module].inputs[input].len() {
                refused(&|rows| rows[module].inputs[input][cell] += 1);
            }
        }
    }
    for module in [0, 2] {
        for row in 0..session.rows[module].ones.len() {
            refused(&|rows| rows[module].ones[row] += 1);
        }
    }
}
