//! The running sum: the mock prover and the verifier refuse a wrong step, start or end.

use ff::Field;
use halo2_proofs::dev::MockProver;
use rand_core::OsRng;

use crate::{
    Error,
    argument::{self, Columns},
    error::Check,
    field::{F, Secret},
    gate::RunningSum,
    keys::Keys,
    layout::Layout,
    prover::commit_column,
    relations::{CellWeights, PublicColumns},
    testing::{K, srs},
};

struct Case {
    layout: Layout,
    columns: Vec<Secret>,
    public: PublicColumns,
    acc: Vec<F>,
}

fn random(count: usize) -> Vec<F> {
    (0..count).map(|_| F::random(OsRng)).collect()
}

fn case() -> Case {
    let layout = Layout { a_columns: 2, b_columns: 1, k: K, pair_columns: 2, rounds: 2 };
    let rows = layout.data_rows();
    let columns: Vec<Secret> =
        (0..layout.committed_columns()).map(|_| Secret(random(layout.usable()))).collect();
    let mut weights = CellWeights {
        t: random(2 * rows),
        u: random(rows + 3),
        s: vec![random(3), random(3)],
        b: random(rows),
        a: random(rows + 1),
        e: random(2 * rows - 1),
        constant: F::ZERO,
    };
    let acc = argument::running_sum(&layout, &columns, &PublicColumns::lay_out(&layout, &weights));
    weights.constant = acc[layout.output_row()];
    let public = PublicColumns::lay_out(&layout, &weights);
    Case { layout, columns, public, acc }
}

impl Case {
    /// The constraints that the mock prover finds broken.
    fn broken(&self) -> Vec<String> {
        let circuit = RunningSum { layout: self.layout, acc: Some(self.acc.clone()) };
        let committed = self.columns.iter().map(|c| c.to_vec());
        let instances = committed.chain(self.public.instances(&self.layout)).collect();
        match MockProver::run(&circuit, instances).unwrap().verify() {
            Ok(()) => vec![],
            Err(failures) => failures.iter().map(ToString::to_string).collect(),
        }
    }

    fn verify(&self) -> Result<(), Error> {
        let keys = Keys::generate(srs(), self.layout).unwrap();
        let first = F::from(7);
        let acc = Secret(self.acc.clone());
        let proof = argument::prove_with_accumulator(
            srs(),
            &keys,
            Columns { values: &self.columns, commitments: &[] },
            &self.public,
            acc,
            first,
            OsRng,
        )
        .unwrap();
        let commitments: Vec<_> = self.columns.iter().map(|c| commit_column(srs(), c)).collect();
        let other = argument::verify(srs(), &keys, &commitments, &self.public, F::from(8), &proof);
        assert!(other.is_err(), "the proof verifies with another first element of the transcript");
        argument::verify(srs(), &keys, &commitments, &self.public, first, &proof)
    }

    fn is_refused_by(&self, names: &[&str]) {
        let broken = self.broken();
        for name in ["step", "starts at zero", "ends at the output"] {
            let found = broken.iter().any(|failure| failure.contains(name));
            assert_eq!(found, names.contains(&name), "{name}: {broken:?}");
        }
        let answer = self.verify();
        assert!(matches!(answer, Err(Error::Rejected(Check::Relations))), "{answer:?}");
    }
}

#[test]
fn an_honest_running_sum_is_accepted() {
    let case = case();
    assert_eq!(case.broken(), Vec::<String>::new());
    case.verify().unwrap();
}

#[test]
fn a_wrong_step_is_refused() {
    let mut case = case();
    case.acc[9] += F::ONE;
    case.is_refused_by(&["step"]);
}

#[test]
fn a_running_sum_that_does_not_start_at_zero_is_refused() {
    // All rows are shifted: every step is right, and the output cell is the shifted end.
    let mut case = case();
    case.acc.iter_mut().for_each(|value| *value += F::from(3));
    case.public.output += F::from(3);
    case.is_refused_by(&["starts at zero"]);
}

#[test]
fn a_running_sum_that_does_not_end_at_the_output_is_refused() {
    let mut case = case();
    case.public.output += F::ONE;
    case.is_refused_by(&["ends at the output"]);
}

#[test]
fn a_last_value_bent_to_the_output_is_a_wrong_step() {
    let mut case = case();
    case.public.output += F::ONE;
    case.acc[case.layout.output_row()] += F::ONE;
    case.is_refused_by(&["step"]);
}

#[test]
fn values_on_mask_rows_take_no_part() {
    let mut case = case();
    for column in &mut case.columns {
        for row in case.layout.mask_rows() {
            column[row] = F::random(OsRng);
        }
    }
    assert_eq!(case.broken(), Vec::<String>::new());
    case.verify().unwrap();
}

#[test]
fn a_column_other_than_the_committed_one_is_refused() {
    let case = case();
    let keys = Keys::generate(srs(), case.layout).unwrap();
    let columns = Columns { values: &case.columns, commitments: &[] };
    let proof = argument::prove(srs(), &keys, columns, &case.public, F::ONE, OsRng).unwrap();
    let commitments: Vec<_> = case.columns.iter().map(|c| commit_column(srs(), c)).collect();
    argument::verify(srs(), &keys, &commitments, &case.public, F::ONE, &proof).unwrap();
    for at in 0..commitments.len() {
        let mut other = commitments.clone();
        other[at] += srs().lagrange()[case.layout.usable()];
        let answer = argument::verify(srs(), &keys, &other, &case.public, F::ONE, &proof);
        assert!(matches!(answer, Err(Error::Rejected(Check::Relations))), "{answer:?}");
    }
}

#[test]
fn columns_that_reach_into_the_blinding_rows_are_refused_by_the_library() {
    let mut case = case();
    case.columns[0].push(F::ONE);
    let keys = Keys::generate(srs(), case.layout).unwrap();
    let columns = Columns { values: &case.columns, commitments: &[] };
    assert!(argument::prove(srs(), &keys, columns, &case.public, F::ONE, OsRng).is_err());
}

#[test]
fn the_widest_layout_does_not_overflow_the_stack() {
    // A manifest of a few hundred kilobytes can require it, through a module that is never called.
    let most = crate::layout::MAX_COLUMNS;
    let layout = Layout { a_columns: most, b_columns: most, k: K, pair_columns: 300, rounds: 16 };
    Keys::generate(srs(), layout).unwrap();
}
