"""Tasks of lm-evaluation-harness on a contributor's private adapter, by results instead of rows.

``evaluate`` sends the texts of tasks to a contributor and returns lm-eval's results from the signed
aggregates. ``plan`` says beforehand what would be sent. Neither needs torch.

``python -m zklora.lm_eval`` is lm-eval's command line with one more model, ``zklora``, for
contributors whose offer allows scores of single units.

Needs lm_eval: ``pip install 'zklora[lm-eval]'``.
"""

import logging
import os

from .._foreign_text import shown
from ..errors import InputError

try:
    from lm_eval.api.registry import register_model
    from lm_eval.tasks import TaskManager

    if not hasattr(TaskManager, "load"):
        raise ImportError("lm_eval is older")
    from . import _tasks
    from ._tokens import Encoder, tokenizer_file
except ImportError as error:
    raise ImportError(
        "zklora.lm_eval needs lm_eval from version 0.4.12 on, and Python 3.10: run `pip install "
        f"'zklora[lm-eval]'` ({error})"
    ) from error

__all__ = ["Plan", "ZkloraLM", "evaluate", "make_table", "plan"]

logger = logging.getLogger("zklora")

#: A scored token has a log-probability of at least minus this, in steps of a score.
_WORST = 1 << 16


class Plan:
    """The units of tasks, and how their results follow from a contributor's answer."""

    def __init__(self, loaded, encoder, metrics, errors, subtasks):
        self._tasks, self._groups = loaded.tasks, dict(loaded.groups)
        metrics = None if metrics is None else frozenset(metrics)
        self._parts, self._merged = {}, {}
        if not subtasks:
            self._merged = _tasks.added_up(loaded.groups, encoder, metrics)
            # Groups inside of these have no results.
            for name in loaded.groups.keys() - self._merged.keys():
                del self._groups[name]
        left_out = {name for own in self._merged.values() for name in own.tasks}
        for name, task in self._tasks.items():
            if name not in left_out:
                place = len(self._merged) + len(self._parts)
                self._parts[name] = _tasks.plan(place, name, task, encoder, metrics, errors)
        self._sent = [
            group
            for part in [*self._merged.values(), *self._parts.values()]
            for group in part.groups
        ]

    @property
    def units(self):
        """What is sent: groups and their units, as ``zklora.evaluation.evaluate`` takes them."""
        return [line for group in self._sent for line in group.lines()]

    def results(self, answer):
        """Returns lm-eval's results from what ``zklora.evaluation.evaluate`` returned.

        They are those of the adapted model. ``base`` has the same of the base model, and ``zklora``
        the price in bits, the answer's digest and the aggregates of every task. Units that the base
        model cannot score, ``base_unscored``, count in no metric.
        """
        adapted, base = (self._side(answer, side) for side in ("adapted", "base"))
        parts = {**self._merged, **self._parts}
        return {
            **adapted,
            **self._about(),
            "base": base,
            "zklora": {
                "answer": answer["answer"],
                "base_unscored": sum(group.left_out(answer) for group in self._sent),
                "bits": answer["bits"],
                "tasks": {
                    name: {group.name: answer["groups"][group.name] for group in part.groups}
                    for name, part in parts.items()
                },
            },
        }

    def _side(self, answer, side):
        values = {}
        for name, part in self._parts.items():
            alias = self._tasks[name].config.task_alias or name
            values[name] = {"name": name, "alias": alias, **part.values(answer, side)}
        of_tasks = dict(values)
        summed = {}
        for name, group in self._groups.items():
            if name in self._merged:
                own = {"name": name, "alias": group.alias or name}
                own.update(self._merged[name].values(answer, side))
            else:
                own = group.aggregate(of_tasks)
            values[name] = own
            if group.has_aggregation:
                summed[name] = dict(own)
        return {"results": values, **({"groups": summed} if summed else {})}

    def _about(self):
        """What lm-eval says of tasks and groups beside their results."""
        tasks, groups = self._tasks, self._groups
        shots = {name: task.get_config("num_fewshot") for name, task in tasks.items()}
        better = {name: dict(task.higher_is_better()) for name, task in tasks.items()}
        for name, group in groups.items():
            own = [task.task_name for task in group.get_all_tasks()]
            common = {shots[task] for task in own}
            if len(common) == 1:
                (shots[name],) = common
            better[name] = {}
            for task in own:
                for metric, value in better[task].items():
                    if better[name].setdefault(metric, value) != value:
                        better[name][metric] = None
        counts = {}
        for name, task in tasks.items():
            documents = len({instance.doc_id for instance in task.instances})
            counts[name] = {"original": len(task.eval_docs), "effective": documents}
        return {
            "group_subtasks": {name: group.child_names for name, group in groups.items()},
            "configs": {name: dict(task.dump_config()) for name, task in tasks.items()},
            "versions": {
                **{name: task.VERSION for name, task in tasks.items()},
                **{name: group.version for name, group in groups.items()},
            },
            "n-shot": shots,
            "higher_is_better": better,
            "n-samples": counts,
        }


def plan(
    tasks,
    *,
    base=None,
    integer_model=None,
    offer=None,
    tokenizer=None,
    num_fewshot=None,
    limit=None,
    max_length=None,
    metrics=None,
    errors=True,
    subtasks=True,
    include_path=None,
    task_manager=None,
    add_bos_token=None,
    prefix_token_id=None,
    system_instruction=None,
    apply_chat_template=False,
    fewshot_as_multiturn=True,
) -> Plan:
    """Returns the ``Plan`` of tasks: what ``evaluate`` with these arguments would send.

    Raises ``InputError`` for a task or metric that aggregates cannot give.

    ``tasks`` are names of tasks, groups or tags, files or configurations, as for lm-eval;
    ``include_path`` is a folder with more of them. ``tokenizer`` is a folder, a
    ``tokenizer.json``, or an object of transformers or tokenizers [default: beside ``base``].
    ``num_fewshot``, ``limit``, ``max_length`` and the arguments from ``add_bos_token`` on are those
    of lm-eval. ``max_length`` is by default what the model's configuration says, and at most one
    less than the longest unit of ``offer`` and ``integer_model``.

    Fewer bits: ``metrics`` are the only ones wanted of all tasks. ``errors=False`` asks for no
    standard error of perplexities. ``subtasks=False`` adds up the tasks of a group whose mean is
    weighted by size: only the group has results then.
    """
    encoder = Encoder(
        tokenizer, base, integer_model, offer, max_length, add_bos_token, prefix_token_id
    )
    loaded = _tasks.Tasks(
        tasks,
        include_path,
        task_manager,
        num_fewshot,
        limit,
        system_instruction=system_instruction,
        apply_chat_template=apply_chat_template,
        fewshot_as_multiturn=fewshot_as_multiturn and apply_chat_template,
        chat_template=encoder.apply_chat_template if apply_chat_template else None,
    )
    return Plan(loaded, encoder, metrics, errors, subtasks)


def evaluate(tasks, *, contributor, offer, base, integer_model=None, tokenizer=None, **options):
    """Runs tasks on a contributor's adapter; returns lm-eval's results.

    ``options`` are those of ``plan``; all others, such as ``out``, ``token_file``, ``check_base``
    and ``progress``, are those of ``zklora.evaluation.evaluate``, as are ``contributor``, ``offer``
    (the file that you pinned), ``base`` and ``integer_model``. There is one request for all tasks.
    A task or metric that aggregates cannot give is refused before anything is sent. For the results
    see ``Plan.results``.
    """
    model = {"offer": offer, "base": base, "integer_model": integer_model}
    planned = {name: options.pop(name) for name in plan.__kwdefaults__.keys() & options.keys()}
    own = plan(tasks, tokenizer=tokenizer, **model, **planned)
    from .. import evaluation

    options.setdefault("tokenizer", tokenizer_file(tokenizer))
    answer = evaluation.evaluate(own.units, contributor=contributor, **model, **options)
    return own.results(answer)


def make_table(results) -> str:
    """Returns the results of ``evaluate`` as a table in Markdown: base against adapted."""
    lines = ["| task | metric | base | adapted | difference |", "| -- | -- | -- | -- | -- |"]
    for name, values in results["results"].items():
        for metric, value in values.items():
            kind, comma, _ = metric.partition(",")
            if not comma or kind.endswith("_stderr"):
                continue
            before = results["base"]["results"][name][metric]
            cells = [shown(name), shown(metric.removesuffix(",none"))]
            cells += [f"{before:.4f}", f"{value:.4f}", f"{value - before:+.4f}"]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


@register_model("zklora")
class ZkloraLM(Encoder):
    """A contributor's adapter as a model of lm-eval, for offers that allow single scores.

    The arguments are those of ``evaluate``. Each call of lm-eval, for all tasks, is one request to
    the contributor, with its own folder in ``out``.
    """

    def __init__(
        self,
        contributor=None,
        offer=None,
        base=None,
        integer_model=None,
        tokenizer=None,
        out=None,
        max_length=None,
        add_bos_token=None,
        prefix_token_id=None,
        batch_size=None,
        max_batch_size=None,
        device=None,
        **options,
    ):
        # lm-eval passes these to every model. A contributor chooses for itself.
        del batch_size, max_batch_size, device
        for name, value in [("contributor", contributor), ("offer", offer), ("base", base)]:
            if value is None:
                raise InputError(f"the model zklora needs {name}=… in --model_args")
        super().__init__(
            tokenizer, base, integer_model, offer, max_length, add_bos_token, prefix_token_id
        )
        self._options = {
            "offer": offer,
            "contributor": contributor,
            "base": base,
            "integer_model": integer_model,
            "tokenizer": tokenizer_file(tokenizer),
            **options,
        }
        self._out, self._requests = out, 0
        #: Price of all requests so far, in bits.
        self.bits = 0

    def loglikelihood(self, requests, disable_tqdm=False):
        sequences = [
            self.sequence(*request.args, f"request {place}")
            for place, request in enumerate(requests)
        ]
        scores = self._score(sequences, "loglikelihood")
        return [scores[_key(sequence)] for sequence in sequences]

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        texts = [
            self.windows(*request.args, f"request {place}")
            for place, request in enumerate(requests)
        ]
        scores = self._score([window for text in texts for window in text], "rolling")
        return [sum(scores[_key(window)][0] for window in text) for text in texts]

    def generate_until(self, requests, disable_tqdm=False):
        raise InputError(
            "the model zklora scores texts and generates none: choose tasks of the kinds "
            "multiple_choice, loglikelihood and loglikelihood_rolling"
        )

    def _score(self, sequences, kind):
        """Returns sum and greediness of every sequence. Equal ones are sent, and paid for, once."""
        units = {}
        for tokens, start in sequences:
            # Sequences with the same context are one unit, so that it is computed once.
            own = units.setdefault(tuple(tokens[:start]), {})
            own[_key((tokens, start))] = {"tokens": tokens, "from": start, "length": 1}
        sent, keys = [], []
        for own in units.values():
            own = list(own.items())
            # A question has at most this many choices, and 2^20 tokens in all of them.
            longest = max(len(choice["tokens"]) for _, choice in own)
            most = max(1, min(_tasks.MOST_CHOICES, (1 << 20) // longest))
            for first in range(0, len(own), most):
                part = own[first : first + most]
                keys.append([key for key, _ in part])
                sent.append({"group": kind, "choices": [choice for _, choice in part]})
        if not sent:
            return {}
        from .. import evaluation

        self._requests += 1
        out = self._out
        if out is not None:
            out = os.path.join(os.fspath(out), f"{self._requests}-{kind}")
        answer = evaluation.evaluate(
            [{"group": kind, "metrics": []}, *sent], out=out, per_unit=True, **self._options
        )
        self.bits += answer["bits"]
        step = 2.0 ** -answer["score_bits"]
        scores, lost = {}, 0
        for own, unit in zip(keys, answer["per_unit"]):
            if unit is None:
                lost += 1
                unit = [[-_WORST * (len(tokens) - start), False] for tokens, start in own]
            for key, (total, greedy) in zip(own, unit):
                scores[key] = total * step, bool(greedy)
        if lost:
            logger.warning(
                "%d of %d units have no score, because a value left its range: they count with the "
                "lowest log-probability",
                lost,
                len(sent),
            )
        return scores


def _key(sequence):
    tokens, start = sequence
    return tuple(tokens), start
