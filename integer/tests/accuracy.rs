//! Integer models of four architectures agree with what torch computes, to rounding.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::path::PathBuf;

use safetensors::SafeTensors;
use zklora_integer::{
    adapter::Adapter,
    model::{Calibration, IntegerModel},
    score::{Score, score},
    unit::{Sequence, Unit},
};

fn base(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures/base").join(name)
}

/// Token ids, and torch's log-probability of each token after the first.
fn torch(name: &str) -> (Vec<u32>, Vec<f64>) {
    let bytes = std::fs::read(base(name).join("logits.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let ids: Vec<u32> = file
        .tensor("input_ids")
        .unwrap()
        .data()
        .chunks(8)
        .map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap()) as u32)
        .collect();
    let logits: Vec<f64> = file
        .tensor("logits")
        .unwrap()
        .data()
        .chunks(4)
        .map(|bytes| f64::from(f32::from_le_bytes(bytes.try_into().unwrap())))
        .collect();
    let rows = logits.chunks(logits.len() / ids.len());
    let log_probability = |(row, id): (&[f64], &u32)| {
        let sum: f64 = row.iter().map(|logit| logit.exp()).sum();
        row[*id as usize] - sum.ln()
    };
    let found = rows.zip(&ids[1..]).map(log_probability).collect();
    (ids, found)
}

/// GPT-2 has LayerNorm, biases, GELU and a table of positions; Qwen2 biases on queries, keys and
/// values; Mistral key heads that query heads share, and heads of another width than the model's
/// share.
#[test]
fn integers_agree_with_torch() {
    for name in ["tiny-llama", "tiny-gpt2", "tiny-qwen2", "tiny-mistral"] {
        let (ids, expected) = torch(name);
        let path = base(name).join("legacy.onnx");
        let model = IntegerModel::compile(&path, Calibration::Tokens).unwrap();
        let program = model.program(Adapter::default()).unwrap();
        let unit = Unit::LogProbability(Sequence { tokens: ids, from: 1 });
        let (scores, _) = score(&program, &[unit]).unwrap();
        let Score::LogProbability(found) = &scores[0] else { unreachable!("{:?}", scores[0]) };
        let step = (-f64::from(model.score_bits)).exp2();
        let differences: Vec<f64> = found
            .tokens
            .iter()
            .zip(&expected)
            .map(|(found, expected)| (*found as f64 * step - expected).abs())
            .collect();
        let mean = differences.iter().sum::<f64>() / differences.len() as f64;
        let largest = differences.iter().copied().fold(0.0, f64::max);
        println!("{name}: mean {mean:.5}, largest {largest:.5}");
        assert_eq!(differences.len(), expected.len());
        assert!(mean < 0.002 && largest < 0.008, "{name}: {mean} {largest}");
    }
}
