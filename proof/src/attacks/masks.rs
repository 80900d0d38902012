//! Masks: two adapters of one seed share no commitment, and an opening opens one adapter only.

use std::collections::HashSet;

use crate::{
    checked_manifest::CheckedManifest,
    commit::{audit, commit},
    manifest::{Manifest, Point},
    masks::{MaskKey, Seed, Side},
    srs::Srs,
    testing::{K, Shape, draft, lora, random_pairs, srs},
    weights::{PairWeights, Weights},
};

const SEED: [u8; 32] = [42; 32];

fn shapes() -> Vec<Shape> {
    vec![
        lora(7, 2, 5, 0),
        Shape { d_in: 6, rank: 1, d_out: 30, bias: true, scale: true, rows: 0 },
        lora(7, 2, 5, 0),
    ]
}

fn committed(
    draft: &Manifest,
    pairs: &[PairWeights],
    seed: [u8; 32],
) -> (Manifest, Weights, MaskKey) {
    commit(srs(), draft, pairs.to_vec(), &Seed::from_bytes(seed)).unwrap()
}

fn points(manifest: &Manifest) -> HashSet<[u8; 48]> {
    let terms = manifest.modules.iter().flat_map(|m| &m.terms);
    terms.flat_map(|t| t.a.iter().chain(&t.b)).flatten().map(|Point(bytes)| *bytes).collect()
}

fn narrow() -> Manifest {
    let mut draft = draft(&shapes());
    for module in &mut draft.modules {
        // Room for wider bit widths and one more activation bit.
        (module.a_bits, module.b_bits, module.x_bits) = (8, 8, 8);
    }
    draft
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_shares_nothing() {
    let draft = narrow();
    let pairs = random_pairs(&draft);
    let (first, _, key) = committed(&draft, &pairs, SEED);
    let (second, _, again) = committed(&draft, &pairs, SEED);
    assert_eq!(first.to_bytes().unwrap(), second.to_bytes().unwrap());
    assert_eq!(key.expose(), again.expose());
    let (other, _, other_key) = committed(&draft, &pairs, [43; 32]);
    assert!(points(&first).is_disjoint(&points(&other)));
    assert_ne!(key.expose(), other_key.expose());
    // Commitments and digests in a draft are ignored.
    let (from_finished, _, _) = committed(&first, &pairs, SEED);
    assert_eq!(first, from_finished);
}

#[test]
fn any_change_under_the_same_seed_shares_no_commitment_and_no_opening() {
    let draft = narrow();
    let pairs = random_pairs(&draft);
    let (first, weights, key) = committed(&draft, &pairs, SEED);
    let checked = CheckedManifest::parse(&first.to_bytes().unwrap()).unwrap();
    assert!(audit(srs(), &checked, &weights, &key).unwrap().is_empty());
    let first_points = points(&first);

    let check = |what: &str, draft: &Manifest, pairs: &[PairWeights]| {
        let (manifest, weights, other_key) = committed(draft, pairs, SEED);
        assert!(points(&manifest).is_disjoint(&first_points), "{what}");
        // The buyer of one adapter cannot open the other: every module differs.
        let other = CheckedManifest::parse(&manifest.to_bytes().unwrap()).unwrap();
        let names: Vec<String> = manifest.modules.iter().map(|m| m.name.clone()).collect();
        assert_eq!(audit(srs(), &other, &weights, &key).unwrap(), names, "{what}");
        assert!(audit(srs(), &other, &weights, &other_key).unwrap().is_empty(), "{what}");
    };
    let edit = |change: &dyn Fn(&mut Manifest)| {
        let mut draft = draft.clone();
        change(&mut draft);
        draft
    };
    let mut one = pairs.clone();
    one[5].b[4] -= if one[5].b[4] > 0 { 1 } else { -1 };
    check("one weight", &draft, &one);
    check("a bit width", &edit(&|m| m.modules[0].a_bits += 1), &pairs);
    check("the activation width", &edit(&|m| m.modules[2].x_bits += 1), &pairs);
    check("a scale", &edit(&|m| m.modules[1].scale_log2 += 1), &pairs);
    check("a scaling", &edit(&|m| m.modules[1].scaling = 3.0), &pairs);
    check("a bound", &edit(&|m| m.modules[1].delta_bits -= 1), &pairs);
    check("a name", &edit(&|m| m.modules[0].name.push('x')), &pairs);
    check("the base model", &edit(&|m| m.base_model.name.push('x')), &pairs);
    check("a fingerprint", &edit(&|m| m.base_model.fingerprint = Some("ab".into())), &pairs);
    let mut order = pairs.clone();
    order.rotate_left(5);
    order[..2].clone_from_slice(&pairs[5..]);
    order[2..5].clone_from_slice(&pairs[2..5]);
    order[5..].clone_from_slice(&pairs[..2]);
    check("the order", &edit(&|m| m.modules.swap(0, 2)), &order);
    check(
        "the order of names",
        &edit(&|m| {
            let name = m.modules[0].name.clone();
            m.modules[0].name = std::mem::replace(&mut m.modules[2].name, name);
        }),
        &pairs,
    );
    check("the pairs", &draft, &{
        let mut swapped = pairs.clone();
        swapped.swap(0, 1);
        swapped
    });
}

#[test]
fn another_srs_or_k_changes_all_masks() {
    let draft = narrow();
    let pairs = random_pairs(&draft);
    let seed = || Seed::from_bytes(SEED);
    let (_, _, key) = committed(&draft, &pairs, SEED);
    for k in [K, K + 1] {
        let draft = Manifest { k, ..draft.clone() };
        let other = Srs::insecure_dev(k).unwrap();
        let (_, _, other_key) = commit(&other, &draft, pairs.clone(), &seed()).unwrap();
        assert_ne!(key.expose(), other_key.expose());
    }
}

#[test]
fn equal_vectors_in_different_places_have_different_commitments() {
    let mut draft = draft(&[lora(30, 3, 30, 0), lora(30, 3, 30, 0)]);
    draft.modules.iter_mut().for_each(|m| m.x_bits = 2);
    let vector = PairWeights { a: vec![1; 30], b: vec![1; 30] };
    let (manifest, _, _) = committed(&draft, &vec![vector; 6], SEED);
    // 6 pairs, two sides, two columns a vector: no two commitments are equal.
    assert_eq!(points(&manifest).len(), 24);
}

#[test]
fn every_cell_has_a_mask_of_its_own() {
    let key = MaskKey::from_bytes([5; 32]);
    let mut seen = HashSet::new();
    for module in [0, 1, 256, 1 << 16] {
        for side in [Side::A, Side::B] {
            for j in [0, 1, 256, 1 << 16] {
                for column in [0, 1, 256] {
                    for slot in [0, 1] {
                        assert!(seen.insert(key.mask(module, side, j, column, slot).to_bytes_le()));
                    }
                }
            }
        }
    }
    assert_eq!(seen.len(), 192);
    assert_ne!(
        key.mask(0, Side::A, 0, 0, 0),
        MaskKey::from_bytes([6; 32]).mask(0, Side::A, 0, 0, 0)
    );
}

#[test]
fn duplicate_names_are_refused_before_anything_is_committed() {
    let mut draft = narrow();
    draft.modules[2].name = draft.modules[0].name.clone();
    let pairs = random_pairs(&draft);
    let answer = commit(srs(), &draft, pairs, &Seed::from_bytes(SEED));
    assert!(
        matches!(answer, Err(crate::Error::Manifest(why)) if why.contains("two modules are called"))
    );
}
