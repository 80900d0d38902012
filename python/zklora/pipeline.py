"""The steps of the command line as functions: export, compile, record, prove, verify, audit."""

import os
import warnings
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Tuple, Union

from . import _arrays, _native, _pins
from ._native import Artifacts, Manifest, Trace
from .errors import InputError, UncheckedWarning

PathLike = Union[str, "os.PathLike[str]"]
Progress = Optional[Callable[[str, int, int], object]]


def export_adapter(
    adapter: PathLike,
    out: PathLike,
    base: Optional[PathLike] = None,
    modules: Iterable[str] = (),
    progress: Progress = None,
    base_name: Optional[str] = None,
    rename: Iterable[Tuple[str, str]] = (),
    lora_only: bool = False,
) -> List[str]:
    """Writes one ONNX file per module of an adapter to ``out``; returns the modules' names.

    ``adapter`` is a folder of PEFT or MLX, or a file of kohya's scripts, LyCORIS,
    diffusers or llama.cpp (GGUF).
    ``base`` is the base model's folder, which DoRA and VeRA need; its fingerprint goes into the
    manifest, and so does ``base_name`` [default: the adapter's own]. ``modules`` are patterns of
    names [default: all modules]. ``rename`` are pairs of texts: the second is read in the place of
    the first in the names of tensors. ``progress(stage, done, total)`` is called before each stage.

    Layers that were trained whole (``modules_to_save``, ``bias``, ``trainable_token_indices``) are
    exported as differences from the base model; without ``base``, or with ``lora_only``, they are
    left out, which the manifest says (``Manifest.left_out``). Warns of what is left out.
    """
    names, notes = _native.export_adapter(
        adapter, out, base, list(modules), progress, base_name, list(rename), lora_only
    )
    for note in notes:
        warnings.warn(note, stacklevel=2)
    return names


def compile(
    paths: Union[PathLike, Iterable[PathLike]],
    out: PathLike,
    seed_file: Optional[PathLike] = None,
    calibrate: Optional[PathLike] = None,
    progress: Progress = None,
    registered: bool = False,
    k: Optional[int] = None,
) -> Artifacts:
    """Compiles ONNX files to ``out/public`` and ``out/private``; returns the ``Artifacts``.

    ``paths`` are ONNX files, or folders that ``export_adapter`` wrote. ``calibrate`` is a file of
    activations on which to choose bit widths. ``registered`` gives every weight at most 16 bits,
    and publishes a proof of that. ``k``, from 8 to 12, is the logarithm of the rows of a column
    [default: that of an adapter of the same shapes in ``out``, else what takes least time].
    """
    paths = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    return _native.compile(paths, out, seed_file, calibrate, progress, registered, k)


def _artifacts(value):
    return value if isinstance(value, Artifacts) else Artifacts.load(value)


def _inputs(manifest, activations):
    """Returns activations by module, as a list of ``[rows, features]`` for its inputs.

    The path of a file stays a path.
    """
    if isinstance(activations, (str, os.PathLike)):
        return activations
    modules = {module.name: module for module in manifest.modules}
    given = {}
    for name, values in activations.items():
        if name not in modules:
            raise InputError(
                f"the adapter has no module `{name}`: it has {len(modules)}, such as "
                f"`{next(iter(modules))}`"
            )
        inputs = modules[name].inputs
        arrays = values if isinstance(values, (tuple, list)) and len(inputs) > 1 else [values]
        if len(arrays) != len(inputs):
            raise InputError(
                f"module `{name}`: {len(arrays)} arrays, but it reads {len(inputs)}: "
                f"{', '.join(own for own, _ in inputs)}"
            )
        given[name] = [
            _arrays.to_rows(array, features, f"module `{name}`")[0]
            for array, (_, features) in zip(arrays, inputs)
        ]
    return given


def record(
    artifacts: Union[Artifacts, PathLike],
    activations: Union[Mapping[str, Any], PathLike],
    out: Optional[PathLike] = None,
    session_id: Optional[str] = None,
    max_rows: Optional[int] = None,
) -> Trace:
    """Runs the quantised adapter on activations and counts the rows; returns the ``Trace``.

    ``activations`` are arrays or tensors ``[..., d_in]`` by module name; a tuple of two for modules
    that also read the base layer's output. Or they are the path of a file: ``.safetensors``, or
    for an adapter of one module ``.npy`` or ``.json``. With ``out`` the rows are written there in
    pieces and stay in that file, so that a session may be larger than memory (pass a path, or
    arrays of ``numpy.memmap``); without it the trace is in memory. ``session_id`` is the user's 32
    random bytes in hex. ``max_rows`` limits the rows of a module over all sessions. A few rows and
    their deltas reveal most of what the adapter does (docs/security.md).
    """
    artifacts = _artifacts(artifacts)
    return _native.record(
        artifacts, _inputs(artifacts.manifest, activations), session_id, max_rows, out
    )


def prove(
    artifacts: Union[Artifacts, PathLike],
    trace: Union[Trace, PathLike],
    out: Optional[PathLike] = None,
    progress: Progress = None,
) -> bytes:
    """Proves a session that these artifacts served; returns the proof as bytes."""
    artifacts = _artifacts(artifacts)
    if not isinstance(trace, Trace):
        trace = Trace.load(trace, artifacts.manifest)
    proof = _native.prove(artifacts, trace, progress)
    if out is not None:
        _native.write_proof(out, proof)
    return proof


def _checked_manifest(pin, manifest):
    """Returns the manifest of a file, folder or object, checked against the pin if there is one."""
    if not isinstance(manifest, Manifest):
        manifest = Manifest.load(manifest, None if pin is None else pin.adapter_id)
    if pin is None:
        warn_unpinned(manifest.adapter_id, stacklevel=4)
        return manifest
    return pin.check(manifest)


@dataclass(frozen=True)
class Verdict:
    """The claim of an accepted proof: every delta of the trace came from this adapter."""

    adapter_id: str
    session_id: str
    #: Number of rows of every module; nothing is claimed about a module without rows.
    rows: Dict[str, int]
    #: Whether the caller pinned the adapter.
    pinned: bool
    #: Whether a proof shows that every weight of the adapter is an integer of 16 bits; ``None`` if
    #: the manifest was not read from a public folder.
    registered: Optional[bool] = None
    #: Tensors of layers that were trained whole and that the adapter leaves out, as its contributor
    #: says in the manifest.
    left_out: Tuple[str, ...] = ()


def verify(
    manifest: Union[Manifest, PathLike],
    trace: Union[Trace, PathLike],
    proof: Union[bytes, PathLike],
    expected_adapter: Union[Manifest, PathLike, None] = None,
    session_id: Optional[str] = None,
    activations: Union[Mapping[str, Any], PathLike, None] = None,
) -> Verdict:
    """Verifies a proof against the user's own trace; returns a ``Verdict``.

    Raises ``VerificationError`` if the answer is no.

    ``manifest`` is a ``Manifest``, a manifest file or a public folder; ``proof`` is bytes or a
    file. ``expected_adapter`` is the pin from before the session: without it the proof shows almost
    nothing, and an ``UncheckedWarning`` says so. If the contributor recorded the trace, pass
    ``session_id`` and ``activations`` (as for ``record``) to tie it to the user.
    """
    pin = _pins.pin(expected_adapter)
    manifest = _checked_manifest(pin, manifest)
    if not isinstance(trace, Trace):
        trace = Trace.load(trace, manifest)
    if not isinstance(proof, (bytes, bytearray, memoryview)):
        proof = _native.read_proof(proof)
    activations = None if activations is None else _inputs(manifest, activations)
    rows = _native.verify(manifest, trace, bytes(proof), session_id, activations)
    return Verdict(
        manifest.adapter_id,
        trace.session_id,
        rows,
        pin is not None,
        manifest.registered,
        tuple(manifest.left_out),
    )


def warn_unpinned(adapter_id, stacklevel=3):
    """Warns that nothing shows that the adapter was fixed beforehand."""
    warnings.warn(
        f"THE ADAPTER WAS NOT PINNED. Some adapter ({adapter_id}) computes these rows, but nothing "
        "shows that it was fixed before they were sent. For a few rows, that shows almost nothing. "
        "Pass the adapter id that you had before the session as expected_adapter(s).",
        UncheckedWarning,
        stacklevel=stacklevel,
    )


@dataclass(frozen=True)
class AuditReport:
    """How a delivered adapter compares with the committed one."""

    adapter_id: str
    #: Module and reason of every difference.
    differences: List[Tuple[str, str]]
    #: Whether the fingerprints of the base models were compared. If not, the adapter may be for
    #: another model.
    base_compared: bool = False

    @property
    def accepted(self) -> bool:
        """Whether the delivered adapter gives exactly the committed integers."""
        return not self.differences


def audit(
    manifest: Union[Manifest, PathLike],
    delivered: PathLike,
    opening: PathLike,
    base: Optional[PathLike] = None,
    expected_adapter: Union[Manifest, PathLike, None] = None,
) -> AuditReport:
    """Compares a delivered adapter with the committed one, after payment.

    ``delivered`` is a PEFT folder, a folder that ``export_adapter`` wrote, or a ``weights.bin``.
    """
    pin = _pins.pin(expected_adapter)
    manifest = _checked_manifest(pin, manifest)
    return AuditReport(manifest.adapter_id, *_native.audit(manifest, delivered, opening, base))
