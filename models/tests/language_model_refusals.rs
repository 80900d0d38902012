//! Files that are not loaded as language models, and layers that are not guessed.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{path::Path, sync::Arc};

use prost::Message;
use support::language::{base, point, recorded, worst};
use tract_onnx::pb::{GraphProto, ModelProto, StringStringEntryProto, tensor_proto::DataLocation};
use zklora_models::{
    AppliesTo, Error,
    language_model::{Identity, InjectionPoint, LanguageModel},
};

fn read(model: &str) -> ModelProto {
    ModelProto::decode(&*std::fs::read(base(model)).unwrap()).unwrap()
}

fn load(path: &Path, points: &[InjectionPoint]) -> Result<LanguageModel, Error> {
    LanguageModel::load(path, points, Arc::new(Identity))
}

/// The model after a change. Metadata of nodes is lost: tract's protobuf has none.
fn changed(
    model: &str,
    points: &[InjectionPoint],
    change: impl FnOnce(&mut GraphProto),
) -> Result<LanguageModel, Error> {
    let mut proto = read(model);
    change(proto.graph.as_mut().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.onnx");
    std::fs::write(&path, proto.encode_to_vec()).unwrap();
    load(&path, points)
}

fn text(result: Result<LanguageModel, Error>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_name_without_a_layer_gets_similar_names() {
    for style in ["legacy", "dynamo"] {
        let model = base(&format!("tiny-llama/{style}.onnx"));
        for module in ["model.layers.1.self_attn.q_prj", "layers.1", "ayers.1.self_attn.q_proj"] {
            let Err(Error::NoSuchLayer { similar, .. }) = load(&model, &[point(module, 64, 64)])
            else {
                panic!("{module}")
            };
            assert_eq!(similar.len(), 5);
            if module.ends_with("q_prj") {
                assert!(similar[0].ends_with("model.layers.1.self_attn.q_proj"), "{similar:?}");
            }
        }
    }
}

#[test]
fn a_name_of_several_layers_is_not_guessed() {
    for style in ["legacy", "dynamo"] {
        let model = base(&format!("tiny-llama/{style}.onnx"));
        let error = load(&model, &[point("self_attn.q_proj", 64, 64)]).unwrap_err();
        let Error::AmbiguousLayer { layers, .. } = &error else { panic!("{error}") };
        assert_eq!(layers.len(), 2);
        assert!(error.to_string().contains("--map self_attn.q_proj=TENSOR"), "{error}");
    }
}

#[test]
fn a_tensor_that_is_mapped_is_taken() {
    for (style, tensor) in [
        ("legacy", "/model/model/layers.1/self_attn/q_proj/MatMul_output_0"),
        ("dynamo", "linear_7"),
    ] {
        let model = base(&format!("tiny-llama/{style}.onnx"));
        let mapped = |tensor: &str| InjectionPoint {
            tensor: Some(tensor.into()),
            ..point("whatever", 64, 64)
        };
        let loaded = load(&model, &[mapped(tensor)]).unwrap();
        assert_eq!(loaded.points()[0].tensor, tensor);
        let by_name = load(&model, &[point("model.layers.1.self_attn.q_proj", 64, 64)]).unwrap();
        assert_eq!(by_name.points()[0].tensor, tensor);
        let error = text(load(&model, &[mapped("no_such")]));
        assert!(
            error.contains("`no_such`, which no node of the model produces; similar names: "),
            "{error}"
        );
        let error = text(load(&model, &[mapped("input_ids")]));
        assert!(error.contains("which no node of the model produces"), "{error}");
    }
    let mask = InjectionPoint { tensor: Some("matmul".into()), ..point("whatever", 64, 64) };
    let error = text(load(&base("tiny-llama/dynamo.onnx"), &[mask]));
    assert!(error.contains("which is not the output of a linear layer"), "{error}");
}

#[test]
fn the_bias_belongs_to_the_layer() {
    let add = "/model/model/layers.0/self_attn/q_proj/Add_output_0";
    for (style, tensor) in [("legacy", add), ("dynamo", "linear")] {
        let model = base(&format!("tiny-qwen2/{style}.onnx"));
        let loaded = load(&model, &[point("model.layers.0.self_attn.q_proj", 32, 32)]).unwrap();
        assert_eq!(loaded.points()[0].tensor, tensor);
    }
}

#[test]
fn sizes_that_do_not_fit_name_both() {
    for style in ["legacy", "dynamo"] {
        let model = base(&format!("tiny-llama/{style}.onnx"));
        for (x_dim, base_dim, expected, found) in [(64, 63, 63, 32), (576, 32, 576, 64)] {
            let error = load(&model, &[point("model.layers.0.self_attn.v_proj", x_dim, base_dim)])
                .unwrap_err();
            let Error::LayerSize { module, expected: e, found: f, .. } = &error else {
                panic!("{error}")
            };
            assert_eq!(
                (module.as_str(), *e, *f),
                ("model.layers.0.self_attn.v_proj", expected, found)
            );
        }
    }
}

#[test]
fn a_layer_is_adapted_once() {
    let twice = [
        point("layers.0.self_attn.q_proj", 64, 64),
        point("model.layers.0.self_attn.q_proj", 64, 64),
    ];
    let error = text(load(&base("tiny-llama/legacy.onnx"), &twice));
    assert!(error.contains("a layer can be adapted once"), "{error}");
}

/// One matrix is the embedding and the last layer, under one name; the origin of the node tells the
/// two apart.
#[test]
fn tied_matrices_are_told_apart() {
    for style in ["legacy", "dynamo"] {
        let model = base(&format!("tiny-qwen2/{style}.onnx"));
        let points = [point("model.embed_tokens", 96, 32), point("lm_head", 32, 96)];
        let loaded = load(&model, &points).unwrap();
        let tensors: Vec<_> = loaded
            .points()
            .iter()
            .map(|found| (found.point, found.tensor.as_str(), found.input.as_str()))
            .collect();
        assert_eq!(
            (tensors[0].0, tensors[0].2, tensors[1].0, tensors[1].1),
            (0, "input_ids", 1, "logits"),
            "{style}"
        );
        let (ids, expected) = recorded(&model.with_file_name("logits.safetensors"));
        assert!(worst(&loaded.logits(&ids).unwrap().values, &expected) < 1e-4);
    }
    // Without the metadata both have the name of the matrix, and the sizes tell them apart; nothing
    // states which one is the embedding.
    let loaded = changed("tiny-gpt2/dynamo.onnx", &[point("lm_head", 64, 257)], |_| {}).unwrap();
    assert_eq!(loaded.points()[0].tensor, "logits");
    let result = changed("tiny-gpt2/dynamo.onnx", &[point("transformer.wte", 257, 64)], |_| {});
    assert!(matches!(result, Err(Error::NoSuchLayer { .. })), "{result:?}");
    let mapped =
        InjectionPoint { tensor: Some("embedding".into()), ..point("transformer.wte", 257, 64) };
    changed("tiny-gpt2/dynamo.onnx", &[mapped], |_| {}).unwrap();
}

/// Without metadata of nodes, the names of the matrices suffice for layers whose matrices the
/// exporter did not transpose.
#[test]
fn names_of_matrices_find_layers_too() {
    let points = [
        point("transformer.h.1.attn.c_attn", 64, 192),
        point("transformer.h.0.mlp.c_proj", 256, 64),
    ];
    let loaded = changed("tiny-gpt2/dynamo.onnx", &points, |_| {}).unwrap();
    assert_eq!(
        loaded.points().iter().map(|found| found.tensor.as_str()).collect::<Vec<_>>(),
        ["addmm_3", "addmm_4"]
    );
}

#[test]
fn inputs_of_a_layer_are_adapted_for_it_alone() {
    let input = |module: &str| InjectionPoint {
        applies_to: AppliesTo::Input,
        x_dim: None,
        ..point(module, 0, 64)
    };
    let points =
        [input("model.layers.0.mlp.up_proj"), point("model.layers.0.mlp.up_proj", 64, 128)];
    let loaded = load(&base("tiny-llama/legacy.onnx"), &points).unwrap();
    let (ids, expected) = recorded(&base("tiny-llama/logits.safetensors"));
    assert!(worst(&loaded.logits(&ids).unwrap().values, &expected) < 1e-4);
    assert_eq!(loaded.points().len(), 2);
}

#[test]
fn a_model_with_a_cache_is_refused_with_a_way_out() {
    let result = changed("tiny-llama/legacy.onnx", &[], |graph| {
        let mut past = graph.input[0].clone();
        past.name = "past_key_values.0.key".into();
        graph.input.push(past);
    });
    let error = text(result);
    assert!(
        error.contains("`past_key_values.0.key`") && error.contains("use_cache=False"),
        "{error}"
    );
}

#[test]
fn files_that_are_not_language_models_are_refused() {
    let error = text(changed("tiny-llama/legacy.onnx", &[], |graph| {
        graph.input.retain(|input| input.name != "input_ids");
    }));
    assert!(error.contains("no input called input_ids"), "{error}");
    let hidden = changed("tiny-llama/legacy.onnx", &[], |graph| {
        graph.output[0].name = "/model/model/Unsqueeze_output_0".into();
    });
    assert!(hidden.is_err());
    for file in ["lora.onnx", "../onnx/helper_matmul_op14/model.onnx"] {
        assert!(load(&base(file), &[]).is_err(), "{file}");
    }
}

#[test]
fn damaged_files_are_errors() {
    let whole = std::fs::read(base("tiny-qwen2/dynamo.onnx")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.onnx");
    let points = [point("model.layers.0.self_attn.q_proj", 32, 32)];
    for cut in [0, 1, 2, 10, 100, 1000, 10_000, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..cut]).unwrap();
        assert!(load(&path, &points).is_err(), "{cut} bytes");
    }
    // Change single bytes: most changes of weights load, and none may panic.
    for at in (0..whole.len()).step_by(whole.len() / 150) {
        let mut bytes = whole.clone();
        bytes[at] = bytes[at].wrapping_add(1 + (at % 250) as u8);
        std::fs::write(&path, &bytes).unwrap();
        if let Ok(model) = load(&path, &points) {
            let _ = model.logits(&[1, 2, 3]);
        }
    }
}

#[test]
fn nodes_that_read_from_each_other_are_an_error() {
    let result = changed("tiny-llama/legacy.onnx", &[], |graph| {
        let last = graph.node.last().unwrap().output[0].clone();
        let first = graph.node.iter_mut().find(|node| node.op_type == "Gather").unwrap();
        first.input[1] = last;
    });
    assert!(text(result).contains("in a circle"));
}

/// Tensors in a file beside the model are read, and no other file is opened.
#[test]
fn external_data_stays_in_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("model");
    std::fs::create_dir(&folder).unwrap();
    let path = folder.join("model.onnx");
    let (mut proto, mut data) = (read("tiny-qwen2/legacy.onnx"), Vec::new());
    let entry = |key: &str, value: String| StringStringEntryProto { key: key.into(), value };
    for tensor in &mut proto.graph.as_mut().unwrap().initializer {
        tensor.external_data = vec![
            entry("location", "model.onnx.data".into()),
            entry("offset", data.len().to_string()),
            entry("length", tensor.raw_data.len().to_string()),
        ];
        tensor.data_location = Some(DataLocation::External as i32);
        data.append(&mut tensor.raw_data);
    }
    std::fs::write(folder.join("model.onnx.data"), &data).unwrap();
    std::fs::write(dir.path().join("outside"), &data).unwrap();
    std::fs::write(&path, proto.encode_to_vec()).unwrap();
    let (ids, expected) = recorded(&base("tiny-qwen2/logits.safetensors"));
    let loaded = load(&path, &[]).unwrap();
    assert!(worst(&loaded.logits(&ids).unwrap().values, &expected) < 1e-4);

    #[cfg(unix)]
    std::os::unix::fs::symlink(dir.path().join("outside"), folder.join("link")).unwrap();
    for (location, expected) in [
        ("../outside", "not a relative path inside the folder"),
        ("/etc/passwd", "not a relative path inside the folder"),
        ("link", "a link out of the folder"),
        ("absent", "keep it beside the model"),
        (".", "is not a file"),
    ] {
        let mut moved = proto.clone();
        moved.graph.as_mut().unwrap().initializer[0].external_data[0].value = location.into();
        std::fs::write(&path, moved.encode_to_vec()).unwrap();
        let error = text(load(&path, &[]));
        assert!(error.contains(expected), "{error}");
    }
    std::fs::write(&path, proto.encode_to_vec()).unwrap();
    std::fs::write(folder.join("model.onnx.data"), &data[..data.len() - 1]).unwrap();
    assert!(text(load(&path, &[])).contains("cut short"));
}
