//! The forgeries that docs/protocol.md, "Soundness" rules out. Each has a false delta, succeeds
//! against a variant that leaves out one rule, and fails against the protocol.

use std::cell::Cell;

use ff::Field;
use rand_core::OsRng;

use super::{
    cheat::{Attack, Cheat, View},
    variants::Rules,
};
use crate::{
    Error,
    error::Check,
    field::F,
    fold::interpolation,
    relations::RelationName::{FirstRound, LastPoint, Product},
    testing::{Session, Shape, lora},
};

/// The change of t_0 that explains the false delta.
fn explain(view: &View<'_>, t: &mut [F], u: &[F]) -> F {
    let change = view.missing(t, u) * (view.projection.c[0] * u[0]).invert().unwrap();
    t[0] += change;
    change
}

fn modules(count: usize) -> Session {
    Session::of(&(0..count).map(|m| lora(3 + m, 1 + m % 2, 2 + m, 2)).collect::<Vec<_>>())
}

/// The change of round 1 once r_1 is known: the sum changes by `error`, the value at r_1 does not.
fn rewrite(error: F, r: F) -> [F; 3] {
    let [w0, _, w2] = interpolation(r);
    [error, F::ZERO, -(error * w0) * w2.invert().unwrap()]
}

#[test]
fn a_round_rewritten_from_the_next_rounds_column_works_only_if_the_columns_are_added_up() {
    for count in [3, 4, 5] {
        let session = modules(count);
        let error = &Cell::new(F::ZERO);
        let lie = |rows: usize| Cheat {
            products: Some(Box::new(|view, t, u| error.set(explain(view, t, u)))),
            round: Some(Box::new(move |view, j, round| {
                if j == 1 {
                    let change = rewrite(error.get(), view.r[0]);
                    round.resize(round.len().max(rows + 3), F::ZERO);
                    for (cell, change) in round[rows..].iter_mut().zip(change) {
                        *cell += change;
                    }
                }
            })),
            ..Cheat::default()
        };
        let weak = Rules { rounds_in_one: true, ..Rules::default() };
        Attack::on_a_false_delta(&session).under(weak).succeeds(lie(0), &[]);
        // In the protocol round 2 has its own column, and rows of round 1 carry no weight in it.
        Attack::on_a_false_delta(&session).is_refused(lie(3), &[FirstRound], Check::Relations);
        Attack::on_a_false_delta(&session).is_refused(lie(6), &[FirstRound], Check::Relations);
    }
}

#[test]
fn the_variant_that_adds_the_rounds_up_still_refuses_a_plain_false_delta() {
    let session = modules(4);
    let attack =
        Attack::on_a_false_delta(&session).under(Rules { rounds_in_one: true, ..Rules::default() });
    let forgery = attack.forge(Cheat::default());
    assert_eq!(forgery.broken(), vec![Product]);
    assert!(matches!(attack.verify_by_the_rules(&forgery), Err(Error::Rejected(Check::Relations))));
}

#[test]
fn products_chosen_after_beta_work_only_if_beta_does_not_depend_on_them() {
    let session = Session::of(&[lora(5, 2, 4, 2)]);
    // t_0 and t_1 change such that Σ β^i t_i stays and Σ c t u becomes the false δ.
    let lie = |guess: Option<F>| Cheat {
        products: Some(Box::new(move |view, t, u| {
            let inverse = guess.unwrap_or(view.beta).invert().unwrap();
            let missing = view.missing(t, u) * view.projection.c[0].invert().unwrap();
            let x = missing * (u[0] - u[1] * inverse).invert().unwrap();
            t[0] += x;
            t[1] -= x * inverse;
        })),
        ..Cheat::default()
    };
    Attack::on_a_false_delta(&session)
        .under(Rules { beta_first: true, ..Rules::default() })
        .succeeds(lie(None), &[]);
    // In the protocol β does not exist yet: the prover can only guess.
    let guess = Some(F::random(OsRng));
    Attack::on_a_false_delta(&session).is_refused(lie(guess), &[LastPoint], Check::Relations);
}

#[test]
fn differences_that_cancel_in_the_span_proof_work_only_if_chi_is_known_first() {
    let session = Session::of(&[lora(5, 1, 4, 2)]);
    let error = Cell::new(F::ZERO);
    // A** changes by d and B* by −d/χ, where ⟨d, x**⟩ is the error of t_0 and ⟨d, γ⃗⟩ = 0.
    let lie = |guess: Option<F>| {
        let error = &error;
        Cheat {
            products: Some(Box::new(move |view, t, u| error.set(explain(view, t, u)))),
            combined: Some(Box::new(move |view, a, b| {
                let x = &view.projection.groups[0];
                let gamma = view.projection.gamma[1];
                let second = error.get() * (x[1] - gamma * x[0]).invert().unwrap();
                let d = [-(gamma * second), second];
                let inverse = guess.unwrap_or(view.chi).invert().unwrap();
                for (row, d) in d.into_iter().enumerate() {
                    a[0][row] += d;
                    b[0][row] -= d * inverse;
                }
            })),
            ..Cheat::default()
        }
    };
    Attack::on_a_false_delta(&session)
        .under(Rules { chi_first: true, ..Rules::default() })
        .succeeds(lie(None), &[]);
    let guess = Some(F::random(OsRng));
    Attack::on_a_false_delta(&session).is_refused(lie(guess), &[], Check::MaskSpan);
}

#[test]
fn a_round_chosen_after_its_challenge_works_only_if_the_challenge_does_not_depend_on_it() {
    let session = modules(2);
    let error = &Cell::new(F::ZERO);
    let lie = |guess: Option<F>| Cheat {
        products: Some(Box::new(|view, t, u| error.set(explain(view, t, u)))),
        round: Some(Box::new(move |view, j, round| {
            let change = rewrite(error.get(), guess.unwrap_or_else(|| view.r[j]));
            round.iter_mut().zip(change).for_each(|(cell, change)| *cell += change);
        })),
        ..Cheat::default()
    };
    Attack::on_a_false_delta(&session)
        .under(Rules { r_first: true, ..Rules::default() })
        .succeeds(lie(None), &[]);
    let guess = Some(F::random(OsRng));
    Attack::on_a_false_delta(&session).is_refused(lie(guess), &[LastPoint], Check::Relations);
}

#[test]
fn a_simulated_span_proof_works_only_if_epsilon_is_known_first() {
    // A** absorbs the error of t_0 on a data row: every relation holds, and P leaves the mask span.
    let session = Session::of(&[lora(5, 1, 4, 2)]);
    let error = &Cell::new(F::ZERO);
    let lie = || Cheat {
        products: Some(Box::new(|view, t, u| error.set(explain(view, t, u)))),
        combined: Some(Box::new(|view, a, _| {
            a[0][0] += error.get() * view.projection.groups[0][0].invert().unwrap()
        })),
        simulate_span: true,
        ..Cheat::default()
    };
    let weak = Rules { epsilon_first: true, ..Rules::default() };
    Attack::on_a_false_delta(&session).under(weak).succeeds(lie(), &[]);
    Attack::on_a_false_delta(&session).is_refused(lie(), &[], Check::MaskSpan);
}

#[test]
fn relations_that_cancel_in_their_sum_work_only_if_eta_is_known_first() {
    // −Δt·η^0 + (c·u_0·Δt − missing)·η^2 = 0 for the relations LastPoint, Outputs, Product.
    let session = Session::of(&[lora(5, 1, 4, 2)]);
    let lie = || Cheat {
        products: Some(Box::new(|view, t, u| {
            let square = view.eta.square();
            t[0] += square
                * view.missing(t, u)
                * (square * view.projection.c[0] * u[0] - F::ONE).invert().unwrap();
        })),
        ..Cheat::default()
    };
    let weak = Rules { eta_first: true, ..Rules::default() };
    Attack::on_a_false_delta(&session).under(weak).succeeds(lie(), &[LastPoint, Product]);
    Attack::on_a_false_delta(&session).is_refused(lie(), &[LastPoint, Product], Check::Relations);
}

fn one_sided(bias: bool, scale: bool) -> Session {
    Session::of(&[Shape { d_in: 6, rank: 1, d_out: 4, bias, scale, rows: 2 }])
}

#[test]
fn the_free_u_cell_of_a_scale_works_only_if_it_has_a_weight() {
    let session = one_sided(false, true);
    // Pair 1 is the scale: its U cell takes the value that the false delta needs.
    let lie = || Cheat {
        products: Some(Box::new(|view, t, u| {
            u[1] = view.missing(t, u) * (view.projection.c[0] * t[1]).invert().unwrap();
        })),
        ..Cheat::default()
    };
    Attack::on_a_false_delta(&session)
        .under(Rules { free_u: true, ..Rules::default() })
        .succeeds(lie(), &[]);
    Attack::on_a_false_delta(&session).is_refused(lie(), &[Product], Check::Relations);
}

#[test]
fn the_unused_cells_of_one_sided_pairs_change_nothing() {
    // In an honest session the verifier accepts any value in a cell without weights: the cell takes
    // no part in the claim.
    for (bias, scale) in [(true, false), (false, true), (true, true)] {
        let session = one_sided(bias, scale);
        let unused = |false_delta: bool| {
            let lie = Cheat {
                products: Some(Box::new(|view, t, u| {
                    for (i, pair) in view.pairs.iter().enumerate() {
                        if pair.a.is_none() {
                            t[i] += F::from(12345);
                        }
                        if pair.b.is_none() {
                            u[i] += F::from(54321);
                        }
                    }
                })),
                ..Cheat::default()
            };
            let attack =
                if false_delta { Attack::on_a_false_delta(&session) } else { Attack::on(&session) };
            let forgery = attack.forge(lie);
            (forgery.broken(), attack.verify(&forgery))
        };
        let (broken, answer) = unused(false);
        assert_eq!(broken, vec![]);
        answer.unwrap();
        let (broken, answer) = unused(true);
        assert_eq!(broken, vec![Product]);
        assert!(matches!(answer, Err(Error::Rejected(Check::Relations))), "{answer:?}");
    }
}
