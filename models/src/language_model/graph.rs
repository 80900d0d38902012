//! Turns the changed ONNX graph into a plan that tract runs, and runs it.
//!
//! Only this file drives tract. Panics of tract on damaged files become errors.

use std::{path::Path, sync::Arc};

use tract_onnx::{
    data_resolver::FopenDataResolver,
    pb,
    prelude::*,
    tract_core::plan::SimplePlan,
    tract_hir::internal::{DimLike, Factoid, InferenceFact, InferenceModelExt, ToDim},
};
use zklora_files::text::condensed;

use super::{
    hide_ranges,
    injector::Injector,
    insert_nodes,
    interface::{CacheTensor, Input, Interface},
    mark_layers,
    operator::{self, ForwardPass, Inject, InjectorError},
    point::{FoundPoint, InjectionPoint},
};
use crate::{Error, panics};

pub(super) type Plan = SimplePlan<TypedFact, Box<dyn TypedOp>>;

/// The symbol of the number of tokens.
pub(super) const TOKENS: &str = "tokens";
/// The symbol of the number of tokens before them, which the cache has.
const PAST: &str = "past";

/// A plan and the number of logits of a token.
pub(super) struct Loaded {
    pub plan: Arc<Plan>,
    pub vocabulary: usize,
}

/// tract's own graph of the model, for a batch of 1 and any number of tokens.
pub(super) fn load(
    proto: pb::ModelProto,
    path: &Path,
    interface: &Interface,
    points: &[InjectionPoint],
    found: &[FoundPoint],
) -> Result<Loaded, Error> {
    let refuse = |reason: String| Error::Onnx { path: path.to_owned(), reason };
    panics::catch(|| {
        let typed = typed(proto, path, interface).map_err(|error| unrunnable(path, &error))?;
        check_sizes(&typed, path, points, found)?;
        check_cache(&typed, &interface.cache).map_err(&refuse)?;
        let vocabulary = vocabulary(&typed).map_err(&refuse)?;
        let plan = typed
            .into_optimized()
            .and_then(|model| model.into_runnable())
            .map_err(|error| unrunnable(path, &error))?;
        Ok(Loaded { plan, vocabulary })
    })
    .unwrap_or_else(|| Err(panicked(path)))
}

/// tract's graph before it is optimised, for a batch of 1 and any number of tokens.
pub(super) fn unoptimised(
    proto: pb::ModelProto,
    path: &Path,
    interface: &Interface,
) -> Result<TypedModel, Error> {
    panics::catch(|| typed(proto, path, interface).map_err(|error| unrunnable(path, &error)))
        .unwrap_or_else(|| Err(panicked(path)))
}

fn panicked(path: &Path) -> Error {
    let what =
        "tract panicked, because the file is damaged or has a graph that tract does not support";
    Error::Unrunnable { path: path.to_owned(), what: what.into() }
}

fn unrunnable(path: &Path, error: &TractError) -> Error {
    Error::Unrunnable { path: path.to_owned(), what: condensed(format_args!("{error:#}")) }
}

fn typed(mut proto: pb::ModelProto, path: &Path, interface: &Interface) -> TractResult<TypedModel> {
    let mut onnx = tract_onnx::onnx().with_ignore_output_types(true).with_ignore_value_info(true);
    // A mapped file that shrinks while it is read would kill the process; a file that is read does
    // not.
    onnx.provider = Arc::new(FopenDataResolver);
    onnx.op_register.insert(insert_nodes::OPERATOR, operator::build);
    onnx.op_register.insert(hide_ranges::OPERATOR, hide_ranges::build);
    onnx.op_register.insert(mark_layers::OPERATOR, mark_layers::build);
    if let Some(graph) = &mut proto.graph {
        hide_ranges::hide_ranges(graph);
    }
    let folder = path.parent().and_then(Path::to_str).unwrap_or("");
    let parsed = onnx.parse(&proto, Some(folder))?;
    // The weights are in tract's tensors now.
    drop(proto);
    if let Some(name) = parsed.unresolved_inputs.first() {
        return Err(TractError::msg(format!(
            "no node makes the tensor {}",
            crate::error::quoted(name)
        )));
    }
    let mut model = parsed.model;
    let tokens = model.symbols.sym(TOKENS).to_dim();
    let past = match interface.cache.is_empty() {
        true => 0.to_dim(),
        false => model.symbols.sym(PAST).to_dim(),
    };
    for (at, input) in interface.inputs.iter().enumerate() {
        let shape = match input {
            Input::Ids | Input::Positions => tvec![1.to_dim(), tokens.clone()],
            Input::Mask => tvec![1.to_dim(), past.clone() + &tokens],
            Input::Past(of) => shape(&interface.cache[*of], past.clone()),
        };
        let datum_type = model.input_fact(at)?.datum_type.concretize().unwrap_or(i64::datum_type());
        model.set_input_fact(at, InferenceFact::dt_shape(datum_type, shape))?;
    }
    model.into_typed()
}

/// The shape of keys or values of some tokens.
fn shape(of: &CacheTensor, tokens: TDim) -> TVec<TDim> {
    tvec![1.to_dim(), of.heads.to_dim(), tokens, of.width.to_dim()]
}

/// Checks the types and sizes that tract inferred for the keys and values that the model gives.
/// What it could not infer is checked when the model runs.
fn check_cache(model: &TypedModel, cache: &[CacheTensor]) -> Result<(), String> {
    let (past, tokens) = (5, 3);
    let mut symbols = SymbolValues::default();
    symbols = symbols.with(&model.symbols.sym(PAST), past).with(&model.symbols.sym(TOKENS), tokens);
    for (at, of) in cache.iter().enumerate() {
        let fact =
            model.output_fact(at + 1).map_err(|error| condensed(format_args!("{error:#}")))?;
        let expected = shape(of, (past + tokens).to_dim());
        let fits = fact.rank() == expected.len()
            && fact.shape.iter().zip(&expected).all(|(found, expected)| {
                let found = found.eval(&symbols);
                found.to_i64().is_err() || found == *expected
            });
        if !fits || fact.datum_type != f32::datum_type() {
            return Err(format!(
                "its output {} is {fact:?}, which does not continue its input {}; export the model again",
                of.present, of.past
            ));
        }
    }
    Ok(())
}

/// Checks the types and sizes that tract inferred for the tensors of the points.
fn check_sizes(
    model: &TypedModel,
    path: &Path,
    points: &[InjectionPoint],
    found: &[FoundPoint],
) -> Result<(), Error> {
    for node in model.nodes() {
        let Some(inject) = node.op_as::<Inject>() else { continue };
        for (at, &point) in inject.points.iter().enumerate() {
            let (Some(asked), Some(found)) =
                (points.get(point), found.iter().find(|found| found.point == point))
            else {
                continue;
            };
            let wanted = [
                (node.inputs[at + 1], &found.tensor, Some(asked.base_dim)),
                (node.inputs[0], &found.input, asked.x_dim),
            ];
            for (outlet, tensor, wanted) in wanted {
                let fact = model.outlet_fact(outlet).map_err(|error| unrunnable(path, &error))?;
                let is_base = outlet != node.inputs[0] || asked.x_dim.is_none();
                if is_base && fact.datum_type != f32::datum_type() {
                    return Err(Error::LayerType {
                        module: asked.module.clone(),
                        tensor: tensor.clone(),
                        found: format!("{:?}", fact.datum_type),
                    });
                }
                let features = fact.shape.last().and_then(|last| last.to_usize().ok());
                if let (Some(expected), Some(features), true) =
                    (wanted, features, fact.datum_type == f32::datum_type())
                    && features != expected
                {
                    return Err(Error::LayerSize {
                        module: asked.module.clone(),
                        tensor: tensor.clone(),
                        expected,
                        found: features,
                    });
                }
            }
        }
    }
    Ok(())
}

fn vocabulary(model: &TypedModel) -> Result<usize, String> {
    let fact = model.output_fact(0).map_err(|error| condensed(format_args!("{error:#}")))?;
    match fact.shape.dims() {
        [_, _, last] if fact.datum_type == f32::datum_type() => last.to_usize().map_err(|_| {
            format!(
                "outputs {last} logits for each token; export it with a fixed size of the vocabulary"
            )
        }),
        _ => Err(format!(
            "outputs {fact:?} instead of float32 logits [1, tokens, vocabulary]; export the model with its language \
             modelling head"
        )),
    }
}

/// What one run reads.
pub(super) struct Run<'a> {
    /// The tokens.
    pub ids: &'a [u32],
    /// Tokens before them, which the cache has.
    pub before: usize,
    /// The cache; empty for no tokens before.
    pub past: &'a [TValue],
    /// Tokens with the padding after them.
    pub padded: usize,
}

/// The values of a model's inputs.
pub(super) fn values(
    model: &TypedModel,
    interface: &Interface,
    run: &Run<'_>,
) -> TractResult<TVec<TValue>> {
    let Run { ids, before, past, padded } = *run;
    let values = interface.inputs.iter().enumerate().map(|(at, input)| {
        let numbers: Vec<i64> = match input {
            Input::Ids => {
                (0..padded).map(|at| ids.get(at).map_or(0, |&id| i64::from(id))).collect()
            }
            Input::Mask => {
                (0..before + padded).map(|at| i64::from(at < before + ids.len())).collect()
            }
            Input::Positions => (before..before + padded).map(|at| at as i64).collect(),
            Input::Past(of) => {
                let CacheTensor { heads, width, .. } = interface.cache[*of];
                return match past.get(*of) {
                    Some(past) => Ok(past.clone()),
                    None => Tensor::zero::<f32>(&[1, heads, 0, width]).map(Tensor::into_tvalue),
                };
            }
        };
        let tensor = Tensor::from_shape(&[1, numbers.len()], &numbers)?;
        let datum_type = model.input_fact(at)?.datum_type;
        Ok(tensor.cast_to_dt(datum_type)?.into_owned().into_tvalue())
    });
    values.collect()
}

/// Runs the plan. Returns the logits of the tokens, and the cache of all tokens with the padding.
pub(super) fn run(
    plan: &Arc<Plan>,
    interface: &Interface,
    run: &Run<'_>,
    injector: Arc<dyn Injector>,
) -> Result<(Vec<f32>, Vec<TValue>), Error> {
    let (rows, padded) = (run.ids.len(), run.padded);
    let attempt = || -> TractResult<(Vec<f32>, Vec<TValue>)> {
        let values = values(plan.model(), interface, run)?;
        let mut state = plan.spawn()?;
        state.turn_state.shared.insert(ForwardPass { injector, rows, padded });
        let outputs = state.run(values)?;
        let logits = outputs.first().ok_or_else(|| TractError::msg("the model has no output"))?;
        let [1, length, vocabulary] = *logits.shape() else {
            return Err(TractError::msg(format!("the logits have the shape {:?}", logits.shape())));
        };
        if length != padded {
            return Err(TractError::msg(format!(
                "the model returned logits of {length} tokens for {padded}"
            )));
        }
        let values = logits.try_as_plain_ram()?.as_slice::<f32>()?[..rows * vocabulary].to_vec();
        let cache: Vec<TValue> = outputs.into_iter().skip(1).collect();
        for (of, found) in interface.cache.iter().zip(&cache) {
            let expected = [1, of.heads, run.before + padded, of.width];
            if found.shape() != expected || found.datum_type() != f32::datum_type() {
                return Err(TractError::msg(format!(
                    "the model returned {} with the shape {:?} instead of {expected:?}",
                    of.present,
                    found.shape()
                )));
            }
        }
        Ok((values, cache))
    };
    let failed = |what: String| Error::Run { tokens: run.before + rows, what };
    panics::catch(attempt).ok_or_else(|| failed("tract or the injector panicked".into()))?.map_err(
        |error| match error.downcast::<InjectorError>() {
            Ok(InjectorError(error)) => Error::Injector(error),
            Err(error) => failed(condensed(format_args!("{error:#}"))),
        },
    )
}
