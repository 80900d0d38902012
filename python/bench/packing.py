"""Compares ways to send the rows and deltas of a session in fewer bytes.

    python python/bench/packing.py SESSION_FOLDER

The folder is a user's record of a finished session. Prints bytes as a Markdown table, and the speed
of zstd. Needs numpy and zstandard. Rows that several modules read are counted once.
"""

import argparse
import json
import pathlib
import time

import numpy as np
import zstandard


def tensors(path):
    """Yields name and array of each tensor of a safetensors file."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    for name, entry in json.loads(data[8 : 8 + length]).items():
        if name != "__metadata__":
            start, end = (8 + length + at for at in entry["data_offsets"])
            dtype = {"I32": "<i4", "I64": "<i8", "F32": "<f4"}[entry["dtype"]]
            yield name, np.frombuffer(data[start:end], dtype).reshape(entry["shape"])


def widths(values):
    """The bits of each integer, with its sign."""
    size = np.where(values < 0, ~values, values).astype(np.float64)
    return np.where(size > 0, np.floor(np.log2(np.maximum(size, 1))) + 2, 0)


def blocks(values, size=32):
    """Bytes in blocks, each as wide as its largest integer, with a byte for the width."""
    bits = widths(values).reshape(-1)
    bits = np.pad(bits, (0, -len(bits) % size)).reshape(-1, size).max(1)
    return int(bits.sum() * size / 8 + len(bits))


def planes(values):
    """All lowest bytes, then all second ones, and so on."""
    return np.ascontiguousarray(
        values.reshape(-1).view(np.uint8).reshape(-1, values.itemsize).T
    ).tobytes()


def main():
    parser = argparse.ArgumentParser(description="Bytes of packed rows and deltas.")
    parser.add_argument("folder", type=pathlib.Path)
    folder = parser.parse_args().folder
    manifest = json.loads((folder / "public" / "manifest.json").read_text())
    modules = {module["name"]: module for module in manifest["modules"]}
    of_rows, of_deltas = {}, {}
    seconds, raw, seen = 0.0, 0, set()

    def add(table, name, size):
        table[name] = table.get(name, 0) + size

    for name, values in tensors(folder / "trace.safetensors"):
        module = next(modules[name[:at]] for at in range(len(name)) if name[:at] in modules)
        is_delta = values.dtype == np.int64
        if values.dtype.kind != "i" or values.ndim != 2 or (values.tobytes() in seen):
            continue
        if not is_delta:
            seen.add(values.tobytes())
        table = of_deltas if is_delta else of_rows
        add(table, "not packed", values.nbytes)
        bits = module["delta_bits"] + 1 if is_delta else module["x_bits"]
        add(table, "bits of the manifest", values.size * bits // 8)
        by_column = widths(values).max(0)
        add(table, "bits of each column", int(by_column.sum()) * len(values) // 8 + len(by_column))
        add(table, "blocks of 32", blocks(values))
        for level in (1, 3):
            start = time.perf_counter()
            packed = zstandard.compress(planes(values), level)
            if level == 1:
                seconds += time.perf_counter() - start
                raw += values.nbytes
            add(table, f"zstd -{level} of byte planes", len(packed))
        if is_delta:
            rank = sum(term["rank"] for term in module["terms"])
            factors = rank * (len(values) + values.shape[1]) * 8 + 1
            add(table, "factors", min(factors, blocks(values)))
    print("| packing | rows | deltas | rows, of not packed | deltas |\n|---|---|---|---|---|")
    for name in of_deltas:
        rows, deltas = of_rows.get(name), of_deltas[name]
        print(
            f"| {name} | "
            + (f"{rows / 1e6:.2f} MB" if rows else "")
            + f" | {deltas / 1e6:.2f} MB | "
            + (f"{100 * rows / of_rows['not packed']:.0f} %" if rows else "")
            + f" | {100 * deltas / of_deltas['not packed']:.1f} % |"
        )
    print(f"\nzstd -1 of byte planes: {raw / seconds / 1e6:.0f} MB/s, with the transposition.")


if __name__ == "__main__":
    main()
