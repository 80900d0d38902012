//! The functions that cost most, alone and with fixed inputs: what `cargo bench` times and what the
//! test `instructions` counts.
//!
//! Inputs are the same in every run and on every machine. They are small, because counting
//! instructions is fifty times slower than running them. They take the same paths through the code
//! as large ones.

use std::sync::Arc;

use zklora_artifacts::{folder::Artifacts, synthetic};
use zklora_proof::{
    checked_manifest::CheckedManifest,
    column_msm::commit_columns,
    commit::commit,
    field::{F, G1, G1Affine, powers},
    manifest::Manifest,
    masks::Seed,
    msm::{msm, to_affine},
    pairs::Pairs,
    projection::{Projection, Sums, row_weights},
    prover::{combine_b, products},
    rows::RowSlices,
    srs::Srs,
    trace::Trace,
    weights::Weights,
};
use zklora_session::adapter::ServedAdapter;

use crate::{
    Error,
    proof_bench::{Profile, Shape, synthetic_draft, synthetic_pairs},
};

/// Rows of the functions over a trace.
const ROWS: usize = 160;

/// A call with fixed inputs that can be repeated.
pub struct HotFunction {
    /// Its name in the file of counts and in reports.
    pub name: &'static str,
    work: Box<dyn Fn()>,
}

impl HotFunction {
    fn new<T>(name: &'static str, work: impl Fn() -> T + 'static) -> HotFunction {
        HotFunction {
            name,
            work: Box::new(move || {
                std::hint::black_box(work());
            }),
        }
    }

    /// Calls the function once.
    pub fn run(&self) {
        (self.work)();
    }
}

/// Calls [`HotFunction::run`] between two calls of [`count_boundary`].
pub fn run_counted(function: &HotFunction) {
    count_boundary();
    function.run();
    count_boundary();
}

/// Does nothing. A profiler can refer to it by name.
#[inline(never)]
pub fn count_boundary() {
    std::hint::black_box(());
}

/// `count` different points: multiples of `first`.
fn points(first: G1Affine, count: usize) -> Vec<G1Affine> {
    let multiples = std::iter::successors(Some(G1::from(first)), |point| Some(*point + first));
    to_affine(&multiples.take(count).collect::<Vec<_>>())
}

fn shapes(layers: usize, d_in: usize, rank: usize, d_out: usize) -> Profile {
    Profile {
        name: "kernels".into(),
        layers,
        shapes: vec![Shape { projection: "x".into(), d_in, rank, d_out }],
    }
}

/// An adapter with a short commitment.
fn small_adapter(srs: &Srs) -> Result<(Artifacts, CheckedManifest), Error> {
    let profile = shapes(1, 256, 4, 320);
    let pairs = synthetic_pairs(&profile);
    let draft = synthetic_draft(&profile, &pairs, srs.k())?;
    let (manifest, weights, key) = commit(srs, &draft, pairs, &Seed::from_bytes([7; 32]))?;
    let manifest = CheckedManifest::parse(&manifest.to_bytes()?)?;
    Ok((Artifacts::new(std::path::Path::new(""), manifest.clone(), weights, key), manifest))
}

/// Pairs and weights without a commitment.
fn weights() -> Result<(Pairs, Weights), Error> {
    let profile = shapes(2, 768, 8, 2304);
    let pairs = synthetic_pairs(&profile);
    let draft: Manifest = synthetic_draft(&profile, &pairs, 12)?;
    Ok((Pairs::of(&draft.modules)?, Weights::new(&draft, pairs)?))
}

/// All of them.
///
/// # Errors
/// Only a missing source of random numbers.
pub fn hot_functions() -> Result<Vec<HotFunction>, Error> {
    let (pairs, weights) = weights()?;
    let (pairs, weights) = (Arc::new(pairs), Arc::new(weights));
    let base = F::from(0x9E37_79B9_7F4A_7C15);
    let public = Projection {
        groups: pairs
            .groups()
            .iter()
            .map(|group| powers(base, group.len + 1)[1..].to_vec())
            .collect(),
        ones: vec![F::from(0); 2],
        gamma: powers(base, 2304),
        c: powers(base, 2),
        delta: F::from(0),
    };
    let factors = powers(base, pairs.len() + 1)[1..].to_vec();
    let (combined_pairs, combined_weights) = (pairs.clone(), weights.clone());

    // An insecure SRS of 32 points.
    let srs = Srs::insecure_dev(5)?;
    let points = Arc::new(points(srs.lagrange()[0], 512));
    let scalars = powers(base * base, points.len() + 8)[8..].to_vec();
    let integers: Vec<i32> =
        (0..points.len() as i64).map(|i| ((i * 40_503) % 65_521 - 32_760) as i32).collect();
    let msm_points = points.clone();

    let (artifacts, manifest) = small_adapter(&srs)?;
    let module = artifacts.manifest.modules()[0].clone();
    let floats = synthetic::activations(artifacts.manifest.modules(), ROWS);
    let floats = floats.modules.into_values().flatten().next().unwrap_or_default();
    let mut rows = zklora_artifacts::module_quantizer::quantized(&module, &[&floats])?;
    let adapter = ServedAdapter::new(artifacts);
    rows.delta = adapter.compute(0, &rows);
    let rows = Arc::new(rows);
    let rho = Arc::new(row_weights(&[9; 32], 0, 0..ROWS));
    let (d_in, d_out) = (module.inputs[0].dim, module.d_out);
    let (x_rho, x_rows, d_rho, d_rows, digest_rows, delta_rows) =
        (rho.clone(), rows.clone(), rho, rows.clone(), rows.clone(), rows);
    Ok(vec![
        HotFunction::new("products of small integers", move || products(&pairs, &weights, &public)),
        HotFunction::new("combination of small integers", move || {
            combine_b(&combined_pairs, &combined_weights, &factors)
        }),
        HotFunction::new("multi-exponentiation, field elements", move || msm(&points, &scalars)),
        HotFunction::new("multi-exponentiation, 16-bit integers", move || {
            commit_columns(&msm_points, &[&integers[..]])
        }),
        HotFunction::new("projection of activations", move || {
            let mut sums = Sums::default();
            sums.add_inputs(&x_rho, &x_rows.inputs[0], d_in);
            sums.finish()
        }),
        HotFunction::new("projection of deltas", move || {
            let mut sums = Sums::default();
            sums.add_deltas(&d_rho, &d_rows.delta, d_out, module.delta_bits);
            sums.finish()
        }),
        HotFunction::new("range checks and digest", move || {
            let rows = &digest_rows;
            let inputs = [&rows.inputs[0][..]];
            let rows = RowSlices {
                inputs: &inputs,
                ones: &rows.ones,
                scales: &rows.scales,
                delta: &rows.delta,
            };
            Trace::new(&manifest, [3; 32], vec![rows]).map(|trace| trace.digest())
        }),
        HotFunction::new("deltas", move || adapter.compute(0, &delta_rows)),
        HotFunction::new("quantisation of rows", move || {
            zklora_artifacts::module_quantizer::quantized(&module, &[&floats])
        }),
    ])
}
