//! True claims are proven and accepted.

use zklora_proof::verifier::SrsPolicy;

use crate::{
    Error,
    plan::Plan,
    prover::{ResultOpening, attempt},
    statement::Bound,
    sums::{self, SumClaim},
    testing::{Contributor, Kind, QUERIES_AND_VALUES, claimed, keys, scores, sequences, srs},
    verifier::verify,
    witness::Witness,
};

fn proves(name: &str, kind: &Kind, lengths: &[(usize, usize)]) {
    let contributor = Contributor::new(name, kind);
    let registered = contributor.registered();
    let program = contributor.program(true);
    let claimed = claimed(&program, sequences(&contributor.model, lengths));
    let prover = contributor.prover(&registered, &program);
    let manifest = &contributor.manifest;
    let plan = Plan::new(&program, manifest, &claimed).unwrap();
    let witness = Witness::new(&program, &plan, &claimed).unwrap();
    let made = attempt(&prover, manifest, &plan, &witness, &claimed, &|_| {}).unwrap();
    assert_eq!(made.violated, []);
    let own = contributor.program(false);
    let policy = SrsPolicy::AllowUntrusted;
    verify(srs(), keys(), &registered, &own, &claimed, &made.proof.to_bytes(), policy).unwrap();
}

#[test]
fn tiny_llama_with_queries_and_values() {
    proves("tiny-llama", &QUERIES_AND_VALUES, &[(9, 1)]);
}

#[test]
fn several_sequences_of_other_lengths() {
    proves("tiny-llama", &QUERIES_AND_VALUES, &[(7, 3), (2, 1), (12, 5)]);
}

#[test]
fn all_layers_with_biases() {
    let kind = Kind {
        layers: &["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        rank: 3,
        bias: true,
        seed: 2,
    };
    proves("tiny-llama", &kind, &[(6, 1), (5, 4)]);
}

#[test]
fn biases_alone() {
    let kind = Kind { layers: &["v_proj", "down_proj"], rank: 0, bias: true, seed: 3 };
    proves("tiny-llama", &kind, &[(5, 1)]);
}

#[test]
fn tiny_gpt2() {
    let kind = Kind { layers: &["c_attn", "c_fc"], rank: 2, bias: true, seed: 4 };
    proves("tiny-gpt2", &kind, &[(10, 2), (3, 1)]);
}

#[test]
fn other_architectures() {
    for name in ["tiny-mistral", "tiny-qwen2"] {
        proves(name, &QUERIES_AND_VALUES, &[(8, 1)]);
    }
}

#[test]
fn sums_of_scores_of_two_proofs() {
    let contributor = Contributor::new("tiny-llama", &QUERIES_AND_VALUES);
    let registered = contributor.registered();
    let (program, own) = (contributor.program(true), contributor.program(false));
    let prover = contributor.prover(&registered, &program);
    let policy = SrsPolicy::AllowUntrusted;
    let (mut commitments, mut openings, mut total) = (Vec::new(), Vec::new(), 0);
    for lengths in [&[(7, 3), (4, 1)][..], &[(5, 2)]] {
        let mut claimed = claimed(&program, sequences(&contributor.model, lengths));
        (claimed.bounds, claimed.commits) = (vec![], true);
        total += scores(&program, &claimed.sequences).iter().sum::<i64>();
        let (proof, opening) = prover.prove(&claimed).unwrap();
        let commitment = verify(srs(), keys(), &registered, &own, &claimed, &proof, policy);
        commitments.push(commitment.unwrap().unwrap());
        openings.push(opening.unwrap());
    }
    let bound = |least, most| Bound { weights: vec![1; 3], least, most };
    let claim =
        |bounds| SumClaim { results: commitments.clone(), bounds, squares: None, context: [3; 32] };
    let openings: Vec<&ResultOpening> = openings.iter().collect();
    let prove = |claim| sums::prove(srs(), keys(), &registered, prover.mask_key, claim, &openings);
    let verify =
        |claim, proof: &[u8]| sums::verify(srs(), keys(), &registered, claim, proof, policy);
    let exact = claim(vec![bound(total, total)]);
    let proof = prove(&exact).unwrap();
    verify(&exact, &proof).unwrap();
    let other = claim(vec![bound(total - 1, total)]);
    assert!(matches!(verify(&other, &proof), Err(Error::Rejected(_))));
    let others = claim(vec![bound(total + 1, total + 9)]);
    assert!(matches!(prove(&others), Err(Error::OutOfRange)));
}
