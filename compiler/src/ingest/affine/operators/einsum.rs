//! Contraction with a constant: tract turns MatMul, Gemm and Einsum into one operator.
//!
//! For the operand that depends on the input, each label of the equation is *kept* (rows),
//! *contracted* (all features, and only those), or *new* (only in the constant; the new labels
//! become the new features).

use std::sync::Arc;

use tract_onnx::tract_core::{internal::TDim, ops::einsum::EinSum};

use super::supported::Supported;
use crate::{
    ingest::{
        affine::{
            axes::{Atom, Axes, Space, concrete_extent, offsets, tile},
            chain::Link,
            constant::Constant,
            expression::Affine,
            value::Value,
        },
        error::Reason,
    },
    matrix::Matrix,
};

pub(super) const SUPPORTED: &[Supported] = &[Supported {
    operators: "MatMul, Gemm, Einsum",
    when: "one operand is constant and the same for all rows, and all features are contracted; an Einsum may have up to 16 operands",
    becomes: "a matrix; what is contracted of an input are its features, so with the input transposed, or weights from the left, rows are \
              positions",
}];

/// One label of the equation: its axis in the operand that depends on the input, in the constant
/// and in the output.
struct Label {
    linear: Option<usize>,
    constant: Option<usize>,
    output: Option<usize>,
}

/// The role of one axis of the constant in the matrix.
enum Role {
    /// Index `i` contracts the feature with this entry.
    Contracted(Vec<usize>),
    /// Index `i` is the new feature `i * stride`.
    New { stride: usize },
    /// The axis is summed over, or has length 1.
    Ignored,
}

pub(super) fn contract(op: &EinSum, inputs: &[Value]) -> Result<Value, Reason> {
    if op.q_params.is_some() {
        return Err(Reason::new(
            "it works on quantised integers; export the adapter in floating point",
        ));
    }
    let (value, constant, slots) = match inputs {
        [Value::Constant(constant), value] => (value, Constant::read(constant, 0)?, (1, 0)),
        [value, Value::Constant(constant)] => (value, Constant::read(constant, 1)?, (0, 1)),
        [_, _] => {
            return Err(Reason::Product);
        }
        _ => return Err(Reason::new("only contractions of two operands are supported")),
    };
    let labels = labels(op, slots)?;
    let affine = divided_for(value, &labels)?;
    if !contracts_features(&affine, &labels) {
        return Err(Reason::new(
            "it mixes rows with each other, or contracts only part of the features (heads, groups); \
             only maps that are the same for every row are supported",
        ));
    }
    let (roles, axes, width) = roles(&labels, &affine.axes, &constant)?;
    let summed = summed_features(&labels, &affine.axes, &constant)?;
    let matrix = matrix(&constant, &roles, &summed, affine.width, width)?;
    Ok(Value::Affine(affine.times(Link::Dense(Arc::new(matrix)), width, axes)))
}

fn labels(op: &EinSum, (linear, constant): (usize, usize)) -> Result<Vec<Label>, Reason> {
    let at_most_one = |positions: &[usize]| match positions {
        [] => Ok(None),
        [position] => Ok(Some(*position)),
        _ => Err(Reason::new("it takes a diagonal, which is not supported")),
    };
    op.axes
        .iter_all_axes()
        .map(|axis| {
            Ok(Label {
                linear: at_most_one(&axis.inputs[linear])?,
                constant: at_most_one(&axis.inputs[constant])?,
                output: at_most_one(&axis.outputs[0])?,
            })
        })
        .collect()
}

fn contracted_atoms(axes: &Axes, labels: &[Label]) -> Vec<Atom> {
    let contracted = labels.iter().filter(|label| label.output.is_none());
    contracted.filter_map(|label| label.linear).flat_map(|axis| axes.axis(axis).to_vec()).collect()
}

/// Whether all features are contracted, and nothing else.
fn contracts_features(affine: &Affine, labels: &[Label]) -> bool {
    let contracted = contracted_atoms(&affine.axes, labels);
    contracted.iter().all(|atom| atom.space == Space::Feature) && tile(&contracted, affine.width)
}

fn divided_for(value: &Value, labels: &[Label]) -> Result<Affine, Reason> {
    match value {
        Value::Affine(affine) => Ok(affine.clone()),
        Value::Input(view) => {
            let width = concrete_extent(&contracted_atoms(&view.axes, labels));
            let last = view.divided(
                width.ok_or_else(|| Reason::new("it contracts an axis of symbolic length"))?,
            );
            // If axes before the last one are contracted (a transposed input, or channels before
            // positions), positions are rows.
            if !last.as_ref().is_ok_and(|affine| contracts_features(affine, labels)) && !view.whole
            {
                let contracted = labels.iter().filter(|label| label.output.is_none());
                let contracted: Vec<usize> = contracted.filter_map(|label| label.linear).collect();
                if let Ok(by_axes) = view.divided_by_axes(&contracted) {
                    return Ok(by_axes);
                }
            }
            last
        }
        Value::Constant(_) | Value::Filled(..) => Err(Reason::new("a constant was not folded")),
    }
}

/// The role of each of the constant's axes, and the axes and number of features of the output.
fn roles(
    labels: &[Label],
    linear: &Axes,
    constant: &Constant,
) -> Result<(Vec<Role>, Axes, usize), Reason> {
    let output_rank = labels.iter().filter(|label| label.output.is_some()).count();
    let mut output: Vec<Vec<Atom>> = vec![vec![]; output_rank];
    let mut roles: Vec<Role> = constant.shape.iter().map(|_| Role::Ignored).collect();
    let misfit = || Reason::new("its equation does not fit its operands");
    let mut new_axes = vec![];
    for label in labels {
        let atoms = label.linear.map_or(&[][..], |axis| linear.axis(axis));
        let extent = match label.constant {
            Some(axis) => *constant.shape.get(axis).ok_or_else(misfit)?,
            None => 1,
        };
        match (label.output, label.constant) {
            (None, Some(axis)) if extent > 1 && !atoms.is_empty() => {
                let features = offsets(atoms)
                    .filter(|features| features.len() == extent)
                    .ok_or_else(misfit)?;
                roles[axis] = Role::Contracted(features);
            }
            (Some(at), Some(axis)) if extent > 1 => {
                if !atoms.is_empty() {
                    return Err(Reason::new(
                        "it applies a different matrix to every row or head, which is not supported",
                    ));
                }
                new_axes.push((at, axis, extent));
            }
            (Some(at), _) => *output.get_mut(at).ok_or_else(misfit)? = atoms.to_vec(),
            _ => {}
        }
    }
    new_axes.sort_unstable();
    let mut width = 1usize;
    for (at, axis, extent) in new_axes.into_iter().rev() {
        roles[axis] = Role::New { stride: width };
        let dims = (i64::try_from(width), i64::try_from(extent));
        let (Ok(stride), Ok(long)) = dims else { return Err(misfit()) };
        let atom =
            Atom { space: Space::Feature, stride: TDim::from(stride), extent: TDim::from(long) };
        *output.get_mut(at).ok_or_else(misfit)? = vec![atom];
        width = width.checked_mul(extent).ok_or_else(misfit)?;
    }
    Ok((roles, Axes::new(output), width))
}

/// Offsets of features that are summed over without the constant depending on them.
fn summed_features(
    labels: &[Label],
    linear: &Axes,
    constant: &Constant,
) -> Result<Vec<usize>, Reason> {
    let independent = |label: &&Label| {
        let extent = label.constant.and_then(|axis| constant.shape.get(axis)).copied().unwrap_or(1);
        label.output.is_none() && extent == 1
    };
    let atoms: Vec<Atom> = labels
        .iter()
        .filter(independent)
        .filter_map(|label| label.linear)
        .flat_map(|axis| linear.axis(axis).to_vec())
        .collect();
    offsets(&atoms).ok_or_else(|| Reason::new("it sums over an axis of symbolic length"))
}

fn matrix(
    constant: &Constant,
    roles: &[Role],
    summed: &[usize],
    rows: usize,
    cols: usize,
) -> Result<Matrix, Reason> {
    let mut matrix = Matrix::zeros(rows, cols)?;
    for (index, value) in constant.data.iter().enumerate() {
        let (mut rest, mut row, mut col) = (index, 0, 0);
        for (role, extent) in roles.iter().zip(&constant.shape).rev() {
            let i = rest % extent;
            rest /= extent;
            match role {
                Role::Contracted(features) => row += features[i],
                Role::New { stride } => col += i * stride,
                Role::Ignored => {}
            }
        }
        for extra in summed {
            matrix.data[(row + extra) * cols + col] += value;
        }
    }
    Ok(matrix)
}
