"""Zero-knowledge proofs for LoRA adapters: two-party inference with transformers and peft.

* Contributor: ``LoRAServer`` and ``AServerTCP``.
* Base-model user: ``BaseModelClient``, or ``remote_lora`` around an existing model.
* Verification: ``batch_verify_proofs``, ``verify`` and ``audit``.
* Tasks of lm-evaluation-harness on a private adapter: ``zklora.lm_eval``.
* Commitments to activations: ``commit_activations`` and ``verify_commitment``.

Exceptions are in ``zklora.errors``, and log records go to the logger ``zklora``. torch and
transformers are imported only where they are used.
"""

import importlib

from . import _after_fork as _after_fork  # Registers its functions with `os`.
from ._native import Artifacts, Manifest, Module, Server, Session, Trace, __version__
from .base_model_user_mpi import BaseModelClient, BaseModelToLoRAComm
from .contributor import Contributor
from .errors import (
    ClosedError,
    FileError,
    InputError,
    NetworkError,
    RowsWarning,
    UncheckedWarning,
    VerificationError,
    ZkloraError,
)
from .local_contributor import LocalContributor
from .lora_contributor_mpi import AServerTCP, LoRAServer, LoRAServerSocket
from .patching import RemoteLora, remote_lora
from .pipeline import AuditReport, Verdict, audit, compile, export_adapter, prove, record, verify
from .polynomial_commit import commit_activations, verify_commitment
from .zk_proof_generator import batch_verify_proofs

__all__ = [
    "AServerTCP",
    "Artifacts",
    "AuditReport",
    "BaseModelClient",
    "BaseModelToLoRAComm",
    "ClosedError",
    "Contributor",
    "FileError",
    "InputError",
    "LoRAServer",
    "LoRAServerSocket",
    "LocalContributor",
    "Manifest",
    "Module",
    "NetworkError",
    "RemoteLoRAWrappedModule",
    "RemoteLora",
    "RowsWarning",
    "Server",
    "Session",
    "Trace",
    "UncheckedWarning",
    "Verdict",
    "VerificationError",
    "ZkloraError",
    "__version__",
    "audit",
    "batch_verify_proofs",
    "commit_activations",
    "compile",
    "export_adapter",
    "layer_rows",
    "prove",
    "record",
    "remote_lora",
    "verify",
    "verify_commitment",
]


def __getattr__(name):
    # Imported on demand, because they need torch.
    if name == "layer_rows":
        from ._layer_rows import layer_rows

        return layer_rows
    if name == "RemoteLoRAWrappedModule":
        from .wrapped import RemoteLoRAWrappedModule

        return RemoteLoRAWrappedModule
    if name == "lm_eval":
        # Imported on demand, because it needs the package lm_eval.
        return importlib.import_module(".lm_eval", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
