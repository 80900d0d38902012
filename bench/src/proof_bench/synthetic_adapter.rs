//! Makes an adapter of given shapes: synthetic integers of 16 bits, the same in every run.

use rayon::prelude::*;
use zklora_proof::{
    manifest::{
        BaseModel, FORMAT, Input, MAX_DELTA_BITS, MAX_X_BITS, Manifest, Module, Term, TermKind,
        VERSION,
    },
    weights::{PairWeights, certified_bound},
};

use super::profile::Profile;
use crate::Error;

/// Bits of every weight, sign included.
const WEIGHT_BITS: u32 = 16;

/// The integers, one entry per pair.
pub(crate) fn pairs(profile: &Profile) -> Vec<PairWeights> {
    let shapes: Vec<_> = profile
        .modules()
        .flat_map(|(name, s)| (0..s.rank).map(move |j| (name.clone(), j, s.d_in, s.d_out)))
        .collect();
    shapes
        .into_par_iter()
        .map(|(name, j, d_in, d_out)| {
            let mut hasher = blake3::Hasher::new_derive_key("zklora synthetic weights");
            hasher.update(name.as_bytes());
            hasher.update(&(j as u64).to_le_bytes());
            let mut stream = hasher.finalize_xof();
            PairWeights { a: integers(&mut stream, d_in), b: integers(&mut stream, d_out) }
        })
        .collect()
}

/// About normally distributed, as trained weights are: a quarter of a sum of four uniform 16-bit
/// integers, centred. The standard deviation is 2^13.2, the magnitude below 2^15.
fn integers(stream: &mut blake3::OutputReader, count: usize) -> Vec<i32> {
    let mut bytes = vec![0u8; count * 8];
    stream.fill(&mut bytes);
    let centred = |word: &[u8]| {
        word.chunks_exact(2).map(|b| i32::from(u16::from_le_bytes([b[0], b[1]]))).sum::<i32>()
            - 131_070
    };
    bytes.chunks_exact(8).map(|word| centred(word) / 4).collect()
}

/// The manifest before the commitment. Activations have as many bits as the bound on deltas leaves,
/// at most 24.
pub(crate) fn draft(profile: &Profile, pairs: &[PairWeights], k: u32) -> Result<Manifest, Error> {
    let mut rest = pairs;
    let mut modules = Vec::new();
    for (name, shape) in profile.modules() {
        let (integers, tail) = rest.split_at(shape.rank);
        rest = tail;
        let mut module = Module {
            a_bits: WEIGHT_BITS,
            b_bits: WEIGHT_BITS,
            d_out: shape.d_out,
            delta_bits: MAX_DELTA_BITS,
            inputs: vec![Input { dim: shape.d_in, name: "x".into() }],
            name,
            scale_log2: -20,
            scaling: 1.0,
            terms: vec![Term {
                a: vec![],
                b: vec![],
                input: Some(0),
                kind: TermKind::LowRank,
                rank: shape.rank,
                shift: 0,
            }],
            x_bits: 1,
        };
        let wide = || {
            Error::input(format!("module `{}`: its deltas would not fit in 63 bits", module.name))
        };
        // The bound doubles with every further bit.
        let bits = 128 - certified_bound(&module, integers).ok_or_else(wide)?.leading_zeros();
        let x_bits = (1 + MAX_DELTA_BITS.saturating_sub(bits)).min(MAX_X_BITS);
        if bits > MAX_DELTA_BITS {
            return Err(wide());
        }
        (module.x_bits, module.delta_bits) = (x_bits, bits + x_bits - 1);
        modules.push(module);
    }
    Ok(Manifest {
        base_model: BaseModel { fingerprint: None, name: format!("synthetic {}", profile.name) },
        format: FORMAT.into(),
        k,
        left_out: Vec::new(),
        modules,
        settings_digest: String::new(),
        srs_digest: String::new(),
        version: VERSION,
    })
}
