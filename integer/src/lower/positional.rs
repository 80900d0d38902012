//! Tensors that do not depend on the tokens, only on how many there are: masks, positions,
//! constants. They are computed for some lengths and recognised by their values, because exporters
//! build them in many ways.

use std::{collections::HashMap, sync::Arc};

use tract_onnx::{
    prelude::*,
    tract_core::{
        model::translator::Translate,
        plan::{SimplePlan, SimpleState},
    },
    tract_hir::internal::{DimLike, ToDim, TractErrorContext, TypedOp},
};
use zklora_models::language_model::LayerGraph;

use super::view::{Axis, View};

/// Lengths at which tensors are computed, besides the longest.
const LENGTHS: [usize; 2] = [3, 7];
/// A masked score is at most this.
pub(super) const MASKED: f32 = -1e9;

/// A tensor with more numbers than this is large.
const LARGE: usize = 1 << 20;

/// Where the outlets of a graph are in its translation.
type Places = HashMap<OutletId, OutletId>;
type State = SimpleState<TypedFact, Box<dyn TypedOp>>;

/// What such a tensor is.
#[derive(Debug, Clone)]
pub(super) enum Positional {
    /// The same for every length.
    Constant(Arc<Tensor>),
    /// This number, and one more for every token along its axis of tokens.
    Positions(f64),
    /// One number for every token.
    Uniform(f64),
    /// 0 for keys up to the query, very negative for later ones.
    CausalSum,
    /// True for keys up to the query, false for later ones.
    CausalChoice,
    /// The opposite.
    LaterChoice,
    /// None of these.
    Other,
}

/// Computes such tensors.
pub(super) struct Evaluator<'a> {
    graph: &'a LayerGraph,
    tokens: Symbol,
    longest: usize,
    states: HashMap<(usize, Form), (State, Option<Places>)>,
}

/// How a graph is computed at a length.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Form {
    /// With the symbol of the number of tokens, which its inputs' shapes resolve.
    Symbolic,
    /// With the number in the symbol's place.
    Fixed,
}

impl<'a> Evaluator<'a> {
    /// Masks are computed for up to `longest` tokens.
    pub fn new(graph: &'a LayerGraph, longest: usize) -> Evaluator<'a> {
        let tokens = graph.model.symbols.sym(LayerGraph::TOKENS);
        Evaluator { graph, tokens, longest, states: HashMap::new() }
    }

    /// Recognises the output of a node.
    pub fn recognise(&mut self, outlet: OutletId) -> TractResult<Positional> {
        let fact = self.graph.model.outlet_fact(outlet)?;
        let axes: Option<Vec<Axis>> = fact.shape.iter().map(|dim| self.axis(dim)).collect();
        let Some(axes) = axes else { return Ok(Positional::Other) };
        let along: Vec<usize> =
            (0..axes.len()).filter(|axis| axes[*axis] == Axis::Tokens).collect();
        match along.as_slice() {
            [] => {
                let mut known: Option<Arc<Tensor>> = None;
                for length in self.lengths() {
                    let value = self.value(outlet, length)?;
                    if known.as_ref().is_some_and(|known| *known != value) {
                        return Ok(Positional::Other);
                    }
                    known = Some(value);
                }
                Ok(known.map_or(Positional::Other, Positional::Constant))
            }
            [_] => self.of_all(outlet, line, |found| match found {
                Line::Rising(from) => Positional::Positions(from),
                Line::Level(number) => Positional::Uniform(number),
            }),
            [query, key] if key == &(query + 1) && *key + 1 == axes.len() => {
                self.of_all(outlet, causal, |found| match found {
                    Mask::Sum => Positional::CausalSum,
                    Mask::Choice => Positional::CausalChoice,
                    Mask::Later => Positional::LaterChoice,
                })
            }
            _ => Ok(Positional::Other),
        }
    }

    /// What an axis of a tensor is, by its size at every length. Exporters spell the number of
    /// tokens in many ways, such as the smaller of it and the size of a stored mask.
    pub fn axis(&self, dim: &TDim) -> Option<Axis> {
        if let Ok(size) = dim.to_usize() {
            return Some(Axis::Size(size));
        }
        let is_tokens = *dim == self.tokens.to_dim()
            || (1..=self.longest).all(|length| {
                let values = SymbolValues::default().with(&self.tokens, length as i64);
                dim.eval_to_i64(&values).is_ok_and(|size| size == length as i64)
            });
        is_tokens.then_some(Axis::Tokens)
    }

    /// The lengths at which tensors are computed. What says otherwise only for other lengths is
    /// not noticed.
    fn lengths(&self) -> [usize; 3] {
        [LENGTHS[0].min(self.longest), LENGTHS[1].min(self.longest), self.longest]
    }

    /// What a tensor is at every length, if it is the same.
    fn of_all<T: PartialEq>(
        &mut self,
        outlet: OutletId,
        read: impl Fn(&Tensor, usize) -> TractResult<Option<T>>,
        name: impl Fn(T) -> Positional,
    ) -> TractResult<Positional> {
        let mut found = None;
        for length in self.lengths() {
            let value = self.value(outlet, length)?;
            match (read(&value, length)?, found) {
                (Some(this), None) => found = Some(this),
                (Some(this), Some(before)) if this == before => found = Some(this),
                _ => return Ok(Positional::Other),
            }
        }
        Ok(found.map_or(Positional::Other, name))
    }

    /// Whether a view without values has the numbers that the graph computes.
    pub fn agrees(&mut self, outlet: OutletId, view: &View) -> TractResult<bool> {
        for length in self.lengths() {
            let value = self.value(outlet, length)?;
            let Some(numbers) = numbers(&value)? else { return Ok(false) };
            if !view.has_numbers(&numbers, length) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A tensor at a length. Masks of the longest length are large, so what was computed for them
    /// is dropped.
    fn value(&mut self, outlet: OutletId, length: usize) -> TractResult<Arc<Tensor>> {
        let computed = self.computed(outlet, length, Form::Symbolic);
        // tract slices by the number of tokens only where it is a number.
        let value = computed.or_else(|_| self.computed(outlet, length, Form::Fixed))?;
        if length == self.longest && value.len() > LARGE {
            self.states.retain(|(length, _), _| *length != self.longest);
        }
        Ok(value)
    }

    fn computed(
        &mut self,
        outlet: OutletId,
        length: usize,
        form: Form,
    ) -> TractResult<Arc<Tensor>> {
        if !self.states.contains_key(&(length, form)) {
            let state = self.state(length, form)?;
            self.states.insert((length, form), state);
        }
        let (state, places) = self.states.get_mut(&(length, form)).context("no state")?;
        let outlet = places.as_ref().map_or(Some(&outlet), |places| places.get(&outlet));
        let outlet = outlet.context("no such output")?;
        let values = state.compute_recursively(outlet.node)?;
        let value = values.get(outlet.slot).context("no output")?;
        Ok(value.clone().into_arc_tensor())
    }

    /// The graph with its inputs, and where its outlets are if they have moved.
    fn state(&self, length: usize, form: Form) -> TractResult<(State, Option<Places>)> {
        let graph = &self.graph.model;
        let (model, places) = match form {
            Form::Symbolic => (graph.clone(), None),
            Form::Fixed => {
                let size = HashMap::from([(self.tokens.clone(), length.to_dim())]);
                let (model, places) = size.translate_model_with_mappings(graph)?;
                (model, Some(places))
            }
        };
        let mut state = SimplePlan::new(model)?.spawn()?;
        state.set_inputs(self.graph.values(&vec![0; length])?)?;
        Ok((state, places))
    }
}

/// The numbers of a tensor of numbers.
fn numbers(value: &Tensor) -> TractResult<Option<Vec<f64>>> {
    let is_number = value.datum_type().is_integer()
        || value.datum_type().is_float()
        || value.datum_type() == TDim::datum_type();
    if !is_number {
        return Ok(None);
    }
    let numbers = value.cast_to::<f64>()?;
    Ok(Some(numbers.try_as_plain_ram()?.as_slice::<f64>()?.to_vec()))
}

#[derive(Clone, Copy, PartialEq)]
enum Line {
    Rising(f64),
    Level(f64),
}

/// The line that the numbers of a tensor, one for each token, lie on.
fn line(value: &Tensor, length: usize) -> TractResult<Option<Line>> {
    let numbers = numbers(value)?.filter(|numbers| numbers.len() == length);
    let Some((first, numbers)) = numbers.as_ref().and_then(|all| Some((*all.first()?, all))) else {
        return Ok(None);
    };
    let rising = numbers.iter().enumerate().all(|(at, number)| *number == first + at as f64);
    let level = numbers.iter().all(|number| *number == first);
    Ok(match (rising, level) {
        (true, _) => Some(Line::Rising(first)),
        (_, true) => Some(Line::Level(first)),
        _ => None,
    })
}

#[derive(Clone, Copy, PartialEq)]
enum Mask {
    Sum,
    Choice,
    Later,
}

/// The mask that a tensor of `[…, length, length]` is, if it is the same for every head.
fn causal(value: &Tensor, length: usize) -> TractResult<Option<Mask>> {
    let square = length * length;
    if value.len() == 0 || !value.len().is_multiple_of(square) {
        return Ok(None);
    }
    let later = |at: usize| at % length > at % square / length;
    if value.datum_type() == bool::datum_type() {
        let bits = value.try_as_plain_ram()?.as_slice::<bool>()?;
        let is =
            |which: bool| bits.iter().enumerate().all(|(at, bit)| *bit == (later(at) == which));
        return Ok(match (is(false), is(true)) {
            (true, _) => Some(Mask::Choice),
            (_, true) => Some(Mask::Later),
            _ => None,
        });
    }
    if value.datum_type() != f32::datum_type() {
        return Ok(None);
    }
    let numbers = value.try_as_plain_ram()?.as_slice::<f32>()?;
    let holds = numbers.iter().enumerate().all(|(at, number)| match later(at) {
        true => *number <= MASKED,
        false => *number == 0.0,
    });
    Ok(holds.then_some(Mask::Sum))
}
