"""Verifies the proofs of a folder against the user's own record."""

import os
import time
import warnings
from typing import Any, Tuple

from . import _file_listing, _native, _pins
from ._foreign_text import shown
from ._native import Manifest, Trace
from ._user_record import Record
from .errors import FileError, InputError, UncheckedWarning, VerificationError

__all__ = ["batch_verify_proofs"]


def batch_verify_proofs(
    proof_dir="proof_artifacts",
    transcript: Any = None,
    expected_adapters: Any = None,
    verbose: bool = False,
) -> Tuple[float, int]:
    """Verifies every proof (``.pf``) below ``proof_dir``; returns the seconds and the number.

    ``transcript`` is the user's own record: the folder of a session
    (``BaseModelClient.transcript``), a trace file, a ``Trace``, or several. ``expected_adapters``
    are the pins from before the session: adapter ids, manifest files or public folders.

    With both, this is the full verification: every proof belongs to a pinned adapter and to a trace
    of the record, every session of the record is proven, and every pin has a proof. A session whose
    log shows that nothing was sent needs no proof. A failure raises ``VerificationError``.

    A missing argument skips its checks, and an ``UncheckedWarning`` says so. Without
    ``expected_adapters``, any adapter is accepted. Without ``transcript``, the rows are those of
    the trace beside the proof; without such a trace, only the form of the proof is checked.
    """
    try:
        proof_dir = os.fsdecode(proof_dir)
    except TypeError:
        raise InputError(
            f"{type(proof_dir).__name__} is not a folder of proofs: pass its path"
        ) from None
    if not os.path.isdir(proof_dir):
        raise FileError(
            f"{shown(proof_dir)}: no such folder; name the one that holds the proofs (.pf)"
        )
    paths = [path for path in _file_listing.files_below(proof_dir) if path.endswith(".pf")]
    pins = _pinned(expected_adapters)
    own = None if transcript is None else Record(transcript)
    if pins is None and paths:
        _warn(
            "THE ADAPTERS WERE NOT PINNED: without expected_adapters, the prover chose the adapter "
            "that the proofs are about."
        )
    start, about = time.perf_counter(), set()
    for path in paths:
        proof = _native.read_proof(path)
        manifest = _manifest(path, proof_dir, pins)
        if own is not None:
            said = f"accepted, {own.verify(path, proof, manifest)} rows of your record"
        else:
            said = _verify_beside(path, proof, manifest)
        about.add(manifest.adapter_id)
        if verbose:
            print(f"{shown(path)}: adapter {manifest.adapter_id}: {said}")
    seconds = time.perf_counter() - start if paths else 0.0
    if own is not None:
        own.require_proofs(proof_dir)
    for pin in pins or ():
        if pin.adapter_id not in about and not (
            own is not None and own.sent_nothing_to(pin.adapter_id)
        ):
            raise VerificationError(
                f"the pinned adapter {pin.adapter_id} has no proof in {shown(proof_dir)}"
            )
    if not paths:
        _warn(f"{shown(proof_dir)}: NOTHING WAS VERIFIED: there is no proof (.pf) here.")
    return seconds, len(paths)


def _warn(text):
    # The level of the caller of `batch_verify_proofs`.
    warnings.warn(text, UncheckedWarning, stacklevel=3)


def _pinned(expected_adapters):
    """Returns the pins; ``None`` if none were given."""
    pins = _pins.as_list(expected_adapters)
    if pins is None:
        return None
    if not pins or None in pins:
        raise InputError(
            "expected_adapters is empty or has an empty entry: give a pin for each adapter, or "
            "omit the argument to pin nothing"
        )
    return [_pins.pin(pin) for pin in pins]


def _manifest(path, proof_dir, pins):
    """Returns the manifest that a proof is about, checked against the pins.

    It is the nearest one beside or above the proof, else the pinned one.
    """
    manifest = _nearest(path, proof_dir)
    if manifest is None:
        known = [pin.manifest for pin in pins or () if pin.manifest is not None]
        if len(known) != 1:
            raise InputError(
                f"{shown(path)}: no manifest.json beside it or above it: pass the manifest file as "
                "expected_adapters"
            )
        manifest = known[0]
    if pins is None:
        return manifest
    for pin in pins:
        if pin.adapter_id == manifest.adapter_id:
            return pin.check(manifest)
    raise VerificationError(
        f"{shown(path)}: the proof is about adapter {manifest.adapter_id}, which is not pinned"
    )


def _nearest(path, proof_dir):
    """Returns the manifest beside or above a proof, up to ``proof_dir``, or ``None``."""
    folder, top = os.path.dirname(os.path.abspath(path)), os.path.abspath(proof_dir)
    while True:
        for candidate in (os.path.join(folder, "public"), folder):
            if os.path.isfile(os.path.join(candidate, "manifest.json")):
                return Manifest.load(candidate)
        if folder == top or os.path.dirname(folder) == folder:
            return None
        folder = os.path.dirname(folder)


def _verify_beside(path, proof, manifest):
    """Without a record of the user: verifies against the trace beside the proof, if any."""
    stem = os.path.splitext(path)[0]
    beside = [stem + ".safetensors", os.path.join(os.path.dirname(path), "trace.safetensors")]
    trace = next((candidate for candidate in beside if os.path.isfile(candidate)), None)
    if trace is None:
        _native.check_proof_format(manifest, proof)
        warnings.warn(
            f"{shown(path)}: NOTHING WAS VERIFIED: there is no trace of the session. Only the form "
            "of the proof was checked. Pass your own record as transcript.",
            UncheckedWarning,
            stacklevel=3,
        )
        return "NOT VERIFIED: no trace"
    rows = _native.verify(manifest, Trace.load(trace, manifest), proof)
    warnings.warn(
        f"{shown(path)}: verified against {shown(trace)}, WHICH CAME WITH THE PROOF: nothing shows "
        "that these rows are yours. Pass your own record as transcript.",
        UncheckedWarning,
        stacklevel=3,
    )
    return f"accepted, {sum(rows.values())} rows of {shown(trace)}"
