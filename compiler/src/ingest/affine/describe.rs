//! Describes a value of the graph in words, for `compile --explain`.

use super::{
    chain::{Chain, ChainStart, Link},
    expression::Affine,
    value::Value,
};

/// Most terms that are written out.
const SHOWN: usize = 4;
/// Most parts of a term that are written out.
const SHOWN_PARTS: usize = 12;

pub(in crate::ingest) fn describe(value: &Value) -> String {
    match value {
        Value::Constant(tensor) => format!("constant of shape {:?}", tensor.shape()),
        Value::Filled(number, _) => format!("constant of {number} everywhere"),
        Value::Input(view) => {
            let factors: String =
                view.factors.iter().map(|factor| format!("{factor} · ")).collect();
            format!("{factors}input {}, not yet divided into rows", view.input)
        }
        Value::Affine(affine) => describe_affine(affine),
    }
}

fn describe_affine(affine: &Affine) -> String {
    let shown: Vec<String> = affine.terms.iter().take(SHOWN).map(describe_chain).collect();
    let more = match affine.terms.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" + {more} more"),
    };
    format!("rows of {}: {}{more}", affine.width, shown.join(" + "))
}

fn describe_chain(chain: &Chain) -> String {
    let source = match chain.start {
        ChainStart::Input { input, dim, .. } => Some(format!("input {input} ({dim})")),
        ChainStart::One => None,
    };
    let factors = chain.factors.iter().map(|factor| format!("{factor}"));
    let links = chain.links.iter().map(|link| match (link, chain.start) {
        (Link::Dense(matrix), ChainStart::One) if matrix.rows == 1 => {
            format!("[constant row of {}]", matrix.cols)
        }
        (Link::Dense(matrix), _) => format!("[{} x {}]", matrix.rows, matrix.cols),
        (Link::Diagonal(factors), _) => format!("[diagonal of {}]", factors.len()),
        (Link::Select(selection), _) => {
            format!("[selection {} x {}]", selection.from, selection.columns.len())
        }
    });
    let parts = usize::from(source.is_some()) + chain.factors.len() + chain.links.len();
    let more =
        parts.checked_sub(SHOWN_PARTS).filter(|more| *more > 0).map(|more| format!("{more} more"));
    factors.chain(source).chain(links).take(SHOWN_PARTS).chain(more).collect::<Vec<_>>().join(" · ")
}
