//! Every cell of every message is bound.

use ff::Field;
use rayon::prelude::*;
use zklora_proof::field::F;

use super::session::{Session, gpt2, is_refused, llama};
use crate::{channel::Channel, relations::Rule};

/// Adds one to a cell of a message.
fn tamper(message: usize, cell: usize) -> impl Fn(&mut Channel<'_>) {
    move |channel| {
        if let Some(prover) = channel.as_prover() {
            prover.tamper = Some((message, cell));
        }
    }
}

/// With the challenges of a true proof, no cell can be another one: a relation reads it.
#[test]
fn every_cell_of_every_message_is_read_by_a_relation() {
    for session in [llama(), gpt2()] {
        let trial = session.changed(&session.witness(), &|_| {});
        assert_eq!(trial.violated(&trial.cells), []);
        let unread: Vec<usize> = (0..trial.cells.len())
            .into_par_iter()
            .filter(|cell| {
                let mut cells = trial.cells.clone();
                cells[*cell] += F::ONE;
                trial.violated(&cells).is_empty()
            })
            .collect();
        assert!(unread.is_empty(), "{unread:?}");
    }
}

/// Both factors of each product matter, too.
#[test]
fn every_place_of_products_is_read_by_a_relation() {
    for session in [llama(), gpt2()] {
        let trial = session.changed(&session.witness(), &|_| {});
        let mut places = vec![0; trial.relations.products.len()];
        for relation in &trial.relations.zero {
            for (factor, place) in &relation.products {
                assert_ne!(*factor, F::ZERO);
                places[*place] += 1;
            }
        }
        assert!(places.iter().all(|count| *count == 1));
    }
}

/// The messages of a proof, by what they are, as the prover names them.
fn samples(session: &Session) -> Vec<usize> {
    let trial = session.changed(&session.witness(), &|_| {});
    let count = trial.slots.last().unwrap().message;
    [1, 2, 3, count / 5, count / 3, count / 2, 3 * count / 4, count - 9, count - 1, count].to_vec()
}

/// A prover that goes on after a false message as if it were true.
#[test]
fn a_false_message_breaks_a_relation() {
    let session = gpt2();
    let witness = session.witness();
    for (at, message) in samples(session).into_iter().enumerate().step_by(3) {
        let trial = session.changed(&witness, &tamper(message, at));
        assert_ne!(trial.violated(&trial.cells), [], "{message}");
    }
}

#[test]
fn the_user_refuses_false_messages() {
    let session = gpt2();
    let witness = session.witness();
    let samples = samples(session);
    // The first is the sum of all lookups, the last one of the openings.
    for (message, rule) in [(samples[0], Rule::LookupSum), (samples[9], Rule::Opening)] {
        let (bytes, violated) = session.attempt_with(&witness, &tamper(message, 0));
        assert!(violated.contains(&rule), "{message}: {violated:?}");
        assert!(is_refused(&session.verify(&bytes)), "{message}");
    }
}

/// Rows of messages: no two share one.
#[test]
fn messages_have_rows_of_their_own() {
    for session in [llama(), gpt2()] {
        let trial = session.changed(&session.witness(), &|_| {});
        let mut rows: Vec<(usize, usize)> =
            trial.slots.iter().map(|slot| (slot.column, slot.row)).collect();
        let rows_of_data = zklora_proof::layout::data_rows(crate::testing::K);
        assert!(rows.iter().all(|(_, row)| *row < rows_of_data));
        let count = rows.len();
        rows.sort_unstable();
        rows.dedup();
        assert_eq!(rows.len(), count);
        let messages = trial.slots.windows(2).all(|pair| {
            pair[0].message == pair[1].message || pair[0].message + 1 == pair[1].message
        });
        assert!(messages && trial.slots[0].message == 1);
    }
}
