//! Weight columns that reach rows without weights.

use ff::Field;

use crate::{
    Error, argument,
    field::{F, Secret},
    relations::{CellWeights, PublicColumns},
    testing::{Session, keys, lora},
};

#[test]
fn public_columns_that_reach_mask_rows_or_the_output_row_are_refused() {
    let session = Session::of(&[lora(5, 1, 4, 2)]);
    let layout = session.checked.layout();
    let keys = keys().get(session.srs, layout).unwrap();
    let good = PublicColumns::lay_out(&layout, &CellWeights::default());
    assert!(good.fits(&layout));
    let mut bad = Vec::new();
    for row in layout.data_rows()..layout.rows() {
        for column in 0..good.weights.len() {
            let mut public = good.clone();
            public.weights[column] = vec![F::ZERO; row + 1];
            public.weights[column][row] = F::ONE;
            bad.push(public);
        }
        let mut public = good.clone();
        public.products[0] = vec![F::ONE; row + 1];
        bad.push(public);
    }
    let mut missing = good.clone();
    missing.weights.pop();
    bad.push(missing);
    let columns: Vec<Secret> =
        (0..layout.committed_columns()).map(|_| Secret(vec![F::ONE; layout.usable()])).collect();
    let commitments: Vec<_> =
        columns.iter().map(|c| crate::prover::commit_column(session.srs, c)).collect();
    for public in bad {
        assert!(!public.fits(&layout));
        let answer = argument::verify(session.srs, &keys, &commitments, &public, F::ONE, &[]);
        assert!(matches!(answer, Err(Error::Internal(_))), "{answer:?}");
    }
}

#[test]
fn laid_out_weights_never_reach_mask_rows() {
    let layout =
        crate::layout::Layout { a_columns: 3, b_columns: 2, k: 5, pair_columns: 2, rounds: 2 };
    let rows = layout.data_rows();
    let ones = |count: usize| vec![F::ONE; count];
    let weights = CellWeights {
        t: ones(2 * rows),
        u: ones(2 * rows),
        s: vec![ones(3), ones(3)],
        b: ones(2 * rows),
        a: ones(3 * rows),
        e: ones(2 * rows),
        constant: F::ONE,
    };
    let public = PublicColumns::lay_out(&layout, &weights);
    assert!(public.fits(&layout));
    let instances = public.instances(&layout);
    let (output, rest) = instances.split_last().unwrap();
    assert!(rest.iter().all(|column| column.len() <= rows));
    assert_eq!(output.iter().position(|v| *v != F::ZERO), Some(layout.output_row()));
}
