//! The outer Fiat-Shamir transcript (docs/protocol.md, "Transcript"): one method for each step, so
//! both parties absorb and draw in the order of docs/protocol.md, "Steps".
//!
//! The hash of labelled messages is [`Framed`].

use crate::{
    field::{F, G1},
    framed::Framed,
    statement::Statement,
};

/// A running transcript. Both parties call the same methods below.
#[derive(Clone)]
pub struct Transcript {
    framed: Framed,
}

/// The challenges of step 1: `ρ` (as a key that the projection expands), `γ`, `c`; and `s0`.
pub struct FirstChallenges {
    /// Names the session in the derivation of the prover's randomness.
    pub s0: [u8; 32],
    /// Expands to 128 bits of `ρ` for every row of every module.
    pub rho_key: [u8; 32],
    /// Separates the outputs of a row.
    pub gamma: F,
    /// Separates the modules.
    pub c: F,
}

impl Transcript {
    /// Step 1.
    pub fn open(statement: &Statement) -> (Transcript, FirstChallenges) {
        let mut transcript = Framed::new("zklora v1 session transcript");
        transcript.absorb("version", &statement.version.to_le_bytes());
        transcript.absorb("srs", &statement.srs_digest);
        transcript.absorb("vk", &statement.vk.to_bytes_le());
        transcript.absorb("settings", &statement.settings);
        transcript.absorb("adapter", &statement.adapter.0);
        transcript.absorb("trace", &statement.trace.0);
        transcript.absorb("context", &statement.context);
        let s0 = first_half(&transcript.squeeze("s0"));
        let rho_key = first_half(&transcript.squeeze("rho"));
        let gamma = transcript.challenge("gamma");
        let c = transcript.challenge("c");
        (Transcript { framed: transcript }, FirstChallenges { s0, rho_key, gamma, c })
    }

    /// Step 3: the commitments to T and U, then `β`.
    pub fn products(&mut self, t: &[G1], u: &[G1]) -> F {
        self.framed.absorb_points("T", t);
        self.framed.absorb_points("U", u);
        self.framed.challenge("beta")
    }

    /// Step 5: the commitment to round `j`, then `r_j`.
    pub fn round(&mut self, round: &G1) -> F {
        self.framed.absorb_points("S", std::slice::from_ref(round));
        self.framed.challenge("r")
    }

    /// Step 6a: all re-randomised columns, A first, then `χ`.
    pub fn columns(&mut self, a: &[G1], b: &[G1]) -> F {
        self.framed.absorb_points("A**", a);
        self.framed.absorb_points("B*", b);
        self.framed.challenge("chi")
    }

    /// Step 6b: the nonce commitment of the span proof, and only then `ε`.
    pub fn span(&mut self, nonce: &G1) -> F {
        self.framed.absorb_points("R", std::slice::from_ref(nonce));
        self.framed.challenge("epsilon")
    }

    /// Step 6c: the responses of the span proof, then `η`.
    pub fn relations(&mut self, responses: &[F; 2]) -> F {
        self.framed.absorb("z1", &responses[0].to_bytes_le());
        self.framed.absorb("z2", &responses[1].to_bytes_le());
        self.framed.challenge("eta")
    }

    /// Step 8: the final state, as the first element that the halo2 transcript absorbs.
    pub fn finish(mut self) -> F {
        self.framed.challenge("halo2")
    }
}

fn first_half(wide: &[u8; 64]) -> [u8; 32] {
    let mut out = [0u8; 32];
    out.copy_from_slice(&wide[..32]);
    out
}
