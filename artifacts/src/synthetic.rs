//! Pseudo-random activations for a dry run: the same in every run, with outlier features as in
//! transformers.

use std::{borrow::Cow, ops::Range};

use zklora_proof::manifest::Module;

use crate::{Error, activation_source::ActivationSource, activations::Activations};

/// Approximately normal activations for this many rows of every module; every 97th feature is 20
/// times larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Synthetic {
    /// Rows of every module.
    pub rows: usize,
}

impl Synthetic {
    fn values(&self, module: &Module, input: usize, rows: Range<usize>) -> Vec<f32> {
        let mut hasher = blake3::Hasher::new_derive_key("zklora synthetic activations");
        hasher.update(module.name.as_bytes());
        let mut stream = hasher.finalize_xof();
        let before: usize = module.inputs.iter().take(input).map(|input| input.dim).sum();
        let dim = module.inputs.get(input).map_or(0, |input| input.dim);
        stream.set_position(8 * (self.rows * before + rows.start * dim) as u64);
        normal(&mut stream, rows.len(), dim)
    }
}

impl ActivationSource for Synthetic {
    fn rows(&self, module: &Module) -> Result<usize, Error> {
        Ok(if module.inputs.is_empty() { 0 } else { self.rows })
    }

    fn read(
        &self,
        module: &Module,
        input: usize,
        rows: Range<usize>,
    ) -> Result<Cow<'_, [f32]>, Error> {
        Ok(Cow::Owned(self.values(module, input, rows)))
    }
}

/// [`Synthetic`] in memory.
pub fn activations(modules: &[Module], rows: usize) -> Activations {
    let mut out = Activations::default();
    for module in modules {
        let all = |input| Synthetic { rows }.values(module, input, 0..rows);
        let inputs = (0..module.inputs.len()).map(all).collect();
        out.modules.insert(module.name.clone(), inputs);
    }
    out
}

/// Sums of four uniform 16-bit integers, centred: close enough to a normal distribution, and the
/// same on every machine.
fn normal(stream: &mut blake3::OutputReader, rows: usize, dim: usize) -> Vec<f32> {
    let mut bytes = vec![0u8; rows * dim * 8];
    stream.fill(&mut bytes);
    bytes
        .chunks_exact(8)
        .enumerate()
        .map(|(i, word)| {
            let sum: f32 = word
                .chunks_exact(2)
                .map(|b| f32::from(u16::from_le_bytes([b[0], b[1]])) / 65536.0 - 0.5)
                .sum();
            sum * 1.732 * if i % dim % 97 == 5 { 20.0 } else { 1.0 }
        })
        .collect()
}
