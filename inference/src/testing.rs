//! Models, adapters and provers for the tests of this crate.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use zklora_integer::{
    adapter::{self, Adapter},
    graph::Operator,
    model::{Calibration, IntegerModel},
    program::Program,
    unit::Sequence,
};
use zklora_proof::{
    checked_manifest::CheckedManifest,
    commit::commit,
    keys::KeyStore,
    manifest::{BaseModel, FORMAT, Input, Manifest, Module, Term, TermKind, VERSION},
    masks::{MaskKey, Seed},
    srs::Srs,
    weights::{PairWeights, Weights},
};

use crate::{
    prover::Prover,
    registration,
    registration::Registered,
    statement::{Bound, Claimed},
};

/// k of the tests' columns: short ones, so that tensors and messages span several.
pub const K: u32 = 10;

pub fn srs() -> &'static Srs {
    static SRS: OnceLock<Srs> = OnceLock::new();
    SRS.get_or_init(|| Srs::insecure_dev(K).unwrap())
}

pub fn keys() -> &'static KeyStore {
    static KEYS: OnceLock<KeyStore> = OnceLock::new();
    KEYS.get_or_init(KeyStore::default)
}

/// A base model of the fixtures, calibrated on generated tokens.
pub fn model(name: &str) -> Arc<IntegerModel> {
    type Models = std::sync::Mutex<std::collections::HashMap<String, Arc<IntegerModel>>>;
    static MODELS: OnceLock<Models> = OnceLock::new();
    let mut models = MODELS.get_or_init(Models::default).lock().unwrap();
    let make = || {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("../fixtures/base")
            .join(name)
            .join("legacy.onnx");
        Arc::new(IntegerModel::compile(&path, Calibration::Tokens).unwrap())
    };
    Arc::clone(models.entry(name.into()).or_insert_with(make))
}

/// An integer within ±limit, the same for the same seed.
pub fn integer(seed: u64, limit: i64) -> i64 {
    let hash = blake3::hash(&seed.to_le_bytes());
    let word = hash.as_bytes()[..8].iter().fold(0u64, |word, byte| (word << 8) | u64::from(*byte));
    (word % (2 * limit as u64 + 1)) as i64 - limit
}

/// What a test adapter has: the layers whose names contain one of the words.
#[derive(Debug, Clone)]
pub struct Kind {
    pub layers: &'static [&'static str],
    pub rank: usize,
    pub bias: bool,
    pub seed: u64,
}

pub const QUERIES_AND_VALUES: Kind =
    Kind { layers: &["q_proj", "v_proj"], rank: 4, bias: false, seed: 1 };

/// A contributor of a test.
pub struct Contributor {
    pub model: Arc<IntegerModel>,
    pub manifest: CheckedManifest,
    pub weights: Weights,
    pub mask_key: MaskKey,
    pub registration: Vec<u8>,
    layers: Vec<usize>,
}

impl Contributor {
    pub fn new(name: &str, kind: &Kind) -> Contributor {
        Contributor::of(model(name), name, kind, srs(), 2047, -27)
    }

    /// With integers within ±limit and this scale.
    pub fn of(
        model: Arc<IntegerModel>,
        name: &str,
        kind: &Kind,
        srs: &Srs,
        limit: i64,
        scale_log2: i32,
    ) -> Contributor {
        let graph = &model.graph;
        let mut modules = Vec::new();
        let mut layers = Vec::new();
        for operator in &graph.operators {
            let Operator::Linear { weight, layer: Some(layer), .. } = operator else { continue };
            let name = &graph.layers[*layer];
            if !kind.layers.iter().any(|word| name.contains(word)) {
                continue;
            }
            let weight = &graph.weights[*weight];
            let term =
                |kind, rank, input, shift| Term { a: vec![], b: vec![], input, kind, rank, shift };
            let mut terms = Vec::new();
            if kind.rank > 0 {
                terms.push(term(TermKind::LowRank, kind.rank, Some(0), 0));
            }
            if kind.bias {
                terms.push(term(TermKind::Bias, 1, None, 5));
            }
            let input = Input { dim: weight.inputs(), name: "x".into() };
            modules.push(Module {
                a_bits: 12,
                b_bits: 12,
                d_out: weight.outputs(),
                delta_bits: 63,
                inputs: if kind.rank > 0 { vec![input] } else { vec![] },
                name: format!("{}.{}", modules.len(), name.replace(['/', ':'], ".")),
                scale_log2,
                scaling: 1.5,
                terms,
                x_bits: 16,
            });
            layers.push(*layer);
        }
        let draft = Manifest {
            base_model: BaseModel { fingerprint: None, name: name.into() },
            format: FORMAT.into(),
            k: srs.k(),
            left_out: Vec::new(),
            modules,
            settings_digest: String::new(),
            srs_digest: String::new(),
            version: VERSION,
        };
        let mut seed = kind.seed << 32;
        let mut vector = |length: usize| -> Vec<i32> {
            (0..length)
                .map(|_| {
                    seed += 1;
                    integer(seed, limit) as i32
                })
                .collect()
        };
        let mut pairs = Vec::new();
        for module in &draft.modules {
            for term in &module.terms {
                let (a, b) = module.side_lengths(term);
                for _ in 0..term.rank {
                    pairs.push(PairWeights { a: vector(a), b: vector(b) });
                }
            }
        }
        let (manifest, weights, mask_key) =
            commit(srs, &draft, pairs, &Seed::generate().unwrap()).unwrap();
        let manifest = CheckedManifest::parse(&manifest.to_bytes().unwrap()).unwrap();
        let registration =
            registration::prove(srs, keys(), &manifest, &weights, &mask_key).unwrap();
        Contributor { model, manifest, weights, mask_key, registration, layers }
    }

    pub fn registered(&self) -> Registered<'_> {
        let policy = zklora_proof::verifier::SrsPolicy::AllowUntrusted;
        registration::verify(srs(), keys(), &self.manifest, &self.registration, policy).unwrap()
    }

    /// The program with the weights, or with zeros as the user has it.
    pub fn program(&self, with_weights: bool) -> Program {
        let modules = self.manifest.modules();
        let adapter = modules.iter().enumerate().zip(&self.layers).map(|((at, module), layer)| {
            let mut pairs: Vec<(Vec<i32>, Vec<i32>)> = self
                .weights
                .of_module(modules, at)
                .iter()
                .map(|pair| (pair.a.clone(), pair.b.clone()))
                .collect();
            if !with_weights {
                for (a, b) in &mut pairs {
                    a.fill(0);
                    b.fill(0);
                }
            }
            let bias = module.has_bias().then(|| (5, pairs.pop().unwrap().1));
            adapter::Module {
                name: module.name.clone(),
                layer: *layer,
                inputs: match module.inputs.first() {
                    Some(input) => input.dim,
                    None => self.inputs(*layer),
                },
                outputs: module.d_out,
                a_bits: module.a_bits,
                b_bits: module.b_bits,
                scaling: module.scaling,
                scale_log2: module.scale_log2,
                pairs,
                bias,
            }
        });
        self.model.program(Adapter { modules: adapter.collect() }).unwrap()
    }

    fn inputs(&self, of: usize) -> usize {
        let graph = &self.model.graph;
        let found = graph.operators.iter().find_map(|operator| match operator {
            Operator::Linear { weight, layer: Some(layer), .. } if *layer == of => Some(*weight),
            _ => None,
        });
        graph.weights[found.unwrap()].inputs()
    }

    pub fn prover<'a>(
        &'a self,
        registered: &'a Registered<'a>,
        program: &'a Program,
    ) -> Prover<'a> {
        Prover { srs: srs(), keys: keys(), registered, mask_key: &self.mask_key, program }
    }
}

/// Sequences of tokens that do not matter, the last tokens of which are scored.
pub fn sequences(model: &IntegerModel, lengths: &[(usize, usize)]) -> Vec<Sequence> {
    let vocabulary = model.graph.vocabulary as i64;
    let of = |(at, (length, from)): (usize, &(usize, usize))| Sequence {
        tokens: (0..*length)
            .map(|t| {
                (integer((at * 1000 + t) as u64 + 77, vocabulary / 2 - 1) + vocabulary / 2) as u32
            })
            .collect(),
        from: *from,
    };
    lengths.iter().enumerate().map(of).collect()
}

/// The log-probability of each sequence.
pub fn scores(program: &Program, sequences: &[Sequence]) -> Vec<i64> {
    let units: Vec<_> =
        sequences.iter().map(|s| zklora_integer::unit::Unit::LogProbability(s.clone())).collect();
    let (scores, _) = zklora_integer::score::score(program, &units).unwrap();
    scores
        .into_iter()
        .map(|score| match score {
            zklora_integer::score::Score::LogProbability(score) => score.sum(),
            other => panic!("{other:?}"),
        })
        .collect()
}

/// A true claim: the sum of all, within an interval around it.
pub fn claimed(program: &Program, sequences: Vec<Sequence>) -> Claimed {
    let scores = scores(program, &sequences);
    let total: i64 = scores.iter().sum();
    let bounds = vec![
        Bound { weights: vec![1; scores.len()], least: total - 700, most: total + 90_000 },
        Bound {
            weights: (0..scores.len()).map(|at| i32::from(at == 0)).collect(),
            least: scores[0],
            most: scores[0],
        },
    ];
    Claimed {
        sequences,
        questions: vec![],
        bounds,
        commits: false,
        model: [7; 32],
        context: [9; 32],
    }
}
