"""The contributor's side: an adapter, compiled and committed to, and the server of its deltas."""

import atexit
import glob
import logging
import os
import sys
import threading
import weakref

from . import _arrays, _native, _temporary_folder, pipeline
from ._native import Artifacts, Server, drain_log
from .errors import InputError

__all__ = ["AServerTCP", "LoRAServer", "LoRAServerSocket"]

logger = logging.getLogger("zklora")


class LoRAServer:
    """A PEFT adapter, exported, compiled and committed to in ``out_dir``.

    ``base_model_name`` is the base model's folder (its fingerprint goes into the manifest; DoRA and VeRA need it) or its name;
    ``lora_model_id`` a PEFT folder, or an id on the Hugging Face hub if ``huggingface_hub`` is installed. ``out_dir/public`` is for users
    and ``out_dir/private`` for nobody else. The same adapter in the same folder has the same adapter id. Neither torch nor peft is
    needed. ``use_optimization`` is taken for the sake of old scripts.
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
        #: Traces that ``apply_lora`` recorded and that are not proven.
        self.session_data = []
        logger.info("adapter %s in %s", self.adapter_id, self.out_dir)

    @property
    def adapter_id(self) -> str:
        """What users pin before a session."""
        return self.artifacts.adapter_id

    def list_lora_injection_points(self) -> list:
        """The names of the layers that the adapter has modules for."""
        return [module.name for module in self.artifacts.modules]

    def write_adapter_manifest(self, path):
        """Writes the manifest: what users get before the session, and pin."""
        self.artifacts.manifest.save(path)

    def apply_lora(self, sub_name, input_tensor, base_activation=None):
        """The deltas of a module for rows ``[..., d_in]``, as the kind of array that was given; the rows are counted in the ledger.

        A few rows and their deltas give away most of what the adapter does (docs/security.md).

        While a server of this adapter runs, the ledger is its own: use a session.
        """
        modules = {module.name: module for module in self.artifacts.modules}
        if sub_name not in modules:
            raise InputError(
                f"submodule '{sub_name}' is not recognized: the adapter has {list(modules)[:3]} and so on"
            )
        module = modules[sub_name]
        arrays = [input_tensor if source == "layer" else base_activation for source in module.reads]
        if any(array is None for array in arrays):
            raise InputError(
                f"module `{sub_name}` also reads what the base layer puts out: pass base_activation"
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
        """Proves what ``apply_lora`` recorded, and collects the proofs of served sessions: files in ``out_dir/proofs``.

        Returns their paths. What a served session's proof is about lies with its user; beside the others is their trace.
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
    """The folder of an adapter: a local one, or one that the hub's client fetches."""
    if os.path.isdir(lora_model_id):
        return lora_model_id
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise InputError(
            f"`{lora_model_id}` is no folder; to fetch adapters from the hub, install huggingface_hub"
        ) from None
    try:
        return snapshot_download(
            lora_model_id, allow_patterns=["adapter_config.json", "*.safetensors"]
        )
    except Exception as error:
        raise InputError(
            f"`{lora_model_id}` is neither a folder nor an adapter that the hub gives: {error}"
        ) from error


#: Servers that run, so that they are stopped before the interpreter ends.
_RUNNING = weakref.WeakSet()


@atexit.register
def _stop_all():
    for thread in list(_RUNNING):
        thread.stop_event.set()
        thread.join(timeout=15)
    _temporary_folder.remove_all()


class AServerTCP(threading.Thread):
    """A thread that serves an adapter at ``host:port`` over gRPC until ``stop_event`` is set.

    ``start`` returns when the server listens, and raises what hinders it. Port 0 is any free one; ``port`` and ``url`` are then known.
    Rows give away what the adapter does, after few of them (docs/security.md): serve users who may have it, after payment or under
    contract. Without TLS only addresses of this machine are served, unless ``insecure=True``. ``max_rows`` is the most rows that a
    module serves over all sessions and users, which is no protection before payment; ``token_file`` has a line ``NAME TOKEN`` for each user. What it does is logged under ``zklora``.
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
        """Where users reach it; none before ``start``."""
        return None if self._server is None else self._server.url

    def start(self):
        self._server = Server(self.lora_server.out_dir, self.host, self.port, **self._options)
        self.port = self._server.port
        logger.info("serving adapter %s at %s", self._server.manifest.adapter_id, self.url)
        logger.info(
            "a few rows give away most of what an adapter does: serve users who may have it (docs/security.md; zklora leak)"
        )
        _RUNNING.add(self)
        super().start()

    def run(self):
        try:
            # It is waited for here and not in the native module, where a thread could not end with the interpreter.
            while not self.stop_event.wait(0.1) and self._server.is_running:
                drain_log()
        finally:
            try:
                self._server.stop()
                logger.info("stopped serving at %s", self.url)
            finally:
                _RUNNING.discard(self)


LoRAServerSocket = AServerTCP
