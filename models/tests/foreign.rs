//! Adapters that other libraries wrote (`fixtures/foreign`, made with them by
//! `fixtures/make/foreign.py`) have the deltas of these libraries.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};

use safetensors::Dtype;
use support::{Folder, assert_close, recorded_in};
use zklora_models::{Adapter, Error, Form, LoadOptions};

fn foreign(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/foreign").join(case)
}

/// The adapter of a case, with the base model that lies there if `with_base`.
fn load(case: &str, with_base: bool) -> Adapter {
    let base = foreign(case).join("base");
    let base = with_base.then_some(base.as_path());
    Adapter::load_with_base(&path(case), base).unwrap()
}

/// The file of LyCORIS, or the folder of MLX.
fn path(case: &str) -> PathBuf {
    let file = foreign(case).join("adapter.safetensors");
    if file.exists() { file } else { foreign(case) }
}

#[test]
fn deltas_are_those_of_their_own_libraries() {
    for (case, with_base) in [
        ("lycoris_mixed", false),
        ("lycoris_convolutions", false),
        ("lycoris_dora", true),
        ("lycoris_magnitudes", true),
        ("mlx_dora", true),
        ("mlx_lora_bias", false),
        ("mlx_lora_bias", true),
    ] {
        let adapter = load(case, with_base);
        let recorded = recorded_in(&foreign(case).join("expected.safetensors"));
        assert_eq!(adapter.modules.len(), recorded.len(), "{case}");
        for (name, io) in recorded {
            let module = adapter.modules.iter().find(|module| module.name == name).unwrap();
            let what = format!("{case} {name}");
            assert_close(module.delta(&io.inputs(module)), &io.expected(), 1e-5, &what);
        }
    }
}

#[test]
fn each_module_of_a_file_has_its_form() {
    let adapter = load("lycoris_mixed", false);
    let forms: Vec<(&str, Form)> =
        adapter.modules.iter().map(|of| (of.name.as_str(), of.form)).collect();
    assert_eq!(
        forms,
        [
            ("lycoris_blocks_0_k", Form::Lora),
            ("lycoris_blocks_0_q", Form::Lora),
            ("lycoris_blocks_0_v", Form::LoHa),
            ("lycoris_blocks_1_k", Form::LoKr),
            ("lycoris_blocks_1_q", Form::LoKr),
            ("lycoris_blocks_1_v", Form::LoKr),
        ]
    );
    // DoRA needs the base model.
    let error = Adapter::load(&path("lycoris_dora")).unwrap_err().to_string();
    assert!(error.contains("DoRA") && error.contains("--base"), "{error}");
}

/// One safetensors file of matrices whose values are all 1, and of scalars.
struct File(Vec<(String, Vec<usize>, Vec<f32>)>);

impl File {
    fn ones(mut self, name: &str, shape: &[usize]) -> File {
        self.0.push((name.into(), shape.to_vec(), vec![1.0; shape.iter().product()]));
        self
    }

    fn scalar(mut self, name: &str, value: f32) -> File {
        self.0.push((name.into(), vec![], vec![value]));
        self
    }

    fn load(&self, metadata: &[(&str, &str)], options: &LoadOptions) -> Result<Adapter, Error> {
        let dir = tempfile::tempdir().unwrap();
        let bytes: Vec<(&str, &[usize], Vec<u8>)> = self
            .0
            .iter()
            .map(|(name, shape, values)| {
                let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                (name.as_str(), shape.as_slice(), bytes)
            })
            .collect();
        let views = bytes.iter().map(|(name, shape, bytes)| {
            let view = safetensors::tensor::TensorView::new(Dtype::F32, shape.to_vec(), bytes);
            (*name, view.unwrap())
        });
        let metadata = metadata.iter().map(|(key, value)| (key.to_string(), value.to_string()));
        let file = safetensors::serialize(views, Some(metadata.collect())).unwrap();
        let path = dir.path().join("lora.safetensors");
        std::fs::write(&path, file).unwrap();
        // The file itself, or the folder in which it is the only one.
        let read = Adapter::load_with(&path, options);
        let of_folder = Adapter::load_with(dir.path(), options);
        assert_eq!(read.as_ref().ok(), of_folder.as_ref().ok());
        read
    }
}

fn scalings(adapter: &Adapter) -> Vec<(&str, f64)> {
    adapter.modules.iter().map(|module| (module.name.as_str(), module.scaling)).collect()
}

#[test]
fn alpha_is_that_of_the_module_or_its_rank() {
    let file = File(vec![])
        .ones("lora_unet_a.lora_down.weight", &[2, 3])
        .ones("lora_unet_a.lora_up.weight", &[4, 2])
        .scalar("lora_unet_a.alpha", 1.0)
        .ones("lora_unet_b.lora_down.weight", &[2, 3])
        .ones("lora_unet_b.lora_up.weight", &[4, 2])
        .ones("lora_te_c.lora_down.weight", &[4, 3])
        .ones("lora_te_c.lora_up.weight", &[4, 4])
        .scalar("lora_te_c.alpha", 0.0);
    let adapter = file.load(&[], &LoadOptions::default()).unwrap();
    let expected = [("lora_te_c", 1.0), ("lora_unet_a", 0.5), ("lora_unet_b", 1.0)];
    assert_eq!(scalings(&adapter), expected);
}

#[test]
fn older_and_newer_names_of_diffusers_are_read() {
    let file = File(vec![])
        .ones("unet.mid.attn1.processor.to_q_lora.down.weight", &[2, 3])
        .ones("unet.mid.attn1.processor.to_q_lora.up.weight", &[4, 2])
        .ones("unet.mid.attn1.processor.to_out_lora.down.weight", &[2, 3])
        .ones("unet.mid.attn1.processor.to_out_lora.up.weight", &[4, 2])
        .ones("unet.mid.ff.lora.down.weight", &[2, 3])
        .ones("unet.mid.ff.lora.up.weight", &[4, 2])
        .ones("text_encoder.q_proj.lora_linear_layer.down.weight", &[2, 3])
        .ones("text_encoder.q_proj.lora_linear_layer.up.weight", &[4, 2])
        .ones("transformer.x.lora_A.weight", &[2, 3])
        .ones("transformer.x.lora_B.weight", &[4, 2])
        .scalar("transformer.x.alpha", 6.0);
    let adapter = file.load(&[], &LoadOptions::default()).unwrap();
    assert_eq!(
        scalings(&adapter),
        [
            ("text_encoder.q_proj", 1.0),
            ("transformer.x", 3.0),
            ("unet.mid.attn1.to_out.0", 1.0),
            ("unet.mid.attn1.to_q", 1.0),
            ("unet.mid.ff", 1.0),
        ]
    );
}

/// The header of diffusers says rank and alpha of each part of the pipeline, with `peft`'s keys.
#[test]
fn the_header_says_rank_and_alpha() {
    let file = File(vec![])
        .ones("unet.a.q.lora_A.weight", &[2, 3])
        .ones("unet.a.q.lora_B.weight", &[4, 2])
        .ones("unet.b.q.lora_A.weight", &[4, 3])
        .ones("unet.b.q.lora_B.weight", &[4, 4])
        .ones("text_encoder.q.lora_A.weight", &[2, 3])
        .ones("text_encoder.q.lora_B.weight", &[4, 2]);
    let load =
        |header: &str| file.load(&[("lora_adapter_metadata", header)], &LoadOptions::default());
    let adapter = load(
        r#"{"unet.r": 2, "unet.lora_alpha": 6, "unet.rank_pattern": {"^b.q": 4},
            "unet.alpha_pattern": {"^b.q": 2}, "unet.peft_type": "LORA"}"#,
    );
    let expected = [("text_encoder.q", 1.0), ("unet.a.q", 3.0), ("unet.b.q", 0.5)];
    assert_eq!(scalings(&adapter.unwrap()), expected);
    for (header, word) in [
        (r#"{"unet.r": 3, "unet.lora_alpha": 6}"#, "shape"),
        (r#"{"unet.r": 0}"#, "rank"),
        (r#"{"unet.r": 2, "unet.use_qalora": true}"#, "QALoRA"),
        (r#"{"unet.r": 2, "unet.use_dora": true}"#, "magnitude"),
        (r#"{"unet.r": 2, "unet.peft_type": "LOHA"}"#, "must be LORA"),
        ("[]", "not an object"),
        ("{", "lora_adapter_metadata"),
    ] {
        let error = load(header).unwrap_err().to_string();
        assert!(error.contains(word), "{header}: {error}");
    }
}

#[test]
fn what_a_file_cannot_mean_is_refused() {
    let lora = |name: &str| {
        File(vec![])
            .ones(&format!("{name}.lora_down.weight"), &[2, 3])
            .ones(&format!("{name}.lora_up.weight"), &[4, 2])
    };
    for (file, word) in [
        (lora("a").ones("a.lora_mid.weight", &[2, 3, 3, 3]), "core"),
        (lora("a").ones("a.lokr_t1", &[2, 2, 3, 3]), "first factor"),
        (lora("a").ones("b.diff", &[4, 3]), "trained whole"),
        (lora("a").ones("b.oft_blocks", &[4, 3, 3]), "OFT"),
        (lora("a").ones("b.weight", &[4, 3]), "none of an adapter's tensors"),
        (lora("a").scalar("b.alpha", 1.0), "none of an adapter's tensors"),
        (lora("a").ones("a.alpha", &[2]), "one number"),
        (lora("a").scalar("a.alpha", f32::NAN), "one number"),
        (lora("a").scalar("a.alpha", 1e-45), "does not fit"),
        (lora("a").ones("a.hada_w1_a", &[4, 2]), "two forms"),
        (File(vec![]).ones("a.hada_w1_a", &[4, 2]).ones("a.dora_scale", &[4, 1]), "--base"),
        (lora("a").ones("b.dora_scale", &[4, 1]), "none of an adapter's tensors"),
        (lora("a").ones("a.dora_scale", &[1, 3]), "wd_on_out"),
        (File(vec![]).ones("a.lora_down.weight", &[2, 3]), "missing"),
        (File(vec![]).ones("a.lora_down.weight", &[2, 3, 1, 1]), "missing"),
        (File(vec![]).ones("model.norm.weight", &[4]), "no tensor of this file"),
        (File(vec![]).ones("m.lora_a", &[3, 2]), "MLX"),
        (lora(""), "empty"),
        (lora("_orig_mod.a"), "--rename _orig_mod.="),
    ] {
        let error = file.load(&[], &LoadOptions::default()).unwrap_err().to_string();
        assert!(error.contains(word), "{word}: {error}");
    }
    let file = File(vec![])
        .ones("unet.q.lora_A.weight", &[2, 3])
        .ones("unet.q.lora_B.weight", &[4, 2])
        .scalar("unet.q.alpha", 1.0);
    let header = [("lora_adapter_metadata", r#"{"unet.r": 2, "unet.lora_alpha": 6}"#)];
    let error = file.load(&header, &LoadOptions::default()).unwrap_err().to_string();
    assert!(error.contains("diffusers refuses"), "{error}");
    // What is not asked for is no obstacle.
    let modules = ["a".to_owned()];
    let options = LoadOptions { modules: &modules, ..Default::default() };
    let adapter = lora("a").ones("b.diff", &[4, 3]).load(&[], &options).unwrap();
    assert_eq!(scalings(&adapter), [("a", 1.0)]);
}

/// An MLX folder with these settings.
fn mlx(settings: &str) -> Result<Adapter, Error> {
    let dir = tempfile::tempdir().unwrap();
    let from = foreign("mlx_lora_bias");
    std::fs::copy(from.join("adapters.safetensors"), dir.path().join("adapters.safetensors"))
        .unwrap();
    std::fs::write(dir.path().join("adapter_config.json"), settings).unwrap();
    Adapter::load(dir.path())
}

#[test]
fn settings_of_mlx_that_cannot_be_right_are_refused() {
    let good = r#"{"lora_parameters": {"rank": 3, "scale": 2.5}, "iters": 600}"#;
    assert_eq!(mlx(good).unwrap().modules[0].scaling, 2.5);
    for (from, to, word) in [
        ("{\"lora_p", "{\"fine_tune_type\": \"full\", \"lora_p", "no adapter"),
        ("{\"lora_p", "{\"fine_tune_type\": \"qlora\", \"lora_p", "must be lora, dora or full"),
        ("{\"lora_p", "{\"fine_tune_type\": \"dora\", \"lora_p", "--base"),
        ("\"rank\": 3", "\"rank\": 4", "shape"),
        ("\"rank\": 3, ", "", "rank"),
        ("\"scale\": 2.5", "\"alpha\": 16, \"scale\": 2.5", "alpha"),
        (", \"scale\": 2.5", "", "scale"),
        ("2.5", "\"2.5\"", "scale"),
        ("2.5", "1e300", "scale"),
        ("{\"rank\": 3, \"scale\": 2.5}", "3", "must be an object"),
    ] {
        let settings = good.replacen(from, to, 1);
        assert_ne!(settings, good);
        let error = mlx(&settings).unwrap_err().to_string();
        assert!(error.contains(word), "{settings}: {error}");
    }
}

/// The same weights as in the folder of peft that it was converted from, bit for bit.
#[test]
fn gguf_is_read_back_as_it_was_converted() {
    let file = foreign("gguf/adapter.gguf");
    let base = support::base("llama");
    let read = Adapter::load_with_base(&file, Some(&base)).unwrap();
    let of_peft = support::load("llama_all_linear_r8");
    assert_eq!(read.modules, of_peft.modules);
    assert_eq!(read.base_model.fingerprint.unwrap().len(), 64);
    // The rows of q and k are in an order that depends on the base model.
    let error = Adapter::load(&file).unwrap_err().to_string();
    assert!(error.contains("attn_k") && error.contains("--base"), "{error}");
    // Modules are named as `transformers` does. Those of v are in their own order.
    let modules = ["*.v_proj".to_owned()];
    let options = LoadOptions { modules: &modules, ..Default::default() };
    let v = Adapter::load_with(&file, &options).unwrap();
    assert!(v.base_model.fingerprint.is_none());
    let expected: Vec<_> =
        of_peft.modules.iter().filter(|of| of.name.ends_with("v_proj")).cloned().collect();
    assert_eq!(v.modules, expected);
}

#[test]
fn a_gguf_file_that_is_cut_or_lies_is_refused() {
    let good = std::fs::read(foreign("gguf/adapter.gguf")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("adapter.gguf");
    let base = support::base("llama");
    let load = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        Adapter::load_with_base(&path, Some(&base))
    };
    assert!(load(&good).is_ok());
    for cut in (0..4000).chain([good.len() - 1]) {
        assert!(load(&good[..cut]).is_err(), "cut at {cut}");
    }
    for (at, bytes, word) in [
        (4, &[4][..], "version 4"),
        (8, &[255; 8], "tensors"),
        (16, &[255; 8], "entries"),
        (24, &[255; 8], "a text of"),
    ] {
        let mut changed = good.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        let error = load(&changed).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    let replaced = |from: &str, to: &str| {
        let (from, to) = (from.as_bytes(), to.as_bytes());
        let at = good.windows(from.len()).position(|window| window == from).unwrap();
        let mut changed = good.clone();
        changed[at..at + to.len()].copy_from_slice(to);
        load(&changed).unwrap_err().to_string()
    };
    for (from, to, word) in [
        ("\x05\0\0\0\0\0\0\0llama", "\x05\0\0\0\0\0\0\0zzzzz", "names of layers"),
        ("adapter\x0c", "adaptor\x0c", "no LoRA adapter"),
        ("blk.0.attn_q.weight.lora_a", "blk.0.attn_r.weight.lora_a", "attn_r"),
        ("blk.0.attn_q.weight.lora_a", "blk.x.attn_q.weight.lora_a", "blk.x"),
        ("blk.0.attn_q.weight.lora_b", "blk.0.attn_q.weight.lora_c", "lora_c"),
        ("blk.0.attn_q.weight.lora_b", "blk.0.attn_q.weight.lora_a", "comes twice"),
    ] {
        let error = replaced(from, to);
        assert!(error.contains(word), "{word}: {error}");
    }
}

/// A GGUF file with these texts and tensors: name, dimensions from the inner one on, type of ggml,
/// bytes.
fn gguf(texts: &[(&str, &str)], alpha: f32, tensors: &[(&str, [u64; 2], u32, Vec<u8>)]) -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    let mut file = [b"GGUF", &3u32.to_le_bytes()[..]].concat();
    file.extend((tensors.len() as u64).to_le_bytes());
    file.extend((texts.len() as u64 + 1).to_le_bytes());
    for (key, value) in texts {
        file.extend([text(key), 8u32.to_le_bytes().to_vec(), text(value)].concat());
    }
    file.extend([text("adapter.lora.alpha"), 6u32.to_le_bytes().to_vec()].concat());
    file.extend(alpha.to_le_bytes());
    let (mut data, aligned) = (Vec::new(), |bytes: &mut Vec<u8>| {
        bytes.resize(bytes.len().next_multiple_of(32), 0);
    });
    for (name, dims, kind, bytes) in tensors {
        file.extend([text(name), 2u32.to_le_bytes().to_vec()].concat());
        dims.iter().for_each(|dim| file.extend(dim.to_le_bytes()));
        file.extend([&kind.to_le_bytes()[..], &(data.len() as u64).to_le_bytes()].concat());
        data.extend(bytes);
        aligned(&mut data);
    }
    aligned(&mut file);
    [file, data].concat()
}

const GEMMA: &[(&str, &str)] =
    &[("general.type", "adapter"), ("adapter.type", "lora"), ("general.architecture", "gemma")];

fn load_gguf(bytes: &[u8]) -> Result<Adapter, Error> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("adapter.gguf");
    std::fs::write(&path, bytes).unwrap();
    Adapter::load(&path)
}

/// In an architecture whose rows are in their own order, so that no base model is needed.
#[test]
fn every_type_of_gguf_is_widened_exactly() {
    let numbers: Vec<f32> = (0..64i16).map(|at| f32::from(at - 20) / 8.0).collect();
    let of =
        |bytes: fn(f32) -> Vec<u8>| numbers.iter().flat_map(|v| bytes(*v)).collect::<Vec<u8>>();
    // Two blocks of a scale and 32 integers of 8 bits.
    let scale = half::f16::from_f32(0.125).to_le_bytes();
    let blocks = (0..64i16).map(|at| (at - 20) as i8).collect::<Vec<_>>();
    let blocks = blocks.chunks(32).flat_map(|block| {
        scale.into_iter().chain(block.iter().map(|q| q.cast_unsigned())).collect::<Vec<u8>>()
    });
    let (a, b) = ("blk.3.attn_q.weight.lora_a", "blk.3.attn_q.weight.lora_b");
    let ones = 1f32.to_le_bytes().repeat(4);
    for (kind, bytes) in [
        (0, of(|v| v.to_le_bytes().to_vec())),
        (1, of(|v| half::f16::from_f32(v).to_le_bytes().to_vec())),
        (30, of(|v| half::bf16::from_f32(v).to_le_bytes().to_vec())),
        (8, blocks.collect()),
    ] {
        let file = gguf(GEMMA, 6.0, &[(a, [32, 2], kind, bytes), (b, [2, 2], 0, ones.clone())]);
        let adapter = load_gguf(&file).unwrap();
        assert_eq!(scalings(&adapter), [("model.layers.3.self_attn.q_proj", 3.0)]);
        assert_eq!(adapter.modules[0].branches[0].steps[0].values, numbers, "type {kind}");
    }
    let with = |alpha, kind, dims| {
        load_gguf(&gguf(
            GEMMA,
            alpha,
            &[(a, dims, kind, of(|_| vec![0; 4])), (b, [2, 2], 0, ones.clone())],
        ))
    };
    assert_eq!(with(0.0, 0, [32, 2]).unwrap().modules[0].scaling, 1.0);
    for (alpha, kind, dims, word) in [
        (6.0, 12, [32, 2], "type 12 of ggml"),
        (6.0, 8, [31, 2], "whole number of blocks"),
        (6.0, 0, [u64::MAX, 2], "too large"),
        (6.0, 0, [1 << 40, 2], "beyond its end"),
        (f32::NAN, 0, [32, 2], "does not fit"),
    ] {
        let error = with(alpha, kind, dims).unwrap_err().to_string();
        assert!(error.contains(word), "{word}: {error}");
    }
}

/// What a file says is data: it does not reach a terminal as it is.
#[test]
fn texts_of_a_gguf_file_are_escaped_in_messages() {
    let red = "\u{1b}[31m\n";
    let hostile = |at: usize| {
        let mut texts = GEMMA.to_vec();
        texts[at].1 = red;
        load_gguf(&gguf(&texts, 6.0, &[])).unwrap_err().to_string()
    };
    let tensor = (red, [u64::MAX, 2], 0, vec![]);
    let named = load_gguf(&gguf(GEMMA, 6.0, &[tensor])).unwrap_err().to_string();
    for error in [hostile(0), hostile(1), hostile(2), named] {
        assert!(!error.contains(['\u{1b}', '\n']), "{error:?}");
    }
}

/// Shards of a PEFT adapter are read as one.
#[test]
fn shards_are_one_adapter() {
    let mut folder = Folder::empty("");
    folder.f32("base_model.model.m.lora_A.weight", &[2, 3], &[1.0; 6]);
    let a = folder.clone();
    folder.f32("base_model.model.m.lora_B.weight", &[4, 2], &[2.0; 8]);
    let whole = Adapter::load(folder.write().path()).unwrap();
    let mut b = Folder::empty("");
    b.f32("base_model.model.m.lora_B.weight", &[4, 2], &[2.0; 8]);

    let dir = a.write();
    let (first, second) = ("adapter_model-1.safetensors", "adapter_model-2.safetensors");
    std::fs::rename(dir.path().join("adapter_model.safetensors"), dir.path().join(first)).unwrap();
    let other = b.write();
    std::fs::copy(other.path().join("adapter_model.safetensors"), dir.path().join(second)).unwrap();
    let index = format!(
        r#"{{"weight_map": {{"base_model.model.m.lora_A.weight": "{first}",
            "base_model.model.m.lora_B.weight": "{second}"}}}}"#
    );
    std::fs::write(dir.path().join("adapter_model.safetensors.index.json"), index).unwrap();
    assert_eq!(Adapter::load(dir.path()).unwrap(), whole);
    std::fs::copy(dir.path().join(first), dir.path().join(second)).unwrap();
    let error = Adapter::load(dir.path()).unwrap_err().to_string();
    assert!(error.contains("also in another file"), "{error}");
}

/// What is no adapter, by what is in it.
#[test]
fn other_things_are_named_with_what_to_do() {
    let write = |files: &[(&str, &[u8])]| {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        dir
    };
    let config = &br#"{"peft_type": "LORA"}"#[..];
    for (files, word) in [
        (&[("lora.nemo", &b"x"[..])][..], "NeMo"),
        (&[("adapter_0.pt", b"PK\x03\x04")], "torchtune"),
        (&[("adapter_config.json", config), ("adapter_model.bin", b"PK\x03\x04")], "pickle"),
        (&[("pytorch_lora_weights.bin", b"PK\x03\x04")], "'pytorch_lora_weights.bin'"),
        (&[("zero_to_fp32.py", b""), ("latest", b"")], "DeepSpeed"),
        (&[("a.distcp", b""), (".metadata", b"")], "FSDP"),
        (&[("snapshots/abc/adapter_config.json", config)], "snapshots/abc"),
        (&[("lora.safetensors", b"<!DOCTYPE html><html>")], "web page"),
        (&[("lora.safetensors", b"\n<html lang=en>")], "web page"),
        (&[("lora.safetensors", b"version https://git-lfs.github.com/spec/v1\n")], "git lfs pull"),
        (&[("lora.safetensors", b"\x80\x02}q\x00")], "pickle"),
        (&[("lora.gguf", b"GGUF\x03\0\0\0")], "GGUF"),
        (&[("adapter_config.json", b"<html>"), ("adapter_model.safetensors", b"x")], "web page"),
        (&[("readme.md", b"")], "save_pretrained"),
    ] {
        let error = Adapter::load(write(files).path()).unwrap_err().to_string();
        assert!(error.contains(word), "{word}: {error}");
    }
}
