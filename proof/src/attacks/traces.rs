//! A valid proof with another trace, and traces that break a shape or a range.

use crate::{
    Error,
    error::Check,
    manifest::TermKind,
    rows::RowSlices,
    testing::{OwnedRows, Session, Shape, keys, lora, with_rows},
    trace::Trace,
    verifier::{SrsPolicy, verify},
};

fn session() -> Session {
    Session::of(&[lora(4, 2, 3, 3), lora(4, 1, 3, 3), lora(5, 1, 2, 0), lora(5, 2, 2, 2)])
}

/// The answer when a proof of the true trace is verified against `rows`.
fn against(session: &Session, proof: &[u8], rows: &[OwnedRows]) -> Result<(), Error> {
    let answer = with_rows(&session.checked, session.context, rows, |trace| {
        verify(session.srs, keys(), &session.checked, trace, proof, SrsPolicy::AllowUntrusted)
    });
    answer?.map(|_| ())
}

fn is_refused(session: &Session, proof: &[u8], change: impl FnOnce(&mut Vec<OwnedRows>)) {
    let mut rows = session.rows.clone();
    change(&mut rows);
    // Rows that moved to another module are cut to its bound, so that the trace itself is valid.
    for (module, rows) in session.manifest.modules.iter().zip(&mut rows) {
        let bound = ((1u64 << module.delta_bits) - 1) as i64;
        rows.delta.iter_mut().for_each(|d| *d = (*d).clamp(-bound, bound));
    }
    assert_ne!(rows, session.rows);
    // Another trace has other challenges, so the first check that depends on them fails.
    let answer = against(session, proof, &rows);
    assert!(matches!(answer, Err(Error::Rejected(Check::MaskSpan))), "{answer:?}");
}

fn drop_row(rows: &mut OwnedRows, row: usize, dims: (usize, usize)) -> (Vec<i32>, f32, Vec<i64>) {
    let x = rows.inputs[0].drain(row * dims.0..(row + 1) * dims.0).collect();
    let d = rows.delta.drain(row * dims.1..(row + 1) * dims.1).collect();
    (x, rows.scales.remove(row), d)
}

fn push_row(rows: &mut OwnedRows, (x, scale, d): (Vec<i32>, f32, Vec<i64>)) {
    rows.inputs[0].extend(x);
    rows.scales.push(scale);
    rows.delta.extend(d);
}

#[test]
fn a_proof_holds_for_no_other_trace() {
    let session = session();
    let proof = session.prove();
    against(&session, &proof, &session.rows).unwrap();
    for (module, cells) in [(0, 9), (1, 9), (3, 4)] {
        for cell in 0..cells {
            is_refused(&session, &proof, |rows| rows[module].delta[cell] ^= 1);
        }
        is_refused(&session, &proof, |rows| rows[module].inputs[0][2] ^= 1);
        is_refused(&session, &proof, |rows| rows[module].scales[1] = 0.25);
    }
    is_refused(&session, &proof, |rows| {
        drop_row(&mut rows[0], 1, (4, 3));
    });
    is_refused(&session, &proof, |rows| push_row(&mut rows[0], (vec![0; 4], 0.5, vec![0; 3])));
    is_refused(&session, &proof, |rows| {
        let row = drop_row(&mut rows[0], 0, (4, 3));
        push_row(&mut rows[0], row.clone());
        push_row(&mut rows[0], row);
    });
    is_refused(&session, &proof, |rows| {
        let row = drop_row(&mut rows[0], 0, (4, 3));
        push_row(&mut rows[0], row);
    });
    is_refused(&session, &proof, |rows| {
        let row = drop_row(&mut rows[0], 2, (4, 3));
        push_row(&mut rows[1], row);
    });
    is_refused(&session, &proof, |rows| rows.swap(0, 1));
    is_refused(&session, &proof, |rows| {
        let (first, second) = rows.split_at_mut(1);
        std::mem::swap(&mut first[0].delta, &mut second[0].delta);
    });
    is_refused(&session, &proof, |rows| push_row(&mut rows[2], (vec![0; 5], 0.5, vec![0; 2])));
    is_refused(&session, &proof, |rows| rows[2] = rows[3].clone());
    is_refused(&session, &proof, |rows| {
        rows[3] = OwnedRows { inputs: vec![vec![]], ones: vec![], scales: vec![], delta: vec![] };
    });
}

#[test]
fn the_integers_that_stand_for_one_are_part_of_the_trace() {
    let session =
        Session::of(&[Shape { d_in: 4, rank: 1, d_out: 3, bias: true, scale: false, rows: 3 }]);
    let proof = session.prove();
    against(&session, &proof, &session.rows).unwrap();
    for row in 0..3 {
        is_refused(&session, &proof, |rows| rows[0].ones[row] ^= 1);
    }
}

#[test]
fn more_rows_than_the_projection_can_sum_are_refused() {
    let session = session();
    // Zero pages that are never touched: the number of rows is checked first.
    let scales = vec![0.0f32; crate::rows::MAX_ROWS + 1];
    let rows = RowSlices { inputs: &[&[]], scales: &scales, ..RowSlices::default() };
    let none = RowSlices { inputs: &[&[]], ..RowSlices::default() };
    let answer = Trace::new(&session.checked, [0; 32], vec![rows, none, none, none]);
    assert!(
        matches!(&answer, Err(Error::Trace(why)) if why.contains("268435457 rows: more than")),
        "{answer:?}"
    );
}

#[test]
fn a_proof_holds_in_no_other_session() {
    let mut session = session();
    let proof = session.prove();
    session.context[31] ^= 1;
    let answer = session.verify(&proof);
    assert!(matches!(answer, Err(Error::Rejected(Check::MaskSpan))), "{answer:?}");
}

#[test]
fn a_prover_asked_for_a_false_trace_publishes_nothing_and_names_the_cell() {
    let mut session = session();
    session.rows[3].delta[3] += 1;
    let (claimed, computed) = (session.rows[3].delta[3], session.rows[3].delta[3] - 1);
    match session.with_trace(|trace| session.prover().prove(trace)) {
        Err(Error::FalseTrace { module, row: 1, output: 1, claimed: a, computed: b }) => {
            assert_eq!((module.as_str(), a, b), ("layers.3.q_proj", claimed, computed));
        }
        other => panic!("{other:?}"),
    }
}

fn trace_error(session: &Session, rows: &[OwnedRows]) -> String {
    match with_rows(&session.checked, session.context, rows, |_| ()) {
        Err(error @ (Error::Trace(_) | Error::BeyondBound { .. })) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

fn refused_with(session: &Session, texts: &[&str], change: impl FnOnce(&mut Vec<OwnedRows>)) {
    let mut rows = session.rows.clone();
    change(&mut rows);
    let why = trace_error(session, &rows);
    for text in texts {
        assert!(why.contains(text), "`{text}` is not in: {why}");
    }
}

#[test]
fn integers_out_of_range_are_named_with_module_and_row() {
    let shape = Shape { d_in: 4, rank: 2, d_out: 3, bias: true, scale: true, rows: 3 };
    let session = Session::of(&[lora(2, 1, 2, 1), shape]);
    let limit = 1 << (session.manifest.modules[1].x_bits - 1);
    let bound = session.manifest.modules[1].delta_bits;
    for value in [limit, -limit, i32::MIN, i32::MAX] {
        refused_with(&session, &["layers.1.q_proj", "row 2", "input `x`"], |rows| {
            rows[1].inputs[0][9] = value
        });
        refused_with(&session, &["layers.1.q_proj", "row 1", "input `y`"], |rows| {
            rows[1].inputs[1][4] = value
        });
        refused_with(&session, &["layers.1.q_proj", "row 2", "constant 1"], |rows| {
            rows[1].ones[2] = value
        });
    }
    let extreme = if bound < 63 { 1i64 << bound } else { i64::MIN };
    for value in [extreme, extreme.wrapping_neg(), i64::MIN] {
        refused_with(&session, &["layers.1.q_proj", "row 1", "certified bound"], |rows| {
            rows[1].delta[5] = value
        });
    }
    for value in [limit - 1, 1 - limit] {
        let mut rows = session.rows.clone();
        rows[1].inputs[0][9] = value;
        with_rows(&session.checked, session.context, &rows, |_| ()).unwrap();
    }
}

#[test]
fn scales_that_are_no_positive_numbers_are_named_with_module_and_row() {
    let session = session();
    for scale in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, -1.0] {
        refused_with(&session, &["layers.3.q_proj", "row 1", "not a positive number"], |rows| {
            rows[3].scales[1] = scale
        });
    }
}

#[test]
fn wrong_shapes_are_refused() {
    let shape = Shape { d_in: 4, rank: 2, d_out: 3, bias: true, scale: true, rows: 3 };
    let session = Session::of(&[shape, lora(2, 1, 2, 1)]);
    assert!(session.manifest.modules[0].terms.iter().any(|term| term.kind == TermKind::Bias));
    refused_with(&session, &["1 modules, the manifest 2"], |rows| rows.truncate(1));
    refused_with(&session, &["3 modules, the manifest 2"], |rows| rows.push(rows[0].clone()));
    refused_with(&session, &["layers.0", "1 inputs"], |rows| rows[0].inputs.truncate(1));
    refused_with(&session, &["layers.0", "11 values"], |rows| rows[0].inputs[0].truncate(11));
    refused_with(&session, &["layers.0", "10 values"], |rows| rows[0].inputs[1].push(0));
    refused_with(&session, &["layers.0", "2 values of the constant 1"], |rows| {
        rows[0].ones.truncate(2)
    });
    refused_with(&session, &["layers.1", "1 values of the constant 1"], |rows| {
        rows[1].ones.push(1)
    });
    refused_with(&session, &["layers.0", "8 deltas"], |rows| rows[0].delta.truncate(8));
    refused_with(&session, &["layers.0"], |rows| rows[0].scales.truncate(2));
    refused_with(&session, &["nothing to prove"], |rows| {
        rows[0] =
            OwnedRows { inputs: vec![vec![]; 2], ones: vec![], scales: vec![], delta: vec![] };
        rows[1] = OwnedRows { inputs: vec![vec![]], ones: vec![], scales: vec![], delta: vec![] };
    });
}

#[test]
fn a_trace_checked_against_another_adapter_is_refused() {
    let (session, other) = (session(), session());
    let proof = session.prove();
    let answer = other.with_trace(|trace| {
        verify(session.srs, keys(), &session.checked, trace, &proof, SrsPolicy::AllowUntrusted)
            .map(|_| ())
    });
    assert!(
        matches!(&answer, Err(Error::Trace(why)) if why.contains("checked against adapter")),
        "{answer:?}"
    );
    let answer = other.with_trace(|trace| session.prover().prove(trace));
    assert!(matches!(&answer, Err(Error::Trace(_))), "{answer:?}");
}

#[test]
fn the_digest_separates_what_is_in_the_rows() {
    let session = Session::of(&[lora(2, 1, 2, 2), lora(2, 1, 2, 2)]);
    let x: [&[i32]; 1] = [&[1, 2, 3, 4]];
    let row = |scales: &'static [f32], delta: &'static [i64]| RowSlices {
        inputs: &x,
        ones: &[],
        scales,
        delta,
    };
    let digest = |modules: Vec<RowSlices<'_>>| {
        Trace::new(&session.checked, [0; 32], modules).unwrap().digest().0
    };
    let full = row(&[1.0, 2.0], &[5, 6, 7, 8]);
    let all = [
        digest(vec![full, RowSlices { inputs: &[&[]], ..RowSlices::default() }]),
        digest(vec![RowSlices { inputs: &[&[]], ..RowSlices::default() }, full]),
        digest(vec![full, full]),
        digest(vec![full, row(&[2.0, 1.0], &[5, 6, 7, 8])]),
        digest(vec![full, row(&[1.0, 2.0], &[5, 6, 8, 7])]),
    ];
    for (i, a) in all.iter().enumerate() {
        assert!(all[i + 1..].iter().all(|b| a != b));
    }
}
