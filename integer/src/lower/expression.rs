//! Functions of one number, as a graph spells them: to be recognised as an activation or as the
//! root of a norm.

use crate::{calibrate, graph::Function};

/// Most parts of an expression: functions of functions would grow without end.
pub(super) const MAX_SIZE: usize = 64;

/// A function of `x`.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expression {
    /// `x`
    Argument,
    /// A constant.
    Constant(f64),
    /// A function of a function.
    Unary(Unary, Box<Expression>),
    /// Two functions joined.
    Binary(Binary, Box<Expression>, Box<Expression>),
}

/// Operators with one operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unary {
    Negate,
    Square,
    Sqrt,
    Rsqrt,
    Reciprocal,
    Exp,
    Sigmoid,
    Tanh,
    Erf,
    Silu,
    Gelu,
    GeluTanh,
}

impl Unary {
    /// The operator that tract calls by this name.
    pub fn named(name: &str) -> Option<Unary> {
        Some(match name {
            "Neg" => Unary::Negate,
            "Square" => Unary::Square,
            "Sqrt" => Unary::Sqrt,
            "Rsqrt" => Unary::Rsqrt,
            "Recip" => Unary::Reciprocal,
            "Exp" => Unary::Exp,
            "Sigmoid" => Unary::Sigmoid,
            "Tanh" => Unary::Tanh,
            "Erf" => Unary::Erf,
            "Silu" => Unary::Silu,
            "Gelu" | "GeluExact" => Unary::Gelu,
            "GeluApproximate" => Unary::GeluTanh,
            _ => return None,
        })
    }
}

/// Operators with two operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    Power,
    Maximum,
}

impl Binary {
    /// The operator that tract calls by this name.
    pub fn named(name: &str) -> Option<Binary> {
        Some(match name {
            "Add" => Binary::Add,
            "Sub" => Binary::Subtract,
            "Mul" => Binary::Multiply,
            "Div" => Binary::Divide,
            "Pow" => Binary::Power,
            "Max" => Binary::Maximum,
            _ => return None,
        })
    }
}

impl Expression {
    /// Parts of the expression. An exporter spells no function with more than a few.
    pub fn size(&self) -> usize {
        match self {
            Expression::Argument | Expression::Constant(_) => 1,
            Expression::Unary(_, of) => 1 + of.size(),
            Expression::Binary(_, left, right) => 1 + left.size() + right.size(),
        }
    }

    /// `factor·self`
    pub fn times(self, factor: f64) -> Expression {
        if factor == 1.0 {
            return self;
        }
        Expression::Binary(Binary::Multiply, Box::new(self), Box::new(Expression::Constant(factor)))
    }

    /// The value at `x`, to about twelve digits.
    pub fn at(&self, x: f64) -> f64 {
        match self {
            Expression::Argument => x,
            Expression::Constant(value) => *value,
            Expression::Unary(unary, of) => unary_at(*unary, of.at(x)),
            Expression::Binary(binary, left, right) => {
                let (left, right) = (left.at(x), right.at(x));
                match binary {
                    Binary::Add => left + right,
                    Binary::Subtract => left - right,
                    Binary::Multiply => left * right,
                    Binary::Divide => left / right,
                    Binary::Power => left.powf(right),
                    Binary::Maximum => left.max(right),
                }
            }
        }
    }

    /// Whether this is the square of the argument.
    pub fn is_square(&self) -> bool {
        match self {
            Expression::Unary(Unary::Square, of) => **of == Expression::Argument,
            Expression::Binary(Binary::Power, of, power) => {
                **of == Expression::Argument && **power == Expression::Constant(2.0)
            }
            Expression::Binary(Binary::Multiply, left, right) => {
                **left == Expression::Argument && **right == Expression::Argument
            }
            _ => false,
        }
    }

    /// `(a, b)` if this is `1/√(a·x + b)`.
    pub fn as_inverse_root(&self) -> Option<(f64, f64)> {
        let one = |of: &Expression| *of == Expression::Constant(1.0);
        match self {
            Expression::Unary(Unary::Rsqrt, of) => of.as_line(),
            Expression::Unary(Unary::Reciprocal, of) => of.as_root(),
            Expression::Binary(Binary::Divide, numerator, of) if one(numerator) => of.as_root(),
            Expression::Binary(Binary::Power, of, power)
                if **power == Expression::Constant(-0.5) =>
            {
                of.as_line()
            }
            _ => None,
        }
    }

    /// `(a, b)` if this is `√(a·x + b)`.
    pub fn as_root(&self) -> Option<(f64, f64)> {
        match self {
            Expression::Unary(Unary::Sqrt, of) => of.as_line(),
            Expression::Binary(Binary::Power, of, power)
                if **power == Expression::Constant(0.5) =>
            {
                of.as_line()
            }
            _ => None,
        }
    }

    /// `(a, b)` if this is `a·x + b`.
    fn as_line(&self) -> Option<(f64, f64)> {
        Some(match self {
            Expression::Argument => (1.0, 0.0),
            Expression::Constant(value) => (0.0, *value),
            Expression::Unary(Unary::Negate, of) => {
                let (a, b) = of.as_line()?;
                (-a, -b)
            }
            Expression::Binary(binary, left, right) => {
                let ((a, b), (c, d)) = (left.as_line()?, right.as_line()?);
                match binary {
                    Binary::Add => (a + c, b + d),
                    Binary::Subtract => (a - c, b - d),
                    Binary::Multiply if a == 0.0 => (b * c, b * d),
                    Binary::Multiply if c == 0.0 => (a * d, b * d),
                    Binary::Divide if c == 0.0 => (a / d, b / d),
                    _ => return None,
                }
            }
            Expression::Unary(..) => return None,
        })
    }

    /// The activation that this is. Compared at many arguments: exporters spell one function in
    /// many ways, and the functions of [`Function`] differ from each other by far more than the
    /// tolerance.
    pub fn as_function(&self) -> Option<Function> {
        const ALL: [Function; 5] = [
            Function::Silu,
            Function::Gelu,
            Function::GeluTanh,
            Function::QuickGelu,
            Function::Relu,
        ];
        let near = (-640..=640).map(|step| f64::from(step) / 32.0 + 1.0 / 128.0);
        // A bound may lie far from 0.
        let far = (5..=13).flat_map(|exponent| [2f64.powi(exponent), -2f64.powi(exponent)]);
        let arguments: Vec<f64> = near.chain(far).collect();
        let same = |function: &Function| {
            arguments
                .iter()
                .all(|x| (self.at(*x) - value(*function, *x)).abs() <= 2e-6 * (1.0 + x.abs()))
        };
        ALL.into_iter().find(same)
    }
}

fn unary_at(unary: Unary, x: f64) -> f64 {
    match unary {
        Unary::Negate => -x,
        Unary::Square => x * x,
        Unary::Sqrt => x.sqrt(),
        Unary::Rsqrt => 1.0 / x.sqrt(),
        Unary::Reciprocal => 1.0 / x,
        Unary::Exp => x.exp(),
        Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Unary::Tanh => x.tanh(),
        Unary::Erf => erf(x),
        Unary::Silu => value(Function::Silu, x),
        Unary::Gelu => value(Function::Gelu, x),
        Unary::GeluTanh => value(Function::GeluTanh, x),
    }
}

/// An activation at `x`, to about twelve digits.
fn value(function: Function, x: f64) -> f64 {
    match function {
        Function::Gelu => x / 2.0 * (1.0 + erf(x / std::f64::consts::SQRT_2)),
        other => calibrate::activation(other, x),
    }
}

/// The error function by its series, which converges everywhere.
fn erf(x: f64) -> f64 {
    if x.abs() > 5.5 {
        return x.signum();
    }
    // erf(x) = 2/√π·e^(−x²)·Σ 2ⁿ x^(2n+1)/(1·3·…·(2n+1)), all of whose terms have one sign.
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= 2.0 * x * x / f64::from(2 * n + 1);
        sum += term;
    }
    2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() * sum
}
