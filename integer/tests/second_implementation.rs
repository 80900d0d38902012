//! The implementation in Python, which was written from docs/integer-model.md alone, gives the same
//! integers.
//!
//! It needs Python with numpy, onnx and blake3: that of `ZKLORA_PYTHON`, or of
//! `target/torch-env`, which `.ci/torch_env.sh` makes. Without either, the test says so and passes.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

use std::{path::PathBuf, process::Command};

use serde_json::{Value, json};
use zklora_integer::{
    adapter::{Adapter, Module},
    graph::Operator,
    lower::lower,
    model::{Calibration, IntegerModel},
    score::{Score, score},
    unit::{Sequence, Unit},
};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn python() -> Option<PathBuf> {
    let named = std::env::var_os("ZKLORA_PYTHON").map(PathBuf::from);
    let made = root().join("target/torch-env/bin/python");
    named.or_else(|| made.exists().then_some(made))
}

/// Numbers that look random.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % limit
    }
}

/// An adapter on every linear layer, and the same for the other implementation.
fn adapter(model: &IntegerModel, numbers: &mut Numbers) -> (Adapter, Value) {
    let (mut modules, mut described) = (Vec::new(), Vec::new());
    for (at, operator) in model.graph.operators.iter().enumerate() {
        let Operator::Linear { weight, layer: Some(layer), .. } = operator else { continue };
        let weight = &model.graph.weights[*weight];
        let mut side = |count: usize| -> Vec<i32> {
            (0..count).map(|_| numbers.below(511) as i32 - 255).collect()
        };
        let pairs: Vec<(Vec<i32>, Vec<i32>)> =
            (0..2).map(|_| (side(weight.inputs()), side(weight.outputs()))).collect();
        let bias = (modules.len() % 3 == 1).then(|| (4, side(weight.outputs())));
        let scaling = [1.0, 1.7, -0.5, 16.0 / 12.0][modules.len() % 4];
        described.push(json!({
            "operator": at,
            "a": pairs.iter().map(|pair| &pair.0).collect::<Vec<_>>(),
            "b": pairs.iter().map(|pair| &pair.1).collect::<Vec<_>>(),
            "scaling": scaling,
            "scale_log2": -22,
            "bias": bias.as_ref().map(|bias| &bias.1),
            "bias_shift": bias.as_ref().map_or(0, |bias| bias.0),
        }));
        modules.push(Module {
            name: format!("module {at}"),
            layer: *layer,
            inputs: weight.inputs(),
            outputs: weight.outputs(),
            a_bits: 9,
            b_bits: 9,
            scaling,
            scale_log2: -22,
            pairs,
            bias,
        });
    }
    (Adapter { modules }, json!({ "modules": described }))
}

#[test]
fn the_implementation_in_python_gives_the_same_integers() {
    let Some(python) = python() else {
        eprintln!("not compared: set ZKLORA_PYTHON to a Python with numpy, onnx and blake3");
        return;
    };
    for (base, exporter) in [
        ("tiny-llama", "dynamo"),
        ("tiny-gpt2", "legacy"),
        ("tiny-qwen2", "legacy"),
        ("tiny-mistral", "dynamo"),
    ] {
        let path = root().join(format!("fixtures/base/{base}/{exporter}.onnx"));
        let graph = lower(&path, &[]).unwrap().graph;
        let model = IntegerModel::of_graph(&graph, Calibration::Tokens).unwrap();
        let folder = tempfile::tempdir().unwrap();
        model.write(folder.path()).unwrap();
        let mut numbers = Numbers(7);
        let units: Vec<Sequence> = [(24, 1), (2, 1), (9, 5)]
            .into_iter()
            .map(|(length, from)| {
                let token = |_| numbers.below(graph.vocabulary as u64) as u32;
                Sequence { tokens: (0..length).map(token).collect(), from }
            })
            .collect();
        let lines: String = units
            .iter()
            .map(|unit| format!("{}\n", json!({ "tokens": unit.tokens, "from": unit.from })))
            .collect();
        let units: Vec<Unit> = units.into_iter().map(Unit::LogProbability).collect();
        let file = |name: &str| folder.path().join(name);
        std::fs::write(file("units.jsonl"), lines).unwrap();
        let (adapter, described) = adapter(&model, &mut numbers);
        std::fs::write(file("adapter.json"), described.to_string()).unwrap();
        let mut different = Vec::new();
        for (adapter, option) in [(Adapter::default(), None), (adapter, Some("adapter.json"))] {
            let program = model.program(adapter).unwrap();
            let (scores, _) = score(&program, &units).unwrap();
            let script = root().join("integer/tests/second_implementation.py");
            let mut command = Command::new(&python);
            command.arg(script).arg(&path).arg(folder.path()).arg(file("units.jsonl"));
            if let Some(option) = option {
                command.arg("--adapter").arg(file(option));
            }
            let output = command.output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(
                output.status.success(),
                "{base}: {said}{}",
                String::from_utf8_lossy(&output.stderr)
            );
            let theirs: Vec<Value> =
                said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let ours: Vec<Value> = scores
                .iter()
                .map(|score| match score {
                    Score::LogProbability(found) => {
                        json!({ "tokens": found.tokens, "bits": model.score_bits })
                    }
                    _ => json!({ "out_of_range": true }),
                })
                .collect();
            assert_eq!(ours, theirs, "{base}, {option:?}");
            assert!(ours[0].get("tokens").is_some(), "{base}, {option:?}: {scores:?}");
            different.push(ours);
        }
        assert_ne!(different[0], different[1]);
    }
}
