"""Converts NumPy arrays, torch tensors and nested lists to what the native module reads."""

import sys

import numpy as np

from .errors import InputError


def to_numpy(values, name):
    """Returns ``values`` as a contiguous float32 array, without a copy if it is one already.

    ``name`` names the values in errors.
    """
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(values, torch.Tensor):
        if values.is_meta:
            raise InputError(
                f"{name}: the tensor is on the device `meta`, which holds no values: load the "
                "weights first"
            )
        if values.is_complex() or values.is_quantized or values.layout != torch.strided:
            raise InputError(
                f"{name}: {values.dtype} and {values.layout} cannot be sent: pass a dense tensor "
                "of real numbers"
            )
        values = values.detach().to("cpu", torch.float32).numpy()
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise InputError(f"{name}: not an array: {error}") from None
    if array.dtype.kind not in "fiub":
        raise InputError(f"{name}: an array of {array.dtype} cannot be sent: pass real numbers")
    return np.ascontiguousarray(array, dtype=np.float32)


def to_rows(values, features, name):
    """Returns ``values`` as ``[rows, features]``, and their leading dimensions."""
    array = to_numpy(values, name)
    if array.ndim == 0 or array.shape[-1] != features:
        raise InputError(
            f"{name}: shape {list(array.shape)}, expected {features} features in the last dimension"
        )
    return array.reshape(-1, features), array.shape[:-1]
