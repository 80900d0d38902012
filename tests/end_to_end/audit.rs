//! After payment: is the delivered adapter the committed one?

use std::{fs, path::Path};

use crate::{
    zk,
    zklora::{ADAPTER, fixture, session},
};

fn audit(adapter: &Path, opening: &Path) -> crate::zklora::Run {
    zk![
        "audit",
        "--public",
        session().path("artifacts/public"),
        "--adapter",
        adapter,
        "--opening",
        opening,
        "--adapter-id",
        session().id
    ]
}

fn opening() -> std::path::PathBuf {
    session().path("artifacts/private/opening")
}

#[test]
fn the_delivered_adapter_is_accepted_as_peft_folder_as_onnx_and_as_integers() {
    for delivered in
        [fixture(ADAPTER), session().path("onnx"), session().path("artifacts/private/weights.bin")]
    {
        let run = audit(&delivered, &opening()).ok();
        assert!(run.stdout.contains("ACCEPTED"), "{}", run.stdout);
    }
}

/// A copy of the adapter folder with one weight changed.
fn with_one_weight_changed(tensor: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        fs::copy(fixture(ADAPTER).join(name), copy.path().join(name)).unwrap();
    }
    change_one_weight(copy.path(), tensor);
    copy
}

/// Changes the fourth weight of a tensor by a hundredth.
pub fn change_one_weight(folder: &Path, tensor: &str) {
    let path = folder.join("adapter_model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let start = {
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        tensors.tensor(tensor).unwrap().data().as_ptr() as usize - bytes.as_ptr() as usize
    };
    let value = f32::from_le_bytes(bytes[start + 12..start + 16].try_into().unwrap());
    bytes[start + 12..start + 16].copy_from_slice(&(value * 1.01 + 1e-5).to_le_bytes());
    fs::write(&path, bytes).unwrap();
}

#[test]
fn an_adapter_with_one_changed_weight_is_refused_by_the_name_of_its_module() {
    for (side, module) in [
        ("lora_A", "model.layers.0.self_attn.q_proj"),
        ("lora_B", "model.layers.1.self_attn.v_proj"),
    ] {
        let copy = with_one_weight_changed(&format!("base_model.model.{module}.{side}.weight"));
        let run = audit(copy.path(), &opening()).refused(1, "REFUSED");
        let named: Vec<&str> =
            run.stdout.lines().filter(|line| line.starts_with("Differs")).collect();
        assert!(named.len() == 1 && named[0].contains(module), "{}", run.stdout);
    }
}

/// A delivery that was saved again in 16 bits says so.
#[test]
fn a_copy_in_another_precision_is_refused_and_says_so() {
    let copy = tempfile::tempdir().unwrap();
    fs::copy(fixture(ADAPTER).join("adapter_config.json"), copy.path().join("adapter_config.json"))
        .unwrap();
    let bytes = fs::read(fixture(ADAPTER).join("adapter_model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let halved: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .tensors()
        .into_iter()
        .map(|(name, view)| {
            // The upper half of an F32 is a BF16.
            let upper = view.data().as_chunks::<4>().0.iter().flat_map(|b| [b[2], b[3]]).collect();
            (name, view.shape().to_vec(), upper)
        })
        .collect();
    let views = halved.iter().map(|(name, shape, bytes)| {
        let dtype = safetensors::Dtype::BF16;
        (name, safetensors::tensor::TensorView::new(dtype, shape.clone(), bytes).unwrap())
    });
    let file = safetensors::serialize(views, None).unwrap();
    fs::write(copy.path().join("adapter_model.safetensors"), file).unwrap();
    let run =
        audit(copy.path(), &opening()).refused(1, "all delivered weights are numbers of BF16");
    assert!(run.stdout.contains("ask for the file that was committed to"), "{}", run.stdout);
}

#[test]
fn one_changed_integer_is_refused_by_the_name_of_its_module() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.bin");
    let mut bytes = fs::read(session().path("artifacts/private/weights.bin")).unwrap();
    // The first integer of module 0 follows magic, version and the first vector's length.
    bytes[17] ^= 1;
    fs::write(&path, bytes).unwrap();
    let run = audit(&path, &opening()).refused(1, "model.layers.0.self_attn.q_proj");
    assert_eq!(run.stdout.matches("Differs").count(), 1);
}

#[test]
fn integers_beyond_the_manifest_and_other_shapes_are_a_difference_and_no_weights_file_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.bin");
    let bytes = fs::read(session().path("artifacts/private/weights.bin")).unwrap();
    let mut huge = bytes.clone();
    huge[20] ^= 0x40;
    let longer = [bytes.as_slice(), &[0]].concat();
    for changed in [huge.as_slice(), &bytes[..bytes.len() - 4], &longer] {
        fs::write(&path, changed).unwrap();
        audit(&path, &opening()).refused(1, "(weights file)");
    }
    fs::write(&path, "hello").unwrap();
    audit(&path, &opening()).refused(2, "not a zklora weights file");
}

#[test]
fn the_opening_of_another_adapter_of_the_same_seed_opens_nothing() {
    let other = tempfile::tempdir().unwrap();
    let changed =
        with_one_weight_changed("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight");
    let onnx = other.path().join("onnx");
    zk!["export", "--adapter", changed.path(), "--out", onnx].ok();
    zk![
        "compile",
        onnx,
        "--out",
        other.path(),
        "--seed-file",
        session().path("artifacts/private/seed")
    ]
    .ok();
    let run = audit(&fixture(ADAPTER), &other.path().join("private/opening"))
        .refused(1, "is this the opening of this adapter?");
    assert!(run.stderr.contains("the opening says that it is for adapter"));
}

#[test]
fn an_audit_says_when_the_base_model_was_not_compared() {
    let (session, folder) = (session(), tempfile::tempdir().unwrap());
    let path = |name: &str| folder.path().join(name);
    let base = fixture("base/tiny-llama");
    zk!["export", "--adapter", fixture(ADAPTER), "--base", base, "--out", path("onnx")].ok();
    zk![
        "compile",
        path("onnx"),
        "--out",
        path("artifacts"),
        "--seed-file",
        session.path("artifacts/private/seed")
    ]
    .ok();
    let opening = path("artifacts/private/opening");
    let audit = |public: &Path, delivered: &Path, opening: &Path, more: &[std::ffi::OsString]| {
        let arguments =
            crate::args!["audit", "--public", public, "--adapter", delivered, "--opening", opening];
        let arguments = [arguments.as_slice(), more].concat();
        let json = crate::zklora::zklora([&crate::args!["--json"], arguments.as_slice()].concat())
            .ok()
            .json();
        (
            crate::zklora::zklora(arguments).ok().stdout,
            json["base_model"].as_str().unwrap().to_string(),
        )
    };
    // The manifest has a fingerprint and the delivery has none: a PEFT folder alone, integers
    // alone, an export without --base.
    let delivered = [fixture(ADAPTER), path("artifacts/private/weights.bin"), session.path("onnx")];
    for delivered in delivered {
        let (text, json) = audit(&path("artifacts"), &delivered, &opening, &[]);
        assert!(
            text.contains("Base model  NOT COMPARED: the manifest has the fingerprint"),
            "{text}"
        );
        assert_eq!(json, "not_delivered", "{}", delivered.display());
    }
    // The manifest has no fingerprint.
    let (text, json) = audit(&session.path("artifacts"), &path("onnx"), &self::opening(), &[]);
    assert!(text.contains("Base model  NOT COMPARED: the manifest has no fingerprint"), "{text}");
    assert_eq!(json, "not_committed");
    // Both have a fingerprint.
    for (delivered, more) in
        [(path("onnx"), vec![]), (fixture(ADAPTER), crate::args!["--base", base].to_vec())]
    {
        let (text, json) = audit(&path("artifacts"), &delivered, &opening, &more);
        assert!(
            text.contains("with the manifest's fingerprint") && !text.contains("NOT COMPARED"),
            "{text}"
        );
        assert_eq!(json, "same");
    }
}

#[test]
fn a_delivery_for_another_base_model_is_refused_by_its_fingerprint() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let base = fixture("base/tiny-llama");
    zk!["export", "--adapter", fixture(ADAPTER), "--base", base, "--out", path("onnx")].ok();
    zk!["compile", path("onnx"), "--out", path("artifacts")].ok();
    let audit = |base: &Path| {
        zk![
            "audit",
            "--public",
            path("artifacts"),
            "--adapter",
            fixture(ADAPTER),
            "--base",
            base,
            "--opening",
            path("artifacts/private/opening")
        ]
    };
    audit(&base).ok();
    fs::create_dir(path("base")).unwrap();
    for entry in fs::read_dir(&base).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), path("base").join(entry.file_name())).unwrap();
    }
    let weights = path("base").join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&weights, bytes).unwrap();
    audit(&path("base")).refused(1, "(base model)");
}
