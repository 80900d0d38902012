//! LoRA on parameters that are no modules (`target_parameters`): the fused experts of a mixture.
//!
//! A parameter `[experts, …]` of a module has `lora_A.weight` `[experts · r, d_in]`, the rows of
//! each expert one after the other, and `lora_B.weight` `[d_out, r · experts]`, whose columns are
//! sorted by rank first (`peft`'s `ParamWrapper.get_delta_factors`). Each expert is a module of its
//! own, `<module>.<expert>.<parameter>`. `peft` wraps a module once for each of its parameters: the
//! tensors of the first are under `base_layer`, innermost.

use std::collections::BTreeMap;

use super::{
    config::{Config, Ranks},
    lora::{A, B},
    module::{AdapterModule, Kind, LoraWeights},
    module_tensors::{
        AdapterTensors,
        Dim::{Any, Is},
        ModuleTensors, TensorsBySuffix,
    },
    tensor_names::PREFIX,
};
use crate::{Error, adapter::module_name};

/// Parameters in the order in which the models of `transformers` have them. The order of others is
/// in no file.
const ORDER: &[&str] = &["gate_up_proj", "down_proj"];

/// Most experts of a mixture.
const MAX_EXPERTS: usize = 4096;

/// What `peft` puts before the names of an inner layer's tensors.
const INNER: &str = ".base_layer";

/// Takes the modules with parameters out of `sorted`, and reads them.
pub(super) fn read(
    tensors: &mut AdapterTensors,
    config: &Config,
    ranks: &Ranks,
    sorted: &mut BTreeMap<String, TensorsBySuffix>,
) -> Result<Vec<AdapterModule>, Error> {
    let outer = |name: &str| {
        let mut outer = name;
        while let Some(shorter) = outer.strip_suffix(INNER) {
            outer = shorter;
        }
        outer.to_owned()
    };
    let mut wrapped: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for name in sorted.keys().filter(|name| !parameters(config, &outer(name)).is_empty()) {
        wrapped.entry(outer(name)).or_default().push(name.clone());
    }
    let mut modules = Vec::new();
    for (module, mut names) in wrapped {
        // The innermost is the first parameter.
        names.sort_by_key(|name| std::cmp::Reverse(name.len()));
        let parameters = parameters(config, &module);
        // One inside the other, without holes.
        let nested = names.iter().rev().enumerate().all(|(depth, name)| {
            name.strip_prefix(module.as_str()).is_some_and(|rest| rest == INNER.repeat(depth))
        });
        let order = order(parameters).filter(|order| order.len() == names.len() && nested);
        let first = modules.len();
        for (at, name) in names.iter().enumerate() {
            let Some(by_suffix) = sorted.remove(name) else { continue };
            let mut own = ModuleTensors { file: tensors, name: name.clone(), by_suffix };
            let other = own.by_suffix.keys().find(|suffix| ![A, B].contains(suffix)).copied();
            if let Some(other) = other {
                let reason = "is none of the tensors of experts, lora_A and lora_B";
                return Err(own.error(other, reason));
            }
            let Some(parameter) = order.as_ref().and_then(|order| order.get(at)) else {
                let reason = "belongs to a module with several target_parameters, or with others \
                              than the file has: which tensors are of which is not known (only \
                              for gate_up_proj and down_proj)";
                return Err(own.error(A, reason));
            };
            let key = format!("{module}.{parameter}");
            let (rank, scaling) = (ranks.rank(&key)?, ranks.scaling(&key)?);
            modules.extend(split(&mut own, &module, parameter, rank, scaling)?);
        }
        if names.len() == ORDER.len() && !fit(&modules[first..]) {
            let reason = "does not have the sizes of gate_up_proj and down_proj, in this order: \
                          which tensors are of which is not known";
            return Err(tensors.error(&format!("{PREFIX}{module}{A}"), reason));
        }
    }
    Ok(modules)
}

/// The parameters of a module that the config targets.
fn parameters<'c>(config: &'c Config, module: &str) -> Vec<&'c str> {
    let of = |target: &'c String| {
        let (of_module, parameter) = target.rsplit_once('.').unwrap_or(("", target));
        let fits = of_module.is_empty() || module_name::ends_in(module, of_module);
        fits.then_some(parameter)
    };
    let mut parameters: Vec<&str> = config.target_parameters.iter().filter_map(of).collect();
    parameters.sort_unstable();
    parameters.dedup();
    parameters
}

/// The parameters of a module in its own order, if that is known.
fn order(parameters: Vec<&str>) -> Option<Vec<&str>> {
    if parameters.len() < 2 {
        return Some(parameters);
    }
    let ordered: Vec<&str> = ORDER.iter().copied().filter(|of| parameters.contains(of)).collect();
    (ordered.len() == parameters.len()).then_some(ordered)
}

/// Whether the modules, those of `gate_up_proj` first, have its sizes and those of `down_proj`: the
/// one has two vectors of what the other reads.
fn fit(modules: &[AdapterModule]) -> bool {
    let sizes = |of: Option<&AdapterModule>| {
        of.and_then(|of| Some((of.inputs.first()?.dim, of.d_out))).unwrap_or_default()
    };
    let (gate_up, down) = (sizes(modules.first()), sizes(modules.last()));
    gate_up.1 == 2 * down.0 && gate_up.0 == down.1
}

/// One module for each expert.
fn split(
    tensors: &mut ModuleTensors,
    module: &str,
    parameter: &str,
    rank: usize,
    scaling: f64,
) -> Result<Vec<AdapterModule>, Error> {
    let a = tensors.matrix(A, [Any("experts · r"), Any("d_in")])?;
    let b = tensors.matrix(B, [Any("d_out"), Is(a.rows)])?;
    let experts = a.rows.checked_div(rank).filter(|experts| experts * rank == a.rows);
    let Some(experts) = experts.filter(|experts| (2..=MAX_EXPERTS).contains(experts)) else {
        let reason = format!(
            "has {} rows, which are not those of 2 to {MAX_EXPERTS} experts of rank {rank}; name \
             layers that are no experts in target_modules",
            a.rows
        );
        return Err(tensors.error(A, reason));
    };
    let of_expert = |expert: usize| {
        let name = format!("{module}.{expert}.{parameter}");
        let columns = (0..b.rows).flat_map(|row| b.row(row).iter().skip(expert).step_by(experts));
        let weights = LoraWeights {
            d_in: a.cols,
            d_out: b.rows,
            rank,
            a: a.values[expert * rank * a.cols..][..rank * a.cols].to_vec(),
            b: columns.copied().collect(),
            bias: None,
        };
        let kind = Kind::Expert;
        AdapterModule { kind, ..AdapterModule::lora(name, weights, scaling) }
    };
    Ok((0..experts).map(of_expert).collect())
}
