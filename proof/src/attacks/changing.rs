//! Rows that change between two readings of their source.

use std::{
    borrow::Cow,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{
    Error,
    error::Check,
    field::F,
    manifest::Module,
    projection::Projection,
    row_source::RowSource,
    testing::{OwnedRows, Session, Shape, keys, lora},
    trace::Trace,
    transcript::FirstChallenges,
    verifier::{SrsPolicy, verify},
};

/// Which part of module 0 changes, and from which reading on.
#[derive(Clone, Copy)]
struct Change {
    part: Part,
    from_reading: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Nothing,
    Input,
    Ones,
    Scale,
    Delta,
}

/// The rows of a session as a file would give them: copies, of which one value of module 0 changes.
struct Changing {
    rows: Vec<OwnedRows>,
    change: Change,
    /// How often each part of module 0 was read, in the order of [`Part`].
    readings: [AtomicUsize; 5],
    /// Values that are missing at the end of each answer.
    short: usize,
}

impl Changing {
    fn of(session: &Session, part: Part, from_reading: usize) -> Arc<Changing> {
        let change = Change { part, from_reading };
        Arc::new(Changing {
            rows: session.rows.clone(),
            change,
            readings: Default::default(),
            short: 0,
        })
    }

    fn part<T: Copy>(
        &self,
        m: usize,
        part: Part,
        all: &[T],
        values: Range<usize>,
        other: impl Fn(T) -> T,
    ) -> Cow<'static, [T]> {
        let mut piece = all[values.start..values.end - self.short.min(values.len())].to_vec();
        if m == 0 && values.start == 0 && !piece.is_empty() {
            let reading = self.readings[part as usize].fetch_add(1, Ordering::Relaxed) + 1;
            if part == self.change.part && reading >= self.change.from_reading {
                piece[0] = other(piece[0]);
            }
        }
        Cow::Owned(piece)
    }
}

impl RowSource for Changing {
    fn count(&self, m: usize) -> usize {
        self.rows[m].scales.len()
    }

    fn check_shape(&self, _: usize, _: &Module) -> Result<(), String> {
        Ok(())
    }

    fn input(
        &self,
        m: usize,
        input: usize,
        values: Range<usize>,
    ) -> Result<Cow<'_, [i32]>, String> {
        Ok(self.part(m, Part::Input, &self.rows[m].inputs[input], values, |x| x ^ 1))
    }

    fn ones(&self, m: usize, values: Range<usize>) -> Result<Cow<'_, [i32]>, String> {
        Ok(self.part(m, Part::Ones, &self.rows[m].ones, values, |one| one ^ 1))
    }

    fn scales(&self, m: usize, values: Range<usize>) -> Result<Cow<'_, [f32]>, String> {
        Ok(self.part(m, Part::Scale, &self.rows[m].scales, values, |scale| scale * 2.0))
    }

    fn delta(&self, m: usize, values: Range<usize>) -> Result<Cow<'_, [i64]>, String> {
        Ok(self.part(m, Part::Delta, &self.rows[m].delta, values, |delta| delta ^ 1))
    }

    fn is_constant(&self) -> bool {
        false
    }
}

fn session() -> Session {
    let bias = Shape { d_in: 4, rank: 2, d_out: 3, bias: true, scale: false, rows: 3 };
    // The second module's rows are several pieces; the third was not called.
    Session::of(&[bias, lora(3, 1, 2, 70_000), lora(4, 2, 3, 0)])
}

fn read(session: &Session, source: Arc<Changing>) -> Result<Trace<'static>, Error> {
    Trace::read(&session.checked, session.context, source)
}

fn verdict(session: &Session, trace: &Trace<'_>, proof: &[u8]) -> Result<(), Error> {
    verify(session.srs, keys(), &session.checked, trace, proof, SrsPolicy::AllowUntrusted)
        .map(|_| ())
}

#[test]
fn rows_in_pieces_are_the_same_session() {
    let session = session();
    let streamed = read(&session, Changing::of(&session, Part::Nothing, 1)).unwrap();
    let first = FirstChallenges { s0: [1; 32], rho_key: [2; 32], gamma: F::from(3), c: F::from(5) };
    let (one, other) = session.with_trace(|held| {
        assert_eq!(held.digest(), streamed.digest());
        assert_eq!(held.counts(), streamed.counts());
        (
            Projection::of(&session.checked, held, &first),
            Projection::of(&session.checked, &streamed, &first),
        )
    });
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!((one.groups, one.ones, one.delta), (other.groups, other.ones, other.delta));
    // Each side's proof convinces the other.
    verdict(&session, &streamed, &session.prove()).unwrap();
    session.verify(&session.prover().prove(&streamed).unwrap()).unwrap();
}

/// Each part of a row in turn differs in the second reading.
#[test]
fn rows_that_change_after_the_digest_are_refused_by_the_second_digest() {
    let session = session();
    let proof = session.prove();
    for part in [Part::Input, Part::Ones, Part::Scale, Part::Delta] {
        let trace = read(&session, Changing::of(&session, part, 2)).unwrap();
        let answer = verdict(&session, &trace, &proof);
        assert!(
            matches!(&answer, Err(Error::Trace(why)) if why.contains("changed while they were read")),
            "{answer:?}"
        );
        let answer = trace.visit(session.checked.modules(), |_, _, _| Ok(()));
        assert!(
            matches!(&answer, Err(Error::Trace(why)) if why.contains("changed while they were read")),
            "{answer:?}"
        );
    }
}

/// The converse: the digested rows are false, the projected rows are true. The proof is for the
/// true rows.
#[test]
fn a_digest_of_other_rows_than_those_projected_proves_nothing() {
    let session = session();
    let proof = session.prove();
    let trace = read(&session, Changing::of(&session, Part::Delta, 1)).unwrap();
    let answer = verdict(&session, &trace, &proof);
    assert!(matches!(answer, Err(Error::Rejected(Check::MaskSpan))), "{answer:?}");
}

/// The prover reads deltas three times: to digest, to project, and as its own verifier. Its errors
/// never contain a computed delta: that would be an answer about rows that no ledger counted.
#[test]
fn a_prover_whose_rows_change_publishes_nothing_and_tells_nothing() {
    let session = session();
    for (reading, by, readings) in [(1, "Rejected", 3), (2, "changed", 2), (3, "changed", 3)] {
        let source = Changing::of(&session, Part::Delta, reading);
        let answer = session.prover().prove(&read(&session, source.clone()).unwrap());
        assert!(format!("{answer:?}").contains(by), "{reading}: {answer:?}");
        assert_eq!(
            source.readings[Part::Delta as usize].load(Ordering::Relaxed),
            readings,
            "{reading}"
        );
    }
}

#[test]
fn a_source_that_gives_fewer_values_is_refused() {
    let session = session();
    let mut source = Changing::of(&session, Part::Nothing, 1);
    Arc::get_mut(&mut source).unwrap().short = 1;
    let answer = read(&session, source);
    assert!(
        matches!(&answer, Err(Error::Trace(why)) if why.contains("44 of 48 bytes were read")),
        "{answer:?}"
    );
}
