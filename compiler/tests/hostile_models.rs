//! Models that try to break or stall the compiler: each is refused for its own reason, quickly and
//! with little memory.

#![allow(clippy::unwrap_used, clippy::panic)]

use tract_onnx::pb;
use zklora_compiler::{IngestError, ingest};

mod models;
use models::{assert_refused, bytes, floats, ints, model, node, plain, refusal_of_bytes, value};

#[test]
fn the_plain_model_that_the_others_break_is_accepted() {
    assert_eq!(ingest(&bytes(&plain()), "plain").unwrap().d_out, 3);
}

#[test]
fn shapes_beyond_memory_are_refused() {
    for dims in [
        &[1i64 << 60][..],
        &[1 << 31, 1 << 31, 1 << 31],
        &[i64::MAX, 2],
        &[-1, 4],
        &[1 << 15, 1 << 15],
    ] {
        let mut hostile = plain();
        hostile.graph.as_mut().unwrap().initializer[0].dims = dims.to_vec();
        assert_refused(&hostile, &["`w`", "exceeds the limit"]);
    }
    let mut hostile = plain();
    hostile.graph.as_mut().unwrap().input[0] = value("x", &[1 << 40, 4]);
    assert_refused(&hostile, &["`x`", "exceeds the limit"]);
}

#[test]
fn empty_dimensions_are_refused() {
    let mut hostile = plain();
    hostile.graph.as_mut().unwrap().initializer[0] = floats("w", &[4, 0], &[]);
    assert_refused(&hostile, &["`w`", "empty"]);
    let mut hostile = plain();
    hostile.graph.as_mut().unwrap().input[0] = value("x", &[0, 4]);
    assert_refused(&hostile, &["`x`", "length 0"]);
}

#[test]
fn inputs_without_a_shape_or_that_are_the_output_are_refused() {
    let mut hostile = plain();
    hostile.graph.as_mut().unwrap().input[0].r#type = value("x", &[]).r#type;
    let declared = hostile.graph.as_mut().unwrap().input[0].r#type.as_mut().unwrap();
    if let Some(pb::type_proto::Value::TensorType(tensor)) = &mut declared.value {
        tensor.shape = None;
    }
    assert_refused(&hostile, &["`x`", "no shape"]);
    let mut hostile = plain();
    hostile.graph.as_mut().unwrap().node.clear();
    hostile.graph.as_mut().unwrap().output[0].name = "x".into();
    assert_refused(&hostile, &["`x`", "no adapter"]);
}

#[test]
fn empty_tensors_are_refused_only_where_they_are_weights() {
    let mut model = plain();
    model.graph.as_mut().unwrap().initializer.push(floats("roi", &[0], &[]));
    assert!(zklora_compiler::ingest(&bytes(&model), "model").is_ok());
}

#[test]
fn data_that_do_not_fit_the_shape_are_refused() {
    let mut hostile = plain();
    hostile.graph.as_mut().unwrap().initializer[0].float_data.pop();
    assert_refused(&hostile, &["`w`", "does not store 12 element(s)"]);
    let mut hostile = plain();
    let weight = &mut hostile.graph.as_mut().unwrap().initializer[0];
    (weight.float_data, weight.raw_data) = (vec![], vec![0; 13]);
    assert_refused(&hostile, &["`w`", "does not store 12 element(s)"]);
}

#[test]
fn weights_that_are_not_finite_are_refused() {
    for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut hostile = plain();
        hostile.graph.as_mut().unwrap().initializer[0].float_data[5] = poison;
        assert_refused(&hostile, &["`w`", "NaN or infinite"]);
    }
}

#[test]
fn duplicate_names_are_refused() {
    let mut hostile = plain();
    hostile.graph.as_mut().unwrap().initializer.push(floats("w", &[1], &[1.0]));
    assert_refused(&hostile, &["two initialisers are called `w`"]);
    let mut hostile = plain();
    hostile.graph.as_mut().unwrap().input.push(value("x", &[2, 4]));
    assert_refused(&hostile, &["two inputs are called `x`"]);
    let mut hostile = plain();
    hostile.graph.as_mut().unwrap().node.push(node("Neg", &["x"], "y"));
    assert_refused(&hostile, &["`y`", "made elsewhere"]);
    let mut hostile = plain();
    hostile.graph.as_mut().unwrap().node.push(node("Neg", &["x"], "w"));
    assert_refused(&hostile, &["`w`", "made elsewhere"]);
}

#[test]
fn nodes_with_the_same_name_are_renamed() {
    let mut nodes = vec![node("MatMul", &["x", "a"], "h"), node("MatMul", &["h", "b"], "y")];
    // As an initialiser, and as each other.
    nodes.iter_mut().for_each(|node| node.name = "a".into());
    let twins =
        model(nodes, vec![floats("a", &[4, 2], &[0.5; 8]), floats("b", &[2, 3], &[0.5; 6])]);
    assert_eq!(ingest(&bytes(&twins), "twins").unwrap().d_out, 3);
}

#[test]
fn values_that_no_node_makes_are_refused() {
    let mut hostile = plain();
    hostile.graph.as_mut().unwrap().output[0].name = "z".into();
    assert_refused(&hostile, &["nothing makes its output `z`"]);
    let mut hostile = plain();
    hostile.graph.as_mut().unwrap().node[0].input[1] = "v".into();
    assert_refused(&hostile, &["nothing makes `v`", "node_y"]);
}

#[test]
fn cycles_are_refused() {
    let nodes =
        vec![node("Add", &["x", "b"], "a"), node("Neg", &["a"], "b"), node("Neg", &["b"], "y")];
    assert_refused(&model(nodes, vec![]), &["cycle"]);
    assert_refused(&model(vec![node("Add", &["x", "y"], "y")], vec![]), &["cycle"]);
}

#[test]
fn control_flow_is_refused_however_deep() {
    let mut graph = plain().graph.unwrap();
    for _ in 0..5 {
        let mut branch = node("If", &["x"], "y");
        branch.attribute.push(pb::AttributeProto {
            name: "then_branch".into(),
            g: Some(graph),
            ..Default::default()
        });
        graph = pb::GraphProto { node: vec![branch], ..plain().graph.unwrap() };
    }
    assert_refused(
        &pb::ModelProto { graph: Some(graph.clone()), ..plain() },
        &["`node_y` (If)", "control flow"],
    );
    for _ in 0..200 {
        let mut branch = node("If", &["x"], "y");
        branch.attribute.push(pb::AttributeProto {
            name: "then_branch".into(),
            g: Some(graph),
            ..Default::default()
        });
        graph = pb::GraphProto { node: vec![branch], ..Default::default() };
    }
    assert_refused(&pb::ModelProto { graph: Some(graph), ..plain() }, &["recursion limit reached"]);
}

#[test]
fn functions_that_call_themselves_or_multiply_are_refused() {
    let call = |name: &str, input: &str, output: &str| pb::NodeProto {
        domain: "local".into(),
        name: String::new(),
        ..node(name, &[input], output)
    };
    let function = |name: &str, nodes: Vec<pb::NodeProto>| pb::FunctionProto {
        name: Some(name.into()),
        domain: Some("local".into()),
        input: vec!["i".into()],
        output: vec!["o".into()],
        node: nodes,
        ..Default::default()
    };
    let mut hostile = model(vec![call("F", "x", "y")], vec![]);
    hostile.functions = vec![function("F", vec![call("F", "i", "o")])];
    assert_refused(&hostile, &["`F` calls itself"]);
    let chain = |to: &str| {
        (0..10)
            .map(|i| {
                let (from, made) = (format!("t{i}"), format!("t{}", i + 1));
                call(to, if i == 0 { "i" } else { &from }, if i == 9 { "o" } else { &made })
            })
            .collect()
    };
    hostile.functions =
        (0..14).map(|i| function(&format!("F{i}"), chain(&format!("F{}", i + 1)))).collect();
    hostile.functions.push(function("F", chain("F0")));
    assert_refused(&hostile, &["functions written out", "exceeds the limit"]);
}

#[test]
fn operators_of_other_domains_are_refused() {
    let mut hostile = plain();
    hostile.graph.as_mut().unwrap().node[0].domain = "com.example".into();
    assert_refused(&hostile, &["`node_y` (MatMul)", "`com.example`"]);
}

#[test]
fn long_names_of_dimensions_are_refused() {
    use pb::tensor_shape_proto::dimension::Value::DimParam;
    let mut hostile = plain();
    let mut input = value("x", &[2, 4]);
    let Some(pb::type_proto::Value::TensorType(tensor)) = &mut input.r#type.as_mut().unwrap().value
    else {
        panic!()
    };
    tensor.shape.as_mut().unwrap().dim[0].value = Some(DimParam("(".repeat(100_000)));
    hostile.graph.as_mut().unwrap().input[0] = input;
    assert_refused(&hostile, &["`x`", "100000 bytes long"]);
}

#[test]
fn millions_of_empty_nodes_are_refused_before_they_are_decoded() {
    // A graph of 20 million nodes of two bytes each, which would decode to gigabytes.
    let nodes = [0x0a, 0x00].repeat(20_000_000);
    let mut file = vec![0x3a];
    let mut length = nodes.len();
    while length >= 0x80 {
        file.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    file.push(length as u8);
    file.extend(nodes);
    let error = refusal_of_bytes(&file);
    assert!(error.contains("number of parts") && error.contains("exceeds the limit"), "{error}");
}

#[test]
fn names_that_are_not_utf8_are_refused() {
    let mut file = bytes(&plain());
    let at = file.windows(6).position(|window| window == b"node_y").unwrap();
    file[at] = 0xff;
    let error = refusal_of_bytes(&file);
    assert!(error.contains("not a valid ONNX model") && error.contains("UTF-8"), "{error}");
}

#[test]
fn every_truncation_of_a_model_is_refused() {
    let file = bytes(&plain());
    for length in 0..file.len() {
        // One prefix is still a model, without its version.
        if let Err(error) = ingest(&file[..length], "cut") {
            assert!(!matches!(error, IngestError::Internal { .. }), "{length}: {error}");
        }
    }
    assert!(refusal_of_bytes(&file[..file.len() / 2]).contains("not a valid ONNX model"));
}

#[test]
fn operator_sets_of_another_meaning_are_refused() {
    for version in [-1, 0, 6] {
        let mut old = plain();
        old.opset_import[0].version = version;
        assert_refused(&old, &[&format!("version {version}"), "version_converter"]);
    }
    let mut silent = plain();
    silent.opset_import.clear();
    assert_refused(&silent, &["which operator set"]);
}

#[test]
fn transposes_that_are_not_permutations_are_refused() {
    // The first of these makes tract loop forever.
    for perm in [&[0, 1, 1][..], &[1, 1], &[0, 2], &[-1, 0]] {
        let mut transpose = node("Transpose", &["w"], "t");
        let ints =
            pb::AttributeProto { name: "perm".into(), ints: perm.to_vec(), ..Default::default() };
        transpose.attribute.push(pb::AttributeProto { r#type: 7, ..ints });
        let nodes = vec![transpose, node("MatMul", &["x", "t"], "y")];
        assert_refused(
            &model(nodes, vec![floats("w", &[3, 4], &[0.5; 12])]),
            &["`node_t`", "every axis once"],
        );
    }
}

#[test]
fn operators_that_would_be_computed_wrongly_are_refused_on_constants_too() {
    for operator in ["Celu", "GlobalLpPool"] {
        let nodes = vec![node(operator, &["w"], "v"), node("MatMul", &["x", "v"], "y")];
        let case = model(nodes, vec![floats("w", &[4, 3], &[0.5; 12])]);
        assert_refused(&case, &["`node_v`", operator, "store its result"]);
    }
}

#[test]
fn an_open_number_of_rows_is_not_stretched_to_a_fixed_one() {
    let mut stretched = model(
        vec![node("MatMul", &["x", "w"], "d"), node("Add", &["d", "b"], "y")],
        vec![floats("w", &[4, 3], &[0.5; 12]), floats("b", &[5, 1], &[2.0; 5])],
    );
    stretched.graph.as_mut().unwrap().input[0] = symbolic("x", "N", 4);
    assert_refused(&stretched, &["`node_y`", "fixed number of rows"]);
    let mut expanded = model(
        vec![node("Expand", &["x", "n"], "e"), node("MatMul", &["e", "w"], "y")],
        vec![floats("w", &[4, 3], &[0.5; 12]), ints("n", &[5, 4])],
    );
    expanded.graph.as_mut().unwrap().input[0] = symbolic("x", "N", 4);
    assert_refused(&expanded, &["`node_e`", "Expand"]);
}

/// An input `[symbol, dim]`.
fn symbolic(name: &str, symbol: &str, dim: i64) -> pb::ValueInfoProto {
    let mut input = value(name, &[1, dim]);
    if let Some(pb::type_proto::Value::TensorType(tensor)) =
        input.r#type.as_mut().and_then(|t| t.value.as_mut())
        && let Some(shape) = tensor.shape.as_mut()
    {
        shape.dim[0].value =
            Some(pb::tensor_shape_proto::dimension::Value::DimParam(symbol.into()));
    }
    input
}

#[test]
fn padding_with_repeated_values_is_refused_whatever_the_value_to_pad_with() {
    for mode in ["edge", "reflect"] {
        let mut pad = node("Pad", &["x", "pads", "value"], "p");
        let mode = pb::AttributeProto {
            name: "mode".into(),
            s: mode.into(),
            r#type: 3,
            ..Default::default()
        };
        pad.attribute.push(mode);
        let weights = vec![
            ints("pads", &[0, 1, 0, 1]),
            floats("value", &[], &[0.0]),
            floats("w", &[6, 3], &[0.5; 18]),
        ];
        let nodes = vec![pad, node("MatMul", &["p", "w"], "y")];
        assert_refused(&model(nodes, weights), &["`node_p`", "repeated values"]);
    }
}

#[test]
fn nodes_that_tract_panics_on_are_named() {
    let nodes = vec![node("GatherND", &["w", "at"], "v"), node("Mul", &["x", "v"], "y")];
    let mut at = ints("at", &[-9]);
    at.dims = vec![1, 1];
    let case = model(nodes, vec![floats("w", &[4, 4], &[0.5; 16]), at]);
    assert_refused(&case, &["`node_v`", "cannot analyse"]);
}

#[test]
fn random_constants_are_refused() {
    for operator in ["RandomNormalLike", "RandomUniformLike", "Bernoulli"] {
        let nodes = vec![node(operator, &["w"], "v"), node("MatMul", &["x", "v"], "y")];
        let case = model(nodes, vec![floats("w", &[4, 3], &[0.5; 12])]);
        assert_refused(&case, &["`node_v`", operator, "random"]);
    }
}
