//! Norms: parts of them are listed as they come, and become one operator at the product or quotient
//! with the root.

use tract_onnx::tract_core::ops::nn::{Reduce, Reducer, RmsNorm};

use super::{
    expression::Expression,
    meaning::{Entry, Interpreter, Outcome, tract},
    view::{Axis, Source, Term, View},
};
use crate::graph::{Affine, NormKind, Operator, ValueId};

impl Interpreter<'_> {
    /// Sums over all features of a source.
    pub fn reduced(&mut self, view: &View, reduce: &Reduce) -> Outcome<View> {
        let what = || "a sum or mean that is not part of a norm".to_string();
        let (squared, factor) = match reduce.reducer {
            Reducer::Sum => (false, 1.0),
            Reducer::MeanOfSquares => (true, 1.0 / view.cells.len() as f64),
            _ => return Err(what()),
        };
        let [axis] = reduce.axes[..] else { return Err(what()) };
        if view.axes.get(axis) != Some(&Axis::Size(view.cells.len())) {
            return Err(what());
        }
        let (base, features, expression) = self.univariate(view).ok_or_else(what)?;
        if !features.iter().copied().eq(0..self.features(base)) {
            return Err(what());
        }
        let squares = match (squared, &expression) {
            (true, Expression::Argument) => true,
            (false, expression) if expression.is_square() => true,
            (false, Expression::Argument) => false,
            _ => return Err(what()),
        };
        let total = self.list(Entry::Total { of: base, squares });
        let mut axes = view.axes.clone();
        axes[axis] = Axis::Size(1);
        let term = Term { factor, ..Term::of(Source::Listed(total), 0) };
        Ok(View { axes, cells: vec![vec![term]] })
    }

    /// A view that is a value minus the mean of its features.
    pub fn centred(&mut self, view: &View) -> Option<View> {
        let [first, mean] = view.cells.first()?[..] else { return None };
        let (of, _) = self.entry(first.source)?;
        let (total, entry) = self.entry(mean.source)?;
        let count = view.cells.len();
        let is_mean = *entry == Entry::Total { of, squares: false }
            && (mean.factor * count as f64 + 1.0).abs() < 1e-6;
        let expected = |feature: usize| [Term::of(Source::Listed(of), feature), Term { ..mean }];
        let whole = count == self.features(of)
            && view.cells.iter().enumerate().all(|(at, cell)| cell[..] == expected(at));
        if !is_mean || !whole || mean.source != Source::Listed(total) {
            return None;
        }
        let centred = self.list(Entry::Centred(of));
        Some(View::identity(view.axes.clone(), Source::Listed(centred)))
    }

    /// The norm of `x`, if `root` is the root of its mean square in every cell.
    pub fn norm(
        &mut self,
        x: &View,
        root: &View,
        form: fn(&Expression) -> Option<(f64, f64)>,
    ) -> Outcome<Option<View>> {
        let Some((total, features, expression)) = self.univariate(root) else { return Ok(None) };
        let Entry::Total { of, squares: true } = self.entries[total] else { return Ok(None) };
        let Some((slope, epsilon)) = form(&expression) else { return Ok(None) };
        let Some((_, entry)) = self.whole(x).filter(|(whole, _)| *whole == of) else {
            return Ok(None);
        };
        let count = x.cells.len() as f64;
        if features.iter().any(|feature| *feature != 0) || (slope * count - 1.0).abs() > 1e-6 {
            return Ok(None);
        }
        let (kind, x_value) = match entry {
            Entry::Value(value) => (NormKind::Rms, *value),
            Entry::Centred(inner) => match self.entries[*inner] {
                Entry::Value(value) => (NormKind::Layer, value),
                _ => return Err("a norm of a norm's part".into()),
            },
            _ => return Ok(None),
        };
        self.normed(x, x_value, kind, epsilon).map(Some)
    }

    pub fn rms_norm(&mut self, view: &View, norm: &RmsNorm) -> Outcome<View> {
        if view.axes.get(norm.axis) != Some(&Axis::Size(view.cells.len())) {
            return Err("a norm over a part of the features".into());
        }
        let epsilon = norm.eps.cast_to_scalar::<f64>().map_err(tract)?;
        let x = self.value(view)?;
        self.normed(view, x, NormKind::Rms, epsilon)
    }

    /// The norm of a value, in the shape of its view.
    fn normed(&mut self, view: &View, x: ValueId, kind: NormKind, epsilon: f64) -> Outcome<View> {
        if !(0.0..1.0).contains(&epsilon) {
            return Err(format!("a norm with ε = {epsilon}"));
        }
        let value = self.push(Operator::Norm { x, kind, epsilon });
        self.whole_value(view.axes.clone(), value)
    }

    /// A norm's result with gain and shift.
    pub fn affine(&self, view: &View) -> Option<(ValueId, Affine)> {
        let source = view.cells.first()?.iter().find(|term| term.source != Source::One)?.source;
        let Some((_, Entry::Value(value))) = self.entry(source) else { return None };
        let is_norm = matches!(self.operators[*value], Operator::Norm { .. });
        if !is_norm || self.width(*value) != view.cells.len() {
            return None;
        }
        let (mut gains, mut shifts) = (Vec::new(), Vec::new());
        for (feature, cell) in view.cells.iter().enumerate() {
            let (mut gain, mut shift) = (None, 0.0);
            for term in cell {
                if term.wave.is_some() {
                    return None;
                }
                if term.source == source && term.feature == feature {
                    gain = Some(gain.unwrap_or(0.0) + term.factor);
                } else if term.source == Source::One {
                    shift += term.factor;
                } else {
                    return None;
                }
            }
            gains.push(gain? as f32);
            shifts.push(shift as f32);
        }
        if gains.iter().chain(&shifts).any(|number| !number.is_finite()) {
            return None;
        }
        let some = |values: Vec<f32>, plain: f32| {
            values.iter().any(|value| *value != plain).then_some(values)
        };
        Some((*value, Affine { gain: some(gains, 1.0), shift: some(shifts, 0.0) }))
    }
}
