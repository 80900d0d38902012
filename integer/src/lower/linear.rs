//! Linear layers and tables.

use std::sync::Arc;

use tract_onnx::{
    prelude::*,
    tract_core::ops::array::Gather,
    tract_hir::internal::{AxesMapping, InOut},
};

use super::{
    attention::summed,
    meaning::{Entry, Interpreter, Meaning, Outcome, tract},
    shapes,
    sums::distributed,
    view::{Axis, Source, Term, View},
};
use crate::{
    graph::{Affine, Operator, ValueId},
    weight::Weight,
};

impl Interpreter<'_> {
    /// A look-up: of tokens or positions in a table, or of constants in a view.
    pub fn gather(
        &mut self,
        gather: &Gather,
        outlet: OutletId,
        inputs: &[Meaning],
    ) -> Outcome<Meaning> {
        let table = match inputs {
            [Meaning::View(view), Meaning::Constant(index)] => {
                return shapes::looked_up(view, gather.axis, index, index.shape())
                    .map(Meaning::View);
            }
            [Meaning::Constant(table), _] if gather.axis == 0 && table.rank() == 2 => table,
            _ => return Err("a look-up in something else than a stored table".into()),
        };
        let axes = self.axes(outlet)?;
        let value = match &inputs[1] {
            Meaning::Ids => {
                self.weights.push(Weight::new(table.clone(), false)?);
                self.push(Operator::Embedding { table: self.weights.len() - 1 })
            }
            Meaning::View(index) => {
                let from = offset(index)
                    .filter(|from| *from < table.shape()[0])
                    .ok_or("a look-up by something else than tokens and positions")?;
                let rows = table.slice(0, from, table.shape()[0]).map_err(tract)?;
                self.weights.push(Weight::new(Arc::new(rows), false)?);
                self.push(Operator::Positions { table: self.weights.len() - 1 })
            }
            _ => return Err("a look-up by something else than tokens and positions".into()),
        };
        self.whole_value(axes, value).map(Meaning::View)
    }

    /// A linear layer. `slots` are the inputs of the view and of the matrix.
    pub fn linear(
        &mut self,
        axes: &AxesMapping,
        slots: [usize; 2],
        x: &View,
        matrix: &Arc<Tensor>,
        out_axes: Vec<Axis>,
    ) -> Outcome<View> {
        let what = || "a product with a matrix over several axes".to_string();
        let [of_x, of_matrix] = slots;
        let size = |slot: usize, axis: usize| {
            if slot == of_x { x.axes[axis].cells() } else { matrix.shape()[axis] }
        };
        let inner = summed(axes).ok_or_else(what)?;
        let (x_axis, matrix_axis) = (inner.inputs[of_x][0], inner.inputs[of_matrix][0]);
        if x.axes[x_axis] == Axis::Size(1)
            && x.cells.iter().flatten().all(|term| term.source == Source::Position)
        {
            return outer(axes, slots, x, matrix, out_axes).ok_or_else(what);
        }
        if size(of_x, x_axis) != x.cells.len() {
            return Err(what());
        }
        let outer_axis = (0..matrix.rank()).filter(|axis| *axis != matrix_axis);
        let outer_axis: Vec<usize> = outer_axis.filter(|axis| matrix.shape()[*axis] > 1).collect();
        let transposed = match outer_axis[..] {
            [] => false,
            [axis] => matrix_axis < axis,
            _ => return Err(what()),
        };
        let weight = Weight::new(matrix.clone(), transposed)?;
        let count: usize = out_axes.iter().map(|axis| axis.cells()).product();
        if count != weight.outputs() || weight.inputs() != x.cells.len() {
            return Err(what());
        }
        let (x, affine) = match self.value(x) {
            Ok(value) => (value, Affine::default()),
            Err(why) => self.affine(x).ok_or(why)?,
        };
        self.weights.push(weight);
        let value = self.push(Operator::Linear {
            x,
            affine,
            weight: self.weights.len() - 1,
            bias: None,
            layer: None,
        });
        self.whole_value(out_axes, value)
    }

    /// A linear layer's output plus constants: the layer with a bias.
    pub fn with_bias(&mut self, view: &View) -> Outcome<Option<View>> {
        let Some((value, constants)) = self.bias(view) else { return Ok(None) };
        let mut operator = self.operators[value].clone();
        if let Operator::Linear { bias, .. } = &mut operator {
            *bias = Some(constants);
        }
        let value = self.push(operator);
        self.whole_value(view.axes.clone(), value).map(Some)
    }

    /// The linear layer without a bias whose result a view is, and the constants added to it.
    fn bias(&self, view: &View) -> Option<(ValueId, Vec<f32>)> {
        let source = view.cells.first()?.iter().find(|term| term.source != Source::One)?.source;
        let Some((_, Entry::Value(value))) = self.entry(source) else { return None };
        let is_bare = matches!(self.operators[*value], Operator::Linear { bias: None, .. });
        if !is_bare || self.width(*value) != view.cells.len() {
            return None;
        }
        let mut constants = Vec::with_capacity(view.cells.len());
        for (feature, cell) in view.cells.iter().enumerate() {
            let (of_value, of_one): (Vec<&Term>, Vec<&Term>) =
                cell.iter().partition(|term| term.source != Source::One);
            if of_value != [&Term::of(source, feature)]
                || of_one.iter().any(|term| term.wave.is_some())
            {
                return None;
            }
            constants.push(of_one.iter().map(|term| term.factor).sum::<f64>() as f32);
        }
        constants.iter().all(|number| number.is_finite()).then_some((*value, constants))
    }
}

/// Positions times a row of frequencies, spelled as a product of matrices.
fn outer(
    axes: &AxesMapping,
    slots: [usize; 2],
    x: &View,
    matrix: &Tensor,
    out_axes: Vec<Axis>,
) -> Option<View> {
    let labels: Vec<_> = axes.axes(InOut::Out(0)).collect();
    let numbers = View::of_constants(matrix)?;
    let place = |slot: usize, rank: usize, view: &View| {
        view.gathered(out_axes.clone(), |index| {
            let mut at = vec![0; rank];
            for (label, index) in labels.iter().zip(index) {
                for axis in &label.inputs[slot] {
                    at[*axis] = if view.axes[*axis].cells() == 1 { 0 } else { *index };
                }
            }
            at
        })
    };
    let x = place(slots[0], x.axes.len(), x)?;
    let numbers = place(slots[1], matrix.rank(), &numbers)?;
    distributed(&x, &numbers)
}

/// The number that an index adds to the position, if that is all it does.
fn offset(index: &View) -> Option<usize> {
    let [cell] = &index.cells[..] else { return None };
    match cell[..] {
        [position] if position == Term::of(Source::Position, 0) => Some(0),
        [position, one] if position == Term::of(Source::Position, 0) => {
            let whole = one == Term::constant(one.factor) && one.factor.fract() == 0.0;
            (whole && (0.0..1e6).contains(&one.factor)).then_some(one.factor as usize)
        }
        _ => None,
    }
}
