//! What the parties exchange: messages of hidden cells, and challenges (docs/inference-proof.md,
//! "Commitments" and "The order of messages").
//!
//! One type stands for both sides, so that one driver makes a proof and checks it. The prover
//! passes values, the verifier none.

use rayon::prelude::*;
use zklora_proof::{
    field::{F, G1, G1Affine, Secret},
    framed::Framed,
    layout::data_rows,
    msm::msm,
    randomness::Stream,
};

use crate::{
    Error,
    cells::{Cell, Expression},
    fixed_base::FixedBase,
};

/// Cells that a prover has room for, and most messages of a proof: far more than any model has
/// asked for.
pub(crate) const MOST_CELLS: usize = 1 << 18;

/// Where a cell lies: the message, from 1; the column of W; the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Number of the message.
    pub message: usize,
    /// Column of W.
    pub column: usize,
    /// Row of the column.
    pub row: usize,
}

/// A transcript, with what was said so far.
pub struct Channel<'a> {
    transcript: Framed,
    side: Side<'a>,
    k: u32,
    /// The slot of each cell.
    pub slots: Vec<Slot>,
    /// Column and commitment of each message.
    pub messages: Vec<(usize, G1)>,
    next: (usize, usize),
}

/// Who speaks.
enum Side<'a> {
    Prover(Box<Prover<'a>>),
    Verifier(std::slice::Iter<'a, G1Affine>),
}

/// The prover's part.
pub struct Prover<'a> {
    lagrange: &'a [G1Affine],
    mask_base: FixedBase,
    masks: Stream,
    /// The value of each cell.
    pub cells: Secret,
    /// The mask of each message.
    pub message_masks: Secret,
    /// What tests change before it is committed.
    #[cfg(test)]
    pub tamper: Option<(usize, usize)>,
}

impl<'a> Channel<'a> {
    /// The prover's side. `lagrange` is the basis, `masks` the stream of masks.
    pub fn prover(
        transcript: Framed,
        lagrange: &'a [G1Affine],
        k: u32,
        masks: Stream,
    ) -> Channel<'a> {
        let prover = Prover {
            lagrange,
            mask_base: FixedBase::new(&lagrange[data_rows(k)]),
            masks,
            // Allocated whole: a vector that grows leaves copies of its secrets in memory.
            cells: Secret(Vec::with_capacity(MOST_CELLS)),
            message_masks: Secret(Vec::with_capacity(MOST_CELLS)),
            #[cfg(test)]
            tamper: None,
        };
        Channel::new(transcript, Side::Prover(Box::new(prover)), k)
    }

    /// The verifier's side. `points` are the commitments to messages, in order.
    pub fn verifier(transcript: Framed, points: &'a [G1Affine], k: u32) -> Channel<'a> {
        Channel::new(transcript, Side::Verifier(points.iter()), k)
    }

    fn new(transcript: Framed, side: Side<'a>, k: u32) -> Channel<'a> {
        Channel { transcript, side, k, slots: vec![], messages: vec![], next: (0, 0) }
    }

    /// The prover's part, if this is the prover.
    pub fn as_prover(&mut self) -> Option<&mut Prover<'a>> {
        match &mut self.side {
            Side::Prover(prover) => Some(prover.as_mut()),
            Side::Verifier(_) => None,
        }
    }

    /// The values of the cells, if this is the prover.
    pub fn cells(&self) -> Option<&[F]> {
        match &self.side {
            Side::Prover(prover) => Some(&prover.cells),
            Side::Verifier(_) => None,
        }
    }

    /// Columns of W that are in use.
    pub fn columns(&self) -> usize {
        self.next.0 + 1
    }

    /// Commitments to messages that the verifier has not used.
    pub fn left(&self) -> usize {
        match &self.side {
            Side::Prover(_) => 0,
            Side::Verifier(points) => points.len(),
        }
    }

    /// Absorbs what both sides know.
    pub fn absorb(&mut self, label: &str, message: &[u8]) {
        #[cfg(test)]
        crate::attacks::events::absorbed(label);
        self.transcript.absorb(label, message);
    }

    /// Absorbs commitments.
    pub fn absorb_points(&mut self, label: &str, points: &[G1]) {
        #[cfg(test)]
        crate::attacks::events::absorbed(label);
        self.transcript.absorb_points(label, points);
    }

    /// A challenge.
    pub fn challenge(&mut self, label: &str) -> F {
        let challenge = self.transcript.challenge(label);
        #[cfg(test)]
        crate::attacks::events::drawn(label, challenge);
        challenge
    }

    /// Several challenges.
    pub fn challenges(&mut self, label: &str, count: usize) -> Vec<F> {
        (0..count).map(|_| self.challenge(label)).collect()
    }

    /// The end of the transcript, as the first element that the halo2 transcript absorbs.
    pub fn finish(&mut self) -> F {
        self.challenge("halo2")
    }

    /// A message of `count` cells.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the proof ends here; [`Error::Internal`] if the prover has other
    /// values, or the message is longer than a column.
    pub fn message(
        &mut self,
        label: &'static str,
        count: usize,
        values: Option<Vec<F>>,
    ) -> Result<Vec<Expression>, Error> {
        let rows = data_rows(self.k);
        if count == 0 || count > rows {
            return Err(Error::Unsupported(format!(
                "a message `{label}` of {count} cells does not fit a column"
            )));
        }
        let (mut column, mut row) = self.next;
        if row + count > rows {
            (column, row) = (column + 1, 0);
        }
        self.next = (column, row + count);
        let first = self.slots.len();
        let message = self.messages.len() + 1;
        self.slots.extend((row..row + count).map(|row| Slot { message, column, row }));
        let commitment = match &mut self.side {
            Side::Prover(prover) => {
                let values = Secret(values.unwrap_or_default());
                if values.len() != count {
                    return Err(Error::Internal(format!(
                        "a message `{label}` has {} values instead of {count}",
                        values.len()
                    )));
                }
                prover.commit(row, values, message)
            }
            Side::Verifier(points) => points.next().map(G1::from).ok_or_else(|| {
                Error::malformed("messages", format!("there is no message `{label}`"))
            })?,
        };
        self.messages.push((column, commitment));
        self.absorb_points(label, &[commitment]);
        Ok((first..first + count).map(|cell| Expression::of(Cell(cell))).collect())
    }
}

impl Prover<'_> {
    fn commit(&mut self, row: usize, values: Secret, _message: usize) -> G1 {
        #[cfg(test)]
        let values = self.tampered(values, _message);
        let mask = self.masks.scalar();
        let points = &self.lagrange[row..row + values.len()];
        let commitment = msm(points, &values) + self.mask_base.times(&mask);
        self.cells.extend_from_slice(&values);
        self.message_masks.push(mask);
        commitment
    }

    /// A uniform field element, of the masks' stream.
    pub fn scalar(&mut self) -> F {
        self.masks.scalar()
    }

    #[cfg(test)]
    fn tampered(&self, mut values: Secret, message: usize) -> Secret {
        if let Some((of, at)) = self.tamper
            && of == message
        {
            let at = at % values.len();
            values[at] += F::from(1);
        }
        values
    }
}

/// Sums, by column of W, of commitments with weights `χ^message`.
pub fn combined_messages(messages: &[(usize, G1)], powers: &[F], columns: usize) -> Vec<G1> {
    let points: Vec<G1> = messages.iter().map(|(_, point)| *point).collect();
    let points = zklora_proof::msm::to_affine(&points);
    (0..columns)
        .into_par_iter()
        .map(|column| {
            let of = messages.iter().zip(&points).zip(&powers[1..]);
            let of = of.filter(|(((at, _), _), _)| *at == column);
            let (points, scalars): (Vec<_>, Vec<_>) =
                of.map(|((_, point), power)| (*point, *power)).unzip();
            msm(&points, &scalars)
        })
        .collect()
}
