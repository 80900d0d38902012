"""A buyer's side of an evaluation: results of a private adapter, signed, and settled after payment.

::

    offer = fetch_offer("https://example.org:7443", "offer.json")   # pin it
    result = evaluate(units, offer="offer.json", contributor="https://…", base="model.onnx")
    settle("evaluation", delivery="delivery", base="model.onnx")    # before payment
    settle("evaluation", key="key", base="model.onnx")              # after payment

docs/evaluation.md says what each step checks. Nothing here needs torch.
"""

import json
import os
import tempfile
from typing import Any, Callable, Dict, Iterable, Mapping, Optional, Tuple, Union

from . import _native

PathLike = Union[str, "os.PathLike[str]"]
Progress = Optional[Callable[[str, int, int], object]]

#: The folder of the integer model that ``evaluate`` and ``settle`` make if none is named.
_MODEL = "integer-model"


def _reached(
    contributor: str,
    token_file: Optional[PathLike] = None,
    tls_ca: Optional[PathLike] = None,
    tls_cert: Optional[PathLike] = None,
    tls_key: Optional[PathLike] = None,
    insecure: bool = False,
    timeout: float = 60.0,
    patience: float = 30.0,
) -> Tuple[Any, ...]:
    pair = None if tls_cert is None or tls_key is None else (tls_cert, tls_key)
    return contributor, token_file, tls_ca, pair, insecure, (timeout, patience)


def _own(
    base: PathLike,
    integer_model: Optional[PathLike] = None,
    tokenizer: Optional[PathLike] = None,
    base_weights: Optional[PathLike] = None,
    allow_other_base: bool = False,
    maps: Optional[Mapping[str, str]] = None,
) -> Tuple[Any, ...]:
    if integer_model is None:
        integer_model = os.path.join(os.path.dirname(os.fspath(base)), _MODEL)
    return (
        base,
        integer_model,
        tokenizer,
        base_weights,
        allow_other_base,
        list((maps or {}).items()),
    )


def fetch_offer(
    contributor: str,
    out: PathLike,
    after: Optional[PathLike] = None,
    sent: Optional[PathLike] = None,
    **connection: Any,
) -> Dict[str, Any]:
    """Gets the offer that a contributor makes now, and writes it to ``out``: it is your pin.

    Returns ``digest``, ``offer`` and ``bits_left``. Compare ``offer["key"]`` with a key that you
    know from elsewhere. ``after`` is an earlier offer, whose key must be continued. ``sent`` is
    your memory of sent units [default: the one of the command line]. ``connection``:
    ``token_file``, ``tls_ca``, ``tls_cert``, ``tls_key``, ``insecure``, ``timeout``, ``patience``.
    """
    return json.loads(_native.fetch_offer(_reached(contributor, **connection), out, after, sent))


def evaluate(
    units: Iterable[Mapping[str, Any]],
    *,
    offer: PathLike,
    contributor: str,
    base: PathLike,
    integer_model: Optional[PathLike] = None,
    out: Optional[PathLike] = None,
    per_unit: bool = False,
    list_unscored: int = 2,
    check_base: bool = False,
    prove: Optional[int] = None,
    prove_metric: Optional[str] = None,
    claims: Iterable[PathLike] = (),
    sent: Optional[PathLike] = None,
    tokenizer: Optional[PathLike] = None,
    base_weights: Optional[PathLike] = None,
    allow_other_base: bool = False,
    maps: Optional[Mapping[str, str]] = None,
    progress: Progress = None,
    **connection: Any,
) -> Dict[str, Any]:
    """Sends units to a contributor; returns the aggregates that it signed.

    ``units`` are dictionaries, each one line of a file of units (docs/evaluation.md, "Units").
    ``offer`` is the file that you pinned. ``integer_model`` is a folder that is made if it is not
    there [default: ``integer-model`` beside ``base``]. ``out`` keeps request and answer, which
    ``settle`` needs [default: a temporary folder, which is lost]. ``sent`` is your memory of sent
    units [default: the one of the command line].

    Returns ``groups`` (name to ``units``, ``tokens`` and the signed ``metrics``), ``bits``,
    ``answer``, ``score_bits``, ``per_unit`` (for each unit a list of sum and greediness of its
    sequences, in the order of ``units``), ``sent_before``, ``samples_before`` (how many samples of
    these units were ``asked`` for in other evaluations, and how many were ``unproven``), and the
    whole ``report``.

    ``prove`` has a metric of a sample of so many units proven in zero knowledge: ``prove_metric``,
    which is ``log_probability``, ``accuracy`` or ``accuracy_normalised`` [default: the first that
    the units ask for]. ``proven`` of the result has then ``values``, as the ``metrics`` of a group,
    ``metric``, ``units``, ``tokens`` and ``bits``; ``values`` is None if a unit of the sample
    cannot be proven. A proof that does not hold is an error.
    """
    lines = "".join(json.dumps(unit) + "\n" for unit in units)
    own = _own(base, integer_model, tokenizer, base_weights, allow_other_base, maps)
    sample = None if prove is None else (prove, prove_metric)
    with tempfile.TemporaryDirectory(prefix="zklora-") as scratch:
        text = _native.evaluate(
            lines,
            _reached(contributor, **connection),
            own,
            offer,
            os.path.join(scratch, "evaluation") if out is None else out,
            (per_unit, list_unscored, check_base, sample),
            (list(claims), sent),
            progress,
        )
    result = json.loads(text)
    report = result["report"]
    groups = {
        group["name"]: {
            "units": group["units"],
            "tokens": group["tokens"],
            "metrics": group["signed"] or {},
        }
        for group in report["groups"]
    }
    return {"groups": groups, "bits": report["bits"], "answer": report["answer"], **result}


def settle(
    folder: Optional[PathLike] = None,
    *,
    base: PathLike,
    delivery: Optional[PathLike] = None,
    key: Optional[PathLike] = None,
    adapter_out: Optional[PathLike] = None,
    evidence: Optional[PathLike] = None,
    signer: Optional[str] = None,
    integer_model: Optional[PathLike] = None,
    tokenizer: Optional[PathLike] = None,
    base_weights: Optional[PathLike] = None,
    allow_other_base: bool = False,
    maps: Optional[Mapping[str, str]] = None,
    progress: Progress = None,
) -> Dict[str, Any]:
    """Settles the folder of an evaluation; returns the ``verdict``.

    ``delivery`` is the folder of ``delivery.age`` and ``delivery.json`` [default: ``folder``].
    Without ``key``, what can be checked before payment is checked: PAYABLE. With it, the adapter
    is decrypted, audited, and every number is computed again: SETTLED, CONTRADICTED (with the path
    of the ``evidence``) or UNDECIDABLE. ``adapter_out`` gets the adapter. ``evidence`` judges a
    file of another buyer instead; ``signer`` is the key that the contributor is known by.
    """
    own = _own(base, integer_model, tokenizer, base_weights, allow_other_base, maps)
    delivered = (delivery, key, adapter_out)
    text = _native.settle((folder, evidence), own, delivered, signer, progress)
    return json.loads(text)


def report(folder: PathLike) -> Dict[str, Any]:
    """Returns what an evaluation says: its groups with intervals, its grade, what was spent."""
    return json.loads(_native.evaluation_report(folder))
