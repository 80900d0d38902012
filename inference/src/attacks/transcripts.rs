//! Every challenge depends on all that came before it.

use std::collections::HashSet;

use group::{Curve, Group};
use zklora_proof::{
    field::{F, G1},
    framed::Framed,
};

use super::{
    events::{Event, record},
    session::{Session, gpt2, llama},
};
use crate::{proof::Proof, statement, testing::srs};

fn drawn(events: &[Event]) -> Vec<F> {
    let drawn = events.iter().filter_map(|event| match event {
        Event::Drawn(_, value) => Some(*value),
        Event::Absorbed(_) => None,
    });
    drawn.collect()
}

fn label(event: &Event) -> &str {
    match event {
        Event::Drawn(label, _) | Event::Absorbed(label) => label,
    }
}

fn verification(session: &Session, bytes: &[u8]) -> Vec<Event> {
    record(|| session.verify(bytes)).1
}

/// A second implementation of docs/inference-proof.md, "The order of messages", first row.
#[test]
fn the_statement_is_absorbed_item_by_item() {
    let session = llama();
    let claimed = &session.claimed;
    let manifest = &session.contributor.manifest;
    let mut own = Framed::new("zklora v1 inference transcript");
    own.absorb("kind", b"inference");
    own.absorb("version", &2u32.to_le_bytes());
    own.absorb("srs", &srs().digest());
    own.absorb("settings", &manifest.settings().to_bytes().unwrap());
    own.absorb("adapter", &manifest.id().0);
    own.absorb("model", &[7; 32]);
    let mut layers = vec![];
    for module in &session.program.adapter.modules {
        let at = session.program.graph.operators.iter().position(|operator| {
            matches!(operator, zklora_integer::graph::Operator::Linear { layer: Some(layer), .. }
                if *layer == module.layer)
        });
        layers.extend((at.unwrap() as u64).to_le_bytes());
        layers.extend((module.name.len() as u64).to_le_bytes());
        layers.extend(module.name.as_bytes());
    }
    own.absorb("layers", &layers);
    let mut sequences = 2u64.to_le_bytes().to_vec();
    for sequence in &claimed.sequences {
        sequences.extend((sequence.from as u64).to_le_bytes());
        sequences.extend((sequence.tokens.len() as u64).to_le_bytes());
        for token in &sequence.tokens {
            sequences.extend(u64::from(*token).to_le_bytes());
        }
    }
    own.absorb("sequences", &sequences);
    own.absorb("questions", &0u64.to_le_bytes());
    let mut bounds = 2u64.to_le_bytes().to_vec();
    for bound in &claimed.bounds {
        bounds.extend(2u64.to_le_bytes());
        bound.weights.iter().for_each(|w| bounds.extend(i64::from(*w).to_le_bytes()));
        bounds.extend(bound.least.to_le_bytes());
        bounds.extend(bound.most.to_le_bytes());
    }
    own.absorb("bounds", &bounds);
    own.absorb("commits", &[0]);
    own.absorb("context", &[9; 32]);
    let mut found = statement::absorb(srs(), manifest, &session.program, claimed).unwrap();
    assert_eq!(found.squeeze("s0"), own.squeeze("s0"));
    // The user's program has the same layers.
    let mut found = statement::absorb(srs(), manifest, &session.own, claimed).unwrap();
    let mut again = statement::absorb(srs(), manifest, &session.program, claimed).unwrap();
    assert_eq!(found.squeeze("s0"), again.squeeze("s0"));
}

#[test]
fn a_module_at_another_layer_is_another_statement() {
    let session = llama();
    let manifest = &session.contributor.manifest;
    let mut program = session.contributor.program(false);
    program.adapter.modules.swap(0, 2);
    let mut found = statement::absorb(srs(), manifest, &program, &session.claimed).unwrap();
    let mut own = statement::absorb(srs(), manifest, &session.own, &session.claimed).unwrap();
    assert_ne!(found.squeeze("s0"), own.squeeze("s0"));
}

#[test]
fn the_kind_of_proof_is_absorbed() {
    let manifest = &llama().contributor.manifest;
    let all = ["inference", "registration"]
        .map(|kind| statement::begin(kind, srs(), manifest).unwrap().squeeze("s0"));
    assert_ne!(all[0], all[1]);
}

#[test]
fn another_statement_has_other_challenges_throughout() {
    let session = llama();
    let own = drawn(&verification(session, session.honest()));
    let mut claimed = session.claimed.clone();
    claimed.context[0] ^= 1;
    let other = record(|| session.verify_as(&claimed, session.honest())).1;
    let other = drawn(&other);
    assert_eq!(own.len(), other.len());
    assert!(own.iter().zip(&other).all(|(a, b)| a != b));
}

#[test]
fn both_parties_see_one_transcript_without_repetition() {
    let session = llama();
    let ((bytes, _), of_prover) = record(|| session.attempt(&session.witness()));
    assert_eq!(of_prover, verification(session, &bytes));
    let drawn = drawn(&of_prover);
    let different: HashSet<Vec<u8>> = drawn.iter().map(|x| x.to_bytes_le().to_vec()).collect();
    assert_eq!(different.len(), drawn.len());
}

/// A point changes all challenges after it, and none before.
#[test]
fn each_commitment_changes_every_later_challenge_and_no_earlier_one() {
    let session = llama();
    let honest = session.parsed(session.honest());
    let own = verification(session, session.honest());
    let other = (G1::generator() * F::from(3)).to_affine();
    // The place of each absorbed point list among the events.
    let absorbed: Vec<usize> = own
        .iter()
        .enumerate()
        .filter(|(_, event)| matches!(event, Event::Absorbed(_)))
        .map(|(at, _)| at)
        .collect();
    let labels: Vec<&str> = absorbed.iter().map(|at| label(&own[*at])).collect();
    assert_eq!(labels[0], "columns");
    assert_eq!(labels[labels.len() - 4..], ["vk", "T", "U", "D"]);
    let messages = honest.messages.len();
    assert_eq!(absorbed.len(), 1 + messages + 4);
    type Change<'a> = Box<dyn Fn(&mut Proof) + 'a>;
    let mut changes: Vec<(usize, Change<'_>)> = vec![
        (absorbed[0], Box::new(|proof| *proof.columns.last_mut().unwrap() = other)),
        (absorbed[messages + 2], Box::new(|proof| proof.t[0] = other)),
        (absorbed[messages + 3], Box::new(|proof| proof.u[0] = other)),
        (absorbed[messages + 4], Box::new(|proof| *proof.blinders.last_mut().unwrap() = other)),
    ];
    for at in [0, 1, 2, messages / 3, messages / 2, messages - 2, messages - 1] {
        let change = move |proof: &mut Proof| proof.messages[at] = other;
        changes.push((absorbed[1 + at], Box::new(change)));
    }
    for (place, change) in changes {
        let mut proof = honest.clone();
        change(&mut proof);
        let found = verification(session, &proof.to_bytes());
        assert_eq!(found.len(), own.len());
        assert_eq!(found[..=place], own[..=place]);
        let later = found[place..].iter().zip(&own[place..]);
        for (found, own) in later {
            if let (Event::Drawn(_, found), Event::Drawn(_, own)) = (found, own) {
                assert_ne!(found, own);
            }
        }
    }
}

/// The order of docs/inference-proof.md: what each challenge comes after.
#[test]
fn challenges_come_after_what_they_judge() {
    for session in [llama(), gpt2()] {
        let events = verification(session, session.honest());
        let labels: Vec<&str> = events.iter().map(label).collect();
        assert_eq!(labels[..4], ["columns", "alpha", "gamma", "nodes"]);
        let end = ["vk", "T", "U", "D", "chi", "eta", "halo2"];
        assert_eq!(labels[labels.len() - end.len()..], end);
        for once in ["columns", "alpha", "gamma", "beta", "chi", "eta", "halo2"] {
            assert_eq!(labels.iter().filter(|label| **label == once).count(), 1);
        }
        let beta = labels.iter().position(|label| *label == "beta").unwrap();
        for (at, of) in labels.iter().enumerate() {
            let before = at.checked_sub(1).map(|at| labels[at]);
            match *of {
                // Each round is drawn after its message.
                "r" => assert!(matches!(before, Some("round" | "fold")), "{before:?}"),
                "rho" => assert_eq!(before, Some("nodes")),
                "fold" => assert!(at > beta),
                "round" | "ends" | "nodes" | "virtual" | "lambda" => assert!(at < beta),
                _ => {}
            }
            // A sumcheck begins with a fresh λ, after all that it joins.
            if *of == "round" && before != Some("r") {
                let between = ["low rank", "bias", "shift"];
                let last = labels[..at].iter().rev().find(|label| !between.contains(label));
                assert_eq!(last, Some(&"lambda"), "{at}");
            }
        }
    }
}
