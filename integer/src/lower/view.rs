//! What each number of a tensor is: a sum of features of values, times constants and waves.
//!
//! One axis of a tensor at most is that of the tokens; all others have fixed sizes. A [`View`]
//! lists, for one token, what each number along the other axes is. Changes of shape only move these
//! cells, so it does not matter how an exporter spells them.

use tract_onnx::prelude::Tensor;

/// Where the numbers of a term come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Source {
    /// The constant 1.
    One,
    /// The position of the token, from 0.
    Position,
    /// An entry of the lowering's list of sources.
    Listed(usize),
}

/// A wave of the token's position.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Wave {
    /// `cos(frequency·position)`
    Cosine(f64),
    /// `sin(frequency·position)`
    Sine(f64),
}

/// One summand of a cell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Term {
    pub factor: f64,
    pub wave: Option<Wave>,
    pub source: Source,
    pub feature: usize,
}

impl Term {
    pub fn constant(factor: f64) -> Term {
        Term { factor, wave: None, source: Source::One, feature: 0 }
    }

    pub fn of(source: Source, feature: usize) -> Term {
        Term { factor: 1.0, wave: None, source, feature }
    }

    /// The number at a position, of a term of no value.
    fn at(&self, position: usize) -> f64 {
        let position = position as f64;
        let wave = match self.wave {
            None => 1.0,
            Some(Wave::Cosine(frequency)) => (frequency * position).cos(),
            Some(Wave::Sine(frequency)) => (frequency * position).sin(),
        };
        let source = if self.source == Source::Position { position } else { 1.0 };
        self.factor * wave * source
    }
}

/// Most cells of a view: more than any vocabulary or layer has.
const MAX_CELLS: usize = 1 << 22;
/// Most terms of a cell.
pub(super) const MAX_TERMS: usize = 64;

/// One number: a sum.
pub(super) type Cell = Vec<Term>;

/// An axis of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Axis {
    Tokens,
    Size(usize),
}

impl Axis {
    /// Cells along this axis.
    pub fn cells(self) -> usize {
        match self {
            Axis::Tokens => 1,
            Axis::Size(size) => size,
        }
    }
}

/// Whether there is at most one axis of tokens: with two, a cell would depend on two tokens.
fn one_of_tokens(axes: &[Axis]) -> bool {
    axes.iter().filter(|axis| **axis == Axis::Tokens).count() <= 1
}

/// The cells of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct View {
    pub axes: Vec<Axis>,
    /// Row-major; the axis of the tokens counts as 1.
    pub cells: Vec<Cell>,
}

impl View {
    /// The view of a tensor of constants.
    pub fn of_constants(tensor: &Tensor) -> Option<View> {
        let numbers = tensor.cast_to::<f64>().ok()?;
        let numbers = numbers.try_as_plain_ram().ok()?.as_slice::<f64>().ok()?.to_vec();
        Some(View {
            axes: tensor.shape().iter().map(|size| Axis::Size(*size)).collect(),
            cells: numbers.into_iter().map(|number| vec![Term::constant(number)]).collect(),
        })
    }

    /// Whether the axes say what every cell is for: one axis of tokens at most, and no cell more
    /// or less.
    pub fn is_sound(&self) -> bool {
        let count: usize = self.axes.iter().map(|axis| axis.cells()).product();
        one_of_tokens(&self.axes) && count == self.cells.len()
    }

    /// Whether some number comes from a value, not only from constants and positions.
    pub fn has_values(&self) -> bool {
        self.cells.iter().flatten().any(|term| matches!(term.source, Source::Listed(_)))
    }

    /// Whether a tensor of `length` tokens with these numbers is this view, which has no values.
    pub fn has_numbers(&self, numbers: &[f64], length: usize) -> bool {
        let tokens = self.axes.iter().position(|axis| *axis == Axis::Tokens);
        let (after, length) = match tokens {
            Some(at) => (self.axes[at + 1..].iter().map(|axis| axis.cells()).product(), length),
            None => (1, 1),
        };
        let block: usize = after * length;
        numbers.len() == self.cells.len() * length
            && numbers.iter().enumerate().all(|(at, number)| {
                let position = if tokens.is_some() { at % block / after } else { 0 };
                let cell = &self.cells[at / block * after + at % after];
                let expected: f64 = cell.iter().map(|term| term.at(position)).sum();
                // A wave is computed from an angle of 24 bits, which has error with the position.
                let waves = cell.iter().any(|term| term.wave.is_some());
                let tolerance = if waves { 1e-3 } else { 1e-5 };
                (number - expected).abs() <= tolerance * expected.abs().max(1.0)
            })
    }

    /// All features of a source, as `[1, tokens, features]` or another shape of this kind.
    pub fn identity(axes: Vec<Axis>, source: Source) -> View {
        let count = axes.iter().map(|axis| axis.cells()).product();
        let cells = (0..count).map(|feature| vec![Term::of(source, feature)]).collect();
        View { axes, cells }
    }

    fn strides(&self) -> Vec<usize> {
        let mut strides = vec![1; self.axes.len()];
        for at in (1..self.axes.len()).rev() {
            strides[at - 1] = strides[at] * self.axes[at].cells();
        }
        strides
    }

    /// A view of the shape `axes` whose cell at an index is the cell of this view at `from(index)`.
    pub fn gathered(&self, axes: Vec<Axis>, from: impl Fn(&[usize]) -> Vec<usize>) -> Option<View> {
        let strides = self.strides();
        let count = axes.iter().try_fold(1usize, |all, axis| all.checked_mul(axis.cells()))?;
        if count > MAX_CELLS {
            return None;
        }
        let mut index = vec![0; axes.len()];
        let mut cells = Vec::with_capacity(count);
        for _ in 0..count {
            let at: usize = from(&index).iter().zip(&strides).map(|(i, stride)| i * stride).sum();
            cells.push(self.cells.get(at)?.clone());
            for axis in (0..axes.len()).rev() {
                index[axis] += 1;
                if index[axis] < axes[axis].cells() {
                    break;
                }
                index[axis] = 0;
            }
        }
        Some(View { axes, cells })
    }

    /// Moves the axis `from` to the place `to`.
    pub fn moved(&self, from: usize, to: usize) -> Option<View> {
        let mut order: Vec<usize> = (0..self.axes.len()).collect();
        let axis = order.remove(from);
        order.insert(to, axis);
        let axes = order.iter().map(|axis| self.axes[*axis]).collect();
        self.gathered(axes, |index| {
            let mut at = vec![0; index.len()];
            order.iter().zip(index).for_each(|(axis, index)| at[*axis] = *index);
            at
        })
    }

    /// `count` cells along an axis of fixed size: the cell `first`, and every `step` after it.
    pub fn stepped(&self, axis: usize, first: usize, step: i64, count: usize) -> Option<View> {
        let Axis::Size(size) = *self.axes.get(axis)? else { return None };
        let places: Vec<usize> = (0..count)
            .map(|at| i64::try_from(at).ok()?.checked_mul(step)?.checked_add(first as i64))
            .map(|at| usize::try_from(at?).ok().filter(|at| *at < size))
            .collect::<Option<_>>()?;
        let mut axes = self.axes.clone();
        axes[axis] = Axis::Size(count);
        self.gathered(axes, |index| {
            let mut at = index.to_vec();
            at[axis] = places[at[axis]];
            at
        })
    }

    /// This view and others, one after the other along an axis of fixed size.
    pub fn concatenated(views: &[View], axis: usize) -> Option<View> {
        let first = views.first()?;
        let mut axes = first.axes.clone();
        let others = |view: &View| {
            let axes = view.axes.iter().copied().enumerate();
            axes.filter(|(at, _)| *at != axis).collect::<Vec<_>>()
        };
        let sizes: Vec<usize> = views
            .iter()
            .map(|view| match view.axes.get(axis) {
                Some(Axis::Size(size)) if others(view) == others(first) => Some(*size),
                _ => None,
            })
            .collect::<Option<_>>()?;
        axes[axis] = Axis::Size(sizes.iter().sum());
        let (outer, inner) = (
            axes[..axis].iter().map(|axis| axis.cells()).product::<usize>(),
            axes[axis + 1..].iter().map(|axis| axis.cells()).product::<usize>(),
        );
        let mut cells = Vec::new();
        for block in 0..outer {
            for (view, size) in views.iter().zip(&sizes) {
                let run = size * inner;
                cells.extend_from_slice(view.cells.get(block * run..(block + 1) * run)?);
            }
        }
        let count: usize = axes.iter().map(|axis| axis.cells()).product();
        (cells.len() == count).then_some(View { axes, cells })
    }

    /// Repeats axes of size 1 up to `axes`, which may have more axes in front.
    pub fn broadcast(&self, axes: Vec<Axis>) -> Option<View> {
        let front = axes.len().checked_sub(self.axes.len())?;
        let fits = one_of_tokens(&axes)
            && self
                .axes
                .iter()
                .zip(&axes[front..])
                .all(|(own, wanted)| own == wanted || *own == Axis::Size(1));
        if !fits {
            return None;
        }
        let own = self.axes.clone();
        self.gathered(axes, move |index| {
            index[front..]
                .iter()
                .zip(&own)
                .map(|(index, axis)| if axis.cells() == 1 { 0 } else { *index })
                .collect()
        })
    }

    /// The axes of two tensors of equal rank that are combined element by element.
    pub fn joined_axes(left: &[Axis], right: &[Axis]) -> Option<Vec<Axis>> {
        if left.len() != right.len() {
            return None;
        }
        let axes: Vec<Axis> = left
            .iter()
            .zip(right)
            .map(|(left, right)| match (left, right) {
                (left, right) if left == right => Some(*left),
                (Axis::Size(1), other) | (other, Axis::Size(1)) => Some(*other),
                _ => None,
            })
            .collect::<Option<_>>()?;
        one_of_tokens(&axes).then_some(axes)
    }

    /// The source whose first features these cells are, in order, with nothing else added. It may
    /// have more.
    pub fn whole(&self) -> Option<Source> {
        let source = self.cells.first()?.first()?.source;
        let whole = self
            .cells
            .iter()
            .enumerate()
            .all(|(feature, cell)| cell.as_slice() == [Term::of(source, feature)]);
        whole.then_some(source)
    }

    /// The sum of this view and another of the same shape: equal terms are joined.
    pub fn plus(&self, other: &View, sign: f64) -> View {
        let cells = self.cells.iter().zip(&other.cells).map(|(left, right)| {
            let mut sum = left.clone();
            for term in right {
                let term = Term { factor: term.factor * sign, ..*term };
                let same = |known: &&mut Term| {
                    known.wave == term.wave
                        && known.source == term.source
                        && known.feature == term.feature
                };
                match sum.iter_mut().find(same) {
                    Some(known) => known.factor += term.factor,
                    None => sum.push(term),
                }
            }
            sum.retain(|term| term.factor != 0.0);
            sum
        });
        View { axes: self.axes.clone(), cells: cells.collect() }
    }

    /// Every cell times a constant, which may differ from cell to cell.
    pub fn scaled(&self, factors: &[f64]) -> View {
        let cells = self.cells.iter().zip(factors.iter().cycle()).map(|(cell, factor)| {
            cell.iter().map(|term| Term { factor: term.factor * factor, ..*term }).collect()
        });
        View { axes: self.axes.clone(), cells: cells.collect() }
    }
}
