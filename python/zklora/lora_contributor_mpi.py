"""The contributor's side: compiles an adapter, commits to it, and serves its deltas."""

import atexit
import glob
import logging
import os
import sys
import threading
import warnings
import weakref

from . import _arrays, _native, _temporary_folder, pipeline
from ._native import Artifacts, Server, drain_log
from .errors import InputError, RowsWarning

__all__ = ["AServerTCP", "LoRAServer", "LoRAServerSocket"]

logger = logging.getLogger("zklora")


class LoRAServer:
    """A PEFT adapter, exported, compiled and committed to in ``out_dir``.

    ``base_model_name`` is the base model's folder (its fingerprint goes into the manifest; DoRA and
    VeRA need it) or its name. ``lora_model_id`` is a PEFT folder, or an id on the Hugging Face hub
    if ``huggingface_hub`` is installed. ``out_dir/public`` is for users; keep ``out_dir/private``
    private. The same adapter in the same folder has the same adapter id. Neither torch nor peft is
    needed. ``use_optimization`` is ignored; it exists for compatibility with old scripts.
    """

    def __init__(
        self, base_model_name, lora_model_id, out_dir, use_optimization=True, progress=None
    ):
        self.base_model_name = base_model_name
        self.out_dir = os.fspath(out_dir)
        self.use_optimization = use_optimization
        os.makedirs(self.out_dir, exist_ok=True)
        base = base_model_name if os.path.isdir(base_model_name) else None
        onnx = os.path.join(self.out_dir, "onnx")
        adapter = _adapter_folder(lora_model_id)
        pipeline.export_adapter(adapter, onnx, base, progress=progress)
        self.artifacts: Artifacts = pipeline.compile(onnx, self.out_dir, progress=progress)
        #: Unproven traces that ``apply_lora`` recorded.
        self.session_data = []
        logger.info("adapter %s in %s", self.adapter_id, self.out_dir)

    @property
    def adapter_id(self) -> str:
        """The adapter id, which users pin before a session."""
        return self.artifacts.adapter_id

    def list_lora_injection_points(self) -> list:
        """Returns the names of the layers that the adapter has modules for."""
        return [module.name for module in self.artifacts.modules]

    def write_adapter_manifest(self, path):
        """Writes the manifest, which users get and pin before the session."""
        self.artifacts.manifest.save(path)

    def apply_lora(self, sub_name, input_tensor, base_activation=None):
        """Returns the deltas of a module for rows ``[..., d_in]``, and counts the rows.

        The deltas are a tensor if ``input_tensor`` is one, else an array. A few rows and their
        deltas reveal most of what the adapter does (docs/security.md).

        While a server of this adapter runs, it owns the ledger: use a session instead.
        """
        modules = {module.name: module for module in self.artifacts.modules}
        if sub_name not in modules:
            raise InputError(
                f"submodule '{sub_name}' is not recognized: the adapter has {list(modules)[:3]} "
                "and so on"
            )
        module = modules[sub_name]
        arrays = [input_tensor if source == "layer" else base_activation for source in module.reads]
        if any(array is None for array in arrays):
            raise InputError(
                f"module `{sub_name}` also reads the base layer's output: pass base_activation"
            )
        rows = [
            _arrays.to_rows(array, dim, f"module `{sub_name}`")
            for array, (_, dim) in zip(arrays, module.inputs)
        ]
        given = [array for array, _ in rows]
        trace = pipeline.record(self.artifacts, {sub_name: given if len(given) > 1 else given[0]})
        self.session_data.append(trace)
        delta = trace.deltas(sub_name).reshape(*rows[0][1], module.d_out)
        torch = sys.modules.get("torch")
        return (
            torch.from_numpy(delta)
            if torch is not None and isinstance(input_tensor, torch.Tensor)
            else delta
        )

    def finalize_proofs_and_collect(self, progress=None) -> list:
        """Proves what ``apply_lora`` recorded, and collects the proofs of served sessions.

        Returns the paths of the proofs in ``out_dir/proofs``. The trace of a served session is with
        its user; that of a session of ``apply_lora`` is beside its proof.
        """
        folder = os.path.join(self.out_dir, "proofs")
        os.makedirs(folder, exist_ok=True)
        while self.session_data:
            trace = self.session_data[0]
            path = os.path.join(folder, trace.session_id)
            trace.save(path + ".safetensors")
            pipeline.prove(self.artifacts, trace, path + ".pf", progress)
            self.session_data.pop(0)
        for proof in glob.glob(
            os.path.join(glob.escape(self.out_dir), "private", "sessions", "*.pf")
        ):
            _native.write_proof(
                os.path.join(folder, os.path.basename(proof)), _native.read_proof(proof)
            )
        return sorted(glob.glob(os.path.join(glob.escape(folder), "*.pf")))


def _adapter_folder(lora_model_id):
    """Returns the folder of an adapter, which the hub's client fetches if it is not local."""
    if os.path.isdir(lora_model_id):
        return lora_model_id
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise InputError(
            f"`{lora_model_id}` is not a folder; to fetch adapters from the hub, install "
            "huggingface_hub"
        ) from None
    try:
        return snapshot_download(
            lora_model_id, allow_patterns=["adapter_config.json", "*.safetensors"]
        )
    except Exception as error:
        raise InputError(
            f"`{lora_model_id}` is neither a folder nor an adapter on the hub: {error}"
        ) from error


#: Running servers, to stop them before the interpreter ends.
_RUNNING = weakref.WeakSet()


@atexit.register
def _stop_all():
    for thread in list(_RUNNING):
        thread.stop_event.set()
        thread.join(timeout=15)
    _temporary_folder.remove_all()


#: Whether this process has warned that a server answers any number of rows.
_warned_of_rows = False


def _warn_of_rows():
    global _warned_of_rows
    if _warned_of_rows:
        return
    warnings.warn(
        "This server answers any number of rows. A few rows give away most of what an adapter "
        "does: serve only users who have paid or are under contract (docs/security.md). max_rows=N "
        'or max_rows="unlimited" says that this is your choice, and ends this warning.',
        RowsWarning,
        stacklevel=3,
    )
    # Last: a filter that makes it an exception raises it at every start.
    _warned_of_rows = True


class AServerTCP(threading.Thread):
    """A thread that serves an adapter at ``host:port`` over gRPC until ``stop_event`` is set.

    ``start`` returns when the server listens, and raises an error if it cannot. Port 0 picks any
    free port; ``port`` and ``url`` then name it.

    A few rows reveal what the adapter does (docs/security.md): serve only users who may learn it,
    after payment or under contract. ``max_rows`` limits the rows of a module, over all sessions and
    users, which is no protection before payment. Without it, or with ``"unlimited"``, any number of
    rows is served; without it, the first server of a process warns of that (``RowsWarning``).

    Without TLS, only addresses of this machine are served, unless ``insecure=True``. ``token_file``
    has a line ``NAME TOKEN`` for each user. Log records go to the logger ``zklora``.
    """

    def __init__(
        self,
        host,
        port,
        server_obj,
        stop_event,
        *,
        max_rows=None,
        token_file=None,
        tls_cert=None,
        tls_key=None,
        client_ca=None,
        insecure=False,
    ):
        super().__init__(name="zklora-server", daemon=True)
        self.host = host
        self.port = port
        self.lora_server = server_obj
        self.stop_event = stop_event
        self._options = {
            "max_rows": max_rows,
            "token_file": token_file,
            "tls_cert": tls_cert,
            "tls_key": tls_key,
            "client_ca": client_ca,
            "insecure": insecure,
        }
        self._server = None

    @property
    def url(self):
        """The URL at which users reach it; ``None`` before ``start``."""
        return None if self._server is None else self._server.url

    def start(self):
        if self._options["max_rows"] is None:
            # Scripts for the original have no such choice.
            _warn_of_rows()
            self._options["max_rows"] = "unlimited"
        self._server = Server(self.lora_server.out_dir, self.host, self.port, **self._options)
        self.port = self._server.port
        logger.info("serving adapter %s at %s", self._server.manifest.adapter_id, self.url)
        logger.info(
            "a few rows reveal most of what an adapter does: serve only users who may learn it "
            "(docs/security.md; zklora leak)"
        )
        _RUNNING.add(self)
        super().start()

    def run(self):
        try:
            # Waits here rather than in the native module, where a thread could not end with the
            # interpreter.
            while not self.stop_event.wait(0.1) and self._server.is_running:
                drain_log()
        finally:
            try:
                self._server.stop()
                logger.info("stopped serving at %s", self.url)
            finally:
                _RUNNING.discard(self)


LoRAServerSocket = AServerTCP
