//! Adapters of peft on convolutions, experts and layers trained whole (`fixtures/peft`): the deltas
//! are those that peft adds.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::PathBuf;

use safetensors::tensor::SafeTensors;
use support::{Folder, assert_close};
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
        ("classifier", 5),
        ("conv1d_saved", 3),
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

    // A bias is added to the difference of the weight, and reads nothing more.
    let head = all.modules.iter().find(|module| module.name == "head").unwrap();
    let inputs: Vec<(&str, usize)> =
        head.inputs.iter().map(|input| (input.name.as_str(), input.dim)).collect();
    assert_eq!((inputs, head.branches.len()), (vec![("x", 12)], 1));

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

/// A folder of a case with a changed config of its base model, or without one.
fn with_config(name: &str, change: impl Fn(&str) -> Option<String>) -> Adapter {
    let base = tempfile::tempdir().unwrap();
    let own = case(name).join("base");
    std::fs::copy(own.join("model.safetensors"), base.path().join("model.safetensors")).unwrap();
    if let Some(config) = change(&std::fs::read_to_string(own.join("config.json")).unwrap()) {
        std::fs::write(base.path().join("config.json"), config).unwrap();
    }
    load(name, LoadOptions { base: Some(base.path()), ..Default::default() }).unwrap()
}

/// New rows of a table that is tied to the output layer change both; what is not known is left out.
#[test]
fn what_is_tied_is_changed_too_or_left_out() {
    let tokens = "model.embed_tokens.token_adapter.trainable_tokens_delta";
    let names = |adapter: &Adapter| -> Vec<String> {
        adapter.modules.iter().map(|module| module.name.clone()).collect()
    };
    let (head, table, q) = ("lm_head", "model.embed_tokens", "model.layers.0.self_attn.q_proj");
    let same = with_config("tied_tokens", |config| Some(config.to_owned()));
    assert_eq!(names(&same), [head, table, q]);
    let untied = with_config("tied_tokens", |config| {
        let (tied, not) = ("\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false");
        assert!(config.contains(tied));
        Some(config.replace(tied, not))
    });
    assert_eq!(names(&untied), [table, q]);
    let other_model = with_config("tied_tokens", |config| {
        Some(config.replace("\"model_type\": \"llama\"", "\"model_type\": \"t5\""))
    });
    let without = with_config("tied_tokens", |_| None);
    for adapter in [other_model, without] {
        assert_eq!(names(&adapter), [q]);
        assert_eq!(adapter.left_out[0].tensor, tokens);
    }
}

/// The orientation of GPT-2's layers is stated by the type of the model.
#[test]
fn a_conv1d_without_the_type_of_its_model_is_left_out() {
    let without = with_config("conv1d_saved", |_| None);
    let left_out: Vec<&str> = without.left_out.iter().map(|left| left.tensor.as_str()).collect();
    let block = "transformer.h.0";
    let names = [format!("{block}.attn.c_proj.weight"), format!("{block}.mlp.c_fc.weight")];
    assert_eq!(left_out, names);
}

/// `--module` says which layers trained whole it leaves out.
#[test]
fn layers_that_are_not_asked_for_are_left_out_and_named() {
    let modules = ["q".to_owned()];
    let options = LoadOptions { modules: &modules, ..Default::default() };
    let adapter = load("modules_to_save", options).unwrap();
    let left_out: Vec<&str> = adapter.left_out.iter().map(|left| left.tensor.as_str()).collect();
    let whole = ["embed_tokens.weight", "head.bias", "head.weight", "norm.bias", "norm.weight"];
    assert_eq!(left_out, whole);
}

/// Tensors of plain LoRA on `q`, and these, with more settings.
fn lora_and(config: &str, tensors: &[(&str, &[usize])]) -> Folder {
    let config = format!(r#"{{"peft_type": "LORA", "r": 2, {config} "bias": "none"}}"#);
    let mut folder = Folder::empty("");
    folder.config = config;
    folder.f32("base_model.model.q.lora_A.weight", &[2, 4], &[1.0; 8]);
    folder.f32("base_model.model.q.lora_B.weight", &[4, 2], &[1.0; 8]);
    for (name, shape) in tensors {
        let values = vec![0.5; shape.iter().product()];
        folder.f32(&format!("base_model.model.{name}"), shape, &values);
    }
    folder
}

fn base_with(tensors: &[(&str, &[usize])], config: Option<&str>) -> tempfile::TempDir {
    let mut folder = Folder::empty("");
    for (name, shape) in tensors.iter().chain(&[("q.weight", &[4, 4][..])]) {
        folder.f32(name, shape, &vec![1.0; shape.iter().product()]);
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("model.safetensors"), folder.weights()).unwrap();
    if let Some(config) = config {
        std::fs::write(dir.path().join("config.json"), config).unwrap();
    }
    dir
}

/// What `peft` would load in a way that is not known here is left out, each with its reason.
#[test]
fn what_has_no_known_delta_is_left_out_with_the_reason() {
    let tied = Some(r#"{"model_type": "llama", "tie_word_embeddings": true}"#);
    let untied = Some(r#"{"model_type": "llama", "tie_word_embeddings": false}"#);
    for (tensor, shape, config, reason) in [
        // The base model's own table, and the output layer that is tied to it.
        ("model.embed_tokens.weight", &[5, 4][..], tied, "tied"),
        ("lm_head.weight", &[5, 4], tied, "tied"),
        ("lm_head.weight", &[5, 4], None, "tied"),
        ("model.embed_tokens.weight", &[5, 4], untied, ""),
        ("x.some_embedder.weight", &[5, 4], untied, "embedding"),
        ("x.norm.bias", &[2, 6], untied, "[2, 6]"),
        ("x.norm.weight", &[6], untied, "[6]"),
        ("x.conv.weight", &[2, 3, 3], untied, "[2, 3, 3]"),
        ("x.norm.running_mean", &[6], untied, "weights and biases"),
        ("x.in_proj_weight", &[6, 2], untied, "weights and biases"),
        ("x.c_fc.weight", &[6, 2], None, "orientation"),
    ] {
        let folder = lora_and("", &[(tensor, shape)]);
        let base = base_with(&[(tensor, shape)], config);
        let options = LoadOptions { base: Some(base.path()), ..Default::default() };
        let adapter = Adapter::load_with(folder.write().path(), &options).unwrap();
        let reasons: Vec<&str> = adapter.left_out.iter().map(|of| of.reason.as_str()).collect();
        match reason {
            "" => assert_eq!((reasons.len(), adapter.modules.len()), (0, 2), "{tensor}"),
            _ => assert!(reasons[0].contains(reason), "{tensor}: {reasons:?}"),
        }
    }
    // Statistics of a norm change what its bias is added to.
    let tensors: [(&str, &[usize]); 2] = [("x.bias", &[6]), ("x.running_mean", &[6])];
    let (folder, base) = (lora_and("", &tensors), base_with(&tensors, untied));
    let options = LoadOptions { base: Some(base.path()), ..Default::default() };
    assert_eq!(Adapter::load_with(folder.write().path(), &options).unwrap().left_out.len(), 2);
}

/// Experts whose tensors could be of other parameters, or that `peft` does not load, are refused.
#[test]
fn experts_that_are_not_known_are_refused() {
    let both = r#""target_parameters": ["m.gate_up_proj", "m.down_proj"],"#;
    let one = r#""target_parameters": ["m.down_proj"],"#;
    let (inner_a, inner_b) = ("m.base_layer.lora_A.weight", "m.base_layer.lora_B.weight");
    let (a, b) = ("m.lora_A.weight", "m.lora_B.weight");
    // Two experts of rank 2: [6 → 8] inside, [4 → 6] around it.
    let inner: [(&str, &[usize]); 2] = [(inner_a, &[4, 6]), (inner_b, &[8, 4])];
    let outer: [(&str, &[usize]); 2] = [(a, &[4, 4]), (b, &[6, 4])];
    let good = lora_and(both, &[inner, outer].concat());
    assert_eq!(Adapter::load(good.write().path()).unwrap().modules.len(), 5);
    let swapped: [(&str, &[usize]); 4] =
        [(inner_a, &[4, 4]), (inner_b, &[6, 4]), (a, &[4, 6]), (b, &[8, 4])];
    let extra: [(&str, &[usize]); 1] = [("m.lora_B.bias", &[6])];
    let single: [(&str, &[usize]); 2] = [(a, &[2, 4]), (b, &[6, 2])];
    let many: [(&str, &[usize]); 2] = [(a, &[2 * 5000, 1]), (b, &[1, 2 * 5000])];
    for (config, tensors, word) in [
        (both, swapped.to_vec(), "sizes of gate_up_proj"),
        (both, outer.to_vec(), "which tensors are of which"),
        (one, inner.to_vec(), "which tensors are of which"),
        (one, [&outer[..], &extra].concat(), "none of the tensors of experts"),
        (one, single.to_vec(), "2 to 4096 experts"),
        (one, many.to_vec(), "2 to 4096 experts"),
        (r#""target_parameters": ["gate_up_proj"],"#, outer.to_vec(), "name the module"),
        (r#""target_parameters": [".w"],"#, outer.to_vec(), "name the module"),
        (r#""target_parameters": ["m.weight"],"#, outer.to_vec(), "target_modules"),
        (r#""target_parameters": ["m.up_bias"],"#, outer.to_vec(), "target_modules"),
        (r#""target_parameters": ["m.x"], "use_dora": true,"#, outer.to_vec(), "use_dora"),
    ] {
        let error =
            Adapter::load(lora_and(config, &tensors).write().path()).unwrap_err().to_string();
        assert!(error.contains(word), "{word}: {error}");
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
