"""lm-evaluation-harness: its results from aggregates are those of its own model class."""

import base64
import functools
import json
import math
import re
import runpy
import subprocess
import sys
import types

import pytest

import zklora
from conftest import BASES, ROOT, with_peft
from evaluation_double import Double

pytest.importorskip("lm_eval")
pytest.importorskip("tokenizers")

import lm_eval.tasks  # noqa: E402

from zklora import lm_eval as own  # noqa: E402
from zklora.lm_eval._tokens import Encoder  # noqa: E402

TOKENIZER = BASES / "tiny-llama"
#: Tokens that tiny-llama reads.
LENGTH = 128
TEXT = (ROOT / "fixtures" / "text" / "kjv_held_out.txt").read_text()
WORDS = TEXT.split()


def questions(number, choices=3):
    """Which word comes next: the right one, and others of the text."""
    made = []
    for place in range(0, 5 * number, 5):
        ends = [WORDS[place + 10 + 17 * more] for more in range(choices)]
        answer = place % choices
        ends[0], ends[answer] = ends[answer], ends[0]
        made.append({"text": " ".join(WORDS[place : place + 10]), "ends": ends, "answer": answer})
    return made


def config(name, folder, docs, **more):
    """Writes a task's documents, and returns its configuration."""
    data = folder / f"{len(list(folder.iterdir()))}.jsonl"
    data.write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    return {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {"test": str(data)},
            "cache_dir": str(folder.parent / "cache"),
        },
        "test_split": "test",
        "metadata": {"version": 1},
        **more,
    }


def mean(*metrics):
    return [
        {"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in metrics
    ]


CHOICES = {
    "output_type": "multiple_choice",
    "doc_to_text": "text",
    "doc_to_choice": "ends",
    "doc_to_target": "answer",
    "metric_list": mean("acc", "acc_norm"),
}
WORD = {
    "output_type": "loglikelihood",
    "doc_to_text": "text",
    "doc_to_target": "end",
    "metric_list": [
        {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
        *mean("acc"),
    ],
}
ROLLING = {
    "output_type": "loglikelihood_rolling",
    "doc_to_text": "",
    "doc_to_target": "text",
    "metric_list": [
        {
            "metric": metric,
            "aggregation": "bits_per_byte" if metric == "bits_per_byte" else "weighted_perplexity",
            "higher_is_better": False,
        }
        for metric in ("word_perplexity", "byte_perplexity", "bits_per_byte")
    ],
}


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    """lm-eval resamples in as many processes as there are cores, and asks pip for packages."""
    monkeypatch.setenv("DISABLE_MULTIPROC", "1")
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda _: None)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def manager(folder, configs):
    """Reads tasks and groups from files, without lm-eval's own, which take seconds to list."""
    for config in configs:
        path = folder / f"{len(list(folder.iterdir()))}.yaml"
        path.write_text(json.dumps(config))
    return lm_eval.tasks.TaskManager(include_path=folder, include_defaults=False)


@pytest.fixture(scope="module")
def double(tmp_path_factory):
    return Double(tmp_path_factory.mktemp("double"))


@pytest.fixture
def evaluate(double, folder, monkeypatch):
    """`zklora.lm_eval.evaluate` with the double in place of a contributor."""
    module = types.ModuleType("zklora.evaluation")
    module.evaluate = double.evaluate
    monkeypatch.setitem(sys.modules, "zklora.evaluation", module)
    monkeypatch.setattr(zklora, "evaluation", module, raising=False)
    double.requests.clear()

    def evaluate(configs, names=None, **options):
        return own.evaluate(
            names or [config.get("group", config.get("task")) for config in configs],
            task_manager=manager(folder, configs),
            contributor="http://127.0.0.1:1",
            offer="offer.json",
            base=double.base,
            integer_model=double.integer_model,
            **options,
        )

    return evaluate


def continuations():
    """Starts of words, of which some are likely; one is after a blank."""
    made = [{"text": TEXT[place : place + 30], "end": "e"} for place in range(3, 99, 12)]
    made += [{"text": TEXT[place : place + 30], "end": " "} for place in range(4, 40, 9)]
    return [*made, {"text": "And all the ", "end": "the"}]


def texts():
    return [{"text": " ".join(WORDS[place : place + 20])} for place in range(0, 120, 20)]


def grouped(folder):
    """A group of two tasks of other sizes, and a task of each kind."""
    made = questions(12)
    return [
        config("verse_one", folder, made[:8], **CHOICES),
        config("verse_two", folder, made[8:], **CHOICES),
        {
            "group": "verses",
            "task": ["verse_one", "verse_two"],
            "aggregate_metric_list": [
                {"metric": metric, "weight_by_size": size}
                for metric, size in [("acc", True), ("acc_norm", False)]
            ],
        },
        config("word", folder, continuations(), **WORD),
        config("rolling", folder, texts(), **ROLLING),
        config("long", folder, [{"text": TEXT}], **ROLLING),
    ]


def hflm(model, **options):
    """lm-eval's own model class, with the tokenizer of tiny-llama."""
    import transformers
    from lm_eval.models.huggingface import HFLM

    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(TOKENIZER / "tokenizer.json"), eos_token="<|endoftext|>"
    )
    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, **options)


def in_lm_eval(model, names, manager, **options):
    """lm-eval's results. It resamples for standard errors: in this process, and seldom."""
    import lm_eval

    return lm_eval.simple_evaluate(
        model, tasks=names, task_manager=manager, bootstrap_iters=10, log_samples=False, **options
    )


def assert_close(ours, theirs):
    """Equal counts, and perplexities within 0.002 nats a token, of which 0.0005 are rounding."""
    assert ours.keys() == theirs.keys()
    for name, values in theirs.items():
        for metric, value in values.items():
            kind = metric.partition(",")[0]
            if "perplexity" in kind and "stderr" not in kind:
                tokens = 3 if kind == "perplexity" else 6 if kind == "word_perplexity" else 1
                assert abs(math.log(ours[name][metric] / value)) < 0.002 * tokens, (name, metric)
            elif "bits" in kind and "stderr" not in kind:
                assert ours[name][metric] == pytest.approx(value, abs=0.002 / math.log(2))
            elif "perplexity" not in kind:
                assert ours[name][metric] == pytest.approx(value, abs=1e-9), (name, metric)


@pytest.mark.torch
def test_results_are_those_of_lm_eval_with_peft(evaluate, double, folder):
    pytest.importorskip("peft")
    import transformers

    names = ["verses", "word", "rolling", "long"]
    configs = grouped(folder)
    found = evaluate(configs, names)
    assert len(double.requests) == 1 and json.loads(json.dumps(found)) == found
    tasks = manager(folder, [])
    theirs = in_lm_eval(hflm(with_peft("llama_qv_r4")), names, tasks)
    assert_close(found["results"], theirs["results"])
    assert_close(found["groups"], theirs["groups"])
    base = transformers.AutoModelForCausalLM.from_pretrained(BASES / "tiny-llama").eval()
    alone = in_lm_eval(hflm(base), names, tasks)
    assert_close(found["base"]["results"], alone["results"])
    assert_close(found["base"]["groups"], alone["groups"])
    for key in ("group_subtasks", "versions", "n-shot", "n-samples", "configs"):
        assert found[key] == theirs[key], key
    # Not all wrong, not all right, and the adapter changes something.
    assert 0 < found["results"]["verses"]["acc,none"] < 1
    assert 0 < found["results"]["word"]["acc,none"] < 1
    assert found["results"]["word"] != found["base"]["results"]["word"]
    from lm_eval.utils import make_table

    ours, theirs = make_table(found), make_table(theirs)
    assert ours.count("\n") == theirs.count("\n")
    assert make_table(found, "groups").count("verses") == 1


@pytest.mark.torch
@pytest.mark.parametrize("begins", [False, True])
def test_tokens_are_those_of_lm_eval(tmp_path, model, begins):
    """With tokenizers of both packages, which start texts with a token or not."""
    import tokenizers
    import transformers
    from lm_eval.models.huggingface import HFLM

    tokenizer = tokenizers.Tokenizer.from_file(str(TOKENIZER / "tokenizer.json"))
    tokenizer.enable_truncation(5)
    if begins:
        template = tokenizers.processors.TemplateProcessing(
            single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 256)]
        )
        tokenizer.post_processor = template
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    named = {
        "bos_token": {"__type": "AddedToken", "content": "<|endoftext|>"},
        "eos_token": "<|endoftext|>",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(named))
    (tmp_path / "config.json").write_text((TOKENIZER / "config.json").read_text())
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert len(loaded.encode("a longer text")) == 13 + begins
    pairs = [
        ("And it came", " to pass"),
        ("And it came ", "to pass"),
        ("And it came \n\t ", "to"),
        ("", " to pass"),
        ("", "<|endoftext|>to pass"),
        ("<|endoftext|>And it", " came"),
        ("Caf\u00e9 \U0001f600 \u2003", "\u4e2d\u6587\u0301"),
        ("e", "\u0301"),
        ("x " * 200, "y" * 20),
        ("x", "y" * 60),
    ]
    rolling = ["", "a", "b" * 60, "c" * 61, "d" * 500 + "\u00e9\U0001f600" * 9, "<|endoftext|>z"]
    for add_bos_token in (None, False, True):
        options = {"max_length": 60, "add_bos_token": add_bos_token}
        from_file = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
        for named, others in [(str(tmp_path), []), (loaded, [from_file])]:
            theirs, sent = HFLM(pretrained=model, tokenizer=named, batch_size=1, **options), []

            def record(requests, sent=sent, **_):
                sent.extend((list(before), list(scored)) for _, before, scored in requests)
                return [(0.0, False)] * len(requests)

            theirs._loglikelihood_tokens = record
            theirs.loglikelihood([types.SimpleNamespace(args=pair) for pair in pairs])
            theirs.loglikelihood_rolling(
                [types.SimpleNamespace(args=(text,)) for text in rolling], disable_tqdm=True
            )
            expected = []
            for before, scored in sent:
                tokens = (before + scored)[-61:]
                expected.append((tokens, len(tokens) - len(scored)))
            ours = [Encoder(named, **options)]
            ours += [Encoder(other, prefix_token_id=256, **options) for other in others]
            with pytest.MonkeyPatch.context() as patch:
                patch.setitem(sys.modules, "transformers", None)
                if add_bos_token is None:
                    ours.append(Encoder(tmp_path / "tokenizer.json", **options))
                    ours.append(Encoder(tmp_path, **options))
                else:
                    with pytest.raises(zklora.InputError, match="needs transformers"):
                        Encoder(tmp_path, **options)
            for encoder in ours:
                found = [encoder.sequence(*pair, "it") for pair in pairs]
                found += [window for text in rolling for window in encoder.windows(text, "it")]
                assert found == expected, (encoder.tokenizer, add_bos_token)
    assert Encoder(tmp_path).max_length == HFLM(pretrained=model, tokenizer=loaded).max_length


@pytest.mark.torch
def test_f1_and_mcc_come_from_one_table(evaluate, double, folder):
    pytest.importorskip("peft")
    docs = [
        {"text": TEXT[place : place + 30], "ends": ["e", " "], "answer": place % 2}
        for place in range(3, 150, 7)
    ]
    metrics = [{"metric": metric} for metric in ("acc", "f1", "mcc")]
    configs = [config("both", folder, docs, **{**CHOICES, "metric_list": metrics})]
    found = evaluate(configs)
    theirs = in_lm_eval(hflm(with_peft("llama_qv_r4")), ["both"], manager(folder, []))
    ours, theirs = found["results"]["both"], theirs["results"]["both"]
    for metric in ("acc,none", "acc_stderr,none", "f1,none", "mcc,none"):
        assert ours[metric] == pytest.approx(theirs[metric])
    assert 0 < ours["f1,none"] < 1 and ours["f1_stderr,none"] == "N/A"
    ((units, _),) = double.requests
    assert [line["metrics"] for line in units if "metrics" in line] == [["confusion"]]


def test_a_group_can_be_one_number(evaluate, double, folder):
    configs = grouped(folder)
    outer = {"group": "all", "task": ["verses", "verse_three"]}
    outer["aggregate_metric_list"] = [{"metric": "acc", "weight_by_size": True}]
    configs += [config("verse_three", folder, questions(3), **CHOICES), outer]
    apart = evaluate(configs, ["all"], metrics=["acc"])
    together = evaluate([], ["all"], metrics=["acc"], subtasks=False)
    assert together["results"].keys() == {"all"} and len(apart["results"]) == 5
    for one, other in [(apart, together), (apart["base"], together["base"])]:
        one, other = one["groups"]["all"], other["groups"]["all"]
        assert one["acc,none"] == pytest.approx(other["acc,none"])
        assert one["sample_len"] == other["sample_len"] == 15
    assert together["zklora"]["bits"] < apart["zklora"]["bits"]
    with pytest.raises(zklora.InputError, match="mean of `acc_norm` is not weighted by size"):
        evaluate([], ["verses"], subtasks=False)
    assert len(double.requests) == 2


def test_a_table_compares_base_and_adapted(evaluate, folder):
    found = evaluate([config("one|two\n", folder, questions(3), **CHOICES)])
    table = own.make_table(found)
    assert table.count("\n") == 3 and "| one\\|two\\n | acc | " in table


class Recorder(Encoder):
    """Keeps the requests of lm-eval."""

    def loglikelihood(self, requests, disable_tqdm=False):
        self.pairs = [request.args for request in requests]
        return [(-1.0, False)] * len(requests)

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        self.texts = [request.args for request in requests]
        return [-1.0] * len(requests)


def test_requests_and_examples_are_those_of_lm_eval(folder):
    """With few-shot examples, contexts as choices, and functions for the documents."""
    docs = [{**made, "end": "e", "number": str(at)} for at, made in enumerate(questions(8))]
    swapped = {"doc_to_text": "{{answer}}", "doc_to_choice": "ends", "doc_to_target": "text"}
    only_acc = {"metric_list": mean("acc"), "fewshot_split": "test", "num_fewshot": 1}
    configs = [
        config("choices", folder, docs, **{**CHOICES, "fewshot_split": "test"}),
        config("contexts", folder, docs, **{**CHOICES, **swapped, **only_acc}),
        config("never", folder, docs, **{**WORD, "num_fewshot": 0}, task_alias="alias"),
        config("rolling", folder, [{"text": TEXT}], **ROLLING, num_fewshot=0),
    ]
    names, tasks = [config["task"] for config in configs], manager(folder, configs)
    model = Recorder(TOKENIZER)
    for options in ({}, {"num_fewshot": 2, "limit": 5}):
        theirs = in_lm_eval(model, names, tasks, **options)
        found = own.plan(names, tokenizer=TOKENIZER, task_manager=tasks, **options)
        units = [line for line in found.units if "metrics" not in line]
        expected = [model.sequence(*pair, "it") for pair in model.pairs]
        expected += [window for text in model.texts for window in model.windows(*text, "it")]
        parts = [part for unit in units for part in unit.get("choices", [unit])]
        assert [(part["tokens"], part["from"]) for part in parts] == expected
        about = found._about()
        for key, value in about.items():
            assert value == theirs[key], key


@pytest.mark.torch
@pytest.mark.parametrize("several", [False, True])
def test_dialogues_are_those_of_lm_eval(folder, model, several):
    """Also with a template that refuses the system's message."""
    theirs = hflm(model)
    theirs.tokenizer.chat_template = (
        "{% for message in messages %}"
        "{% if message.role == 'system' %}{{ raise_exception('none') }}{% endif %}"
        "<{{ message.role }}>{{ message.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    ours = Recorder(theirs.tokenizer, prefix_token_id=256)
    dialogue = [{"role": role, "content": role} for role in ("system", "user", "assistant")]
    for more in (True, False):
        assert ours.apply_chat_template(dialogue, more) == theirs.apply_chat_template(
            dialogue, more
        )
    config_of_task = {**CHOICES, "fewshot_split": "test", "num_fewshot": 1}
    tasks = manager(folder, [config("one", folder, questions(4), **config_of_task)])
    options = {
        "system_instruction": "Be brief.",
        "apply_chat_template": True,
        "fewshot_as_multiturn": several,
    }
    in_lm_eval(ours, ["one"], tasks, **options)
    found = own.plan(["one"], tokenizer=theirs.tokenizer, task_manager=tasks, **options)
    expected = [ours.sequence(*pair, "it")[0] for pair in ours.pairs]
    assert expected == [part["tokens"] for unit in found.units[1:] for part in unit["choices"]]
    assert "<assistant>" in ours.pairs[0][0] and ours.pairs[0][0].count("<user>") == 1 + several
    with pytest.raises(zklora.InputError, match="a chat template needs transformers"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "transformers", None)
            Encoder(TOKENIZER).apply_chat_template(dialogue)


def test_a_task_may_count_words_its_own_way(folder):
    """Like wikitext, whose function of the results only says what to divide by."""

    def counted(doc, results):
        (total,) = results
        return {"word_perplexity": (total, 7), "bits_per_byte": (total, len(doc["text"]))}

    docs = [{"text": "a b"}]
    names = [config("one", folder, docs, **ROLLING, process_results=counted)]
    found = own.plan(names, tokenizer=TOKENIZER, task_manager=manager(folder, []), metrics=METRICS)
    metrics = {"log_probability": {"adapted": -1000, "base": -2000}}
    groups = {"0-one": {"units": 1, "tokens": 3, "metrics": metrics}}
    found = found.results({"groups": groups, "answer": "", "bits": 24})
    assert found["results"]["one"]["word_perplexity,none"] == pytest.approx(math.exp(3 / 7))
    assert found["base"]["results"]["one"]["bits_per_byte,none"] == pytest.approx(2 / math.log(2))


METRICS = ["word_perplexity", "bits_per_byte"]


def plan(configs, folder, **options):
    names = [config.get("group", config.get("task")) for config in configs]
    options = {"tokenizer": TOKENIZER, **options}
    return own.plan(names, task_manager=manager(folder, configs), **options)


FIRST = {"doc_to_target": 0}


def custom(doc, results):
    return {"acc": 1.0, "perplexity": results[0][0] * 2}


@pytest.mark.parametrize(
    "more, why",
    [
        ({**CHOICES, "metric_list": [{"metric": "brier_score"}]}, "metric `brier_score`"),
        ({**CHOICES, "metric_list": mean("acc_mutual_info", "acc")}, "metric `acc_mutual_info`"),
        ({**CHOICES, "process_results": custom}, "process_results"),
        (
            {**CHOICES, "metric_list": [{"metric": "acc", "aggregation": "median"}]},
            "aggregation of metric acc is not mean",
        ),
        ({**WORD, "process_results": custom}, "metric `(acc|perplexity)`"),
        ({**ROLLING, "metric_list": mean("byte_perplexity")}, "metric `byte_perplexity`"),
        ({**WORD, "output_type": "generate_until", "metric_list": mean("exact_match")}, "generate"),
        (
            {**CHOICES, "filter_list": [{"name": "odd", "filter": [{"function": "lowercase"}]}]},
            "filter `odd`",
        ),
        ({**CHOICES, "doc_to_target": [0, 1]}, "2 right answers"),
        ({**CHOICES, "doc_to_target": -1}, "no question has an answer"),
        ({**CHOICES, "metric_list": mean("acc", "f1")}, "f1"),
        (
            {**CHOICES, "doc_to_choice": "{{['a', 'b' if answer == 0 else '']}}", **FIRST},
            "document 1: acc_norm divides by the length of an empty choice",
        ),
        ({**CHOICES, "doc_to_choice": ["b" * 200, "a"], "doc_to_target": 0}, "201 tokens"),
        ({**CHOICES, "doc_to_text": " ", "target_delimiter": ""}, "context has no token"),
        ({**WORD, "doc_to_target": "{{''}}"}, "no token of its own"),
        ({**WORD, "doc_to_text": "", "doc_to_target": "{{''}}"}, "no token of its own"),
    ],
)
def test_what_aggregates_cannot_give_is_refused_by_name(evaluate, double, folder, more, why):
    docs = [{**made, "end": "e"} for made in questions(3)]
    with pytest.raises(zklora.InputError, match=f"(?s)odd name.*{why}" if why else "") as error:
        evaluate([], [config("odd name", folder, docs, **more)])
    assert not double.requests, error


def test_wrong_arguments_are_refused(folder, double):
    configs = [config("one", folder, questions(3), **CHOICES)]
    for options, why in [
        ({"limit": 0}, "limit is 0"),
        ({"limit": -1}, "limit is -1"),
        ({"max_length": 0}, "max_length is 0"),
        ({"max_length": 2048, "integer_model": double.integer_model}, "at most 2047"),
        ({"metrics": ["f1"]}, "none of the wanted metrics"),
        ({"tokenizer": folder / "none"}, "there is no tokenizer"),
        ({"tokenizer": None}, "neither tokenizer nor base"),
    ]:
        with pytest.raises(zklora.InputError, match=why):
            plan(configs, folder, **options)
    with pytest.raises(zklora.InputError, match="no task is given"):
        own.plan([], tokenizer=TOKENIZER)
    with pytest.raises(zklora.InputError, match="cannot be loaded"):
        own.plan(["none"], tokenizer=TOKENIZER, task_manager=manager(folder, []))
    with pytest.raises(zklora.InputError, match="cannot be loaded"):
        plan([config("empty", folder, [], **CHOICES)], folder)
    assert plan(configs, folder, integer_model=double.integer_model).units
    offer = folder / "offer.json"
    payload = base64.b64encode(b'{"limits": {"unit_tokens": 9}}').decode()
    offer.write_text(json.dumps({"payload": payload}))
    cut = plan(configs, folder, offer=offer).units[1]["choices"]
    assert {len(choice["tokens"]) for choice in cut} == {9}


def test_names_and_texts_of_tasks_are_data(folder):
    odd = "../../etc/passwd\n\u202e|" + "x" * 80
    docs = questions(4)
    docs[0]["text"] = "\u4e2d\u6587\u0301 \U0001f600"
    docs[1]["ends"] = [docs[1]["ends"][0]] * 3
    docs[2] = docs[3]
    configs = [config(name, folder, docs, **CHOICES) for name in (odd, odd + "y", "__class__")]
    found = plan(configs, folder, limit=3)
    names = [line["group"] for line in found.units if "metrics" in line]
    assert len(set(names)) == 3 and all(
        re.fullmatch("[a-zA-Z0-9._-]{1,64}", name) for name in names
    )
    assert len(found.units) == 3 * 4
    lengths = [choice["length"] for choice in found.units[1]["choices"]]
    assert lengths == [len(end) for end in docs[0]["ends"]]
    half = plan(configs[:1], folder, limit=0.5)
    assert len(half.units) == 3
    with pytest.raises(zklora.InputError) as error:
        plan(
            [config(odd + "z", folder, docs, **{**CHOICES, "output_type": "generate_until"})],
            folder,
        )
    assert "\n" not in str(error.value) and "\u202e" not in str(error.value)


def test_units_that_the_base_model_cannot_score_count_nowhere(folder):
    docs = [*questions(4), {**questions(1)[0], "answer": 5}]
    configs = [
        config("choices", folder, docs, **CHOICES),
        config("word", folder, continuations()[:3], **WORD),
        config("rolling", folder, [{"text": "a " * 100}, {"text": "b c"}], **ROLLING),
    ]
    found = plan(configs, folder)
    counts = {"base": 1, "gained": 1, "lost": 0}
    probabilities = {"log_probability": {"adapted": -500, "base": -1000}}
    metrics = {
        "0-choices": {"accuracy": counts, "accuracy_normalised": counts},
        "1-word": {**probabilities, "greedy": counts},
        "2-rolling": probabilities,
    }
    units = dict.fromkeys(metrics, 0)
    tokens = dict.fromkeys(metrics, 0)
    for line in found.units:
        if "metrics" not in line:
            units[line["group"]] += 1
            tokens[line["group"]] += len(line.get("tokens", ())) - line.get("from", 0)
    assert units == {"0-choices": 4, "1-word": 3, "2-rolling": 3} and tokens["1-word"] == 4

    def results(**fewer):
        groups = {}
        for name, values in metrics.items():
            left = units[name] - fewer.get(name[2:], 0)
            size = tokens[name] - fewer.get(name[2:], 0)
            groups[name] = {"units": left, "tokens": size, "metrics": values if left else {}}
        return found.results({"groups": groups, "answer": "", "bits": 0})

    every = results()["results"]
    # lm-eval counts a question without an answer among its choices as wrong.
    assert every["choices"]["acc,none"] == 2 / 5 and every["word"]["acc,none"] == 2 / 3
    assert every["word"]["perplexity,none"] == pytest.approx(math.exp(0.5 * 4 / 3))
    assert every["rolling"]["byte_perplexity,none"] == pytest.approx(math.exp(0.5))
    fewer = results(choices=1, word=1)
    assert fewer["zklora"]["base_unscored"] == 2
    fewer = fewer["results"]
    assert fewer["choices"]["acc,none"] == 2 / 4 and fewer["word"]["acc,none"] == 2 / 2
    assert fewer["word"]["perplexity,none"] == pytest.approx(math.exp(0.5 * 3 / 2))
    assert fewer["choices"]["sample_len"] == 4 and fewer["word"]["sample_len"] == 2
    # A part of the texts has no value in lm-eval.
    assert math.isnan(results(rolling=1)["results"]["rolling"]["byte_perplexity,none"])
    for values in results(choices=4, word=3, rolling=3)["results"].values():
        numbers = [value for value in values.values() if isinstance(value, float)]
        assert numbers and all(map(math.isnan, numbers))


def zklora_model(double, **options):
    return own.ZkloraLM(
        contributor="http://127.0.0.1:1",
        offer="offer.json",
        base=double.base,
        integer_model=double.integer_model,
        **options,
    )


@pytest.mark.torch
def test_the_model_class_gives_single_scores(evaluate, double, folder):
    pytest.importorskip("peft")
    # A greedy score of the double needs whole characters as its context.
    made = [
        config("choices", folder, [*questions(4), *questions(2)], **CHOICES),
        config("word", folder, continuations(), **WORD),
        config("rolling", folder, texts()[:2], **ROLLING),
    ]
    names, tasks = ["choices", "word", "rolling"], manager(folder, made)
    model = zklora_model(double, out="out")
    found = in_lm_eval(model, names, tasks)
    theirs = in_lm_eval(hflm(with_peft("llama_qv_r4")), names, tasks)
    assert_close(found["results"], theirs["results"])
    assert [options["out"] for _, options in double.requests] == [
        "out/1-loglikelihood",
        "out/2-rolling",
    ]
    assert all(options["per_unit"] for _, options in double.requests)
    units = [unit for unit in double.requests[0][0] if "choices" in unit]
    sequences = [(tuple(one["tokens"]), one["from"]) for unit in units for one in unit["choices"]]
    assert len(set(sequences)) == len(sequences) < 6 * 3 + len(continuations()) - 3
    assert model.bits > 0


def test_the_model_class_says_what_it_cannot_do(evaluate, double, folder, monkeypatch):
    with pytest.raises(zklora.InputError, match="needs offer="):
        own.ZkloraLM.create_from_arg_string("contributor=http://127.0.0.1:1", {"batch_size": 1})
    model = zklora_model(double)
    with pytest.raises(zklora.InputError, match="scores texts and generates none"):
        model.generate_until([])
    request = types.SimpleNamespace(args=("And it came", " to pass"))
    answer = {"per_unit": [None], "score_bits": 10, "bits": 5}
    monkeypatch.setattr(sys.modules["zklora.evaluation"], "evaluate", lambda *_, **__: answer)
    # The lowest score that a unit can have.
    assert model.loglikelihood([request]) == [(-64.0 * 8, False)]
    assert model.loglikelihood([]) == model.loglikelihood_rolling([]) == []


def test_the_command_line_is_that_of_lm_eval_with_one_more_model(monkeypatch, capsys):
    from lm_eval.api.registry import get_model

    monkeypatch.setattr(sys, "argv", ["", "run", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("zklora.lm_eval", run_name="__main__", alter_sys=True)
    assert ended.value.code == 0 and "--model_args" in capsys.readouterr().out
    assert get_model("zklora") is own.ZkloraLM


def test_without_lm_eval_the_error_says_what_to_install():
    code = "import sys; sys.modules['lm_eval'] = None; import zklora; import zklora.lm_eval"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 1 and "pip install 'zklora[lm-eval]'" in run.stderr


@pytest.mark.torch
def test_lm_evals_own_model_class_works_with_remote_deltas(contributor, model, folder):
    """`HFLM` around a model that `remote_lora` patched: rows leave, and every row is proven."""
    pytest.importorskip("peft")
    names = ["verses", "word", "rolling"]
    tasks = manager(folder, grouped(folder))
    options = {"limit": 2}
    with zklora.remote_lora(model, [contributor], base_folder=BASES / "tiny-llama") as remote:
        ours = in_lm_eval(hflm(model), names, tasks, **options)
    assert remote.reports[0]["verified"] and remote.reports[0]["pinned"]
    theirs = in_lm_eval(hflm(with_peft("llama_qv_r4")), names, tasks, **options)
    assert_close(ours["results"], theirs["results"])
    assert ours["results"]["word"]["perplexity,none"] == pytest.approx(
        theirs["results"]["word"]["perplexity,none"], rel=1e-3
    )


def test_the_example_of_the_documentation_runs(evaluate, double, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fixtures").symlink_to(ROOT / "fixtures")
    (tmp_path / "integer").symlink_to(double.integer_model)
    text = (ROOT / "docs" / "python.md").read_text()
    text = text[text.index("## lm-evaluation-harness") :]
    blocks = {
        kind: re.search(f"^```{kind}\n(.*?)^```$", text, re.S | re.M)[1]
        for kind in ("yaml", "json", "py")
    }
    (tmp_path / "verses.yaml").write_text(blocks["yaml"])
    (tmp_path / "verses.jsonl").write_text(blocks["json"])
    # Without lm-eval's own tasks, and without a cache in the home folder.
    manager = functools.partial(lm_eval.tasks.TaskManager, include_defaults=False)
    monkeypatch.setattr(own._tasks, "TaskManager", manager)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    names = {}
    exec(blocks["py"], names)
    assert names["results"]["results"]["verses"]["sample_len"] == 2
    ((_, options),) = double.requests
    assert options["offer"] == "offer.json"
