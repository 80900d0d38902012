//! The halo2 circuit: one running sum (docs/protocol.md, "Circuit").
//!
//! `q·(acc(ωX) − acc(X)) = Σ_k w_k·C_k + Σ_j e_j·T_j·U_j`, where `C_k` are committed instance
//! columns and `w_k`, `e_j` public ones; `acc` starts at zero and ends at the output cell. The
//! degree is 3, because public columns are zero on inactive rows.

use ff::Field;
use halo2_proofs::{
    circuit::{Layouter, SimpleFloorPlanner, Value},
    plonk::{Advice, Circuit, Column, ConstraintSystem, Constraints, Error, Expression, Fixed},
    poly::Rotation,
};

use crate::{field::F, layout::Layout};

/// The circuit of a layout.
#[derive(Clone)]
pub struct RunningSum {
    /// The columns.
    pub layout: Layout,
    /// The witness: the running sum from row 0 to the output row. None for key generation.
    pub acc: Option<Vec<F>>,
}

/// The columns that the circuit assigns.
#[derive(Debug, Clone)]
pub struct Config {
    acc: Column<Advice>,
    q: Column<Fixed>,
    q_first: Column<Fixed>,
    q_last: Column<Fixed>,
}

/// `Layout` as circuit parameters. The trait requires a default, which is never used.
#[derive(Debug, Clone, Copy)]
pub struct Params(pub Layout);

impl Default for Params {
    fn default() -> Self {
        Params(Layout {
            a_columns: 1,
            b_columns: 1,
            k: crate::srs::MIN_K,
            pair_columns: 1,
            rounds: 0,
        })
    }
}

/// `Σ terms` as a balanced tree. The library walks expressions recursively, so a chain over the
/// widest layout that a manifest can require would overflow the stack.
fn sum(mut terms: Vec<Expression<F>>) -> Expression<F> {
    while terms.len() > 1 {
        let mut rest = terms.into_iter();
        let mut halved = Vec::with_capacity(rest.len().div_ceil(2));
        while let Some(left) = rest.next() {
            halved.push(match rest.next() {
                Some(right) => left + right,
                None => left,
            });
        }
        terms = halved;
    }
    terms.pop().unwrap_or(Expression::Constant(F::ZERO))
}

impl Circuit<F> for RunningSum {
    type Config = Config;
    type FloorPlanner = SimpleFloorPlanner;
    type Params = Params;

    fn without_witnesses(&self) -> Self {
        RunningSum { layout: self.layout, acc: None }
    }

    fn params(&self) -> Params {
        Params(self.layout)
    }

    fn configure(meta: &mut ConstraintSystem<F>) -> Config {
        Self::configure_with_params(meta, Params::default())
    }

    fn configure_with_params(meta: &mut ConstraintSystem<F>, Params(layout): Params) -> Config {
        // The order of creation is the order of the instance columns: committed first, then public.
        let committed: Vec<_> =
            (0..layout.committed_columns()).map(|_| meta.instance_column()).collect();
        let weights: Vec<_> =
            (0..layout.committed_columns()).map(|_| meta.instance_column()).collect();
        let products: Vec<_> = (0..layout.pair_columns).map(|_| meta.instance_column()).collect();
        let output = meta.instance_column();
        let config = Config {
            acc: meta.advice_column(),
            q: meta.fixed_column(),
            q_first: meta.fixed_column(),
            q_last: meta.fixed_column(),
        };

        meta.create_gate("running sum", |meta| {
            let acc = meta.query_advice(config.acc, Rotation::cur());
            let next = meta.query_advice(config.acc, Rotation::next());
            let q = meta.query_fixed(config.q, Rotation::cur());
            let q_first = meta.query_fixed(config.q_first, Rotation::cur());
            let q_last = meta.query_fixed(config.q_last, Rotation::cur());
            let output = meta.query_instance(output, Rotation::cur());
            let mut terms = Vec::with_capacity(committed.len() + products.len());
            for (column, weight) in committed.iter().zip(&weights) {
                terms.push(
                    meta.query_instance(*column, Rotation::cur())
                        * meta.query_instance(*weight, Rotation::cur()),
                );
            }
            // T is the first `pair_columns` committed columns, U the next.
            let (t, rest) = committed.split_at(layout.pair_columns);
            for ((t, u), e) in t.iter().zip(rest).zip(&products) {
                terms.push(
                    meta.query_instance(*t, Rotation::cur())
                        * meta.query_instance(*u, Rotation::cur())
                        * meta.query_instance(*e, Rotation::cur()),
                );
            }
            let step = sum(terms);
            Constraints::without_selector(vec![
                ("step", q * (next - acc.clone()) - step),
                ("starts at zero", q_first * acc.clone()),
                ("ends at the output", q_last * (acc - output)),
            ])
        });
        config
    }

    fn synthesize(&self, config: Config, mut layouter: impl Layouter<F>) -> Result<(), Error> {
        let last = self.layout.output_row();
        layouter.assign_region(
            || "running sum",
            |mut region| {
                for row in 0..last {
                    region.assign_fixed(|| "q", config.q, row, || Value::known(F::ONE))?;
                }
                region.assign_fixed(|| "first", config.q_first, 0, || Value::known(F::ONE))?;
                region.assign_fixed(|| "last", config.q_last, last, || Value::known(F::ONE))?;
                for row in 0..=last {
                    let value = match &self.acc {
                        Some(acc) => {
                            Value::known(acc.get(row).copied().ok_or(Error::BoundsFailure)?)
                        }
                        None => Value::unknown(),
                    };
                    region.assign_advice(|| "acc", config.acc, row, || value)?;
                }
                Ok(())
            },
        )
    }
}
