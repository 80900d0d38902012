//! Proves and verifies that a weighted sum over committed columns has a public value: the halo2
//! part of a proof (docs/protocol.md, "Circuit" and "Proving library").
//!
//! It knows columns and weights, not what they mean.

use blake2b_simd::State as Blake2b;
use ff::Field;
use halo2_proofs::{
    plonk::{create_proof, prepare},
    poly::commitment::Guard,
    transcript::{CircuitTranscript, Transcript as _},
};
use rand_core::{CryptoRng, RngCore};

use crate::{
    Error,
    error::Check,
    field::{F, G1, Secret},
    gate::RunningSum,
    keys::{Keys, Scheme},
    layout::Layout,
    relations::PublicColumns,
    scheme::{Known, ProverScheme},
    srs::Srs,
};

type Halo2Transcript = CircuitTranscript<Blake2b>;

/// The running sum of the columns, from row 0 to the output row.
pub fn running_sum(layout: &Layout, columns: &[Secret], public: &PublicColumns) -> Vec<F> {
    let mut acc = F::ZERO;
    let mut out = Vec::with_capacity(layout.output_row() + 1);
    for row in 0..layout.output_row() {
        out.push(acc);
        for (column, weights) in columns.iter().zip(&public.weights) {
            if let (Some(value), Some(weight)) = (column.get(row), weights.get(row)) {
                acc += *value * weight;
            }
        }
        for (j, weights) in public.products.iter().enumerate() {
            if let Some(weight) = weights.get(row) {
                acc += columns[j][row] * columns[layout.pair_columns + j][row] * weight;
            }
        }
    }
    out.push(acc);
    out
}

/// Under a longer Lagrange basis, columns would be values on a larger subgroup: only one row in
/// several would be bound. The library does not notice.
fn check_size(srs: &Srs, layout: &Layout) -> Result<(), Error> {
    match srs.k() == layout.k {
        true => Ok(()),
        false => {
            Err(Error::Internal(format!("parameters for k = {} and k = {}", srs.k(), layout.k)))
        }
    }
}

/// The committed columns, masks included.
#[derive(Clone, Copy)]
pub struct Columns<'a> {
    /// The values.
    pub values: &'a [Secret],
    /// The commitments to the first columns. Those to the others are made again.
    pub commitments: &'a [G1],
}

/// Proves that the weighted sum over `columns` is `public.output`. The transcript absorbs `first`
/// before anything else.
pub fn prove(
    srs: &Srs,
    keys: &Keys,
    columns: Columns<'_>,
    public: &PublicColumns,
    first: F,
    rng: impl RngCore + CryptoRng,
) -> Result<Vec<u8>, Error> {
    let layout = keys.layout();
    check_size(srs, &layout)?;
    let acc = Secret(running_sum(&layout, columns.values, public));
    prove_with_accumulator(srs, keys, columns, public, acc, first, rng)
}

pub(crate) fn prove_with_accumulator(
    srs: &Srs,
    keys: &Keys,
    columns: Columns<'_>,
    public: &PublicColumns,
    mut acc: Secret,
    first: F,
    rng: impl RngCore + CryptoRng,
) -> Result<Vec<u8>, Error> {
    let layout = keys.layout();
    let public_columns = public.instances(&layout);
    let instances: Vec<&[F]> = columns
        .values
        .iter()
        .map(|c| c.as_slice())
        .chain(public_columns.iter().map(Vec::as_slice))
        .collect();
    let mut transcript = Halo2Transcript::init();
    transcript.common(&first).map_err(|e| Error::Library(e.to_string()))?;
    let mut circuit = RunningSum { layout, acc: Some(std::mem::take(&mut acc.0)) };
    let known = columns.values.iter().zip(columns.commitments);
    let known = known.map(|(column, commitment)| Known::new(column, *commitment));
    let result = create_proof::<F, ProverScheme, _, _>(
        &srs.params().with_known(known.collect()),
        keys.pk()?,
        std::slice::from_ref(&circuit),
        layout.committed_columns(),
        &[&instances],
        &mut transcript,
        rng,
    );
    if let Some(acc) = &mut circuit.acc {
        crate::field::wipe(acc);
    }
    result.map_err(|e| Error::Library(format!("proof creation: {e}")))?;
    Ok(transcript.finalize())
}

/// Verifies [`prove`]'s bytes against the commitments of the columns.
///
/// # Errors
/// [`Error::Malformed`] if the bytes are not a proof of this circuit or have bytes after its end;
/// [`Error::Rejected`] with [`Check::Relations`] if the pairing fails; [`Error::Internal`] if the
/// columns do not fit the layout.
pub fn verify(
    srs: &Srs,
    keys: &Keys,
    commitments: &[G1],
    public: &PublicColumns,
    first: F,
    proof: &[u8],
) -> Result<(), Error> {
    let layout = keys.layout();
    check_size(srs, &layout)?;
    if !public.fits(&layout) || commitments.len() != layout.committed_columns() {
        return Err(Error::Internal("the public columns do not fit the layout".into()));
    }
    let public_columns = public.instances(&layout);
    let instances: Vec<&[F]> = public_columns.iter().map(Vec::as_slice).collect();
    let mut transcript = Halo2Transcript::init_from_bytes(proof);
    transcript.common(&first).map_err(|e| Error::Library(e.to_string()))?;
    let malformed = |why: String| Error::Malformed { part: "halo2", why };
    let guard = prepare::<F, Scheme, _>(keys.vk(), &[commitments], &[&instances], &mut transcript)
        .map_err(|e| malformed(e.to_string()))?;
    // `prepare` accepts trailing bytes, and its Ok is not a verdict (docs/protocol.md, "Proving
    // library").
    transcript.assert_empty().map_err(|_| malformed("it has bytes after its end".into()))?;
    guard.verify(srs.verifier_params()).map_err(|_| Error::Rejected(Check::Relations))
}
