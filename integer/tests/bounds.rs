//! Every value keeps to the bound that the program states before it runs, with the worst adapters;
//! adapters whose bits could overflow are refused.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod support;

use std::collections::BTreeMap;

use support::{MODELS, Random, Shape, big_row, big_u256};
use zklora_integer::{Error, adapter::Adapter, evaluate::evaluate, program::Program};

/// Evaluates random units and checks the bounds of all values, and of the logits. Returns how near
/// a value came to its bound, at most.
fn check(program: &Program, random: &mut Random) -> f64 {
    let units = random.units(program.graph.vocabulary, &[1, 9, 14]);
    let ids: Vec<&[u32]> = units.iter().map(Vec::as_slice).collect();
    let bounds: Vec<_> = program.steps.iter().map(|step| big_u256(step.size.bound)).collect();
    let mut nearest: f64 = 0.0;
    let as_float = |x: &num_bigint::BigUint| x.to_string().parse::<f64>().unwrap();
    let evaluation = evaluate(program, &ids, &mut |seen| {
        let bound = &bounds[seen.operator];
        for row in 0..seen.result.rows {
            let row = big_row(seen.result, row);
            let most = row.iter().map(|x| x.magnitude()).max().unwrap();
            let name = program.graph.operators[seen.operator].name();
            assert!(most <= bound.magnitude(), "operator {} {name}", seen.operator);
            if name == "linear" {
                nearest = nearest.max(as_float(most) / as_float(bound.magnitude()));
            }
        }
    })
    .unwrap();
    let wanted: Vec<(usize, usize)> =
        (0..3).flat_map(|unit| (0..units[unit].len()).map(move |at| (unit, at))).collect();
    let bound = &bounds[program.graph.logits];
    evaluation.logits(&wanted, |_, row| {
        let most = row.iter().map(|x| x.unsigned_abs()).max().unwrap();
        assert!(num_bigint::BigUint::from(most) <= *bound.magnitude());
    });
    nearest
}

#[test]
fn values_keep_to_their_bounds() {
    for name in MODELS {
        let model = support::fixture(name);
        let mut random = Random(1);
        check(&support::program(&model), &mut random);
        let mut nearest: f64 = 0.0;
        for case in 0..9 {
            let shape = Shape {
                rank: 1 + random.below(16),
                a_bits: *random.pick(&[2, 12, 16]),
                b_bits: *random.pick(&[2, 12, 16]),
                scaling: *random.pick(&[1.0, 0.3, -2.5, 1.0 / 3.0]),
                scale_log2: random.between(-30, -20),
                bias: random.one_in(2).then_some(4),
                extreme: case % 3 != 0,
            };
            let adapter = support::adapter(&mut random, &model.graph, shape);
            let program = model.program(adapter).unwrap();
            nearest = nearest.max(check(&program, &mut random));
        }
        println!("{name}: {nearest}");
        assert!(nearest > 1e-4, "{name}: the bounds are far from what is reached: {nearest}");
    }
}

/// Adapters of any shape: an error of the adapter or of a bound, or a program with right bounds.
#[test]
fn adapters_that_could_overflow_are_refused() {
    let scales = [i32::MIN, -300, -120, -80, -50, -30, -20, 0, 20, 40, i32::MAX];
    let scalings = [1e-30, 0.3, f64::NAN, 0.0, -0.75, f64::INFINITY, 5e-324];
    for name in MODELS {
        let model = support::fixture(name);
        let mut random = Random(2);
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (scale_log2, scaling) in
            scales.iter().flat_map(|scale| scalings.map(|scaling| (*scale, scaling)))
        {
            let bits = *random.pick(&[2, 8, 16, 24, 32]);
            let shape = Shape {
                rank: *random.pick(&[0, 1, 4, 64]),
                a_bits: bits,
                b_bits: *random.pick(&[bits, 24]),
                scaling,
                scale_log2,
                bias: *random.pick(&[None, None, None, None, Some(20), Some(200), Some(u32::MAX)]),
                extreme: true,
            };
            // One layer, and all of them.
            let mut adapter = support::adapter(&mut random, &model.graph, shape);
            if random.one_in(2) {
                let keep = random.below(adapter.modules.len());
                adapter.modules = vec![adapter.modules.swap_remove(keep)];
            }
            let outcome = match model.program(adapter) {
                Ok(program) => {
                    assert!(scaling.is_normal());
                    check(&program, &mut random);
                    "computed"
                }
                Err(Error::Bound { .. }) => "refused by a bound",
                Err(Error::Adapter { .. }) => {
                    assert!(!scaling.is_normal());
                    "refused by its scaling"
                }
                Err(error) => panic!("{error}"),
            };
            *counts.entry(outcome).or_default() += 1;
        }
        println!("{name}: {counts:?}");
        assert!(counts.len() == 3 && counts.values().all(|count| *count > 2), "{counts:?}");
    }
}

#[test]
fn adapters_that_are_not_what_they_say_are_refused() {
    let model = support::fixture("tiny-llama");
    let (layer, size) = support::layers(&model.graph)[0];
    let shape = Shape::default();
    type Change = fn(&mut zklora_integer::adapter::Module);
    let changes: [Change; 12] = [
        |module| module.pairs[0].0[0] = 128,
        |module| module.pairs[1].1[3] = -128,
        |module| module.pairs[1].1[3] = i32::MIN,
        |module| module.pairs[2].0.truncate(1),
        |module| module.pairs[2].1.push(0),
        |module| module.bias = Some((0, vec![1 << 20; module.outputs])),
        |module| module.bias = Some((0, vec![])),
        |module| module.a_bits = 0,
        |module| module.b_bits = 33,
        |module| module.b_bits = u32::MAX,
        |module| module.inputs += 1,
        |module| module.layer = usize::MAX,
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let mut module = support::module(&mut Random(3), layer, size, shape);
        change(&mut module);
        let adapter = Adapter { modules: vec![module] };
        let error = model.program(adapter).unwrap_err();
        assert!(matches!(error, Error::Adapter { .. }), "{at}: {error}");
    }
    let module = || support::module(&mut Random(3), layer, size, shape);
    let twice = Adapter { modules: vec![module(), module()] };
    assert!(matches!(model.program(twice), Err(Error::Adapter { .. })));
}
