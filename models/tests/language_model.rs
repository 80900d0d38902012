//! Language models run as torch runs them, and their growing sequences stay the same.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::SafeTensors;
use zklora_models::AppliesTo;
use zklora_models::language_model::{Activations, Identity, InjectionCall, InjectionPoint, Injector, LanguageModel};

const MODELS: [&str; 6] = [
    "tiny-gpt2/legacy",
    "tiny-gpt2/dynamo",
    "tiny-llama/legacy",
    "tiny-llama/dynamo",
    "tiny-qwen2/legacy",
    "tiny-qwen2/dynamo",
];

fn base(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/base").join(file)
}

fn torch(model: &str) -> (Vec<u32>, Vec<f32>) {
    let bytes = std::fs::read(base(model).parent().unwrap().join("logits.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let ids = file
        .tensor("input_ids")
        .unwrap()
        .data()
        .chunks(8)
        .map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32)
        .collect();
    let logits =
        file.tensor("logits").unwrap().data().chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    (ids, logits)
}

#[test]
fn logits_are_those_of_torch() {
    for model in MODELS {
        let loaded = LanguageModel::load(&base(&format!("{model}.onnx")), &[], Arc::new(Identity)).unwrap();
        let (ids, expected) = torch(model);
        let logits = loaded.logits(&ids).unwrap();
        let worst = logits.values.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("{model} {worst} {:?}", loaded.max_tokens());
        assert_eq!(logits.values.len(), expected.len());
        assert!(worst < 1e-4, "{model}: {worst}");
    }
}

/// What the injector saw, by point: x and base of the rows.
#[derive(Default)]
struct Recorder(std::sync::Mutex<Vec<(usize, Vec<f32>)>>);

impl Injector for Recorder {
    fn inject(&self, call: &InjectionCall<'_>) -> Result<Vec<Vec<f32>>, Box<dyn std::error::Error + Send + Sync>> {
        let mut seen = self.0.lock().unwrap();
        if let Activations::Dense { values, dim } = call.x {
            assert_eq!(values.len(), dim * call.rows);
            seen.push((dim, values.to_vec()));
        }
        for base in &call.base {
            seen.push((base.len() / call.rows, base.to_vec()));
        }
        Identity.inject(call)
    }
}

fn points(model: &str) -> Vec<InjectionPoint> {
    let point = |module: String, x_dim, base_dim| InjectionPoint { module, applies_to: AppliesTo::Output, x_dim: Some(x_dim), base_dim, tensor: None };
    let (hidden, kv, inner) = match &model[..7] { "tiny-gp" => (64, 0, 256), "tiny-ll" => (64, 32, 128), "tiny-qw" => (32, 16, 48), _ => (576, 192, 1536) };
    if hidden == 64 && kv == 0 {
        let l = |n| [point(format!("transformer.h.{n}.attn.c_attn"), 64, 192), point(format!("transformer.h.{n}.attn.c_proj"), 64, 64), point(format!("transformer.h.{n}.mlp.c_fc"), 64, 256), point(format!("transformer.h.{n}.mlp.c_proj"), 256, 64)];
        return (0..2).flat_map(l).collect();
    }
    let layers = if hidden == 576 { 30 } else { 2 };
    let l = |n| [
        point(format!("model.layers.{n}.self_attn.q_proj"), hidden, hidden), point(format!("model.layers.{n}.self_attn.k_proj"), hidden, kv), point(format!("model.layers.{n}.self_attn.v_proj"), hidden, kv),
        point(format!("model.layers.{n}.self_attn.o_proj"), hidden, hidden), point(format!("model.layers.{n}.mlp.gate_proj"), hidden, inner),
        point(format!("model.layers.{n}.mlp.up_proj"), hidden, inner), point(format!("model.layers.{n}.mlp.down_proj"), inner, hidden)];
    (0..layers).flat_map(l).collect()
}

#[test]
fn stability() {
    let big = std::env::var("BIG").ok();
    let models: Vec<&str> = match &big { Some(m) => vec![m], None => MODELS.to_vec() };
    for model in models {
        let recorder = Arc::new(Recorder::default());
        let t = std::time::Instant::now();
        let loaded = LanguageModel::load(&base(&format!("{model}.onnx")), &points(model), recorder.clone()).unwrap();
        println!("load {:?}", t.elapsed());
        let ids: Vec<u32> = (0..700u32).map(|i| (i * i * 7 + 3 * i + 1) % 96).collect();
        let lens: Vec<usize> = match std::env::var("LENS") { Ok(l) => l.split(',').map(|x| x.parse().unwrap()).collect(), _ => (1..=128).collect() };
        let full = *lens.last().unwrap();
        let run = |n: usize| { recorder.0.lock().unwrap().clear(); let logits = loaded.logits(&ids[..n]).unwrap(); (logits, std::mem::take(&mut *recorder.0.lock().unwrap())) };
        let (flogits, fseen) = run(full);
        let mut bad = vec![];
        for &n in &lens {
            let t = std::time::Instant::now();
            let (logits, seen) = run(n);
            if big.is_some() { println!("{n} {:?}", t.elapsed()); }
            assert_eq!(seen.len(), fseen.len());
            let differs = seen.iter().zip(&fseen).filter(|((d, a), (_, b))| a.iter().zip(&b[..d * n]).any(|(a, b)| a.to_bits() != b.to_bits())).count();
            let l = logits.values.iter().zip(&flogits.values).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
            if differs + l > 0 { bad.push((n, differs, l)); }
        }
        println!("{model}: {} bad of {}: {:?}", bad.len(), lens.len(), &bad[..bad.len().min(40)]);
    }
}
