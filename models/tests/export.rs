//! `export` writes ONNX that computes the same deltas in tract, with the same bytes every time, and
//! leaves nothing half-written.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;

use support::{Folder, TRACED, assert_close, fixture, load, recorded};
use tract_onnx::prelude::*;
use zklora_models::{
    Adapter, AdapterModule, AppliesTo, Error, Form, Kind, LoraWeights, export, onnx_model,
    read_index,
};

/// Runs a model on its inputs in tract, with `rows` left symbolic until then.
fn run_in_tract(model: &[u8], inputs: &[(&[f32], usize)]) -> Vec<f64> {
    let model = tract_onnx::onnx().model_for_read(&mut &*model).unwrap();
    let plan = model.into_optimized().unwrap().into_runnable().unwrap();
    let rows = inputs[0].0.len() / inputs[0].1;
    let tensors = inputs
        .iter()
        .map(|(values, dim)| Tensor::from_shape(&[rows, *dim], values).unwrap().into());
    let delta = plan.run(tensors.collect()).unwrap();
    let view = delta[0].to_plain_array_view::<f32>().unwrap();
    assert_eq!(view.shape()[0], rows);
    view.iter().map(|&v| f64::from(v)).collect()
}

fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    files
}

#[test]
fn exported_files_compute_what_peft_computed() {
    for name in TRACED {
        let adapter = load(name);
        let out = tempfile::tempdir().unwrap();
        let index = export(&adapter, &[], out.path()).unwrap();
        assert_eq!(index.modules.len(), adapter.modules.len());
        for (module, io) in recorded(name) {
            let entry = index.modules.iter().find(|m| m.name == module).unwrap();
            let module = adapter.modules.iter().find(|m| m.name == module).unwrap();
            let model = std::fs::read(out.path().join(&entry.file)).unwrap();
            let inputs: Vec<_> = io
                .inputs(module)
                .into_iter()
                .zip(entry.inputs.iter().map(|input| input.dim))
                .collect();
            let what = format!("{name} {}", module.name);
            assert_close(run_in_tract(&model, &inputs), &io.expected(), 1e-5, &what);
        }
    }
}

#[test]
fn square_modules_with_rank_d_in_keep_their_orientation_in_onnx() {
    let weights = LoraWeights {
        d_in: 2,
        d_out: 2,
        rank: 2,
        a: vec![1.0, 2.0, 3.0, 4.0],
        b: vec![1.0, 10.0, 100.0, 1000.0],
        bias: Some(vec![0.5, -0.5]),
    };
    let module = AdapterModule::lora("m".into(), weights, 2.0);
    let x = [1.0, 0.0, 0.0, 1.0, -1.0, 3.0];
    assert_eq!(module.delta(&[&x])[..2], [63.0, 6199.0]);
    assert_close(
        run_in_tract(&onnx_model(&module).unwrap(), &[(&x, 2)]),
        &module.delta(&[&x]),
        1e-6,
        "square",
    );
}

#[test]
fn the_same_adapter_gives_the_same_bytes() {
    for name in TRACED {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for out in [&first, &second, &second] {
            export(&load(name), &[], out.path()).unwrap();
        }
        assert_eq!(files(first.path()), files(second.path()), "{name}");
        assert_eq!(files(first.path()).len(), load(name).modules.len() + 1, "{name}");
    }
}

#[test]
fn the_index_reads_back_and_lists_the_files() {
    let mut adapter = Adapter::load(&fixture("gpt2_lora_bias")).unwrap();
    adapter.base_model.fingerprint = Some("0f".repeat(32));
    let out = tempfile::tempdir().unwrap();
    let written =
        export(&adapter, &["*.h.1.*".into()], &out.path().join("made/on/the/way")).unwrap();
    let dir = out.path().join("made/on/the/way");
    assert_eq!(read_index(&dir).unwrap(), written);
    let names: Vec<String> = files(&dir).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["export.json", "transformer.h.1.attn.c_attn.onnx"]);
    let module = &written.modules[0];
    assert_eq!(
        (module.inputs[0].dim, module.d_out, module.rank, module.scaling),
        (64, 192, 4, 2.0)
    );
}

#[test]
fn the_index_states_the_inputs_and_where_the_delta_is_added() {
    let entry = |name: &str, module: &str| {
        let out = tempfile::tempdir().unwrap();
        let index = export(&load(name), &[module.into()], out.path()).unwrap();
        let entry = index.modules[0].clone();
        let inputs: Vec<String> =
            entry.inputs.iter().map(|input| format!("{} {}", input.name, input.dim)).collect();
        (entry.form, entry.kind, entry.applies_to, inputs.join(", "), entry.rank)
    };
    use AppliesTo::{Input, Output};
    use Kind::{Embedding, Linear};
    for (name, module, expected) in [
        ("gpt2_dora_r4", "*.h.1.attn.c_attn", (Form::Dora, Linear, Output, "x 64, base 192", 4)),
        ("gpt2_wte_embedding_r4", "*.wte", (Form::Lora, Embedding, Output, "x 257", 4)),
        (
            "llama_embedding_dora_r2",
            "*.embed_tokens",
            (Form::Dora, Embedding, Output, "x 257, base 64", 2),
        ),
        ("llama_adalora_r5", "*.0.self_attn.q_proj", (Form::AdaLora, Linear, Output, "x 64", 3)),
        ("gpt2_vera_r8", "*.h.0.mlp.c_proj", (Form::Vera, Linear, Output, "x 256", 8)),
        ("llama_ia3", "*.0.self_attn.k_proj", (Form::Ia3, Linear, Output, "base 32", 0)),
        ("llama_ia3", "*.0.mlp.down_proj", (Form::Ia3, Linear, Input, "x 128", 0)),
        // r² = 9; with r = 6, 36 is not below 32.
        ("llama_loha_r3", "*.0.self_attn.q_proj", (Form::LoHa, Linear, Output, "x 64", 9)),
        ("llama_loha_r3", "*.0.self_attn.k_proj", (Form::LoHa, Linear, Output, "x 64", 32)),
        // A whole factor of 8 × 8 times one of rank 2; two of rank 2.
        ("llama_lokr_r2", "*.0.self_attn.q_proj", (Form::LoKr, Linear, Output, "x 64", 16)),
        ("llama_lokr_both_r2", "*.0.self_attn.q_proj", (Form::LoKr, Linear, Output, "x 64", 8)),
    ] {
        let (form, kind, applies_to, inputs, rank) = entry(name, module);
        assert_eq!((form, kind, applies_to, inputs.as_str(), rank), expected, "{name} {module}");
    }
}

#[test]
fn a_glob_that_matches_nothing_writes_nothing() {
    let adapter = Adapter::load(&fixture("llama_qv_r4")).unwrap();
    let out = tempfile::tempdir().unwrap();
    let error = export(&adapter, &["*.q_proj".into(), "*.w_proj".into()], &out.path().join("o"))
        .unwrap_err();
    assert!(
        error.to_string().contains("`*.w_proj`") && error.to_string().contains("_proj`, `model"),
        "{error}"
    );
    assert!(!out.path().join("o").exists());
}

#[test]
fn a_failed_export_leaves_no_index_of_an_earlier_one() {
    let mut adapter = Adapter::load(&fixture("llama_qv_r4")).unwrap();
    let out = tempfile::tempdir().unwrap();
    export(&adapter, &[], out.path()).unwrap();
    adapter.modules[3].branches[0].steps[0].values.pop();
    assert!(matches!(export(&adapter, &[], out.path()), Err(Error::Module { .. })));
    assert!(matches!(read_index(out.path()), Err(Error::Missing { .. })));
}

#[test]
fn modules_whose_files_would_clash_are_refused() {
    let mut folder = Folder::empty("");
    for name in ["l.Q", "l.q"] {
        folder.f32(&format!("base_model.model.{name}.lora_A.weight"), &[2, 3], &[1.0; 6]);
        folder.f32(&format!("base_model.model.{name}.lora_B.weight"), &[4, 2], &[1.0; 8]);
    }
    let mut adapter = Adapter::load(folder.write().path()).unwrap();
    let out = tempfile::tempdir().unwrap();
    assert!(export(&adapter, &[], out.path()).unwrap_err().to_string().contains("ignore case"));
    adapter.modules[0].name = "../q".into();
    assert!(matches!(export(&adapter, &[], out.path()), Err(Error::ModuleName { .. })));
    assert!(files(out.path()).is_empty());
}
