//! The contributor's side (docs/inference-proof.md, "The order of messages").

use zeroize::Zeroize;
use zklora_integer::program::Program;
use zklora_proof::{
    checked_manifest::CheckedManifest, field::F, keys::KeyStore, masks::MaskKey,
    randomness::ProofKey, srs::Srs,
};

use crate::{
    Error,
    argument::{self, Hidden, Made, State},
    channel::Channel,
    plan::Plan,
    pool::on_pool,
    reduce::{Reducer, Secrets},
    registration::Registered,
    statement::{self, Claimed},
    verifier::{self, plan_shape},
    witness::Witness,
};

/// What a contributor needs to prove scores.
pub struct Prover<'a> {
    /// The SRS.
    pub srs: &'a Srs,
    /// Derived keys.
    pub keys: &'a KeyStore,
    /// The registered manifest.
    pub registered: &'a Registered<'a>,
    /// The private mask key.
    pub mask_key: &'a MaskKey,
    /// The integer model with the private weights.
    pub program: &'a Program,
}

/// What opens a commitment to results. Overwritten when dropped.
#[derive(PartialEq)]
pub struct ResultOpening {
    /// The log-probability of each sequence, in units of 2^−score_bits nats, or 1 for each question
    /// that is answered right, and 0 for the others.
    pub results: Vec<i64>,
    /// The mask of the commitment.
    pub mask: F,
}

impl Drop for ResultOpening {
    fn drop(&mut self) {
        self.results.zeroize();
        zklora_proof::field::wipe(std::slice::from_mut(&mut self.mask));
    }
}

impl std::fmt::Debug for ResultOpening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ResultOpening({} results, not shown)", self.results.len())
    }
}

impl Prover<'_> {
    /// Proves a claim, and verifies the proof before it gives it away. If the claim commits to its
    /// results, what opens the commitment is returned, too.
    ///
    /// # Errors
    /// [`Error::OutOfRange`]: the claim is false, or a value leaves its range. Those of
    /// [`Plan::new`].
    pub fn prove(&self, claimed: &Claimed) -> Result<(Vec<u8>, Option<ResultOpening>), Error> {
        on_pool(|| self.prove_here(claimed))
    }

    fn prove_here(&self, claimed: &Claimed) -> Result<(Vec<u8>, Option<ResultOpening>), Error> {
        let manifest = self.registered.manifest();
        let plan = Plan::new(self.program, manifest, claimed)?;
        let witness = Witness::new(self.program, &plan, claimed)?;
        let made = attempt(self, manifest, &plan, &witness, claimed, &|_| {})?;
        made.check()?;
        let bytes = made.proof.to_bytes();
        verifier::verify_planned(
            self.srs,
            self.keys,
            manifest,
            self.program,
            &plan,
            claimed,
            &bytes,
        )?;
        let opening = plan.sums.map(|tensor| {
            let grid = &witness.tensors[tensor];
            let results = (0..grid.columns).map(|at| grid.get(0, at).as_i64()).collect();
            let pack = plan.catalog.tensors[tensor].pieces[0].pack;
            ResultOpening { results, mask: made.masks[pack][0] }
        });
        Ok((bytes, opening))
    }
}

/// One attempt, whatever the witness holds. `change` is for tests.
pub(crate) fn attempt(
    prover: &Prover<'_>,
    manifest: &CheckedManifest,
    plan: &Plan,
    witness: &Witness,
    claimed: &Claimed,
    change: &dyn Fn(&mut Channel<'_>),
) -> Result<Made, Error> {
    let Prover { srs, keys, mask_key, program, .. } = prover;
    let mut transcript = statement::absorb(srs, manifest, program, claimed)?;
    let streams = ProofKey::fresh(mask_key, &statement::name(&mut transcript))?.into_streams();
    let shape = plan_shape(srs, keys, manifest, plan);
    let hidden = Hidden {
        tensors: &witness.tensors,
        values: &witness.values,
        indices: &witness.indices,
        mask_key,
        earlier_masks: &[],
    };
    let secrets = Secrets { tensors: &witness.tensors, values: &witness.values };
    let reduce = |state: State<'_, '_>| {
        let State { channel, relations, openings, claims } = state;
        let secrets = Some(&secrets);
        Reducer { channel, relations, openings, claims, plan, program, claimed, secrets }.run()
    };
    argument::prove(&shape, transcript, &hidden, streams, reduce, change)
}
