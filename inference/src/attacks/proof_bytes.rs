//! Proofs with changed bytes.

use group::{Curve, Group, GroupEncoding};
use zklora_proof::field::{F, G1, G1Affine};

use super::session::{Session, is_refused, llama};
use crate::{Error, error::Check, proof::Proof};

const HEADER: usize = 9;
const POINT: usize = 48;
const PARTS: [&str; 5] = ["columns", "messages", "T", "U", "blinders"];

/// For each part of points, where its count is, and how many points it has.
fn parts(bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut at = HEADER;
    let each = PARTS.map(|_| {
        let count = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        let start = at;
        at += 4 + count * POINT;
        (start, count)
    });
    each.to_vec()
}

fn argument(bytes: &[u8]) -> usize {
    let (start, count) = parts(bytes)[4];
    start + 4 + count * POINT
}

fn malformed(session: &Session, bytes: &[u8]) -> &'static str {
    match session.verify(bytes) {
        Err(Error::Malformed { part, .. }) => part,
        other => panic!("{other:?}"),
    }
}

fn lists(proof: &mut Proof) -> [&mut Vec<G1Affine>; 5] {
    [&mut proof.columns, &mut proof.messages, &mut proof.t, &mut proof.u, &mut proof.blinders]
}

#[test]
fn another_point_in_any_part_breaks_the_relations() {
    let session = llama();
    let honest = session.parsed(session.honest());
    let other = (G1::generator() * F::from(5)).to_affine();
    for (part, name) in PARTS.iter().enumerate() {
        let count = lists(&mut honest.clone())[part].len();
        let mut places = vec![0, count / 2, count - 1];
        places.dedup();
        for at in places {
            let mut proof = honest.clone();
            lists(&mut proof)[part][at] = other;
            let answer = session.verify(&proof.to_bytes());
            assert!(is_refused(&answer), "{name} {at}: {answer:?}");
        }
    }
}

#[test]
fn another_order_of_points_breaks_the_relations() {
    let session = llama();
    let honest = session.parsed(session.honest());
    let changes: [&dyn Fn(&mut Proof); 5] = [
        &|proof| proof.columns.swap(0, 1),
        &|proof| proof.messages.swap(0, 1),
        &|proof| std::mem::swap(&mut proof.t, &mut proof.u),
        &|proof| proof.blinders.swap(0, 1),
        // A message for a column.
        &|proof| std::mem::swap(&mut proof.messages[0], &mut proof.columns[0]),
    ];
    for change in changes {
        let mut proof = honest.clone();
        change(&mut proof);
        assert!(is_refused(&session.verify(&proof.to_bytes())));
    }
}

#[test]
fn points_that_are_none_of_the_group_are_malformed() {
    let session = llama();
    let honest = session.honest();
    let mut identity = [0u8; POINT];
    identity[0] = 0xc0;
    let outside = (1u8..).find_map(|x| {
        let mut bytes = [0u8; POINT];
        (bytes[0], bytes[47]) = (0x80, x);
        let mut repr = <G1Affine as GroupEncoding>::Repr::default();
        repr.as_mut().copy_from_slice(&bytes);
        let on_curve: bool = G1Affine::from_bytes_unchecked(&repr).is_some().into();
        (on_curve && !bool::from(G1Affine::from_bytes(&repr).is_some())).then_some(bytes)
    });
    for bad in [identity, outside.unwrap(), [0; POINT], [0xff; POINT]] {
        for ((start, count), name) in parts(honest).into_iter().zip(PARTS) {
            for at in [0, count - 1] {
                let mut bytes = honest.to_vec();
                bytes[start + 4 + at * POINT..][..POINT].copy_from_slice(&bad);
                assert_eq!(malformed(session, &bytes), name);
            }
        }
    }
}

#[test]
fn proofs_that_end_early_or_late_are_malformed() {
    let session = llama();
    let honest = session.honest();
    let parts = parts(honest);
    assert_eq!(malformed(session, &[]), "header");
    assert_eq!(malformed(session, &honest[..HEADER - 1]), "header");
    for ((start, count), name) in parts.iter().zip(PARTS) {
        let ends = [*start, start + 3, start + 4, start + 4 + count * POINT - 1];
        for end in ends {
            assert_eq!(malformed(session, &honest[..end]), name);
        }
    }
    let end = argument(honest);
    for end in [end, end + 3, end + 4, honest.len() - 1] {
        assert_eq!(malformed(session, &honest[..end]), "halo2");
    }
    let late = [honest, &[0]].concat();
    assert_eq!(malformed(session, &late), "end");
}

#[test]
fn other_headers_are_malformed() {
    let session = llama();
    for at in 0..HEADER {
        let mut bytes = session.honest().to_vec();
        bytes[at] ^= 1;
        assert_eq!(malformed(session, &bytes), "header");
    }
}

/// A count is believed once the bytes are there.
#[test]
fn counts_beyond_the_bytes_are_malformed() {
    let session = llama();
    let honest = session.honest();
    let start = std::time::Instant::now();
    for ((at, count), name) in parts(honest).into_iter().zip(PARTS) {
        let long = [u32::MAX, 1 << 24, (1 << 24) + 1, 0x0100_0000, count as u32 + 1_000_000];
        for count in long {
            let mut bytes = honest.to_vec();
            bytes[at..at + 4].copy_from_slice(&count.to_le_bytes());
            assert_eq!(malformed(session, &bytes), name);
        }
    }
    for length in [u32::MAX, 1 << 30, honest.len() as u32] {
        let mut bytes = honest.to_vec();
        let at = argument(honest);
        bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
        assert_eq!(malformed(session, &bytes), "halo2");
    }
    assert!(start.elapsed().as_secs() < 20);
}

/// More points than any proof has are not even checked: these are none of the curve.
#[test]
fn counts_beyond_any_proof_are_malformed_before_their_points_are_read() {
    let session = llama();
    let honest = session.honest();
    for (at, name, most) in [(1, "messages", 1 << 18), (2, "T", 1 << 12)] {
        let (start, _) = parts(honest)[at];
        let mut bytes = honest[..start].to_vec();
        bytes.extend_from_slice(&(most as u32 + 1).to_le_bytes());
        bytes.resize(bytes.len() + (most + 1) * POINT, 0xff);
        let Err(Error::Malformed { part, why }) = session.verify(&bytes) else {
            panic!("{name}");
        };
        assert_eq!(part, name);
        assert!(why.contains("claims"), "{why}");
    }
}

#[test]
fn points_too_many_or_too_few_are_malformed() {
    let session = llama();
    let honest = session.parsed(session.honest());
    // What the parser cannot know, the statement does.
    let expected = ["columns", "messages", "U", "U", "T"];
    for (part, name) in expected.into_iter().enumerate() {
        let mut more = honest.clone();
        let list = &mut lists(&mut more)[part];
        let again = list[0];
        list.push(again);
        assert_eq!(malformed(session, &more.to_bytes()), name);
        let mut fewer = honest.clone();
        lists(&mut fewer)[part].pop();
        assert_eq!(malformed(session, &fewer.to_bytes()), name);
    }
    let mut both = honest.clone();
    both.t.push(honest.t[0]);
    both.u.push(honest.u[0]);
    assert_eq!(malformed(session, &both.to_bytes()), "T");
    let mut none = honest;
    lists(&mut none).iter_mut().skip(1).for_each(|list| list.clear());
    assert_eq!(malformed(session, &none.to_bytes()), "messages");
}

#[test]
fn other_bytes_of_the_halo2_proof_are_refused() {
    let session = llama();
    let honest = session.honest();
    let start = argument(honest) + 4;
    let length = honest.len() - start;
    for at in [0, 47, length / 2, length - 1] {
        let mut bytes = honest.to_vec();
        bytes[start + at] ^= 1;
        let answer = session.verify(&bytes);
        assert!(
            matches!(
                answer,
                Err(Error::Rejected(Check::Relations) | Error::Malformed { part: "halo2", .. })
            ),
            "{at}: {answer:?}"
        );
    }
    // A halo2 proof with something behind it.
    let mut proof = session.parsed(honest);
    proof.argument.push(0);
    let answer = session.verify(&proof.to_bytes());
    assert!(matches!(answer, Err(Error::Malformed { part: "halo2", .. })), "{answer:?}");
}
