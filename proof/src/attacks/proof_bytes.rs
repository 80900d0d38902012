//! Proofs with changed bytes.

use crate::{
    Error,
    error::Check,
    layout::Layout,
    testing::{Session, lora},
};

/// The parts of a proof in the order of the bytes, with their first byte (of the length field) and
/// their content.
pub struct Part {
    pub name: &'static str,
    pub start: usize,
    pub content: std::ops::Range<usize>,
}

pub fn parts(bytes: &[u8]) -> Vec<Part> {
    let mut out = vec![Part { name: "header", start: 0, content: 0..9 }];
    let mut at = 9;
    for name in ["T", "U", "S", "A**", "B*", "R", "z", "halo2"] {
        let start = at;
        let (mut length, mut shift) = (0usize, 0);
        loop {
            length |= usize::from(bytes[at] & 0x7f) << shift;
            shift += 7;
            at += 1;
            if bytes[at - 1] < 0x80 {
                break;
            }
        }
        out.push(Part { name, start, content: at..at + length });
        at += length;
    }
    assert_eq!(at, bytes.len());
    out
}

/// Offsets of the points within the halo2 part: accumulator, random polynomial, two quotient limbs;
/// after the evaluations the combined quotient, and the opening.
pub fn argument_points(layout: &Layout) -> Vec<usize> {
    let evaluations = 32 * (layout.committed_columns() + 2 + 3 + 1);
    vec![0, 48, 96, 144, 192 + evaluations, 192 + evaluations + 48 + 64]
}

pub fn session() -> Session {
    Session::of(&[lora(7, 2, 5, 3), lora(30, 1, 4, 2), lora(3, 1, 2, 1)])
}

fn part_of(bytes: &[u8], at: usize) -> (&'static str, bool) {
    let part =
        parts(bytes).into_iter().find(|part| (part.start..part.content.end).contains(&at)).unwrap();
    (part.name, part.content.contains(&at))
}

/// Flips one bit: the part is malformed, or the check that depends on it fails.
fn flip_is_refused(session: &Session, proof: &[u8], at: usize, bit: u8) {
    let mut bad = proof.to_vec();
    bad[at] ^= 1 << bit;
    let (name, in_content) = part_of(proof, at);
    let answer = session.verify(&bad);
    let refused = match &answer {
        Err(Error::Malformed { part, .. }) => {
            *part == name || (*part == "end" && name == "halo2" && !in_content)
        }
        Err(Error::Rejected(Check::MaskSpan)) => in_content && name != "header" && name != "halo2",
        Err(Error::Rejected(Check::Relations)) => in_content && name == "halo2",
        _ => false,
    };
    assert!(refused, "byte {at} bit {bit} of part {name}: {answer:?}");
}

#[test]
fn any_flipped_bit_is_refused_sampled() {
    let session = session();
    let proof = session.prove();
    session.verify(&proof).unwrap();
    for part in parts(&proof) {
        let mut sampled: Vec<usize> = (part.start..part.content.end).step_by(11).collect();
        sampled.extend([part.content.start, part.content.end - 1]);
        for at in sampled {
            flip_is_refused(&session, &proof, at, (at % 8) as u8);
        }
        // The sign of the first point: another point of the group.
        flip_is_refused(&session, &proof, part.content.start, 5);
    }
}

#[test]
#[ignore = "every byte: a dozen seconds"]
fn any_flipped_bit_is_refused_exhaustively() {
    let session = session();
    let proof = session.prove();
    for at in 0..proof.len() {
        for bit in [0, 3, 5, 7] {
            flip_is_refused(&session, &proof, at, bit);
        }
    }
}

pub fn malformed(answer: &Result<crate::verifier::Verdict, Error>, expected: &str, text: &str) {
    match answer {
        Err(Error::Malformed { part, why }) if *part == expected && why.contains(text) => {}
        other => panic!("expected part {expected} with `{text}`: {other:?}"),
    }
}

#[test]
fn a_truncated_proof_is_refused_at_every_byte() {
    let session = session();
    let proof = session.prove();
    let all = parts(&proof);
    for end in 0..proof.len() {
        let name = all.iter().find(|p| end < p.content.end).unwrap().name;
        malformed(&session.verify(&proof[..end]), name, "early");
    }
    // The halo2 part cut, with a length that says so.
    let argument = all.last().unwrap();
    for keep in (0..argument.content.len()).step_by(16) {
        let cut = with_part(&proof, "halo2", &proof[argument.content.clone()][..keep]);
        malformed(&session.verify(&cut), "halo2", "");
    }
}

/// The proof with the content of one part replaced, its length with it.
fn with_part(proof: &[u8], name: &str, content: &[u8]) -> Vec<u8> {
    let part = parts(proof).into_iter().find(|p| p.name == name).unwrap();
    let mut out = proof[..part.start].to_vec();
    let mut length = content.len();
    while length >= 0x80 {
        out.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(content);
    out.extend_from_slice(&proof[part.content.end..]);
    out
}

#[test]
fn lengths_that_are_wrong_huge_or_not_canonical_are_refused() {
    let session = session();
    let proof = session.prove();
    for part in parts(&proof).into_iter().skip(1) {
        let with_length = |length: &[u8]| {
            let mut out = proof[..part.start].to_vec();
            out.extend_from_slice(length);
            out.extend_from_slice(&proof[part.content.start..]);
            out
        };
        let original = &proof[part.start..part.content.start];
        let mut padded = original.to_vec();
        *padded.last_mut().unwrap() |= 0x80;
        padded.push(0);
        malformed(&session.verify(&with_length(&padded)), part.name, "canonical LEB128");
        let huge = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01];
        malformed(&session.verify(&with_length(&huge)), part.name, "9223372036854775808 bytes");
        let beyond = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        malformed(&session.verify(&with_length(&beyond)), part.name, "canonical LEB128");
        malformed(&session.verify(&with_length(&[0xff; 12])), part.name, "canonical LEB128");
        if part.name != "halo2" {
            // A whole element more or less than the layout says.
            let content = &proof[part.content.clone()];
            malformed(
                &session.verify(&with_part(&proof, part.name, &content[..content.len() - 32])),
                part.name,
                "",
            );
            let longer = [content, &content[..32]].concat();
            malformed(
                &session.verify(&with_part(&proof, part.name, &longer)),
                part.name,
                "expected",
            );
        }
    }
    let long = vec![0; crate::proof::MAX_ARGUMENT + 1];
    malformed(&session.verify(&with_part(&proof, "halo2", &long)), "halo2", "at most");
}

#[test]
fn bytes_after_the_end_are_refused() {
    let session = session();
    let proof = session.prove();
    malformed(&session.verify(&[&proof[..], &[0]].concat()), "end", "1 bytes too many");
    let argument = proof[parts(&proof).last().unwrap().content.clone()].to_vec();
    for tail in [1, 32, 48] {
        let longer = [&argument[..], &vec![0; tail]].concat();
        malformed(
            &session.verify(&with_part(&proof, "halo2", &longer)),
            "halo2",
            "bytes after its end",
        );
    }
}

#[test]
fn another_magic_or_version_is_refused() {
    let session = session();
    let mut proof = session.prove();
    proof[8] = 2;
    malformed(&session.verify(&proof), "header", "version 2");
    proof[0] = b'Z';
    malformed(&session.verify(&proof), "header", "not a zklora proof");
}
