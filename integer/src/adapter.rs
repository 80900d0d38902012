//! An adapter as the integers that its manifest commits to.

use zeroize::Zeroize;

/// The low-rank update of one layer: `delta = (x·A)·B·scaling·2^scale_log2`, plus a bias.
pub struct Module {
    /// The module's name, for messages.
    pub name: String,
    /// Index of the layer in the ONNX file.
    pub layer: usize,
    /// Features that go in.
    pub inputs: usize,
    /// Features that come out.
    pub outputs: usize,
    /// `|A| < 2^(a_bits − 1)`
    pub a_bits: u32,
    /// `|B| < 2^(b_bits − 1)`
    pub b_bits: u32,
    /// Public factor of the delta.
    pub scaling: f64,
    /// Public power of two of the delta.
    pub scale_log2: i32,
    /// For each rank: `inputs` integers of A, `outputs` integers of B.
    pub pairs: Vec<(Vec<i32>, Vec<i32>)>,
    /// A bias: its power of two, and `outputs` integers.
    pub bias: Option<(u32, Vec<i32>)>,
}

impl Module {
    /// Whether the integers are as many, and as small, as the other fields say.
    pub(crate) fn is_within_its_bits(&self) -> bool {
        let fits = |integers: &[i32], count: usize, bits: u32| {
            let end = 1u64 << (bits - 1);
            integers.len() == count
                && integers.iter().all(|integer| u64::from(integer.unsigned_abs()) < end)
        };
        (1..=32).contains(&self.a_bits)
            && (1..=32).contains(&self.b_bits)
            && self.pairs.iter().all(|(a, b)| {
                fits(a, self.inputs, self.a_bits) && fits(b, self.outputs, self.b_bits)
            })
            && self.bias.as_ref().is_none_or(|(_, bias)| fits(bias, self.outputs, self.b_bits))
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        for (a, b) in &mut self.pairs {
            a.zeroize();
            b.zeroize();
        }
        if let Some((_, bias)) = &mut self.bias {
            bias.zeroize();
        }
    }
}

impl std::fmt::Debug for Module {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Module({:?}, {} pairs, not shown)", self.name, self.pairs.len())
    }
}

/// The modules of an adapter.
#[derive(Debug, Default)]
pub struct Adapter {
    /// At most one for each layer.
    pub modules: Vec<Module>,
}
