//! Every graph of fixtures/base-graphs: what lowers computes what the file does, and what does one
//! thing more is refused with its reason.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod float_graph;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use zklora_integer::{
    Error,
    graph::{Graph, Operator},
    lower::lower,
};
use zklora_models::language_model::{Identity, LanguageModel};

/// For each reason, the graphs that are refused for it.
const REFUSED: [(&str, &[&str]); 28] = [
    (
        "an operand of numbers that are no causal mask, no positions from 0 and no waves of them",
        &[
            "first-mask",
            "long-window-mask",
            "mask-of-a-head",
            "opposite-mask",
            "positions-cast",
            "positions-from-1",
            "positions-halved",
            "positions-modulo-8",
            "positions-reversed",
            "positions-to-10",
            "rotary-length",
            "scores-log-length",
            "stream-length",
            "strict-mask",
            "table-modulo",
            "table-reversed",
            "weak-mask",
            "window-mask",
        ],
    ),
    (
        "a sum or mean that is not part of a norm",
        &[
            "norm-of-heads",
            "norm-of-others",
            "norm-over-tokens",
            "norm-reversed",
            "prefix-layer",
            "prefix-rms",
            "stream-doubled",
        ],
    ),
    (
        "queries, keys or values in an unknown form",
        &[
            "interleaved-heads",
            "rotary-across-heads",
            "rotary-itself",
            "rotary-same-sign",
            "rotary-two-angles",
        ],
    ),
    (
        "a function that is none of silu, gelu, gelu_tanh, quick_gelu, relu",
        &["activation-capped-far", "activation-scaled", "logits-capped", "logits-scaled"],
    ),
    (
        "heads of attention that do not fit each other",
        &["keys-ask", "keys-of-other-heads", "reversed-heads", "weights-twice"],
    ),
    (
        "the integer model has no such operator for attention's scores",
        &["log-softmax", "scores-capped", "scores-negative", "weights-of-other-heads"],
    ),
    (
        "only some tokens go on; export all of them",
        &["logits-of-some", "stream-first", "values-shifted"],
    ),
    ("a cast of values to I32, which rounds them", &["activation-integer", "norm-integer"]),
    ("a look-up in something else than a stored table", &["ids-reversed", "values-reversed"]),
    ("attention's softmax is not over the keys", &["softmax-over-heads", "softmax-over-queries"]),
    (
        "numbers that are no operator's result: scaled, shifted, mixed or in another order",
        &["bias-infinite", "gain-nan", "logits-reversed", "rotary-twice"],
    ),
    ("operands that the integer model does not know", &["product-of-pairs", "sum-of-pairs"]),
    ("the integer model has no such operator", &["activation-capped", "ids-capped"]),
    ("a cast of token ids to U8", &["ids-bytes"]),
    ("a cast of values to F16, which rounds them", &["activation-half"]),
    ("a cast of values to TDim, which rounds them", &["values-integer"]),
    ("a choice that is not a causal mask", &["swapped-choice"]),
    ("a product with a matrix over several axes", &["values-summed"]),
    ("a softmax of something else than attention's scores", &["softmax-twice"]),
    ("attention that is not causal", &["no-mask"]),
    ("attention's scores are changed by something unknown", &["scores-with-slopes"]),
    ("attention's scores are repeated", &["softmax-with-sink"]),
    ("attention's scores are scaled after they are masked", &["scaled-after-mask"]),
    ("attention's scores are scaled head by head", &["scores-of-heads"]),
    ("attention's scores in another order", &["weights-transposed"]),
    ("attention's weights are not applied to values", &["weights-einsum-transposed"]),
    ("the integer model has no such function", &["activation-leaky"]),
    ("a weight is inf; weights must be finite", &["weight-infinite"]),
];

fn path(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/base-graphs");
    folder.join(name).with_extension("onnx")
}

/// The names of all graphs of a kind, without it.
fn names(kind: &str) -> BTreeSet<String> {
    let files = std::fs::read_dir(path("x").parent().unwrap()).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names
        .filter_map(|name| {
            Some(name.strip_suffix(".onnx")?.strip_prefix(kind)?.strip_prefix('-')?.to_owned())
        })
        .collect()
}

fn lowered(name: &str) -> Graph {
    let name = format!("good-{name}");
    lower(&path(&name), &[]).unwrap_or_else(|error| panic!("{name}: {error}")).graph
}

#[test]
fn what_lowers_computes_the_same_logits() {
    let names = names("good");
    assert!(names.len() >= 20);
    for name in names {
        let graph = lowered(&name);
        let tokens = graph.positions.unwrap_or(40).min(40) as u32;
        let ids: Vec<u32> =
            (0..tokens).map(|at| (at * at * 7 + at * 3 + 5) % graph.vocabulary as u32).collect();
        let model =
            LanguageModel::load(&path(&format!("good-{name}")), &[], Arc::new(Identity)).unwrap();
        let expected = model.logits(&ids).unwrap();
        for (at, row) in float_graph::logits(&graph, &ids).iter().enumerate() {
            let expected = expected.row(at).unwrap();
            assert_eq!(row.len(), expected.len(), "{name}");
            for (found, expected) in row.iter().zip(expected) {
                let difference = (found - f64::from(*expected)).abs();
                assert!(difference < 1e-4, "{name}, token {at}: {found} for {expected}");
            }
        }
    }
}

#[test]
fn what_the_integer_model_cannot_do_is_refused() {
    let expected: BTreeSet<String> =
        REFUSED.iter().flat_map(|(_, names)| names.iter().map(|name| (*name).to_owned())).collect();
    assert_eq!(names("bad"), expected);
    std::thread::scope(|scope| {
        for (reason, names) in REFUSED {
            scope.spawn(move || names.iter().for_each(|name| check_refused(name, reason)));
        }
    });
}

fn check_refused(name: &str, reason: &str) {
    match lower(&path(&format!("bad-{name}")), &[]) {
        Err(Error::Unsupported { node, why, .. }) => {
            assert_eq!(why, reason, "{name}");
            assert_ne!(node, "?", "{name}");
        }
        Err(error) => panic!("{name}: {error}"),
        Ok(_) => panic!("{name} was lowered"),
    }
}

/// The operators are the same, scales to the last bits, and the weights too.
fn assert_same(left: &str, right: &str) {
    let [one, other] = [left, right].map(lowered);
    assert_eq!(one.operators.len(), other.operators.len(), "{left}, {right}");
    for (one, other) in one.operators.iter().zip(&other.operators) {
        let mut other = other.clone();
        if let (Operator::Attention { scale, .. }, Operator::Attention { scale: other_scale, .. }) =
            (one, &mut other)
        {
            assert!((*scale / *other_scale - 1.0).abs() < 1e-6, "{left}, {right}");
            *other_scale = *scale;
        }
        assert_eq!(*one, other, "{left}, {right}");
    }
    let digests =
        |graph: &Graph| graph.weights.iter().map(|weight| weight.digest()).collect::<Vec<_>>();
    assert_eq!(digests(&one), digests(&other), "{left}, {right}");
}

#[test]
fn spellings_of_attention_are_the_same() {
    for model in ["llama", "cohere", "opt"] {
        assert_same(&format!("{model}-eager"), &format!("{model}-sdpa"));
    }
    for name in ["einsum", "grouped", "masked-fill", "masked-twice", "sdpa"] {
        assert_same("plain", name);
    }
}

#[test]
fn a_table_of_positions_ends_the_units() {
    assert_eq!(lowered("plain").positions, None);
    assert_eq!(lowered("table").positions, Some(24));
    // A table of 80 rows, the first two of which are for no token.
    assert_eq!(lowered("table-from-2").positions, Some(78));
}
