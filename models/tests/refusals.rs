//! Unsupported or invalid adapters are refused with an error that names the reason; no input makes
//! the reader panic.
#![allow(clippy::unwrap_used)]

mod support;

use proptest::prelude::*;
use safetensors::Dtype;
use support::{Folder, config, fixture, write_folder};
use zklora_files::Kind;
use zklora_models::{Adapter, Error};

fn refused(folder: &Folder) -> String {
    Adapter::load(folder.write().path()).unwrap_err().to_string()
}

fn load_with(more_config: &str) -> Result<Adapter, Error> {
    let mut folder = Folder::plain();
    folder.config = config(more_config);
    Adapter::load(folder.write().path())
}

#[test]
fn every_unsupported_setting_is_refused_by_name() {
    for (key, value) in [
        ("alora_invocation_tokens", "[1, 2]"),
        ("arrow_config", "{}"),
        ("bias", "true"),
        ("bias", r#""some""#),
        ("ensure_weight_tying", "true"),
        ("init_lora_weights", r#""pissa""#),
        ("init_lora_weights", r#""pissa_niter_16""#),
        ("init_lora_weights", r#""olora""#),
        ("init_lora_weights", r#""corda""#),
        ("init_lora_weights", r#""loftq""#),
        ("init_lora_weights", r#""lora_ga""#),
        ("init_lora_weights", "null"),
        ("kasa_config", r#"{"beta": 0.1}"#),
        ("kasa_config", "{}"),
        ("layer_replication", "[[0, 4], [2, 5]]"),
        ("megatron_config", r#"{"a": 1}"#),
        ("monteclora_config", "{}"),
        ("target_parameters", r#""experts.gate_up_proj""#),
        ("target_parameters", "[1]"),
        ("trainable_token_indices", "1"),
        ("trainable_token_indices", "[0, 0]"),
        ("trainable_token_indices", r#"{"wte": [-1]}"#),
        ("use_bdlora", r#"{"nblocks": 2}"#),
        ("use_dora", "true"),
        ("use_qalora", "true"),
        ("velora_config", "{}"),
        // Unknown to every version of peft.
        ("use_tomorrow", "true"),
        ("use_tomorrow", r#""yes""#),
        ("tomorrow_size", "0"),
        // A known key with a value of another type.
        ("use_rslora", r#""true""#),
        ("lora_bias", "1"),
        ("revision", "3"),
        ("rank_pattern", "[]"),
        ("rank_pattern", r#"{"m": 0}"#),
        ("rank_pattern", r#"{"m": 2.0}"#),
        ("rank_pattern", r#"{"m": true}"#),
        ("rank_pattern", r#"{"((a{1000}){1000}){1000}": 2}"#),
        ("rank_pattern", r#"{"(": 2}"#),
        ("alpha_pattern", r#"{"m": "4"}"#),
        ("alpha_pattern", r#"{"m": null}"#),
        ("alpha_pattern", r#"{"(?i)m": 4}"#),
    ] {
        let error = load_with(&format!("\"{key}\": {value}")).unwrap_err();
        let Error::Config { key: named, .. } = &error else { unreachable!("{key}: {error}") };
        assert_eq!(named, key);
        assert!(error.to_string().contains(&format!("`{key}`")), "{error}");
    }
}

#[test]
fn a_setting_that_is_off_is_accepted() {
    for key in
        ["use_tomorrow", "modules_to_save", "layer_replication", "loftq_config", "megatron_config"]
    {
        for value in ["null", "false", "[]", "{}"] {
            load_with(&format!("\"{key}\": {value}")).unwrap();
        }
    }
    for value in ["true", "false", r#""gaussian""#, r#""orthogonal""#, r#""eva""#, r#""mica""#] {
        load_with(&format!("\"init_lora_weights\": {value}")).unwrap();
    }
    // peft warns that it ignores these unless init_lora_weights names their method, and that value
    // is refused.
    for key in ["corda_config", "eva_config", "loftq_config", "lora_ga_config"] {
        load_with(&format!(r#""{key}": {{"some": 4}}, "init_lora_weights": true"#)).unwrap();
        let error = load_with(&format!(r#""{key}": {{"some": 4}}, "init_lora_weights": "loftq""#))
            .unwrap_err();
        assert!(
            matches!(&error, Error::Config { key, .. } if key == "init_lora_weights"),
            "{error}"
        );
    }
    load_with(r#""use_dora": false, "bias": "none", "rank_pattern": null, "alpha_pattern": {}, "revision": null"#)
        .unwrap();
}

#[test]
fn other_adapter_types_and_wrong_numbers_are_refused() {
    for (text, key) in [
        (r#"{"peft_type": "lora", "r": 2}"#, "peft_type"),
        (r#"{"r": 2}"#, "peft_type"),
        (
            r#"{"peft_type": "LORA", "base_model_name_or_path": "\u001b[31mred"}"#,
            "base_model_name_or_path",
        ),
        (r#"{"peft_type": "LORA", "r": 0}"#, "r"),
        (r#"{"peft_type": "LORA", "r": NaN}"#, "r"),
        (r#"{"peft_type": "LORA", "r": 2, "lora_alpha": -Infinity}"#, "lora_alpha"),
        (r#"{"peft_type": "LORA", "r": -2}"#, "r"),
        (r#"{"peft_type": "LORA", "r": "2"}"#, "r"),
        (r#"{"peft_type": "LORA", "r": null}"#, "r"),
        (r#"{"peft_type": "LORA", "r": 2, "lora_alpha": "4"}"#, "lora_alpha"),
        (r#"{"peft_type": "LORA", "r": 2, "lora_alpha": 1e300}"#, "lora_alpha"),
        (r#"{"peft_type": "LORA", "r": 2, "lora_alpha": 1e-300}"#, "lora_alpha"),
    ] {
        let mut folder = Folder::plain();
        folder.config = text.into();
        let error = refused(&folder);
        assert!(error.contains(&format!("key `{key}`")), "{text}: {error}");
    }
}

#[test]
fn tensors_that_belong_to_no_module_are_refused_by_name() {
    for (tensor, hint) in [
        ("base_model.model.attn.base_layer.out_proj.lora_A.weight", "inside another adapted layer"),
        ("base_model.model.m.lora_A.default.weight", "--rename .default="),
        ("base_model.model.wte.lora_embedding_A.default", "--rename .default="),
        ("base_model.model.m.lora_embedding_C", "embedding"),
        ("base_model.model.m.lora_magnitude_vector", "DoRA"),
        ("base_model.model.m.lora_magnitude_vector.weight", "DoRA"),
        ("base_model.model.score.modules_to_save.weight", "trained whole"),
        ("base_model.model.m.lora_mid.weight", "no tensor of peft"),
        ("m.lora_A.weight", "--rename =base_model.model."),
        ("base_model.model.m.lora_A.bias", "lora_A.weight"),
        ("base_model.model.m.lora_B.bias", "lora_bias"),
    ] {
        let mut folder = Folder::plain();
        folder.f32(tensor, &[4], &[0.0; 4]);
        let error = refused(&folder);
        assert!(error.contains(&format!("`{tensor}`")) && error.contains(hint), "{error}");
    }
}

#[test]
fn a_missing_partner_is_named() {
    for part in ["lora_A.weight", "lora_B.weight"] {
        let tensor = format!("base_model.model.m.{part}");
        let mut folder = Folder::plain();
        folder.remove(&tensor);
        assert!(refused(&folder).contains(&format!("`{tensor}`: is missing")));
    }
    let error = load_with(r#""lora_bias": true"#).unwrap_err().to_string();
    assert!(error.contains("`base_model.model.m.lora_B.bias`: is missing"), "{error}");
    assert!(refused(&Folder::empty("")).contains("holds no tensor"));
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    for (part, shape) in [
        ("lora_A.weight", &[3, 2][..]),
        ("lora_A.weight", &[4, 3]),
        ("lora_A.weight", &[6]),
        ("lora_A.weight", &[2, 0, 1]),
        ("lora_A.weight", &[3, 3, 1]),
        ("lora_A.weight", &[2, 1, 1, 1, 1, 1]),
        ("lora_A.weight", &[2, 0]),
        ("lora_B.weight", &[0, 2]),
        ("lora_B.weight", &[2, 4]),
        ("lora_B.bias", &[5]),
        ("lora_B.bias", &[4, 1]),
    ] {
        let mut folder = Folder::plain();
        folder.config = config(r#""lora_bias": true"#);
        folder.f32("base_model.model.m.lora_B.bias", &[4], &[0.0; 4]);
        let tensor = format!("base_model.model.m.{part}");
        folder.f32(&tensor, shape, &vec![0.0; shape.iter().product()]);
        let error = refused(&folder);
        assert!(
            error.contains(&format!("`{tensor}`")) && error.contains(&format!("{shape:?}")),
            "{error}"
        );
    }
}

#[test]
fn weights_that_are_not_finite_are_refused_by_module_and_tensor() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut folder = Folder::plain();
        folder.f32(
            "base_model.model.m.lora_B.weight",
            &[4, 2],
            &[0.0, 0.0, 0.0, value, 0.0, 0.0, 0.0, 0.0],
        );
        let error = refused(&folder);
        assert!(error.contains("module `m`") && error.contains("lora_B.weight"), "{error}");
        assert!(error.contains("position 3"), "{error}");
    }
}

#[test]
fn types_that_are_not_floating_point_are_refused() {
    for dtype in [Dtype::I32, Dtype::U8, Dtype::F8_E8M0, Dtype::I64] {
        let mut folder = Folder::plain();
        let bytes = vec![0; 6 * dtype.bitsize() / 8];
        folder.raw("base_model.model.m.lora_A.weight", dtype, &[2, 3], bytes);
        let error = refused(&folder);
        assert!(error.contains("lora_A.weight") && error.contains(&dtype.to_string()), "{error}");
    }
}

#[test]
fn names_that_no_module_can_have_are_refused() {
    for name in ["../../evil", "..", "a\u{202e}b", "", "a\nb", &"x".repeat(600)] {
        let mut folder = Folder::empty("");
        folder.f32(&format!("base_model.model.{name}.lora_A.weight"), &[2, 3], &[1.0; 6]);
        folder.f32(&format!("base_model.model.{name}.lora_B.weight"), &[4, 2], &[1.0; 8]);
        let error = Adapter::load(folder.write().path()).unwrap_err();
        assert!(matches!(error, Error::ModuleName { .. }), "{error}");
        let text = error.to_string();
        assert!(!text.contains('\n') && text.len() < 500, "messages are escaped and short: {text}");
    }
}

#[test]
fn fixtures_that_cannot_be_read_say_why() {
    let refused = |name: &str| Adapter::load(&fixture(name)).unwrap_err().to_string();
    let pickle = refused("gpt2_c_attn_r4_bin");
    assert!(
        pickle.contains("adapter_model.bin") && pickle.contains("s.save_file({k: v.contiguous()"),
        "{pickle}"
    );
    let absent = refused("no_such_adapter");
    assert!(
        absent.contains("adapter_config.json") && absent.contains("save_pretrained"),
        "{absent}"
    );
}

#[test]
fn files_that_are_too_long_are_not_read() {
    let dir = write_folder(&vec![b' '; (1 << 20) + 1], &Folder::plain().weights());
    assert!(matches!(Adapter::load(dir.path()), Err(Error::File(e)) if e.kind == Kind::TooLarge));
    // A sparse file of 17 GiB takes no space on the disk.
    let dir = Folder::plain().write();
    let weights = std::fs::OpenOptions::new()
        .write(true)
        .open(dir.path().join("adapter_model.safetensors"))
        .unwrap();
    weights.set_len(17 << 30).unwrap();
    assert!(matches!(Adapter::load(dir.path()), Err(Error::File(e)) if e.kind == Kind::TooLarge));
}

#[test]
fn a_weights_file_cut_anywhere_or_continued_is_refused() {
    let weights = Folder::plain().weights();
    let config = config("");
    for cut in 0..weights.len() {
        let dir = write_folder(config.as_bytes(), &weights[..cut]);
        assert!(Adapter::load(dir.path()).is_err(), "cut at {cut}");
    }
    let dir = write_folder(config.as_bytes(), &[&weights[..], &[0]].concat());
    assert!(matches!(Adapter::load(dir.path()), Err(Error::Safetensors { .. })));
}

#[test]
fn any_flipped_bit_in_the_header_is_refused_or_read_without_a_panic() {
    let weights = Folder::plain().weights();
    let header = 8 + u64::from_le_bytes(*weights.first_chunk().unwrap()) as usize;
    let dir = Folder::plain().write();
    for byte in 0..header {
        for bit in 0..8 {
            let mut changed = weights.clone();
            changed[byte] ^= 1 << bit;
            std::fs::write(dir.path().join("adapter_model.safetensors"), changed).unwrap();
            // Some flips give another valid name. Only a panic fails the test.
            if let Ok(adapter) = Adapter::load(dir.path()) {
                assert_eq!(adapter.modules.len(), 1);
            }
        }
    }
}

#[test]
fn a_config_cut_anywhere_is_refused() {
    let full = Folder::plain().config;
    for cut in 0..full.len() {
        let mut folder = Folder::plain();
        folder.config.truncate(cut);
        assert!(Adapter::load(folder.write().path()).is_err(), "cut at {cut}");
    }
    for text in [
        "[]",
        "null",
        "1",
        r#"{"peft_type": "LORA", "r": 2, "r": 2}"#,
        r#"{"peft_type": "LORA", "r": NaNs}"#,
    ] {
        let mut folder = Folder::plain();
        folder.config = text.into();
        assert!(matches!(Adapter::load(folder.write().path()), Err(Error::Json { .. })), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_bytes_make_the_reader_panic(config in prop::collection::vec(any::<u8>(), 0..200), weights in prop::collection::vec(any::<u8>(), 0..200)) {
        let dir = write_folder(&config, &Folder::plain().weights());
        prop_assert!(Adapter::load(dir.path()).is_err());
        let dir = write_folder(Folder::plain().config.as_bytes(), &weights);
        prop_assert!(Adapter::load(dir.path()).is_err());
    }

    #[test]
    fn no_pattern_makes_the_reader_panic(pattern in "[a-z.*+?()|\\[\\]{}\\\\^$0-9,-]{0,24}") {
        let key = serde_json::to_string(&pattern).unwrap();
        // A pattern may match the module and change its rank, so that the shapes no longer fit.
        if let Err(error) = load_with(&format!("\"rank_pattern\": {{{key}: 3}}")) {
            let expected = matches!(error, Error::Config { .. } | Error::Tensor { .. });
            prop_assert!(expected, "{}", error);
        }
    }
}
