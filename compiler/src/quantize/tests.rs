//! Tests of quantisation: the bound holds, nothing overflows, deltas are close, and results are
//! reproducible.
#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::prelude::*;
use zklora_artifacts::row_quantizer::quantize_inputs;

use super::*;
use crate::{
    linear_map::{InputSpec, LinearMap, Term},
    matrix::Matrix,
};

/// A random generator with the same sequence on every machine (xorshift64*).
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Nearly Gaussian: the sum of twelve uniform numbers (Irwin-Hall).
    fn gaussian(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }

    fn vector(&mut self, len: usize, size: f64) -> Vec<f64> {
        (0..len).map(|_| self.gaussian() * size).collect()
    }
}

fn low_rank(random: &mut Random, d_in: usize, r: usize, d_out: usize) -> Term {
    Term::LowRank {
        input: 0,
        a: Matrix::new(d_in, r, random.vector(d_in * r, 0.05)).unwrap(),
        b: Matrix::new(r, d_out, random.vector(r * d_out, 0.02)).unwrap(),
    }
}

fn map(d_in: usize, d_out: usize, terms: Vec<Term>) -> LinearMap {
    let uses_second = terms.iter().any(|term| matches!(term, Term::ElementScale { .. }));
    let mut inputs = vec![InputSpec { name: "x".into(), dim: d_in }];
    if uses_second {
        inputs.push(InputSpec { name: "y".into(), dim: d_out });
    }
    LinearMap { name: "m".into(), inputs, d_out, scale: 2.0, terms }
}

/// Relative root-mean-square error of the quantised module against the real map, on Gaussian rows.
fn measured_error(map: &LinearMap, quantized: &Quantized, rows: usize, random: &mut Random) -> f64 {
    let has_bias = quantized.terms.iter().any(|term| matches!(term, QuantizedTerm::Bias { .. }));
    let x: Vec<Vec<f32>> = map
        .inputs
        .iter()
        .map(|input| (0..rows * input.dim).map(|_| random.gaussian() as f32).collect())
        .collect();
    let real: Vec<Vec<f64>> =
        x.iter().map(|x| x.iter().map(|value| f64::from(*value)).collect()).collect();
    let expected = map.apply(&real.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
    let with_dims: Vec<(&[f32], usize)> =
        x.iter().zip(&map.inputs).map(|(x, input)| (&x[..], input.dim)).collect();
    let integers = quantize_inputs(&with_dims, quantized.x_bits, has_bias).unwrap();
    let slices: Vec<&[i32]> = integers.inputs.iter().map(Vec::as_slice).collect();
    let delta = quantized.delta(&slices, integers.ones.as_deref()).unwrap();
    let found = quantized.dequantize(&delta, &integers.scales).unwrap();
    let noise: f64 = found.iter().zip(&expected).map(|(f, e)| (f - e) * (f - e)).sum();
    let signal: f64 = expected.iter().map(|e| e * e).sum();
    (noise / signal).sqrt()
}

#[test]
fn quantised_deltas_are_close_to_real_ones() {
    let mut random = Random(1);
    let terms = vec![low_rank(&mut random, 576, 4, 576)];
    let map = map(576, 576, terms);
    let quantized = quantize(&map, Some(2.0), None).unwrap();
    let error = measured_error(&map, &quantized, 8, &mut random);
    let Quantized { x_bits, a_bits, b_bits, delta_bits, .. } = quantized;
    eprintln!(
        "576x4x576: error {error:.2e} with bits x {x_bits}, A {a_bits}, B {b_bits}, delta {delta_bits}"
    );
    assert!(error < 1e-4, "{error}");
    assert_eq!(quantized.scaling, 2.0);
}

#[test]
fn biases_and_element_scales_are_as_close() {
    let mut random = Random(2);
    let low_rank = low_rank(&mut random, 64, 4, 48);
    let (b, g) = (random.vector(48, 0.3), random.vector(48, 1.0));
    let map = map(64, 48, vec![low_rank, Term::Bias { b }, Term::ElementScale { input: 1, g }]);
    for scaling in [None, Some(2.0), Some(0.7)] {
        let quantized = quantize(&map, scaling, None).unwrap();
        let error = measured_error(&map, &quantized, 8, &mut random);
        assert!(error < 1e-4, "{scaling:?}: {error}");
        assert_eq!(quantized.scaling, scaling.unwrap_or(1.0));
    }
}

#[test]
fn a_bias_alone_is_a_module() {
    let map = LinearMap {
        name: "m".into(),
        inputs: vec![],
        d_out: 3,
        scale: 1.0,
        terms: vec![Term::Bias { b: vec![0.5, -0.25, 1.0] }],
    };
    let quantized = quantize(&map, None, None).unwrap();
    let delta = quantized.delta(&[], Some(&[1000, 1])).unwrap();
    let real = quantized.dequantize(&delta, &[0.001, 1.0]).unwrap();
    for (found, expected) in real.iter().zip([0.5, -0.25, 1.0, 0.5, -0.25, 1.0]) {
        assert!((found - expected).abs() < 1e-4);
    }
}

#[test]
fn an_all_zero_adapter_is_legal() {
    let a = Matrix::new(3, 2, vec![0.5, 0.0, 0.25, 0.0, 1.0, 0.0]).unwrap();
    // 2^(x_bits − 1) · 2^(a_bits − 1) · 3 for the inner products, or nothing at all.
    for (a, is_bounded_by_inner) in [(a, true), (Matrix::zeros(3, 2).unwrap(), false)] {
        let b = Matrix::zeros(2, 4).unwrap();
        let quantized =
            quantize(&map(3, 4, vec![Term::LowRank { input: 0, a, b }]), Some(2.0), None).unwrap();
        assert_eq!(quantized.delta(&[&[5, 6, 7]], None).unwrap(), [0; 4]);
        assert_eq!(quantized.delta_bits > 1, is_bounded_by_inner, "{}", quantized.delta_bits);
    }
}

#[test]
fn the_smallest_module_works() {
    let term = |a, b| Term::LowRank {
        input: 0,
        a: Matrix::new(1, 1, vec![a]).unwrap(),
        b: Matrix::new(1, 1, vec![b]).unwrap(),
    };
    let quantized = quantize(&map(1, 1, vec![term(-3.0, 0.1)]), None, None).unwrap();
    let delta = quantized.delta(&[&[1000]], None).unwrap();
    let real = quantized.dequantize(&delta, &[0.001]).unwrap();
    assert!((real[0] + 0.6).abs() < 1e-4, "{real:?}");
}

#[test]
fn forced_bits_are_kept_or_refused() {
    let mut random = Random(3);
    let map = map(64, 32, vec![low_rank(&mut random, 64, 4, 32)]);
    let quantized = quantize(&map, None, Some(Bits { x: 20, a: 10, b: 9 })).unwrap();
    assert_eq!((quantized.x_bits, quantized.a_bits, quantized.b_bits), (20, 10, 9));
    let largest =
        |vectors: &[Vec<i32>]| vectors.iter().flatten().map(|value| value.abs()).max().unwrap();
    let QuantizedTerm::LowRank { a, b, .. } = &quantized.terms[0] else { panic!("not low-rank") };
    assert_eq!(largest(a), 511);
    assert!((128..=255).contains(&largest(b)));
    assert!(matches!(
        quantize(&map, None, Some(Bits { x: 24, a: 24, b: 24 })),
        Err(QuantizeError::Bound { .. })
    ));
    let too_wide = quantize(&map, None, Some(Bits { x: 33, a: 8, b: 8 }));
    assert!(matches!(too_wide, Err(QuantizeError::BitRange { which: "x", .. })));
}

#[test]
fn weights_out_of_range_are_refused_with_their_term() {
    let with = |value: f64| {
        let (a, b) =
            (Matrix::new(1, 1, vec![value]).unwrap(), Matrix::new(1, 1, vec![1.0]).unwrap());
        quantize(&map(1, 1, vec![Term::LowRank { input: 0, a, b }]), None, None)
    };
    for value in [f64::NAN, f64::INFINITY, 1e300, 1e-310] {
        assert!(matches!(with(value), Err(QuantizeError::Weights { term: 0, .. })), "{value}");
    }
    // The smallest subnormal f32 is still a weight.
    assert!(with(1e-45).is_ok());
    let mut zero = map(1, 1, vec![Term::Bias { b: vec![1.0] }]);
    zero.scale = 0.0;
    assert!(quantize(&zero, None, None).is_ok());
    assert!(matches!(quantize(&zero, Some(0.0), None), Err(QuantizeError::Scaling { .. })));
}

#[test]
fn activations_out_of_range_and_missing_ones_are_refused() {
    let map = map(1, 1, vec![low_rank(&mut Random(4), 1, 1, 1), Term::Bias { b: vec![1.0] }]);
    let quantized = quantize(&map, None, Some(Bits { x: 20, a: 8, b: 8 })).unwrap();
    assert!(quantized.delta(&[&[(1 << 19) - 1]], Some(&[1])).is_ok());
    let refused = |x: i32, ones: Option<&[i32]>| quantized.delta(&[&[x]], ones).unwrap_err();
    assert!(matches!(refused(1 << 19, Some(&[1])), QuantizeError::OutOfRange { input: 0, .. }));
    assert!(matches!(refused(i32::MIN, Some(&[1])), QuantizeError::OutOfRange { input: 0, .. }));
    assert!(matches!(refused(1, Some(&[1 << 19])), QuantizeError::OutOfRange { input: 1, .. }));
    assert!(matches!(refused(1, None), QuantizeError::Inputs { .. }));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// For every output: the largest activations allowed, with the signs that make all products
    /// positive.
    #[test]
    fn extreme_activations_stay_within_the_certified_bound(
        seed in 1u64.., d_in in 1usize..40, r in 1usize..5, d_out in 1usize..20, extra in 0usize..4,
        forced in proptest::option::of((2u32..=24, 2u32..=18, 2u32..=18)),
    ) {
        let mut random = Random(seed);
        let mut terms = vec![low_rank(&mut random, d_in, r, d_out)];
        if extra & 1 == 1 {
            terms.push(Term::Bias { b: random.vector(d_out, 3.0) });
        }
        if extra & 2 == 2 {
            terms.push(Term::ElementScale { input: 1, g: random.vector(d_out, 3.0) });
        }
        let map = map(d_in, d_out, terms);
        let bits = forced.map(|(x, a, b)| Bits { x, a, b });
        let quantized = match quantize(&map, None, bits) {
            // Forced widths may be too wide for the terms, and are then refused.
            Err(QuantizeError::Bound { .. }) if bits.is_some() => return Ok(()),
            decided => decided.unwrap(),
        };
        prop_assert_eq!(&quantized, &quantize(&map, None, bits).unwrap());
        let extreme = (1i32 << (quantized.x_bits - 1)) - 1;
        let limit = 1i128 << quantized.delta_bits;
        let sign = |value: i128| if value < 0 { -extreme } else { extreme };
        for k in 0..d_out {
            let QuantizedTerm::LowRank { a, b, .. } = &quantized.terms[0] else { panic!("not low-rank") };
            let x: Vec<i32> = (0..d_in)
                .map(|i| sign(a.iter().zip(b).map(|(a, b)| i128::from(a[i]) * i128::from(b[k])).sum()))
                .collect();
            let (mut one, mut y) = (extreme, vec![0; d_out]);
            for term in &quantized.terms {
                match term {
                    QuantizedTerm::Bias { b, .. } => one = sign(i128::from(b[k])),
                    QuantizedTerm::ElementScale { g, .. } => y[k] = sign(i128::from(g[k])),
                    QuantizedTerm::LowRank { .. } => {}
                }
            }
            let inputs: Vec<&[i32]> = [&x[..], &y[..]].into_iter().take(map.inputs.len()).collect();
            // Overflow would panic: this crate is built with overflow checks.
            let delta = quantized.delta(&inputs, Some(&[one])).unwrap();
            prop_assert!(i128::from(delta[k]) >= 0 && i128::from(delta[k]) < limit);
            for value in delta {
                prop_assert!(i128::from(value).abs() < limit);
            }
        }
    }
}
