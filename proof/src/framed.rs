//! A hash of labelled messages and challenges: what every transcript of this project is made of
//! (docs/protocol.md, "Transcript").
//!
//! BLAKE3 in derive_key mode. Every message and every challenge has a label; a message is
//! length-prefixed. A challenge is 64 bytes of XOF output over everything before it, and is itself
//! absorbed.

use group::{Curve, GroupEncoding};

use crate::field::{F, G1, from_wide};

/// A running hash.
#[derive(Clone)]
pub struct Framed {
    hasher: blake3::Hasher,
}

impl Framed {
    /// A hash that begins with nothing. `context` names the protocol.
    pub fn new(context: &str) -> Framed {
        Framed { hasher: blake3::Hasher::new_derive_key(context) }
    }

    /// Absorbs a message.
    pub fn absorb(&mut self, label: &str, message: &[u8]) {
        self.frame(0, label);
        self.hasher.update(&(message.len() as u64).to_le_bytes());
        self.hasher.update(message);
    }

    /// Absorbs points, compressed, as one message.
    pub fn absorb_points(&mut self, label: &str, points: &[G1]) {
        let mut bytes = Vec::with_capacity(points.len() * 48);
        for point in points {
            bytes.extend_from_slice(point.to_affine().to_bytes().as_ref());
        }
        self.absorb(label, &bytes);
    }

    /// Draws 64 bytes.
    pub fn squeeze(&mut self, label: &str) -> [u8; 64] {
        self.frame(1, label);
        let mut out = [0u8; 64];
        self.hasher.finalize_xof().fill(&mut out);
        self.hasher.update(&out);
        out
    }

    /// Draws a field element.
    pub fn challenge(&mut self, label: &str) -> F {
        from_wide(&self.squeeze(label))
    }

    fn frame(&mut self, kind: u8, label: &str) {
        self.hasher.update(&[kind]);
        self.hasher.update(&(label.len() as u64).to_le_bytes());
        self.hasher.update(label.as_bytes());
    }
}
