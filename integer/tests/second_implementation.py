"""A second implementation of the integer model, from docs/integer-model.md alone.

    second_implementation.py BASE.onnx FOLDER UNITS.jsonl [--adapter ADAPTER.json]

FOLDER has integer-model.json; tables.safetensors is not read. Each line of UNITS.jsonl is
{"tokens": [...], "from": k}, each line of the output {"tokens": [...], "bits": b}, the
log-probabilities of the tokens from place k on in units of 2^-b nats, or {"out_of_range": true}.

ADAPTER.json is {"modules": [{"operator": o, "a": A, "b": B, "scaling": s, "scale_log2": e,
"bias": [...] or null, "bias_shift": k}, ...]}: o is an index into the operators, A has a row of
inputs and B a row of outputs for each rank (A_ji and B_jo of the page).

Values are Python's integers in numpy arrays of objects, with a row for each token. Before it
scores, the program checks that the file is in its canonical form and that each digest in it is
right: of matrices, gains, shifts and biases found in the ONNX file, and of tables computed here.
"""

import argparse
import json
import math
from decimal import Decimal, getcontext
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
from blake3 import blake3

getcontext().prec = 120
WIDTH = 256  # fractional bits of real numbers
ERROR = 1 << 128  # more than the error of any of them, in units of 2^-WIDTH
PI = Decimal(
    "3.1415926535897932384626433832795028841971693993751"
    "058209749445923078164062862089986280348253421170679"
)


class OutOfRange(Exception):
    """A value left its range: the unit has no score."""


def require(condition, message):
    if not condition:
        raise SystemExit(f"second_implementation: {message}")


def in_range(condition):
    if not condition:
        raise OutOfRange


def in_width(x, bits):
    in_range(-1 << bits - 1 <= x.min() and x.max() < 1 << bits - 1)
    return x


# Integers.


def rnd(x, shift):
    return (x + (1 << (shift - 1))) >> shift if shift > 0 else x << -shift


def ceiling(x, shift):
    return -(-x >> shift) if shift > 0 else x << -shift


integers = np.frompyfunc(round, 1, 1)  # of binary64: the nearest, ties to even


def scaled(x, bits):
    return integers(np.ldexp(np.asarray(x, np.float64), bits))


def times(x, matrix):
    """The exact product of matrices of integers; 64-bit arithmetic on limbs where that is safe."""
    width = 62 - int(abs(matrix).sum(axis=0).max()).bit_length()
    if width < 8 or not x.size:
        return x.dot(matrix)
    if int(abs(x).max()) >> width:
        low = times(x & ((1 << width) - 1), matrix)
        return (times(x >> width, matrix) << width) + low
    return (x.astype(np.int64) @ matrix.astype(np.int64)).astype(object)


# Real functions, rounded correctly.


def nearest(x, shift):
    """⌊x/2^shift + ½⌋ for a real x known up to ERROR."""
    result = rnd(x - ERROR, shift)
    require(result == rnd(x + ERROR, shift), "a table needs more precision")
    return result


def exponentials(count, a, b=0, c=0):
    """e^−(a·i + b·i² + c·i³) for i < count, with WIDTH bits: differences become quotients."""
    differences = a + b + c, 2 * b + 6 * c, 6 * c
    first, second, third = (
        int((Decimal(-x.numerator) / x.denominator).exp() * (1 << WIDTH))
        for x in map(Fraction, differences)
    )
    value, result = 1 << WIDTH, []
    for _ in range(count):
        result.append(value)
        value = value * first >> WIDTH
        first = first * second >> WIDTH
        second = second * third >> WIDTH
    return result


@lru_cache(None)
def exponential_table(u, bits):
    return np.array([nearest(x, WIDTH - bits) for x in exponentials(65536, u)], object)


@lru_cache(None)
def waves(frequency, tokens):
    """⌊2^14·cos(t·θ) + ½⌋ and the sines, a row for each t."""
    one, (n, d) = 1 << WIDTH, frequency.as_integer_ratio()
    steps, term, k = [one, 0], one, 0
    while term:
        k += 1
        term = term * n // (d * k)
        steps[k % 2] += term if k % 4 < 2 else -term
    c, s, result = one, 0, []
    for _ in range(tokens):
        result.append((nearest(c, WIDTH - 14), nearest(s, WIDTH - 14)))
        c, s = ((c * steps[0] - s * steps[1]) >> WIDTH, (s * steps[0] + c * steps[1]) >> WIDTH)
    return np.array(result, object)


def tails(bits):
    """½ − ½·erf(x/√2) for x = i·2^−bits: steps of the integral of the normal density.

    The density at x + s is that at x times e^−(xs + s²/2), whose series is integrated.
    """
    fine = max(bits, 4)
    every, count = 1 << fine - bits, 16 << fine  # from x = 16 on it is below 2^-184
    scale, tail, result = int((1 << WIDTH) / (2 * PI).sqrt()), 1 << WIDTH - 1, []
    for i, density in enumerate(exponentials(count, 0, Fraction(1, 2 * 4**fine))):
        if i % every == 0:
            result.append(tail)
        before, term, total, k = 0, 1 << WIDTH, 0, 1
        while abs(term) > 1 or abs(before) > 1:
            total, before, term = total + term // k, term, -(i * term + before >> 2 * fine) // k
            k += 1
        tail -= density * scale * total >> 2 * WIDTH + fine
    return (result + [0] * 32769)[:32769]


@lru_cache(None)
def activation_table(function, bits, entry_bits):
    """Each function is x·P(x) with P(x) = 1 − P(−x), and P(−x) is e^−z/(1 + e^−z) but for erf."""
    if function == "relu":
        return np.array([rnd(max(x, 0), bits - entry_bits) for x in range(-32768, 32768)], object)
    step, slope, one = Fraction(2) ** -bits, 2 * Fraction((2 / PI).sqrt()), 1 << WIDTH
    if function == "gelu":
        parts = tails(bits)
    else:
        coefficients = {
            "silu": (step,),
            "quick_gelu": (Fraction("1.702") * step,),
            "gelu_tanh": (slope * step, 0, slope * Fraction("0.044715") * step**3),
        }
        parts = [(w << WIDTH) // (one + w) for w in exponentials(32769, *coefficients[function])]
    exact = [-i * parts[i] for i in range(32768, 0, -1)]
    exact += [i * (one - parts[i]) for i in range(32768)]
    return np.array([nearest(x, WIDTH + bits - entry_bits) for x in exact], object)


def normaliser(scores, table, limit):
    """The least c, no less than any score, for which the table's sum is at most the limit."""
    lowest, highest = min(scores), max(scores)
    in_range(highest - lowest <= 65535)
    gaps = (highest - scores).astype(np.int64)
    low, high = 0, 65535 - (highest - lowest)
    in_range(table[gaps + high].sum() <= limit)
    while low < high:
        middle = (low + high) // 2
        if table[gaps + middle].sum() <= limit:
            high = middle
        else:
            low = middle + 1
    return highest + low, gaps + low


# The file.


def number(x):
    """The fewest digits that give the float (32 or 64 bits) again."""
    sign, digits, exponent = Decimal(str(x)).normalize().as_tuple()
    digits, sign = "".join(map(str, digits)), "-" * sign
    point = len(digits) + exponent
    least, most = (-6, 13) if isinstance(x, np.float32) else (-5, 16)
    if 0 < point <= most:
        return f"{sign}{digits[:point].ljust(point, '0')}.{digits[point:] or 0}"
    if least < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    return f"{sign}{digits[0]}{'.' * (len(digits) > 1)}{digits[1:]}e{point - 1}"


def canonical(value):
    if isinstance(value, dict):
        items = (f"{json.dumps(name)}:{canonical(value[name])}" for name in sorted(value))
        return "{" + ",".join(items) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    return number(value) if isinstance(value, (float, np.float32)) else json.dumps(value)


def digest(numbers, kind, *sizes):
    data = np.ascontiguousarray(numbers, kind)
    return blake3(np.array(sizes, "<u8").tobytes() + data.tobytes()).hexdigest()


def stored_floats(path):
    """The 32-bit floats of the ONNX file by digest: vectors, and matrices as (outputs, inputs)."""
    graph = onnx.load(path).graph
    tensors = list(graph.initializer)
    for node in graph.node:
        if node.op_type == "Constant":
            tensors += [item.t for item in node.attribute if item.name == "value"]
    result = {}
    for tensor in tensors:
        if tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        array = onnx.numpy_helper.to_array(tensor) + np.float32(0)  # no −0
        result[digest(array, "<f4")] = array.reshape(-1).astype(np.float64)
        for matrix in (array, array.T) if array.ndim == 2 else ():
            result[digest(matrix, "<f4", *matrix.shape)] = matrix.astype(np.float64)
    return result


class Model:
    def __init__(self, base, path):
        text = path.read_text("utf-8")
        file = json.loads(text)
        self.operators = file["operators"]
        for operator in self.operators:
            for rotation in operator.get("rotations", []):
                rotation[1] = np.float32(rotation[1])
        require(canonical(file) == text, "not canonical JSON")
        known = file["format"], file["version"], file["rules"]
        require(known == ("zklora-integer-model", 1, 1), "another format, version or rules")
        self.tokens, self.vocabulary = file["tokens"], file["vocabulary"]
        self.score_bits, floats = file["score_bits"], stored_floats(base)

        def find(name, shape):
            require(name in floats, f"nothing in the ONNX file has the digest {name}")
            require(floats[name].shape == shape, f"another shape: {name}")
            return floats[name]

        self.matrices = [
            find(weight["blake3"], (weight["outputs"], weight["inputs"]))
            for weight in file["weights"]
        ]
        self.floats, self.weights = {}, {}
        for index, operator in enumerate(self.operators):
            if "weight" not in operator:
                continue
            matrix, scales = self.matrices[operator["weight"]], operator["scales"]
            outputs, inputs = matrix.shape
            sizes = {"gain": inputs, "shift": inputs, "bias": outputs}
            vectors = {
                name: find(operator[name], (size,))
                for name, size in sizes.items()
                if name in operator
            }
            self.floats[index] = vectors
            if operator["operator"] == "linear":
                whole = scaled(matrix * vectors.get("gain", 1.0), scales["weight_bits"])
                largest = abs(whole).sum(axis=1).max()
                require(operator["largest_sum"] == largest, f"largest_sum of operator {index}")
                self.weights[index] = whole.T
            else:
                self.weights[index] = scaled(matrix, scales["bits"])
        self.steps, records = {}, {}  # of equal tables the first is listed
        self.tables = dict(self.make_tables())
        for name, table in self.tables.items():
            records.setdefault(digest(table, "<i8"), (name, table.size))
        records = [
            {"blake3": key, "entries": size, "name": name} for key, (name, size) in records.items()
        ]
        require(records == file["tables"], "other tables")

    def make_tables(self):
        """Each table by its name, in the order of the file."""
        for index, operator in enumerate(self.operators):
            kind, scales = operator["operator"], operator["scales"]
            bits = [self.operators[i]["scales"].get("bits") for i in operator["reads"]]
            if kind == "rotary":
                turning = (theta for d, (p, theta, _) in enumerate(operator["rotations"]) if p != d)
                for k, theta in enumerate(dict.fromkeys(turning)):
                    yield f"{index}.waves.{k}", waves(theta, self.tokens)
            elif kind == "attention":
                power = scales["score_shift"] - bits[0] - bits[1]
                self.steps[index] = Fraction(operator["scale"]) * Fraction(2) ** power
                yield f"{index}.exponentials", exponential_table(self.steps[index], 18)
            elif kind == "activation":
                table = activation_table(operator["function"], bits[0], scales["entry_bits"])
                yield f"{index}.activation", table
        yield "scores", exponential_table(Fraction(2) ** -self.score_bits, 32)

    def linear(self, index, scales, x, f, module):
        vectors, weight_bits = self.floats[index], scales["weight_bits"]
        matrix = self.matrices[self.operators[index]["weight"]]
        bracket = vectors.get("bias", np.zeros(len(matrix)))
        if "shift" in vectors:
            for column, shift in zip(matrix.T, vectors["shift"]):
                bracket = bracket + column * shift
        own_bits = f + weight_bits
        own = times(x, self.weights[index]) + scaled(bracket, own_bits)
        if module is None:
            return own, own_bits
        a, b = (np.array(module[name], object) for name in ("a", "b"))
        shape = (len(a), len(b)), a.shape[1], b.shape[1]
        require(shape == ((len(b), len(a)), *matrix.T.shape), f"shapes at operator {index}")
        if "gain" in vectors or "shift" in vectors:
            gain_bits = scales["gain_bits"]
            gains = scaled(vectors.get("gain", np.ones(len(x[0]))), gain_bits)
            x = x * gains + scaled(vectors.get("shift", np.zeros(len(x[0]))), f + gain_bits)
            f += gain_bits
        part = times(times(x, a.T), b)
        if module.get("bias") is not None:
            require(f + module["bias_shift"] >= 0, "the adapter's bias has no integer")
            part = part + (np.array(module["bias"], object) << f + module["bias_shift"])
        mantissa, exponent = math.frexp(abs(module["scaling"]))
        m, k = math.floor(mantissa * 65536 + 0.5), exponent - 16
        while m and m % 2 == 0:
            m, k = m // 2, k + 1
        part_bits = f - module["scale_log2"] - k
        part = part * int(math.copysign(m, module["scaling"]))
        bits = max(own_bits, part_bits)
        result = (own << bits - own_bits) + (part << bits - part_bits)
        if "part_bits" not in scales:
            return result, bits
        shift = max(0, bits - scales["part_bits"])
        return in_width(rnd(result, shift), 64), bits - shift

    def norm(self, operator, x, f):
        scales, n = operator["scales"], x.shape[1]
        layer = operator["kind"] == "layer"
        y = n * x - x.sum(axis=1, keepdims=True) if layer else x
        epsilon = n ** (3 if layer else 1) * Fraction(operator["epsilon"]) * Fraction(4) ** f
        epsilon = max(1, math.floor(epsilon + Fraction(1, 2)))
        rows = []
        for t, row in enumerate(y):
            bits = f + scales["root_bits"] + (scales["first_bits"] if t == 0 else 0)
            square = Fraction(4) ** bits * n / ((row * row).sum() + epsilon)
            reciprocal = (math.isqrt(math.floor(square)) + 1) // 2 * 2 - 1
            in_range(1 << 8 <= reciprocal < 1 << 32)
            rows.append(rnd(row * reciprocal, bits - scales["bits"]))
        return in_width(np.array(rows, object), 16)

    def rotary(self, operator, x):
        result, size = x << 14, len(operator["rotations"])
        for d, (partner, theta, minus) in enumerate(operator["rotations"]):
            if partner != d:
                c, s = waves(theta, self.tokens)[: len(x)].T[:, :, None]
                other = s * x[:, partner::size]
                result[:, d::size] = c * x[:, d::size] + (-other if minus else other)
        return result

    def attention(self, index, groups, shift, q, k, v):
        table, result = self.tables[f"{index}.exponentials"], []
        limit = 2**18 + math.floor(2**17 * self.steps[index] + Fraction(1, 2))
        k, v = (np.split(x, max(groups) + 1, axis=1) for x in (k, v))
        for part, group in zip(np.split(q, len(groups), axis=1), groups):
            scores = ceiling(times(part, k[group].T), shift)
            weights = np.zeros(scores.shape, object)
            for i in range(len(q)):
                _, gaps = normaliser(scores[i, : i + 1], table, limit)
                weights[i, : i + 1] = table[gaps]
            result.append(times(weights, v[group]))
        return np.concatenate(result, axis=1)

    def logits(self, tokens, modules):
        values = []
        for index, operator in enumerate(self.operators):
            kind, scales = operator["operator"], operator["scales"]
            reads = [values[i] for i in operator["reads"]]
            x, f = reads[0] if reads else (None, None)
            if kind in ("embedding", "positions"):
                rows = tokens if kind == "embedding" else range(len(tokens))
                value = self.weights[index][rows], scales["bits"]
            elif kind == "sum":
                f = max(bits for _, bits in reads)
                value = sum(x << f - bits for x, bits in reads), f
            elif kind == "round":
                width = {"residual": 32, "attention": 16, "index": 16}[operator["purpose"]]
                value = in_width(rnd(x, f - scales["bits"]), width), scales["bits"]
            elif kind == "norm":
                value = self.norm(operator, x, f), scales["bits"]
            elif kind == "linear":
                value = self.linear(index, scales, x, f, modules.get(index))
            elif kind == "select":
                value = x[:, operator["from"] : operator["from"] + operator["count"]], f
            elif kind == "rotary":
                value = self.rotary(operator, x), f + 14
            elif kind == "attention":
                heads = operator["groups"], scales["score_shift"], *(x for x, _ in reads)
                value = self.attention(index, *heads), reads[2][1] + 18
            elif kind == "activation":
                value = (
                    self.tables[f"{index}.activation"][(x + 32768).astype(int)],
                    scales["entry_bits"],
                )
            else:
                require(kind == "product", f"unknown operator {kind}")
                value = x * reads[1][0], f + reads[1][1]
            values.append(value)
        return values[-1]

    def score(self, tokens, first, modules):
        """The log-probabilities of the tokens from place `first` on."""
        require(1 <= first < len(tokens) <= self.tokens, "a unit's length")
        require(0 <= min(tokens) and max(tokens) < self.vocabulary, "a token's number")
        logits, f = self.logits(tokens, modules)
        b = self.score_bits
        result = []
        for place in range(first, len(tokens)):
            scores = ceiling(logits[place - 1], f - b)
            c, _ = normaliser(scores, self.tables["scores"], 2**32 + 2 ** (31 - b))
            result.append(int(scores[tokens[place]] - c))
        return result


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("base")
    parser.add_argument("folder", type=Path)
    parser.add_argument("units", type=Path)
    parser.add_argument("--adapter", type=Path)
    arguments = parser.parse_args()
    modules = {}
    if arguments.adapter:
        found = json.loads(arguments.adapter.read_text("utf-8"))["modules"]
        modules = {module["operator"]: module for module in found}
    model = Model(arguments.base, arguments.folder / "integer-model.json")
    require(
        set(modules)
        <= {i for i, operator in enumerate(model.operators) if operator["operator"] == "linear"},
        "an adapter of no linear layer",
    )
    for line in arguments.units.read_text("utf-8").splitlines():
        unit = json.loads(line)
        try:
            tokens = model.score(unit["tokens"], unit["from"], modules)
            print(json.dumps({"tokens": tokens, "bits": model.score_bits}))
        except OutOfRange:
            print(json.dumps({"out_of_range": True}))


if __name__ == "__main__":
    main()
