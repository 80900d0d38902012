//! Statements that are none.

use zklora_integer::program::Action;

use super::session::llama;
use crate::{
    Error,
    plan::Plan,
    statement::{Bound, Claimed},
    testing::{Contributor, Kind, QUERIES_AND_VALUES},
};

fn plan(change: impl Fn(&mut Claimed)) -> Result<Plan, Error> {
    let session = llama();
    let mut claimed = session.claimed.clone();
    change(&mut claimed);
    let manifest = &session.contributor.manifest;
    Plan::new(&session.own, manifest, &claimed)
}

fn is_no_statement(change: impl Fn(&mut Claimed)) -> bool {
    matches!(plan(change), Err(Error::Statement(_)))
}

#[test]
fn bounds_that_allow_nothing_or_fit_no_sequence_are_refused() {
    assert!(plan(|_| ()).is_ok());
    assert!(is_no_statement(|c| c.bounds.clear()));
    assert!(is_no_statement(|c| c.bounds[0].least = c.bounds[0].most + 1));
    assert!(is_no_statement(|c| (c.bounds[0].least, c.bounds[0].most) = (i64::MAX, i64::MIN)));
    assert!(is_no_statement(|c| c.bounds[0].weights.truncate(1)));
    assert!(is_no_statement(|c| c.bounds[0].weights.push(1)));
    assert!(is_no_statement(|c| c.bounds[1].weights.clear()));
    // The widest bound is one.
    let widest = Bound { weights: vec![i32::MIN; 2], least: i64::MIN, most: i64::MAX };
    assert!(plan(|c| c.bounds.push(widest.clone())).is_ok());
}

#[test]
fn sequences_without_scores_are_refused() {
    assert!(is_no_statement(|c| c.sequences.clear()));
    assert!(is_no_statement(|c| c.sequences[0].from = 0));
    assert!(is_no_statement(|c| c.sequences[0].from = c.sequences[0].tokens.len()));
    assert!(is_no_statement(|c| c.sequences[0].from = usize::MAX));
    assert!(is_no_statement(|c| c.sequences[1].tokens.truncate(1)));
}

#[test]
fn tokens_that_are_none_are_refused() {
    let vocabulary = llama().own.graph.vocabulary as u32;
    let unit = |answer| matches!(answer, Err(Error::Integer(zklora_integer::Error::Unit { .. })));
    assert!(unit(plan(|c| c.sequences[0].tokens[1] = vocabulary)));
    assert!(unit(plan(|c| c.sequences[0].tokens[1] = u32::MAX)));
    assert!(unit(plan(|c| c.sequences[0].tokens.clear())));
    let longest = llama().own.tokens;
    assert!(unit(plan(|c| c.sequences[0].tokens = vec![1; longest + 1])));
}

#[test]
fn modules_that_are_not_the_manifests_are_refused() {
    let session = llama();
    let claimed = &session.claimed;
    let other = Contributor::new("tiny-llama", &Kind { rank: 3, ..QUERIES_AND_VALUES });
    let answer = Plan::new(&session.own, &other.manifest, claimed).map(drop);
    assert!(matches!(answer, Err(Error::Statement(_))), "{answer:?}");
    let kind = Kind { layers: &["o_proj"], ..QUERIES_AND_VALUES };
    let other = Contributor::new("tiny-llama", &kind);
    let answer = Plan::new(&session.own, &other.manifest, claimed).map(drop);
    assert!(matches!(answer, Err(Error::Statement(_))), "{answer:?}");
}

/// What the manifest says of a module besides its shapes.
#[test]
fn modules_with_other_numbers_than_the_manifests_are_refused() {
    use super::session::gpt2;
    let session = gpt2();
    let changes: [&dyn Fn(&mut zklora_integer::adapter::Module); 4] = [
        &|module| module.scaling *= 2.0,
        &|module| module.scale_log2 += 1,
        &|module| module.bias.as_mut().unwrap().0 += 1,
        &|module| module.bias = None,
    ];
    for change in changes {
        let mut program = session.contributor.program(false);
        change(&mut program.adapter.modules[0]);
        let manifest = &session.contributor.manifest;
        let answer = Plan::new(&program, manifest, &session.claimed).map(drop);
        assert!(matches!(answer, Err(Error::Statement(_))), "{answer:?}");
    }
}

/// A coarse adapter: what its layer gives has no more bits than the layer is rounded to.
#[test]
fn layers_that_are_rounded_by_no_bits_can_be_proven() {
    let kind = Kind { layers: &["o_proj"], rank: 1, ..QUERIES_AND_VALUES };
    let contributor = Contributor::new("tiny-llama", &kind);
    let mut program = contributor.program(false);
    let mut count = 0;
    for step in &mut program.steps {
        if let Action::Linear { part: Some(part), .. } = &mut step.action {
            *part = 0;
            count += 1;
        }
    }
    assert!(count > 0);
    let answer = Plan::new(&program, &contributor.manifest, &llama().claimed).map(drop);
    assert!(answer.is_ok(), "{answer:?}");
}
