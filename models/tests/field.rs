//! Inputs that people really have (`fixtures/field`): each is exported with the deltas that `peft`
//! computes, or refused with what to do.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::PathBuf;

use safetensors::tensor::{Dtype, SafeTensors};
use support::{assert_close, base};
use zklora_models::{
    Adapter, LoadOptions,
    peft::{Case, supported},
};

fn field(case: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures/field").join(case)
}

/// The folder of the base model that comes with a case, if one does.
fn own_base(case: &str) -> Option<PathBuf> {
    match case {
        "fresh_dora" => Some(base("llama")),
        _ => Some(field(case).join("base")).filter(|folder| folder.exists()),
    }
}

fn load_with(case: &str, options: &LoadOptions) -> Result<Adapter, zklora_models::Error> {
    Adapter::load_with(&field(case), options)
}

fn load(case: &str, options: &LoadOptions) -> Result<Adapter, zklora_models::Error> {
    let base = own_base(case);
    load_with(case, &LoadOptions { base: base.as_deref(), ..*options })
}

/// Compares with `<module>.x` and `<module>.delta` of `expected.safetensors`; returns how many
/// modules that has.
fn compare(case: &str, adapter: &Adapter) -> usize {
    let path = field(case).join("expected.safetensors");
    if !path.exists() {
        return 0;
    }
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let numbers = |name: &str| -> Vec<f64> {
        let view = file.tensor(name).unwrap();
        match view.dtype() {
            Dtype::F32 => view
                .data()
                .as_chunks()
                .0
                .iter()
                .map(|b| f64::from(f32::from_le_bytes(*b)))
                .collect(),
            Dtype::F64 => {
                view.data().as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect()
            }
            other => unreachable!("{other}"),
        }
    };
    let names = file.names();
    let expected: Vec<&str> = names.iter().filter_map(|name| name.strip_suffix(".delta")).collect();
    for name in &expected {
        let module = adapter.modules.iter().find(|module| module.name == **name).unwrap();
        let x: Vec<f32> = numbers(&format!("{name}.x")).iter().map(|x| *x as f32).collect();
        let delta = numbers(&format!("{name}.delta"));
        let found = module.delta(&[&x]);
        match delta.iter().all(|value| *value == 0.0) {
            true => assert!(found.iter().all(|value| *value == 0.0), "{case} {name}"),
            false => assert_close(found, &delta, 1e-6, &format!("{case} {name}")),
        }
    }
    expected.len()
}

#[test]
fn what_peft_loads_is_exported() {
    for (case, modules) in [
        ("axolotl_lm_head", 0),
        ("bnb4_base", 2),
        ("conv1d_whisper", 0),
        ("conv2d_unet", 0),
        ("copy_dtype", 2),
        ("fp8_e4m3", 2),
        ("fresh_adalora", 0),
        ("fresh_dora", 0),
        ("fresh_lora", 0),
        ("from_model_config", 2),
        ("full_peft_state", 0),
        ("gptq_base", 2),
        ("json_bom", 2),
        ("json_nan", 2),
        ("mlx", 2),
        ("moe_target_parameters", 0),
        ("name_colon", 1),
        ("name_space", 1),
        ("peft03_merge_true", 2),
        ("rank_gt_d", 0),
        ("rank_pattern_lookahead", 2),
        ("seq_cls_modules_to_save", 2),
        ("unknown_key", 2),
        ("vlm_new_adapter_old_base", 2),
        ("vlm_qwen2vl", 2),
        ("zero_B_one_module", 2),
        // Of other libraries, without expected deltas: see `foreign.rs`.
        ("diffusers_pytorch_lora_weights", 0),
        ("kohya_single", 0),
    ] {
        let adapter = load(case, &LoadOptions::default());
        assert!(adapter.is_ok(), "{case}: {}", adapter.unwrap_err());
        let adapter = adapter.unwrap();
        assert_eq!(compare(case, &adapter), modules, "{case}");
        let out = tempfile::tempdir().unwrap();
        zklora_models::export(&adapter, &[], out.path()).unwrap();
        let index = zklora_models::read_index(out.path()).unwrap();
        assert_eq!(index.modules.len(), adapter.modules.len(), "{case}");
    }
}

#[test]
fn what_peft_would_load_differently_is_refused_with_what_to_do() {
    for (case, words) in [
        ("fsdp_dcp", &["FSDP", "accelerate merge-weights"][..]),
        ("gguf", &["GGUF"]),
        ("keys_checkpoint_wrapped", &["--rename _checkpoint_wrapped_module.="]),
        ("keys_default", &["--rename .default="]),
        ("keys_doubled", &["--rename base_model.model.base_model.model.=base_model.model."]),
        ("keys_no_prefix", &["--rename =base_model.model."]),
        ("keys_orig_mod_front", &["--rename _orig_mod.="]),
        ("keys_orig_mod_inner", &["--rename _orig_mod.="]),
        ("lfs_pointer", &["Git LFS", "git lfs pull"]),
        ("loftq_init", &["init_lora_weights", "LoftQ", "base_model_name_or_path"]),
        ("lora_ga", &["init_lora_weights", "path_initial_model_for_weight_conversion"]),
        ("merged_model_keys", &["whole model"]),
        ("zero3_no_tensors", &["ZeRO-3", "gathered"]),
    ] {
        let error = load(case, &LoadOptions::default()).unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "{case}: {error}");
        }
    }
}

/// Layers that were trained whole are left out without the base model, and named.
#[test]
fn what_is_left_out_is_named() {
    let named = |case: &str, base: Option<&std::path::Path>| -> Vec<String> {
        let adapter = load_with(case, &LoadOptions { base, ..Default::default() }).unwrap();
        adapter.left_out.into_iter().map(|left| left.tensor).collect()
    };
    assert_eq!(named("seq_cls_modules_to_save", None), ["score.weight"]);
    let whole = ["lm_head.weight", "model.embed_tokens.weight"];
    assert_eq!(named("axolotl_lm_head", None), whole);
    let of_state = [
        "model.layers.0.self_attn.q_proj.base_layer.weight",
        "model.layers.0.self_attn.v_proj.base_layer.weight",
        "model.norm.weight",
    ];
    assert_eq!(named("full_peft_state", None), of_state);
    // With the base model, what equals it changes nothing. A head that it does not have is left
    // out.
    let llama = base("llama");
    assert_eq!(named("seq_cls_modules_to_save", Some(&llama)), ["score.weight"]);
    assert_eq!(named("axolotl_lm_head", Some(&llama)), [""; 0]);
    assert_eq!(named("full_peft_state", Some(&llama)), ["model.norm.weight"]);
}

/// What a refusal says to do works.
#[test]
fn names_are_replaced_as_the_refusal_says() {
    for (case, from, to, modules) in [
        ("keys_checkpoint_wrapped", "_checkpoint_wrapped_module.", "", 1),
        ("keys_default", ".default", "", 2),
        ("keys_doubled", "base_model.model.base_model.model.", "base_model.model.", 2),
        ("keys_no_prefix", "", "base_model.model.", 2),
        ("keys_orig_mod_front", "_orig_mod.", "", 2),
        ("keys_orig_mod_inner", "_orig_mod.", "", 2),
    ] {
        let rename = [(from.to_owned(), to.to_owned())];
        let adapter = load(case, &LoadOptions { rename: &rename, ..Default::default() }).unwrap();
        assert_eq!(adapter.modules.len(), modules, "{case}");
        assert!(adapter.modules.iter().all(|of| of.name.starts_with("model.layers.0.self_attn.")));
        compare(case, &adapter);
    }
    // Two tensors of one name are none.
    let rename = [("lora_A".to_owned(), "lora_B".to_owned())];
    let options = LoadOptions { rename: &rename, ..Default::default() };
    let error = load("fresh_lora", &options).unwrap_err().to_string();
    assert!(error.contains("would be") && error.contains("and so would"), "{error}");
}

/// An odd layer does not block the others.
#[test]
fn modules_that_are_not_asked_for_are_not_read() {
    let modules = ["*to_q".to_owned()];
    let options = LoadOptions { modules: &modules, ..Default::default() };
    let adapter = load("conv2d_unet", &options).unwrap();
    assert_eq!(adapter.modules.len(), 1);
    let modules = ["*to_w".to_owned()];
    let options = LoadOptions { modules: &modules, ..Default::default() };
    assert!(load("fresh_lora", &options).unwrap().modules.len() > 1, "export names what there is");
}

/// The page lists formats and keys from the program's own lists, and what becomes of these inputs.
/// `ZKLORA_WRITE_DOCS=1` writes it.
#[test]
fn the_page_says_what_is_exported() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut names: Vec<String> = std::fs::read_dir(root.join("fixtures/field"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let case = |name: String| {
        let origin =
            std::fs::read_to_string(field(&name).join("README")).unwrap().trim().to_owned();
        let outcome = match load(&name, &LoadOptions::default()) {
            Ok(adapter) => {
                let left_out = match adapter.left_out.as_slice() {
                    [] => String::new(),
                    some => format!(", {} tensors left out and named", some.len()),
                };
                format!("exported, {} modules{left_out}", adapter.modules.len())
            }
            Err(error) => {
                let folder = format!("{}/", field(&name).display());
                format!("refused: {}", error.to_string().replace(&folder, ""))
            }
        };
        Case { name, origin, outcome }
    };
    let page = supported(&names.into_iter().map(case).collect::<Vec<_>>());
    let path = root.join("docs/adapters.md");
    if std::env::var_os("ZKLORA_WRITE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    // Without the layout, which mdformat chooses.
    let words = |text: &str| {
        let text = text.replace('\\', "").replace(['|', '-', '`'], " ");
        text.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(words(&written) == words(&page), "write it with ZKLORA_WRITE_DOCS=1");
}

/// The rule is that of the manifest, in which the name is published.
#[test]
fn the_name_of_the_base_model_is_checked_wherever_it_comes_from() {
    let load =
        |name| load("fresh_lora", &LoadOptions { base_name: Some(name), ..Default::default() });
    assert_eq!(load("org/llama").unwrap().base_model.name, "org/llama");
    for name in ["a\nb", &"x".repeat(600)] {
        let error = load(name).unwrap_err().to_string();
        assert!(error.contains("must be the name of a model"), "{error}");
    }
}

/// The matrices of VeRA belong to all modules.
#[test]
fn what_all_modules_share_is_read_with_each() {
    let name = "gpt2_vera_r8";
    let whole = support::load(name);
    let modules = [whole.modules[0].name.clone()];
    let base = base(name);
    let options = LoadOptions { base: Some(&base), modules: &modules, ..Default::default() };
    let one = Adapter::load_with(&support::fixture(name), &options).unwrap();
    assert_eq!(one.modules, whole.modules[..1]);
}
