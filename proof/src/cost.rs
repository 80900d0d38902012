//! Estimates what committing, proving and verifying will cost on this machine.
//!
//! Counts come from the layout and the shapes. Times come from short measurements of the operations
//! that dominate ([`OperationTimes::measure`]). The remaining constants are ratios to those. A test
//! compares the estimates with measured times on three sizes, to within a factor of two.

use std::time::{Duration, Instant};

use rayon::prelude::*;

use crate::{
    Error,
    column_msm::commit_columns,
    commit::commit_masks,
    field::{F, powers},
    layout::{Layout, MASKS, columns_for, data_rows},
    manifest::{Manifest, Point, parse_point},
    msm::{msm, to_affine},
    pairs::Pairs,
    settings::Settings,
    srs::Srs,
};

/// Times of the dominating operations, with all cores working.
#[derive(Debug, Clone, Copy)]
pub struct OperationTimes {
    /// One commitment to a full column of field elements.
    pub column: Duration,
    /// One integer of 16 bits in a commitment to weights, all cores busy.
    pub integer: Duration,
    /// What a committed column takes besides its integers: its masks, and putting sums together.
    pub masks: Duration,
    /// Parsing one commitment of a manifest, all cores busy.
    pub point: Duration,
    /// One multiplication of a small integer with a field element, one core.
    pub product: Duration,
}

/// Keeps the compiler from removing the work behind a result.
fn keep<T>(value: T) {
    std::hint::black_box(value);
}

/// Bits of the weights that [`OperationTimes::integer`] is measured with.
const BITS: u32 = 16;

impl OperationTimes {
    /// Measures the operations on this machine.
    pub fn measure(srs: &Srs) -> OperationTimes {
        let lagrange = srs.lagrange();
        let values = powers(F::from(0x9E37_79B9_7F4A_7C15), lagrange.len());
        let integers: Vec<i32> =
            (0..lagrange.len() as i64).map(|i| ((i * 40_503) % 65_521 - 32_760) as i32).collect();
        let time = |work: &dyn Fn()| {
            // The shortest of four runs: other load on the machine only makes a run longer.
            let once = |_| {
                let start = Instant::now();
                work();
                start.elapsed()
            };
            (0..4).map(once).min().unwrap_or_default()
        };
        let column = time(&|| keep(msm(lagrange, &values)));
        let batch = 8;
        let integer = time(&|| {
            keep(commit_columns(lagrange, &vec![&integers[..]; batch]));
        });
        // A few columns, whose sums take longer than those of many.
        let masks = time(&|| {
            keep(commit_columns(lagrange, &vec![&integers[..64]; batch]));
            keep(commit_masks(&lagrange[..MASKS], &values[2..2 + batch * MASKS]))
        });
        let compressed: Vec<[u8; 48]> =
            to_affine(&lagrange[..64].iter().map(Into::into).collect::<Vec<_>>())
                .iter()
                .map(|p| {
                    let mut bytes = [0u8; 48];
                    bytes.copy_from_slice(group::GroupEncoding::to_bytes(p).as_ref());
                    bytes
                })
                .collect();
        let point = time(&|| compressed.par_iter().for_each(|p| keep(parse_point(p))));
        let limbs = crate::field::all_limbs(&values);
        let product = time(&|| {
            keep(crate::field::small_inner_product(&integers, &limbs));
        });
        let share = |total: Duration, parts: usize| total.div_f64(parts.max(1) as f64);
        OperationTimes {
            column,
            integer: share(integer, batch * lagrange.len()),
            masks: share(masks, batch),
            point: share(point, 64),
            product: share(product, lagrange.len()),
        }
    }
}

/// What an adapter and a session of it will cost.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Estimate {
    /// The columns of every session.
    pub layout: Layout,
    /// Pairs of all modules.
    pub pairs: usize,
    /// Integers that are committed to.
    pub integers: usize,
    /// Points in the manifest.
    pub commitments: usize,
    /// Bytes of the manifest, exact for names and shapes (bit widths may change a few digits).
    pub manifest_bytes: usize,
    /// Bytes of a proof.
    pub proof_bytes: usize,
    /// Committing, in seconds.
    pub commit_seconds: f64,
    /// Proving, in seconds, after the pass over the trace; the first proof of a process derives
    /// the proving key.
    pub prove_seconds: f64,
    /// Verifying, in seconds, besides the pass over the trace: key, manifest, proof.
    pub verify_seconds: f64,
    /// Largest memory of the proof system while proving, without trace and program, in bytes.
    pub prove_bytes: usize,
}

/// The k that adapters of these shapes take least time with, to be proven and to be verified for
/// the first time, of those up to `most`. By times of a reference machine, so that the same shapes
/// have the same k everywhere.
///
/// # Errors
/// The shapes break a rule of the manifest at every such k.
pub fn best_k(draft: &Manifest, most: u32) -> Result<u32, Error> {
    let mut best: Option<(f64, u32)> = None;
    let mut refused = Error::Manifest("there is no k to choose from".into());
    for (k, times) in REFERENCE.into_iter().filter(|(k, _)| *k <= most) {
        let draft = Manifest { k, ..draft.clone() };
        match estimate(&draft, &times) {
            Ok(of) => {
                let seconds = of.prove_seconds + of.verify_seconds;
                if best.is_none_or(|(least, _)| seconds < least) {
                    best = Some((seconds, k));
                }
            }
            Err(error) => refused = error,
        }
    }
    best.map(|(_, k)| k).ok_or(refused)
}

/// Estimates from shapes and k alone, with the times of the operations at this k. `draft` needs
/// neither digests nor commitments.
pub fn estimate(draft: &Manifest, primitives: &OperationTimes) -> Result<Estimate, Error> {
    let mut manifest = draft.clone();
    let k = manifest.k;
    manifest.check_shapes()?;
    let pairs = Pairs::of(&manifest.modules)?;
    let layout = Settings::of(&pairs, manifest.k)?.layout;
    let mut commitments = 0;
    for module in &mut manifest.modules {
        let lengths: Vec<_> = module.terms.iter().map(|term| module.side_lengths(term)).collect();
        for (term, (a, b)) in module.terms.iter_mut().zip(lengths) {
            let columns = |length: usize| vec![Point([0; 48]); columns_for(length, k)];
            let side =
                |length: usize| if length == 0 { vec![] } else { vec![columns(length); term.rank] };
            (term.a, term.b) = (side(a), side(b));
            commitments += (term.a.iter().chain(&term.b)).map(Vec::len).sum::<usize>();
        }
    }
    (manifest.settings_digest, manifest.srs_digest) = ("0".repeat(64), "0".repeat(64));
    let integers: usize =
        pairs.iter().map(|pair| pair.a.map_or(0, |a| a.len) + pair.b.unwrap_or(0)).sum();
    let bits: f64 = manifest
        .modules
        .iter()
        .map(|m| f64::from(m.a_bits.max(m.b_bits)))
        .fold(f64::from(BITS), f64::max);
    let p = primitives;
    let seconds = |duration: Duration, times: f64| duration.as_secs_f64() * times;
    // Committed columns, in full columns; each is committed to twice, once here and once by the
    // library.
    let rows = data_rows(k) as f64;
    let filled = (2 * pairs.len() + pairs.longest_a() + pairs.longest_b()) as f64 / rows;
    let group_cells: usize = pairs.groups().iter().map(|g| g.len).sum();
    let columns = (layout.committed_columns() + layout.public_columns()) as f64;
    let halo2 = seconds(p.column, PROVER_COLUMNS + 2.0 * filled + TRANSFORM * columns);
    let sums = seconds(p.product, (2 * integers) as f64 + FOLD * group_cells as f64);
    let key = seconds(p.column, KEY);
    let verify = key
        + seconds(p.point, commitments as f64)
        + seconds(
            p.column,
            commitments as f64 / layout.rows() as f64
                + VERIFIER_COLUMNS
                + TRANSFORM * columns / 4.0,
        );
    Ok(Estimate {
        layout,
        pairs: pairs.len(),
        integers,
        commitments,
        manifest_bytes: manifest.to_bytes()?.len(),
        proof_bytes: proof_bytes(&layout),
        commit_seconds: seconds(p.integer, integers as f64 * bits / f64::from(BITS))
            + seconds(p.masks, commitments as f64),
        prove_seconds: halo2 + sums + verify - key,
        verify_seconds: verify,
        prove_bytes: 4 * integers
            + 32 * (group_cells * 2 + layout.rows() * (columns as usize * 4 + 32)),
    })
}

/// Times of a reference machine (two cores of an AMD EPYC with AVX2) by k: those of `zklora compile
/// --plan` there, by the test `reference_times`. Only their ratios count.
const REFERENCE: [(u32, OperationTimes); 5] = [
    (12, reference(44_000, 700, 150_000, 48_000, 4)),
    (11, reference(25_000, 950, 150_000, 48_000, 5)),
    (10, reference(13_500, 1_000, 150_000, 48_000, 5)),
    (9, reference(7_500, 1_050, 150_000, 48_000, 6)),
    (8, reference(5_000, 1_300, 150_000, 48_000, 7)),
];

/// Microseconds of a column, nanoseconds of the others.
const fn reference(
    column: u64,
    integer: u64,
    masks: u64,
    point: u64,
    product: u64,
) -> OperationTimes {
    OperationTimes {
        column: Duration::from_micros(column),
        integer: Duration::from_nanos(integer),
        masks: Duration::from_nanos(masks),
        point: Duration::from_nanos(point),
        product: Duration::from_nanos(product),
    }
}

/// Full-column commitments that the library makes: accumulator, random polynomial, two of the
/// quotient, two of the opening.
const PROVER_COLUMNS: f64 = 6.0;
/// Cost of carrying one instance column through transforms, hashing and the quotient, in
/// full-column commitments.
const TRANSFORM: f64 = 0.12;
/// Multiplications of field elements that the fold does for one cell of a group, in products of a
/// small integer.
const FOLD: f64 = 12.0;
/// Deriving the verifying key: a column of ones and two of a single one.
const KEY: f64 = 0.5;
/// The verifier's pairing and hashing, in full-column commitments.
const VERIFIER_COLUMNS: f64 = 0.3;

/// Bytes of a proof: header, and eight parts with their lengths, all of which the layout fixes.
fn proof_bytes(layout: &Layout) -> usize {
    let points = [
        layout.pair_columns,
        layout.pair_columns,
        layout.rounds,
        layout.a_columns,
        layout.b_columns,
        1,
    ];
    // halo2: six points; an evaluation of each committed column, two of the accumulator, three
    // fixed ones, one of the random polynomial, two of the opening.
    let halo2 = 6 * 48 + (layout.committed_columns() + 2 + 3 + 1 + 2) * 32;
    let part = |length: usize| length + (length.max(1).ilog2() as usize / 7 + 1);
    9 + points.iter().map(|count| part(count * 48)).sum::<usize>() + part(2 * 32) + part(halo2)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::print_stdout)]
    use super::*;
    use crate::{
        checked_manifest::CheckedManifest,
        commit::commit,
        keys::KeyStore,
        masks::Seed,
        prover::Prover,
        testing::{Session, draft, keys, lora, random_pairs, random_rows},
        verifier::{SrsPolicy, verify},
    };

    fn seconds<T>(work: impl FnOnce() -> T) -> (f64, T) {
        let start = Instant::now();
        let result = work();
        (start.elapsed().as_secs_f64(), result)
    }

    #[test]
    #[ignore = "prints times of this machine"]
    fn reference_times() {
        let srs = Srs::insecure_dev(12).unwrap();
        for k in (8..=12).rev() {
            let times = OperationTimes::measure(srs.at(k).unwrap());
            let nanos = |time: Duration| time.as_nanos();
            println!(
                "    ({k}, reference({}, {}, {}, {}, {})),",
                times.column.as_micros(),
                nanos(times.integer),
                nanos(times.masks),
                nanos(times.point),
                nanos(times.product)
            );
        }
    }

    #[test]
    #[ignore = "prints times of this machine"]
    fn times_by_k() {
        let srs = Srs::insecure_dev(12).unwrap();
        for (modules, d_in, rank, d_out) in [
            (1, 768, 4, 2304),
            (12, 768, 4, 2304),
            (60, 576, 4, 576),
            (24, 768, 8, 2304),
            (32, 4096, 64, 1024),
        ] {
            let shapes = vec![lora(d_in, rank, d_out, 2); modules];
            let mut shape = draft(&shapes);
            println!("{modules} × {d_in}×{rank}×{d_out}: best k = {}", best_k(&shape, 12).unwrap());
            for (k, times) in REFERENCE {
                shape.k = k;
                let guess = estimate(&shape, &times).unwrap();
                let session = Session::build(
                    Box::leak(Box::new(srs.clone())),
                    shape.clone(),
                    random_pairs(&shape),
                    random_rows(&shape, &shapes),
                );
                let bytes = session.manifest.to_bytes().unwrap();
                let prover = Prover { keys: keys(), ..session.prover() };
                let prove = || session.with_trace(|trace| prover.prove(trace)).unwrap();
                let proof = prove();
                let least =
                    |work: &dyn Fn()| (0..3).map(|_| seconds(work).0).fold(f64::INFINITY, f64::min);
                let proving = least(&|| drop(prove()));
                let parsing = least(&|| drop(CheckedManifest::parse(&bytes).unwrap()));
                let verifying = least(&|| drop(session.verify(&proof).unwrap()));
                println!(
                    "  k = {k}: prove {:.0} ms (guess {:.0}), verify {:.1} ms, parse {:.1} ms (guess of \
                     both {:.1}), proof {} B, manifest {} kB",
                    1e3 * proving,
                    1e3 * guess.prove_seconds,
                    1e3 * verifying,
                    1e3 * parsing,
                    1e3 * guess.verify_seconds,
                    proof.len(),
                    bytes.len() / 1000
                );
            }
        }
    }

    /// The choice is a function of the shapes: another table of times would change the ids of
    /// adapters that are compiled again.
    #[test]
    fn the_best_k_is_that_of_the_reference_times() {
        let best = |modules: usize, d_in, rank, d_out| {
            let mut shape = draft(&vec![lora(d_in, rank, d_out, 2); modules]);
            shape.k = 12;
            best_k(&shape, 12).unwrap()
        };
        let found = [
            best(1, 64, 4, 64),
            best(1, 768, 4, 2304),
            best(12, 768, 8, 2304),
            best(60, 576, 4, 576),
            best(160, 8192, 8, 8192),
        ];
        assert_eq!(found, [8, 9, 9, 10, 12]);
    }

    /// Other load on the machine during a measurement only adds time, so the shortest of up to ten
    /// attempts counts, for the estimate and for the measured time.
    #[test]
    fn estimates_are_within_a_factor_of_two_on_three_sizes() {
        let srs = Srs::insecure_dev(12).unwrap();
        for (modules, d_in, rank, d_out) in [(1, 64, 4, 64), (20, 576, 4, 576), (24, 768, 8, 2304)]
        {
            let shapes = vec![lora(d_in, rank, d_out, 2); modules];
            let shape = Manifest { k: 12, ..draft(&shapes) };
            let mut fits = false;
            let mut shortest = [(f64::INFINITY, f64::INFINITY); 3];
            for _ in 0..10 {
                let estimate = estimate(&shape, &OperationTimes::measure(&srs)).unwrap();
                let (committing, _) = seconds(|| {
                    commit(&srs, &shape, random_pairs(&shape), &Seed::generate().unwrap()).unwrap()
                });
                let rows = random_rows(&shape, &shapes);
                let session = Session::build(
                    Box::leak(Box::new(srs.clone())),
                    shape.clone(),
                    random_pairs(&shape),
                    rows,
                );
                let prover = Prover { keys: keys(), ..session.prover() };
                let (proving, proof) =
                    seconds(|| session.with_trace(|trace| prover.prove(trace)).unwrap());
                let bytes = session.manifest.to_bytes().unwrap();
                let (verifying, _) = seconds(|| {
                    let checked = CheckedManifest::parse(&bytes).unwrap();
                    session.with_trace(|trace| {
                        verify(
                            &srs,
                            &KeyStore::default(),
                            &checked,
                            trace,
                            &proof,
                            SrsPolicy::AllowUntrusted,
                        )
                        .unwrap()
                    })
                });
                assert_eq!(estimate.layout, session.checked.layout());
                assert_eq!(estimate.proof_bytes, proof.len());
                assert!(
                    estimate.manifest_bytes.abs_diff(bytes.len()) <= 8 * modules,
                    "{estimate:?} {}",
                    bytes.len()
                );
                let pairs = [
                    (estimate.commit_seconds, committing),
                    (estimate.prove_seconds, proving),
                    (estimate.verify_seconds, verifying),
                ];
                for (shortest, (guess, actual)) in shortest.iter_mut().zip(pairs) {
                    *shortest = (shortest.0.min(guess), shortest.1.min(actual));
                }
                println!("{modules}×{d_in}×{rank}×{d_out}: (estimate, actual) {shortest:.3?}");
                fits =
                    shortest.iter().all(|(guess, actual)| (0.5..=2.0).contains(&(guess / actual)));
                if fits {
                    break;
                }
            }
            assert!(
                fits,
                "{modules} modules of {d_in}×{rank}×{d_out}: (estimate, actual) {shortest:.3?}"
            );
        }
    }
}
