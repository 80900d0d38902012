"""Patching a model with contributors' deltas, and restoring it. Torch is imported when a model is patched."""

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

#: For the chains of wrappers around layers: several threads may patch one model.
_patch_lock = threading.RLock()


def _renew_lock_in_child():
    # Whoever held it is not in a forked child.
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
        """Wraps every layer that a contributor has a module for. If one is not in the model or cannot be adapted, nothing is changed.

        Raises ``InputError`` with the names that are missing.
        """
        names = comm.init_request()
        with _patch_lock:
            self._wrap(comm, names, combine_mode)

    def _wrap(self, comm, names, combine_mode):
        from . import _layers
        from .wrapped import ParameterMemory, RemoteLoRAWrappedModule, innermost, wrappers

        found = _layers.find_slots(self._model, names)
        # A `comm` of another kind has only its `lora_forward`.
        own = isinstance(comm, BaseModelToLoRAComm) and comm._session is not None
        for at in found:
            _layers.check_not_nested(at, self._model)
            if any(wrapper.comm is comm for wrapper in wrappers(at.layer)):
                raise InputError(
                    f"layer `{shown(at.name)}` has the deltas of {comm!r} already: they would be added twice"
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
                if comm.modules[at.name].reads == ["layer"]:
                    prefetch.add(at.name)
            # Noted first: it is put back even if this is interrupted in between.
            self._patches.append((at, wrapped))
            at.put(wrapped)
            logger.debug("patched `%s` (%r)", shown(at.name), comm)
        if own:
            self._prefetches.append(prefetch)

    def have(self, comm) -> bool:
        """Whether layers have the deltas of this contributor from here."""
        return any(wrapped.comm is comm for _, wrapped in self._patches)

    def warn_of_uncalled(self):
        """Says which layers were never called: some modules of torch read a layer's weights instead, and then it has no deltas."""
        uncalled = [at.name for at, wrapped in self._patches if not wrapped.called]
        if uncalled:
            logger.warning(
                "%d of %d adapted layers were never called, such as `%s`: the model ran without their deltas",
                len(uncalled),
                len(self._patches),
                shown(uncalled[0]),
            )

    def restore(self):
        """Puts the layers back; one that was replaced meanwhile by somebody else is left, with a warning in the log.

        Others may have wrapped the same layers before or after: theirs stay. Nothing is sent from here afterwards.
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
    """Takes a wrapper out of those around a layer, wherever it is among them; false if it is not there."""
    from .wrapped import wrappers

    layer = at.parent._modules.get(at.child)
    if layer is wrapped.local_sub:
        # It was never put.
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
    """Holds the weights of a base model's folder to the fingerprint of a manifest, if it has one.

    Raises ``InputError`` if they are others.
    """
    if manifest.base_fingerprint is None:
        return
    if folder is None or not os.path.isdir(folder):
        logger.warning(
            "the base model's weights were not compared with the adapter's (%s): they are in no folder",
            shown(manifest.base_model),
        )
        return
    own = base_fingerprint(folder)
    if own != manifest.base_fingerprint:
        raise InputError(
            f"{folder}: the adapter is for the base model `{shown(manifest.base_model)}` with fingerprint {shown(manifest.base_fingerprint)}, this one has "
            f"{own}: use the model that the adapter was trained on, or pass allow_other_base=True"
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
        #: Where the own record of every contributor's session is.
        self.transcript = session_dir or tempfile.mkdtemp(prefix="zklora-session-")
        self.comms = sessions(contributors, expected_adapters, self.transcript)
        #: What was verified, for each contributor; none before the end.
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
                    "this context was entered already, and not left: make another one, with a session_dir of its own"
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
        """Ends the sessions: proofs are asked for and verified. Done by leaving the context; can be called before."""
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
    """A context in which a torch model runs with the deltas of contributors' adapters::

        with zklora.remote_lora(model, [("127.0.0.1", 30000)], expected_adapters=[ADAPTER_ID]) as remote:
            model.generate(**inputs)
        remote.reports  # what was proven and verified

    Any module tree will do: layers are found by the names in the adapters' manifests. Leaving the context restores the model, asks every
    contributor for the proof of all rows, and verifies it; after an exception it restores the model and closes the sessions without
    proofs. Rows of padding are sent like others. ``base_folder`` is the folder of the model's weights, to compare fingerprints.

    Raises ``NetworkError``, ``VerificationError`` (a pin or a proof does not hold) and ``InputError`` (the model does not fit).
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
