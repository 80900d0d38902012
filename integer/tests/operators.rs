//! Every operator gives the numbers of its formula on big integers, in random graphs with random
//! scales and adapters; nothing overflows, whatever the scales.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod support;

use num_bigint::BigInt;
use support::{Random, Shape, Wildness, big_row, big_u256, reference};
use zklora_integer::{
    Error,
    adapter::{Adapter, Module},
    evaluate::evaluate,
    graph::Graph,
    model::IntegerModel,
    score::{Score, score},
    unit::{Sequence, Unit},
};

/// An adapter on some layers of a graph.
fn some_adapter(random: &mut Random, graph: &Graph, wild: bool) -> Vec<Module> {
    let mut modules = Vec::new();
    for (layer, size) in support::layers(graph) {
        if !random.one_in(2) {
            continue;
        }
        let bits = if wild { 24 } else { 10 };
        let shape = Shape {
            rank: random.below(4),
            a_bits: random.between(2, bits) as u32,
            b_bits: random.between(2, bits) as u32,
            scaling: *random.pick(&[1.0, 0.5, -0.3, 1e-30, 16.0, 2.0 / 3.0, 1e9]),
            scale_log2: if wild { random.between(-120, 40) } else { random.between(-30, 0) },
            bias: random.one_in(3).then(|| random.below(8) as u32),
            extreme: random.one_in(2),
        };
        modules.push(support::module(random, layer, size, shape));
    }
    modules
}

/// What happened to a random model.
#[derive(Debug, PartialEq)]
enum Outcome {
    Refused,
    LeftARange,
    Same,
}

/// Evaluates units of a model in one batch, and compares every value with the reference, and with
/// its bound.
fn compare(model: &IntegerModel, adapter: Vec<Module>, units: &[Vec<u32>]) -> Outcome {
    let adapter = Adapter { modules: adapter };
    let same = Adapter {
        modules: adapter
            .modules
            .iter()
            .map(|module| Module {
                name: module.name.clone(),
                pairs: module.pairs.clone(),
                bias: module.bias.clone(),
                ..*module
            })
            .collect(),
    };
    let program = match model.program(same) {
        Ok(program) => program,
        Err(Error::Bound { .. } | Error::Adapter { .. }) => return Outcome::Refused,
        Err(error) => panic!("{error}"),
    };
    let expected: Vec<_> =
        units.iter().map(|unit| reference::evaluate(model, &adapter, unit)).collect();
    let ids: Vec<&[u32]> = units.iter().map(Vec::as_slice).collect();
    let mut starts = vec![0];
    units.iter().for_each(|unit| starts.push(starts.last().unwrap() + unit.len()));
    let evaluation = evaluate(&program, &ids, &mut |seen| {
        for (unit, (values, failed)) in expected.iter().enumerate() {
            let Some(value) = values.get(seen.operator) else { continue };
            if *failed == Some(seen.operator) {
                continue;
            }
            let step = &program.steps[seen.operator];
            let bound = big_u256(step.size.bound);
            assert_eq!(step.size.bits, value.bits, "operator {}", seen.operator);
            for (token, row) in value.rows.iter().enumerate() {
                let found = big_row(seen.result, starts[unit] + token);
                assert_eq!(found, *row, "operator {} {:?}", seen.operator, step.operator);
                assert!(row.iter().all(|x| x.magnitude() <= bound.magnitude()));
            }
        }
    })
    .unwrap();
    let logits = model.graph.logits;
    for (failure, (_, failed)) in evaluation.failures.iter().zip(&expected) {
        let failure = failure.as_ref().map(|failure| failure.operator);
        assert_eq!(failure, failed.filter(|failed| *failed < logits));
    }
    let wanted: Vec<(usize, usize)> = expected
        .iter()
        .enumerate()
        .filter(|(_, (_, failed))| failed.is_none())
        .flat_map(|(unit, (values, _))| (0..values[logits].rows.len()).map(move |row| (unit, row)))
        .collect();
    evaluation.logits(&wanted, |at, row| {
        let (unit, token) = wanted[at];
        let row: Vec<BigInt> = row.iter().map(|x| BigInt::from(*x)).collect();
        assert_eq!(row, expected[unit].0[logits].rows[token]);
    });
    let sequence = |unit: &Vec<u32>| Sequence { tokens: unit.clone(), from: 1 };
    let all: Vec<Unit> = units.iter().map(|unit| Unit::LogProbability(sequence(unit))).collect();
    let (scores, _) = score(&program, &all).unwrap();
    let mut outcome = Outcome::Same;
    for ((unit, score), (values, failed)) in units.iter().zip(scores).zip(&expected) {
        let tokens: Option<Vec<BigInt>> = failed.is_none().then_some(()).and_then(|()| {
            let value = &values[logits];
            let rows = value.rows.iter().zip(&unit[1..]);
            rows.map(|(row, next)| {
                reference::log_probability(row, value.bits, model.score_bits, *next)
            })
            .collect()
        });
        match (score, tokens) {
            (Score::LogProbability(found), Some(tokens)) => {
                let found: Vec<BigInt> = found.tokens.into_iter().map(BigInt::from).collect();
                assert_eq!(found, tokens);
            }
            (Score::OutOfRange(_), None) => outcome = Outcome::LeftARange,
            (score, tokens) => panic!("{score:?} is not {tokens:?}"),
        }
    }
    outcome
}

/// How many were refused, left a range, or were the same. Panics with the seeds that fail.
fn run(seeds: std::ops::Range<u64>, wild: Wildness, wild_adapter: bool) -> [usize; 3] {
    let mut counts = [0; 3];
    let mut failed = Vec::new();
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| {
            let mut random = Random(seed);
            let model = support::random_model(&mut random, wild);
            let adapter = some_adapter(&mut random, &model.graph, wild_adapter);
            let lengths: Vec<usize> =
                (0..1 + random.below(3)).map(|_| 1 + random.below(model.tokens)).collect();
            let units = random.units(model.graph.vocabulary, &lengths);
            compare(&model, adapter, &units)
        });
        match outcome {
            Ok(outcome) => counts[outcome as usize] += 1,
            Err(_) => failed.push(seed),
        }
    }
    assert!(failed.is_empty(), "seeds {failed:?}");
    counts
}

#[test]
fn random_graphs() {
    let seeds: u64 = std::env::var("SEEDS").map_or(500, |seeds| seeds.parse().unwrap());
    let wild = Wildness { operators: 8, bits: (0, 14), weights: 2 };
    let counts = run(0..seeds, wild, false);
    println!("sane: {counts:?}");
    assert!(counts.iter().all(|count| *count > seeds as usize / 20), "{counts:?}");
}

#[test]
fn random_graphs_with_wild_scales() {
    let seeds: u64 = std::env::var("SEEDS").map_or(500, |seeds| seeds.parse().unwrap());
    let wild = Wildness { operators: 6, bits: (-80, 80), weights: 10 };
    println!("wild: {:?}", run(1 << 32..(1 << 32) + seeds, wild, true));
    let wild = Wildness { operators: 6, bits: (-12, 40), weights: 6 };
    println!("mixed: {:?}", run(1 << 33..(1 << 33) + seeds, wild, true));
}

/// The language models of the fixtures, with and without adapters on all of their layers.
#[test]
fn language_models() {
    for name in support::MODELS {
        let model = support::fixture(name);
        let mut random = Random(11);
        let units = random.units(model.graph.vocabulary, &[1, 5, 7]);
        assert_eq!(compare(&model, vec![], &units), Outcome::Same, "{name}");
        // The second one's results may need more than 128 bits.
        for (bits, scaling, scale_log2) in [(8, 0.5, -26), (18, -0.5, -46), (10, 0.7, -31)] {
            let bias = random.one_in(2).then_some(3);
            let (a_bits, b_bits) = (bits, bits);
            let shape = Shape { a_bits, b_bits, scaling, scale_log2, bias, ..Shape::default() };
            let mut adapter = support::adapter(&mut random, &model.graph, shape);
            let outcome = compare(&model, std::mem::take(&mut adapter.modules), &units);
            assert_eq!(outcome, Outcome::Same, "{name} {bits}");
        }
    }
}

mod alone {
    //! Operators by themselves, at the ends of their ranges.

    use ethnum::{I256, U256};
    use proptest::prelude::*;
    use zklora_integer::{
        fixed,
        graph::{NormKind, Operator, Rotation},
        model::{Calibration, IntegerModel},
        operators::{
            ceiling, in_range, inner, norm_input, norm_root, normaliser, rotary, rounded,
            rounded_wide,
        },
        products::{Scaled, is_computable},
        scales::Scale,
        unit::Normalisation,
    };

    use super::{
        support::{big_u256, reference, transposed, weight},
        *,
    };

    fn wide(x: i128, shift: u32) -> (I256, BigInt) {
        (I256::from(x) << shift, BigInt::from(x) << shift)
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 2000,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn rounding(x in -(1i128 << 126)..1 << 126, down in 0u32..126, shift in 0..300) {
            let x = x >> down;
            prop_assert_eq!(BigInt::from(rounded(x, shift)), reference::rounded(&x.into(), shift));
            let up = shift % (down as i32 + 1);
            prop_assert_eq!(BigInt::from(rounded(x, -up)), reference::rounded(&x.into(), -up));
            // What fits 64 bits is the same there.
            let small = (x >> 64) as i64;
            let real = reference::rounded(&small.into(), shift);
            prop_assert_eq!(BigInt::from(rounded(small, shift)), real);
        }

        #[test]
        fn rounding_wide(x in any::<i128>(), up in 0u32..122, shift in 0..300) {
            let (x, real) = wide(x, up);
            let real = reference::rounded(&real, shift);
            let most = BigInt::from(i128::MAX);
            let real = real.max(BigInt::from(i128::MIN)).min(most);
            prop_assert_eq!(BigInt::from(rounded_wide(x, shift)), real);
        }

        #[test]
        fn ceilings(x in -(1i64 << 62)..1 << 62, down in 0u32..62, shift in 0..100) {
            let x = x >> down;
            let expected = reference::ceiling(&x.into(), shift);
            prop_assert_eq!(BigInt::from(ceiling(x, shift)), expected.clone());
            prop_assert_eq!(BigInt::from(ceiling(i128::from(x), shift)), expected);
            let up = shift % (down as i32 + 1);
            let expected = reference::ceiling(&x.into(), -up);
            prop_assert_eq!(BigInt::from(ceiling(x, -up)), expected.clone());
            prop_assert_eq!(BigInt::from(ceiling(i128::from(x), -up)), expected);
        }

        #[test]
        fn ranges(x in any::<i128>(), down in 0u32..127, bits in 2u32..60) {
            let x = x >> down;
            let end = BigInt::from(1) << (bits - 1);
            let big = BigInt::from(x);
            prop_assert_eq!(in_range(3, x, bits).is_ok(), -&end <= big && big < end);
            if let Err(beyond) = in_range(3, x, bits) {
                prop_assert!(beyond.times >= 1.0 && beyond.place == 3);
            }
        }

        #[test]
        fn norms(
            x in prop::collection::vec((-(1i128 << 120)..1 << 120, 0u32..121), 1..9),
            epsilon in any::<u64>(),
            lift in 0u32..180,
            root in 0u32..110,
            layer in any::<bool>(),
        ) {
            let x: Vec<i128> = x.into_iter().map(|(x, down)| x >> down).collect();
            let kind = if layer { NormKind::Layer } else { NormKind::Rms };
            let y = norm_input(&x, kind);
            let big: Vec<BigInt> = x.iter().map(|x| BigInt::from(*x)).collect();
            let (sum, count) = (big.iter().sum::<BigInt>(), x.len());
            let real: Vec<BigInt> = match kind {
                NormKind::Rms => big,
                NormKind::Layer => big.iter().map(|x| x * count - &sum).collect(),
            };
            let found: Vec<BigInt> = y.iter().map(|y| BigInt::from(*y)).collect();
            prop_assert_eq!(&found, &real);
            let epsilon = (U256::from(epsilon) << lift).max(U256::ONE);
            let expected = reference::norm_root(&real, &big_u256(epsilon), root);
            prop_assert_eq!(norm_root(&y, epsilon, root).map(BigInt::from), expected);
        }

        #[test]
        fn inner_products(
            x in prop::collection::vec((any::<i128>(), 45u32..127), 1..20),
            seed in any::<u64>(),
        ) {
            let mut random = Random(seed);
            let x: Vec<i128> = x.into_iter().map(|(x, down)| x >> down).collect();
            let pairs: Vec<(Vec<i32>, Vec<i32>)> = (0..3)
                .map(|_| (x.iter().map(|_| random.word() as i32).collect(), vec![]))
                .collect();
            let real: Vec<BigInt> = pairs
                .iter()
                .map(|(a, _)| x.iter().zip(a).map(|(x, a)| BigInt::from(*x) * a).sum())
                .collect();
            let big = |all: Vec<i128>| all.into_iter().map(BigInt::from).collect::<Vec<_>>();
            prop_assert_eq!(big(inner(&x, &pairs, false)), real);
            // What fits 64 bits gives the same in both ways.
            let small: Vec<i128> = x.iter().map(|x| x >> 55).collect();
            prop_assert_eq!(inner(&small, &pairs, true), inner(&small, &pairs, false));
        }

        #[test]
        fn rotations(
            x in prop::collection::vec(-(1i128 << 110)..1 << 110, 8),
            turn in any::<[i32; 8]>(),
        ) {
            let pair = |partner, negative| Rotation { partner, frequency: 1.0, negative };
            // A head of two halves, one feature of which is not rotated.
            let rotations =
                [pair(2, true), Rotation::none(1), pair(0, false), Rotation::none(3)];
            let waves: Vec<Option<(i32, i32)>> = (0..4)
                .map(|at| (rotations[at].partner != at).then(|| {
                    (turn[at] >> 17, turn[at + 4] >> 17)
                }))
                .collect();
            let mut out = [0; 8];
            rotary(&x, &rotations, &waves, &mut out);
            let big = |at: usize| BigInt::from(x[at]);
            for at in 0..8 {
                let real = match (at % 4, waves[at % 4]) {
                    (0, Some((cosine, sine))) => big(at) * cosine - big(at + 2) * sine,
                    (2, Some((cosine, sine))) => big(at) * cosine + big(at - 2) * sine,
                    _ => big(at) << 14,
                };
                prop_assert_eq!(BigInt::from(out[at]), real);
            }
        }
    }

    #[test]
    fn norms_at_the_ends() {
        let one = U256::ONE;
        // A row of zeros, and rows whose root is 1, or would be 0.
        assert_eq!(norm_root(&[0, 0], one, 10), Some(1447)); // √2·2^10 = 1448.15
        assert_eq!(norm_root(&[0, 0], one, 0), Some(1));
        assert_eq!(norm_root(&[1, 1], one, 0), None);
        assert_eq!(norm_root(&[0], one, 31), Some((1 << 31) - 1));
        assert_eq!(norm_root(&[0], one, 32), Some((1 << 32) - 1));
        assert_eq!(norm_root(&[0], one, 33), None);
        let huge = [(1i128 << 120) - 1, -(1 << 120)];
        assert!(norm_root(&huge, one, 100).is_none());
        let root = norm_root(&huge, one, 124).unwrap();
        let big: Vec<BigInt> = huge.iter().map(|x| BigInt::from(*x)).collect();
        assert_eq!(Some(root.into()), reference::norm_root(&big, &1.into(), 124));
        // The sum of squares of many numbers just below the limit of the narrow way, and above.
        for y in [(1i128 << 56) - 1, 1 << 56] {
            for count in [(1 << 15) - 1, 1 << 15] {
                let row = vec![y; count];
                let squares = BigInt::from(y).pow(2) * count;
                let root = norm_root(&row, one, 80).unwrap();
                let fits = |r: u64| {
                    BigInt::from(r).pow(2) * (&squares + 1) <= (BigInt::from(count) << 160)
                };
                assert!(root % 2 == 1 && fits(root) && !fits(root + 2));
            }
        }
    }

    /// By counting up from the largest score.
    fn least(scores: &[i64], table: &[u64], limit: u64) -> i64 {
        let fits = |c: i64| {
            let index = |score: &i64| usize::try_from(c - score).unwrap();
            let entries = scores.iter().map(|score| table.get(index(score)).copied().unwrap_or(0));
            entries.map(u128::from).sum::<u128>() <= u128::from(limit)
        };
        (*scores.iter().max().unwrap()..).find(|c| fits(*c)).unwrap()
    }

    fn tables() -> Vec<(Vec<u64>, u64)> {
        let mut tables = Vec::new();
        for unit in [1.0 / 4096.0, 0.7 / 4096.0, 0.2, 2f64.powi(-17)] {
            let rest = (unit * 2f64.powi(17) + 0.5).floor() as u64;
            tables.push((fixed::exponentials(unit, 18, 1 << 16), (1 << 18) + rest));
        }
        for bits in [0, 10] {
            let table = fixed::exponentials(2f64.powi(-bits), 32, 1 << 16);
            tables.push((table, (1 << 32) + (1 << (31 - bits))));
        }
        tables
    }

    #[test]
    fn normalisers() {
        let mut random = Random(7);
        for (table, limit) in tables() {
            let check = |scores: &[i64]| {
                let found = normaliser(scores, &table, limit);
                assert_eq!(found, least(scores, &table, limit), "{scores:?}");
            };
            for score in [-(1 << 60), -5, 0, 5, 1 << 60] {
                check(&[score]);
                assert_eq!(normaliser(&[score], &table, limit), score);
                check(&[score; 2]);
                check(&[score; 77]);
                check(&[score, score - 65_535, score - 65_536, score - (1 << 59)]);
            }
            for _ in 0..40 {
                let spread = 1 << random.below(20);
                let count = 1 + random.below(120);
                let scores: Vec<i64> = (0..count)
                    .map(|_| random.below(spread) as i64 - random.below(spread) as i64)
                    .collect();
                check(&scores);
            }
            // One far above the others; steps of one; a cliff at the end of the table.
            check(&(0..500).map(|at| if at == 0 { 70_000 } else { at }).collect::<Vec<i64>>());
            check(&(0..2000).collect::<Vec<i64>>());
            check(&(0..300).map(|at| at * 65_536).collect::<Vec<i64>>());
            check(&(0..300).map(|at| -(at % 2) * 65_535).collect::<Vec<i64>>());
        }
    }

    /// As many sums as a bisection of the table needs, at most three times.
    #[test]
    fn normalisers_of_long_rows_end_soon() {
        let started = std::time::Instant::now();
        for (table, limit) in tables() {
            let count = 1 << 19;
            let equal = vec![0; count];
            let c = normaliser(&equal, &table, limit);
            let entry = |c: i64| table.get(c as usize).copied().unwrap_or(0);
            assert!(entry(c) * count as u64 <= limit && entry(c - 1) * count as u64 > limit);
            let cliff: Vec<i64> = (0..count as i64).map(|at| -(at % 2) * 65_535).collect();
            normaliser(&cliff, &table, limit);
        }
        assert!(started.elapsed().as_secs() < 30);
    }

    /// Products with 1 to 43 limbs, in both layouts, with gains.
    #[test]
    fn products() {
        let mut random = Random(3);
        let mut limbs = std::collections::BTreeSet::new();
        for case in 0..400 {
            let (inputs, outputs) = (1 + random.below(20), 1 + random.below(200));
            let rows = random.below(5);
            let top = random.between(-10, 40);
            let values = random.floats(inputs * outputs, top.min(24));
            let gain = random.one_in(2).then(|| random.floats(inputs, 3));
            let make = if case % 2 == 0 { weight } else { transposed };
            let weight = make(outputs, inputs, &values);
            let scaled =
                Scaled { weight: &weight, gain: gain.as_deref(), bits: random.between(-4, 24) };
            let matrix = reference::matrix(&weight, scaled.gain, scaled.bits);
            let sum = |row: &Vec<BigInt>| -> BigInt {
                row.iter().map(|w| BigInt::from(w.magnitude().clone())).sum()
            };
            let most = matrix.iter().map(sum).max().unwrap();
            let largest_sum = scaled.largest_sum();
            if !is_computable(largest_sum) {
                assert!(most >= BigInt::from(1u64 << 50));
                continue;
            }
            assert_eq!(BigInt::from(largest_sum), most);
            // Whose sums are below 2^126.
            let room = 126 - (u64::BITS - largest_sum.leading_zeros());
            let bits = 1 + random.below(room as usize) as u32;
            limbs.insert(bits / 8);
            let extreme = random.one_in(3);
            let end = 1i128 << (bits - 1);
            let x: Vec<i128> = (0..rows * inputs)
                .map(|_| match extreme {
                    true => *random.pick(&[end - 1, -end, end / 2, -end / 2, end / 2 - 1]),
                    false => {
                        (i128::from(random.word() as i64) << 64 | i128::from(random.word()))
                            >> (128 - bits)
                    }
                })
                .collect();
            let found: Vec<i128> = scaled.integers(&x, largest_sum);
            assert_eq!(found.len(), rows * outputs);
            if bits + u64::BITS - largest_sum.leading_zeros() <= 62 {
                let small: Vec<i64> = x.iter().map(|x| *x as i64).collect();
                let sums: Vec<i64> = scaled.integers(&small, largest_sum);
                assert!(sums.into_iter().map(i128::from).eq(found.iter().copied()));
            }
            for (at, found) in found.into_iter().enumerate() {
                let (row, output) = (at / outputs, at % outputs);
                let x = &x[row * inputs..][..inputs];
                let real: BigInt = x.iter().zip(&matrix[output]).map(|(x, w)| w * x).sum();
                assert_eq!(BigInt::from(found), real);
            }
        }
        assert!(limbs.len() > 8);
    }

    #[test]
    fn a_matrix_of_zeros() {
        let weight = weight(3, 2, &[0.0; 6]);
        let scaled = Scaled { weight: &weight, gain: None, bits: 14 };
        assert_eq!(scaled.largest_sum(), 0);
        let x = [i128::MAX >> 2, i128::MIN >> 2, 1, -1];
        assert_eq!(scaled.integers::<i128, i128>(&x, 0), [0; 6]);
    }

    /// Sums of floats beyond 2^53 are never taken for computable, even if they were rounded.
    #[test]
    fn what_no_float_holds_is_refused() {
        for bits in [20, 60, 80, 400, 2000] {
            let weight = weight(1, 3, &[3.0e30, -1.5, 2.0e38]);
            let scaled = Scaled { weight: &weight, gain: Some(&[1.0, 1e38, 2.0]), bits };
            assert!(!is_computable(scaled.largest_sum()));
        }
        let edge = weight(1, 2, &[1e15, 1.0]);
        assert!(is_computable(Scaled { weight: &edge, gain: None, bits: 0 }.largest_sum()));
        assert!(!is_computable(Scaled { weight: &edge, gain: None, bits: 2 }.largest_sum()));
    }

    /// A table for each token, then the logits: one feature, so that logits are what we want.
    fn logits(rows: &[[f32; 1]], head: &[f32], bits: i32, score_bits: i32) -> IntegerModel {
        let mut graph = support::least();
        graph.vocabulary = head.len();
        let table: Vec<f32> = rows.iter().flatten().copied().collect();
        graph.weights = vec![weight(rows.len(), 1, &table), weight(head.len(), 1, head)];
        graph.operators[1] = support::linear(0, 1, Some(0));
        graph.layers = vec!["head".into()];
        let scales = vec![
            Scale::Bits { bits },
            Scale::Linear { gain_bits: 0, part_bits: None, weight_bits: 0 },
        ];
        support::model(graph, scales, score_bits, 8)
    }

    /// The largest logit is chosen; the first of equals.
    #[test]
    fn ties() {
        // Logits of token t: t·head.
        let rows = [[1.0], [2.0], [-1.0], [0.0]];
        let model = logits(&rows, &[1.0, 3.0, 3.0, -2.0], 0, 10);
        let program = support::program(&model);
        let generate = |prompt: u32| {
            let unit = Unit::Generate { prompt: vec![prompt], tokens: 1 };
            score(&program, &[unit]).unwrap().0.remove(0)
        };
        assert_eq!(generate(0), Score::Generated(vec![1]));
        assert_eq!(generate(2), Score::Generated(vec![3]));
        assert_eq!(generate(3), Score::Generated(vec![0]));
    }

    /// Logits above any 64-bit score: only differences count.
    #[test]
    fn large_logits_keep_their_differences() {
        let program = |bits, head: &[f32]| {
            support::program(&logits(&[[1.0], [1.5], [0.5], [1.25]], head, bits, 10))
        };
        let score_of = |bits, head: &[f32]| {
            let sequence = Sequence { tokens: vec![0, 1, 2, 3], from: 1 };
            score(&program(bits, head), &[Unit::LogProbability(sequence)]).unwrap().0.remove(0)
        };
        // 2^70 and 2^70 + 2^47 of 2^60 units each, which is far beyond the table.
        let far = [(1u64 << 50) as f32, (1u64 << 50) as f32 + (1u64 << 27) as f32, 1e15, 1e15];
        assert!(matches!(score_of(20, &far), Score::OutOfRange(_)));
        // All equal: the logarithm of 4 in units of 2^-10.
        let equal = [(1u64 << 48) as f32; 4];
        let Score::LogProbability(found) = score_of(10, &equal) else { panic!() };
        assert_eq!(found.tokens, [-1420; 3]); // 1024·ln 4 = 1419.57
        // Equal but for a bias.
        let mut model = logits(&[[2f32.powi(22)]; 4], &[2f32.powi(40); 4], 10, 10);
        let mut graph = Graph::clone(&model.graph);
        if let Operator::Linear { bias, .. } = &mut graph.operators[1] {
            *bias = Some(vec![0.0, 1.0, 2.0, -1.0]);
        }
        model.scaled.graph = graph.into();
        let sequence = Sequence { tokens: vec![0, 1, 2, 3], from: 1 };
        let scores = score(&support::program(&model), &[Unit::LogProbability(sequence)]);
        let Score::LogProbability(found) = scores.unwrap().0.remove(0) else { panic!() };
        let row: Vec<BigInt> =
            [0, 1, 2, -1].map(|bias| (BigInt::from(1) << 72) + (bias << 10)).into();
        for (token, found) in (1..4).zip(found.tokens) {
            let real = reference::log_probability(&row, 10, 10, token).unwrap();
            assert_eq!(BigInt::from(found), real);
        }
    }

    fn choice(lengths: Vec<usize>, choices: Vec<Vec<u32>>, normalisation: Normalisation) -> Unit {
        let choices = choices.into_iter().map(|tokens| Sequence { tokens, from: 1 }).collect();
        Unit::Choice { choices, lengths, normalisation, answer: Some(1) }
    }

    /// Choices by sums, by tokens and by bytes: the quotients are compared exactly.
    #[test]
    fn choices() {
        let model = logits(&[[1.0], [-1.0], [2.0]], &[1.0, 0.0, -1.0], 0, 10);
        let program = support::program(&model);
        let mut random = Random(5);
        for _ in 0..200 {
            let count = 1 + random.below(5);
            let lengths: Vec<usize> = (0..count).map(|_| random.below(7)).collect();
            let tokens: Vec<usize> = (0..count).map(|_| 2 + random.below(4)).collect();
            let sequences = random.units(3, &tokens);
            for normalisation in [Normalisation::None, Normalisation::Tokens, Normalisation::Bytes]
            {
                let unit = choice(lengths.clone(), sequences.clone(), normalisation);
                let Score::Choice { choices, chosen, correct } =
                    score(&program, &[unit]).unwrap().0.remove(0)
                else {
                    panic!()
                };
                let divisor = |at: usize| match normalisation {
                    Normalisation::None => 1,
                    Normalisation::Tokens => tokens[at] - 1,
                    Normalisation::Bytes => lengths[at].max(1),
                };
                // The first whose quotient is at least all others.
                let product =
                    |a: usize, b: usize| BigInt::from(choices[a].sum()) * BigInt::from(divisor(b));
                let best = (0..count)
                    .find(|a| (0..count).all(|b| product(*a, b) >= product(b, *a)))
                    .unwrap();
                assert_eq!((chosen, correct), (best, Some(best == 1)));
            }
        }
        // Equal sequences, and equal quotients of different sums: the first.
        let equal = choice(vec![1, 1], vec![vec![0, 1]; 2], Normalisation::None);
        let Score::Choice { chosen, .. } = score(&program, &[equal]).unwrap().0.remove(0) else {
            panic!()
        };
        assert_eq!(chosen, 0);
        let even = vec![vec![0, 0, 0], vec![0, 0]];
        let equal = choice(vec![2, 1], even.clone(), Normalisation::Tokens);
        let Score::Choice { chosen, choices, .. } = score(&program, &[equal]).unwrap().0.remove(0)
        else {
            panic!()
        };
        assert_eq!((chosen, choices[0].sum()), (0, 2 * choices[1].sum()));
    }

    /// A norm's scales are measured whatever it reads: a sum, or a layer's result.
    #[test]
    fn norms_of_anything() {
        for size in [1e-3, 1.0, 1000.0] {
            let mut random = Random(9);
            let mut values = |count: usize| -> Vec<f32> {
                (0..count).map(|_| random.between(-1000, 1000) as f32 / 1000.0).collect()
            };
            let mut graph = support::least();
            graph.weights = vec![weight(2, 8, &values(16)), weight(8, 8, &values(64))];
            let large: Vec<f32> = values(64).into_iter().map(|x| x * size).collect();
            graph.weights.push(weight(8, 8, &large));
            graph.weights.push(weight(2, 8, &values(16)));
            for kind in [NormKind::Rms, NormKind::Layer] {
                graph.operators = vec![
                    Operator::Embedding { table: 0 },
                    support::linear(0, 1, None),
                    support::linear(1, 2, None),
                    Operator::Norm { x: 2, kind, epsilon: 1e-12 },
                    support::linear(3, 3, None),
                ];
                graph.logits = 4;
                let model = IntegerModel::of_graph(&graph, Calibration::Tokens).unwrap();
                let program = support::program(&model);
                let unit = f64::from(-program.steps[3].size.bits).exp2();
                evaluate(&program, &[&[0, 1]], &mut |seen| {
                    if seen.operator == 3 {
                        for row in seen.result.values().chunks(8) {
                            let square = |x: &i128| (*x as f64 * unit).powi(2);
                            let mean = row.iter().map(square).sum::<f64>() / 8.0;
                            assert!((mean - 1.0).abs() < 1e-3, "{size} {kind:?}: {mean}");
                        }
                    }
                })
                .unwrap();
            }
        }
    }

    /// An activation whose inputs are all tiny, or all huge, reads the table of its own scale.
    #[test]
    fn activations_of_tiny_and_of_huge_inputs() {
        use zklora_integer::graph::Function;
        for size in [2f32.powi(-40), 2f32.powi(-14), 1.0, 2f32.powi(18), 2f32.powi(30)] {
            let mut graph = support::least();
            graph.operators = vec![
                Operator::Embedding { table: 0 },
                Operator::Activation { x: 0, function: Function::Relu },
                support::linear(1, 0, None),
            ];
            graph.logits = 2;
            graph.weights = vec![weight(2, 1, &[size, size / 2.0])];
            let Ok(model) = IntegerModel::of_graph(&graph, Calibration::Tokens) else { continue };
            let program = support::program(&model);
            let mut largest = vec![];
            let evaluation = evaluate(&program, &[&[0, 1]], &mut |seen| {
                if matches!(model.graph.operators[seen.operator], Operator::Activation { .. }) {
                    largest.push(seen.result.values()[0] as f64);
                }
            })
            .unwrap();
            // No table is that coarse.
            if size > 2f32.powi(22) {
                assert!(evaluation.failures[0].is_some());
                continue;
            }
            let unit = f64::from(-program.steps[2].size.bits).exp2();
            // What 16 bits for inputs up to 2^22 or down to 2^-20 can tell apart.
            let (found, real) = (largest[0] * unit, f64::from(size));
            assert!((found - real).abs() <= real * 1e-3 + 2f64.powi(-20), "{found} {real}");
        }
    }
}
