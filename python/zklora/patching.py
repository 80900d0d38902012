"""Patches a model with contributors' deltas, and restores it.

Torch is imported when a model is patched.
"""

import logging
import os
import tempfile
import threading

from ._foreign_text import shown
from ._native import base_fingerprint
from .communication import BaseModelToLoRAComm, end_all, sessions
from .errors import InputError
from .prefetch import Prefetch

logger = logging.getLogger("zklora")

#: Protects the wrappers around layers: several threads may patch one model.
_patch_lock = threading.RLock()


def _renew_lock_in_child():
    # In a forked child, the thread that holds the lock does not exist.
    global _patch_lock
    _patch_lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock_in_child)


class Patches:
    """The layers of a model that were replaced."""

    def __init__(self, model):
        self._model = model
        self._patches = []
        self._prefetches = []

    def add(self, comm, combine_mode):
        """Wraps every layer that a contributor has a module for.

        Raises ``InputError``, without changing the model, if a module is not in the model or a
        layer cannot be adapted.
        """
        names = comm.init_request()
        with _patch_lock:
            self._wrap(comm, names, combine_mode)

    def _wrap(self, comm, names, combine_mode):
        from . import _layers
        from ._layer_rows import is_convolution
        from .wrapped import ParameterMemory, RemoteLoRAWrappedModule, innermost, wrappers

        found = _layers.find_slots(self._model, names)
        # A `comm` of another type has only `lora_forward`.
        own = isinstance(comm, BaseModelToLoRAComm) and comm._session is not None
        for at in found:
            _layers.check_not_nested(at, self._model)
            if any(wrapper.comm is comm for wrapper in wrappers(at.layer)):
                raise InputError(
                    f"layer `{shown(at.name)}` already has the deltas of {comm!r}: they would be "
                    "added twice"
                )
            if own:
                _layers.check_fit(at, innermost(at.layer), comm.modules[at.name])
        prefetch = Prefetch(comm) if own else None
        parameters = ParameterMemory(self._model)
        for at in found:
            wrapped = RemoteLoRAWrappedModule(at.name, at.layer, comm, combine_mode)
            object.__setattr__(wrapped, "parameters_of_model", parameters)
            if own:
                object.__setattr__(wrapped, "prefetch", prefetch)
                # The patches of two convolutions differ, although they read one tensor.
                if comm.modules[at.name].reads == ["layer"] and not is_convolution(
                    innermost(at.layer)
                ):
                    prefetch.add(at.name)
            # Registered first, so that an interruption cannot leave an unregistered patch.
            self._patches.append((at, wrapped))
            at.put(wrapped)
            logger.debug("patched `%s` (%r)", shown(at.name), comm)
        if own:
            self._prefetches.append(prefetch)

    def have(self, comm) -> bool:
        """Whether this object added the deltas of this contributor to layers."""
        return any(wrapped.comm is comm for _, wrapped in self._patches)

    def warn_of_uncalled(self):
        """Logs which layers were never called, and so have no deltas.

        Some modules of torch read a layer's weights instead of calling it.
        """
        uncalled = [at.name for at, wrapped in self._patches if not wrapped.called]
        if uncalled:
            logger.warning(
                "%d of %d adapted layers were never called, such as `%s`: the model ran without "
                "their deltas",
                len(uncalled),
                len(self._patches),
                shown(uncalled[0]),
            )

    def restore(self):
        """Restores the layers. One that other code replaced is left, with a warning in the log.

        Wrappers of other contexts around the same layers stay. Nothing is sent afterwards.
        """
        with _patch_lock:
            while self._patches:
                at, wrapped = self._patches[-1]
                object.__setattr__(wrapped, "released", True)
                if not _taken_out(at, wrapped):
                    logger.warning(
                        "layer `%s` was replaced while it was patched: left as it is",
                        shown(at.name),
                    )
                self._patches.pop()
            for prefetch in self._prefetches:
                prefetch.release()
            self._prefetches.clear()


def _taken_out(at, wrapped) -> bool:
    """Removes a wrapper from those around a layer; returns false if it is not among them."""
    from .wrapped import wrappers

    layer = at.parent._modules.get(at.child)
    if layer is wrapped.local_sub:
        # Patching was interrupted before this layer.
        return True
    if layer is wrapped:
        at.put(wrapped.local_sub)
        return True
    for outer in wrappers(layer):
        if outer.local_sub is wrapped:
            object.__setattr__(outer, "local_sub", wrapped.local_sub)
            return True
    return False


def check_base(manifest, folder):
    """Checks a base model's weights against the manifest's fingerprint, if it has one.

    Raises ``InputError`` if they differ.
    """
    if manifest.base_fingerprint is None:
        return
    if folder is None or not os.path.isdir(folder):
        logger.warning(
            "the base model's weights were not compared with the manifest's fingerprint (%s): pass "
            "their folder to compare them",
            shown(manifest.base_model),
        )
        return
    own = base_fingerprint(folder)
    if own != manifest.base_fingerprint:
        raise InputError(
            f"{folder}: the adapter is for the base model `{shown(manifest.base_model)}` with "
            f"fingerprint {shown(manifest.base_fingerprint)}, but this one has {own}: use the "
            "model that the adapter was trained on, or pass allow_other_base=True"
        )


class RemoteLora:
    """A model with contributors' deltas, as a context manager: see ``remote_lora``."""

    def __init__(
        self,
        model,
        contributors,
        expected_adapters,
        combine_mode,
        session_dir,
        base_folder,
        allow_other_base,
        progress,
    ):
        self.model = model
        #: Folder of the user's records, one for each contributor's session.
        self.transcript = session_dir or tempfile.mkdtemp(prefix="zklora-session-")
        self.comms = sessions(contributors, expected_adapters, self.transcript)
        #: A report for each contributor; ``None`` before the end.
        self.reports = None
        self._combine_mode = combine_mode
        self._base_folder = base_folder
        self._allow_other_base = allow_other_base
        self._progress = progress
        self._patches = Patches(model)
        self._entered = False

    def __enter__(self):
        with _patch_lock:
            if self._entered:
                raise InputError(
                    "this context is already entered: create another one, with another session_dir"
                )
            self._entered = True
        try:
            for comm in self.comms:
                comm.init_request()
                if not self._allow_other_base:
                    check_base(comm.session.manifest, self._base_folder)
                self._patches.add(comm, self._combine_mode)
        except BaseException:
            self._restore()
            self._close()
            raise
        return self

    def _restore(self):
        self._patches.restore()
        self._entered = False

    def __exit__(self, kind, error, traceback):
        if error is None:
            self._patches.warn_of_uncalled()
        self._restore()
        if error is not None:
            self._close()
        else:
            self.finish()

    def finish(self):
        """Ends the sessions: requests the proofs and verifies them.

        Leaving the context calls this method; it can be called earlier.
        """
        self.reports = end_all(self.comms, self._progress)
        return self.reports

    def _close(self):
        for comm in self.comms:
            comm.close()


def remote_lora(
    model,
    contributors,
    *,
    expected_adapters=None,
    combine_mode: str = "add_delta",
    session_dir=None,
    base_folder=None,
    allow_other_base: bool = False,
    progress=None,
) -> RemoteLora:
    """Returns a context in which a torch model runs with the deltas of contributors' adapters::

        contributors = [("127.0.0.1", 30000)]
        with zklora.remote_lora(model, contributors, expected_adapters=[ADAPTER_ID]) as remote:
            model.generate(**inputs)
        remote.reports  # what was proven and verified

    ``model`` is any ``torch.nn.Module``: layers are found by the names in the adapters' manifests.
    Leaving the context restores the model, requests the proof of all rows from every contributor,
    and verifies it. After an exception, it restores the model and closes the sessions without
    proofs. Padding rows are sent like all others. ``base_folder`` is the folder of the model's
    weights, for comparing fingerprints.

    Raises ``NetworkError``, ``VerificationError`` (a pin or a proof is wrong) and ``InputError``
    (the model does not fit).
    """
    return RemoteLora(
        model,
        contributors,
        expected_adapters,
        combine_mode,
        session_dir,
        base_folder,
        allow_other_base,
        progress,
    )
