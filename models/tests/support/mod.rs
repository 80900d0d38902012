//! Shared by the tests of this crate: the fixture adapters, and adapter folders that tests create.
#![allow(dead_code)]

pub mod language;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use zklora_models::{Adapter, AdapterModule, ModuleInput};

/// Fixture adapters with activations recorded from peft.
pub const TRACED: [&str; 20] = [
    "gpt2_all_r8_rslora_patterns",
    "gpt2_c_attn_r4",
    "gpt2_c_attn_r4_bf16",
    "gpt2_dora_conv1d_r2",
    "gpt2_dora_r4",
    "gpt2_ia3",
    "gpt2_lora_bias",
    "gpt2_vera_r8",
    "gpt2_wte_embedding_r4",
    "llama_adalora_r5",
    "llama_all_linear_r8",
    "llama_dora_r4",
    "llama_embedding_dora_r2",
    "llama_ia3",
    "llama_loha_r3",
    "llama_lokr_both_r2",
    "llama_lokr_r2",
    "llama_named_r2",
    "llama_qv_r4",
    "smollm2-r4-qv",
];

/// A fixture adapter, with its base model if that is needed.
pub fn load(name: &str) -> Adapter {
    let needs_base = name.contains("dora") || name.contains("vera");
    Adapter::load_with_base(&fixture(name), needs_base.then(|| base(name)).as_deref()).unwrap()
}

/// Folder of the base model of a fixture adapter.
pub fn base(name: &str) -> PathBuf {
    let base = if name.starts_with("gpt2") { "tiny-gpt2" } else { "tiny-llama" };
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/base").join(base)
}

/// Folder of a fixture adapter.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/adapters").join(name)
}

/// The inputs of a module and the delta that peft added.
pub struct Recorded {
    /// `[rows, d_in]`
    pub x: Vec<f32>,
    /// The output of the base layer, `[rows, d_out]`, if it was recorded.
    pub base: Option<Vec<f32>>,
    /// `[rows, d_out]`
    pub delta: Vec<f32>,
}

impl Recorded {
    /// The inputs of a module, in its order.
    pub fn inputs(&self, module: &AdapterModule) -> Vec<&[f32]> {
        let input = |input: &ModuleInput| match input.name.as_str() {
            "base" => self.base.as_deref().unwrap(),
            _ => self.x.as_slice(),
        };
        module.inputs.iter().map(input).collect()
    }

    /// The delta in f64.
    pub fn expected(&self) -> Vec<f64> {
        self.delta.iter().map(|&v| f64::from(v)).collect()
    }
}

/// The recorded modules of a fixture adapter, by name.
pub fn recorded(name: &str) -> BTreeMap<String, Recorded> {
    recorded_in(&fixture(name).join("activations.safetensors"))
}

/// The modules that were recorded in a file, by name.
pub fn recorded_in(path: &Path) -> BTreeMap<String, Recorded> {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let f32s = |tensor: &str| -> Vec<f32> {
        let view = file.tensor(tensor).unwrap();
        assert_eq!(view.dtype(), Dtype::F32);
        view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    };
    file.names()
        .iter()
        .filter_map(|tensor| tensor.strip_suffix(".x"))
        .map(|module| {
            let (x, delta) = (f32s(&format!("{module}.x")), f32s(&format!("{module}.delta")));
            let base = format!("{module}.base");
            let base = file.tensor(&base).is_ok().then(|| f32s(&base));
            (module.to_owned(), Recorded { x, base, delta })
        })
        .collect()
}

/// Asserts that two results agree to `tolerance` times the largest expected value, because errors
/// of an f32 dot product are relative to its terms and not to its sum, which may be small.
pub fn assert_close(
    found: impl IntoIterator<Item = f64>,
    expected: &[f64],
    tolerance: f64,
    what: &str,
) {
    let found: Vec<f64> = found.into_iter().collect();
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(0.0f64, |scale, v| scale.max(v.abs()));
    assert!(scale > 0.0, "{what}: nothing to compare");
    for (at, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f - e).abs() <= tolerance * scale, "{what}: {f} instead of {e} at {at}");
    }
}

/// The content of an adapter folder.
#[derive(Clone)]
pub struct Folder {
    /// `adapter_config.json`
    pub config: String,
    /// Name, type, shape and content of every tensor.
    pub tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)>,
}

impl Folder {
    /// One module `m` of rank 2 from 3 to 4 features, without anything unusual.
    pub fn plain() -> Folder {
        let mut folder = Folder { config: config(""), tensors: Vec::new() };
        folder.f32("base_model.model.m.lora_A.weight", &[2, 3], &[1.0; 6]);
        folder.f32("base_model.model.m.lora_B.weight", &[4, 2], &[1.0; 8]);
        folder
    }

    /// No tensor yet.
    pub fn empty(more_config: &str) -> Folder {
        Folder { config: config(more_config), tensors: Vec::new() }
    }

    /// Adds or replaces a tensor.
    pub fn f32(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        self.raw(name, Dtype::F32, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect());
    }

    /// Adds or replaces a tensor.
    pub fn raw(&mut self, name: &str, dtype: Dtype, shape: &[usize], bytes: Vec<u8>) {
        self.remove(name);
        self.tensors.push((name.to_owned(), dtype, shape.to_vec(), bytes));
    }

    /// Removes a tensor.
    pub fn remove(&mut self, name: &str) {
        self.tensors.retain(|(other, ..)| other != name);
    }

    /// The bytes of `adapter_model.safetensors`.
    pub fn weights(&self) -> Vec<u8> {
        let views = self.tensors.iter().map(|(name, dtype, shape, bytes)| {
            (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        safetensors::serialize(views, None).unwrap()
    }

    /// Writes the folder.
    pub fn write(&self) -> tempfile::TempDir {
        write_folder(self.config.as_bytes(), &self.weights())
    }
}

/// An adapter folder with these two files.
pub fn write_folder(config: &[u8], weights: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("adapter_config.json"), config).unwrap();
    std::fs::write(dir.path().join("adapter_model.safetensors"), weights).unwrap();
    dir
}

/// A config of rank 2 and alpha 4 with more keys.
pub fn config(more: &str) -> String {
    let comma = if more.is_empty() { "" } else { ", " };
    format!(
        r#"{{"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": "tiny"{comma}{more}}}"#
    )
}
