"""Adapters whose manifests name what they should not, made with the package's own functions."""

import json
import shutil

import zklora
from conftest import ADAPTERS, BASES

#: Of `llama_ia3`: feature by feature, what the layer reads (128 features), or what it puts out (32).
SCALE, SCALE_OF_OUTPUT = "model.layers.0.mlp.down_proj", "model.layers.0.self_attn.k_proj"


class HostileContributor:
    """Serves an adapter whose module `source` is called `name`."""

    def __init__(self, folder, names, adapter="llama_ia3", source=SCALE):
        zklora.export_adapter(ADAPTERS / adapter, folder / "onnx", BASES / "tiny-llama")
        paths = []
        for name in names:
            # A module is called what its file is called.
            paths.append(folder / f"{name}.onnx")
            shutil.copy(folder / "onnx" / f"{source}.onnx", paths[-1])
        self.artifacts = zklora.compile(paths, folder / "out")
        assert [module.name for module in self.artifacts.modules] == list(names)
        self._ledger = folder / "out" / "private" / "served.jsonl"
        self.server = zklora.Server(folder / "out", "127.0.0.1", 0)
        self.contributor = zklora.Contributor(self.server.url, self.artifacts.adapter_id)

    def rows(self):
        """What the contributor's ledger says of the rows that it got."""
        lines = self._ledger.read_text().splitlines() if self._ledger.exists() else []
        return [entry["rows"] for entry in map(json.loads, lines) if entry["rows"]]

    def close(self):
        self.server.stop()


def nothing_was_sent(folder):
    """Whether the logs below a session's folder show that no row left."""
    logs = list(folder.rglob("rows.log"))
    return bool(logs) and all(zklora._native.log_info(log)[1] == 0 for log in logs)
