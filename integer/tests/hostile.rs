//! Damaged and hostile files of integer models, and lines of units: never a panic, and errors that
//! say where and can be shown.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod support;

use std::{fs, path::Path};

use serde_json::{Value, json};
use support::{MODELS, Random, Shape, base};
use zklora_integer::{
    Error,
    graph::Graph,
    model::{FILE, IntegerModel},
    program::Program,
    scales::Scale,
    score::{Score, score},
    unit::{self, Normalisation, Sequence, Unit},
};
use zklora_models::language_model::Tokenizer;

/// A model that was compiled, its graph, and a folder for its file.
struct Compiled {
    graph: Graph,
    model: IntegerModel,
    bytes: Vec<u8>,
    folder: tempfile::TempDir,
}

impl Compiled {
    fn new(name: &str) -> Compiled {
        let graph = support::fixture_graph(name, "dynamo.onnx");
        let model = support::fixture(name);
        let bytes = model.to_bytes().unwrap();
        Compiled { graph, model, bytes, folder: tempfile::tempdir().unwrap() }
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Loads a file with these bytes. Whether it was accepted; then it computes or refuses.
    fn load(&self, bytes: &[u8]) -> bool {
        fs::write(self.folder().join(FILE), bytes).unwrap();
        match IntegerModel::load_with(self.folder(), &self.graph) {
            Ok(model) => {
                assert_eq!(model.to_bytes().unwrap(), bytes);
                computes(&model);
                true
            }
            Err(error) => {
                check_error(&error);
                assert!(error.to_string().contains(FILE), "{error}");
                false
            }
        }
    }
}

/// An error is short and has no effect on a terminal, and never blames zklora.
fn check_error(error: &Error) {
    let text = error.to_string();
    assert!(text.len() < 4000 && !text.chars().any(char::is_control), "{text:?}");
    assert!(!matches!(error, Error::Internal(_)), "{text}");
}

/// Scores units without and with an adapter: scores, or units out of range, or bounds.
fn computes(model: &IntegerModel) {
    let mut random = Random(60);
    let units: Vec<Unit> = random
        .units(model.graph.vocabulary, &[2, 9])
        .into_iter()
        .map(|tokens| Unit::LogProbability(Sequence { tokens, from: 1 }))
        .collect();
    let adapter = support::adapter(&mut random, &model.graph, Shape::default());
    let programs = [model.program(Default::default()), model.program(adapter)];
    for program in programs.into_iter().flatten() {
        score(&program, &units).unwrap();
    }
}

#[test]
fn damaged_bytes() {
    let compiled = Compiled::new("tiny-llama");
    assert!(compiled.load(&compiled.bytes));
    let mut random = Random(61);
    let length = compiled.bytes.len();
    for end in [0, 1, 2, length / 3, length / 2, length - 2, length - 1] {
        assert!(!compiled.load(&compiled.bytes[..end]));
    }
    for _ in 0..200 {
        let mut bytes = compiled.bytes.clone();
        bytes[random.below(length)] ^= 1 << random.below(8);
        compiled.load(&bytes);
    }
    for extra in ["\n", " ", "{}", "\0"] {
        let mut bytes = compiled.bytes.clone();
        bytes.extend(extra.as_bytes());
        assert!(!compiled.load(&bytes), "{extra:?}");
    }
    // The same values in another form.
    let value: Value = serde_json::from_slice(&compiled.bytes).unwrap();
    assert!(!compiled.load(serde_json::to_string_pretty(&value).unwrap().as_bytes()));
}

/// The paths of all values in a file.
fn paths(value: &Value, path: &str, found: &mut Vec<String>) {
    found.push(path.to_string());
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(key, value)| paths(value, &format!("{path}/{key}"), found));
        }
        Value::Array(entries) => {
            let each = entries.iter().enumerate();
            each.for_each(|(at, value)| paths(value, &format!("{path}/{at}"), found));
        }
        _ => {}
    }
}

#[test]
fn changed_values() {
    let compiled = Compiled::new("tiny-gpt2");
    let original: Value = serde_json::from_slice(&compiled.bytes).unwrap();
    let mut all = Vec::new();
    paths(&original, "", &mut all);
    let mut random = Random(62);
    let evil = "\u{1b}[2J\u{202e}".repeat(1000);
    let others = [
        json!(0),
        json!(1),
        json!(-1),
        json!(i32::MIN),
        json!(i32::MAX),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(80),
        json!(-80),
        json!(1e300),
        json!(-0.0),
        json!(null),
        json!(""),
        json!(evil),
        json!([]),
        json!({}),
        json!({ &*evil: 1 }),
        json!({ "bits": 3, "gain_bits": 4 }),
        json!([[[[[[[[[[]]]]]]]]]]),
    ];
    let (mut accepted, mut tried) = (0, 0);
    for _ in 0..500 {
        let path = random.pick(&all);
        let mut value = original.clone();
        match random.below(8) {
            // Removed, or one more.
            0 => {
                let (parent, last) = path.rsplit_once('/').unwrap_or_default();
                match value.pointer_mut(parent).unwrap() {
                    Value::Object(fields) => drop(fields.remove(last)),
                    Value::Array(entries) => drop(entries.remove(last.parse().unwrap_or(0))),
                    _ => {}
                }
            }
            1 => match value.pointer_mut(path).unwrap() {
                Value::Object(fields) => drop(fields.insert(evil.clone(), json!(1))),
                Value::Array(entries) => entries.push(random.pick(&others).clone()),
                _ => continue,
            },
            _ => *value.pointer_mut(path).unwrap() = random.pick(&others).clone(),
        }
        if value == original {
            continue;
        }
        tried += 1;
        let found = compiled.load(&serde_json::to_vec(&value).unwrap());
        // Only scales, and what the calibration was, are believed.
        let believed =
            path.contains("/scales") || path == "/score_bits" || path.starts_with("/calibration");
        assert!(!found || believed, "{path}");
        accepted += usize::from(found);
    }
    println!("{accepted} of {tried} were accepted");
}

#[test]
fn huge_arrays() {
    let compiled = Compiled::new("tiny-gpt2");
    let original: Value = serde_json::from_slice(&compiled.bytes).unwrap();
    let started = std::time::Instant::now();
    for (path, entry) in [
        ("/operators", original.pointer("/operators/0").unwrap().clone()),
        ("/operators/0/reads", json!(0)),
        ("/tables", original.pointer("/tables/0").unwrap().clone()),
        ("/weights", original.pointer("/weights/0").unwrap().clone()),
    ] {
        let mut value = original.clone();
        let count = 300_000;
        let Value::Array(entries) = value.pointer_mut(path).unwrap() else { panic!() };
        entries.extend(std::iter::repeat_n(entry, count));
        assert!(!compiled.load(&serde_json::to_vec(&value).unwrap()));
    }
    assert!(!compiled.load("[".repeat(1 << 20).as_bytes()));
    assert!(!compiled.load(format!("{{\"{}\":1}}", "a".repeat(1 << 20)).as_bytes()));
    assert!(started.elapsed().as_secs() < 30);
    // More than a file may have.
    let file = fs::File::create(compiled.folder().join(FILE)).unwrap();
    file.set_len(65 << 20).unwrap();
    let error = IntegerModel::load_with(compiled.folder(), &compiled.graph).unwrap_err();
    assert!(matches!(error, Error::File(_)) && error.to_string().contains(FILE), "{error}");
    fs::remove_file(compiled.folder().join(FILE)).unwrap();
    let error = IntegerModel::load_with(compiled.folder(), &compiled.graph).unwrap_err();
    assert!(error.to_string().contains(FILE), "{error}");
}

fn numbers(scale: &mut Scale) -> Vec<&mut i32> {
    match scale {
        Scale::Bits { bits } => vec![bits],
        Scale::Norm { bits, root_bits, .. } => vec![bits, root_bits],
        Scale::Linear { gain_bits, part_bits, weight_bits } => {
            [gain_bits, weight_bits].into_iter().chain(part_bits).collect()
        }
        Scale::Attention { score_shift } => vec![score_shift],
        Scale::Activation { entry_bits } => vec![entry_bits],
        Scale::None {} => vec![],
    }
}

/// Scales of somebody else's choice, in a file that is consistent: the model computes, or is
/// refused, and its file is accepted or refused by its name.
#[test]
fn scales_at_their_ends() {
    for name in MODELS {
        let mut compiled = Compiled::new(name);
        let original = compiled.model.scales.clone();
        let mut random = Random(63);
        let (mut refused, mut computed) = (0, 0);
        for _ in 0..30 {
            let mut scales = original.clone();
            for _ in 0..1 + random.below(3) {
                let at = random.below(scales.len());
                if let Scale::Norm { first_bits, .. } = &mut scales[at] {
                    *first_bits = *random.pick(&[*first_bits, 0, 24]);
                }
                for number in numbers(&mut scales[at]) {
                    let near = random.between(-6, 6);
                    *number = *random.pick(&[*number, *number + near, -80, -40, 0, 20, 40, 80]);
                }
            }
            support::rescale(&mut compiled.model, scales);
            match compiled.model.to_bytes() {
                Ok(bytes) => {
                    computes(&compiled.model);
                    // Mostly the same files: a few are enough.
                    if random.one_in(5) {
                        assert!(compiled.load(&bytes));
                    }
                    computed += 1;
                }
                Err(error) => {
                    assert!(matches!(error, Error::Bound { .. }), "{error}");
                    refused += 1;
                }
            }
        }
        println!("{name}: {refused} refused, {computed} computed");
        assert!(refused > 4 && computed > 4);
    }
}

/// Scales beyond what a file may have.
#[test]
fn scales_beyond_their_ends() {
    let mut compiled = Compiled::new("tiny-llama");
    let original = compiled.model.scales.clone();
    let value: Value = serde_json::from_slice(&compiled.bytes).unwrap();
    for at in 0..original.len() {
        for end in [i32::MIN, -81, 81, i32::MAX] {
            let count = numbers(&mut original[at].clone()).len();
            for number in 0..count {
                let mut changed = original[at];
                *numbers(&mut changed)[number] = end;
                let mut value = value.clone();
                value["operators"][at]["scales"] = serde_json::to_value(changed).unwrap();
                assert!(!compiled.load(&serde_json::to_vec(&value).unwrap()));
            }
        }
    }
    for (score_bits, fits) in [(-1, false), (11, false), (i32::MIN, false), (0, true), (9, true)] {
        let mut value = value.clone();
        value["score_bits"] = json!(score_bits);
        // The table of scores has other entries.
        assert!(!compiled.load(&serde_json::to_vec(&value).unwrap()));
        if fits {
            compiled.model.scaled.score_bits = score_bits;
            assert!(compiled.load(&compiled.model.to_bytes().unwrap()));
        }
    }
}

#[test]
fn a_file_of_another_model() {
    let llama = Compiled::new("tiny-llama");
    for name in ["tiny-mistral", "tiny-gpt2", "tiny-qwen2"] {
        assert!(!llama.load(&Compiled::new(name).bytes), "{name}");
    }
}

fn tokenizer() -> Tokenizer {
    Tokenizer::load(&base("tiny-llama", "tokenizer.json")).unwrap()
}

#[test]
fn lines_that_are_no_units() {
    let tokenizer = tokenizer();
    let evil = "\u{1b}[2J\u{202e}\u{7}".repeat(1000);
    let many: Vec<String> = (0..1_000_000).map(|at| at.to_string()).collect();
    let mut lines: Vec<String> = [
        "null",
        "[]",
        "1",
        "\"a\"",
        "{",
        "}",
        "{}",
        "\u{0}",
        "\u{feff}{}",
        "{\"text\":\"a\"}}",
        "{\"text\":1}",
        "{\"text\":[]}",
        "{\"text\":\"\"}",
        "{\"text\":null}",
        "{\"tokens\":[]}",
        "{\"tokens\":[1]}",
        "{\"tokens\":[-1,2]}",
        "{\"tokens\":[1.5,2]}",
        "{\"tokens\":[4294967296,1]}",
        "{\"tokens\":[1e99,1]}",
        "{\"tokens\":\"12\"}",
        "{\"tokens\":[1,2],\"from\":2}",
        "{\"tokens\":[1,2],\"from\":18446744073709551615}",
        "{\"tokens\":[1,2],\"from\":-1}",
        "{\"tokens\":[1,2],\"from\":1e3}",
        "{\"tokens\":[1,2],\"tokens\":[1,2]}",
        "{\"tokens\":[1,2],\"text\":\"a\"}",
        "{\"tokens\":[1,2],\"prompt\":\"a\"}",
        "{\"tokens\":[1,2],\"answer\":0}",
        "{\"tokens\":[1,2],\"normalise\":\"bytes\"}",
        "{\"text\":\"a b c\",\"from\":1}",
        "{\"prompt\":\"a\"}",
        "{\"completion\":\"a\"}",
        "{\"prompt\":\"a\",\"completion\":\"\"}",
        "{\"prompt\":\"\",\"completion\":\"\"}",
        "{\"prompt\":\"a\",\"choices\":[]}",
        "{\"prompt\":\"a\",\"choices\":[\"\"]}",
        "{\"prompt\":\"a\",\"choices\":\"b\"}",
        "{\"prompt\":\"a\",\"choices\":[\"b\"],\"answer\":1}",
        "{\"prompt\":\"a\",\"choices\":[\"b\"],\"answer\":-1}",
        "{\"prompt\":\"a\",\"choices\":[\"b\"],\"normalise\":\"x\"}",
        "{\"prompt\":\"\",\"generate\":3}",
        "{\"prompt\":\"a\",\"generate\":-3}",
        "{\"prompt\":\"a\",\"generate\":1e400}",
        "{\"prompt\":\"a\",\"generate\":\"3\"}",
    ]
    .map(String::from)
    .into();
    lines.push("[".repeat(1 << 20));
    lines.push("a".repeat(1 << 20));
    lines.push(json!({ &*evil: 1 }).to_string());
    lines.push(json!({ "prompt": "a", "choices": ["b"], "normalise": evil }).to_string());
    lines.push(json!({ "prompt": "a", "choices": many }).to_string());
    lines.push(json!({ "a".repeat(1 << 20): 1 }).to_string());
    let started = std::time::Instant::now();
    for line in lines {
        // The third line of the file.
        let text = format!("\n{{\"tokens\":[1,2]}}\n{line}\n{{\"tokens\":[1,2]}}");
        for tokenizer in [Some(&tokenizer), None] {
            let shown = line.chars().take(80).collect::<String>();
            let error = unit::read(&text, tokenizer).expect_err(&shown);
            check_error(&error);
            assert!(error.to_string().contains(" 3:"), "{shown}: {error}");
        }
    }
    assert!(started.elapsed().as_secs() < 20);
}

#[test]
fn lines_that_are_units() {
    let tokenizer = tokenizer();
    let control: String =
        (0..32u8).map(char::from).chain(['\u{7f}', '\u{202e}', '\u{10ffff}']).collect();
    for line in [
        json!({ "text": control }),
        json!({ "text": "a\u{0}b\n\n\n" }),
        json!({ "tokens": [u32::MAX, 0] }),
        json!({ "tokens": [1, 2], "from": 0 }),
        json!({ "prompt": control, "completion": control }),
        json!({ "prompt": "", "choices": ["a a", "b b"], "answer": 1, "normalise": "tokens" }),
        json!({ "prompt": "   ", "choices": vec!["a a"; 1024], "normalise": "bytes" }),
        json!({ "prompt": "a", "generate": u64::MAX }),
        json!({ "prompt": "a", "generate": 0 }),
    ] {
        let units = unit::read(&line.to_string(), Some(&tokenizer)).unwrap();
        assert_eq!(units.len(), 1, "{line}");
    }
    for nothing in ["", "\n\n", " \t \r\n", "\r\r"] {
        assert!(unit::read(nothing, None).unwrap().is_empty());
    }
}

/// Lines with one or a few changed bytes.
#[test]
fn damaged_lines() {
    let tokenizer = tokenizer();
    let seeds = [
        r#"{"text":"In the beginning was the word"}"#,
        r#"{"tokens":[1,2,3,40],"from":2}"#,
        r#"{"prompt":"A ","completion":"word or two"}"#,
        r#"{"prompt":"Is it? ","choices":["yes","no"],"answer":0,"normalise":"bytes"}"#,
        r#"{"prompt":"Once","generate":3}"#,
    ];
    let model = support::fixture("tiny-llama");
    let program = support::program(&model);
    let mut random = Random(64);
    let mut read = 0;
    for at in 0..3000 {
        let mut line = seeds[at % seeds.len()].as_bytes().to_vec();
        for _ in 0..1 + random.below(2) {
            let place = random.below(line.len());
            match random.below(3) {
                0 => line[place] ^= 1 << random.below(8),
                1 => drop(line.remove(place)),
                _ => line.insert(place, *random.pick(br#"[]{}",:0129\ue-."#)),
            }
        }
        match unit::read(&String::from_utf8_lossy(&line), Some(&tokenizer)) {
            Ok(units) => {
                read += 1;
                if at % 10 == 0 {
                    let _ = score(&program, &units).map_err(|error| check_error(&error));
                }
            }
            Err(error) => check_error(&error),
        }
    }
    println!("{read} were units");
}

fn refused(program: &Program, unit: Unit) {
    let good = Unit::LogProbability(Sequence { tokens: vec![1, 2], from: 1 });
    let error = score(program, &[good.clone(), good, unit]).unwrap_err();
    check_error(&error);
    assert!(matches!(error, Error::Unit { unit: 2, .. }), "{error}");
}

#[test]
fn units_that_cannot_be_evaluated() {
    let model = support::fixture("tiny-gpt2");
    let program = support::program(&model);
    let vocabulary = model.graph.vocabulary as u32;
    let sequence = |tokens: Vec<u32>| Sequence { tokens, from: 1 };
    let choice = |choices: Vec<Sequence>| Unit::Choice {
        lengths: vec![1; choices.len()],
        choices,
        normalisation: Normalisation::Bytes,
        answer: None,
    };
    for tokens in [
        vec![],
        vec![1, vocabulary],
        vec![u32::MAX, 1],
        vec![1; model.tokens + 1],
        vec![1; 1 << 20],
    ] {
        refused(&program, Unit::LogProbability(sequence(tokens.clone())));
        refused(&program, choice(vec![sequence(vec![1, 2]), sequence(tokens.clone())]));
        for count in [0, 1, usize::MAX] {
            refused(&program, Unit::Generate { prompt: tokens.clone(), tokens: count });
        }
    }
    // As long as the model can.
    let longest = vec![1; model.tokens];
    let units = [
        Unit::LogProbability(sequence(longest.clone())),
        Unit::Generate { prompt: longest.clone(), tokens: usize::MAX },
        Unit::Generate { prompt: longest[2..].to_vec(), tokens: usize::MAX },
        Unit::Generate { prompt: vec![1], tokens: 0 },
    ];
    let (scores, _) = score(&program, &units).unwrap();
    let length = |score: &Score| match score {
        Score::Generated(tokens) => tokens.len(),
        Score::LogProbability(found) => found.tokens.len(),
        _ => usize::MAX,
    };
    let lengths: Vec<usize> = scores.iter().map(length).collect();
    assert_eq!(lengths, [model.tokens - 1, 0, 2, 0]);
    // Units that no line gives, but a caller may make.
    let odd = |tokens: usize, from: usize| Sequence { tokens: vec![1; tokens], from };
    let units = [
        Unit::LogProbability(odd(1, 1)),
        Unit::LogProbability(odd(3, 0)),
        Unit::LogProbability(odd(3, usize::MAX)),
        choice(vec![]),
        choice(vec![odd(3, 5), odd(3, 0)]),
        Unit::Choice {
            choices: vec![odd(3, 5), odd(3, 1)],
            lengths: vec![],
            normalisation: Normalisation::Tokens,
            answer: Some(9),
        },
    ];
    for unit in units {
        let _ = score(&program, &[unit]);
    }
    assert!(score(&program, &[]).unwrap().0.is_empty());
}
