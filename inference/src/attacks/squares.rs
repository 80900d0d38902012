//! Sums of squares of scores: true ones are proven, and no others.

use std::sync::OnceLock;

use ethnum::{I256, U256};
use zklora_proof::verifier::SrsPolicy;

use super::session::{is_refused, llama};
use crate::{
    Error,
    argument::Made,
    integers::Grid,
    prover::ResultOpening,
    relations::Rule,
    squares::Squares,
    statement::{Bound, Claimed},
    sums::{self, SumClaim, attempt},
    testing::{keys, sequences, srs},
    values::{Value, Values},
    verifier::{ResultCommitment, verify},
};

const TOKENS: [u32; 3] = [4, 3, 1];
const BASE: [i64; 3] = [-70_000, -40_000, -12_345];

/// Commitments to the scores of three sequences by two proofs, and what opens them.
fn committed() -> &'static (Vec<ResultCommitment>, Vec<ResultOpening>) {
    static COMMITTED: OnceLock<(Vec<ResultCommitment>, Vec<ResultOpening>)> = OnceLock::new();
    COMMITTED.get_or_init(|| {
        let session = llama();
        let all = sequences(&session.contributor.model, &[(5, 1), (4, 1), (3, 2)]);
        let each = [&all[..2], &all[2..]].map(|sequences| {
            let (sequences, bounds) = (sequences.to_vec(), vec![]);
            let claimed = Claimed { sequences, bounds, commits: true, ..session.claimed.clone() };
            let (proof, opening) = session.prover().prove(&claimed).unwrap();
            let (own, policy) = (&session.own, SrsPolicy::AllowUntrusted);
            let of = verify(srs(), keys(), &session.registered, own, &claimed, &proof, policy);
            (of.unwrap().unwrap(), opening.unwrap())
        });
        each.into_iter().unzip()
    })
}

fn scores() -> Vec<i64> {
    committed().1.iter().flat_map(|opening| opening.results.clone()).collect()
}

fn claim(least: U256, most: U256) -> SumClaim {
    let total = scores().iter().sum();
    SumClaim {
        results: committed().0.clone(),
        bounds: vec![Bound { weights: vec![1; 3], least: total, most: total }],
        squares: Some(Squares { tokens: TOKENS.to_vec(), base: BASE.to_vec(), least, most }),
        context: [3; 32],
    }
}

/// The true sum, by its definition.
fn sum() -> U256 {
    let scores = scores();
    let n: i64 = TOKENS.iter().map(|n| i64::from(*n)).sum();
    let differences: Vec<i64> = scores.iter().zip(BASE).map(|(s, b)| s - b).collect();
    let all: i64 = differences.iter().sum();
    let each = differences.iter().zip(TOKENS);
    let squares = each.map(|(d, tokens)| {
        let y = I256::from(n) * I256::from(*d) - I256::from(tokens) * I256::from(all);
        (y * y).as_u256()
    });
    squares.sum()
}

fn prove(claim: &SumClaim) -> Result<Vec<u8>, Error> {
    let openings: Vec<&ResultOpening> = committed().1.iter().collect();
    let session = llama();
    let mask_key = session.prover().mask_key;
    sums::prove(srs(), keys(), &session.registered, mask_key, claim, &openings)
}

fn check(claim: &SumClaim, proof: &[u8]) -> Result<(), Error> {
    let policy = SrsPolicy::AllowUntrusted;
    sums::verify(srs(), keys(), &llama().registered, claim, proof, policy)
}

#[test]
fn the_true_sum_is_proven_and_no_other() {
    let sum = sum();
    let one = U256::ONE;
    let exact = claim(sum, sum);
    let proof = prove(&exact).unwrap();
    check(&exact, &proof).unwrap();
    let open = claim(sum - 1000, U256::MAX);
    check(&open, &prove(&open).unwrap()).unwrap();
    for (least, most) in [(sum + one, sum + one), (sum - one, sum - one), (sum + one, U256::MAX)] {
        assert!(matches!(prove(&claim(least, most)), Err(Error::OutOfRange)));
    }
    // The proof is of its own statement.
    let of = |change: &dyn Fn(&mut Squares)| {
        let mut other = exact.clone();
        other.squares.iter_mut().for_each(change);
        check(&other, &proof)
    };
    let high = U256::ONE << 40;
    let changes: [&dyn Fn(&mut Squares); 7] = [
        &|s| s.tokens[0] += 1,
        &|s| s.tokens.swap(0, 1),
        &|s| s.base[2] += 1,
        &|s| (s.least, s.most) = (s.least + one, s.most + one),
        &|s| (s.least, s.most) = (s.least + high, s.most + high),
        &|s| s.least -= one,
        &|s| s.most += one,
    ];
    for (at, change) in changes.into_iter().enumerate() {
        assert!(is_refused(&of(change)), "{at}");
    }
    assert!(is_refused(&of(&|s| s.most = U256::MAX)));
    // Others are no statement.
    for change in [
        &(|s: &mut Squares| s.tokens.truncate(2)) as &dyn Fn(&mut Squares),
        &|s| s.base.push(1),
        &|s| s.most = s.least - 1,
        &|s| s.least = U256::MAX,
    ] {
        assert!(matches!(of(change), Err(Error::Statement(_))));
    }
    let too_large = of(&|s| s.base = vec![i64::MIN; 3]);
    assert!(!matches!(too_large, Ok(())));
    let too_many = of(&|s| s.tokens = vec![u32::MAX; 3]);
    assert!(!matches!(too_many, Ok(())));
    assert!(check(&SumClaim { squares: None, ..exact.clone() }, &proof).is_err());
}

/// One score varies by nothing, and so do scores of no tokens.
#[test]
fn sums_of_nothing_are_zero() {
    let (commitments, openings) = committed();
    let session = llama();
    let squares = |tokens: Vec<u32>, most: U256| {
        let base = vec![i64::MIN; tokens.len()];
        Some(Squares { tokens, base, least: U256::ZERO, most })
    };
    let bound = |count| Bound { weights: vec![0; count], least: 0, most: 0 };
    let one = SumClaim {
        results: vec![commitments[1]],
        bounds: vec![bound(1)],
        squares: squares(vec![7], U256::ZERO),
        context: [3; 32],
    };
    let mask_key = session.prover().mask_key;
    let proof =
        sums::prove(srs(), keys(), &session.registered, mask_key, &one, &[&openings[1]]).unwrap();
    check(&one, &proof).unwrap();
    let mut none = claim(U256::ZERO, U256::MAX);
    none.squares = squares(vec![0; 3], U256::MAX);
    check(&none, &prove(&none).unwrap()).unwrap();
    none.squares.iter_mut().for_each(|squares| squares.least = U256::ONE);
    assert!(matches!(prove(&none), Err(Error::Statement(_))));
}

/// A proof that says this of its squares, whatever they are.
fn lying(claim: &SumClaim, sum: U256, scores: &[i64]) -> Made {
    let openings: Vec<&ResultOpening> = committed().1.iter().collect();
    let session = llama();
    let (manifest, mask_key) = (&session.contributor.manifest, session.prover().mask_key);
    let mut values = Values::default();
    values.insert(Value::Squares, Grid::wide(1, vec![sum.as_i256()]));
    attempt(srs(), keys(), manifest, mask_key, claim, &openings, &values, scores).unwrap()
}

#[test]
fn a_sum_that_is_not_that_of_the_squares_is_refused() {
    let other = sum() + 12_345;
    let claim = claim(other, other);
    let made = lying(&claim, other, &scores());
    assert_eq!(made.violated, [Rule::Operator("squares")]);
    assert!(is_refused(&check(&claim, &made.proof.to_bytes())));
}

#[test]
fn squares_of_other_scores_are_refused() {
    let mut others = scores();
    others[0] += 100;
    let squares = Squares {
        tokens: TOKENS.to_vec(),
        base: BASE.to_vec(),
        least: U256::ZERO,
        most: U256::MAX,
    };
    let sum = squares.value(&others).as_u256();
    let claim = claim(sum, sum);
    let made = lying(&claim, sum, &others);
    assert_eq!(made.violated, [Rule::Opening]);
    assert!(is_refused(&check(&claim, &made.proof.to_bytes())));
}
