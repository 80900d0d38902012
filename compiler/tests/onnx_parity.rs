//! Checks every folder of fixtures/onnx, an ONNX module with the output of onnxruntime, and every
//! folder of fixtures/onnx-refused, a module that must be refused with the words in `expect.txt`.
//! Adding a case needs no code.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use zklora_artifacts::row_quantizer::quantize_inputs;
use zklora_compiler::{IngestError, Ingested, QuantizedTerm, Term, ingest, ingest_file, quantize};

mod npy;
use npy::read_npy;

/// Tolerance relative to the largest output; a case in half precision has its own in
/// `tolerance.txt`.
const TOLERANCE: f64 = 1e-4;

fn cases(folder: &str) -> Vec<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(folder);
    let mut cases: Vec<_> = fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    cases.sort();
    assert!(!cases.is_empty());
    cases
}

/// The rows of each input.
fn inputs_of(ingested: &Ingested, case: &Path) -> Vec<Vec<f64>> {
    let tensors: Vec<Vec<f64>> = match &ingested.map.inputs[..] {
        [_] => vec![read_npy(&case.join("input.npy"))],
        several => several
            .iter()
            .map(|input| read_npy(&case.join(format!("input.{}.npy", input.name))))
            .collect(),
    };
    let layouts = ingested.inputs.iter().zip(&ingested.map.inputs);
    tensors
        .iter()
        .zip(layouts)
        .map(|(tensor, (layout, spec))| layout.rows_of(tensor, spec.dim))
        .collect()
}

fn largest_error(ingested: &Ingested, case: &Path) -> Result<f64, String> {
    let inputs = inputs_of(ingested, case);
    let inputs: Vec<&[f64]> = inputs.iter().map(Vec::as_slice).collect();
    let found = ingested.map.apply(&inputs).map_err(|error| error.to_string())?;
    let found = ingested.output.tensor_of(&found, ingested.map.d_out);
    let expected = read_npy(&case.join("output.npy"));
    if found.len() != expected.len() {
        return Err(format!("{} outputs instead of {}", found.len(), expected.len()));
    }
    let largest = expected.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
    let error = found
        .iter()
        .zip(&expected)
        .fold(0.0f64, |error, (found, expected)| error.max((found - expected).abs()));
    Ok(error / largest)
}

#[test]
fn every_case_agrees_with_onnxruntime() {
    let mut failures = vec![];
    for case in cases("onnx") {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let tolerance = fs::read_to_string(case.join("tolerance.txt"))
            .map_or(TOLERANCE, |text| text.trim().parse().unwrap());
        let verdict = match ingest_file(&case.join("model.onnx")) {
            Err(error) => Err(error.to_string()),
            Ok(ingested) => largest_error(&ingested, &case).map(|error| (error, ingested.map)),
        };
        match verdict {
            Ok((error, map)) if error <= tolerance => {
                let terms: Vec<String> = map
                    .terms
                    .iter()
                    .map(|term| match term {
                        Term::LowRank { a, b, .. } => format!("{}x{}x{}", a.rows, a.cols, b.cols),
                        Term::Bias { b } => format!("bias {}", b.len()),
                        Term::ElementScale { g, .. } => format!("scale {}", g.len()),
                    })
                    .collect();
                eprintln!("ok {name}: error {error:.1e}, scale {}, terms {terms:?}", map.scale);
            }
            Ok((error, _)) => {
                failures.push(format!("{name}: off by {error:.3e} of the largest output"))
            }
            Err(error) => failures.push(format!("{name}: {error}")),
        }
    }
    assert!(failures.is_empty(), "{} case(s) failed:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn every_case_quantises_to_one_part_in_ten_thousand() {
    for case in cases("onnx") {
        let ingested = ingest_file(&case.join("model.onnx")).unwrap();
        let map = &ingested.map;
        let quantized = quantize(map, None, None).unwrap();
        let x: Vec<Vec<f64>> = inputs_of(&ingested, &case);
        let expected = map.apply(&x.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
        let x: Vec<Vec<f32>> =
            x.iter().map(|x| x.iter().map(|value| *value as f32).collect()).collect();
        let with_dims: Vec<_> =
            x.iter().zip(&map.inputs).map(|(x, input)| (&x[..], input.dim)).collect();
        let has_bias =
            quantized.terms.iter().any(|term| matches!(term, QuantizedTerm::Bias { .. }));
        let rows = quantize_inputs(&with_dims, quantized.x_bits, has_bias).unwrap();
        let slices: Vec<_> = rows.inputs.iter().map(Vec::as_slice).collect();
        let delta = quantized.delta(&slices, rows.ones.as_deref()).unwrap();
        let found = quantized.dequantize(&delta, &rows.scales).unwrap();
        let square =
            |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
        let noise =
            square(&mut found.iter().zip(&expected).map(|(found, expected)| found - expected));
        let error = (noise / square(&mut expected.iter().copied())).sqrt();
        eprintln!(
            "{}: {error:.1e} with x {}, A {}, B {}, delta {} bits",
            case.file_name().unwrap().to_string_lossy(),
            quantized.x_bits,
            quantized.a_bits,
            quantized.b_bits,
            quantized.delta_bits
        );
        assert!(error < 1e-4, "{}: {error}", case.display());
    }
}

#[test]
fn every_nonlinear_case_is_refused_with_its_node() {
    for case in cases("onnx-refused") {
        let error = ingest_file(&case.join("model.onnx")).unwrap_err().to_string();
        for expected in fs::read_to_string(case.join("expect.txt"))
            .unwrap()
            .lines()
            .filter(|line| !line.is_empty())
        {
            assert!(
                error.contains(expected),
                "{}: `{error}` does not contain `{expected}`",
                case.display()
            );
        }
    }
}

#[test]
fn a_weight_that_is_not_a_number_is_refused_with_its_tensor() {
    let root =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures/onnx/peft_delta_3d_op17");
    let mut bytes = fs::read(root.join("model.onnx")).unwrap();
    // Eight bytes of ones in the middle of the weights cover at least one f32, which becomes NaN.
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8].fill(0xff);
    let error = ingest(&bytes, "poisoned").unwrap_err();
    assert!(
        matches!(&error, IngestError::NonFinite { tensor, .. } if tensor.starts_with("onnx::MatMul")),
        "{error}"
    );
}

#[test]
fn damaged_files_never_panic() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for case in [
        "peft_delta_3d_op17",
        "einsum_two_op12",
        "bf16_all_dynamo",
        "flat1d_64x4x192_op11",
        "qkv_concat3_op17",
    ] {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures/onnx");
        let bytes = fs::read(root.join(case).join("model.onnx")).unwrap();
        for _ in 0..40 {
            let _ = ingest(&bytes[..random(bytes.len())], "truncated");
            let mut flipped = bytes.clone();
            // The structure is at both ends of the file, the weights in between.
            for _ in 0..1 + random(3) {
                let span = flipped.len().min(400);
                let at =
                    if random(2) == 0 { random(span) } else { flipped.len() - 1 - random(span) };
                flipped[at] ^= 1 << random(8);
            }
            let _ = ingest(&flipped, "flipped");
        }
    }
    assert!(ingest(&[], "empty").is_err());
}
