"""Contributors whose manifests have hostile module names, made with the package's functions."""

import json
import shutil

import zklora
from conftest import ADAPTERS, BASES

#: Modules of `llama_ia3` that scale a layer's input (128 features) or its output (32).
SCALE, SCALE_OF_OUTPUT = "model.layers.0.mlp.down_proj", "model.layers.0.self_attn.k_proj"


class HostileContributor:
    """Serves an adapter that has a copy of module `source` for each name."""

    def __init__(self, folder, names, adapter="llama_ia3", source=SCALE):
        zklora.export_adapter(ADAPTERS / adapter, folder / "onnx", BASES / "tiny-llama")
        paths = []
        for name in names:
            # A module has the name of its file.
            paths.append(folder / f"{name}.onnx")
            shutil.copy(folder / "onnx" / f"{source}.onnx", paths[-1])
        self.artifacts = zklora.compile(paths, folder / "out")
        assert [module.name for module in self.artifacts.modules] == list(names)
        self._ledger = folder / "out" / "private" / "served.jsonl"
        self.server = zklora.Server(folder / "out", "127.0.0.1", 0, max_rows="unlimited")
        self.contributor = zklora.Contributor(self.server.url, self.artifacts.adapter_id)

    def rows(self):
        """The rows in the contributor's ledger."""
        lines = self._ledger.read_text().splitlines() if self._ledger.exists() else []
        return [entry["rows"] for entry in map(json.loads, lines) if entry["rows"]]

    def close(self):
        self.server.stop()


def nothing_was_sent(folder):
    """Whether the logs below a session's folder show that no row was sent."""
    logs = list(folder.rglob("rows.log"))
    return bool(logs) and all(zklora._native.log_info(log)[1] == 0 for log in logs)
