//! Every committed cell is bound: witnesses in which one differs.

use std::collections::BTreeMap;

use ethnum::I256;

use super::session::{Session, gpt2, is_refused, llama, look_up, strangers};
use crate::{
    integers::Grid,
    lookups::{Entries, Known, Live},
    plan::{Committed, Plan, ROOT_OFFSET, Softmax},
    relations::Rule,
    schedule::LIMB,
    tensors::{Source, TensorId, View},
    values::Value,
    witness::Witness,
};

/// What a tensor is, by its operator and its part in it.
fn names(session: &Session) -> BTreeMap<TensorId, (String, Option<usize>)> {
    let (plan, graph) = (&session.plan, &session.program.graph);
    let mut names = BTreeMap::new();
    for (at, committed) in plan.committed.iter().enumerate() {
        let operator = graph.operators.get(at).map_or("scores", |operator| operator.name());
        let mut name = |part: String, tensor: TensorId, value: Option<usize>| {
            names.insert(tensor, (format!("{operator}: {part}"), value));
        };
        match committed {
            Committed::None => {}
            Committed::Result(tensor) => name("result".into(), *tensor, Some(at)),
            Committed::Limbs { limbs, .. } => {
                let limbs = limbs.iter().enumerate();
                limbs.for_each(|(j, limb)| name(format!("limb {j} of result"), *limb, None));
            }
            Committed::Norm { result, rho } => {
                name("result".into(), *result, Some(at));
                name("low root".into(), rho[0], None);
                name("high root".into(), rho[1], None);
            }
            Committed::Softmax(Softmax { index, weight, step, normaliser }) => {
                name("index".into(), *index, None);
                name("weight".into(), *weight, None);
                name("step".into(), *step, None);
                let limbs = normaliser.iter().enumerate();
                limbs.for_each(|(j, limb)| name(format!("limb {j} of normaliser"), *limb, None));
            }
        }
    }
    for limbs in &plan.limbs {
        let from = match &limbs.input.value {
            Some((Value::Result(_), _)) => "a result",
            Some((Value::Accumulator(_), _)) => "an accumulator",
            Some((Value::Scaled(_), _)) => "a scaled norm",
            Some((Value::Lower(_), _)) => "a lower bound of a root",
            Some((Value::Upper(_), _)) => "an upper bound of a root",
            Some((Value::Scores(_), _)) => "scores",
            Some((Value::Weights(_), _)) => "weights",
            Some((Value::WeightsBefore(_), _)) => "weights before",
            Some((Value::Squares, _)) => "squares",
            None => "tensors",
        };
        for (j, limb) in limbs.limbs.iter().enumerate() {
            let name = format!("limb {} of a number of {from}", j + 1);
            names.insert(*limb, (name, None));
        }
    }
    for (tag, table) in plan.tables.iter().enumerate() {
        names.insert(table.multiplicities, (format!("multiplicities of table {tag}"), None));
    }
    names
}

/// Whether each cell of a tensor counts: false for keys after the token.
fn is_live(session: &Session, tensor: TensorId, row: usize, feature: usize) -> bool {
    let plan = &session.plan;
    let reads = plan.lookups.iter().find(|lookup| {
        let own = |(of, view, _): &(TensorId, View, I256)| *of == tensor && *view == View::Same;
        lookup.input.tensors.iter().any(own) || lookup.outs.contains(&Some(tensor))
    });
    let Some(lookup) = reads else { return true };
    lookup.live.is_live(plan.catalog.axes[lookup.axis].places[row], feature)
}

/// First and last cells that count.
fn ends(session: &Session, tensor: TensorId) -> [(usize, usize); 2] {
    let of = &session.plan.catalog.tensors[tensor];
    let rows = session.plan.catalog.axes[of.axis].len();
    let last = (0..of.features).rev().find(|at| is_live(session, tensor, rows - 1, *at));
    [(0, 0), (rows - 1, last.unwrap())]
}

#[test]
fn every_tensor_has_a_name_and_every_cell_a_lookup() {
    for session in [llama(), gpt2()] {
        let plan = &session.plan;
        let names = names(session);
        let counted: Vec<TensorId> = plan.tables.iter().map(|table| table.multiplicities).collect();
        for (id, tensor) in plan.catalog.tensors.iter().enumerate() {
            let is_published = tensor
                .pieces
                .iter()
                .all(|piece| plan.catalog.packs[piece.pack].source != Source::Proof);
            if is_published || counted.contains(&id) {
                continue;
            }
            assert!(names.contains_key(&id), "tensor {id}");
            let reads = plan.lookups.iter().find(|lookup| {
                let alone = lookup.input.tensors.len() == 1 && lookup.input.value.is_none();
                let own = (id, View::Same, I256::ONE);
                let is_input = alone && lookup.input.tensors[0] == own;
                is_input || lookup.outs.contains(&Some(id))
            });
            let lookup = reads.unwrap_or_else(|| panic!("{}", names[&id].0));
            assert_eq!((lookup.axis, lookup.features), (tensor.axis, tensor.features));
            let is_attention = names[&id].0.starts_with("attention: ")
                && ["index", "weight", "step"].iter().any(|part| names[&id].0.ends_with(part));
            let of_keys = names[&id].0.ends_with("a number of scores");
            assert_eq!(lookup.live != Live::All, is_attention || of_keys, "{}", names[&id].0);
        }
    }
}

#[test]
fn a_true_witness_breaks_nothing_however_it_is_looked_up() {
    let session = gpt2();
    let mut witness = session.witness();
    assert_eq!(session.violated(&witness), []);
    assert_eq!(look_up(&session.plan, &mut witness), 0);
    assert_eq!(session.violated(&witness), []);
    session.verify(&session.attempt(&witness).0).unwrap();
}

/// Adds to a cell, and to the result that it is.
fn add(witness: &mut Witness, tensor: TensorId, at: (usize, usize), value: Option<usize>, by: i64) {
    witness.tensors[tensor].add(at.0, at.1, I256::from(by));
    if let Some(value) = value.map(Value::Result) {
        let mut grid = copy(witness.values.grid(value));
        grid.add(at.0, at.1, I256::from(by));
        witness.values.insert(value, grid);
    }
}

fn copy(grid: &Grid) -> Grid {
    let cells = (0..grid.rows()).flat_map(|row| (0..grid.columns).map(move |c| (row, c)));
    Grid::wide(grid.columns, cells.map(|(row, c)| grid.get(row, c)).collect())
}

/// For each kind of tensor, the first and the last one.
fn kinds(session: &Session) -> Vec<(String, TensorId, Option<usize>)> {
    let mut kinds: BTreeMap<String, Vec<(TensorId, Option<usize>)>> = BTreeMap::new();
    for (tensor, (name, value)) in names(session) {
        kinds.entry(name).or_default().push((tensor, value));
    }
    let ends = kinds.into_iter().flat_map(|(name, of)| {
        let (first, last) = (of[0], of[of.len() - 1]);
        let count = if of.len() > 1 { 2 } else { 1 };
        [first, last].into_iter().take(count).map(move |(t, v)| (name.clone(), t, v))
    });
    ends.collect()
}

/// Changes a cell of each tensor by one: some tuple is no entry of a table then. For some kinds, a
/// prover goes on as if nothing was wrong.
fn every_tensor(session: &Session, parts: &[(&str, Rule)]) {
    let plan = &session.plan;
    let mut witness = session.witness();
    let counted: Vec<TensorId> = plan.tables.iter().map(|table| table.multiplicities).collect();
    for (tensor, (name, _)) in names(session) {
        assert_eq!(strangers(plan, &witness, tensor), 0);
        // A root is read by its operator only: no lookup has its cells besides their own ranges.
        if counted.contains(&tensor) || name.ends_with(" root") {
            continue;
        }
        for place in ends(session, tensor) {
            for by in [-1, 1] {
                add(&mut witness, tensor, place, None, by);
                assert!(strangers(plan, &witness, tensor) > 0, "{name} {place:?} {by}");
                add(&mut witness, tensor, place, None, -by);
            }
        }
    }
    for (part, rule) in parts {
        let kinds = kinds(session);
        let (_, tensor, value) = kinds.iter().rfind(|kind| kind.0 == *part).expect(part);
        let place = ends(session, *tensor)[1];
        add(&mut witness, *tensor, place, *value, 1);
        look_up(plan, &mut witness);
        let violated = session.violated(&witness);
        assert!(violated.contains(rule), "{part}: {violated:?}");
        add(&mut witness, *tensor, place, *value, -1);
    }
}

#[test]
fn every_tensor_is_bound_in_llama() {
    let sum = Rule::LookupSum;
    every_tensor(llama(), &[("attention: limb 0 of normaliser", sum), ("round: result", sum)]);
}

#[test]
fn every_tensor_is_bound_in_gpt2() {
    let root = Rule::Operator("norm's root");
    let sum = Rule::LookupSum;
    let parts = [("norm: high root", root), ("attention: step", sum), ("scores: index", sum)];
    every_tensor(gpt2(), &parts);
}

#[test]
fn the_user_refuses_changed_cells() {
    let session = gpt2();
    let kinds = kinds(session);
    let wanted = [
        ("norm: low root", Rule::Operator("norm's root")),
        ("attention: index", Rule::LookupSum),
        ("activation: result", Rule::LookupSum),
    ];
    for (wanted, rule) in wanted {
        let (_, tensor, value) = kinds.iter().find(|kind| kind.0 == wanted).expect(wanted);
        let mut witness = session.witness();
        add(&mut witness, *tensor, ends(session, *tensor)[1], *value, 1);
        look_up(&session.plan, &mut witness);
        let (bytes, violated) = session.attempt(&witness);
        assert!(violated.contains(&rule), "{wanted}: {violated:?}");
        assert!(is_refused(&session.verify(&bytes)), "{wanted}");
    }
}

/// Keys after the token: nothing reads them.
#[test]
fn cells_of_keys_that_are_not_live_are_free() {
    let session = llama();
    let plan = &session.plan;
    let mut witness = session.witness();
    let mut free = 0;
    for (id, tensor) in plan.catalog.tensors.iter().enumerate() {
        for row in 0..plan.catalog.axes[tensor.axis].len() {
            for feature in 0..tensor.features {
                if !is_live(session, id, row, feature) {
                    free += 1;
                    let by = I256::from(free * 1_000_003) << (free % 20);
                    witness.tensors[id].add(row, feature, by);
                }
            }
        }
    }
    assert!(free > 0);
    look_up(plan, &mut witness);
    assert_eq!(session.violated(&witness), []);
}

/// The tables' entries that a softmax reads.
fn entries(session: &Session, softmax: &Softmax) -> Entries {
    let mut lookups = session.plan.lookups.iter();
    let lookup = lookups.find(|lookup| lookup.outs[0] == Some(softmax.weight)).unwrap();
    session.plan.tables[lookup.table].entries.clone()
}

/// Some number cannot be cut into limbs.
pub fn is_impossible(plan: &Plan, witness: &Witness) -> bool {
    let known = Known { tensors: &witness.tensors, values: &witness.values };
    plan.limbs.iter().any(|limbs| {
        let end = LIMB * (limbs.limbs.len() as u32 + 1);
        let places = plan.catalog.axes[limbs.axis].places.iter().enumerate();
        let cells =
            places.flat_map(|(row, place)| (0..limbs.features).map(move |at| (row, *place, at)));
        let mut live = cells.filter(|(_, place, at)| limbs.live.is_live(*place, *at));
        live.any(|(row, _, at)| {
            let number = limbs.input.at(&known, row, at);
            number < I256::ZERO || number >> end != I256::ZERO
        })
    })
}

#[test]
fn no_other_result_has_a_remainder() {
    for session in [llama(), gpt2()] {
        let graph = &session.program.graph;
        let mut witness = session.witness();
        for (at, committed) in session.plan.committed.iter().enumerate() {
            let tensor = match committed {
                Committed::Result(tensor) | Committed::Norm { result: tensor, .. } => *tensor,
                Committed::Limbs { limbs, .. } => limbs[0],
                _ => continue,
            };
            if graph.operators[at].name() == "activation" {
                continue;
            }
            for place in ends(session, tensor) {
                for by in [-1, 1] {
                    add(&mut witness, tensor, place, None, by);
                    assert!(is_impossible(&session.plan, &witness), "{at} {place:?} {by}");
                    add(&mut witness, tensor, place, None, -by);
                }
            }
        }
    }
}

#[test]
fn no_other_root_satisfies_both_inequalities() {
    for session in [llama(), gpt2()] {
        for (at, committed) in session.plan.committed.iter().enumerate() {
            let Committed::Norm { rho, .. } = committed else { continue };
            for row in [session.plan.catalog.axes[session.plan.tokens].len() - 1] {
                for by in [-1, 1] {
                    let mut witness = session.witness();
                    let limbs = rho.map(|limb| witness.tensors[limb].get(row, 0));
                    let rho_at = limbs[0] + (limbs[1] << LIMB);
                    let root = rho_at * 2 + I256::from(ROOT_OFFSET);
                    let other = rho_at + by;
                    for (limb, tensor) in [other & 0xffff, other >> LIMB].into_iter().zip(rho) {
                        let old = witness.tensors[*tensor].get(row, 0);
                        witness.tensors[*tensor].add(row, 0, limb - old);
                    }
                    let next = root + 2 * by;
                    let v = witness.values.grid(Value::Lower(at)).get(row, 0) / (root * root);
                    for (value, root) in [(Value::Lower(at), next), (Value::Upper(at), next + 2)] {
                        let mut grid = copy(witness.values.grid(value));
                        let old = grid.get(row, 0);
                        grid.add(row, 0, root * root * v - old);
                        witness.values.insert(value, grid);
                    }
                    // Whatever h is then: the inequalities come first.
                    assert!(is_impossible(&session.plan, &witness), "{at} {row} {by}");
                }
            }
        }
    }
}

#[test]
fn no_other_normaliser_sums_to_one() {
    for session in [llama(), gpt2()] {
        for (at, committed) in session.plan.committed.iter().enumerate() {
            let Committed::Softmax(softmax) = committed else { continue };
            let entries = entries(session, softmax);
            let of = &session.plan.catalog.tensors[softmax.index];
            let heads = session.plan.catalog.tensors[softmax.normaliser[0]].features;
            let keys = of.features / heads;
            let rows = session.plan.catalog.axes[of.axis].len();
            for (row, head) in [(0, 0), (rows - 1, heads - 1)] {
                for by in [-1i64, 1] {
                    let mut witness = session.witness();
                    witness.tensors[softmax.normaliser[0]].add(row, head, I256::from(by));
                    let mut sums = [0, 0];
                    let mut is_entry = true;
                    for feature in head * keys..(head + 1) * keys {
                        if !is_live(session, softmax.index, row, feature) {
                            continue;
                        }
                        witness.tensors[softmax.index].add(row, feature, I256::from(by));
                        let index = witness.tensors[softmax.index].get(row, feature);
                        is_entry &= (0..1 << 16).contains(&index.as_i64());
                        let outs = entries.outs(usize::try_from(index).unwrap_or(usize::MAX));
                        let tensors = [softmax.weight, softmax.step];
                        for (tensor, out) in tensors.into_iter().zip(outs) {
                            let old = witness.tensors[tensor].get(row, feature);
                            witness.tensors[tensor].add(row, feature, I256::from(out) - old);
                        }
                        sums[0] += outs[0];
                        sums[1] += outs[0] + outs[1];
                    }
                    if at < session.program.steps.len() {
                        let values = [Value::Weights(at), Value::WeightsBefore(at)];
                        for (value, sum) in values.into_iter().zip(sums) {
                            let mut grid = copy(witness.values.grid(value));
                            let old = grid.get(row, head);
                            grid.add(row, head, I256::from(sum) - old);
                            witness.values.insert(value, grid);
                        }
                    }
                    assert!(!is_entry || is_impossible(&session.plan, &witness), "{at} {row} {by}");
                }
            }
        }
    }
}
