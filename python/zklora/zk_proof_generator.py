"""Verifying the proofs of a folder against the user's own record."""

import glob
import os
import time
import warnings
from typing import Any, Tuple

from . import _native, _pins
from ._native import Manifest, Trace
from .errors import FileError, InputError, UncheckedWarning, VerificationError

__all__ = ["batch_verify_proofs"]


def batch_verify_proofs(
    proof_dir="proof_artifacts", transcript: Any = None, expected_adapters: Any = None, verbose: bool = False
) -> Tuple[float, int]:
    """Verifies every proof (``.pf``) below ``proof_dir``; returns the seconds that it took and how many there were.

    ``transcript`` is the user's own record: the folder of a session (``BaseModelClient.transcript``), a trace file, a ``Trace``, or several.
    ``expected_adapters`` are the pins from before the session: adapter ids, manifest files or public folders. With both, this is the full
    verification: every proof belongs to a pinned adapter and to a trace of the record, and every trace with rows is proven. A proof that
    fails raises ``VerificationError``.

    What is not given is not checked, and an ``UncheckedWarning`` says so: without ``expected_adapters`` any adapter will do; without
    ``transcript`` the rows are those that lie beside the proof, or none, and then only the form of the proof is looked at.
    """
    if not os.path.isdir(proof_dir):
        raise FileError(f"{proof_dir}: no such folder; name the one that holds the proofs (.pf)")
    paths = sorted(glob.glob(os.path.join(glob.escape(os.fspath(proof_dir)), "**", "*.pf"), recursive=True))
    pinned = _pinned(expected_adapters)
    own = None if transcript is None else _traces(transcript)
    if pinned is None and paths:
        warnings.warn(
            "THE ADAPTERS WERE NOT PINNED: without expected_adapters, whoever made the proofs chose the adapter that they are about.",
            UncheckedWarning,
            stacklevel=2,
        )
    start, proven = time.perf_counter(), []
    for path in paths:
        proof = _native.read_proof(path)
        manifest = _manifest(path, proof_dir, pinned)
        if own is not None:
            said = _verify_own(path, proof, manifest, own, proven)
        else:
            said = _verify_beside(path, proof, manifest)
        if verbose:
            print(f"{path}: adapter {manifest.adapter_id}: {said}")
    seconds = time.perf_counter() - start if paths else 0.0
    if own is not None:
        unproven = [trace for trace in own if trace not in proven and not _is_empty(trace)]
        if unproven:
            raise VerificationError(f"{len(unproven)} trace(s) of the record have no proof in {proof_dir}, such as {unproven[0]}")
    return seconds, len(paths)


def _pinned(expected_adapters):
    """The pinned ids, each with its manifest if that was the pin."""
    pins = _pins.as_list(expected_adapters)
    if pins is None:
        return None
    manifests = {}
    for pin in pins:
        known = pin if isinstance(pin, Manifest) else Manifest.load(pin) if os.path.exists(os.fspath(pin)) else None
        manifests[_pins.adapter_id(pin)] = known
    return manifests


def _traces(transcript):
    """The traces of a record: ``Trace`` objects and paths."""
    if isinstance(transcript, Trace):
        return [transcript]
    if not isinstance(transcript, (str, os.PathLike)):
        return [trace for one in transcript for trace in _traces(one)]
    if not os.path.exists(transcript):
        raise FileError(f"{transcript}: no such trace or folder of a session")
    if os.path.isdir(transcript):
        found = sorted(glob.glob(os.path.join(glob.escape(os.fspath(transcript)), "**", "trace.safetensors"), recursive=True))
        if not found:
            raise FileError(f"{transcript}: no trace.safetensors here: the session has not ended, or this is another folder")
        return found
    return [os.fspath(transcript)]


def _manifest(path, proof_dir, pinned):
    """The manifest that a proof is about: the nearest one above it, held to the pins."""
    folder, top = os.path.dirname(os.path.abspath(path)), os.path.abspath(proof_dir)
    while True:
        for candidate in (os.path.join(folder, "public"), folder):
            if os.path.isfile(os.path.join(candidate, "manifest.json")):
                manifest = Manifest.load(candidate)
                if pinned is not None and manifest.adapter_id not in pinned:
                    raise VerificationError(f"{path}: it is about adapter {manifest.adapter_id}, which is none of the pinned ones")
                return manifest
        if folder == top or os.path.dirname(folder) == folder:
            break
        folder = os.path.dirname(folder)
    known = [] if pinned is None else [manifest for manifest in pinned.values() if manifest is not None]
    if len(known) != 1:
        raise InputError(f"{path}: no manifest.json beside it or above it: pass the manifest file as expected_adapters")
    return known[0]


def _verify_own(path, proof, manifest, own, proven):
    """Verifies a proof against a trace of the user's record that has no proof yet."""
    failure = VerificationError(f"{path}: the record has no trace of adapter {manifest.adapter_id}")
    beside = os.path.dirname(os.path.abspath(path))
    # The one beside the proof first.
    for trace in sorted(own, key=lambda trace: isinstance(trace, Trace) or os.path.dirname(os.path.abspath(trace)) != beside):
        about = trace.adapter_id if isinstance(trace, Trace) else Trace.adapter_id_of(trace)
        if trace in proven or about != manifest.adapter_id:
            continue
        loaded = trace if isinstance(trace, Trace) else Trace.load(trace, manifest)
        try:
            rows = _native.verify(manifest, loaded, proof)
        except VerificationError as error:
            failure = VerificationError(f"{path}: {error}")
            continue
        proven.append(trace)
        return f"accepted, {sum(rows.values())} rows of your record"
    raise failure


def _verify_beside(path, proof, manifest):
    """Without a record of the user's: the trace beside the proof, or none."""
    stem = os.path.splitext(path)[0]
    beside = [stem + ".safetensors", os.path.join(os.path.dirname(path), "trace.safetensors")]
    trace = next((candidate for candidate in beside if os.path.isfile(candidate)), None)
    if trace is None:
        _native.check_proof_format(manifest, proof)
        warnings.warn(
            f"{path}: NOTHING WAS VERIFIED: there is no trace of the session. The file has the form of a proof, no more. Pass your own record "
            "as transcript.",
            UncheckedWarning,
            stacklevel=3,
        )
        return "NOT VERIFIED: no trace"
    rows = _native.verify(manifest, Trace.load(trace, manifest), proof)
    warnings.warn(
        f"{path}: verified against {trace}, WHICH CAME WITH THE PROOF: nothing shows that these rows are yours. Pass your own record as "
        "transcript.",
        UncheckedWarning,
        stacklevel=3,
    )
    return f"accepted, {sum(rows.values())} rows of {trace}"


def _is_empty(trace):
    return isinstance(trace, Trace) and not trace.rows

