"""Tasks of lm-evaluation-harness as groups of units, and their metrics from a group's aggregates.

A task's own functions say which metrics it has. They get made-up scores before anything is sent:
what they do with them shows whether aggregates are enough.
"""

import contextlib
import math
import random
import re

import numpy as np
from lm_eval.api import metrics as known
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager

from .._foreign_text import shown
from ..errors import InputError

#: Limit of a confusion's number of choices, as in docs/evaluation.md.
MOST_CONFUSED = 16
#: Limit of a question's number of choices.
MOST_CHOICES = 1024
#: lm-eval's seeds, for Python, NumPy and the choice of few-shot examples.
SEEDS = (0, 1234, 1234)

_OTHERWISE = (
    "Leave it out with `metrics`, or, if the contributor's offer allows scores of single units, "
    "run the task with `python -m zklora.lm_eval --model zklora`"
)


@contextlib.contextmanager
def _seeded():
    """Sets the seeds that lm-eval sets, and restores the caller's."""
    own, own_numpy = random.getstate(), np.random.get_state()
    random.seed(SEEDS[0])
    np.random.seed(SEEDS[1])
    try:
        yield
    finally:
        random.setstate(own)
        np.random.set_state(own_numpy)


def _foreign(what, function, *args, **kwargs):
    """Calls code of a task, whose exceptions may be of any type."""
    try:
        return function(*args, **kwargs)
    except InputError:
        raise
    except Exception as error:
        kind = type(error).__name__
        raise InputError(f"{what}: {kind}: {shown(error)}") from error


class Tasks:
    """Loaded tasks by name, with their requests; and the groups that they are in."""

    def __init__(self, names, include_path, task_manager, num_fewshot, limit, **prompts):
        names = [names] if isinstance(names, (str, dict)) else list(names)
        if not names:
            raise InputError("no task is given: pass names of tasks, such as ['arc_easy']")
        if limit is not None and limit <= 0:
            raise InputError(f"limit is {limit}: pass a positive number of documents, or None")
        with _seeded():
            if task_manager is None:
                task_manager = TaskManager(include_path=include_path)
            found = _foreign("the tasks cannot be loaded", task_manager.load, names)
            self.tasks = found["tasks"]
            self.groups = found.get("groups") or {}
            for name, task in self.tasks.items():
                _check(name, task)
                _prepare(task, num_fewshot)
            for name, task in self.tasks.items():
                _build(name, task, limit, **prompts)


def _refuse(name, why):
    raise InputError(f"task `{shown(name)}`: {why}")


def _check(name, task):
    """Refuses what no aggregate can give, before a request is built."""
    kind = task.OUTPUT_TYPE
    if not isinstance(task, ConfigurableTask):
        _refuse(name, "it is written in Python and not configurable, which is not supported")
    if kind == "generate_until":
        _refuse(
            name,
            "it generates text (generate_until), and a contributor only scores texts. Choose tasks "
            "of the kinds multiple_choice, loglikelihood and loglikelihood_rolling",
        )
    if kind not in _KINDS:
        _refuse(name, f"its kind `{shown(kind)}` is not known")
    if getattr(task, "MULTIMODAL", False):
        _refuse(name, "it has images or sounds, which a contributor cannot score")
    for entry in task.config.filter_list or []:
        functions = [part.get("function") for part in entry.get("filter", [])]
        if any(function != "take_first" for function in functions):
            _refuse(
                name,
                f"its filter `{shown(entry.get('name'))}` changes single results, which "
                f"aggregates do not show. {_OTHERWISE}",
            )


def _prepare(task, num_fewshot):
    """Sets the number of examples as lm-eval does: 0 in a task's file stays."""
    own = task.get_config("num_fewshot")
    if num_fewshot is not None and own != 0:
        task.set_config(key="num_fewshot", value=num_fewshot)
    elif own is None:
        task.set_config(key="num_fewshot", value=0)
    task.set_fewshot_seed(seed=SEEDS[2])


def _build(name, task, limit, **prompts):
    if limit is not None:
        limit = math.ceil(len(task.eval_docs) * limit) if limit < 1 else int(limit)
    _foreign(
        f"task `{shown(name)}`: its requests cannot be made",
        task.build_all_requests,
        limit=limit,
        rank=0,
        world_size=1,
        cache_requests=False,
        **prompts,
    )


def _documents(task):
    """Returns every document with its requests, in order."""
    found = {}
    for instance in task.instances:
        found.setdefault(instance.doc_id, []).append(instance)
    return [(own[0].doc, sorted(own, key=lambda instance: instance.idx)) for own in found.values()]


class Group:
    """A group of units of one request."""

    def __init__(self, name, metrics):
        self.name = name
        self.metrics = metrics
        self.units = []

    def lines(self):
        """The declaration, and the units."""
        yield {"group": self.name, "metrics": self.metrics}
        for unit in self.units:
            yield {"group": self.name, **unit}

    def left_out(self, answer):
        """How many units count in no metric, because the base model could not score them."""
        return len(self.units) - answer["groups"][self.name]["units"]


def group_name(place, name):
    """A name that a group may have, for a task. The task's own name may have any characters."""
    return f"{place}-{re.sub('[^a-zA-Z0-9_]', '_', name)[:40]}"


def _wanted(name, task, wanted):
    """Returns the task's metrics with their aggregations, as far as they are wanted."""
    found = {
        metric: function
        for metric, function in task.aggregation().items()
        if wanted is None or metric in wanted
    }
    if not found:
        own = ", ".join(f"`{shown(metric)}`" for metric in task.aggregation())
        _refuse(name, f"it has none of the wanted metrics, but {own or 'no metric at all'}")
    return found


def _filters(task):
    return [entry["name"] for entry in task.config.filter_list or []] or ["none"]


def _stderr(aggregation, items):
    """lm-eval's closed form, for a mean. It resamples others, which needs single results."""
    if aggregation is known.mean and len(items) > 1:
        return known.mean_stderr(items)
    return "N/A"


class Questions:
    """A task of multiple choice: what counts is how many right answers there are."""

    _LENGTHS = {"acc_norm": len, "acc_bytes": lambda choice: len(choice.encode())}
    POSSIBLE = ("acc", "acc_bytes", "acc_norm", "f1", "mcc")

    def __init__(self, label, name, task, encoder, wanted, errors):
        del errors
        self._start()
        self._read(name, task, encoder, wanted)
        self.filters = _filters(task)
        self._make_groups(label, name)

    def _start(self):
        self.metrics = {}
        #: Questions whose answer is none of the choices: lm-eval counts them as wrong.
        self.without_answer = 0
        #: Choices, their tokens, and the answer.
        self._questions = []

    def _read(self, name, task, encoder, wanted):
        self.metrics = _wanted(name, task, wanted)
        impossible = [metric for metric in self.metrics if metric not in self.POSSIBLE]
        if impossible:
            _impossible(name, impossible, self.POSSIBLE)
        for metric, aggregation in self.metrics.items():
            if metric not in ("f1", "mcc") and aggregation is not known.mean:
                _refuse(name, f"the aggregation of metric {metric} is not mean. {_OTHERWISE}")
        own = type(task)
        if (
            task.config.process_results is not None
            or own.process_results is not ConfigurableTask.process_results
            or own.construct_requests is not ConfigurableTask.construct_requests
        ):
            _refuse(
                name,
                "it computes its metrics from single results (process_results), which aggregates "
                f"do not show. {_OTHERWISE}",
            )
        for doc, requests in _documents(task):
            self._add(name, task, doc, requests, encoder)

    def _add(self, name, task, doc, requests, encoder):
        place = requests[0].doc_id
        what = f"task `{shown(name)}`, document {place}"
        choices = _foreign(what, task.doc_to_choice, doc)
        if task.multiple_input:
            answer = _foreign(what, task.doc_to_text, doc)
        else:
            answer = _foreign(what, task.doc_to_target, doc)
        if isinstance(answer, str) and answer in choices:
            answer = choices.index(answer)
        if isinstance(answer, (list, tuple, set)):
            if len(answer) != 1:
                raise InputError(
                    f"{what}: it has {len(answer)} right answers, and aggregates count one. "
                    f"{_OTHERWISE}"
                )
            (answer,) = answer
        if not all(isinstance(choice, str) for choice in choices):
            raise InputError(f"{what}: its choices are no texts")
        if len(requests) != len(choices):
            raise InputError(f"{what}: {len(requests)} requests for {len(choices)} choices")
        if len(choices) > MOST_CHOICES:
            raise InputError(f"{what}: {len(choices)} choices, at most {MOST_CHOICES} are possible")
        tokens = [
            encoder.sequence(*request.args, f"{what}, choice {number}")
            for number, request in enumerate(requests)
        ]
        for metric in self._LENGTHS.keys() & self.metrics.keys():
            if "" in choices:
                raise InputError(f"{what}: {metric} divides by the length of an empty choice")
        answer = next((own for own in range(len(choices)) if own == answer), None)
        if answer is None:
            self.without_answer += 1
        else:
            self._questions.append((choices, tokens, answer))

    def _make_groups(self, label, name):
        if not self._questions:
            _refuse(name, "no question has an answer among its choices: use a split with labels")
        self._confusion = not {"f1", "mcc"}.isdisjoint(self.metrics)
        if self._confusion:
            self._check_confusion(name)
        lengths = {
            metric: [[own(choice) for choice in choices] for choices, _, _ in self._questions]
            for metric, own in self._LENGTHS.items()
            if metric in self.metrics
        }
        first, *others = lengths or [None]
        metrics = []
        if self._confusion:
            metrics.append("confusion")
        elif "acc" in self.metrics:
            metrics.append("accuracy")
        if first is not None:
            metrics.append("accuracy_normalised")
        self.groups = [self._group(label, metrics, lengths.get(first))]
        #: The group that has a normalised metric.
        self._normalised = {first: self.groups[0]}
        for metric in others:
            if lengths[metric] == lengths[first]:
                self._normalised[metric] = self.groups[0]
            else:
                own = self._group(f"{label}.{metric}", ["accuracy_normalised"], lengths[metric])
                self.groups.append(own)
                self._normalised[metric] = own

    def _group(self, label, metrics, lengths):
        group = Group(label, metrics)
        for place, (_, tokens, answer) in enumerate(self._questions):
            own = [1] * len(tokens) if lengths is None else lengths[place]
            choices = [
                {"tokens": ids, "from": start, "length": length}
                for (ids, start), length in zip(tokens, own)
            ]
            group.units.append({"choices": choices, "answer": answer})
        return group

    def _check_confusion(self, name):
        """Refuses what has no table, and what the task's aggregation cannot take."""
        numbers = {len(choices) for choices, _, _ in self._questions}
        (number, *others) = sorted(numbers)
        if others or number > MOST_CONFUSED or self.without_answer:
            _refuse(
                name,
                f"f1 and mcc need questions with the same number of choices, at most "
                f"{MOST_CONFUSED}, and an answer. {_OTHERWISE}",
            )
        made_up = [(answer, place % number) for place, (_, _, answer) in enumerate(self._questions)]
        for metric in {"f1", "mcc"} & self.metrics.keys():
            what = f"task `{shown(name)}`: metric {metric} cannot be computed"
            values = [
                float(_foreign(what, self.metrics[metric], items))
                for items in (made_up, made_up[::-1])
            ]
            if not np.allclose(*values, equal_nan=True):
                _refuse(name, f"metric {metric} depends on the order of documents. {_OTHERWISE}")

    def values(self, answer, side):
        """Returns the metrics of one side, ``adapted`` or ``base``, as lm-eval names them."""
        found = answer["groups"][self.groups[0].name]
        count, metrics = found["units"], found["metrics"]
        values = {"sample_len": count + self.without_answer}
        for metric, aggregation in self.metrics.items():
            items = None
            if metric in ("f1", "mcc"):
                items = count and _pairs(metrics["confusion"][side])
            elif metric == "acc" and self._confusion:
                table = count and metrics["confusion"][side]
                right = count and sum(row[place] for place, row in enumerate(table))
                items = self._items(right, count)
            else:
                group = self._normalised.get(metric, self.groups[0])
                own = answer["groups"][group.name]["metrics"]
                name = "accuracy" if metric == "acc" else "accuracy_normalised"
                items = self._items(count and right_answers(own[name], side), count)
            self._put(values, metric, aggregation, items if count else None)
        return values

    def _items(self, right, count):
        return [1.0] * right + [0.0] * (count - right + self.without_answer)

    def _put(self, values, metric, aggregation, items):
        value = float(aggregation(items)) if items else math.nan
        stderr = _stderr(aggregation, items) if items else "N/A"
        for own in self.filters:
            values[f"{metric},{own}"] = value
            values[f"{metric}_stderr,{own}"] = stderr


class AddedUp(Questions):
    """The tasks of a group as one group of units, for a mean that is weighted by size."""

    def __init__(self, label, name, group, encoder, wanted):
        self._start()
        self.filters = ["none"]
        #: Names of the tasks, which have no results of their own.
        self.tasks = []
        wanted = self._means(name, group, wanted)
        found = set()
        for task in group.get_all_tasks():
            if task.OUTPUT_TYPE != "multiple_choice" or _filters(task) != self.filters:
                _cannot_add(name, f"`{shown(task.task_name)}` is no plain task of multiple choice")
            self.tasks.append(task.task_name)
            self._read(task.task_name, task, encoder, wanted)
            if any(function is not known.mean for function in self.metrics.values()):
                _cannot_add(name, f"`{shown(task.task_name)}` has another aggregation than mean")
            found.add(frozenset(self.metrics))
        if len(found) != 1:
            _cannot_add(name, "its tasks have different metrics")
        self._make_groups(label, name)

    def _means(self, name, group, wanted):
        means = set()
        for own in group.aggregate_metric_list or []:
            if wanted is None or own.metric in wanted:
                if not own.weight_by_size or own.filter_list not in (None, self.filters):
                    _cannot_add(name, f"the mean of `{shown(own.metric)}` is not weighted by size")
                means.add(own.metric)
        if not means:
            _cannot_add(name, "it has no mean over its tasks")
        return means

    def _put(self, values, metric, aggregation, items):
        super()._put(values, metric, aggregation, items)
        # lm-eval pools the errors of tasks, which are not known.
        values[f"{metric}_stderr,none"] = "N/A"


def _cannot_add(name, why):
    raise InputError(f"group `{shown(name)}`: {why}: pass subtasks=True")


def added_up(groups, encoder, wanted):
    """Returns the outermost groups, each as one group of units."""
    inner = {child.name for group in groups.values() for child in group.get_all_groups()}
    outer = [(name, group) for name, group in groups.items() if name not in inner]
    return {
        name: AddedUp(group_name(place, name), name, group, encoder, wanted)
        for place, (name, group) in enumerate(outer)
    }


def right_answers(counts, side):
    """The units that one side has right."""
    adapted = counts["base"] + counts["gained"] - counts["lost"]
    return adapted if side == "adapted" else counts["base"]


def _pairs(table):
    """Pairs of answer and choice from a confusion. No score counts as the choice after it."""
    pairs = []
    for answer, row in enumerate(table):
        *choices, none = row
        for choice, count in enumerate(choices):
            pairs += [(answer, choice)] * count
        pairs += [(answer, (answer + 1) % len(choices))] * none
    return pairs


def _impossible(name, metrics, possible):
    which = ", ".join(f"`{shown(metric)}`" for metric in metrics)
    _refuse(
        name,
        f"metric {which} does not follow from aggregates. Possible are {', '.join(possible)}. "
        f"{_OTHERWISE}",
    )


#: Made-up log-probabilities. A metric that returns them unchanged is a sum.
_MADE_UP = (-0.7310585786300049, -4021.371337890625)


class Continuations:
    """A task of the kind loglikelihood: one continuation a document."""

    POSSIBLE = ("acc (the likeliest continuation)", "perplexity")

    def __init__(self, label, name, task, encoder, wanted, errors):
        self.metrics = _wanted(name, task, wanted)
        self.task, self.filters = task, _filters(task)
        #: For each metric what it aggregates: sums of log-probabilities, or whether they are
        #: greedy.
        self._reads = {}
        group = Group(label, [])
        self.groups = [group]
        for doc, requests in _documents(task):
            what = f"task `{shown(name)}`, document {requests[0].doc_id}"
            if len(requests) != 1 or requests[0].request_type != "loglikelihood":
                raise InputError(f"{what}: expected one request of the kind loglikelihood")
            self._probe(name, what, doc)
            tokens, start = encoder.sequence(*requests[0].args, what)
            group.units.append({"tokens": tokens, "from": start})
        if "sum" in self._reads.values():
            group.metrics.append("log_probability")
            if errors and len(group.units) > 1:
                group.metrics.append("error")
        if "greedy" in self._reads.values():
            group.metrics.append("greedy")

    def _probe(self, name, what, doc):
        found = {}
        for made_up in _MADE_UP:
            for greedy in (True, False):
                results = _foreign(what, self.task.process_results, doc, [(made_up, greedy)])
                for metric in self.metrics:
                    value = results.get(metric)
                    if value == made_up:
                        reads = "sum"
                    elif isinstance(value, (int, float)) and value == greedy:
                        reads = "greedy"
                    else:
                        reads = None
                    found.setdefault(metric, set()).add(reads)
        for metric, reads in found.items():
            (one, *others) = reads
            standard = {"sum": (known.perplexity, known.mean), "greedy": (known.mean,)}
            if others or self.metrics[metric] not in standard.get(one, ()):
                _impossible(name, [metric], self.POSSIBLE)
            if self._reads.setdefault(metric, one) != one:
                _impossible(name, [metric], self.POSSIBLE)

    def values(self, answer, side):
        """Returns the metrics of one side, as lm-eval names them."""
        found = answer["groups"][self.groups[0].name]
        count = found["units"]
        values = {"sample_len": count}
        for metric, aggregation in self.metrics.items():
            value, stderr = math.nan, "N/A"
            if count and self._reads[metric] == "sum":
                value = float(aggregation([_total(found, side) / count]))
            elif count:
                right = right_answers(found["metrics"]["greedy"], side)
                items = [1.0] * right + [0.0] * (count - right)
                value, stderr = float(aggregation(items)), _stderr(aggregation, items)
            for own in self.filters:
                values[f"{metric},{own}"] = value
                values[f"{metric}_stderr,{own}"] = stderr
        return values


def _total(found, side):
    """The sum of the log-probabilities, in nats, from the rounded mean of a token."""
    return found["metrics"]["log_probability"][side] / 1000 * found["tokens"]


class Texts:
    """A task of the kind loglikelihood_rolling: whole texts, cut into windows."""

    POSSIBLE = ("bits_per_byte", "byte_perplexity", "word_perplexity")

    def __init__(self, label, name, task, encoder, wanted, errors):
        self.metrics = _wanted(name, task, wanted)
        self.task, self.filters = task, _filters(task)
        #: For each metric what it divides by.
        self._weights = dict.fromkeys(self.metrics, 0)
        self._documents = 0
        group = Group(label, ["log_probability"])
        self.groups = [group]
        for metric, aggregation in self.metrics.items():
            if aggregation not in (known.weighted_perplexity, known.bits_per_byte):
                _impossible(name, [metric], self.POSSIBLE)
        for doc, requests in _documents(task):
            what = f"task `{shown(name)}`, document {requests[0].doc_id}"
            if len(requests) != 1 or requests[0].request_type != "loglikelihood_rolling":
                raise InputError(f"{what}: expected one request of the kind loglikelihood_rolling")
            for tokens, start in encoder.windows(*requests[0].args, what):
                group.units.append({"tokens": tokens, "from": start})
            for metric, weight in self._divisors(name, what, doc).items():
                self._weights[metric] += weight
            self._documents += 1
        if not group.units:
            _refuse(name, "its texts have no token")
        if errors and len(group.units) > 1:
            group.metrics.append("error")

    def _divisors(self, name, what, doc):
        found = {}
        for made_up in _MADE_UP:
            results = _foreign(what, self.task.process_results, doc, [made_up])
            for metric in self.metrics:
                value = results.get(metric)
                if (
                    not isinstance(value, tuple)
                    or len(value) != 2
                    or value[0] != made_up
                    or value[1] != found.setdefault(metric, value[1])
                ):
                    _impossible(name, [metric], self.POSSIBLE)
        return found

    def values(self, answer, side):
        """Returns the metrics of one side, as lm-eval names them.

        There is no value if the base model could not score a part of the texts: lm-eval would have
        one of all.
        """
        (group,) = self.groups
        found = answer["groups"][group.name]
        values = {"sample_len": self._documents}
        for metric, aggregation in self.metrics.items():
            value, weight = math.nan, self._weights[metric]
            if weight and not group.left_out(answer):
                value = float(aggregation([(_total(found, side), weight)]))
            for own in self.filters:
                values[f"{metric},{own}"] = value
                values[f"{metric}_stderr,{own}"] = "N/A"
        return values


_KINDS = {
    "multiple_choice": Questions,
    "loglikelihood": Continuations,
    "loglikelihood_rolling": Texts,
}


def plan(place, name, task, encoder, wanted, errors):
    """Returns the groups of units of a task, and how its metrics follow from them."""
    return _KINDS[task.OUTPUT_TYPE](group_name(place, name), name, task, encoder, wanted, errors)
