//! Says where a graph rounds: only where a table or a later product needs fewer bits.
//!
//! * Queries, keys and values of attention, and what an activation reads, are rounded to 16 bits.
//! * The residual stream is rounded at every second sum. The sums in between stay exact: rounding
//!   them would cost as much again and change nothing that is measured.
//! * A norm rounds its own result; a table's rows are rounded when they are read.

use std::collections::HashMap;

use crate::graph::{Graph, Operator, Purpose, ValueId};

/// The same graph with roundings.
pub fn with_roundings(graph: &Graph) -> Graph {
    let mut rounded = Rounded { operators: Vec::new(), rounds: HashMap::new() };
    // For each value of the graph: its new place, and whether it is an exact sum.
    let mut places: Vec<(ValueId, bool)> = Vec::with_capacity(graph.operators.len());
    for operator in &graph.operators {
        let mut moved = operator.renamed(|x| places[x].0);
        match &mut moved {
            Operator::Attention { q, k, v, .. } => {
                for x in [q, k, v] {
                    *x = rounded.round(*x, Purpose::Attention);
                }
            }
            Operator::Activation { x, .. } => *x = rounded.round(*x, Purpose::Index),
            _ => {}
        }
        let place = rounded.push(moved);
        places.push(match operator {
            Operator::Sum { terms } if terms.iter().any(|term| places[*term].1) => {
                (rounded.round(place, Purpose::Residual), false)
            }
            Operator::Sum { terms } => {
                let is_table = |term: &ValueId| {
                    matches!(
                        graph.operators[*term],
                        Operator::Embedding { .. } | Operator::Positions { .. }
                    )
                };
                (place, !terms.iter().all(is_table))
            }
            _ => (place, false),
        });
    }
    Graph { operators: rounded.operators, logits: places[graph.logits].0, ..graph.clone() }
}

struct Rounded {
    operators: Vec<Operator>,
    rounds: HashMap<(ValueId, Purpose), ValueId>,
}

impl Rounded {
    fn push(&mut self, operator: Operator) -> ValueId {
        self.operators.push(operator);
        self.operators.len() - 1
    }

    fn round(&mut self, x: ValueId, purpose: Purpose) -> ValueId {
        if let Some(known) = self.rounds.get(&(x, purpose)) {
            return *known;
        }
        let place = self.push(Operator::Round { x, purpose });
        self.rounds.insert((x, purpose), place);
        place
    }
}
