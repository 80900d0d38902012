//! Each absorbed message changes every later challenge and no earlier one.

use ff::{Field, PrimeField};
use group::Group;

use crate::{
    field::{F, G1},
    manifest::AdapterId,
    statement::Statement,
    trace::TraceDigest,
    transcript::Transcript,
};

/// The absorbed messages of a session with two T and U columns, three rounds, two A and B
/// columns.
#[derive(Clone)]
struct Messages {
    statement: Statement,
    t: [G1; 2],
    u: [G1; 2],
    s: [G1; 3],
    a: [G1; 2],
    b: [G1; 2],
    r: G1,
    z: [F; 2],
}

fn messages() -> Messages {
    let point = |i: u64| G1::generator() * F::from(i + 2);
    Messages {
        statement: Statement {
            version: 1,
            srs_digest: [1; 32],
            vk: F::from(11),
            settings: b"settings".to_vec(),
            adapter: AdapterId([2; 32]),
            trace: TraceDigest([3; 32]),
            context: [4; 32],
        },
        t: [point(0), point(1)],
        u: [point(2), point(3)],
        s: [point(4), point(5), point(6)],
        a: [point(7), point(8)],
        b: [point(9), point(10)],
        r: point(11),
        z: [F::from(21), F::from(22)],
    }
}

/// All challenges, in the order in which they are drawn.
fn challenges(m: &Messages) -> Vec<(&'static str, [u8; 32])> {
    let (mut transcript, first) = Transcript::open(&m.statement);
    let mut out = vec![
        ("s0", first.s0),
        ("rho", first.rho_key),
        ("gamma", first.gamma.to_repr()),
        ("c", first.c.to_repr()),
        ("beta", transcript.products(&m.t, &m.u).to_repr()),
    ];
    for (name, s) in ["r_1", "r_2", "r_3"].into_iter().zip(&m.s) {
        out.push((name, transcript.round(s).to_repr()));
    }
    out.push(("chi", transcript.columns(&m.a, &m.b).to_repr()));
    out.push(("epsilon", transcript.span(&m.r).to_repr()));
    out.push(("eta", transcript.relations(&m.z).to_repr()));
    out.push(("halo2", transcript.finish().to_repr()));
    out
}

/// Changes exactly the challenges from `first` on.
fn changes_from(first: &str, change: impl FnOnce(&mut Messages)) {
    let mut other = messages();
    change(&mut other);
    let (before, after) = (challenges(&messages()), challenges(&other));
    let first = before.iter().position(|(name, _)| *name == first).unwrap();
    for (i, ((name, old), (_, new))) in before.iter().zip(&after).enumerate() {
        assert_eq!(old != new, i >= first, "challenge {name}");
    }
}

#[test]
fn each_field_of_the_statement_changes_every_challenge() {
    changes_from("s0", |m| m.statement.version += 1);
    changes_from("s0", |m| m.statement.srs_digest[31] ^= 1);
    changes_from("s0", |m| m.statement.vk += F::ONE);
    changes_from("s0", |m| m.statement.settings.push(b' '));
    changes_from("s0", |m| m.statement.adapter.0[0] ^= 0x80);
    changes_from("s0", |m| m.statement.trace.0[16] ^= 1);
    changes_from("s0", |m| m.statement.context[31] ^= 1);
}

#[test]
fn bytes_cannot_move_from_one_field_to_the_next() {
    changes_from("s0", |m| {
        m.statement.settings.pop();
    });
    changes_from("s0", |m| std::mem::swap(&mut m.statement.adapter.0, &mut m.statement.trace.0));
    changes_from("s0", |m| std::mem::swap(&mut m.statement.trace.0, &mut m.statement.context));
}

#[test]
fn each_commitment_changes_every_later_challenge_and_no_earlier_one() {
    for i in 0..2 {
        changes_from("beta", |m| m.t[i] += G1::generator());
        changes_from("beta", |m| m.u[i] += G1::generator());
        changes_from("chi", |m| m.a[i] += G1::generator());
        changes_from("chi", |m| m.b[i] += G1::generator());
        changes_from("eta", |m| m.z[i] += F::ONE);
    }
    for (i, name) in ["r_1", "r_2", "r_3"].into_iter().enumerate() {
        changes_from(name, |m| m.s[i] = -m.s[i]);
    }
    changes_from("epsilon", |m| m.r = -m.r);
}

#[test]
fn the_order_of_messages_counts() {
    changes_from("beta", |m| m.t.swap(0, 1));
    changes_from("beta", |m| std::mem::swap(&mut m.t, &mut m.u));
    changes_from("r_1", |m| m.s.swap(0, 2));
    changes_from("r_2", |m| m.s.swap(1, 2));
    changes_from("chi", |m| std::mem::swap(&mut m.a, &mut m.b));
    changes_from("eta", |m| m.z.swap(0, 1));
}

#[test]
fn columns_cannot_move_from_one_message_to_the_next() {
    let m = messages();
    let (transcript, _) = Transcript::open(&m.statement);
    let beta = |t: &[G1], u: &[G1]| transcript.clone().products(t, u);
    let [a, b, c] = m.s;
    assert_ne!(beta(&[a, b], &[c]), beta(&[a], &[b, c]));
    assert_ne!(beta(&[a, b, c], &[]), beta(&[], &[a, b, c]));
    let chi = |a: &[G1], b: &[G1]| transcript.clone().columns(a, b);
    assert_ne!(chi(&[a, b], &[c]), chi(&[a], &[b, c]));
}

#[test]
fn equal_messages_give_different_challenges_at_different_steps() {
    let all = challenges(&messages());
    for (i, (name, value)) in all.iter().enumerate() {
        assert!(all[i + 1..].iter().all(|(_, other)| other != value), "{name}");
    }
}
