//! A statement with its parties, and provers that prove what does not hold.

use std::sync::OnceLock;

use ethnum::I256;
use rayon::prelude::*;
use zklora_integer::program::Program;
use zklora_proof::{
    randomness::{ProofKey, Streams},
    verifier::SrsPolicy,
};

use super::rules::tuple;
use crate::{
    Error,
    argument::{self, Hidden, State, Trial},
    channel::Channel,
    fe::Wiped,
    integers::Grid,
    lookups::{INDEX_BITS, Indices, Known, Lookup, TABLE_AXIS_BITS},
    plan::Plan,
    proof::Proof,
    prover::Prover,
    reduce::{Reducer, Secrets},
    registration::Registered,
    relations::Rule,
    statement::{self, Claimed},
    testing::{Contributor, Kind, QUERIES_AND_VALUES, claimed, keys, sequences, srs},
    verifier::{plan_shape, verify},
    witness::Witness,
};

/// A contributor, a user and a true claim.
pub struct Session {
    pub contributor: &'static Contributor,
    pub registered: Registered<'static>,
    /// The contributor's.
    pub program: Program,
    /// The user's.
    pub own: Program,
    pub claimed: Claimed,
    pub plan: Plan,
}

const LENGTHS: &[(usize, usize)] = &[(4, 1), (2, 1)];
const MIXED: Kind = Kind { layers: &["c_attn", "c_fc"], rank: 2, bias: true, seed: 4 };

/// Norms without means, gates and rotations; queries and values have adapters.
pub fn llama() -> &'static Session {
    static SESSION: OnceLock<Session> = OnceLock::new();
    SESSION.get_or_init(|| Session::new("tiny-llama", &QUERIES_AND_VALUES))
}

/// Norms with means, activations by a table, positions, biases.
pub fn gpt2() -> &'static Session {
    static SESSION: OnceLock<Session> = OnceLock::new();
    SESSION.get_or_init(|| Session::new("tiny-gpt2", &MIXED))
}

impl Session {
    fn new(name: &str, kind: &Kind) -> Session {
        let contributor: &'static Contributor = Box::leak(Box::new(Contributor::new(name, kind)));
        let program = contributor.program(true);
        let claimed = claimed(&program, sequences(&contributor.model, LENGTHS));
        let plan = Plan::new(&program, &contributor.manifest, &claimed).unwrap();
        Session {
            contributor,
            registered: contributor.registered(),
            own: contributor.program(false),
            program,
            claimed,
            plan,
        }
    }

    pub fn prover(&self) -> Prover<'_> {
        self.contributor.prover(&self.registered, &self.program)
    }

    /// The true integers.
    pub fn witness(&self) -> Witness {
        Witness::new(&self.program, &self.plan, &self.claimed).unwrap()
    }

    /// What holds of a witness, with the prover's channel changed.
    pub fn changed(&self, witness: &Witness, change: &dyn Fn(&mut Channel<'_>)) -> Trial {
        let Contributor { manifest, mask_key, .. } = self.contributor;
        let (plan, program, claimed) = (&self.plan, &self.program, &self.claimed);
        let transcript = statement::absorb(srs(), manifest, program, claimed).unwrap();
        let streams: Streams = ProofKey::fresh(mask_key, &[0; 32]).unwrap().into_streams();
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
        let shape = plan_shape(srs(), keys(), manifest, plan);
        argument::trial(&shape, transcript, &hidden, streams, reduce, change).unwrap()
    }

    /// The rules that a witness breaks, by a prover that proves it as it is.
    pub fn violated(&self, witness: &Witness) -> Vec<Rule> {
        let trial = self.changed(witness, &|_| {});
        trial.violated(&trial.cells)
    }

    /// A proof, whatever the witness holds.
    pub fn attempt(&self, witness: &Witness) -> (Vec<u8>, Vec<Rule>) {
        self.attempt_with(witness, &|_| {})
    }

    pub fn attempt_with(
        &self,
        witness: &Witness,
        change: &dyn Fn(&mut Channel<'_>),
    ) -> (Vec<u8>, Vec<Rule>) {
        self.attempt_of(witness, witness, change)
    }

    /// A proof with the columns of one witness by a prover that computes with another.
    pub fn attempt_of(
        &self,
        committed: &Witness,
        said: &Witness,
        change: &dyn Fn(&mut Channel<'_>),
    ) -> (Vec<u8>, Vec<Rule>) {
        let Contributor { manifest, mask_key, .. } = self.contributor;
        let (plan, program, claimed) = (&self.plan, &self.program, &self.claimed);
        let mut transcript = statement::absorb(srs(), manifest, program, claimed).unwrap();
        let name = statement::name(&mut transcript);
        let streams = ProofKey::fresh(mask_key, &name).unwrap().into_streams();
        let hidden = Hidden {
            tensors: &committed.tensors,
            values: &committed.values,
            indices: &committed.indices,
            mask_key,
            earlier_masks: &[],
        };
        let secrets = Secrets { tensors: &said.tensors, values: &said.values };
        let reduce = |state: State<'_, '_>| {
            let State { channel, relations, openings, claims } = state;
            let secrets = Some(&secrets);
            Reducer { channel, relations, openings, claims, plan, program, claimed, secrets }.run()
        };
        let shape = plan_shape(srs(), keys(), manifest, plan);
        let made = argument::prove(&shape, transcript, &hidden, streams, reduce, change).unwrap();
        let mut violated = made.violated;
        violated.sort();
        violated.dedup();
        (made.proof.to_bytes(), violated)
    }

    /// The same parties, another claim.
    pub fn claiming(&self, claimed: Claimed) -> Session {
        let Contributor { manifest, .. } = self.contributor;
        let program = self.contributor.program(true);
        let plan = Plan::new(&program, manifest, &claimed).unwrap();
        Session {
            contributor: self.contributor,
            registered: self.contributor.registered(),
            own: self.contributor.program(false),
            program,
            claimed,
            plan,
        }
    }

    /// A true proof, made once.
    pub fn honest(&self) -> &'static [u8] {
        static PROOFS: [OnceLock<Vec<u8>>; 2] = [OnceLock::new(), OnceLock::new()];
        let at = usize::from(std::ptr::eq(self, gpt2()));
        PROOFS[at].get_or_init(|| self.attempt(&self.witness()).0)
    }

    pub fn parsed(&self, bytes: &[u8]) -> Proof {
        Proof::parse(bytes, self.plan.catalog.columns()).unwrap()
    }

    /// The user's answer.
    pub fn verify(&self, bytes: &[u8]) -> Result<(), Error> {
        self.verify_as(&self.claimed, bytes)
    }

    pub fn verify_as(&self, claimed: &Claimed, bytes: &[u8]) -> Result<(), Error> {
        let Session { registered, own, .. } = self;
        let policy = SrsPolicy::AllowUntrusted;
        verify(srs(), keys(), registered, own, claimed, bytes, policy).map(drop)
    }
}

/// Takes all tuples of all lookups as they are, entries or not. Multiplicities stay.
pub fn take_as_is(plan: &Plan, witness: &mut Witness) {
    let none = |_| Indices { live: vec![], others: Wiped::default() };
    witness.indices = plan.lookups.iter().map(none).collect();
}

/// Whether the verifier's relations refuse.
pub fn is_refused(result: &Result<(), Error>) -> bool {
    matches!(result, Err(Error::Rejected(crate::error::Check::Relations)))
}

/// The index of the entry that a lookup finds at a place.
fn entry(plan: &Plan, lookup: &Lookup, known: &Known<'_>, row: usize, at: usize) -> Option<u16> {
    let [index, out, out2] = tuple(lookup, known, row, at);
    let entries = &plan.tables[lookup.table].entries;
    let index = u16::try_from(index).ok()?;
    (entries.outs(index.into()).map(I256::from) == [out, out2]).then_some(index)
}

/// For each live place of a lookup, the index of its entry.
fn found(plan: &Plan, lookup: &Lookup, known: &Known<'_>) -> Vec<Option<u16>> {
    let places = plan.catalog.axes[lookup.axis].places.par_iter().enumerate();
    let of_row = |(row, place): (usize, &usize)| {
        let live = (0..lookup.features).filter(|at| lookup.live.is_live(*place, *at));
        live.map(|at| entry(plan, lookup, known, row, at)).collect::<Vec<_>>()
    };
    places.flat_map_iter(of_row).collect()
}

/// Counts entries as well as one can, and returns how many tuples are none.
pub fn count(plan: &Plan, witness: &mut Witness) -> usize {
    let mut counts = vec![vec![0i64; 1 << INDEX_BITS]; plan.tables.len()];
    let mut strangers = 0;
    let known = Known { tensors: &witness.tensors, values: &witness.values };
    for lookup in &plan.lookups {
        for found in found(plan, lookup, &known) {
            match found {
                Some(index) => counts[lookup.table][usize::from(index)] += 1,
                None => strangers += 1,
            }
        }
    }
    let features = 1 << (INDEX_BITS - TABLE_AXIS_BITS);
    for (table, counts) in plan.tables.iter().zip(counts) {
        witness.tensors[table.multiplicities] = Grid::small(features, counts);
    }
    strangers
}

/// How many tuples of the lookups that read a tensor are no entry.
pub fn strangers(plan: &Plan, witness: &Witness, tensor: usize) -> usize {
    let known = Known { tensors: &witness.tensors, values: &witness.values };
    let reads = plan.lookups.iter().filter(|lookup| {
        lookup.input.tensors.iter().any(|(of, ..)| *of == tensor)
            || lookup.outs.contains(&Some(tensor))
    });
    let none = |lookup| found(plan, lookup, &known).iter().filter(|found| found.is_none()).count();
    reads.map(none).sum()
}

/// Looks everything up as it is, and counts what is an entry. Returns how many tuples are none.
pub fn look_up(plan: &Plan, witness: &mut Witness) -> usize {
    take_as_is(plan, witness);
    count(plan, witness)
}
