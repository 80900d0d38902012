//! Adapter types other than plain LoRA: what they need, what is refused, and hostile tensors.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;

use support::{Folder, base, fixture, load, write_folder};
use zklora_models::{Adapter, Error, Kind, fingerprint};

/// A tensor by the end of its name, its shape and values.
type Tensor<'a> = (&'a str, &'a [usize], &'a [f32]);

/// An adapter of one module `m`.
fn folder(kind: &str, more_config: &str, tensors: &[Tensor]) -> Folder {
    let mut folder = Folder::empty("");
    let comma = if more_config.is_empty() { "" } else { ", " };
    folder.config = format!(r#"{{"peft_type": "{kind}"{comma}{more_config}}}"#);
    for (end, shape, values) in tensors {
        folder.f32(&format!("base_model.model.m.{end}"), shape, values);
    }
    folder
}

/// A base model of one layer `m`.
fn base_of(tensors: &[Tensor]) -> tempfile::TempDir {
    let mut model = Folder::empty("");
    for (name, shape, values) in tensors {
        model.f32(name, shape, values);
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("model.safetensors"), model.weights()).unwrap();
    dir
}

fn refused(folder: &Folder, base: Option<&Path>) -> String {
    Adapter::load_with_base(folder.write().path(), base).unwrap_err().to_string()
}

const LOHA: [Tensor; 4] = [
    ("hada_w1_a", &[4, 1], &[1.0, 2.0, 3.0, 4.0]),
    ("hada_w1_b", &[1, 3], &[1.0, 10.0, 100.0]),
    ("hada_w2_a", &[4, 1], &[1.0, 1.0, 1.0, 2.0]),
    ("hada_w2_b", &[1, 3], &[1.0, 1.0, 0.5]),
];

const DORA: [Tensor; 3] = [
    ("lora_A.weight", &[1, 2], &[1.0, 0.0]),
    ("lora_B.weight", &[2, 1], &[3.0, 0.0]),
    ("lora_magnitude_vector", &[2], &[10.0, 1.0]),
];

#[test]
fn every_other_type_is_refused_by_name_with_those_that_are_supported() {
    for kind in [
        "ADAPTION_PROMPT",
        "BOFT",
        "BONE",
        "C3A",
        "CPT",
        "FOURIERFT",
        "HRA",
        "LN_TUNING",
        "MISS",
        "MULTITASK_PROMPT_TUNING",
        "OFT",
        "POLY",
        "PREFIX_TUNING",
        "PROMPT_TUNING",
        "P_TUNING",
        "RANDLORA",
        "ROAD",
        "SHIRA",
        "TRAINABLE_TOKENS",
        "VBLORA",
        "XLORA",
        "SOMETHING_NEW",
    ] {
        let error = refused(&folder(kind, "", &[]), None);
        assert!(error.contains("`peft_type`") && error.contains(&format!("\"{kind}\"")), "{error}");
        assert!(error.contains("supported are LORA, ADALORA, VERA, IA3, LOHA, LOKR"), "{error}");
    }
}

#[test]
fn keys_that_may_change_something_are_refused_for_every_type() {
    for kind in ["LORA", "ADALORA", "VERA", "IA3", "LOHA", "LOKR"] {
        for (key, value) in [("bias", "true"), ("tomorrow", "1")] {
            let error = refused(&folder(kind, &format!("\"{key}\": {value}"), &[]), None);
            assert!(error.contains(&format!("key `{key}`")), "{kind}: {error}");
        }
    }
    // A key of another type is unknown.
    assert!(refused(&folder("IA3", r#""alpha": 2"#, &[]), None).contains("key `alpha`"));
}

#[test]
fn dora_and_vera_need_the_base_model() {
    for (name, key) in [("gpt2_dora_r4", "`use_dora`"), ("gpt2_vera_r8", "`peft_type`")] {
        let error = Adapter::load(&fixture(name)).unwrap_err().to_string();
        assert!(error.contains(key) && error.contains("--base"), "{error}");
        let other =
            Adapter::load_with_base(&fixture(name), Some(&base("llama"))).unwrap_err().to_string();
        assert!(other.contains("transformer.h.0.") && other.contains("trained on"), "{other}");
    }
    assert_eq!(
        load("gpt2_dora_r4").base_model.fingerprint,
        Some(fingerprint(&base("gpt2")).unwrap())
    );
}

/// W = [[1, 4], [0, 2]] and s·BA = [[3, 0], [0, 0]]: norms √32 and 2 as stored, √25 and √20
/// transposed.
#[test]
fn fan_in_fan_out_states_the_orientation_of_a_square_base_layer() {
    let base =
        base_of(&[("m.weight", &[2, 2], &[1.0, 4.0, 0.0, 2.0]), ("m.bias", &[2], &[0.5, 0.0])]);
    for (transposed, norms) in [(false, [32f64.sqrt(), 2.0]), (true, [4.0, 20f64.sqrt()])] {
        let config =
            format!(r#""r": 1, "lora_alpha": 1, "use_dora": true, "fan_in_fan_out": {transposed}"#);
        let adapter = Adapter::load_with_base(
            folder("LORA", &config, &DORA).write().path(),
            Some(base.path()),
        )
        .unwrap();
        let delta = adapter.modules[0].delta(&[&[2.0, 0.0], &[1.5, 1.0]]);
        let m = [10.0 / norms[0], 1.0 / norms[1]];
        let expected = [(m[0] - 1.0) * 1.0 + m[0] * 6.0, m[1] - 1.0];
        support::assert_close(delta, &expected, 1e-6, "dora");
    }
}

#[test]
fn square_layers_are_refused_where_fan_in_fan_out_is_known_to_be_wrong() {
    let mut adapter = folder("LORA", r#""r": 1, "use_dora": true"#, &DORA);
    for (end, shape) in [("lora_A.weight", [1, 3]), ("lora_B.weight", [2, 1])] {
        adapter.f32(&format!("base_model.model.n.{end}"), &shape, &[1.0; 3][..shape[0] * shape[1]]);
    }
    adapter.f32("base_model.model.n.lora_magnitude_vector", &[2], &[1.0; 2]);
    let linear = base_of(&[("m.weight", &[2, 2], &[1.0; 4]), ("n.weight", &[2, 3], &[1.0; 6])]);
    assert!(Adapter::load_with_base(adapter.write().path(), Some(linear.path())).is_ok());
    let conv1d = base_of(&[("m.weight", &[2, 2], &[1.0; 4]), ("n.weight", &[3, 2], &[1.0; 6])]);
    let error = refused(&adapter, Some(conv1d.path()));
    assert!(error.contains("`m.weight`") && error.contains("fan_in_fan_out"), "{error}");
}

/// A DoRA adapter with rank 1 on layers of these features, by name.
fn dora_on(layers: &[(&str, usize, usize)], fan_in_fan_out: bool) -> Folder {
    let mut adapter = folder(
        "LORA",
        &format!(r#""r": 1, "use_dora": true, "fan_in_fan_out": {fan_in_fan_out}"#),
        &[],
    );
    for (name, d_in, d_out) in layers {
        let name = |end: &str| format!("base_model.model.{name}.{end}");
        adapter.f32(&name("lora_A.weight"), &[1, *d_in], &vec![1.0; *d_in]);
        adapter.f32(&name("lora_B.weight"), &[*d_out, 1], &vec![1.0; *d_out]);
        adapter.f32(&name("lora_magnitude_vector"), &[*d_out], &vec![1.0; *d_out]);
    }
    adapter
}

/// The config states the orientation of the layer that was wrapped last, so it may be wrong for a
/// square layer of the other class.
#[test]
fn square_layers_are_refused_among_layers_of_both_classes_unless_something_confirms_the_config() {
    let base = base_of(&[
        ("c_proj.weight", &[2, 2], &[1.0; 4]),
        ("query.weight", &[2, 2], &[1.0; 4]),
        ("c_attn.weight", &[2, 6], &[1.0; 12]),
        ("lm_head.weight", &[5, 2], &[1.0; 10]),
    ]);
    let load = |layers: &[(&str, usize, usize)], fan_in_fan_out| {
        let adapter = dora_on(layers, fan_in_fan_out);
        Adapter::load_with_base(adapter.write().path(), Some(base.path()))
            .map_err(|e| e.to_string())
    };
    let (c_proj, query, c_attn, lm_head) =
        (("c_proj", 2, 2), ("query", 2, 2), ("c_attn", 2, 6), ("lm_head", 2, 5));
    // GPT-2's c_proj is a Conv1D, but lm_head, which is Linear, was wrapped last.
    assert!(load(&[c_proj, lm_head], false).unwrap_err().contains("`c_proj.weight`"));
    assert!(load(&[query, c_attn], true).unwrap_err().contains("`query.weight`"));
    // Here the config agrees with the name, or with another layer of the class.
    for (layers, fan_in_fan_out) in [
        (&[c_proj, lm_head][..], true),
        (&[query, c_attn], false),
        (&[c_proj, c_attn, lm_head], true),
        (&[c_proj], false),
        (&[c_proj], true),
        (&[query], true),
    ] {
        load(layers, fan_in_fan_out).unwrap();
    }
    // Another layer of the class contradicts the config.
    assert!(load(&[c_proj, c_attn], false).unwrap_err().contains("`c_proj.weight`"));
}

#[test]
fn the_bias_of_a_tied_head_is_subtracted_from_the_base_output() {
    let base = base_of(&[
        ("model.embed_tokens.weight", &[2, 2], &[1.0, 0.0, 0.0, 1.0]),
        ("lm_head.bias", &[2], &[0.5, 0.25]),
    ]);
    let adapter = dora_on(&[("lm_head", 2, 2)], false);
    let module =
        &Adapter::load_with_base(adapter.write().path(), Some(base.path())).unwrap().modules[0];
    let shift =
        module.branches[1].steps.iter().find(|step| step.name == "minus_base_bias").unwrap();
    assert_eq!(shift.values, [-0.5, -0.25]);
}

#[test]
fn a_base_model_whose_layers_have_other_sizes_is_refused_for_every_type() {
    let base = base_of(&[("m.weight", &[4, 3], &[1.0; 12])]);
    let loha = folder("LOHA", r#""r": 1, "alpha": 1"#, &LOHA);
    assert!(Adapter::load_with_base(loha.write().path(), Some(base.path())).is_ok());
    let convolution = base_of(&[("m.weight", &[4, 3, 1], &[1.0; 12])]);
    let loaded = Adapter::load_with_base(loha.write().path(), Some(convolution.path())).unwrap();
    // A convolution's tensors look like those of a linear layer; its layer has more dimensions.
    assert_eq!(loaded.modules[0].kind, Kind::Convolution);
    let shapes: [&[usize]; 4] = [&[4, 4], &[4, 2, 1], &[4, 3, 2], &[12]];
    for shape in shapes {
        let other = base_of(&[("m.weight", shape, &vec![1.0; shape.iter().product()])]);
        assert!(
            refused(&loha, Some(other.path())).contains("does not fit the adapter's module"),
            "{shape:?}"
        );
    }
}

#[test]
fn a_base_layer_that_does_not_fit_is_refused() {
    let dora = |base: &[Tensor]| {
        let adapter = folder("LORA", r#""r": 1, "use_dora": true"#, &DORA);
        refused(&adapter, Some(base_of(base).path()))
    };
    assert!(dora(&[("m.weight", &[2, 3], &[1.0; 6])]).contains("[2, 3]"));
    assert!(dora(&[("m.weight", &[4], &[1.0; 4])]).contains("[4]"));
    assert!(dora(&[("x.weight", &[2, 2], &[1.0; 4])]).contains("`m.weight`"));
    assert!(dora(&[("m.weight", &[2, 2], &[f32::NAN; 4])]).contains("NaN"));
    assert!(
        dora(&[("m.weight", &[2, 2], &[1.0; 4]), ("m.bias", &[3], &[1.0; 3])]).contains("m.bias")
    );
    // The second output's weights are all zero, so their norm is, too.
    assert!(dora(&[("m.weight", &[2, 2], &[1.0, 1.0, 0.0, 0.0])]).contains("output 1"));
    let bias = folder("LORA", r#""r": 1, "use_dora": true, "lora_bias": true"#, &DORA);
    assert!(refused(&bias, None).contains("`lora_bias`"));
    let without = folder("LORA", r#""r": 1, "use_dora": true"#, &DORA[..2]);
    let base = base_of(&[("m.weight", &[2, 2], &[1.0; 4])]);
    assert!(refused(&without, Some(base.path())).contains("m.lora_magnitude_vector`: is missing"));
}

#[test]
fn a_copy_of_a_base_weight_must_be_the_base_weight() {
    let name = "llama_embedding_dora_r2";
    let bytes = std::fs::read(fixture(name).join("adapter_model.safetensors")).unwrap();
    let header = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let json: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let at = &json["base_model.model.model.embed_tokens.base_layer.weight"]["data_offsets"][0];
    let mut changed = bytes.clone();
    changed[8 + header + at.as_u64().unwrap() as usize] ^= 1;
    let dir =
        write_folder(&std::fs::read(fixture(name).join("adapter_config.json")).unwrap(), &changed);
    let error = Adapter::load_with_base(dir.path(), Some(&base(name))).unwrap_err().to_string();
    assert!(
        error.contains("embed_tokens.base_layer.weight") && error.contains("save_embedding_layers"),
        "{error}"
    );
}

#[test]
fn vera_without_its_projections_is_refused_with_a_remedy() {
    let lambdas: [Tensor; 2] =
        [("vera_lambda_b", &[2], &[1.0; 2]), ("vera_lambda_d", &[1], &[1.0])];
    assert!(
        refused(&folder("VERA", "", &lambdas), None).contains("`base_model.vera_A`: is missing")
    );
    assert!(
        refused(&folder("VERA", r#""save_projection": false"#, &lambdas), None)
            .contains("`save_projection`")
    );
    let base = base_of(&[("m.weight", &[2, 3], &[1.0; 6])]);
    let with = |a: &[usize], b: &[usize]| {
        let mut vera = folder("VERA", "", &lambdas);
        vera.f32("base_model.vera_A", a, &vec![1.0; a.iter().product()]);
        vera.f32("base_model.vera_B", b, &vec![1.0; b.iter().product()]);
        Adapter::load_with_base(vera.write().path(), Some(base.path()))
    };
    assert_eq!(with(&[1, 4], &[5, 1]).unwrap().modules[0].delta(&[&[1.0, 2.0, 3.0]]), [6.0, 6.0]);
    for (a, b) in
        [([1, 2], [5, 1]), ([1, 4], [1, 1]), ([2, 4], [5, 2]), ([1, 4], [5, 2]), ([0, 4], [5, 0])]
    {
        assert!(with(&a, &b).is_err(), "{a:?} {b:?}");
    }
}

#[test]
fn ia3_tells_input_from_output_by_the_shape_that_peft_saved() {
    for (shape, ok) in [
        (&[3, 1][..], true),
        (&[1, 3], true),
        (&[1, 1], false),
        (&[3], false),
        (&[2, 2], false),
        (&[1, 3, 1, 1], false),
    ] {
        let ia3 = folder("IA3", "", &[("ia3_l", shape, &vec![1.5; shape.iter().product()])]);
        match Adapter::load(ia3.write().path()) {
            Ok(adapter) => assert!(
                ok && adapter.modules[0].delta(&[&[2.0, 4.0, 6.0]]) == [1.0, 2.0, 3.0],
                "{shape:?}"
            ),
            Err(error) => assert!(!ok && error.to_string().contains("ia3_l`"), "{shape:?} {error}"),
        }
    }
}

#[test]
fn adalora_masks_must_be_lists_of_init_r_booleans() {
    let tensors: [Tensor; 3] = [
        ("lora_A", &[1, 2], &[1.0, 2.0]),
        ("lora_E", &[1, 1], &[3.0]),
        ("lora_B", &[1, 1], &[1.0]),
    ];
    let with = |pattern: &str| {
        let config = format!(r#""init_r": 2, "lora_alpha": 4, "rank_pattern": {pattern}"#);
        Adapter::load(folder("ADALORA", &config, &tensors).write().path())
    };
    let delta = with(r#"{"m.lora_E": [false, true]}"#).unwrap().modules[0].delta(&[&[1.0, 1.0]]);
    support::assert_close(delta, &[18.0], 1e-5, "alpha / (init_r + 1e-5)");
    for pattern in [
        r#"{"m.lora_E": [true]}"#,
        r#"{"m.lora_E": [true, 1]}"#,
        r#"{"m.lora_E": 1}"#,
        r#"{"m": [true, false]}"#,
        "[]",
        r#"{"m.lora_E": [true, true]}"#,
        // All of the adapter pruned away.
        r#"{"m.lora_E": [false, false]}"#,
        "null",
    ] {
        assert!(with(pattern).is_err(), "{pattern}");
    }
    assert!(
        refused(&folder("ADALORA", r#""lora_alpha": 0"#, &tensors), None).contains("`lora_alpha`")
    );
}

#[test]
fn loha_and_lokr_refuse_shapes_that_do_not_fit() {
    let delta = |kind: &str, config: &str, tensors: &[Tensor]| {
        Adapter::load(folder(kind, config, tensors).write().path())
            .map(|a| a.modules[0].delta(&[&[1.0, 1.0, 1.0]]))
    };
    assert_eq!(
        delta("LOHA", r#""r": 1, "alpha": 2"#, &LOHA).unwrap(),
        [122.0, 244.0, 366.0, 976.0]
    );
    assert!(refused(&folder("LOHA", r#""r": 2"#, &LOHA), None).contains("hada_w1_a"));
    for (at, shape) in
        [(0, &[1, 4][..]), (1, &[3, 1]), (2, &[3, 1]), (3, &[1, 4]), (1, &[3]), (0, &[0, 1])]
    {
        let mut changed = folder("LOHA", r#""r": 1"#, &LOHA);
        let name = format!("base_model.model.m.{}", LOHA[at].0);
        changed.f32(&name, shape, &vec![1.0; shape.iter().product()]);
        assert!(refused(&changed, None).contains("hada_w"), "{at} {shape:?}");
    }
    // The core of one factor only, and cores that are none.
    for shape in [&[1, 1, 3, 3][..], &[1, 2, 3, 3], &[1, 1], &[1, 1, 1, 1, 1, 1], &[2, 1, 3, 3]] {
        let mut tucker = folder("LOHA", r#""r": 1"#, &LOHA);
        tucker.f32("base_model.model.m.hada_t1", shape, &vec![1.0; shape.iter().product()]);
        assert!(refused(&tucker, None).contains("hada_"), "{shape:?}");
    }

    let (w1, w2): (Tensor, Tensor) =
        (("lokr_w1", &[2, 1], &[1.0, 2.0]), ("lokr_w2", &[1, 3], &[1.0, 10.0, 100.0]));
    assert_eq!(delta("LOKR", r#""r": 4, "alpha": 8"#, &[w1, w2]).unwrap(), [222.0, 444.0]);
    let convolution: Tensor = ("lokr_w2", &[1, 3, 1, 1], &[1.0, 10.0, 100.0]);
    assert_eq!(delta("LOKR", r#""r": 4, "alpha": 8"#, &[w1, convolution]).unwrap(), [222.0, 444.0]);
    // peft computes another map than a Kronecker product of kernels of one or three dimensions.
    for shape in [&[1, 3, 1][..], &[1, 1, 3], &[1, 3, 1, 1, 1]] {
        let kernel: Tensor = ("lokr_w2", shape, &[1.0, 10.0, 100.0]);
        let refused = refused(&folder("LOKR", "", &[w1, kernel]), None);
        assert!(refused.contains("kernels of two dimensions"), "{refused}");
    }
    assert!(delta("LOKR", "", &[w1]).is_err());
    assert!(delta("LOKR", "", &[w1, w2, ("lokr_w1_a", &[2, 8], &[1.0; 16])]).is_err());
    assert!(delta("LOKR", "", &[w1, w2, ("lokr_t2", &[1, 1, 3, 3], &[1.0; 9])]).is_err());
}

/// A Kronecker product of 2³⁰ numbers from a file of 256 kilobytes.
#[test]
fn small_files_cannot_ask_for_much_memory() {
    let ones = vec![1.0; 1 << 15];
    for shape in [[1 << 15, 1], [1, 1 << 15]] {
        let lokr = folder("LOKR", "", &[("lokr_w1", &shape, &ones), ("lokr_w2", &shape, &ones)]);
        let error = Adapter::load(lokr.write().path()).unwrap_err();
        assert!(
            matches!(error, Error::ModuleTooLarge { .. })
                && error.to_string().contains("module `m`"),
            "{error}"
        );
    }
}

#[test]
fn an_adapter_in_a_named_subfolder_is_found_if_it_is_the_only_one() {
    assert_eq!(
        Adapter::load(&fixture("llama_named_r2")).unwrap(),
        Adapter::load(&fixture("llama_named_r2/mine")).unwrap()
    );
    let dir = tempfile::tempdir().unwrap();
    let add = |name: &str| {
        std::fs::create_dir(dir.path().join(name)).unwrap();
        for file in ["adapter_config.json", "adapter_model.safetensors"] {
            std::fs::copy(fixture("llama_qv_r4").join(file), dir.path().join(name).join(file))
                .unwrap();
        }
    };
    std::fs::create_dir(dir.path().join("runs")).unwrap();
    assert!(matches!(Adapter::load(dir.path()), Err(Error::Missing { .. })));
    add("b");
    assert_eq!(Adapter::load(dir.path()).unwrap().modules.len(), 4);
    add("a");
    let error = Adapter::load(dir.path()).unwrap_err().to_string();
    assert!(error.contains("several adapters, `a`, `b`"), "{error}");
    // Its own adapter comes first.
    std::fs::copy(
        fixture("gpt2_c_attn_r4_bin/adapter_config.json"),
        dir.path().join("adapter_config.json"),
    )
    .unwrap();
    assert!(matches!(Adapter::load(dir.path()), Err(Error::Missing { .. })));
}

#[test]
fn any_cut_of_any_type_is_refused() {
    for name in ["llama_adalora_r5", "llama_ia3", "llama_loha_r3", "llama_lokr_r2"] {
        let weights = std::fs::read(fixture(name).join("adapter_model.safetensors")).unwrap();
        let config = std::fs::read(fixture(name).join("adapter_config.json")).unwrap();
        for cut in (0..weights.len()).step_by(997) {
            assert!(
                Adapter::load(write_folder(&config, &weights[..cut]).path()).is_err(),
                "{name} {cut}"
            );
        }
        for cut in (0..config.len() - 1).step_by(7) {
            assert!(
                Adapter::load(write_folder(&config[..cut], &weights).path()).is_err(),
                "{name} {cut}"
            );
        }
    }
}
