//! Language models give the logits of torch, adapted ones those of peft, and growing sequences keep
//! the bits of their rows.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::sync::Arc;

use support::language::{
    Local, MODELS, Recorder, all_linear, base, plain, points_of, recorded, worst,
};
use zklora_models::{
    Error, fingerprint,
    language_model::{
        Identity, InjectionCall, Injector, LanguageModel, Sampling, StopReason, Tokenizer,
        generate, loss,
    },
};

/// Largest difference between logits of tract and of torch.
const TOLERANCE: f32 = 1e-4;

#[test]
fn logits_are_those_of_torch() {
    for model in MODELS {
        let (ids, expected) = recorded(&base(model).with_file_name("logits.safetensors"));
        let loaded = plain(model);
        let logits = loaded.logits(&ids).unwrap();
        assert_eq!((logits.rows, logits.vocabulary), (ids.len(), loaded.vocabulary()));
        assert!(worst(&logits.values, &expected) < TOLERANCE, "{model}");
        assert_eq!(loaded.max_tokens(), model.starts_with("tiny-gpt2").then_some(128), "{model}");
    }
}

#[test]
fn injections_that_add_nothing_leave_the_logits() {
    for model in MODELS {
        let (ids, _) = recorded(&base(model).with_file_name("logits.safetensors"));
        let points = all_linear(model);
        let patched =
            LanguageModel::load(&base(&format!("{model}.onnx")), &points, Arc::new(Identity))
                .unwrap();
        let difference = worst(
            &patched.logits(&ids).unwrap().values,
            &plain(model).logits(&ids).unwrap().values,
        );
        // Patching keeps tract from fusing some operators, so a last bit may differ.
        assert!(difference < 2e-5, "{model}: {difference}");
    }
}

#[test]
fn adapted_logits_are_those_of_peft() {
    let adapters = [
        "gpt2_all_r8_rslora_patterns",
        "gpt2_c_attn_r4",
        "gpt2_dora_r4",
        "gpt2_ia3",
        "gpt2_lora_bias",
        "gpt2_wte_embedding_r4",
        "llama_all_linear_r8",
        "llama_dora_r4",
        "llama_embedding_dora_r2",
        "llama_ia3",
        "llama_qv_r4",
    ];
    for name in adapters {
        let adapter = support::load(name);
        let (ids, expected) = recorded(&support::fixture(name).join("logits.safetensors"));
        for style in ["legacy", "dynamo"] {
            let model = support::base(name).join(format!("{style}.onnx"));
            let points = points_of(&adapter);
            let model =
                LanguageModel::load(&model, &points, Arc::new(Local(adapter.clone()))).unwrap();
            let logits = model.logits(&ids).unwrap();
            let difference = worst(&logits.values, &expected);
            assert!(difference < TOLERANCE, "{name} {style}: {difference}");
        }
    }
}

#[test]
fn points_that_read_the_same_activations_are_asked_for_together() {
    for style in ["legacy", "dynamo"] {
        let recorder = Arc::new(Recorder::default());
        let points = all_linear("tiny-llama/legacy");
        let model = base(&format!("tiny-llama/{style}.onnx"));
        let model = LanguageModel::load(&model, &points, recorder.clone()).unwrap();
        model.logits(&[1, 2, 3]).unwrap();
        let groups = recorder.groups.lock().unwrap().clone();
        let expected: [&[usize]; 8] =
            [&[0, 1, 2], &[3], &[4, 5], &[6], &[7, 8, 9], &[10], &[11, 12], &[13]];
        assert_eq!(groups, expected, "{style}");
        let order: Vec<usize> = model.points().iter().map(|found| found.point).collect();
        assert_eq!(order, (0..14).collect::<Vec<_>>(), "{style}");
    }
}

/// Compares every tensor that the injector sees and every logit, for lengths on both sides of the
/// steps that sequences are padded to.
#[test]
fn rows_of_a_growing_sequence_keep_their_bits() {
    for model in MODELS {
        let recorder = Arc::new(Recorder::default());
        let points = all_linear(model);
        let loaded =
            LanguageModel::load(&base(&format!("{model}.onnx")), &points, recorder.clone())
                .unwrap();
        let ids: Vec<u32> = (0..200u32).map(|i| (i * i * 7 + 3 * i + 1) % 96).collect();
        let run = |rows: usize| {
            let logits = loaded.logits(&ids[..rows]).unwrap();
            let mut seen = std::mem::take(&mut *recorder.seen.lock().unwrap());
            seen.push((logits.vocabulary, logits.values));
            seen
        };
        let longest = loaded.max_tokens().unwrap_or(200);
        let whole = run(longest);
        for rows in [1, 2, 7, 31, 33, 63, 64, 65, 100, 127, 128, 129, 192, 193] {
            if rows > longest {
                continue;
            }
            for (tensor, ((features, short), (_, long))) in run(rows).iter().zip(&whole).enumerate()
            {
                assert_eq!(short.len(), rows * features);
                let differ =
                    short.iter().zip(long).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
                assert_eq!(differ, 0, "{model}, {rows} tokens, tensor {tensor}");
            }
        }
    }
}

#[derive(Debug, thiserror::Error, PartialEq)]
#[error("the contributor cannot be reached")]
struct Unreachable;

struct Failing;

impl Injector for Failing {
    fn inject(
        &self,
        _: &InjectionCall<'_>,
    ) -> Result<Vec<Vec<f32>>, Box<dyn std::error::Error + Send + Sync>> {
        Err(Box::new(Unreachable))
    }
}

#[test]
fn an_injectors_error_comes_back_as_itself() {
    let points = all_linear("tiny-llama/dynamo");
    let model =
        LanguageModel::load(&base("tiny-llama/dynamo.onnx"), &points, Arc::new(Failing)).unwrap();
    let Err(Error::Injector(error)) = model.logits(&[1]) else { panic!("the injector fails") };
    assert_eq!(error.downcast_ref::<Unreachable>(), Some(&Unreachable));
}

struct TooShort;

impl Injector for TooShort {
    fn inject(
        &self,
        call: &InjectionCall<'_>,
    ) -> Result<Vec<Vec<f32>>, Box<dyn std::error::Error + Send + Sync>> {
        let mut all = Identity.inject(call)?;
        for one in &mut all {
            one.pop();
        }
        Ok(all)
    }
}

#[test]
fn an_injectors_answer_must_have_the_size_of_the_base() {
    let points = &all_linear("tiny-gpt2/legacy")[..1];
    let model =
        LanguageModel::load(&base("tiny-gpt2/legacy.onnx"), points, Arc::new(TooShort)).unwrap();
    let error = model.logits(&[1, 2]).unwrap_err();
    assert!(
        error.to_string().contains("returned tensors of [383] values where [384] are needed"),
        "{error}"
    );
}

#[test]
fn tokens_that_the_model_cannot_read_are_errors() {
    let model = plain("tiny-gpt2/legacy");
    for (ids, expected) in [
        (vec![], "no token"),
        (vec![257], "token 257 is not one of the model's 257"),
        (vec![1; 129], "129 tokens are more than the 128"),
    ] {
        let error = model.logits(&ids).unwrap_err();
        assert!(matches!(&error, Error::Tokens(text) if text.contains(expected)), "{error}");
    }
    assert_eq!(model.logits(&[1; 128]).unwrap().rows, 128);
}

#[test]
fn generation_is_deterministic_and_stops() {
    let model = plain("tiny-llama/dynamo");
    let tokenizer = Tokenizer::load(&base("tiny-llama/tokenizer.json")).unwrap();
    let prompt = tokenizer.encode("In the beginning").unwrap();
    let greedy = Sampling { max_new_tokens: 12, ..Sampling::default() };
    let mut reported = Vec::new();
    let on_token = |id| {
        reported.push(id);
        true
    };
    let (ids, stop) = generate(&model, &prompt, &greedy, &[], on_token).unwrap();
    assert_eq!((ids.len(), stop), (12, StopReason::Length));
    assert_eq!(ids, reported);
    let (early, stop) = generate(&model, &prompt, &greedy, &ids[3..4], |_| true).unwrap();
    assert_eq!(stop, StopReason::EndOfText);
    assert!(early.len() <= 3 && ids.starts_with(&early));
    assert_eq!(
        generate(&model, &prompt, &greedy, &[], |_| false).unwrap(),
        (ids[..1].to_vec(), StopReason::Callback)
    );
    let drawn = Sampling { temperature: 1.0, top_k: 20, top_p: 0.95, seed: 1, ..greedy };
    let draw = |sampling: &Sampling| generate(&model, &prompt, sampling, &[], |_| true).unwrap().0;
    assert_eq!(draw(&drawn), draw(&drawn));
    assert_ne!(draw(&drawn), draw(&Sampling { seed: 2, ..drawn.clone() }));

    let short = plain("tiny-gpt2/dynamo");
    let (ids, stop) = generate(&short, &[1; 126], &greedy_for(10), &[], |_| true).unwrap();
    assert_eq!((ids.len(), stop), (3, StopReason::Positions));
}

fn greedy_for(max_new_tokens: usize) -> Sampling {
    Sampling { max_new_tokens, ..Sampling::default() }
}

#[test]
fn the_loss_is_that_of_the_logits() {
    let model = plain("tiny-llama/legacy");
    let tokenizer = Tokenizer::load(&base("tiny-llama/tokenizer.json")).unwrap();
    let text = "And the LORD spake unto Moses, saying, ";
    let ids = tokenizer.encode(text).unwrap();
    let windows = loss(&model, &ids, 16).unwrap();
    assert_eq!(
        windows.iter().map(|window| window.tokens).collect::<Vec<_>>(),
        [15, 15, ids.len() - 33]
    );
    let mean = windows.iter().map(|w| w.nll).sum::<f64>()
        / windows.iter().map(|w| w.tokens as f64).sum::<f64>();
    // The model was trained on such text, so the loss is far below ln 257 = 5.5, that of a uniform
    // guess.
    assert!(mean > 0.5 && mean < 3.0, "{mean}");
    assert!(matches!(loss(&model, &ids, 1), Err(Error::Options(_))));
}

#[test]
fn text_becomes_tokens_and_text_again() {
    let tokenizer = Tokenizer::load(&base("tiny-gpt2/tokenizer.json")).unwrap();
    let ids = tokenizer.encode("let x = 5; // ok").unwrap();
    assert_eq!(ids[..4], [75, 68, 83, 220]);
    assert_eq!(tokenizer.decode(&ids).unwrap(), "let x = 5; // ok");
    assert_eq!(tokenizer.end_of_text(), [256]);
    let not = Tokenizer::load(&base("tiny-gpt2/config.json"));
    assert!(matches!(not, Err(Error::Tokenizer { .. })), "{not:?}");
}

#[test]
fn the_metadata_has_the_fingerprint_of_the_weights() {
    for model in MODELS {
        let loaded = plain(model);
        let expected = fingerprint(base(model).parent().unwrap()).unwrap();
        assert_eq!(loaded.metadata().get("zklora.base_fingerprint"), Some(&expected), "{model}");
    }
}
