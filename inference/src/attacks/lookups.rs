//! Lookups of what no table has, and false counts.

use ethnum::I256;

use super::session::{Session, gpt2, is_refused, llama, look_up};
use crate::{
    lookups::{Entries, INDEX_BITS, RANGE, TABLE_AXIS_BITS, blocks},
    plan::Committed,
    relations::Rule,
    tensors::TensorId,
    witness::Witness,
};

/// (row, column) of an entry's count.
fn place(entry: usize) -> (usize, usize) {
    let features = 1 << (INDEX_BITS - TABLE_AXIS_BITS);
    (entry / features, entry % features)
}

/// A limb that is looked up in the table of 16-bit integers.
fn limb(session: &Session) -> TensorId {
    let mut limbs = session.plan.limbs.iter().flat_map(|limbs| &limbs.limbs);
    *limbs.next().unwrap()
}

fn number(value: u128) -> I256 {
    I256::from(value)
}

#[test]
fn indices_beyond_the_table_are_refused_however_they_are_counted() {
    let session = llama();
    let limb = limb(session);
    // (p + 1)/2, the fraction 1/2, and p − 1.
    let half = I256::from_str_radix(
        "39f6d3a994cebea4199cec0404d0ec02a9ded2017fff2dff7fffffff80000001",
        16,
    )
    .unwrap();
    for index in [number(1 << 16), -I256::ONE, half, number(1 << 64)] {
        let mut witness = session.witness();
        let old = witness.tensors[limb].get(0, 0);
        witness.tensors[limb].add(0, 0, index - old);
        assert!(look_up(&session.plan, &mut witness) > 0);
        if index != number(1 << 16) && index != half {
            continue;
        }
        // It is counted as entry 0.
        let (row, column) = place(0);
        witness.tensors[session.plan.tables[RANGE].multiplicities].add(row, column, I256::ONE);
        assert!(session.violated(&witness).contains(&Rule::LookupSum));
    }
}

#[test]
fn false_counts_are_refused() {
    let session = llama();
    let many = number(1 << 30);
    let plan = &session.plan;
    let last = (1 << INDEX_BITS) - 1;
    let mut witness = session.witness();
    for (tag, table) in plan.tables.iter().enumerate().take(3) {
        // The last entry, or another one's.
        let changes: [&[(usize, I256)]; 3] =
            [&[(last, I256::ONE)], &[(5, many)], &[(5, -I256::ONE), (6, I256::ONE)]];
        let change = changes[tag % 3];
        for (entry, by) in change {
            let (row, column) = place(*entry);
            witness.tensors[table.multiplicities].add(row, column, *by);
        }
        assert_eq!(session.violated(&witness), [Rule::LookupSum], "{tag}");
        for (entry, by) in change {
            let (row, column) = place(*entry);
            witness.tensors[table.multiplicities].add(row, column, -*by);
        }
    }
}

/// Counts of one table in another: the tags differ.
#[test]
fn entries_of_another_table_are_refused() {
    let session = llama();
    let plan = &session.plan;
    let mut witness = session.witness();
    let tables: Vec<TensorId> = plan.tables.iter().map(|table| table.multiplicities).collect();
    // Entry e of the first table of exponentials, and the entry e of the other.
    let exponentials: Vec<TensorId> = plan
        .tables
        .iter()
        .filter(|table| matches!(table.entries, Entries::Exponentials { .. }))
        .map(|table| table.multiplicities)
        .collect();
    // One for each layer, and that of the scores.
    assert_eq!(exponentials.len(), 3);
    let (row, column) = place(0xffff);
    witness.tensors[exponentials[0]].add(row, column, -I256::ONE);
    witness.tensors[exponentials[2]].add(row, column, I256::ONE);
    assert_eq!(session.violated(&witness), [Rule::LookupSum]);
    witness.tensors[exponentials[0]].add(row, column, I256::ONE);
    witness.tensors[exponentials[2]].add(row, column, -I256::ONE);
    // A range check as if it were of another table.
    witness.tensors[tables[RANGE]].add(0, 0, -I256::ONE);
    witness.tensors[exponentials[2]].add(0, 0, I256::ONE);
    assert_eq!(session.violated(&witness), [Rule::LookupSum]);
}

/// An index with the value of another one.
#[test]
fn values_of_another_index_are_refused() {
    let session = gpt2();
    let plan = &session.plan;
    let mut last = None;
    for (at, committed) in plan.committed.iter().enumerate() {
        let mut witness = session.witness();
        match committed {
            Committed::Softmax(softmax) => {
                // Both values of the next index.
                for (tensor, by) in [(softmax.weight, -1), (softmax.step, 1)] {
                    witness.tensors[tensor].add(0, 0, I256::from(by));
                }
            }
            Committed::Result(tensor)
                if session.program.graph.operators[at].name() == "activation" =>
            {
                witness.tensors[*tensor].add(0, 0, I256::ONE);
            }
            _ => continue,
        }
        assert!(look_up(plan, &mut witness) > 0, "{at}");
        last = Some(witness);
    }
    assert!(session.violated(&last.unwrap()).contains(&Rule::LookupSum));
}

/// What is live follows from the shapes: a prover that leaves a lookup out breaks the leaves'
/// claims.
#[test]
fn a_lookup_that_is_left_out_is_missed() {
    let session = llama();
    let limb = limb(session);
    let mut witness = session.witness();
    witness.tensors[limb].add(0, 0, number(1 << 20));
    look_up(&session.plan, &mut witness);
    let at = session.plan.lookups.iter().position(|lookup| {
        lookup.input.tensors.first().is_some_and(|(tensor, ..)| *tensor == limb)
    });
    super::rules::leaving_out(at.unwrap(), || {
        let violated = session.violated(&witness);
        assert!(violated.contains(&Rule::Opening), "{violated:?}");
    });
    let honest = session.witness();
    super::rules::leaving_out(at.unwrap(), || {
        let (bytes, _) = session.attempt(&honest);
        assert!(is_refused(&session.verify(&bytes)));
    });
}

#[test]
fn blocks_lie_apart_at_multiples_of_their_size() {
    for session in [llama(), gpt2()] {
        let plan = &session.plan;
        let (blocks, depth) = blocks(&plan.catalog, &plan.lookups, plan.tables.len());
        let mut next = 0;
        for block in &blocks {
            let size = 1 << (block.axis_bits + block.feature_bits);
            assert_eq!((block.first, block.first % size), (next, 0));
            next += size;
        }
        assert!(next <= 1 << depth && next > 1 << (depth - 1));
    }
}

/// Counts follow from the live places alone.
#[test]
fn keys_that_are_not_live_are_not_counted() {
    let session = llama();
    let plan = &session.plan;
    let mut witness: Witness = session.witness();
    let live: usize = plan
        .lookups
        .iter()
        .map(|lookup| {
            let places = &plan.catalog.axes[lookup.axis].places;
            let live = |place: &usize| {
                (0..lookup.features).filter(|at| lookup.live.is_live(*place, *at)).count()
            };
            places.iter().map(live).sum::<usize>()
        })
        .sum();
    let sum = |witness: &Witness| -> I256 {
        let tables = plan.tables.iter().map(|table| &witness.tensors[table.multiplicities]);
        let cells = tables.map(|grid| {
            (0..grid.rows())
                .flat_map(|r| (0..grid.columns).map(move |c| (r, c)))
                .map(|(r, c)| grid.get(r, c))
                .sum::<I256>()
        });
        cells.sum()
    };
    assert_eq!(sum(&witness), I256::from(live as u64));
    look_up(plan, &mut witness);
    assert_eq!(sum(&witness), I256::from(live as u64));
}
