//! Conv as a linear map.
//!
//! A kernel of size 1 multiplies the channels of every position by one matrix: positions are rows,
//! and channels are features. Any other convolution mixes positions: the whole image is one row,
//! and the kernel is unrolled into a matrix over the image.

use std::sync::Arc;

use tract_onnx::tract_core::{
    internal::TDim,
    ops::{
        cnn::{Conv, KernelFormat},
        nn::DataFormat,
    },
};

use super::{slice::features, supported::Supported};
use crate::{
    ingest::{
        affine::{
            axes::{Atom, Space, concrete_extent, offsets, tile},
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
    operators: "Conv",
    when: "constant kernel; groups, strides, dilations and padding as they come",
    becomes: "kernel of size 1: a matrix for every position (rows are positions, features channels); \
              otherwise the whole image is one row and the kernel is unrolled, up to 2^25 elements",
}];

/// Most elements of an unrolled kernel.
const MAX_UNROLLED: usize = 1 << 25;

const CHANNELS: usize = 1;

pub(super) fn convolve(op: &Conv, inputs: &[Value]) -> Result<Value, Reason> {
    let [input, Value::Constant(kernel), Value::Constant(bias)] = inputs else {
        return Err(Reason::new("its kernel or bias depends on the input"));
    };
    if op.q_params.is_some()
        || op.kernel_fmt != KernelFormat::OIHW
        || op.pool_spec.data_format != DataFormat::NCHW
    {
        return Err(Reason::new(
            "only floating-point convolutions over [batch, channels, ...] are supported",
        ));
    }
    let (kernel, bias) = (Constant::read(kernel, 1)?, Constant::read(bias, 2)?);
    let per_channel = match bias.uniform() {
        Some(value) => vec![value; op.output_channels()],
        None => bias.data,
    };
    if per_channel.len() != op.output_channels() {
        return Err(Reason::new("its bias does not have one value per channel"));
    }
    let affine = if let Some(affine) = positions_as_rows(op, input)? {
        pointwise(op, &kernel, affine)?
    } else {
        unrolled(op, &kernel, image_as_row(input)?)?
    };
    if per_channel.iter().all(|value| *value == 0.0) {
        return Ok(Value::Affine(affine));
    }
    let positions = affine.width / per_channel.len();
    let row = per_channel.iter().flat_map(|value| std::iter::repeat_n(*value, positions)).collect();
    Ok(Value::Affine(affine.plus_row(row)?))
}

/// The input with channels as features, if the kernel covers one position only and positions can be
/// rows.
fn positions_as_rows(op: &Conv, input: &Value) -> Result<Option<Affine>, Reason> {
    let spec = &op.pool_spec;
    let spatial = 0..spec.rank();
    let is_pointwise =
        spec.kernel_shape.iter().chain(spec.strides().iter()).all(|extent| *extent == 1);
    let padded = spatial.into_iter().any(|axis| !spec.padding.valid_dim(axis, true));
    if !is_pointwise || padded {
        return Ok(None);
    }
    match input {
        Value::Input(view) if !view.whole => view.divided_by_axes(&[CHANNELS]).map(Some),
        Value::Affine(affine) if tile(affine.axes.axis(CHANNELS), affine.width) => {
            Ok(Some(affine.clone()))
        }
        _ => Ok(None),
    }
}

fn pointwise(op: &Conv, kernel: &Constant, affine: Affine) -> Result<Affine, Reason> {
    let channels = offsets(affine.axes.axis(CHANNELS)).ok_or_else(symbolic)?;
    let groups = op.group.max(1);
    let (in_group, out_group) = (channels.len() / groups, op.output_channels() / groups);
    if in_group == 0 || out_group == 0 || in_group * op.output_channels() != kernel.data.len() {
        return Err(Reason::new("its kernel does not fit its input"));
    }
    let mut matrix = Matrix::zeros(affine.width, op.output_channels())?;
    for (out, weights) in kernel.data.chunks_exact(in_group).enumerate() {
        let own = channels.iter().skip(out / out_group * in_group);
        for (row, weight) in own.zip(weights) {
            matrix.data[row * matrix.cols + out] = *weight;
        }
    }
    let (width, axes) = (matrix.cols, affine.axes.with_axis(CHANNELS, features(matrix.cols)));
    Ok(affine.times(Link::Dense(Arc::new(matrix)), width, axes))
}

/// The input with all axes except the batch as features.
fn image_as_row(input: &Value) -> Result<Affine, Reason> {
    let affine = match input {
        Value::Affine(affine) => affine.clone(),
        Value::Input(view) => {
            let image: Vec<Atom> = view.axes.iter().skip(CHANNELS).flatten().cloned().collect();
            view.divided(concrete_extent(&image).ok_or_else(symbolic)?)?
        }
        Value::Constant(_) | Value::Filled(..) => {
            return Err(Reason::new("a constant was not folded"));
        }
    };
    let image: Vec<Atom> = affine.axes.iter().skip(CHANNELS).flatten().cloned().collect();
    if image.iter().any(|atom| atom.space != Space::Feature) || !tile(&image, affine.width) {
        return Err(Reason::new(
            "it mixes positions that are rows, or its batch axis is not one of rows",
        ));
    }
    Ok(affine)
}

fn unrolled(op: &Conv, kernel: &Constant, affine: Affine) -> Result<Affine, Reason> {
    let misfit = || Reason::new("its kernel does not fit its input");
    let along: Vec<Vec<usize>> = affine
        .axes
        .iter()
        .skip(CHANNELS)
        .map(offsets)
        .collect::<Option<_>>()
        .ok_or_else(symbolic)?;
    let (channels, spatial) = along.split_first().ok_or_else(misfit)?;
    let extents: Vec<usize> = spatial.iter().map(Vec::len).collect();
    let geometry = op.pool_spec.computed_padding(&extents);
    let out_extents: Vec<usize> = geometry.iter().map(|axis| axis.convoluted).collect();
    let positions = out_extents
        .iter()
        .try_fold(1usize, |all, extent| all.checked_mul(*extent))
        .ok_or_else(misfit)?;
    let width = positions.checked_mul(op.output_channels()).ok_or_else(misfit)?;
    let too_large = affine.width.checked_mul(width).is_none_or(|elements| elements > MAX_UNROLLED);
    if too_large || kernel.data.len().checked_mul(positions).is_none_or(|taps| taps > MAX_UNROLLED)
    {
        return Err(Reason::new(format!(
            "unrolled into one matrix it is {} x {width}, above the limit of {MAX_UNROLLED} elements; \
             export it for a smaller image",
            affine.width
        )));
    }
    let (in_group, out_group) =
        (channels.len() / op.group.max(1), op.output_channels() / op.group.max(1));
    let taps = op.pool_spec.kernel_shape.iter().product::<usize>();
    if taps * in_group * op.output_channels() != kernel.data.len() || out_group == 0 {
        return Err(misfit());
    }
    let mut matrix = Matrix::zeros(affine.width, width)?;
    let (strides, dilations) = (op.pool_spec.strides(), op.pool_spec.dilations());
    for position in 0..positions {
        let index = digits(position, &out_extents);
        for tap in 0..taps {
            // The feature offset of the pixel under this tap; none in the padding outside the
            // image.
            let pixel = digits(tap, &op.pool_spec.kernel_shape).iter().enumerate().try_fold(
                0,
                |offset, (axis, tap)| {
                    let at = index[axis]
                        .checked_mul(strides[axis])?
                        .checked_add(tap.checked_mul(dilations[axis])?)?;
                    let at = at.checked_sub(geometry[axis].pad_before)?;
                    spatial[axis].get(at).map(|along| offset + along)
                },
            );
            let Some(pixel) = pixel else { continue };
            for out in 0..op.output_channels() {
                for (i, channel) in
                    channels.iter().skip(out / out_group * in_group).take(in_group).enumerate()
                {
                    let weight = kernel.data[(out * in_group + i) * taps + tap];
                    matrix.data[(channel + pixel) * width + out * positions + position] += weight;
                }
            }
        }
    }
    let mut axes = affine.axes.clone();
    let mut stride = 1;
    for (axis, extent) in
        out_extents.iter().enumerate().rev().map(|(axis, extent)| (CHANNELS + 1 + axis, *extent))
    {
        axes = axes.with_axis(axis, digit(stride, extent));
        stride *= extent;
    }
    axes = axes.with_axis(CHANNELS, digit(stride, op.output_channels()));
    Ok(affine.times(Link::Dense(Arc::new(matrix)), width, axes))
}

fn digit(stride: usize, extent: usize) -> Vec<Atom> {
    let dim = |value: usize| TDim::from(i64::try_from(value).unwrap_or(i64::MAX));
    vec![Atom { space: Space::Feature, stride: dim(stride), extent: dim(extent) }]
}

/// The index along every axis, from a row-major flat index.
fn digits(mut flat: usize, extents: &[usize]) -> Vec<usize> {
    let mut digits = vec![0; extents.len()];
    for (digit, extent) in digits.iter_mut().zip(extents).rev() {
        *digit = flat % extent;
        flat /= extent;
    }
    digits
}

fn symbolic() -> Reason {
    Reason::new("the size of its image is symbolic; export with fixed channels, height and width")
}
