//! Provers that skip their self-check and lie at one step: the relation that breaks, and the check
//! that fails.

use std::cell::Cell;

use ff::Field;

use super::cheat::{Attack, Cheat};
use crate::{
    Error,
    error::Check,
    field::F,
    fold::interpolation,
    relations::RelationName::{FirstRound, LastPoint, Outputs, Product, Round},
    testing::{Session, Shape, lora},
    weights::{PairWeights, Weights},
};

/// Three modules: two rounds.
fn session() -> Session {
    Session::of(&[lora(7, 2, 5, 3), lora(6, 2, 4, 2), lora(30, 1, 9, 2)])
}

#[test]
fn a_cheat_that_does_not_lie_is_accepted() {
    let mixed = Shape { d_in: 6, rank: 2, d_out: 30, bias: true, scale: true, rows: 2 };
    for session in [session(), Session::of(&[lora(3, 1, 2, 1)]), Session::of(&[mixed])] {
        let attack = Attack::on(&session);
        let forgery = attack.forge(Cheat::default());
        assert_eq!(forgery.broken(), vec![]);
        attack.verify(&forgery).unwrap();
        attack.verify_by_the_rules(&forgery).unwrap();
    }
}

#[test]
fn a_wrong_delta_breaks_the_product_relation() {
    let session = session();
    Attack::on_a_false_delta(&session).is_refused(Cheat::default(), &[Product], Check::Relations);
    Attack::on_a_false_delta(&Session::of(&[lora(3, 1, 2, 1)])).is_refused(
        Cheat::default(),
        &[Product],
        Check::Relations,
    );
}

#[test]
fn a_wrong_t_breaks_the_claim_and_the_product() {
    let lie = || Cheat { products: Some(Box::new(|_, t, _| t[3] += F::ONE)), ..Cheat::default() };
    Attack::on(&session()).is_refused(lie(), &[FirstRound, Product], Check::Relations);
    let one_group = Session::of(&[lora(3, 4, 2, 1)]);
    Attack::on(&one_group).is_refused(lie(), &[LastPoint, Product], Check::Relations);
}

#[test]
fn a_wrong_u_breaks_the_outputs_and_the_product() {
    let lie = Cheat { products: Some(Box::new(|_, _, u| u[1] += F::ONE)), ..Cheat::default() };
    Attack::on(&session()).is_refused(lie, &[Outputs, Product], Check::Relations);
}

#[test]
fn errors_in_t_and_u_that_cancel_in_the_product_break_the_relations_that_pin_them() {
    let lie = Cheat {
        products: Some(Box::new(|_, t, u| {
            t[2] = t[2].double();
            u[2] *= F::from(2).invert().unwrap();
        })),
        ..Cheat::default()
    };
    Attack::on(&session()).is_refused(lie, &[FirstRound, Outputs], Check::Relations);
}

#[test]
fn a_t_that_explains_a_false_delta_breaks_only_the_claim() {
    let lie = Cheat {
        products: Some(Box::new(|view, t, u| {
            let missing = view.missing(t, u);
            t[0] += missing * (view.projection.c[0] * u[0]).invert().unwrap();
        })),
        ..Cheat::default()
    };
    Attack::on_a_false_delta(&session()).is_refused(lie, &[FirstRound], Check::Relations);
}

#[test]
fn a_u_that_explains_a_false_delta_breaks_only_the_outputs() {
    let lie = Cheat {
        products: Some(Box::new(|view, t, u| {
            let missing = view.missing(t, u);
            u[0] += missing * (view.projection.c[0] * t[0]).invert().unwrap();
        })),
        ..Cheat::default()
    };
    Attack::on_a_false_delta(&session()).is_refused(lie, &[Outputs], Check::Relations);
}

#[test]
fn a_wrong_round_breaks_its_own_sum_and_the_next_relation() {
    let lie = |at: usize, cell: usize| Cheat {
        round: Some(Box::new(move |_, j, round| {
            if j == at {
                round[cell] += F::ONE;
            }
        })),
        ..Cheat::default()
    };
    let session = session();
    let attack = Attack::on(&session);
    attack.is_refused(lie(0, 0), &[FirstRound, Round(1)], Check::Relations);
    attack.is_refused(lie(0, 2), &[Round(1)], Check::Relations);
    attack.is_refused(lie(1, 1), &[Round(1), LastPoint], Check::Relations);
    attack.is_refused(lie(1, 2), &[LastPoint], Check::Relations);
}

#[test]
fn a_right_round_with_the_commitment_of_another_is_refused() {
    let session = session();
    let point = session.srs.lagrange()[0];
    let lie = Cheat {
        round_commitment: Some(Box::new(move |j, commitment| {
            if j == 0 {
                *commitment += point;
            }
        })),
        ..Cheat::default()
    };
    Attack::on(&session).is_refused(lie, &[], Check::Relations);
}

/// A false t, and rounds that pass its error on: `error` is the error of the claim at each round.
fn bent_rounds<'c>(error: &'c Cell<F>) -> Cheat<'c> {
    Cheat {
        products: Some(Box::new(|view, t, u| {
            let lie = view.missing(t, u) * (view.projection.c[0] * u[0]).invert().unwrap();
            t[0] += lie;
            error.set(lie);
        })),
        round: Some(Box::new(|view, j, round| {
            if j > 0 {
                error.set(error.get() * interpolation(view.r[j - 1])[0]);
            }
            round[0] += error.get();
        })),
        ..Cheat::default()
    }
}

#[test]
fn a_round_bent_so_that_the_next_absorbs_the_error_breaks_the_last_point() {
    let error = Cell::new(F::ZERO);
    Attack::on_a_false_delta(&session()).is_refused(
        bent_rounds(&error),
        &[LastPoint],
        Check::Relations,
    );
}

#[test]
fn a_combined_column_bent_to_absorb_the_last_error_leaves_the_mask_span() {
    let error = Cell::new(F::ZERO);
    let mut lie = bent_rounds(&error);
    lie.combined = Some(Box::new(|view, a, _| {
        let eq = crate::fold::eq_weights(&view.r, view.projection.groups.len());
        let x = crate::fold::fold_public(&view.projection.groups, &eq);
        let last = error.get() * interpolation(view.r[view.r.len() - 1])[0];
        a[0][0] += last * x[0].invert().unwrap();
    }));
    Attack::on_a_false_delta(&session()).is_refused(lie, &[], Check::MaskSpan);
}

#[test]
fn another_combination_with_a_matching_commitment_leaves_the_mask_span() {
    let lie = Cheat { combined: Some(Box::new(|_, a, _| a[0][1] += F::ONE)), ..Cheat::default() };
    Attack::on(&session()).is_refused(lie, &[LastPoint], Check::MaskSpan);
    let lie = Cheat { combined: Some(Box::new(|_, _, b| b[0][0] += F::ONE)), ..Cheat::default() };
    Attack::on(&session()).is_refused(lie, &[Outputs], Check::MaskSpan);
    // A data row without any weight: no relation notices, the span proof does.
    let row = session().checked.layout().data_rows() - 1;
    let lie =
        Cheat { combined: Some(Box::new(move |_, _, b| b[0][row] += F::ONE)), ..Cheat::default() };
    Attack::on(&session()).is_refused(lie, &[], Check::MaskSpan);
}

#[test]
fn re_randomisation_on_a_blinding_row_leaves_the_mask_span() {
    let lie =
        || Cheat { combined: Some(Box::new(|_, a, _| a[0].push(F::from(5)))), ..Cheat::default() };
    Attack::on(&session()).is_refused(lie(), &[], Check::MaskSpan);
}

#[test]
fn weights_that_are_not_the_manifests_leave_the_mask_span() {
    let session = session();
    for (pair, in_b) in [(0, false), (4, false), (2, true)] {
        let mut attack = Attack::on(&session);
        let pairs = altered(&session, pair, in_b);
        attack.weights = Weights::new(&session.manifest, pairs).unwrap();
        attack.rows = computed_with(&session, &attack.weights);
        assert_ne!(attack.rows, session.rows);
        attack.is_refused(Cheat::default(), &[], Check::MaskSpan);
    }
}

#[test]
fn the_prover_itself_publishes_nothing_when_its_weights_are_not_the_manifests() {
    let mut session = session();
    session.weights = Weights::new(&session.manifest, altered(&session, 1, false)).unwrap();
    session.compute();
    let answer = session.with_trace(|trace| session.prover().prove(trace));
    assert!(matches!(answer, Err(Error::Rejected(Check::MaskSpan))), "{answer:?}");
}

/// The session's weights with one integer changed by 1, towards zero so that every bound still
/// holds.
pub fn altered(session: &Session, pair: usize, in_b: bool) -> Vec<PairWeights> {
    let mut pairs = session.weights.pairs().to_vec();
    let side = if in_b { &mut pairs[pair].b } else { &mut pairs[pair].a };
    let value = side.iter_mut().find(|value| **value != 0).unwrap();
    *value -= value.signum();
    pairs
}

fn computed_with(session: &Session, weights: &Weights) -> Vec<crate::testing::OwnedRows> {
    let mut other = Session {
        srs: session.srs,
        manifest: session.manifest.clone(),
        checked: session.checked.clone(),
        weights: weights.clone(),
        key: crate::masks::MaskKey::from_bytes(*session.key.expose()),
        rows: session.rows.clone(),
        context: session.context,
    };
    other.compute();
    other.rows
}

#[test]
fn residuals_are_those_of_the_relations() {
    // A cross-check of the harness: the residual of a false delta is the difference of the two δ.
    let session = session();
    let attack = Attack::on_a_false_delta(&session);
    let difference = Cell::new(F::ZERO);
    let observer = Cheat {
        products: Some(Box::new(|view, t, u| difference.set(view.missing(t, u)))),
        ..Cheat::default()
    };
    let forgery = attack.forge(observer);
    assert_eq!(forgery.residuals.last().unwrap().1, -difference.get());
    assert_ne!(difference.get(), F::ZERO);
}
