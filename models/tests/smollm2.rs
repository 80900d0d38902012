//! Runs the checks of the small models on SmolLM2-135M, which is too large for the repository, and
//! prints times.
//!
//! ```sh
//! ZKLORA_SMOLLM2=OUT cargo test --release --workspace --test smollm2 -- --ignored --nocapture
//! ```
//!
//! OUT is the folder that `models/make/smollm2.py` wrote.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::{path::PathBuf, sync::Arc, time::Instant};

use support::language::{Local, Recorder, points_of, worst};
use zklora_models::language_model::{Identity, LanguageModel, Tokenizer};

#[test]
#[ignore = "needs the model; see above"]
fn smollm2_runs_with_an_adapter_and_keeps_rows() {
    let folder = PathBuf::from(std::env::var("ZKLORA_SMOLLM2").unwrap());
    let path = folder.join("onnx/model.onnx");
    let adapter = support::load("smollm2-r4-qv");
    let points = points_of(&adapter);
    let started = Instant::now();
    let plain = LanguageModel::load(&path, &[], Arc::new(Identity)).unwrap();
    println!("loaded in {:?}", started.elapsed());
    let recorder = Arc::new(Recorder::default());
    let started = Instant::now();
    let patched = LanguageModel::load(&path, &points, recorder.clone()).unwrap();
    println!("loaded with {} points in {:?}", patched.points().len(), started.elapsed());
    assert_eq!(patched.points().len(), 60);

    let ids: Vec<u32> = (0..192u32).map(|i| (i * i * 7 + 3 * i + 1) % 49152).collect();
    for (name, model) in [("plain", &plain), ("60 points, identity", &patched)] {
        model.logits(&ids[..64]).unwrap();
        let started = Instant::now();
        (0..5).for_each(|_| drop(model.logits(&ids[..64]).unwrap()));
        println!("64 tokens, {name}: {:?}", started.elapsed() / 5);
    }
    let run = |rows: usize| {
        recorder.seen.lock().unwrap().clear();
        let logits = patched.logits(&ids[..rows]).unwrap();
        let mut seen = std::mem::take(&mut *recorder.seen.lock().unwrap());
        seen.push((logits.vocabulary, logits.values));
        seen
    };
    let whole = run(192);
    for rows in [1, 40, 64, 65, 100, 128, 130] {
        for ((features, short), (_, long)) in run(rows).iter().zip(&whole) {
            assert_eq!(short.len(), rows * features);
            assert!(
                short.iter().zip(long).all(|(a, b)| a.to_bits() == b.to_bits()),
                "{rows} tokens"
            );
        }
    }
    let difference =
        worst(&plain.logits(&ids[..8]).unwrap().values, &patched.logits(&ids[..8]).unwrap().values);
    println!("largest difference that patching makes: {difference}");
    assert!(difference < 1e-3);

    let adapted = LanguageModel::load(&path, &points, Arc::new(Local(adapter))).unwrap();
    let tokenizer = Tokenizer::load(&folder.join("hf/tokenizer.json")).unwrap();
    let prompt = tokenizer.encode("The capital of France is").unwrap();
    let logits = adapted.logits(&prompt).unwrap();
    let row = logits.row(prompt.len() - 1).unwrap();
    let next = (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
    println!("The capital of France is{}", tokenizer.decode(&[next as u32]).unwrap());
    println!("ends of a text: {:?}", tokenizer.end_of_text());
}
