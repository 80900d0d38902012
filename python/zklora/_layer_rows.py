"""The rows that a layer's outputs are made of, and the outputs that rows make. Needs torch.

A linear layer reads the last dimension of its input. A convolution reads patches: each is a row,
channel by channel, as torch's ``unfold`` has them, for kernels of one to three dimensions.
"""

import math

from torch import nn

from .errors import InputError

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def is_convolution(layer) -> bool:
    """Whether a layer reads patches."""
    return isinstance(layer, CONVOLUTIONS)


def patch_features(layer):
    """The features of a convolution's patches, of all channels, and of its output.

    The patches are those of the adapter's own convolution: peft gives it the stride and padding of
    the layer, no groups and no dilation.
    """
    return layer.in_channels * math.prod(layer.kernel_size), layer.out_channels


def check_convolution(layer, what):
    """Raises ``InputError`` unless the patches of a layer are known."""
    if any(size != 1 for size in layer.dilation) or layer.padding_mode != "zeros":
        raise InputError(
            f"{what} is a {type(layer).__name__} with dilation {layer.dilation} and "
            f"padding_mode {layer.padding_mode!r}: adapters are for convolutions without dilation, "
            "padded with zeros"
        )


def layer_rows(layer, x):
    """Returns the rows of ``x`` that a layer reads, ``[..., features]``.

    For activations of ``record`` and ``compile(calibrate=…)``. A convolution's input is
    ``[batch, channels, …]``, or without the batch; its rows are ``[batch, positions…, features]``.
    """
    if not is_convolution(layer):
        return x
    check_convolution(layer, "the layer")
    sizes = len(layer.kernel_size)
    if x.dim() not in (sizes + 1, sizes + 2):
        raise InputError(
            f"a {type(layer).__name__} reads {sizes + 1} or {sizes + 2} dimensions, not "
            f"{list(x.shape)}"
        )
    x = nn.functional.pad(x, _padding(layer))
    first = x.dim() - sizes
    for at, (size, stride) in enumerate(zip(layer.kernel_size, layer.stride)):
        x = x.unfold(first + at, size, stride)
    # [batch, channels, positions…, kernel…] to [batch, positions…, channels, kernel…]
    x = x.movedim(first - 1, first - 1 + sizes)
    return x.flatten(-1 - sizes)


def output_rows(layer, output):
    """Returns a layer's output as rows ``[..., features]``."""
    if not is_convolution(layer):
        return output
    return output.movedim(-1 - len(layer.kernel_size), -1)


def output_of(layer, rows):
    """Returns the output of a layer that has these rows."""
    if not is_convolution(layer):
        return rows
    return rows.movedim(-1, -1 - len(layer.kernel_size))


def _padding(layer):
    """The padding before and after each dimension, the last dimension first."""
    if layer.padding == "valid":
        sides = [(0, 0)] * len(layer.kernel_size)
    elif layer.padding == "same":
        sides = [((size - 1) // 2, size - 1 - (size - 1) // 2) for size in layer.kernel_size]
    else:
        sides = [(size, size) for size in layer.padding]
    return [size for pair in reversed(sides) for size in pair]
