//! Functions of one number: several operators joined into one function of the same features.

use super::{
    expression::{Binary, Expression, MAX_SIZE, Unary},
    meaning::{Entry, Interpreter, Outcome},
    sums::constant,
    view::{Axis, Source, Term, View, Wave},
};

impl Interpreter<'_> {
    /// The one source whose functions the cells are, the feature of each cell, and the function,
    /// which is the same for all cells.
    pub fn univariate(&self, view: &View) -> Option<(usize, Vec<usize>, Expression)> {
        let first = view.cells.first()?;
        let mut base = None;
        let mut expression: Option<Expression> = None;
        for term in first {
            if term.wave.is_some() {
                return None;
            }
            let this = match (term.source, self.entry(term.source)) {
                (Source::One, _) => Expression::Constant(term.factor),
                (_, Some((at, entry))) => {
                    let (of, function) = match entry {
                        Entry::Function(of, function) => (*of, function.clone()),
                        _ => (at, Expression::Argument),
                    };
                    if base.is_some_and(|base| base != of) {
                        return None;
                    }
                    base = Some(of);
                    function.times(term.factor)
                }
                _ => return None,
            };
            expression = Some(match expression {
                None => this,
                Some(sum) => Expression::Binary(Binary::Add, Box::new(sum), Box::new(this)),
            });
        }
        let mut features = Vec::with_capacity(view.cells.len());
        for cell in &view.cells {
            let mut feature = None;
            if cell.len() != first.len() {
                return None;
            }
            for (term, model) in cell.iter().zip(first) {
                let same = term.factor == model.factor
                    && term.wave.is_none()
                    && term.source == model.source;
                if !same {
                    return None;
                }
                if term.source != Source::One {
                    if feature.is_some_and(|feature| feature != term.feature) {
                        return None;
                    }
                    feature = Some(term.feature);
                }
            }
            features.push(feature?);
        }
        let expression = expression.filter(|expression| expression.size() <= MAX_SIZE)?;
        Some((base?, features, expression))
    }

    /// A view of a function of one source.
    fn of_function(
        &mut self,
        axes: Vec<Axis>,
        base: usize,
        features: &[usize],
        function: Expression,
    ) -> View {
        let entry = self.list(Entry::Function(base, function));
        let source = Source::Listed(entry);
        View { axes, cells: features.iter().map(|at| vec![Term::of(source, *at)]).collect() }
    }

    pub fn function(&mut self, view: &View, name: &str) -> Outcome<View> {
        if name == "Cos" || name == "Sin" {
            return wave(view, name == "Cos");
        }
        if name == "Neg" {
            return Ok(view.scaled(&[-1.0]));
        }
        let unary = Unary::named(name)
            .ok_or_else(|| "the integer model has no such function".to_string())?;
        let (base, features, expression) =
            self.univariate(view).ok_or_else(|| "a function of several values".to_string())?;
        let function = Expression::Unary(unary, Box::new(expression));
        Ok(self.of_function(view.axes.clone(), base, &features, function))
    }

    /// A function of one source, from two functions of it or from one and a constant.
    pub fn joined(&mut self, operator: Binary, left: &View, right: &View) -> Option<View> {
        let same_constant = |view: &View| {
            let first = constant(view.cells.first()?)?;
            view.cells.iter().all(|cell| constant(cell) == Some(first)).then_some(first)
        };
        let axes = left.axes.clone();
        let (base, features, left, right) = match (self.univariate(left), self.univariate(right)) {
            (Some((base, features, left)), Some((other, same, right)))
                if base == other && features == same =>
            {
                (base, features, left, right)
            }
            (Some((base, features, left)), None) => {
                (base, features, left, Expression::Constant(same_constant(right)?))
            }
            (None, Some((base, features, right))) => {
                (base, features, Expression::Constant(same_constant(left)?), right)
            }
            _ => return None,
        };
        let function = Expression::Binary(operator, Box::new(left), Box::new(right));
        Some(self.of_function(axes, base, &features, function))
    }
}

/// The waves of a view of positions.
fn wave(view: &View, cosine: bool) -> Outcome<View> {
    let what = || "a cosine or sine of something else than a position".to_string();
    let cells = view.cells.iter().map(|cell| {
        let [term] = cell[..] else { return Err(what()) };
        if term.source != Source::Position || term.wave.is_some() {
            return Err(what());
        }
        let wave = if cosine { Wave::Cosine(term.factor) } else { Wave::Sine(term.factor) };
        Ok(vec![Term { wave: Some(wave), ..Term::constant(1.0) }])
    });
    Ok(View { axes: view.axes.clone(), cells: cells.collect::<Outcome<_>>()? })
}
