//! Another adapter, another base model, other scores.

use std::sync::OnceLock;

use zklora_integer::program::Action;

use super::session::{Session, is_refused, llama};
use crate::{
    Error,
    plan::Plan,
    relations::Rule,
    testing::{Contributor, Kind, QUERIES_AND_VALUES, claimed},
    witness::Witness,
};

/// A claim that holds for an adapter other than the manifest's.
pub struct Stolen {
    pub session: Session,
}

/// Claims of another adapter of the same shapes, under the manifest of `llama()`.
pub fn stolen() -> &'static Stolen {
    static STOLEN: OnceLock<Stolen> = OnceLock::new();
    STOLEN.get_or_init(|| {
        let kind = Kind { seed: 21, ..QUERIES_AND_VALUES };
        let other = Contributor::new("tiny-llama", &kind);
        Stolen::new(other.program(true))
    })
}

impl Stolen {
    fn new(program: zklora_integer::program::Program) -> Stolen {
        let own = llama();
        let claimed = claimed(&program, own.claimed.sequences.clone());
        assert_ne!(claimed, own.claimed);
        let manifest = &own.contributor.manifest;
        let plan = Plan::new(&program, manifest, &claimed).unwrap();
        let session = Session {
            contributor: own.contributor,
            registered: own.contributor.registered(),
            own: own.contributor.program(false),
            program,
            claimed,
            plan,
        };
        Stolen { session }
    }

    /// What the prover computes with, and the same with the manifest's integers in the manifest's
    /// columns.
    pub fn witnesses(&self) -> (Witness, Witness) {
        let said = self.session.witness();
        let mut committed = self.session.witness();
        let own = llama().witness();
        let modules = self.session.plan.modules.iter();
        let published = modules.flat_map(|module| {
            module.pairs.into_iter().flatten().chain(module.bias).collect::<Vec<_>>()
        });
        let mut own = own.tensors.into_iter().map(Some).collect::<Vec<_>>();
        for tensor in published {
            committed.tensors[tensor] = own[tensor].take().unwrap();
        }
        (said, committed)
    }
}

fn is_refused_everywhere(stolen: &Stolen) {
    let session = &stolen.session;
    let (said, committed) = stolen.witnesses();
    // The columns are the manifest's: only the openings of A and B do not hold.
    let (bytes, violated) = session.attempt_of(&committed, &said, &|_| {});
    assert_eq!(violated, [Rule::Opening]);
    assert!(is_refused(&session.verify(&bytes)));
    // As if the columns were its own: the prover's own check refuses.
    let answer = session.prover().prove(&session.claimed).map(drop);
    assert!(is_refused(&answer), "{answer:?}");
}

#[test]
fn other_weights_than_the_manifests_are_refused() {
    is_refused_everywhere(stolen());
}

#[test]
fn no_weights_at_all_are_refused() {
    let stolen = Stolen::new(llama().contributor.program(false));
    let (said, committed) = stolen.witnesses();
    let (bytes, violated) = stolen.session.attempt_of(&committed, &said, &|_| {});
    assert_eq!(violated, [Rule::Opening]);
    assert!(is_refused(&stolen.session.verify(&bytes)));
}

/// One weight of one layer.
#[test]
fn one_weight_that_differs_by_one_is_refused() {
    let session = llama();
    let [a, b] = session.plan.modules[0].pairs.unwrap();
    for tensor in [a, b] {
        let mut witness = session.witness();
        witness.tensors[tensor].add(0, 0, 1.into());
        let (bytes, violated) = session.attempt_of(&witness, &session.witness(), &|_| {});
        assert_eq!(violated, [Rule::Opening]);
        assert!(is_refused(&session.verify(&bytes)));
    }
}

/// The user's base model is its own.
#[test]
fn a_proof_under_another_base_model_is_refused() {
    let own = llama();
    let mut session = own.claiming(own.claimed.clone());
    let graph = std::sync::Arc::make_mut(&mut session.own.graph);
    let shape = |at: usize| (graph.weights[at].outputs(), graph.weights[at].inputs());
    let mut pairs = (0..graph.weights.len()).flat_map(|a| (0..a).map(move |b| (a, b)));
    let (a, b) = pairs.rfind(|(a, b)| shape(*a) == shape(*b)).unwrap();
    graph.weights.swap(a, b);
    assert!(is_refused(&session.verify(own.honest())));
    session.own = session.contributor.program(false);
    session.verify(own.honest()).unwrap();
    // One entry of a rotation's table.
    let step = session.own.steps.iter_mut().find_map(|step| match &mut step.action {
        Action::Rotary { waves } => waves.iter_mut().flatten().next(),
        _ => None,
    });
    std::sync::Arc::make_mut(step.unwrap())[1].0 += 1;
    assert!(is_refused(&session.verify(own.honest())));
}

/// A prover that is forced to claim other sums.
#[test]
fn sums_outside_their_bounds_break_the_lookups() {
    let own = llama();
    let total = own.claimed.bounds[1].least;
    for off in [-1, 1] {
        let mut claimed = own.claimed.clone();
        claimed.bounds[1].least = total + off;
        claimed.bounds[1].most = total + off;
        let session = own.claiming(claimed);
        let answer = Witness::new(&session.program, &session.plan, &session.claimed).map(drop);
        assert!(matches!(answer, Err(Error::OutOfRange)));
        let mut witness =
            Witness::of_evaluation(&session.program, &session.plan, &session.claimed).unwrap();
        assert!(matches!(witness.finish(&session.plan), Err(Error::OutOfRange)));
        assert!(super::session::look_up(&session.plan, &mut witness) > 0);
        if off < 0 {
            continue;
        }
        let (bytes, violated) = session.attempt(&witness);
        assert_eq!(violated, [Rule::LookupSum]);
        assert!(is_refused(&session.verify(&bytes)));
    }
}
