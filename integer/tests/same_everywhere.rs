//! The integer model and its scores are the same bits for every exporter, number of threads,
//! process and processor, and in every batch.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod support;

use std::process::Command;

use support::{MODELS, Random, Shape, base};
use zklora_integer::{
    adapter::Adapter,
    graph::{Operator, Purpose},
    model::{Calibration, IntegerModel},
    scales::Scale,
    score::{Score, score, score_both},
    unit::{Normalisation, Sequence, Unit},
};
use zklora_models::language_model::Tokenizer;

/// BLAKE3 of `integer-model.json` and of the scores of some units, by the calibration: on generated
/// tokens, and on texts where there is a tokenizer. Another digest is another function: it needs a
/// new `rules::VERSION`.
const DIGESTS: [(&str, bool, &str, &str); 6] = [
    (
        "tiny-llama",
        false,
        "aec690455defde59784d84c9e057b49aa3f69682999760a68b503aa9a1a2cba2",
        "1eb0f43b880252244445c2b6670ce6d5aaec5aaaa9d8daeef0483db84b421d1c",
    ),
    (
        "tiny-llama",
        true,
        "ffefa2999b22770134f5661e309b03d03e85886ad16d05e38b7e357fcd1427fe",
        "4fd3d8943151b734efbc4e7722af58ee96cae2c73eb29489c1822abeb2b54808",
    ),
    (
        "tiny-gpt2",
        false,
        "a027f4d34290592172168c4643534b277aae0433a01c710042de1f969dd536cd",
        "1998da1650591dc1b11d5d47211504f1a360d361efe989ee1d873bdb9d6688f7",
    ),
    (
        "tiny-gpt2",
        true,
        "a144f1df825ffa59517229bae17a247c224f485717ba25b2bea6a04da5286f72",
        "74542bfb98550bd100177fbd6e8d3723c846ad00ad25432a069c13abde3bbad6",
    ),
    (
        "tiny-qwen2",
        false,
        "003e2c5a83c4b7c1e5855c54cdefefc29ecfa0ed83b137846a695dd02169d3d8",
        "e624bd6e624990698c3ad247404609152d05e0476107f9ea3ebbab3634b12ace",
    ),
    (
        "tiny-mistral",
        false,
        "1f377da2d06d08817af691f6896e24a242d163e69daa445147f076a8ca65638a",
        "20b0a2d139febaaf6733e11a9d9b20f0a184f1909e0bc4c5f9fe09bdc7494c8d",
    ),
];

fn compiled(name: &str, file: &str, texts: bool) -> IntegerModel {
    let tokenizer = texts.then(|| Tokenizer::load(&base(name, "tokenizer.json")).unwrap());
    let calibration = tokenizer.as_ref().map_or(Calibration::Tokens, Calibration::Texts);
    IntegerModel::compile(&base(name, file), calibration).unwrap()
}

/// Units of every kind.
fn units(vocabulary: usize) -> Vec<Unit> {
    let mut random = Random(40);
    let mut sequence = |length: usize| {
        let tokens = random.units(vocabulary, &[length]).remove(0);
        Sequence { tokens, from: 1 + random.below(length - 1) }
    };
    let mut units: Vec<Unit> =
        [2, 30, 7, 64, 3, 100, 11].map(|length| Unit::LogProbability(sequence(length))).into();
    for normalisation in [Normalisation::None, Normalisation::Tokens, Normalisation::Bytes] {
        units.push(Unit::Choice {
            choices: [5, 9, 4].map(&mut sequence).into(),
            lengths: vec![7, 20, 3],
            normalisation,
            answer: Some(1),
        });
    }
    units.push(Unit::Generate { prompt: sequence(6).tokens, tokens: 6 });
    units
}

fn adapter(model: &IntegerModel) -> Adapter {
    support::adapter(&mut Random(41), &model.graph, Shape::default())
}

/// Scores without and with an adapter.
fn scores(model: &IntegerModel) -> Vec<Score> {
    let units = units(model.graph.vocabulary);
    let plain = support::program(model);
    let adapted = model.program(adapter(model)).unwrap();
    [plain, adapted].iter().flat_map(|program| score(program, &units).unwrap().0).collect()
}

fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// The numbers of scores, in words.
fn scores_digest(scores: &[Score]) -> String {
    let part = |score: &Score| match score {
        Score::LogProbability(found) => format!("{:?}", found.tokens),
        Score::Choice { choices, chosen, correct } => {
            let sums: Vec<&Vec<i64>> = choices.iter().map(|choice| &choice.tokens).collect();
            format!("{sums:?} {chosen} {correct:?}")
        }
        Score::Generated(tokens) => format!("{tokens:?}"),
        Score::OutOfRange(found) => format!("operator {}", found.operator),
    };
    let parts: Vec<String> = scores.iter().map(part).collect();
    digest(parts.join("\n").as_bytes())
}

#[test]
fn digests() {
    let mut changed = 0;
    for (name, texts, model, scored) in DIGESTS {
        let compiled = compiled(name, "dynamo.onnx", texts);
        let found = scores(&compiled);
        assert!(!found.iter().any(|score| matches!(score, Score::OutOfRange(_))), "{name}");
        let (found, bytes) = (scores_digest(&found), digest(&compiled.to_bytes().unwrap()));
        let lines =
            [format!("{name:?}"), texts.to_string(), format!("{bytes:?}"), format!("{found:?}")];
        println!("    (");
        lines.iter().for_each(|line| println!("        {line},"));
        println!("    ),");
        changed += usize::from((bytes.as_str(), found.as_str()) != (model, scored));
    }
    assert_eq!(changed, 0, "the table above is to be this one, and it is another function");
}

#[test]
fn exporters() {
    for (name, texts, ..) in DIGESTS {
        let [dynamo, legacy] = ["dynamo.onnx", "legacy.onnx"].map(|file| {
            let model = compiled(name, file, texts);
            (model.to_bytes().unwrap(), scores(&model))
        });
        assert!(dynamo == legacy, "{name}");
    }
}

#[test]
fn threads() {
    for name in MODELS {
        let made = [1, 2, 5].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let model = compiled(name, "dynamo.onnx", false);
                (model.to_bytes().unwrap(), scores(&model))
            })
        });
        assert!(made[0] == made[1] && made[1] == made[2], "{name}");
    }
}

#[test]
fn batches() {
    for name in MODELS {
        let model = support::fixture(name);
        let program = model.program(adapter(&model)).unwrap();
        let mut units = units(model.graph.vocabulary);
        // More tokens than are evaluated at once.
        units.extend(units.clone());
        units.extend(units.clone());
        let (all, usage) = score(&program, &units).unwrap();
        let alone: Vec<Score> = units
            .iter()
            .map(|unit| score(&program, std::slice::from_ref(unit)).unwrap().0.remove(0))
            .collect();
        assert_eq!(all, alone, "{name}");
        let plain = support::program(&model);
        let both = score_both([&plain, &program], &units).unwrap();
        assert_eq!(both, [score(&plain, &units).unwrap(), (all.clone(), usage.clone())]);
        let mut random = Random(42);
        for _ in 0..2 {
            let mut order: Vec<usize> = (0..units.len()).collect();
            (1..order.len()).for_each(|at| order.swap(at, random.below(at + 1)));
            let shuffled: Vec<Unit> = order.iter().map(|at| units[*at].clone()).collect();
            let (found, used) = score(&program, &shuffled).unwrap();
            assert!(order.iter().zip(&found).all(|(at, score)| *score == all[*at]), "{name}");
            assert_eq!(used, usage);
        }
    }
}

/// A unit that leaves a range has no effect on the others of its batch.
#[test]
fn a_unit_that_fails_leaves_the_others() {
    let mut model = support::fixture("tiny-llama");
    let is_key = |operator: &Operator| {
        matches!(operator, Operator::Round { purpose: Purpose::Attention, .. })
    };
    let at = model.graph.operators.iter().position(is_key).unwrap();
    let units: Vec<Unit> = Random(43)
        .units(model.graph.vocabulary, &[3; 40])
        .into_iter()
        .map(|tokens| Unit::LogProbability(Sequence { tokens, from: 1 }))
        .collect();
    let mut mixed = 0;
    for _ in 0..6 {
        // A bit more, until all units leave the range.
        let mut scales = model.scales.clone();
        if let Scale::Bits { bits } = &mut scales[at] {
            *bits += 1;
        }
        support::rescale(&mut model, scales);
        let program = support::program(&model);
        let (all, _) = score(&program, &units).unwrap();
        let failed = all.iter().filter(|score| matches!(score, Score::OutOfRange(_))).count();
        mixed += usize::from((1..all.len()).contains(&failed));
        for (unit, expected) in units.iter().zip(&all) {
            let (alone, _) = score(&program, std::slice::from_ref(unit)).unwrap();
            assert_eq!(alone[0], *expected);
        }
    }
    assert!(mixed > 0);
}

const CHILD: &str = "ZKLORA_SAME_EVERYWHERE_CHILD";

/// What another process prints: digests of a model and of its scores. Nothing in a usual run.
#[test]
fn child() {
    let Ok(name) = std::env::var(CHILD) else { return };
    let model = compiled(&name, "dynamo.onnx", false);
    let scores = scores_digest(&scores(&model));
    println!("child: {} {scores}", digest(&model.to_bytes().unwrap()));
}

/// Runs this test's program again, under another program if one is named.
fn child_of(under: &[&str], name: &str) -> String {
    let me = std::env::current_exe().unwrap();
    let mut command = match under {
        [] => Command::new(&me),
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(&me);
            command
        }
    };
    let output =
        command.args(["child", "--exact", "--nocapture"]).env(CHILD, name).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let found = text.split_once("child: ").unwrap_or_else(|| panic!("{output:?}"));
    found.1.lines().next().unwrap().to_string()
}

fn expected(name: &str) -> String {
    let known = DIGESTS.iter().find(|(of, texts, ..)| *of == name && !texts).unwrap();
    format!("{} {}", known.2, known.3)
}

#[test]
fn processes() {
    for name in MODELS {
        assert_eq!(child_of(&[], name), expected(name));
    }
}

/// A processor without fused multiplication and without AVX, which `qemu-x86_64` emulates.
#[test]
fn an_old_processor() {
    let found = Command::new("qemu-x86_64").arg("--version").output();
    if !cfg!(target_arch = "x86_64") || found.is_err() {
        println!("skipped: there is no qemu-x86_64 (Debian's package qemu-user)");
        return;
    }
    for name in ["tiny-llama", "tiny-gpt2"] {
        let started = std::time::Instant::now();
        let found = child_of(&["qemu-x86_64", "-cpu", "Nehalem"], name);
        println!("{name}: {:.1?}", started.elapsed());
        assert_eq!(found, expected(name));
    }
}
