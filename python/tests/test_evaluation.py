"""Evaluations against a real contributor: `zklora serve` in a process of its own."""

import json
import os
import shutil
import subprocess

import pytest

import zklora
from conftest import ADAPTERS, BASES, ROOT
from evaluation_double import Double
from zklora import evaluation

TEXT = (ROOT / "fixtures" / "text" / "kjv_held_out.txt").read_text()


class Sale:
    """A contributor with `llama_qv_r4`, its server, and what a buyer needs."""

    def __init__(self, folder, double):
        self.folder, self.double, self.base = folder, double, double.base
        self.artifacts, self.identity = folder / "artifacts", folder / "identity"
        shutil.copytree(double.artifacts, self.artifacts)
        own = ["--base", self.base, "--base-weights", BASES / "tiny-llama"]
        self.own = [*own, "--model", double.integer_model]
        self.run(
            *["offer", "make", "--artifacts", self.artifacts, "--identity", self.identity],
            *[*self.own, "--per-unit", "--bits", "100000", "--bits-per-client", "100000"],
        )
        arguments = ["serve", "--artifacts", self.artifacts, "--identity", self.identity]
        self.server = subprocess.Popen(
            [double.binary, "--json", *arguments, *self.own, "--listen", "127.0.0.1:0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.url = json.loads(self.server.stdout.readline())["url"]
        self.offer = folder / "offer.json"
        evaluation.fetch_offer(self.url, self.offer, sent=folder / "seen.jsonl")

    def run(self, *arguments):
        run = subprocess.run(
            [self.double.binary, "--json", *map(os.fspath, arguments)],
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stderr
        return json.loads(run.stdout)

    def options(self, out):
        return {
            "offer": self.offer,
            "contributor": self.url,
            "base": self.base,
            "integer_model": self.double.integer_model,
            "out": out,
        }

    def evaluate(self, units, out, **options):
        options = {**self.options(out), "sent": self.folder / "sent.jsonl", **options}
        return evaluation.evaluate(units, base_weights=BASES / "tiny-llama", **options)


@pytest.fixture(scope="module")
def sale(tmp_path_factory):
    double = Double(tmp_path_factory.mktemp("double"))
    sale = Sale(tmp_path_factory.mktemp("sale"), double)
    yield sale
    sale.server.kill()
    sale.server.wait()


def units():
    """Sequences and questions, as tokens: one byte of the text each."""
    tokens = list(TEXT.encode()[:2000])
    lines = [{"group": "q", "metrics": ["accuracy", "accuracy_normalised", "confusion"]}]
    for place in range(0, 400, 40):
        prompt = tokens[place : place + 20]
        ends = [tokens[place + 20 + at * 50 :][: 3 + at] for at in range(3)]
        choices = [{"tokens": prompt + end, "from": 20, "length": len(end)} for end in ends]
        lines.append({"group": "q", "choices": choices, "answer": place // 40 % 3})
    lines.append({"group": "s", "metrics": ["log_probability", "error"]})
    for place in range(400, 1400, 100):
        own = tokens[place : place + 30 + place // 100]
        lines.append({"group": "s", "tokens": own, "from": 1 + place // 100})
    # A unit of the first group after those of the second.
    lines.append({**lines[2], "answer": 1})
    return lines


def test_a_contributor_says_what_its_scores_add_up_to(sale, tmp_path):
    """The other implementation of the metrics is in Python."""
    found = sale.evaluate(units(), tmp_path / "out", check_base=True)
    ordered = sorted(units(), key=lambda line: line["group"])
    expected = sale.double.evaluate(ordered, **sale.options(None))
    for name in "qs":
        assert found["groups"][name]["metrics"] == expected["groups"][name]["metrics"]
        assert found["groups"][name]["units"] == expected["groups"][name]["units"]
    assert found["groups"]["s"]["tokens"] == expected["groups"]["s"]["tokens"]
    # Beside the metrics: whether there is an answer, and up to two units without a score.
    assert found["bits"] == expected["bits"] + 2 + 2 * len(units()[1:]).bit_length()
    assert found["report"]["rows_revealed"] == 0 and found["per_unit"] is None


def test_single_scores_are_in_the_order_of_the_units(sale, tmp_path):
    lines = [{"group": "b", "metrics": []}, {"group": "a", "metrics": []}]
    tokens = list(TEXT.encode()[:200])
    own = [tokens[:20], tokens[30:80], tokens[:25], tokens[90:110]]
    for place, sequence in enumerate(own):
        lines.append({"group": "ab"[place % 2], "tokens": sequence, "from": 5})
    found = sale.evaluate(lines, tmp_path / "out", per_unit=True)
    sums = sale.double.scores([(sequence, 5) for sequence in own], True)
    assert [unit[0][0] for unit in found["per_unit"]] == sums
    assert all(isinstance(unit[0][1], bool) for unit in found["per_unit"])


def test_a_sale_is_settled(sale, tmp_path):
    out = tmp_path / "out"
    found = sale.evaluate(units(), out)
    again = sale.evaluate(units(), out, contributor="http://127.0.0.1:1")
    assert again["answer"] == found["answer"], "the folder has the answer"
    delivered = sale.run(
        *["deliver", "--artifacts", sale.artifacts, "--identity", sale.identity],
        *["--adapter", ADAPTERS / "llama_qv_r4", "--request", found["report"]["request"]],
        *["--price", "900 EUR", "--key-by", "2027-01-31", "--out", tmp_path / "delivery"],
    )
    own = {
        "base": sale.base,
        "integer_model": sale.double.integer_model,
        "base_weights": BASES / "tiny-llama",
    }
    payable = evaluation.settle(out, delivery=tmp_path / "delivery", **own)
    assert payable["verdict"] == "PAYABLE"
    settled = evaluation.settle(
        out, key=delivered["key_file"], adapter_out=tmp_path / "adapter", **own
    )
    assert settled["verdict"] == "SETTLED" and settled["units"] == len(units()) - 2
    assert (tmp_path / "adapter" / "adapter_config.json").is_file()
    assert evaluation.report(out)["grade"] == "settled"


def test_refusals_are_errors_that_say_why(sale, tmp_path):
    with pytest.raises(zklora.InputError, match="metrics are a list"):
        sale.evaluate([{"group": "a", "metrics": ["bleu"]}], tmp_path / "metrics")
    with pytest.raises(zklora.ZkloraError, match="5000 tokens"):
        sale.evaluate([{"tokens": [1] * 5000, "from": 1}], tmp_path / "long")
    sent = tmp_path / "sent.jsonl"
    other = tmp_path / "offer.json"
    changed = json.loads(sale.offer.read_text())
    changed["signatures"][0]["sig"] = "A" * 86 + "=="
    other.write_text(json.dumps(changed, separators=(",", ":")))
    with pytest.raises(zklora.VerificationError, match="signature"):
        sale.evaluate(units(), tmp_path / "changed", offer=other, sent=sent)
    assert not sent.exists(), "nothing was sent"


def test_tasks_of_lm_eval_run_on_a_contributors_adapter(sale, tmp_path):
    """The same results as from the other implementation."""
    lm_eval = pytest.importorskip("lm_eval")
    pytest.importorskip("tokenizers")
    from test_lm_eval import LENGTH, TOKENIZER, config, manager, mean, questions

    from zklora import lm_eval as own

    (tmp_path / "tasks").mkdir()
    task = config(
        "next_words",
        tmp_path / "tasks",
        questions(12),
        output_type="multiple_choice",
        doc_to_text="{{text}}",
        doc_to_choice="{{ends}}",
        doc_to_target="{{answer}}",
        metric_list=mean("acc", "acc_norm"),
    )
    options = {"task_manager": manager(tmp_path / "tasks", [task])}
    given = {"tokenizer": TOKENIZER, "max_length": LENGTH}
    sent = {"sent": tmp_path / "sent.jsonl", "base_weights": BASES / "tiny-llama"}
    contributor = {**sale.options(tmp_path / "out"), **sent}
    found = own.evaluate(["next_words"], **options, **given, **contributor)
    plan = own.plan(["next_words"], **options, **given)
    expected = plan.results(sale.double.evaluate(plan.units, **sale.options(None)))
    assert found["results"] == expected["results"]
    assert found["base"]["results"] == expected["base"]["results"]
    assert found["zklora"]["answer"] == evaluation.report(tmp_path / "out")["answer"]
    # The longest sequence is that of the offer.
    assert own.plan(["next_words"], **options, tokenizer=TOKENIZER, offer=sale.offer).units

    # The same from single scores.
    contributor["out"] = tmp_path / "single"
    model = own.ZkloraLM(**given, **contributor)
    single = lm_eval.simple_evaluate(model, tasks=["next_words"], **options)
    for metric, value in found["results"]["next_words"].items():
        assert single["results"]["next_words"][metric] == value, metric
    assert model.bits == evaluation.report(tmp_path / "single" / "1-loglikelihood")["bits"]
