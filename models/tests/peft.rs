//! `Adapter::load` reads the numbers that peft computes with.
#![allow(clippy::unwrap_used)]

mod support;

use half::{bf16, f16};
use safetensors::Dtype;
use support::{Folder, TRACED, assert_close, fixture, load, recorded};
use zklora_models::Adapter;

#[test]
fn deltas_are_those_that_peft_computed() {
    for name in TRACED {
        let adapter = load(name);
        let recorded = recorded(name);
        assert!(!recorded.is_empty());
        for (module, io) in recorded {
            let module = adapter.modules.iter().find(|m| m.name == module).unwrap();
            let delta = module.delta(&io.inputs(module));
            assert_close(delta, &io.expected(), 1e-5, &format!("{name} {}", module.name));
        }
    }
}

#[test]
fn the_main_example_has_its_sixty_modules_in_order() {
    let adapter = Adapter::load(&fixture("smollm2-r4-qv")).unwrap();
    assert_eq!(adapter.base_model.name, "SmolLM2-135M-Instruct");
    assert_eq!(adapter.parameters(), 230_400);
    let names: Vec<String> = (0..30)
        .flat_map(|layer| ["q", "v"].map(|p| format!("model.layers.{layer}.self_attn.{p}_proj")))
        .collect();
    assert_eq!(adapter.modules.iter().map(|m| m.name.clone()).collect::<Vec<_>>(), names);
    for module in &adapter.modules {
        let d_out = if module.name.ends_with("q_proj") { 576 } else { 192 };
        assert_eq!(
            (module.inputs[0].dim, module.d_out, module.rank()),
            (576, d_out, 4),
            "{}",
            module.name
        );
        assert_eq!(module.scaling, 2.0);
    }
}

/// The numbers are those of `traces/manifest.json` of the recording: peft's own `scaling`.
#[test]
fn rslora_and_patterns_give_the_ranks_and_scalings_of_peft() {
    let adapter = Adapter::load(&fixture("gpt2_all_r8_rslora_patterns")).unwrap();
    let found: Vec<(&str, usize, f64)> =
        adapter.modules.iter().map(|m| (m.name.as_str(), m.rank(), m.scaling)).collect();
    let (plain, down) = (16.0 / 8f64.sqrt(), 16.0 / 2f64.sqrt());
    assert_eq!(
        found,
        [
            ("transformer.h.0.attn.c_attn", 4, 8.0),
            ("transformer.h.0.attn.c_proj", 8, plain),
            ("transformer.h.0.mlp.c_fc", 8, plain),
            ("transformer.h.0.mlp.c_proj", 2, down),
            ("transformer.h.1.attn.c_attn", 8, plain),
            ("transformer.h.1.attn.c_proj", 8, plain),
            ("transformer.h.1.mlp.c_fc", 8, 4.0 / 8f64.sqrt()),
            ("transformer.h.1.mlp.c_proj", 2, down),
        ]
    );
}

#[test]
fn the_first_pattern_in_the_file_wins() {
    let first = r#""rank_pattern": {"q": 1, "l.0.q": 3}, "alpha_pattern": {"l.0.q": 6, "q": 10}"#;
    let mut folder = Folder::empty(first);
    for layer in 0..2 {
        folder.f32(&format!("base_model.model.l.{layer}.q.lora_A.weight"), &[1, 2], &[1.0, 0.0]);
        folder.f32(&format!("base_model.model.l.{layer}.q.lora_B.weight"), &[1, 1], &[1.0]);
    }
    let adapter = Adapter::load(folder.write().path()).unwrap();
    assert_eq!(adapter.modules.iter().map(|m| m.scaling).collect::<Vec<_>>(), [6.0, 10.0]);
}

/// The matrices are square, so only their names state the orientation.
#[test]
fn orientation_does_not_come_from_the_shape() {
    for fan_in_fan_out in [false, true] {
        let mut square = Folder::empty(&format!(r#""fan_in_fan_out": {fan_in_fan_out}"#));
        square.f32("base_model.model.m.lora_A.weight", &[2, 2], &[1.0, 2.0, 3.0, 4.0]);
        square.f32("base_model.model.m.lora_B.weight", &[2, 2], &[1.0, 10.0, 100.0, 1000.0]);
        let adapter = Adapter::load(square.write().path()).unwrap();
        // A x = (1, 3) for the first unit vector; B (1, 3) = (31, 3100); scaling 4 / 2.
        assert_eq!(
            adapter.modules[0].delta(&[&[1.0, 0.0]]),
            [62.0, 6200.0],
            "fan_in_fan_out {fan_in_fan_out}"
        );
    }
}

#[test]
fn a_transposed_matrix_is_refused_and_not_transposed_back() {
    let mut folder = Folder::plain();
    folder.f32("base_model.model.m.lora_A.weight", &[3, 2], &[1.0; 6]);
    let error = Adapter::load(folder.write().path()).unwrap_err().to_string();
    assert!(
        error.contains("base_model.model.m.lora_A.weight") && error.contains("[3, 2]"),
        "{error}"
    );
    assert!(error.contains("[2, d_in]"), "{error}");
}

#[test]
fn half_precision_weights_are_widened_exactly() {
    let values: Vec<f32> = vec![0.1, -2.5, 1e-7, 3.0, 65504.0, -0.0];
    type Encode = fn(f32) -> ([u8; 2], f32);
    let encodings: [(Dtype, Encode); 2] = [
        (Dtype::F16, |v| (f16::from_f32(v).to_le_bytes(), f16::from_f32(v).to_f32())),
        (Dtype::BF16, |v| (bf16::from_f32(v).to_le_bytes(), bf16::from_f32(v).to_f32())),
    ];
    for (dtype, encode) in encodings {
        let mut folder = Folder::plain();
        let bytes = values.iter().flat_map(|&v| encode(v).0).collect();
        folder.raw("base_model.model.m.lora_A.weight", dtype, &[2, 3], bytes);
        let adapter = Adapter::load(folder.write().path()).unwrap();
        let expected: Vec<f32> = values.iter().map(|&v| encode(v).1).collect();
        assert_eq!(adapter.modules[0].branches[0].steps[0].values, expected);
    }
}

#[test]
fn settings_left_out_have_the_defaults_of_peft() {
    let mut folder = Folder::empty("");
    folder.config = r#"{"peft_type": "LORA"}"#.into();
    folder.f32("base_model.model.m.lora_A.weight", &[8, 1], &[1.0; 8]);
    folder.f32("base_model.model.m.lora_B.weight", &[1, 8], &[1.0; 8]);
    let adapter = Adapter::load(folder.write().path()).unwrap();
    assert_eq!((adapter.modules[0].rank(), adapter.modules[0].scaling), (8, 1.0));
    assert_eq!(adapter.base_model.name, "");
}
