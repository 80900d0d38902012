//! What is registered: manifests whose every column holds integers of 16 bits.

use ethnum::I256;
use group::{Curve, GroupEncoding};
use zklora_proof::{
    checked_manifest::CheckedManifest,
    field::G1,
    manifest::{Manifest, Point, parse_point},
    masks::MaskKey,
    randomness::ProofKey,
    verifier::SrsPolicy,
    weights::Weights,
};

use super::session::{is_refused, llama};
use crate::{
    Error,
    argument::{self, Hidden, Shape},
    axis::Axis,
    integers::{Grid, field},
    lookups::{Input, Live},
    registration::{self, Plan, check_features},
    relations::Rule,
    schedule::Schedule,
    statement,
    testing::{keys, srs},
    values::Values,
};

/// The manifest of `llama()` with a weight of the first A raised, committed by hand.
fn raised(by: I256) -> CheckedManifest {
    let mut manifest: Manifest = llama().contributor.manifest.contents().clone();
    let point = &mut manifest.modules[0].terms[0].a[0][0];
    let old = G1::from(parse_point(&point.0).unwrap());
    let new = (old + G1::from(srs().lagrange()[0]) * field(by)).to_affine();
    let mut bytes = [0u8; 48];
    bytes.copy_from_slice(new.to_bytes().as_ref());
    *point = Point(bytes);
    CheckedManifest::parse(&manifest.to_bytes().unwrap()).unwrap()
}

/// The registration of a prover that knows the raised weight, and the rules that it breaks.
fn attempt(manifest: &CheckedManifest, by: I256) -> (Vec<u8>, Vec<Rule>) {
    let contributor = &llama().contributor;
    let (weights, mask_key): (&Weights, &MaskKey) = (&contributor.weights, &contributor.mask_key);
    let Plan { schedule, sides } = Plan::new(manifest).unwrap();
    let mut tensors: Vec<Grid> =
        schedule.catalog.tensors.iter().map(|_| Grid::small(0, vec![])).collect();
    for (tensor, pairs, is_b) in &sides {
        let of = pairs.iter().map(|pair| &weights.pairs()[*pair]);
        let cells = of.flat_map(|pair| if *is_b { &pair.b } else { &pair.a });
        let cells = cells.map(|x| i64::from(*x)).collect();
        tensors[*tensor] = Grid::small(schedule.catalog.tensors[*tensor].features, cells);
    }
    let values = Values::default();
    let mut indices = schedule.fill(&mut tensors, &values).unwrap();
    tensors[sides[0].0].add(0, 0, by);
    // The tuples are taken as they are.
    indices.iter_mut().for_each(|indices| indices.live.clear());
    let mut transcript = statement::begin("registration", srs(), manifest).unwrap();
    let name = statement::name(&mut transcript);
    let streams = ProofKey::fresh(mask_key, &name).unwrap().into_streams();
    let (indices, values) = (&indices, &values);
    let hidden = Hidden { tensors: &tensors, values, indices, mask_key, earlier_masks: &[] };
    let schedule = &schedule;
    let shape = Shape { srs: srs(), keys: keys(), manifest, schedule, earlier: &[] };
    let made = argument::prove(&shape, transcript, &hidden, streams, |_| Ok(()), &|_| {}).unwrap();
    (made.proof.to_bytes(), made.violated)
}

fn verify(manifest: &CheckedManifest, bytes: &[u8]) -> Result<(), Error> {
    registration::verify(srs(), keys(), manifest, bytes, SrsPolicy::AllowUntrusted).map(drop)
}

#[test]
fn weights_of_more_than_16_bits_are_not_registered() {
    let half = I256::from_str_radix(
        "39f6d3a994cebea4199cec0404d0ec02a9ded2017fff2dff7fffffff80000001",
        16,
    )
    .unwrap();
    for by in [I256::from(1u64 << 16), half] {
        let manifest = raised(by);
        let (bytes, violated) = attempt(&manifest, by);
        assert_eq!(violated, [Rule::LookupSum], "{by}");
        assert!(is_refused(&verify(&manifest, &bytes)), "{by}");
        // That of the manifest as it was.
        assert!(is_refused(&verify(&manifest, &llama().contributor.registration)));
    }
}

/// The control: the same steps register what has 16 bits.
#[test]
fn the_manifest_as_it_is_is_registered() {
    let manifest = raised(I256::ZERO);
    let (bytes, violated) = attempt(&manifest, I256::ZERO);
    assert_eq!(violated, []);
    verify(&manifest, &bytes).unwrap();
}

#[test]
fn modules_of_more_than_16_bits_are_refused_before_anything_else() {
    let session = llama();
    let contents = session.contributor.manifest.contents();
    for is_b in [false, true] {
        let mut manifest: Manifest = contents.clone();
        let module = &mut manifest.modules[0];
        *(if is_b { &mut module.b_bits } else { &mut module.a_bits }) = 17;
        let manifest = CheckedManifest::parse(&manifest.to_bytes().unwrap()).unwrap();
        let answer = verify(&manifest, &session.contributor.registration);
        assert!(matches!(answer, Err(Error::Unsupported(_))), "{answer:?}");
        let mut program = session.contributor.program(false);
        let module = &mut program.adapter.modules[0];
        *(if is_b { &mut module.b_bits } else { &mut module.a_bits }) = 17;
        let claimed = &session.claimed;
        let plan = |manifest| crate::plan::Plan::new(&program, manifest, claimed).map(drop);
        let answer = plan(&manifest);
        assert!(matches!(answer, Err(Error::Unsupported(_))), "{answer:?}");
        // A model that says so of a manifest that does not is another one than the manifest's.
        let answer = plan(&session.contributor.manifest);
        assert!(matches!(answer, Err(Error::Statement(_))), "{answer:?}");
    }
}

/// A vector of a million entries is two commitments, and takes a verifier as much memory as any.
#[test]
fn more_features_than_a_verifier_has_memory_for_are_refused() {
    let schedule = |terms: usize| {
        let mut schedule = Schedule::new(20);
        for term in 0..terms {
            let axis = schedule.catalog.axis(Axis::dense(1));
            let tensor = schedule.catalog.published(axis, 1 << 20, &[term], false);
            schedule.look_up(axis, 1 << 20, Live::All, Input::tensor(tensor, 1 << 15));
        }
        schedule
    };
    assert!(check_features(&schedule(64)).is_ok());
    let answer = check_features(&schedule(65));
    assert!(matches!(answer, Err(Error::Unsupported(_))), "{answer:?}");
}

/// The manifest's name is in the proof: also a change that no column sees is another manifest.
#[test]
fn a_registration_is_of_its_manifest_alone() {
    let session = llama();
    let mut manifest: Manifest = session.contributor.manifest.contents().clone();
    manifest.modules[0].scaling *= 2.0;
    let manifest = CheckedManifest::parse(&manifest.to_bytes().unwrap()).unwrap();
    assert!(is_refused(&verify(&manifest, &session.contributor.registration)));
    verify(&session.contributor.manifest, &session.contributor.registration).unwrap();
    for at in [100, session.contributor.registration.len() - 1] {
        let mut bytes = session.contributor.registration.clone();
        bytes[at] ^= 1;
        assert!(verify(&session.contributor.manifest, &bytes).is_err());
    }
}
