//! Commitments to activations: bytes of the original, nothing but the committed values is accepted,
//! and row proofs claim what they show.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{fs, path::Path};

use proptest::prelude::*;
use zklora_artifacts::Error;
use zklora_artifacts::activation_commitment::{
    Commitment, MAX_NESTING, RowProof, Values,
    tree::{PADDING, leaf, parent},
};

fn parse(json: impl Into<Vec<u8>>) -> Result<Values, Error> {
    Values::parse(Path::new("x.json"), json.into())
}

/// Values of a flat list.
fn flat(numbers: &[f64]) -> Values {
    parse(serde_json::json!({ "input_data": numbers }).to_string()).unwrap()
}

fn numbers(count: usize) -> Vec<f64> {
    (0..count).map(|i| i as f64 * 0.37 - 2.0).collect()
}

const NONCE: [u8; 32] = [7; 32];

fn row_proof(count: usize, row: usize, columns: usize) -> (RowProof, Commitment) {
    let values = flat(&numbers(count));
    let commitment = Commitment::with_nonce(&values, NONCE).unwrap();
    (RowProof::prove(&values, &commitment, row, Some(columns)).unwrap(), commitment)
}

#[test]
fn commitments_are_those_of_an_independent_program() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/activation_commitments");
    let mut cases = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let Some(case) = path.to_str().unwrap().strip_suffix(".commitment.json") else { continue };
        let expected = fs::read_to_string(&path).unwrap();
        let values = Values::read(Path::new(&format!("{case}.json"))).unwrap();
        let nonce = Commitment::parse(expected.as_bytes()).unwrap().nonce;
        let commitment = Commitment::with_nonce(&values, nonce).unwrap();
        assert_eq!(commitment.to_string(), expected.trim_end(), "{case}");
        cases += 1;
    }
    assert_eq!(cases, 10);
}

#[test]
fn numbers_become_the_doubles_that_python_reads() {
    let read = |json: &str| {
        parse(format!("{{\"a\": [\"-0\"], \"input_data\": {json}, \"b\": {{}}}}")).unwrap().numbers
    };
    let bits = |numbers: &[f64]| numbers.iter().map(|number| number.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&read("[-0.0, -0, 0, -0e0]")), bits(&[-0.0, 0.0, 0.0, -0.0]));
    assert_eq!(read("[1e-0,-0\n,[-0]]"), [1.0, 0.0, 0.0]);
    assert_eq!(
        read("[9007199254740993, -9007199254740993]"),
        [9007199254740992.0, -9007199254740992.0]
    );
    assert_eq!(read("[[1, [2.5]], [], 3e2]"), [1.0, 2.5, 300.0]);
    assert_eq!(bits(&read("[5e-324, 1e-999]")), bits(&[5e-324, 0.0]));
}

#[test]
fn a_fresh_nonce_hides_equal_values() {
    let values = flat(&[1.0, 1.0]);
    let (one, two) = (Commitment::new(&values).unwrap(), Commitment::new(&values).unwrap());
    assert_ne!(one.nonce, two.nonce);
    assert_ne!(one.root, two.root);
    assert!(one.is_to(&values).unwrap() && two.is_to(&values).unwrap());
    assert!(!format!("{one:?}").contains(&hex::encode(one.nonce)));
}

/// The original answers with 32 zero bytes.
#[test]
fn an_empty_list_has_the_root_of_no_values() {
    for json in [r#"{"input_data": []}"#, r#"{"input_data": [[], [[]]]}"#] {
        let values = parse(json).unwrap();
        let commitment = Commitment::new(&values).unwrap();
        assert_eq!(commitment.root_text(), format!("0x{}", "0".repeat(64)));
        assert!(commitment.is_to(&values).unwrap());
        assert!(!commitment.is_to(&flat(&[0.0])).unwrap());
        assert!(values.row(0, Some(1)).is_err() && values.row(0, None).is_err());
    }
}

#[test]
fn files_that_are_not_finite_numbers_in_lists_are_refused() {
    let deep =
        |depth: usize| format!("{{\"input_data\": {}1{}}}", "[".repeat(depth), "]".repeat(depth));
    parse(deep(MAX_NESTING)).unwrap();
    for (json, why) in [
        (r#"{"input_data": [1, NaN]}"#, "expected value"),
        (r#"{"input_data": [1, -Infinity]}"#, "invalid number"),
        (r#"{"input_data": [1e999]}"#, "out of range"),
        (&format!("{{\"input_data\": [{}]}}", "9".repeat(400)), "out of range"),
        (r#"{"input_data": [true]}"#, "a number or a list"),
        (r#"{"input_data": [null]}"#, "a number or a list"),
        (r#"{"input_data": ["1"]}"#, "a number or a list"),
        (r#"{"input_data": [{"x": 1}]}"#, "a number or a list"),
        (r#"{"input_data": 1}"#, "a list of numbers"),
        (r#"{"input_data": [1], "input_data": [1]}"#, "twice"),
        (r#"{"input_data": [1], "input\u005fdata": [1]}"#, "twice"),
        (r#"{"output_data": [1]}"#, "missing field"),
        (r#"{"input_data": [1, 2"#, "EOF"),
        (r#"{"input_data": [1, 2]} x"#, "trailing"),
        (r#"{"input_data": [01]}"#, "not JSON"),
        (r#"[1, 2]"#, "the key `input_data`"),
        ("", "EOF"),
        ("\u{89}HDF", "no other format is read"),
        (&deep(MAX_NESTING + 1), "nested more than 32 deep"),
        (&deep(1_000_000), "nested more than 32 deep"),
        (&format!("{{\"other\": {}", "[".repeat(1_000_000)), "EOF"),
    ] {
        let error = parse(json).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        assert!(!error.is_refusal());
    }
}

#[test]
fn commitments_are_read_in_every_spelling_of_the_hex_and_nothing_else() {
    let commitment = Commitment::with_nonce(&flat(&[1.0]), NONCE).unwrap();
    let (root, nonce) = (hex::encode(commitment.root), hex::encode(NONCE));
    for json in [
        commitment.to_string(),
        format!("{{\"nonce\":\"{nonce}\",\"root\":\"{root}\"}}"),
        format!(
            "{{\"root\":\"0x{}\",\"nonce\":\"{}\"}}",
            root.to_uppercase(),
            nonce.to_uppercase()
        ),
        format!("{{\"root\":\"0X{}\",\"nonce\":\"0x{}\"}}", root.to_uppercase(), nonce),
    ] {
        assert!(Commitment::parse(json.as_bytes()).unwrap() == commitment);
        assert!(Commitment::read(&json).unwrap() == commitment);
    }
    for json in [
        format!("{{\"root\":\"{root}\"}}"),
        format!("{{\"root\":\"{root}\",\"root\":\"{root}\",\"nonce\":\"{nonce}\"}}"),
        format!("{{\"root\":\"{root}00\",\"nonce\":\"{nonce}\"}}"),
        format!("{{\"root\":\"{}\",\"nonce\":\"{nonce}\"}}", &root[2..]),
        format!("{{\"root\":\"0x0x{}\",\"nonce\":\"{nonce}\"}}", &root[4..]),
        format!("{{\"root\":\"{root}\",\"nonce\":\"{}\"}}", "zz".repeat(32)),
        "{}".into(),
        "[]".into(),
    ] {
        assert!(
            Commitment::parse(json.as_bytes()).unwrap_err().contains("not a commitment"),
            "{json}"
        );
    }
}

#[test]
fn rows_are_innermost_lists_or_pieces_of_given_length() {
    let values = parse(r#"{"input_data": [[[1, 2], [3]], [[], [4, 5]]]}"#).unwrap();
    let row = |row, columns| values.row(row, columns).map_err(|e| e.to_string());
    assert_eq!([row(0, None), row(1, None), row(3, None)], [Ok(0..2), Ok(2..3), Ok(3..5)]);
    assert!(row(2, None).unwrap_err().contains("empty list"));
    assert!(row(4, None).unwrap_err().contains("there are 4"));
    assert_eq!([row(0, Some(1)), row(0, Some(5)), row(4, Some(1))], [Ok(0..1), Ok(0..5), Ok(4..5)]);
    assert!(row(5, Some(1)).unwrap_err().contains("there are 5"));
    assert!(row(usize::MAX, Some(5)).unwrap_err().contains("there are 1"));
    assert!(row(0, Some(2)).unwrap_err().contains("whole rows of 2"));
    assert!(row(0, Some(0)).unwrap_err().contains("--columns"));
    for one_list in ["[1, 2]", "[[1, 2]]"] {
        let values = parse(format!("{{\"input_data\": {one_list}}}")).unwrap();
        assert!(values.row(0, None).unwrap_err().to_string().contains("are one list"));
    }
    let mixed = parse(r#"{"input_data": [1, [2]]}"#).unwrap();
    assert!(mixed.row(0, None).unwrap_err().to_string().contains("beside lists"));
}

/// Which lists have the root of another list under the same nonce: none, for the tree of a root
/// gives away its shape.
#[test]
fn padding_cannot_be_passed_off_as_values_nor_nodes_as_leaves() {
    let commitment = Commitment::with_nonce(&flat(&numbers(3)), NONCE).unwrap();
    // The padded fourth leaf has no value: not zero, and not anything else that a list can hold.
    for last in [0.0, -0.0, f64::MIN_POSITIVE] {
        assert!(!commitment.is_to(&flat(&[numbers(3), vec![last]].concat())).unwrap());
    }
    // In a row proof the fourth leaf would be an all-zero node, which only padding may be.
    let (mut proof, commitment) = row_proof(3, 2, 1);
    proof.check(&commitment.root, Some(3)).unwrap();
    proof.count = 4;
    proof.path.insert(0, PADDING);
    let error = proof.check(&commitment.root, None).unwrap_err();
    assert!(error.to_string().contains("padding where a tree of 4 values has none"), "{error}");
    assert!(error.is_refusal());
    // The root of two leaves is no leaf of a list of one: 64 bytes are not 40.
    let pair = parent(&leaf(1.0, &NONCE), &leaf(2.0, &NONCE));
    assert_ne!(Commitment::with_nonce(&flat(&[1.0]), NONCE).unwrap().root, pair);
}

/// `docs/security.md`: a row proof does not show the number of values beyond what its path passes
/// by.
#[test]
fn the_number_of_values_is_only_bound_as_far_as_documented() {
    let (mut proof, commitment) = row_proof(5, 0, 1);
    for count in 1..=17 {
        proof.count = count;
        // Five to eight values make a tree of the same height, and the first row's path passes no
        // padding.
        assert_eq!(
            proof.check(&commitment.root, None).is_ok(),
            (5..=8).contains(&count),
            "{count}"
        );
        assert_eq!(proof.check(&commitment.root, Some(5)).is_ok(), count == 5, "{count}");
    }
    // The last row's does: it is bound.
    let (mut proof, commitment) = row_proof(5, 4, 1);
    for count in 1..=17 {
        proof.count = count;
        assert_eq!(proof.check(&commitment.root, None).is_ok(), count == 5, "{count}");
    }
}

#[test]
fn row_proofs_have_one_format_and_version() {
    let (proof, _) = row_proof(6, 1, 2);
    let text = String::from_utf8(proof.to_bytes().unwrap()).unwrap();
    let parse = |text: &str| RowProof::parse(Path::new("row.json"), text.as_bytes());
    assert_eq!(parse(&text).unwrap(), proof);
    for (from, to) in [
        ("\"version\":1", "\"version\":2"),
        ("zklora-activation-row", "zklora-trace"),
        ("\"first\":2", "\"first\":-2"),
        ("\"count\":6", "\"count\":1e3"),
        ("\"path\":[\"", "\"path\":[\"0"),
        ("\"nonce\"", "\"extra\":1,\"nonce\""),
    ] {
        let error = parse(&text.replace(from, to)).unwrap_err();
        assert!(error.to_string().contains("not a row proof"), "{error}");
        assert!(!error.is_refusal());
    }
}

#[test]
fn row_proofs_with_absurd_positions_are_refused_without_work() {
    let (proof, commitment) = row_proof(6, 1, 2);
    for (first, count) in [
        (usize::MAX, 6),
        (5, 6),
        (2, usize::MAX),
        (usize::MAX - 1, usize::MAX),
        (0, 0),
        (2, 1 << 29),
    ] {
        let absurd = RowProof { first, count, ..proof.clone() };
        assert!(absurd.check(&commitment.root, None).unwrap_err().is_refusal());
    }
    let empty = RowProof { values: vec![], ..proof };
    assert!(empty.check(&commitment.root, None).is_err());
}

proptest! {
    #[test]
    fn any_change_of_a_list_is_another_commitment(
        count in 1usize..70, at in 0usize..70, other in -1e3..1e3f64, bit in 0u32..256, with in 0usize..70,
    ) {
        let original = numbers(count);
        let commitment = Commitment::with_nonce(&flat(&original), NONCE).unwrap();
        let (at, with) = (at % count, with % count);
        let mut changed = vec![original.clone(); 4];
        changed[0][at] = other;
        changed[1].swap(at, with);
        changed[2].insert(at, other);
        changed[3].remove(at);
        for list in changed.into_iter().filter(|list| !list.is_empty()) {
            prop_assert_eq!(commitment.is_to(&flat(&list)).unwrap(), list == original);
        }
        let mut nonce = commitment;
        nonce.nonce[bit as usize / 8] ^= 1 << (bit % 8);
        prop_assert!(!nonce.is_to(&flat(&original)).unwrap());
    }

    #[test]
    fn rows_are_proven_and_changed_proofs_are_not(
        rows in 1usize..20, columns in 1usize..20, row in 0usize..20, at in 0usize..64, bit in 0usize..256, shift in 1usize..40,
    ) {
        let (proof, commitment) = row_proof(rows * columns, row % rows, columns);
        prop_assert_eq!(&proof.values, &numbers(rows * columns)[proof.first..proof.first + columns]);
        proof.check(&commitment.root, Some(rows * columns)).unwrap();
        let again = RowProof::parse(Path::new("row.json"), &proof.to_bytes().unwrap()).unwrap();
        prop_assert_eq!(&again, &proof);

        let flip = |bytes: &mut [u8; 32]| bytes[bit / 8] ^= 1 << (bit % 8);
        let (value, node) = (at % columns, at % proof.path.len().max(1));
        type Change<'a> = Box<dyn Fn(&mut RowProof) + 'a>;
        let mut changes: Vec<Change> = vec![
            Box::new(|p| p.values[value] = 0.125 - p.values[value]),
            Box::new(|p| p.values.truncate(columns - 1)),
            Box::new(|p| p.values.push(0.0)),
            Box::new(|p| p.values.swap(0, columns - 1)),
            Box::new(|p| flip(&mut p.nonce)),
            Box::new(|p| p.first += shift),
            Box::new(|p| p.first = p.first.saturating_sub(shift)),
            Box::new(|p| p.path.push([1; 32])),
        ];
        if !proof.path.is_empty() {
            changes.push(Box::new(|p| flip(&mut p.path[node])));
            changes.push(Box::new(|p| p.path[node] = PADDING));
            changes.push(Box::new(|p| {
                let _ = p.path.remove(node);
            }));
        }
        for (number, change) in changes.iter().enumerate() {
            let mut changed = proof.clone();
            change(&mut changed);
            if changed != proof {
                let verdict = changed.check(&commitment.root, None);
                prop_assert!(verdict.is_err_and(|e| e.is_refusal()), "change {}", number);
            }
        }
        let mut root = commitment.root;
        flip(&mut root);
        prop_assert!(proof.check(&root, None).is_err());
    }
}
