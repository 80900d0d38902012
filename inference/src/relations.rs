//! What must hold between cells: linear expressions and products that sum to zero
//! (docs/inference-proof.md, "Relations").

use ff::Field;
use zklora_proof::field::F;

use crate::cells::Expression;

/// The rule that a relation states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// The fractions of all lookups sum to zero.
    LookupSum,
    /// A level of the tree of fractions follows from the next.
    Tree,
    /// A sumcheck ends in the product of its factors: of operators of this kind.
    Operator(&'static str),
    /// A value that the tokens alone fix.
    Public,
    /// The folded openings are a value of the committed columns.
    Opening,
}

/// One relation.
#[derive(Debug, Clone)]
pub struct Relation {
    /// What it states.
    pub rule: Rule,
    /// The linear part.
    pub linear: Expression,
    /// Coefficients of products, by their places.
    pub products: Vec<(F, usize)>,
}

/// All relations of a proof.
#[derive(Debug, Default)]
pub struct Relations {
    /// Those that must be zero.
    pub zero: Vec<Relation>,
    /// The factors of the products, by place.
    pub products: Vec<(Expression, Expression)>,
}

impl Relations {
    /// A place for a product.
    pub fn product(&mut self, x: Expression, y: Expression) -> usize {
        self.products.push((x, y));
        self.products.len() - 1
    }

    /// Demands `linear + Σ coefficient·product = 0`.
    pub fn require(&mut self, rule: Rule, linear: Expression, products: Vec<(F, usize)>) {
        self.zero.push(Relation { rule, linear, products });
    }

    /// The relations that do not hold, for who knows the cells.
    pub fn violated(&self, cells: &[F]) -> Vec<Rule> {
        let product = |place: &usize| match self.products.get(*place) {
            Some((x, y)) => x.value(cells) * y.value(cells),
            None => F::ZERO,
        };
        let broken = self.zero.iter().filter(|relation| {
            let products: F =
                relation.products.iter().map(|(factor, place)| *factor * product(place)).sum();
            relation.linear.value(cells) + products != F::ZERO
        });
        broken.map(|relation| relation.rule).collect()
    }
}
