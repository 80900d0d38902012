//! Answers to questions: true ones are proven, and no others.

use zklora_integer::unit::Sequence;

use super::{
    session::{Session, is_refused, llama, look_up, strangers},
    witness::is_impossible,
};
use crate::{
    Error,
    plan::Plan,
    prover::ResultOpening,
    relations::Rule,
    statement::{Bound, Claimed, Question},
    sums,
    sums::SumClaim,
    testing::{keys, scores, sequences, srs},
    verifier::verify,
    witness::Witness,
};

/// Three questions: of three, one and two choices; those of the last are equal.
fn questions(answers: [usize; 2], lengths: [u32; 3]) -> Claimed {
    let session = llama();
    let mut choices = sequences(&session.contributor.model, &[(4, 2), (4, 1), (3, 1), (3, 2)]);
    let last = Sequence { tokens: vec![9, 4, 7], from: 1 };
    choices.extend([last.clone(), last]);
    let question = |answer, lengths: &[u32]| Question { answer, lengths: lengths.to_vec() };
    Claimed {
        sequences: choices,
        questions: vec![
            question(answers[0], &lengths),
            question(0, &[5]),
            question(answers[1], &[3, 3]),
        ],
        bounds: vec![],
        commits: true,
        ..session.claimed.clone()
    }
}

/// By their definition.
fn results(claimed: &Claimed) -> Vec<i64> {
    let scores = scores(&llama().program, &claimed.sequences);
    let mut rest = scores.as_slice();
    let each = claimed.questions.iter().map(|Question { answer, lengths }| {
        let (own, others) = rest.split_at(lengths.len());
        rest = others;
        let by_length: Vec<f64> =
            own.iter().zip(lengths).map(|(s, l)| *s as f64 / f64::from(*l)).collect();
        let best = by_length.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        i64::from(by_length.iter().position(|x| *x == best) == Some(*answer))
    });
    each.collect()
}

fn session(claimed: Claimed) -> Session {
    llama().claiming(claimed)
}

fn committed(session: &Session, witness: &Witness) -> Vec<i64> {
    let grid = &witness.tensors[session.plan.sums.unwrap()];
    (0..grid.columns).map(|at| grid.get(0, at).as_i64()).collect()
}

#[test]
fn results_are_those_of_the_definition() {
    let mut seen = Vec::new();
    for first in 0..3 {
        for (last, lengths) in
            [(0, [1, 1, 1]), (1, [40, 1, 1]), (1, [1, 40, 1]), (0, [1, 1, u32::MAX])]
        {
            let session = session(questions([first, last], lengths));
            let witness = session.witness();
            let found = committed(&session, &witness);
            assert_eq!(found, results(&session.claimed));
            // Of equal choices, the first one is the likeliest.
            assert_eq!(found[1..], [1, i64::from(last == 0)]);
            assert_eq!(session.violated(&witness), []);
            seen.push(found[0]);
        }
    }
    assert!(seen.contains(&0) && seen.contains(&1));
}

/// Lengths that differ by one in four thousand millions: no comparison is rounded.
#[test]
fn the_longest_lengths_are_compared_exactly() {
    let most = u32::MAX;
    for (answer, last, right) in [(0, [most, most - 1], 1), (1, [most, most - 1], 0)]
        .into_iter()
        .chain([(0, [most - 1, most], 0), (1, [most - 1, most], 1)])
        .chain([(0, [most, most], 1), (1, [most, most], 0)])
    {
        let mut claimed = questions([0, answer], [most, most - 1, most]);
        claimed.questions[2].lengths = last.to_vec();
        let session = session(claimed);
        let scores = scores(&session.program, &session.claimed.sequences);
        // The longer one of two equal scores is the likelier one: they are negative.
        assert!(scores[4] == scores[5] && scores[4] < 0);
        let by_length = |at: usize, other: u32| i128::from(scores[at]) * i128::from(other);
        let first = by_length(0, most - 1) >= by_length(1, most) && scores[0] >= scores[2];
        let witness = session.witness();
        assert_eq!(committed(&session, &witness), [i64::from(first), 1, right]);
        assert_eq!(session.violated(&witness), []);
    }
}

#[test]
fn no_other_results_are_possible() {
    let session = session(questions([1, 1], [2, 2, 2]));
    let Plan { sums, results, .. } = &session.plan;
    let (sums, right) = (sums.unwrap(), results[0].tensor);
    let axis = session.plan.catalog.tensors[right].axis;
    let own = session.plan.catalog.tensors.iter().enumerate();
    let limbs: Vec<usize> = session.plan.limbs.iter().flat_map(|of| of.limbs.clone()).collect();
    // Whether the right choice loses, to those before and after it; and whether it is right.
    let cells: Vec<(usize, usize)> = own
        .filter(|(id, tensor)| tensor.axis == axis && !limbs.contains(id))
        .flat_map(|(id, tensor)| (0..tensor.features).map(move |at| (id, at)))
        .collect();
    assert_eq!(cells.len(), 3 + 3);
    let mut witness = session.witness();
    for (tensor, at) in cells {
        for by in [-2, -1, 1, 2] {
            witness.tensors[tensor].add(0, at, by.into());
            let none = is_impossible(&session.plan, &witness);
            assert!(none || strangers(&session.plan, &witness, tensor) > 0, "{tensor} {at} {by}");
            witness.tensors[tensor].add(0, at, (-by).into());
        }
    }
    assert!(!is_impossible(&session.plan, &witness));
    // Another result than the committed one.
    witness.tensors[sums].add(0, 0, 1.into());
    assert_eq!(session.violated(&witness), [Rule::Opening]);
}

#[test]
fn a_wrong_answer_that_is_called_right_is_refused() {
    let session = session(questions([1, 1], [2, 2, 2]));
    let mut witness = session.witness();
    let (right, sums) = (session.plan.results[2].tensor, session.plan.sums.unwrap());
    assert_eq!(witness.tensors[right].get(0, 2), 0);
    witness.tensors[right].add(0, 2, 1.into());
    witness.tensors[sums].add(0, 2, 1.into());
    assert_eq!(look_up(&session.plan, &mut witness), 1);
    let (bytes, violated) = session.attempt(&witness);
    assert_eq!(violated, [Rule::LookupSum]);
    assert!(is_refused(&session.verify(&bytes)));
}

#[test]
fn other_questions_are_refused() {
    let session = session(questions([1, 0], [2, 2, 2]));
    let (bytes, violated) = session.attempt(&session.witness());
    assert_eq!(violated, []);
    session.verify(&bytes).unwrap();
    let changes: [&dyn Fn(&mut Claimed); 5] = [
        &|c| c.questions[0].answer = 2,
        &|c| c.questions[0].lengths[1] = 3,
        &|c| c.questions[1].lengths[0] = 1,
        &|c| c.questions.swap(1, 2),
        &|c| c.questions.clear(),
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let mut claimed = session.claimed.clone();
        change(&mut claimed);
        let answer = session.verify_as(&claimed, &bytes);
        let malformed = matches!(answer, Err(Error::Malformed { .. } | Error::Statement(_)));
        assert!(malformed || is_refused(&answer), "{at}: {answer:?}");
    }
}

#[test]
fn questions_that_are_none_are_refused() {
    let session = llama();
    let refused = |change: &dyn Fn(&mut Claimed)| {
        let mut claimed = questions([0, 0], [1, 1, 1]);
        change(&mut claimed);
        let plan = Plan::new(&session.own, &session.contributor.manifest, &claimed);
        matches!(plan, Err(Error::Statement(_)))
    };
    assert!(!refused(&|_| ()));
    assert!(refused(&|c| c.questions[0].answer = 3));
    assert!(refused(&|c| c.questions[0].answer = usize::MAX));
    assert!(refused(&|c| c.questions[0].lengths[2] = 0));
    assert!(refused(&|c| c.questions[0].lengths.clear()));
    assert!(refused(&|c| drop(c.questions.pop())));
    assert!(refused(&|c| c.questions[1].lengths.push(1)));
    assert!(refused(&|c| c.questions[1].lengths = vec![1; 1025]));
}

#[test]
fn counts_of_two_proofs() {
    let (registered, prover) = (&llama().registered, llama().prover());
    let policy = zklora_proof::verifier::SrsPolicy::AllowUntrusted;
    let (mut commitments, mut openings, mut all) = (Vec::new(), Vec::new(), Vec::new());
    for claimed in [questions([0, 1], [1, 1, 1]), questions([2, 0], [1, 7, 1])] {
        all.extend(results(&claimed));
        let (proof, opening) = prover.prove(&claimed).unwrap();
        let own = &llama().own;
        let of = verify(srs(), keys(), registered, own, &claimed, &proof, policy).unwrap();
        commitments.push(of.unwrap());
        openings.push(opening.unwrap());
    }
    let openings: Vec<&ResultOpening> = openings.iter().collect();
    let of =
        |weights: &[i32]| -> i64 { weights.iter().zip(&all).map(|(w, r)| i64::from(*w) * r).sum() };
    let claim =
        |bounds| SumClaim { results: commitments.clone(), bounds, squares: None, context: [3; 32] };
    let exact = |weights: &[i32], more: i64| {
        let sum = of(weights) + more;
        Bound { weights: weights.to_vec(), least: sum, most: sum }
    };
    let (gained, lost, none) = ([1, 0, 1, 0, 1, 0], [0, 1, 0, 1, 0, 1], [0; 6]);
    let bounds = |more| vec![exact(&gained, more), exact(&lost, 0), exact(&none, 0)];
    let prove = |claim: &SumClaim| {
        sums::prove(srs(), keys(), registered, prover.mask_key, claim, &openings)
    };
    let honest = claim(bounds(0));
    let proof = prove(&honest).unwrap();
    let verify = |claim: &SumClaim| sums::verify(srs(), keys(), registered, claim, &proof, policy);
    verify(&honest).unwrap();
    assert!(is_refused(&verify(&claim(bounds(1)))));
    for more in [-1, 1] {
        assert!(matches!(prove(&claim(bounds(more))), Err(Error::OutOfRange)));
    }
    // Answers are no scores.
    let mut as_scores = honest.clone();
    as_scores.results.iter_mut().for_each(|of| of.is_of_answers = false);
    assert!(is_refused(&verify(&as_scores)));
    let squares = crate::squares::Squares {
        tokens: vec![1; 6],
        base: vec![0; 6],
        least: 0u32.into(),
        most: 9u32.into(),
    };
    let other = SumClaim { squares: Some(squares), ..honest.clone() };
    assert!(matches!(verify(&other), Err(Error::Statement(_))));
    let mut of_models = honest.clone();
    of_models.results[1].model = [1; 32];
    assert!(matches!(verify(&of_models), Err(Error::Statement(_))));
    let mut mixed = honest;
    mixed.results[0].is_of_answers = false;
    assert!(matches!(verify(&mixed), Err(Error::Statement(_))));
}
