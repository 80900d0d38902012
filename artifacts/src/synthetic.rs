//! Pseudo-random activations for a dry run: the same in every run, with outlier features as in
//! transformers.

use zklora_proof::manifest::Module;

use crate::activations::Activations;

/// Approximately normal activations for `rows` rows of every module; every 97th feature is 20 times
/// larger.
pub fn activations(modules: &[Module], rows: usize) -> Activations {
    let mut out = Activations::default();
    for module in modules {
        let mut hasher = blake3::Hasher::new_derive_key("zklora synthetic activations");
        hasher.update(module.name.as_bytes());
        let mut stream = hasher.finalize_xof();
        let inputs =
            module.inputs.iter().map(|input| normal(&mut stream, rows, input.dim)).collect();
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
