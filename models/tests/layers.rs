//! Adapters of peft on convolutions, experts and layers trained whole (`fixtures/peft`): the deltas
//! are those that peft adds.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::PathBuf;

use safetensors::tensor::SafeTensors;
use support::assert_close;
use zklora_models::{Adapter, Form, Kind, LoadOptions};

fn case(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures/peft").join(name)
}

fn load(name: &str, options: LoadOptions) -> Result<Adapter, zklora_models::Error> {
    Adapter::load_with(&case(name), &options)
}

fn with_base(name: &str) -> Adapter {
    let base = case(name).join("base");
    load(name, LoadOptions { base: Some(&base), ..Default::default() }).unwrap()
}

/// Compares every module that `expected.safetensors` has; returns their names.
fn compare(name: &str, adapter: &Adapter) -> Vec<String> {
    let bytes = std::fs::read(case(name).join("expected.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let numbers = |tensor: &str| -> Vec<f32> {
        let view = file.tensor(tensor).unwrap();
        view.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    };
    let mut names: Vec<String> =
        file.names().iter().filter_map(|name| Some(name.strip_suffix(".delta")?.into())).collect();
    names.sort();
    for of in &names {
        let module = adapter.modules.iter().find(|module| module.name == *of);
        assert!(module.is_some(), "{name} has no {of}");
        let module = module.unwrap();
        let inputs: Vec<Vec<f32>> =
            module.inputs.iter().map(|input| numbers(&format!("{of}.{}", input.name))).collect();
        let inputs: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
        let expected: Vec<f64> =
            numbers(&format!("{of}.delta")).iter().map(|&value| f64::from(value)).collect();
        // peft's own deltas are differences of f32 outputs.
        assert_close(module.delta(&inputs), &expected, 2e-5, &format!("{name} {of}"));
    }
    names
}

#[test]
fn deltas_are_those_of_peft() {
    for (name, modules) in [
        ("bias_all", 5),
        ("bias_dora", 1),
        ("convolutions_dora", 3),
        ("convolutions_loha", 2),
        ("convolutions_loha_whole", 1),
        ("convolutions_lokr", 2),
        ("convolutions_lokr_whole", 2),
        ("convolutions_lora", 4),
        ("experts", 8),
        ("modules_to_save", 3),
        ("tied_tokens", 3),
    ] {
        let adapter = with_base(name);
        assert_eq!(compare(name, &adapter).len(), modules, "{name}");
        let out = tempfile::tempdir().unwrap();
        let index = zklora_models::export(&adapter, &[], out.path()).unwrap();
        assert_eq!(zklora_models::read_index(out.path()).unwrap(), index, "{name}");
        for module in &index.modules {
            let own = module.name.rsplit('.').next().unwrap();
            let kind = match own {
                "conv1" | "conv2" | "pointwise" | "grouped" => Kind::Convolution,
                "gate_up_proj" | "down_proj" => Kind::Expert,
                "embed_tokens" => Kind::Embedding,
                _ => Kind::Linear,
            };
            assert_eq!(module.kind, kind, "{name} {}", module.name);
        }
    }
}

/// Without the base model, the LoRA part alone is exported, and what is left out is said.
#[test]
fn what_has_no_known_difference_is_left_out_and_said() {
    let named = |adapter: &Adapter| -> Vec<String> {
        adapter.left_out.iter().map(|left| left.tensor.clone()).collect()
    };
    let whole = ["embed_tokens.weight", "head.bias", "head.weight", "norm.bias", "norm.weight"];
    let alone = load("modules_to_save", LoadOptions::default()).unwrap();
    assert_eq!(named(&alone), whole);
    assert_eq!(alone.modules.len(), 1);
    assert!(alone.warnings()[0].contains("head.weight") && alone.warnings()[0].contains("--base"));

    let base = case("modules_to_save").join("base");
    let options = LoadOptions { base: Some(&base), lora_only: true, ..Default::default() };
    let asked = load("modules_to_save", options).unwrap();
    assert_eq!((named(&asked), asked.modules), (named(&alone), alone.modules));

    // Only the norm's weight has no difference that is a delta.
    let all = with_base("modules_to_save");
    assert_eq!(named(&all), ["norm.weight"]);
    let forms: Vec<(&str, Form)> =
        all.modules.iter().map(|module| (module.name.as_str(), module.form)).collect();
    assert_eq!(
        forms,
        [
            ("embed_tokens", Form::Whole),
            ("head", Form::Whole),
            ("norm", Form::Whole),
            ("q", Form::Lora)
        ]
    );

    // What a manifest leaves out is left out again.
    let left_out = ["head.weight".to_owned(), "head.bias".to_owned()];
    let options = LoadOptions { base: Some(&base), left_out: &left_out, ..Default::default() };
    let again = load("modules_to_save", options).unwrap();
    assert_eq!(named(&again), ["head.bias", "head.weight", "norm.weight"]);
    let out = tempfile::tempdir().unwrap();
    let index = zklora_models::export(&again, &[], out.path()).unwrap();
    assert_eq!(index.left_out, named(&again));

    for name in ["bias_all", "tied_tokens"] {
        let adapter = load(name, LoadOptions::default()).unwrap();
        assert!(
            !adapter.left_out.is_empty() && adapter.modules.iter().all(|of| of.form != Form::Whole)
        );
    }
}

/// An adapter on the same layers of another model.
#[test]
fn a_base_model_of_other_sizes_is_refused() {
    for (name, base, layer) in [
        ("convolutions_lora", "experts", "conv1"),
        ("experts", "tied_tokens", "experts.down_proj"),
        ("convolutions_dora", "tied_tokens", "conv1"),
    ] {
        let base = case(base).join("base");
        let error = load(name, LoadOptions { base: Some(&base), ..Default::default() });
        let error = error.unwrap_err().to_string();
        assert!(error.contains(layer) && error.contains("base model"), "{name}: {error}");
    }
}
