//! Adapters, traces and a shared SRS for the tests of this crate.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{cell::Cell, sync::OnceLock};

use rand_core::{OsRng, RngCore};

use crate::{
    checked_manifest::CheckedManifest,
    commit::commit,
    keys::KeyStore,
    manifest::{BaseModel, FORMAT, Input, Manifest, Module, Term, TermKind, VERSION},
    masks::{MaskKey, Seed},
    prover::Prover,
    rows::RowSlices,
    srs::Srs,
    trace::Trace,
    verifier::{SrsPolicy, Verdict, verify},
    weights::{PairWeights, Weights, certified_bound},
};

/// k of the tests' circuits: 24 data rows, so that short vectors already span several columns.
pub const K: u32 = 5;

pub fn srs() -> &'static Srs {
    static SRS: OnceLock<Srs> = OnceLock::new();
    SRS.get_or_init(|| Srs::insecure_dev(K).unwrap())
}

pub fn keys() -> &'static KeyStore {
    static KEYS: OnceLock<KeyStore> = OnceLock::new();
    KEYS.get_or_init(KeyStore::default)
}

/// One module of a test adapter.
#[derive(Debug, Clone)]
pub struct Shape {
    pub d_in: usize,
    pub rank: usize,
    pub d_out: usize,
    pub bias: bool,
    pub scale: bool,
    pub rows: usize,
}

pub fn lora(d_in: usize, rank: usize, d_out: usize, rows: usize) -> Shape {
    Shape { d_in, rank, d_out, bias: false, scale: false, rows }
}

pub fn low_rank(rank: usize) -> Term {
    Term { a: vec![], b: vec![], input: Some(0), kind: TermKind::LowRank, rank, shift: 0 }
}

/// The draft of a manifest of these shapes.
pub fn draft(shapes: &[Shape]) -> Manifest {
    let modules = shapes
        .iter()
        .enumerate()
        .map(|(m, shape)| {
            let mut terms = Vec::new();
            let mut inputs = Vec::new();
            if shape.rank > 0 {
                inputs.push(Input { dim: shape.d_in, name: "x".into() });
                terms.push(low_rank(shape.rank));
            }
            if shape.bias {
                terms.push(Term {
                    a: vec![],
                    b: vec![],
                    input: None,
                    kind: TermKind::Bias,
                    rank: 1,
                    shift: 3,
                });
            }
            if shape.scale {
                terms.push(Term {
                    a: vec![],
                    b: vec![],
                    input: Some(inputs.len()),
                    kind: TermKind::Scale,
                    rank: 1,
                    shift: 5,
                });
                inputs.push(Input { dim: shape.d_out, name: "y".into() });
            }
            Module {
                a_bits: 12,
                b_bits: 12,
                d_out: shape.d_out,
                delta_bits: 63,
                inputs,
                name: format!("layers.{m}.q_proj"),
                scale_log2: -20,
                scaling: 2.0,
                terms,
                x_bits: 20,
            }
        })
        .collect();
    Manifest {
        base_model: BaseModel { fingerprint: None, name: "tiny".into() },
        format: FORMAT.into(),
        k: K,
        left_out: Vec::new(),
        modules,
        settings_digest: String::new(),
        srs_digest: String::new(),
        version: VERSION,
    }
}

/// An integer within ±limit. Each test's thread has its own fixed sequence, so weights and
/// activations are the same in every run and a failure can be repeated. Seeds, sessions and masks
/// are from the operating system.
pub fn integer(limit: i64) -> i64 {
    thread_local!(static DRAWN: Cell<u64> = const { Cell::new(0) });
    let drawn = DRAWN.replace(DRAWN.get() + 1);
    let hash = blake3::hash(&drawn.to_le_bytes());
    let word = hash.as_bytes()[..8].iter().fold(0u64, |word, byte| (word << 8) | u64::from(*byte));
    (word % (2 * limit as u64 + 1)) as i64 - limit
}

pub fn random_pairs(draft: &Manifest) -> Vec<PairWeights> {
    let mut out = Vec::new();
    for module in &draft.modules {
        let vector = |length: usize, bits: u32| {
            (0..length).map(|_| integer((1 << (bits - 1)) - 1) as i32).collect::<Vec<_>>()
        };
        for term in &module.terms {
            for _ in 0..term.rank {
                let (a, b) = module.side_lengths(term);
                out.push(PairWeights { a: vector(a, module.a_bits), b: vector(b, module.b_bits) });
            }
        }
    }
    out
}

/// Rows of one module, owned.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnedRows {
    pub inputs: Vec<Vec<i32>>,
    pub ones: Vec<i32>,
    pub scales: Vec<f32>,
    pub delta: Vec<i64>,
}

/// A committed adapter with a session's rows.
pub struct Session {
    pub srs: &'static Srs,
    pub manifest: Manifest,
    pub checked: CheckedManifest,
    pub weights: Weights,
    pub key: MaskKey,
    pub rows: Vec<OwnedRows>,
    pub context: [u8; 32],
}

impl Session {
    pub fn of(shapes: &[Shape]) -> Session {
        let draft = draft(shapes);
        let pairs = random_pairs(&draft);
        let rows = random_rows(&draft, shapes);
        Session::build(srs(), draft, pairs, rows)
    }

    pub fn build(
        srs: &'static Srs,
        draft: Manifest,
        pairs: Vec<PairWeights>,
        inputs: Vec<OwnedRows>,
    ) -> Session {
        let mut context = [0u8; 32];
        OsRng.fill_bytes(&mut context);
        Session::build_from(srs, draft, pairs, inputs, &Seed::generate().unwrap(), context)
    }

    /// The arguments determine everything but the proofs.
    pub fn build_from(
        srs: &'static Srs,
        mut draft: Manifest,
        pairs: Vec<PairWeights>,
        rows: Vec<OwnedRows>,
        seed: &Seed,
        context: [u8; 32],
    ) -> Session {
        let mut rest = &pairs[..];
        for module in &mut draft.modules {
            let (module_pairs, tail) = rest.split_at(module.terms.iter().map(|t| t.rank).sum());
            let bound = certified_bound(module, module_pairs).unwrap();
            module.delta_bits = (128 - bound.leading_zeros()).max(1);
            rest = tail;
        }
        let (manifest, weights, key) = commit(srs, &draft, pairs, seed).unwrap();
        let checked = CheckedManifest::parse(&manifest.to_bytes().unwrap()).unwrap();
        let mut session = Session { srs, manifest, checked, weights, key, rows, context };
        session.compute();
        session
    }

    /// Fills the deltas in with what the adapter computes.
    pub fn compute(&mut self) {
        for (m, module) in self.manifest.modules.iter().enumerate() {
            let rows = &mut self.rows[m];
            let pairs = self.weights.of_module(&self.manifest.modules, m);
            rows.delta = vec![0; rows.scales.len() * module.d_out];
            for (l, out) in rows.delta.chunks_exact_mut(module.d_out).enumerate() {
                let inputs: Vec<&[i32]> = module
                    .inputs
                    .iter()
                    .zip(&rows.inputs)
                    .map(|(i, x)| &x[l * i.dim..][..i.dim])
                    .collect();
                self.weights.delta_row(
                    module,
                    pairs,
                    &inputs,
                    rows.ones.get(l).copied().unwrap_or(0),
                    out,
                );
            }
        }
    }

    pub fn with_trace<T>(&self, f: impl FnOnce(&Trace<'_>) -> T) -> T {
        with_rows(&self.checked, self.context, &self.rows, f).unwrap()
    }

    pub fn prover(&self) -> Prover<'_> {
        Prover {
            srs: self.srs,
            keys: keys(),
            manifest: &self.checked,
            weights: &self.weights,
            mask_key: &self.key,
        }
    }

    pub fn prove(&self) -> Vec<u8> {
        self.with_trace(|trace| self.prover().prove(trace)).unwrap()
    }

    pub fn verify(&self, proof: &[u8]) -> Result<Verdict, crate::Error> {
        self.with_trace(|trace| {
            verify(self.srs, keys(), &self.checked, trace, proof, SrsPolicy::AllowUntrusted)
        })
    }
}

/// Calls `f` with the trace that these rows make.
pub fn with_rows<T>(
    checked: &CheckedManifest,
    context: [u8; 32],
    rows: &[OwnedRows],
    f: impl FnOnce(&Trace<'_>) -> T,
) -> Result<T, crate::Error> {
    let inputs: Vec<Vec<&[i32]>> =
        rows.iter().map(|r| r.inputs.iter().map(Vec::as_slice).collect()).collect();
    let modules = rows
        .iter()
        .zip(&inputs)
        .map(|(r, inputs)| RowSlices { inputs, ones: &r.ones, scales: &r.scales, delta: &r.delta })
        .collect();
    Ok(f(&Trace::new(checked, context, modules)?))
}

pub fn random_rows(draft: &Manifest, shapes: &[Shape]) -> Vec<OwnedRows> {
    draft
        .modules
        .iter()
        .zip(shapes)
        .map(|(module, shape)| {
            let limit = (1i64 << (module.x_bits - 1)) - 1;
            let random =
                |count: usize| (0..count).map(|_| integer(limit) as i32).collect::<Vec<_>>();
            OwnedRows {
                inputs: module.inputs.iter().map(|input| random(shape.rows * input.dim)).collect(),
                ones: random(if module.has_bias() { shape.rows } else { 0 }),
                scales: vec![0.5; shape.rows],
                delta: vec![],
            }
        })
        .collect()
}
