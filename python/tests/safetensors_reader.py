"""Reads float32 tensors of a safetensors file, without the package of that name."""

import json
import struct

import numpy as np


def read(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    tensors = {}
    for name, info in header.items():
        assert info["dtype"] == "F32"
        start, end = (8 + length + offset for offset in info["data_offsets"])
        tensors[name] = np.frombuffer(data[start:end], dtype="<f4").reshape(info["shape"])
    return tensors
