"""The base-model user's side: runs a Hugging Face model with contributors' deltas."""

import os
import tempfile
import warnings

from ._foreign_text import shown
from .communication import BaseModelToLoRAComm, end_all, sessions
from .errors import InputError
from .patching import Patches, check_base

__all__ = ["BaseModelClient", "BaseModelToLoRAComm", "RemoteLoRAWrappedModule"]  # noqa: F822


def __getattr__(name):
    # Imported on demand: it needs torch, which this module imports only where it is used.
    if name == "RemoteLoRAWrappedModule":
        from .wrapped import RemoteLoRAWrappedModule

        return RemoteLoRAWrappedModule
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class BaseModelClient:
    """A causal language model with the deltas of one or more contributors.

    ``base_model`` is a folder, or a name that ``transformers`` knows. ``contributors`` are ``(host,
    port)``, URLs, ``Contributor`` or ``LocalContributor`` objects, instead of the one at
    ``host_a:port_a``. ``expected_adapters`` are the pins, in the same order: adapter ids, manifest
    files or public folders, known before the session. Without pins the proof shows almost nothing,
    and a warning says so.

    ``combine_mode`` is ``"add_delta"`` (as a LoRA does) or ``"replace"`` (for contributors that
    serve whole layers). ``session_dir`` is the folder of your own record [default: a new temporary
    folder]. ``use_optimization`` is ignored; it exists for compatibility with old scripts.
    """

    def __init__(
        self,
        base_model="distilgpt2",
        host_a: str = "127.0.0.1",
        port_a: int = 30000,
        combine_mode: str = "replace",
        contributors=None,
        expected_adapters=None,
        *,
        session_dir=None,
        allow_other_base=False,
        use_optimization=True,
        **model_options,
    ):
        import transformers

        self.model = transformers.AutoModelForCausalLM.from_pretrained(base_model, **model_options)
        if getattr(self.model, "config", None) is not None:
            # A loss needs no cache; `generate` turns it on.
            self.model.config.use_cache = False
        self.model.eval()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(base_model)
        self.combine_mode = combine_mode
        self.use_optimization = use_optimization
        #: Folder of your own record, for the argument ``transcript`` of ``batch_verify_proofs``.
        self.transcript = session_dir or tempfile.mkdtemp(prefix="zklora-session-")
        contributors = [(host_a, port_a)] if contributors is None else contributors
        self.comms = sessions(contributors, expected_adapters, self.transcript)
        self._base_folder = base_model if isinstance(base_model, (str, os.PathLike)) else None
        self._allow_other_base = allow_other_base
        self._patches = Patches(self.model)

    def _navigate(self, mod, parts):
        from ._layers import submodule

        # Registered submodules only, because the names come from manifests.
        found = submodule(mod, parts)
        if found is None:
            raise InputError(
                f"`{shown('.'.join(parts))}` is not a submodule of {type(mod).__name__}"
            )
        return found

    def init_and_patch(self):
        """Connects to every contributor, checks its pin, and patches the layers of its modules.

        A second call does nothing. Raises ``InputError`` if a module is not in the model, or the
        model is not the one that the adapter was trained on.
        """
        try:
            for comm in self.comms:
                comm.init_request()
                if self._patches.have(comm):
                    continue
                if isinstance(comm, BaseModelToLoRAComm) and comm._session is not None:
                    manifest = comm.session.manifest
                    if not self._allow_other_base:
                        check_base(manifest, self._base_folder)
                    if self.combine_mode == "replace" and any(map(_is_low_rank, manifest.modules)):
                        warnings.warn(
                            "combine_mode is 'replace': the layers output the contributor's deltas "
                            "ALONE. For an adapter pass combine_mode='add_delta'.",
                            stacklevel=2,
                        )
                self._patches.add(comm, self.combine_mode)
        except BaseException:
            self.unpatch()
            raise

    def unpatch(self):
        """Restores the model."""
        self._patches.restore()

    def forward_loss(self, text: str) -> float:
        """Returns the model's loss on a text, in nats per token."""
        import torch

        enc = self.tokenizer(text, return_tensors="pt")
        ids = self._on_device(enc["input_ids"])
        with torch.no_grad():
            return self.model(ids, labels=ids).loss.item()

    def generate(self, text, **options):
        """Continues ``text``, or each of a list of texts.

        ``options`` are those of the model's ``generate``.
        """
        import torch

        several = not isinstance(text, str)
        enc = self.tokenizer(text, return_tensors="pt", **({"padding": True} if several else {}))
        given = {
            name: self._on_device(enc[name])
            for name in ("input_ids", "attention_mask")
            if name in enc
        }
        with torch.no_grad():
            tokens = self.model.generate(**given, **{"use_cache": True, **options})
        new = tokens[:, given["input_ids"].shape[1] :]
        texts = self.tokenizer.batch_decode(new, skip_special_tokens=True)
        return texts if several else texts[0]

    def _on_device(self, tensor):
        device = getattr(self.model, "device", None)
        import torch

        return tensor.to(device) if isinstance(device, torch.device) else tensor

    def end_inference(self, progress=None) -> list:
        """Ends the sessions: requests the proofs, and verifies them against your record and pins.

        Returns a report for each contributor. Raises ``VerificationError`` if an answer is no.
        """
        if not self.comms:
            raise InputError("there is no contributor")
        self._patches.warn_of_uncalled()
        return end_all(self.comms, progress)


def _is_low_rank(module):
    return module.rank < min(module.d_out, *(features for _, features in module.inputs))
