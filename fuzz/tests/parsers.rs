//! Fuzzes every parser of hostile input, on randomly edited files of the fixtures. A target fails
//! if it panics, or if it accepts what it must not.
//!
//! Each target runs for a second under `cargo test`. With `cargo bolero test --package zklora-fuzz
//! TARGET` (from the registry) libFuzzer runs the same targets with coverage, without a time limit.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use bolero::{TypeGenerator, check};
use zklora_artifacts::{
    activation_commitment::{Commitment, RowProof, Values},
    activations::Activations,
    folder::Public,
    secret_files,
    session_rows::SessionRows,
    trace_reader::TraceReader,
    weights_file,
};
use zklora_proof::{
    checked_manifest::CheckedManifest, keys::KeyStore, manifest::AdapterId, proof::Proof, srs::Srs,
    trace::Trace,
};
use zklora_runtime::{compile, effect_report::EffectReport};
use zklora_session::{prove, record};

/// One edit of a file. Positions wrap around, so every edit is valid.
#[derive(Debug, Clone, TypeGenerator)]
enum Edit {
    Flip { at: u32, mask: u8 },
    Set { at: u32, value: u8 },
    Word { at: u32, value: u64 },
    Cut { at: u32, count: u16 },
    Repeat { at: u32, count: u16 },
    Truncate { at: u32 },
}

fn apply(bytes: &mut Vec<u8>, edits: &[Edit]) {
    for edit in edits.iter().take(12) {
        if bytes.is_empty() {
            return;
        }
        let place = |at: u32| at as usize % bytes.len();
        match *edit {
            Edit::Flip { at, mask } => {
                let at = place(at);
                bytes[at] ^= mask;
            }
            Edit::Set { at, value } => {
                let at = place(at);
                bytes[at] = value;
            }
            Edit::Word { at, value } => {
                let at = place(at);
                let end = (at + 8).min(bytes.len());
                let count = end - at;
                bytes[at..end].copy_from_slice(&value.to_le_bytes()[..count]);
            }
            Edit::Cut { at, count } => {
                let at = place(at);
                bytes.drain(at..(at + count as usize % 64).min(bytes.len()));
            }
            Edit::Repeat { at, count } => {
                let at = place(at);
                let end = (at + count as usize % 64).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            Edit::Truncate { at } => bytes.truncate(place(at)),
        }
    }
}

/// Runs a target on seeds with random edits.
fn fuzz(seeds: &[Vec<u8>], target: impl Fn(&[u8]) + std::panic::RefUnwindSafe) {
    assert!(!seeds.is_empty());
    check!()
        .with_type::<(u8, Vec<Edit>)>()
        .with_test_time(Duration::from_secs(1))
        .cloned()
        .for_each(|(seed, edits)| {
            let mut bytes = seeds[seed as usize % seeds.len()].clone();
            apply(&mut bytes, &edits);
            target(&bytes);
        });
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(name)
}

/// Small artifacts and a session, made once.
struct Contributor {
    folder: tempfile::TempDir,
    srs: Srs,
    keys: KeyStore,
    manifest: CheckedManifest,
}

impl Contributor {
    fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.folder.path().join(name)).unwrap()
    }
}

fn contributor() -> &'static Contributor {
    static CONTRIBUTOR: OnceLock<Contributor> = OnceLock::new();
    CONTRIBUTOR.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let (srs, keys) = (Srs::insecure_dev(8).unwrap(), KeyStore::default());
        let case = fixture("onnx/peft_delta_lora_bias_3d_op17");
        let paths = [case.join("model.onnx")];
        let options = compile::Options {
            paths: &paths,
            out: folder.path(),
            seed_file: None,
            calibrate: None,
            k: None,
            registered: true,
        };
        let artifacts = compile::compile(&options, &srs, &keys).unwrap().artifacts;
        let inputs =
            Activations::read(&case.join("input.npy"), artifacts.manifest.modules(), None).unwrap();
        let (trace, _) = record::record(&artifacts, &inputs, None, None).unwrap();
        trace.write(&folder.path().join("trace.safetensors"), &artifacts.manifest).unwrap();
        let prove = |rows: &Trace<'_>| prove::prove(&artifacts, rows, &srs, &keys);
        fs::write(
            folder.path().join("session.pf"),
            trace.with_trace(&artifacts.manifest, prove).unwrap(),
        )
        .unwrap();
        Contributor { folder, srs, keys, manifest: artifacts.manifest }
    })
}

/// A file with these bytes, in a new folder.
fn file(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    (folder, path)
}

#[test]
fn onnx() {
    let mut seeds = Vec::new();
    for entry in fs::read_dir(fixture("onnx")).unwrap() {
        let bytes = fs::read(entry.unwrap().path().join("model.onnx")).unwrap();
        if bytes.len() < 6000 {
            seeds.push(bytes);
        }
    }
    fuzz(&seeds, |bytes| {
        let _ = zklora_compiler::ingest(bytes, "fuzzed");
    });
}

#[test]
fn adapter_safetensors() {
    let adapter = fixture("adapters/llama_qv_r4");
    let config = fs::read(adapter.join("adapter_config.json")).unwrap();
    fuzz(&[fs::read(adapter.join("adapter_model.safetensors")).unwrap()], |bytes| {
        let (folder, _) = file("adapter_model.safetensors", bytes);
        fs::write(folder.path().join("adapter_config.json"), &config).unwrap();
        let _ = zklora_models::Adapter::load(folder.path());
    });
}

/// Weights of convolutions, experts and layers trained whole, or their settings, with their base
/// model.
#[test]
fn adapter_of_layers_beside_their_base() {
    for case in ["convolutions_dora", "experts", "modules_to_save", "tied_tokens"] {
        let adapter = fixture("peft").join(case);
        let [config, weights] = ["adapter_config.json", "adapter_model.safetensors"]
            .map(|name| (name, fs::read(adapter.join(name)).unwrap()));
        for ((changed, seed), (kept, content)) in [(&config, &weights), (&weights, &config)] {
            fuzz(std::slice::from_ref(seed), |bytes| {
                let (folder, _) = file(changed, bytes);
                fs::write(folder.path().join(kept), content).unwrap();
                let base = Some(adapter.join("base"));
                let _ = zklora_models::Adapter::load_with_base(folder.path(), base.as_deref());
            });
        }
    }
}

/// The settings of an adapter, beside its weights.
fn adapter_settings(adapter: &str, weights: &str) {
    let adapter = fixture(adapter);
    let content = fs::read(adapter.join(weights)).unwrap();
    fuzz(&[fs::read(adapter.join("adapter_config.json")).unwrap()], |bytes| {
        let (folder, _) = file("adapter_config.json", bytes);
        fs::write(folder.path().join(weights), &content).unwrap();
        let _ = zklora_models::Adapter::load(folder.path());
    });
}

#[test]
fn adapter_config() {
    adapter_settings("adapters/gpt2_all_r8_rslora_patterns", "adapter_model.safetensors");
}

#[test]
fn adapter_of_mlx() {
    adapter_settings("foreign/mlx_lora_bias", "adapters.safetensors");
}

/// Files without settings: of kohya's scripts, LyCORIS and diffusers.
#[test]
fn adapter_single_file() {
    let seeds = [
        fixture("foreign/lycoris_mixed/adapter.safetensors"),
        fixture("foreign/lycoris_convolutions/adapter.safetensors"),
        fixture("field/kohya_single/style.safetensors"),
        fixture("field/diffusers_pytorch_lora_weights/pytorch_lora_weights.safetensors"),
    ];
    fuzz(&seeds.map(|path| fs::read(path).unwrap()), |bytes| {
        let (folder, _) = file("lora.safetensors", bytes);
        let _ = zklora_models::Adapter::load(folder.path());
    });
}

#[test]
fn adapter_gguf() {
    let base = fixture("base/tiny-llama");
    fuzz(&[fs::read(fixture("foreign/gguf/adapter.gguf")).unwrap()], |bytes| {
        let (folder, path) = file("adapter.gguf", bytes);
        let _ = zklora_models::Adapter::load_with_base(&path, Some(&base));
        drop(folder);
    });
}

/// An accepted manifest is canonical: it encodes to the same bytes, and its id differs if anything
/// was changed.
#[test]
fn manifest() {
    let original = contributor().bytes("public/manifest.json");
    fuzz(std::slice::from_ref(&original), |bytes| {
        if let Ok(manifest) = CheckedManifest::parse(bytes) {
            assert_eq!(manifest.contents().to_bytes().unwrap(), bytes);
            assert_eq!(manifest.id() == contributor().manifest.id(), bytes == original);
        }
    });
}

/// `settings.json` is never parsed: only the bytes that the verifier derives itself are accepted.
#[test]
fn settings() {
    let c = contributor();
    let original = c.bytes("public/settings.json");
    fuzz(std::slice::from_ref(&original), |bytes| {
        let (folder, _) = file("settings.json", bytes);
        fs::write(folder.path().join("manifest.json"), c.bytes("public/manifest.json")).unwrap();
        assert_eq!(Public::load(folder.path(), None, &c.srs, &c.keys).is_ok(), bytes == original);
    });
}

#[test]
fn trace() {
    let c = contributor();
    fuzz(&[c.bytes("trace.safetensors")], |bytes| {
        let (_folder, path) = file("trace.safetensors", bytes);
        let _ = SessionRows::info(&path);
        let digest = |rows: &Trace<'_>| Ok(rows.digest());
        let in_memory =
            SessionRows::read(&path, &c.manifest).and_then(|t| t.with_trace(&c.manifest, digest));
        assert_eq!(
            in_memory.ok(),
            TraceReader::trace(&path, &c.manifest).map(|rows| rows.digest()).ok()
        );
    });
}

/// A parsed proof encodes to the same bytes.
#[test]
fn proof() {
    let c = contributor();
    fuzz(&[c.bytes("session.pf")], |bytes| {
        if let Ok(proof) = Proof::parse(bytes, &c.manifest.layout()) {
            assert_eq!(proof.to_bytes(), bytes);
        }
    });
}

/// A parsed registration encodes to the same bytes.
#[test]
fn registration() {
    let original = contributor().bytes("public/registration.proof");
    let mut columns = [0; 4];
    columns.copy_from_slice(&original[9..13]);
    let columns = u32::from_le_bytes(columns) as usize;
    fuzz(std::slice::from_ref(&original), |bytes| {
        if let Ok(proof) = zklora_inference::proof::Proof::parse(bytes, columns) {
            assert_eq!(proof.to_bytes(), bytes);
        }
    });
}

#[test]
fn weights_and_opening() {
    let c = contributor();
    fuzz(&[c.bytes("private/weights.bin"), c.bytes("private/opening")], |bytes| {
        let (_folder, path) = file("private", bytes);
        let _ = weights_file::parse(&path, bytes, c.manifest.contents());
        let _ = secret_files::read_opening(&path);
    });
}

#[test]
fn activations() {
    let c = contributor();
    let npy = fs::read(fixture("onnx/peft_delta_lora_bias_3d_op17/input.npy")).unwrap();
    let tensors = fs::read(fixture("adapters/llama_qv_r4/activations.safetensors")).unwrap();
    let json = br#"{"input_data": [[0.5, -1.25e-3, 3]]}"#.to_vec();
    fuzz(&[npy, tensors, json], |bytes| {
        for name in ["x.npy", "x.safetensors", "x.json"] {
            let (_folder, path) = file(name, bytes);
            let _ = Activations::read(&path, c.manifest.modules(), None);
        }
    });
}

/// Batches and answers of the protocol: accepted ones fit the manifest.
#[test]
fn batches_and_answers() {
    use prost::Message;
    use zklora_session::{
        batch,
        wire::{Batch, Call, InferResponse},
    };
    let contributor = contributor();
    let trace = SessionRows::read(
        &contributor.folder.path().join("trace.safetensors"),
        &contributor.manifest,
    )
    .unwrap();
    let honest = Batch {
        sequence: 3,
        rows: vec![batch::to_wire(&std::sync::Arc::new(trace.modules[0].clone()))],
        calls: vec![Call { module: 0, rows: 0 }],
    };
    let answer = batch::deltas_to_wire(3, vec![trace.modules[0].delta.clone()]);
    assert!(batch::parse(&honest, &contributor.manifest).is_ok());
    fuzz(&[honest.encode_to_vec(), answer.encode_to_vec()], |bytes| {
        if let Ok(batch) = Batch::decode(bytes)
            && let Ok(calls) = batch::parse(&batch, &contributor.manifest)
        {
            assert_eq!(calls.len(), batch.counts().count());
            let module = &contributor.manifest.modules()[0];
            assert!(
                calls.iter().all(|call| call.rows.inputs[0].len()
                    == call.rows.scales.len() * module.inputs[0].dim)
            );
        }
        if let Ok(answer) = InferResponse::decode(bytes)
            && let Ok(deltas) = batch::parse_answer(&honest, &answer, &contributor.manifest)
        {
            assert_eq!(deltas[0].len(), trace.modules[0].delta.len());
        }
    });
}

/// Packed batches and answers: accepted ones have the lengths that they declare, and a batch has
/// one encoding.
#[test]
fn packed_batches_and_answers() {
    use prost::Message;
    use zklora_session::{
        batch, packing,
        wire::{Batch, Call, InferResponse},
    };
    let contributor = contributor();
    let manifest = &contributor.manifest;
    let trace =
        SessionRows::read(&contributor.folder.path().join("trace.safetensors"), manifest).unwrap();
    let mut rows = trace.modules[0].clone();
    let few = rows.clone();
    for _ in 0..50 {
        rows.extend(&few, &few.delta);
    }
    let batches: Vec<Batch> = [&rows, &few]
        .map(|rows| Batch {
            sequence: 3,
            rows: vec![batch::to_wire(&std::sync::Arc::new(rows.clone()))],
            calls: vec![Call { module: 0, rows: 0 }],
        })
        .into();
    let answer = |batch: &Batch, delta: &[i64]| {
        let counts: Vec<(usize, u64)> = batch.counts().collect();
        packing::pack_answer(3, &counts, &[delta.to_vec()], manifest)
    };
    let answers = [answer(&batches[0], &rows.delta), answer(&batches[1], &few.delta)];
    let mut seeds: Vec<Vec<u8>> =
        batches.iter().map(|batch| packing::pack_batch(batch).encode_to_vec()).collect();
    seeds.extend(answers.iter().map(Message::encode_to_vec));
    fuzz(&seeds, |bytes| {
        if let Ok(packed) = Batch::decode(bytes)
            && packing::unpacked_bytes(&packed, manifest) < 1 << 20
            && let Ok(unpacked) = packing::unpack_batch(packed.clone(), manifest)
        {
            assert_eq!(packing::pack_batch(&unpacked), packed);
            let inputs = unpacked.rows.iter().flat_map(|rows| &rows.inputs);
            let inputs: usize = inputs.map(|input| input.len()).sum();
            assert_eq!(inputs as u64, packing::unpacked_bytes(&packed, manifest));
        }
        for (batch, rows) in batches.iter().zip([&rows, &few]) {
            if let Ok(answer) = InferResponse::decode(bytes)
                && let Ok(unpacked) = packing::unpack_answer(batch, &answer, manifest)
            {
                assert_eq!(unpacked.deltas[0].len(), rows.delta.len() * 8);
            }
        }
    });
}

/// Logs of sessions: the records that are read are a prefix of those that were written.
#[test]
fn session_logs() {
    use zklora_session::{
        session_log::{self, Event, Header, SessionLog},
        wire::{Batch, InferResponse},
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let header = Header::new("aa".repeat(32), "http://localhost".into(), &[1; 32], &[2; 32]);
    let events = [
        Event::Sent(Batch::default()),
        Event::Answered(InferResponse { sequence: 0, deltas: vec![vec![1, 2, 3].into()] }),
        Event::Ended,
    ];
    let mut log = SessionLog::create(&path, &header).unwrap();
    events.iter().for_each(|event| log.append(event).unwrap());
    drop(log);
    fuzz(&[fs::read(&path).unwrap()], |bytes| {
        let (_folder, path) = file("log", bytes);
        let mut read = Vec::new();
        let _ = session_log::read(&path, &mut |event| {
            read.push(event);
            Ok(())
        });
        assert!(
            read.len() <= events.len()
                && read.iter().zip(&events).all(|(read, written)| read == written)
        );
    });
}

/// Base models: an error, or a model that runs or fails with an error.
#[test]
fn base_models_and_tokenizers() {
    use zklora_models::language_model::{Identity, LanguageModel, Tokenizer};
    let base = fixture("base/tiny-llama");
    let tokenizer = fs::read(base.join("tokenizer.json")).unwrap();
    let model = fs::read(base.join("dynamo.onnx")).unwrap();
    fuzz(&[model, tokenizer], |bytes| {
        let (_folder, path) = file("model.onnx", bytes);
        if let Ok(model) = LanguageModel::load(&path, &[], std::sync::Arc::new(Identity)) {
            let _ = model.logits(&[1, 2, 3]);
        }
        if let Ok(tokenizer) = Tokenizer::load(&path) {
            let _ = tokenizer.encode("In the beginning").and_then(|ids| tokenizer.decode(&ids));
        }
    });
}

/// The file of an integer model: an accepted one differs in scales only, and evaluates units or
/// finds them out of range.
#[test]
fn integer_model_file() {
    use zklora_integer::{
        adapter::Adapter,
        lower::lower,
        model::{Calibration, FILE, IntegerModel},
        score::score,
        unit,
    };
    let graph = lower(&fixture("base/tiny-gpt2/dynamo.onnx"), &[]).unwrap().graph;
    let original = IntegerModel::of_graph(&graph, Calibration::Tokens).unwrap();
    let graph = std::panic::AssertUnwindSafe(graph);
    fuzz(&[original.to_bytes().unwrap()], |bytes| {
        let (folder, _) = file(FILE, bytes);
        if let Ok(model) = IntegerModel::load_with(folder.path(), &graph) {
            assert_eq!(model.to_bytes().unwrap(), bytes);
            let units = unit::read(r#"{"tokens":[1,2,3,4]}"#, None).unwrap();
            if let Ok(program) = model.program(Adapter::default()) {
                score(&program, &units).unwrap();
            }
        }
    });
}

/// Lines of units: what is read has a token to score, and is no larger than its line.
#[test]
fn units() {
    use zklora_integer::unit::{self, Unit};
    use zklora_models::language_model::Tokenizer;
    let tokenizer = Tokenizer::load(&fixture("base/tiny-llama/tokenizer.json")).unwrap();
    let seeds = [
        r#"{"text":"In the beginning was the word"}"#,
        r#"{"tokens":[1,2,3,40],"from":2}"#,
        r#"{"prompt":"A ","completion":"word or two"}"#,
        r#"{"prompt":"Is it? ","choices":["yes","no"],"answer":0,"normalise":"bytes"}"#,
        r#"{"prompt":"Once","generate":3}"#,
    ];
    fuzz(&seeds.map(|seed| seed.as_bytes().to_vec()), |bytes| {
        let text = String::from_utf8_lossy(bytes);
        for unit in unit::read(&text, Some(&tokenizer)).unwrap_or_default() {
            let sequences = match unit {
                Unit::LogProbability(sequence) => vec![sequence],
                Unit::Choice { choices, lengths, answer, .. } => {
                    assert!(answer.is_none_or(|answer| answer < choices.len()));
                    assert_eq!(choices.len(), lengths.len());
                    choices
                }
                Unit::Generate { prompt, .. } => {
                    assert!(!prompt.is_empty());
                    vec![]
                }
            };
            assert!(sequences.iter().all(|it| 0 < it.from && it.from < it.tokens.len()));
        }
    });
}

/// Every accepted report has a page, and the page has no markup from the report.
#[test]
fn reports() {
    let seed =
        br#"{"format":"zklora-report","version":1,"base_model":"<script>","mode":"add-delta",
        "loss":{"base":3.5,"adapted":1e-7,"base_perplexity":1e300,"adapted_perplexity":2,
        "tokens":10,"windows":[{"tokens":5,"base":3.5,"adapted":2.25},{"tokens":5,"base":0,
        "adapted":-1e9}]},"generated":{"prompt":"<script>","adapted":"a","base":null,"tokens":1},
        "contributors":[],"points":[{"module":"m.0.q","rows":4,"base_rms":1,"delta_rms":0.5,
        "relative":0.5,"contributors":[0]},{"module":"m.1.q","rows":4,"base_rms":1,
        "delta_rms":5e-9,"relative":5e-9,"contributors":[0]}],"forward_seconds":1.5,
        "forward_passes":1}"#;
    fuzz(&[seed.to_vec()], |bytes| {
        let (_folder, path) = file("report.json", bytes);
        if let Ok(report) = EffectReport::read(&path) {
            let page = zklora_runtime::report_page::page(&report);
            assert!(!page.contains("<script") && !page.contains("NaN"));
        }
    });
}

/// Values that are written and read again have the same commitment.
#[test]
fn committed_values_and_commitments() {
    let folder = fixture("activation_commitments");
    let seeds: Vec<Vec<u8>> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| fs::read(entry.unwrap().path()).unwrap())
        .collect();
    fuzz(&seeds, |bytes| {
        let path = Path::new("fuzzed.json");
        if let Ok(values) = Values::parse(path, bytes.to_vec()) {
            let commitment = Commitment::with_nonce(&values, [1; 32]).unwrap();
            let again = serde_json::json!({ "input_data": values.numbers }).to_string();
            assert!(commitment.is_to(&Values::parse(path, again.into_bytes()).unwrap()).unwrap());
        }
        if let Ok(commitment) = Commitment::parse(bytes) {
            assert!(Commitment::parse(commitment.to_string().as_bytes()).unwrap() == commitment);
        }
    });
}

/// A row proof whose claim was edited is refused.
#[test]
fn row_proofs() {
    let path = Path::new("fuzzed.json");
    let values =
        Values::parse(path, br#"{"input_data": [[1, 2, 3], [4, 5, 6], [7, 8, 9]]}"#.to_vec())
            .unwrap();
    let commitment = Commitment::with_nonce(&values, [1; 32]).unwrap();
    let proof = RowProof::prove(&values, &commitment, 1, None).unwrap();
    fuzz(&[proof.to_bytes().unwrap()], |bytes| {
        if let Ok(edited) = RowProof::parse(path, bytes) {
            assert_eq!(edited.check(&commitment.root, Some(9)).is_ok(), edited == proof);
        }
    });
}

#[test]
fn adapter_ids_and_srs_files() {
    let json = Srs::insecure_dev(4).unwrap().to_json().into_bytes();
    fuzz(&[json], |bytes| {
        let _ = String::from_utf8_lossy(bytes).parse::<AdapterId>();
        let (_folder, path) = file("ceremony.json", bytes);
        let _ = zklora_artifacts::srs_file::load(Some(&path));
    });
}

/// What an offer's contributor signs, and a request with its units: nothing that was edited passes.
mod evaluations {
    use zklora_evaluation::{
        answer::Answer,
        archive, canonical,
        delivery::{Delivery, DeliveryKey, DeliveryTerms, check_header, decrypt, encrypt},
        digest::Digest,
        evidence,
        metric::Metric,
        offer::{Bits, Limits, SignedOffer, Terms},
        request::{Choices, FullRequest, UnitGroup},
        signing_key::SigningKey,
        unit_bytes, unit_lines,
        unit_scores::{SequenceScore, UnitScores},
    };

    use super::*;

    fn offer(key: &SigningKey) -> SignedOffer {
        let terms = Terms {
            adapter_id: Digest([1; 32]),
            base_model: "a model".into(),
            budget: Bits { bits: 2048, bits_per_client: 512 },
            contact: "somebody".into(),
            integer_model: Digest([2; 32]),
            layers: vec![3, 7],
            limits: Limits { tokens: 1 << 20, unit_tokens: 64, units: 1000 },
            per_unit: false,
            rotations: vec![],
            rules: 1,
            score_bits: 9,
        };
        SignedOffer::sign(key, terms).unwrap()
    }

    const LINES: &str = r#"{"group":"q","metrics":["accuracy","confusion"]}
{"group":"q","choices":[{"tokens":[1,2,3],"from":2,"length":4},{"tokens":[1,2],"from":1}],"answer":1}
{"group":"s","tokens":[4,5,6,7],"from":2}
{"tokens":[4,5],"group":"s"}"#;

    fn request(offer: &SignedOffer) -> FullRequest {
        let choices = Choices {
            nonce: Digest([4; 32]),
            draw: Digest([5; 32]),
            list_unscored: 2,
            per_unit: false,
        };
        let groups: Vec<UnitGroup> = unit_lines::read(LINES, None).unwrap().groups;
        FullRequest::new(offer.digest, &choices, groups).unwrap()
    }

    fn answer(offer: &SignedOffer, request: &FullRequest) -> Answer {
        let side = |unit: &zklora_integer::unit::Unit| {
            let sequences = zklora_evaluation::request::sequences(unit).len();
            Some(vec![SequenceScore { sum: -700, greedy: true }; sequences])
        };
        let scores = |unit| UnitScores { base: side(unit), adapted: side(unit) };
        let scores: Vec<UnitScores> = request.units.iter().map(scores).collect();
        Answer::compute(offer, request, &scores).unwrap()
    }

    #[test]
    fn evaluation_statements() {
        let key = SigningKey::generate();
        let offer = offer(&key);
        let request = request(&offer);
        let answer = answer(&offer, &request);
        let digest = answer.digest().unwrap();
        let terms = DeliveryTerms {
            answer: digest,
            key_by: "soon".into(),
            price: "much".into(),
            verdict_by: String::new(),
        };
        let files = (&b"ciphertext"[..], vec!["opening".to_string()]);
        let delivery =
            Delivery::sign(&key, &offer, terms, &DeliveryKey::generate(), files).unwrap();
        let signed = answer.sign(&key).unwrap();
        let seeds = [offer.bytes.clone(), signed, delivery, request.bytes.clone()];
        let originals = seeds.clone();
        let (own, full) = (offer.clone(), std::panic::AssertUnwindSafe(request));
        fuzz(&seeds, move |bytes| {
            let is_original = originals.iter().any(|original| original == bytes);
            // Another offer may be signed by another key, but not by this one.
            if let Ok(read) = SignedOffer::parse(bytes) {
                assert!(read.offer.key != own.offer.key || is_original);
            }
            assert!(Answer::signed(bytes, &own).is_err() || is_original);
            assert!(Answer::read(bytes, &own, &full).is_err() || is_original);
            assert!(Delivery::read(bytes, &own, &digest).is_err() || is_original);
            if let Ok(read) = FullRequest::parse(bytes, full.unit_bytes.clone()) {
                assert_eq!(read.bytes, bytes);
                let _ = read.price(&own);
            }
        });
    }

    #[test]
    fn evaluation_units() {
        let key = SigningKey::generate();
        let request = request(&offer(&key));
        let own = std::panic::AssertUnwindSafe(request.clone());
        fuzz(&[request.unit_bytes], move |bytes| {
            if FullRequest::parse(&own.bytes, bytes.to_vec()).is_ok() {
                assert_eq!(own.unit_bytes, bytes);
            }
            let mut rest = bytes;
            while let Ok((unit, length)) = unit_bytes::decode(rest, 0) {
                let mut again = Vec::new();
                unit_bytes::encode(&unit, &mut again).unwrap();
                assert_eq!(again, rest[..length]);
                rest = &rest[length..];
            }
        });
    }

    #[test]
    fn evaluation_unit_lines() {
        fuzz(&[LINES.as_bytes().to_vec()], |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let Ok(read) = unit_lines::read(&text, None) else { return };
            let units: usize = read.groups.iter().map(|group| group.units.len()).sum();
            assert_eq!(units, read.places.len());
            for group in &read.groups {
                for metric in Metric::ALL {
                    if metric.refuses(&group.units).is_none() {
                        metric.bits(&group.units, 9);
                    }
                }
            }
        });
    }

    #[test]
    fn evaluation_archives() {
        let mut tar = Vec::new();
        archive::write([("opening", &b"secret"[..]), ("adapter/a.onnx", &[7; 700])], &mut tar)
            .unwrap();
        let key = DeliveryKey::generate();
        let ciphertext = encrypt(&key, [("opening", &b"secret"[..])]).unwrap();
        let secret = ciphertext.clone();
        fuzz(&[tar, ciphertext], move |bytes| {
            if let Ok(entries) = archive::read(bytes, "fuzz") {
                let files = entries.iter().map(|of| (of.name.as_str(), of.bytes.as_slice()));
                let mut again = Vec::new();
                archive::write(files, &mut again).unwrap();
                assert_eq!(again, bytes);
            }
            let _ = (evidence::read(bytes), check_header(bytes));
            // The whole header is authenticated, and so is every block.
            assert!(decrypt(&key, bytes).is_err() || bytes == secret);
        });
    }

    #[test]
    fn canonical_json_has_one_form() {
        let digest = Digest([7; 32]);
        fuzz(&[canonical::to_bytes(&digest).unwrap()], |bytes| {
            if let Ok(read) = canonical::parse::<Digest>(bytes, "fuzz") {
                assert_eq!(canonical::to_bytes(&read).unwrap(), bytes);
            }
        });
    }
}
