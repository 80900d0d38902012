//! Models with a cache of keys and values: the logits are those without it, every token is run
//! once, and graphs whose cache does not fit are refused by name.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use prost::Message;
use support::language::{Local, Recorder, all_linear, base, plain, points_of, recorded, worst};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, TensorShapeProto, TypeProto, ValueInfoProto,
    attribute_proto::AttributeType, tensor_proto::DataType, tensor_shape_proto::dimension::Value,
    type_proto,
};
use zklora_models::{
    Error,
    language_model::{
        Identity, InjectionCall, Injector, LanguageModel, LayerGraph, Logits, Sampling, Sequence,
        StopReason, generate,
    },
};

const MODELS: [&str; 2] = ["tiny-gpt2", "tiny-llama"];

/// Largest difference between logits with and without a cache.
const TOLERANCE: f32 = 1e-4;

fn load(path: &std::path::Path) -> Result<LanguageModel, Error> {
    LanguageModel::load(path, &[], Arc::new(Identity))
}

/// Pushes tokens in parts of these lengths.
fn in_parts(model: &LanguageModel, ids: &[u32], parts: &[usize]) -> Logits {
    let mut sequence = Sequence::new(model);
    let mut all = Logits { values: Vec::new(), rows: 0, vocabulary: model.vocabulary() };
    for part in parts {
        let logits = sequence.push(&ids[all.rows..all.rows + part]).unwrap();
        assert_eq!(logits.rows, *part);
        all.values.extend(logits.values);
        all.rows += part;
    }
    assert_eq!(sequence.ids(), &ids[..all.rows]);
    all
}

#[test]
fn logits_are_those_of_torch_in_any_parts_and_at_once() {
    for name in MODELS {
        let (ids, expected) = recorded(&base(&format!("{name}/logits.safetensors")));
        let cached = plain(&format!("{name}/cached"));
        assert!(cached.has_cache() && !plain(&format!("{name}/legacy")).has_cache());
        assert!(worst(&cached.logits(&ids).unwrap().values, &expected) < TOLERANCE, "{name}");
        for parts in [vec![24], vec![1; 24], vec![10, 1, 1, 12], vec![23, 1]] {
            let logits = in_parts(&cached, &ids, &parts);
            assert!(worst(&logits.values, &expected) < TOLERANCE, "{name} {parts:?}");
        }
        // A model without a cache gives the same rows in parts.
        let logits = in_parts(&plain(&format!("{name}/dynamo")), &ids, &[10, 1, 13]);
        assert!(worst(&logits.values, &expected) < TOLERANCE, "{name}");
    }
}

#[test]
fn adapted_texts_are_those_without_a_cache_and_every_token_is_run_once() {
    for (name, adapter) in [("tiny-llama", "llama_all_linear_r8"), ("tiny-gpt2", "gpt2_c_attn_r4")]
    {
        let adapter = support::load(adapter);
        let points = points_of(&adapter);
        let load = |style: &str| {
            let path = base(&format!("{name}/{style}.onnx"));
            LanguageModel::load(&path, &points, Arc::new(Local(adapter.clone()))).unwrap()
        };
        let sampling = Sampling { max_new_tokens: 60, ..Sampling::default() };
        let prompt: Vec<u32> = (0..20).map(|at| (at * 7 + 3) % 90).collect();
        let text =
            |model: &LanguageModel| generate(model, &prompt, &sampling, &[], |_| true).unwrap();
        let (cached, whole) = (load("cached"), load("legacy"));
        assert_eq!(text(&cached), text(&whole), "{name}");

        let recorder = Arc::new(Recorder::default());
        let points = all_linear(&format!("{name}/cached"));
        let path = base(&format!("{name}/cached.onnx"));
        let model = LanguageModel::load(&path, &points, recorder.clone()).unwrap();
        let (tokens, _) = text(&model);
        let rows_of = |(width, values): &(usize, Vec<f32>)| values.len() / width;
        let rows: usize = recorder.seen.lock().unwrap().iter().map(rows_of).sum();
        let groups = recorder.groups.lock().unwrap();
        let tensors: usize = groups.iter().map(|group| group.len() + 1).sum();
        let passes = tokens.len();
        assert_eq!(tensors % passes, 0);
        assert_eq!(rows, tensors / passes * (prompt.len() + passes - 1), "{name}");
    }
}

#[test]
fn a_text_ends_where_positions_end() {
    let model = plain("tiny-gpt2/cached");
    assert_eq!(model.max_tokens(), Some(128));
    let sampling = Sampling { max_new_tokens: 1000, ..Sampling::default() };
    let (tokens, ended) = generate(&model, &[5; 100], &sampling, &[], |_| true).unwrap();
    assert_eq!((tokens.len(), ended), (29, StopReason::Positions));
    let mut sequence = Sequence::new(&model);
    sequence.push(&[1; 128]).unwrap();
    let error = sequence.push(&[1]).unwrap_err().to_string();
    assert!(error.contains("129 tokens are more than the 128"), "{error}");
    assert!(sequence.push(&[]).is_err() && sequence.ids().len() == 128);
}

/// An injector that fails on demand.
struct Failing(AtomicBool);

impl Injector for Failing {
    fn inject(
        &self,
        call: &InjectionCall<'_>,
    ) -> Result<Vec<Vec<f32>>, Box<dyn std::error::Error + Send + Sync>> {
        match self.0.load(Ordering::Relaxed) {
            true => Err("away".into()),
            false => Identity.inject(call),
        }
    }
}

#[test]
fn a_failed_pass_appends_nothing() {
    let (ids, _) = recorded(&base("tiny-llama/logits.safetensors"));
    let injector = Arc::new(Failing(AtomicBool::new(false)));
    let points = all_linear("tiny-llama/cached");
    let path = base("tiny-llama/cached.onnx");
    let model = LanguageModel::load(&path, &points, injector.clone()).unwrap();
    let expected = in_parts(&model, &ids, &[5, 3]);
    let mut sequence = Sequence::new(&model);
    sequence.push(&ids[..5]).unwrap();
    injector.0.store(true, Ordering::Relaxed);
    assert!(matches!(sequence.push(&ids[5..8]), Err(Error::Injector(_))));
    assert_eq!(sequence.ids(), &ids[..5]);
    injector.0.store(false, Ordering::Relaxed);
    let again = sequence.push(&ids[5..8]).unwrap();
    assert_eq!(again.values, expected.values[5 * expected.vocabulary..]);
}

fn read(model: &str) -> GraphProto {
    let bytes = std::fs::read(base(model)).unwrap();
    ModelProto::decode(&*bytes).unwrap().graph.unwrap()
}

/// tiny-llama with a cache, after a change of its graph.
fn changed(change: impl FnOnce(&mut GraphProto)) -> Result<LanguageModel, Error> {
    let (_folder, path) = written(change);
    load(&path)
}

fn written(change: impl FnOnce(&mut GraphProto)) -> (tempfile::TempDir, PathBuf) {
    let bytes = std::fs::read(base("tiny-llama/cached.onnx")).unwrap();
    let mut proto = ModelProto::decode(&*bytes).unwrap();
    change(proto.graph.as_mut().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, proto.encode_to_vec()).unwrap();
    (folder, path)
}

/// The graph as optimum merges it: a branch without a cache and one with it.
fn merge(graph: &mut GraphProto) {
    let branch = |graph: &GraphProto| GraphProto {
        name: "branch".into(),
        node: graph.node.clone(),
        output: graph.output.clone(),
        ..GraphProto::default()
    };
    let attribute = |name: &str, branch: GraphProto| AttributeProto {
        name: name.into(),
        r#type: AttributeType::Graph as i32,
        g: Some(branch),
        ..AttributeProto::default()
    };
    let whole = read("tiny-llama/legacy.onnx");
    let chosen = NodeProto {
        op_type: "If".into(),
        name: "chosen".into(),
        input: vec!["use_cache_branch".into()],
        output: graph.output.iter().map(|output| output.name.clone()).collect(),
        attribute: vec![
            attribute("else_branch", branch(&whole)),
            attribute("then_branch", branch(graph)),
        ],
        ..NodeProto::default()
    };
    graph.node = vec![chosen];
    graph.input.push(ValueInfoProto {
        name: "use_cache_branch".into(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(type_proto::Tensor {
                elem_type: DataType::Bool as i32,
                shape: Some(TensorShapeProto::default()),
            })),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    });
}

#[test]
fn a_merged_export_is_read_by_its_branch_with_a_cache() {
    let (ids, expected) = recorded(&base("tiny-llama/logits.safetensors"));
    let points = all_linear("tiny-llama/cached");
    for renamed in [false, true] {
        let (_folder, path) = written(|graph| {
            merge(graph);
            if renamed {
                // Other names within the branch than outside.
                let branch = graph.node[0].attribute[1].g.as_mut().unwrap();
                for output in &mut branch.output {
                    let inner = format!("inner.{}", output.name);
                    let outputs = branch.node.iter_mut().flat_map(|node| &mut node.output);
                    outputs.filter(|name| **name == output.name).for_each(|n| *n = inner.clone());
                    output.name = inner;
                }
            }
        });
        let model = LanguageModel::load(&path, &points, Arc::new(Identity)).unwrap();
        assert_eq!(model.points().len(), points.len());
        let logits = in_parts(&model, &ids, &[10, 1, 1, 12]);
        assert!(worst(&logits.values, &expected) < TOLERANCE);
    }
}

#[test]
fn graphs_whose_cache_does_not_fit_are_refused_by_name() {
    fn dim(graph: &mut GraphProto, input: &str, at: usize, size: Value) {
        let input = graph.input.iter_mut().find(|of| of.name == input).unwrap();
        let Some(type_proto::Value::TensorType(tensor)) = &mut input.r#type.as_mut().unwrap().value
        else {
            panic!("no tensor")
        };
        tensor.shape.as_mut().unwrap().dim[at].value = Some(size);
    }
    fn output(graph: &mut GraphProto, name: &str, from: &str) {
        // Another tensor under the name of the output.
        let rename = |name: &mut String, from: &str, to: &str| {
            if name == from {
                *name = to.into();
            }
        };
        graph.node.iter_mut().flat_map(|node| &mut node.output).for_each(|output| {
            rename(output, name, "unused");
        });
        graph.node.push(NodeProto {
            op_type: "Identity".into(),
            name: "other".into(),
            input: vec![from.into()],
            output: vec![name.into()],
            ..NodeProto::default()
        });
    }
    let key = "past_key_values.1.key";
    type Change<'a> = &'a dyn Fn(&mut GraphProto);
    let cases: [(&str, Change<'_>, &str); 11] = [
        ("fixed past", &|g| dim(g, key, 2, Value::DimValue(7)), key),
        ("any heads", &|g| dim(g, key, 1, Value::DimParam("heads".into())), key),
        ("no heads", &|g| dim(g, key, 1, Value::DimValue(0)), key),
        ("negative width", &|g| dim(g, key, 3, Value::DimValue(-16)), key),
        ("huge heads", &|g| dim(g, key, 1, Value::DimValue(1 << 40)), key),
        ("other width", &|g| dim(g, key, 3, Value::DimValue(32)), ""),
        (
            "half floats",
            &|g| {
                let input = g.input.iter_mut().find(|of| of.name == key).unwrap();
                let Some(type_proto::Value::TensorType(tensor)) =
                    &mut input.r#type.as_mut().unwrap().value
                else {
                    panic!("no tensor")
                };
                tensor.elem_type = DataType::Float16 as i32;
            },
            key,
        ),
        ("no output", &|g| g.output.retain(|of| of.name != "present.1.key"), "present.1.key"),
        (
            "an output of other sizes",
            &|g| output(g, "present.1.key", "past_key_values.1.key"),
            "present.1.key",
        ),
        (
            "another name",
            &|g| g.input.iter_mut().for_each(|i| i.name = i.name.replace(".key", ".keys")),
            "past_key_values.0.keys",
        ),
        (
            "a choice that nothing reads",
            &|g| {
                merge(g);
                g.node[0].input[0] = "attention_mask".into();
            },
            "use_cache_branch",
        ),
    ];
    for (what, change, name) in cases {
        let error = changed(change).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(name), "{what}: {error}");
    }
    // An integer model reads whole sequences.
    let error = LayerGraph::load(&base("tiny-llama/cached.onnx"), &[]).unwrap_err().to_string();
    assert!(error.contains("past_key_values.0.key"), "{error}");
}
