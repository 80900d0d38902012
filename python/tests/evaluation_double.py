"""Answers requests of `zklora.evaluation.evaluate` from scores of `zklora integer run`.

Computes the metrics of docs/evaluation.md from single scores, without a contributor.
"""

import json
import math
import os
import shutil
import subprocess

import pytest

import zklora
from conftest import ADAPTERS, BASES, ROOT

SCORE_TABLE = 1 << 16


def binary():
    """The command line: `ZKLORA`, or what `cargo build --release` made."""
    found = os.environ.get("ZKLORA") or shutil.which(str(ROOT / "target" / "release" / "zklora"))
    if found is None:
        pytest.skip("there is no target/release/zklora")
    return found


class Double:
    """tiny-llama with `llama_qv_r4`, in integers."""

    def __init__(self, folder):
        self.binary, self.folder = binary(), folder
        self.base = BASES / "tiny-llama" / "dynamo.onnx"
        self.integer_model = folder / "integer"
        self._run("compile", "--base", self.base, "--out", self.integer_model)
        exported, self.artifacts = folder / "onnx", folder / "artifacts"
        zklora.export_adapter(ADAPTERS / "llama_qv_r4", exported, BASES / "tiny-llama")
        zklora.compile(exported, self.artifacts)
        #: The requests so far: units and options.
        self.requests = []
        self.score_bits = None

    def _run(self, *arguments):
        run = subprocess.run(
            [self.binary, "--json", "integer", *arguments], capture_output=True, text=True
        )
        assert run.returncode in (0, 1), run.stderr
        return json.loads(run.stdout)

    def _lines(self, lines, adapted):
        units = self.folder / "units.jsonl"
        units.write_text("".join(json.dumps(line) + "\n" for line in lines))
        options = ["--model", self.integer_model, "--base", self.base, "--units", units]
        found = self._run("run", *options, *(["--artifacts", self.artifacts] if adapted else []))
        self.score_bits = found["score_bits"]
        return found["units"]

    def scores(self, sequences, adapted):
        """Sum of each sequence; `None` for one without a score."""
        lines = [{"tokens": tokens, "from": start} for tokens, start in sequences]
        return [unit.get("sum") for unit in self._lines(lines, adapted)] if lines else []

    def greedy(self, sequences, adapted):
        """Whether the scored tokens of each sequence are the likeliest. Texts are one byte a token.

        The context is text of the tokenizer, so it must be whole characters.
        """
        import tokenizers

        tokenizer = tokenizers.Tokenizer.from_file(str(self.base.parent / "tokenizer.json"))
        lines = []
        for tokens, start in sequences:
            text = tokenizer.decode(tokens[:start], skip_special_tokens=False)
            assert tokenizer.encode(text).ids == tokens[:start]
            lines.append({"prompt": text, "generate": len(tokens) - start})
        found = self._lines(lines, adapted) if lines else []
        return [unit["generated"] == own[start:] for unit, (own, start) in zip(found, sequences)]

    def evaluate(self, units, *, offer, contributor, base, integer_model, out=None, **options):
        """`zklora.evaluation.evaluate`."""
        options = {"offer": offer, "contributor": contributor, "out": out, **options}
        self.requests.append((units, options))
        groups = {}
        for line in units:
            json.dumps(line)
            if "metrics" in line:
                assert line["group"] not in groups and not {"/", "\n"} & set(line["group"])
                assert 1 <= len(line["group"]) <= 64 and line["group"].isascii()
                groups[line["group"]] = (line["metrics"], [])
            else:
                groups[line["group"]][1].append(line)
        own = [unit for _, group in groups.values() for unit in group]
        spans, sequences = [], []
        for unit in own:
            first = len(sequences)
            for part in unit.get("choices", [unit]):
                assert 1 <= part["from"] < len(part["tokens"]) and part.get("length", 1) >= 1
                sequences.append((part["tokens"], part["from"]))
            spans.append(range(first, len(sequences)))
        sums = {side: self.scores(sequences, side == "adapted") for side in ("adapted", "base")}
        answer = {
            "groups": {},
            "per_unit": None,
            "score_bits": self.score_bits,
            "answer": "0" * 64,
            "bits": 0,
        }
        if options.get("per_unit"):
            greedy = self.greedy(sequences, True)
            answer["per_unit"] = [
                None
                if any(sums[side][at] is None for at in span for side in sums)
                else [[sums["adapted"][at], greedy[at]] for at in span]
                for span in spans
            ]
            for span in spans:
                scored = (len(sequences[at][0]) - sequences[at][1] for at in span)
                answer["bits"] += sum(1 + bits(SCORE_TABLE * tokens + 2) for tokens in scored)
        place = 0
        for name, (metrics, group) in groups.items():
            places = range(place, place + len(group))
            place += len(group)
            found = self._group(metrics, group, places, spans, sequences, sums, answer)
            answer["groups"][name] = found
        return answer

    def _group(self, metrics, group, places, spans, sequences, sums, answer):
        count = len(group)
        kept = [
            (unit, spans[place])
            for unit, place in zip(group, places)
            if None not in [sums["base"][at] for at in spans[place]]
        ]
        found = {}

        def sides(choose):
            right = [
                tuple(choose(unit, span, side) for side in ("adapted", "base"))
                for unit, span in kept
            ]
            return {
                "base": sum(base for _, base in right),
                "gained": sum(adapted and not base for adapted, base in right),
                "lost": sum(base and not adapted for adapted, base in right),
            }

        def length(at):
            return len(sequences[at][0]) - sequences[at][1]

        def chosen(unit, span, side, normalise):
            own = [sums[side][at] for at in span]
            if None in own:
                return None
            lengths = [choice["length"] if normalise else 1 for choice in unit["choices"]]
            best = 0
            for at in range(1, len(own)):
                if own[at] * lengths[best] > own[best] * lengths[at]:
                    best = at
            return best

        step = 1 << self.score_bits
        tokens = sum(length(at) for _, span in kept for at in span)
        for metric in metrics:
            if metric == "log_probability":
                found[metric] = {}
                for side in ("adapted", "base"):
                    total = 0
                    for _, (at,) in kept:
                        own = sums[side][at]
                        total += -SCORE_TABLE * length(at) if own is None else own
                    value = (2000 * total + tokens * step) // (2 * tokens * step) if kept else None
                    found[metric][side] = value
                answer["bits"] += bits(-(-1000 * SCORE_TABLE // step) + 1)
            elif metric == "error":
                assert count >= 2
                own = [(sums["adapted"][at] - sums["base"][at], length(at)) for _, (at,) in kept]
                difference = sum(change for change, _ in own)
                square = sum((tokens * change - difference * size) ** 2 for change, size in own)
                left = tokens**4 * step**2 * (len(own) - 1)
                found[metric] = math.isqrt(max(0, 10**6 * len(own) * square - 1) // left)
                found[metric] += bool(square)
                answer["bits"] += 16
            elif metric == "greedy":
                own = [sequences[span[0]] for _, span in kept]
                greedy = {
                    side: dict(zip((span[0] for _, span in kept), self.greedy(own, adapted)))
                    for side, adapted in [("adapted", True), ("base", False)]
                }
                found[metric] = sides(lambda _, span, side: greedy[side][span[0]])
                answer["bits"] += bits((count + 1) * (count + 2) // 2)
            elif metric in ("accuracy", "accuracy_normalised"):
                normalise = metric != "accuracy"
                found[metric] = sides(
                    lambda unit, span, side: chosen(unit, span, side, normalise) == unit["answer"]
                )
                answer["bits"] += bits((count + 1) * (count + 2) // 2)
            else:
                assert metric == "confusion"
                (number,) = {len(unit["choices"]) for unit in group}
                assert number <= 16
                found[metric] = {}
                for side in ("adapted", "base"):
                    table = [[0] * (number + 1) for _ in range(number)]
                    for unit, span in kept:
                        choice = chosen(unit, span, side, False)
                        table[unit["answer"]][number if choice is None else choice] += 1
                    found[metric][side] = table
                rows = [sum(row) for row in found[metric]["base"]]
                answer["bits"] += number * sum(bits(row + 1) for row in rows)
        return {"units": len(kept), "tokens": tokens, "metrics": found if kept else {}}


def bits(values):
    return (values - 1).bit_length()
