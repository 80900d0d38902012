//! The modules of a manifest as the integer model reads them.

use zklora_integer::adapter::{Adapter, Module};
use zklora_models::AppliesTo;
use zklora_proof::{
    checked_manifest::CheckedManifest,
    manifest::{self, TermKind},
    weights::{PairWeights, Weights},
};

use crate::{
    Error,
    infer::{InputSource, Point, applies_to, input_sources},
};

/// The adapter's integers. `layers` has the operator of each point.
///
/// # Errors
/// A module has terms that an integer model has no operator for.
pub(super) fn of_weights(
    manifest: &CheckedManifest,
    weights: &Weights,
    points: &[Point],
    layers: &[usize],
) -> Result<Adapter, Error> {
    let modules = manifest.modules();
    let each = points
        .iter()
        .zip(layers)
        .flat_map(|(point, layer)| point.modules.iter().map(move |module| (module.module, *layer)));
    let each = each.map(|(at, layer)| {
        let pairs = weights.of_module(modules, at);
        module(&modules[at], pairs, layer).map_err(|why| {
            Error::input(format!("module `{}` has no integer model: {why}", modules[at].name))
        })
    });
    Ok(Adapter { modules: each.collect::<Result<_, _>>()? })
}

fn module(
    module: &manifest::Module,
    pairs: &[PairWeights],
    layer: usize,
) -> Result<Module, String> {
    let sources = input_sources(module)?;
    if sources != [InputSource::LayerInput] || applies_to(module, &sources) != AppliesTo::Output {
        return Err("it reads or changes something else than its layer's input and output".into());
    }
    let mut low_rank = Vec::new();
    let mut bias = None;
    let mut rest = pairs.iter();
    for term in &module.terms {
        for pair in rest.by_ref().take(term.rank) {
            match term.kind {
                TermKind::LowRank => low_rank.push((pair.a.clone(), pair.b.clone())),
                TermKind::Bias if bias.is_none() => bias = Some((term.shift, pair.b.clone())),
                TermKind::Bias => return Err("it has two biases".into()),
                TermKind::Scale => {
                    return Err("it scales its layer's output (DoRA, IA3), which is no low-rank \
                                term and no bias"
                        .into());
                }
            }
        }
    }
    Ok(Module {
        name: module.name.clone(),
        layer,
        inputs: module.inputs.first().map_or(0, |input| input.dim),
        outputs: module.d_out,
        a_bits: module.a_bits,
        b_bits: module.b_bits,
        scaling: module.scaling,
        scale_log2: module.scale_log2,
        pairs: low_rank,
        bias,
    })
}
