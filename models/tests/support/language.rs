//! Shared by the tests of language models: the small models, the logits of torch and peft, and
//! injectors.
#![allow(dead_code)]

use std::{
    error::Error,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use safetensors::SafeTensors;
use zklora_models::{
    Adapter, AppliesTo,
    language_model::{
        Activations, Identity, InjectionCall, InjectionPoint, Injector, LanguageModel,
    },
};

/// Every small model, from each exporter of torch.
pub const MODELS: [&str; 6] = [
    "tiny-gpt2/legacy",
    "tiny-gpt2/dynamo",
    "tiny-llama/legacy",
    "tiny-llama/dynamo",
    "tiny-qwen2/legacy",
    "tiny-qwen2/dynamo",
];

/// A file of the base models.
pub fn base(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/base").join(file)
}

/// A model without injections.
pub fn plain(model: &str) -> LanguageModel {
    LanguageModel::load(&base(&format!("{model}.onnx")), &[], Arc::new(Identity)).unwrap()
}

/// `input_ids` and `logits` of a safetensors file.
pub fn recorded(path: &Path) -> (Vec<u32>, Vec<f32>) {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let ids = file.tensor("input_ids").unwrap();
    let ids =
        ids.data().chunks(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32).collect();
    let logits = file.tensor("logits").unwrap();
    let logits =
        logits.data().chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    (ids, logits)
}

/// The largest difference.
pub fn worst(left: &[f32], right: &[f32]) -> f32 {
    assert_eq!(left.len(), right.len());
    left.iter().zip(right).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// A point at the output of a layer.
pub fn point(module: &str, x_dim: usize, base_dim: usize) -> InjectionPoint {
    InjectionPoint {
        module: module.into(),
        applies_to: AppliesTo::Output,
        x_dim: Some(x_dim),
        base_dim,
        tensor: None,
    }
}

/// All linear layers of a small model's transformer blocks.
pub fn all_linear(model: &str) -> Vec<InjectionPoint> {
    let gpt2 = |n: usize| {
        let name = |module| format!("transformer.h.{n}.{module}");
        vec![
            point(&name("attn.c_attn"), 64, 192),
            point(&name("attn.c_proj"), 64, 64),
            point(&name("mlp.c_fc"), 64, 256),
            point(&name("mlp.c_proj"), 256, 64),
        ]
    };
    let llama = |n: usize, hidden, kv, inner| {
        let name = |module| format!("model.layers.{n}.{module}");
        vec![
            point(&name("self_attn.q_proj"), hidden, hidden),
            point(&name("self_attn.k_proj"), hidden, kv),
            point(&name("self_attn.v_proj"), hidden, kv),
            point(&name("self_attn.o_proj"), hidden, hidden),
            point(&name("mlp.gate_proj"), hidden, inner),
            point(&name("mlp.up_proj"), hidden, inner),
            point(&name("mlp.down_proj"), inner, hidden),
        ]
    };
    let of_layer = |n| match model.split_once('/').unwrap().0 {
        "tiny-gpt2" => gpt2(n),
        "tiny-llama" => llama(n, 64, 32, 128),
        _ => llama(n, 32, 16, 48),
    };
    (0..2).flat_map(of_layer).collect()
}

/// The points of an adapter's modules.
pub fn points_of(adapter: &Adapter) -> Vec<InjectionPoint> {
    let point = |module: &zklora_models::AdapterModule| InjectionPoint {
        module: module.name.clone(),
        applies_to: module.applies_to,
        x_dim: module.inputs.iter().find(|input| input.name == "x").map(|input| input.dim),
        base_dim: module.d_out,
        tensor: None,
    };
    adapter.modules.iter().map(point).collect()
}

/// Computes an adapter's deltas in this process.
pub struct Local(pub Adapter);

impl Injector for Local {
    fn inject(
        &self,
        call: &InjectionCall<'_>,
    ) -> Result<Vec<Vec<f32>>, Box<dyn Error + Send + Sync>> {
        let adapted = |(&point, base): (&usize, &&[f32])| {
            let module = &self.0.modules[point];
            let x = match call.x {
                Activations::Dense { values, .. } => values.to_vec(),
                Activations::Ids(ids) => {
                    let dim = module.inputs[0].dim;
                    let one_hot = |id: &i64| {
                        (0..dim).map(|at| f32::from(u8::from(at as i64 == *id))).collect::<Vec<_>>()
                    };
                    ids.iter().flat_map(one_hot).collect()
                }
            };
            let inputs: Vec<&[f32]> = module
                .inputs
                .iter()
                .map(|input| if input.name == "x" { x.as_slice() } else { base })
                .collect();
            let delta = module.delta(&inputs);
            assert_eq!(delta.len(), base.len());
            base.iter().zip(delta).map(|(base, delta)| (f64::from(*base) + delta) as f32).collect()
        };
        Ok(call.points.iter().zip(&call.base).map(adapted).collect())
    }
}

/// Changes nothing and records each tensor that it gets: the number of features and the values.
#[derive(Default)]
pub struct Recorder {
    pub seen: Mutex<Vec<(usize, Vec<f32>)>>,
    pub groups: Mutex<Vec<Vec<usize>>>,
}

impl Injector for Recorder {
    fn inject(
        &self,
        call: &InjectionCall<'_>,
    ) -> Result<Vec<Vec<f32>>, Box<dyn Error + Send + Sync>> {
        self.groups.lock().unwrap().push(call.points.to_vec());
        let mut seen = self.seen.lock().unwrap();
        if let Activations::Dense { values, dim } = call.x {
            seen.push((dim, values.to_vec()));
        }
        seen.extend(call.base.iter().map(|base| (base.len() / call.rows, base.to_vec())));
        Identity.inject(call)
    }
}
