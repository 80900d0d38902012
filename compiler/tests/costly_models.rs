//! Small models that would take terabytes or hours are refused before they take memory or time.

#![allow(clippy::unwrap_used)]

use tract_onnx::pb;

mod models;
use models::{
    along, assert_refused, compiled, floats, ints, model, model_of, node, refusal, repeated, value,
};

/// `y = x · w + f(bomb)`, where the nodes compute `bomb`.
fn with_constant(
    mut nodes: Vec<pb::NodeProto>,
    initializers: Vec<pb::TensorProto>,
) -> pb::ModelProto {
    nodes.push(node("MatMul", &["x", "w"], "d"));
    nodes.push(node("ReduceSum", &["bomb"], "s"));
    nodes.push(node("Add", &["d", "s"], "y"));
    model(nodes, [initializers, vec![floats("w", &[4, 3], &[0.5; 12])]].concat())
}

#[test]
fn constants_that_would_not_fit_are_never_computed() {
    let wide: Vec<i64> = vec![1 << 20, 1 << 20];
    let bombs = [
        with_constant(vec![node("ConstantOfShape", &["n"], "bomb")], vec![ints("n", &wide)]),
        with_constant(
            vec![node("Expand", &["one", "n"], "bomb")],
            vec![floats("one", &[1], &[1.0]), ints("n", &wide)],
        ),
        with_constant(
            vec![node("Tile", &["one", "n"], "bomb")],
            vec![floats("one", &[1, 1], &[1.0]), ints("n", &wide)],
        ),
        with_constant(
            vec![node("Range", &["a", "b", "c"], "bomb")],
            [("a", 0.0), ("b", 1e12), ("c", 1.0)]
                .map(|(name, value)| floats(name, &[], &[value]))
                .to_vec(),
        ),
        with_constant(
            vec![node("MatMul", &["l", "r"], "bomb")],
            vec![
                floats("l", &[1 << 17, 1], &vec![1.0; 1 << 17]),
                floats("r", &[1, 1 << 17], &vec![1.0; 1 << 17]),
            ],
        ),
        with_constant(
            vec![node("Mul", &["l", "r"], "bomb")],
            vec![
                floats("l", &[1 << 17, 1], &vec![1.0; 1 << 17]),
                floats("r", &[1, 1 << 17], &vec![1.0; 1 << 17]),
            ],
        ),
        with_constant(
            vec![node("Pad", &["one", "n"], "bomb")],
            vec![floats("one", &[1, 1], &[1.0]), ints("n", &[0, 0, 1 << 30, 1 << 30])],
        ),
    ];
    for bomb in bombs {
        let error = refusal(&bomb);
        assert!(error.contains("node_bomb") && error.contains("elements"), "{error}");
    }
}

#[test]
fn constants_that_double_repeatedly_are_refused() {
    let mut nodes: Vec<_> = (0..40)
        .map(|i| {
            let from = if i == 0 { "one".to_string() } else { format!("c{}", i - 1) };
            let to = if i == 39 { "bomb".to_string() } else { format!("c{i}") };
            node("Concat", &[&from, &from], &to)
        })
        .collect();
    for node in &mut nodes {
        let axis = pb::AttributeProto { name: "axis".into(), r#type: 2, ..Default::default() };
        node.attribute.push(axis);
    }
    assert_refused(
        &with_constant(nodes, vec![floats("one", &[1], &[1.0])]),
        &["(Concat)", "elements"],
    );
}

#[test]
fn sums_that_double_repeatedly_are_refused() {
    let mut nodes = vec![node("MatMul", &["x", "w"], "d0")];
    nodes.extend(
        (0..40).map(|i| node("Add", &[&format!("d{i}"), &format!("d{i}")], &format!("d{}", i + 1))),
    );
    nodes.push(node("Identity", &["d40"], "y"));
    assert_refused(&model(nodes, vec![floats("w", &[4, 3], &[0.5; 12])]), &["(Add)", "terms"]);
}

#[test]
fn products_that_would_take_hours_or_all_memory_are_refused() {
    assert_refused(&chain_of_products(600, 1 << 9), &["too long"]);
    assert_refused(&chain_of_products(2000, 1 << 9), &["all matrices up to here"]);
}

/// `x · w · w · …`
fn chain_of_products(length: usize, size: i64) -> pb::ModelProto {
    let square = floats("w", &[size, size], &vec![0.01; (size * size) as usize]);
    let mut nodes = vec![];
    for i in 0..length {
        let from = if i == 0 { "x".to_string() } else { format!("h{i}") };
        let to = if i == length - 1 { "y".to_string() } else { format!("h{}", i + 1) };
        nodes.push(node("MatMul", &[&from, "w"], &to));
    }
    let mut hostile = model(nodes, vec![square]);
    hostile.graph.as_mut().unwrap().input[0] = value("x", &[2, size]);
    hostile
}

#[test]
fn rows_that_would_be_joined_to_a_huge_one_are_refused() {
    let nodes = vec![
        node("MatMul", &["x", "w"], "d"),
        node("ReduceMean", &["x"], "m"),
        node("Add", &["d", "m"], "y"),
    ];
    let mut hostile = model(nodes, vec![floats("w", &[4, 3], &[0.5; 12])]);
    hostile.graph.as_mut().unwrap().input[0] = value("x", &[1 << 20, 4]);
    assert_refused(&hostile, &["mixes 1048576 rows"]);
}

#[test]
fn products_of_constants_that_would_take_minutes_are_refused() {
    let half = |name: &str, dims: &[i64]| floats(name, dims, &vec![0.01; 1 << 23]);
    let weights = vec![half("l", &[1 << 12, 1 << 11]), half("r", &[1 << 11, 1 << 12])];
    assert_refused(
        &with_constant(vec![node("MatMul", &["l", "r"], "bomb")], weights),
        &["(MatMul)", "too long"],
    );
}

#[test]
fn large_constants_of_small_files_are_refused() {
    let count = [("a", 0), ("n", 1 << 26), ("c", 1)];
    let scalar =
        |(name, value): (&str, i64)| pb::TensorProto { dims: vec![], ..ints(name, &[value]) };
    let range = node("Range", &["a", "n", "c"], "bomb");
    let refused = with_constant(vec![range], count.map(scalar).to_vec());
    assert_refused(&refused, &["node_bomb", "the constants computed up to here"]);
}

#[test]
fn sizes_that_grow_into_long_formulas_are_refused() {
    use pb::tensor_shape_proto::dimension::Value::DimParam;
    // s := s · s + t, from the symbolic shape of x.
    let mut nodes = vec![node("Shape", &["x"], "s0")];
    for i in 0..12 {
        nodes.push(node("Mul", &[&format!("s{i}"), &format!("s{i}")], &format!("m{i}")));
        nodes.push(node("Add", &[&format!("m{i}"), "s0"], &format!("s{}", i + 1)));
    }
    nodes.push(node("Gather", &["s12", "first"], "size"));
    nodes.push(along(0, "Concat", &["size", "four"], "shape"));
    nodes.push(node("Reshape", &["x", "shape"], "v"));
    nodes.push(node("MatMul", &["v", "w"], "y"));
    let constants = vec![ints("first", &[0]), ints("four", &[4]), floats("w", &[4, 3], &[0.5; 12])];
    let mut input = value("x", &[1, 1, 4]);
    if let Some(pb::type_proto::Value::TensorType(tensor)) =
        &mut input.r#type.as_mut().unwrap().value
    {
        for (dim, name) in tensor.shape.as_mut().unwrap().dim.iter_mut().zip(["a", "b"]) {
            dim.value = Some(DimParam(name.into()));
        }
    }
    assert_refused(
        &model_of(vec![input], nodes, constants),
        &["(Mul)", "formula", "export with fixed sizes"],
    );
}

/// `x · w`, doubled to 1024 terms, then `operator` applied `count` times.
fn thousand_terms(operator: &str, other: &[&str], count: usize) -> pb::ModelProto {
    let mut nodes = vec![node("MatMul", &["x", "w"], "d0")];
    nodes.extend(
        (0..10).map(|i| node("Add", &[&format!("d{i}"), &format!("d{i}")], &format!("d{}", i + 1))),
    );
    nodes.extend(repeated(operator, "d10", other, count));
    model(nodes, vec![floats("w", &[4, 4], &[0.5; 16]), floats("f", &[], &[1.01])])
}

#[test]
fn operators_on_a_thousand_terms_are_refused_after_thousands_of_times() {
    for hostile in [
        thousand_terms("Neg", &[], 3000),
        thousand_terms("Mul", &["f"], 3000),
        thousand_terms("MatMul", &["w"], 3000),
    ] {
        assert_refused(&hostile, &["all terms up to here"]);
    }
    assert_eq!(compiled(&thousand_terms("Neg", &[], 500)).terms.len(), 1024);
}

#[test]
fn a_long_row_that_is_added_or_multiplied_hundreds_of_times_is_refused() {
    let width = 1 << 20;
    for operator in ["Add", "Mul"] {
        let row = floats("r", &[width], &(0..width).map(|i| (i + 1) as f32).collect::<Vec<_>>());
        let hostile = model_of(
            vec![value("x", &[1, width])],
            repeated(operator, "x", &["r"], 300),
            vec![row],
        );
        assert_refused(
            &hostile,
            &[operator, "biases, factors per feature and selections up to here"],
        );
    }
    let row = floats("r", &[width], &(0..width).map(|i| (i + 1) as f32).collect::<Vec<_>>());
    let mut nodes = vec![node("Add", &["x", "r"], "d0")];
    nodes.extend(
        (0..9).map(|i| node("Add", &[&format!("d{i}"), &format!("d{i}")], &format!("d{}", i + 1))),
    );
    nodes.push(node("Identity", &["d9"], "y"));
    assert_refused(
        &model_of(vec![value("x", &[1, width])], nodes, vec![row]),
        &["terms are too large"],
    );
}

#[test]
fn rows_that_are_too_long_are_refused() {
    let wide = value("x", &[1, 1 << 23]);
    assert_refused(
        &model_of(vec![wide], vec![node("Neg", &["x"], "y")], vec![]),
        &["rows of 8388608 features"],
    );
    let pads = ints("p", &[0, 0, 0, 1 << 27]);
    assert_refused(
        &model(vec![node("Pad", &["x", "p"], "y")], vec![pads]),
        &["rows of 134217732 features"],
    );
    let parts = vec!["x"; 1000];
    let joined =
        model_of(vec![value("x", &[1, 4096])], vec![along(1, "Concat", &parts, "y")], vec![]);
    assert_refused(&joined, &["joins 1000 parts"]);
}

#[test]
fn moving_features_is_refused_where_it_takes_a_huge_matrix() {
    let order: Vec<i64> = (0..1 << 14).rev().collect();
    let nodes = vec![along(1, "Gather", &["x", "order"], "y")];
    let reversed = model_of(vec![value("x", &[1, 1 << 14])], nodes, vec![ints("order", &order)]);
    assert_refused(&reversed, &["passes 16384 of 16384 features"]);
}
