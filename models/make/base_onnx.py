"""Exports base models to ONNX in the form that `zklora` needs: token ids to logits.

`export_cached` writes a model that also takes and gives its cache of keys and values, by the names
that optimum uses: a token of generated text then costs a token. Shared by smollm2.py and tiny.py.
The functions write the model and, in its metadata, the fingerprint of its weights
(`zklora.base_fingerprint`). The file contains no paths of this machine.
"""

import json
import os
import struct

import blake3
import onnx
import torch
from transformers import DynamicCache

SCOPES = "pkg.torch.onnx.name_scopes"


def fingerprint(folder):
    """BLAKE3 of the tensors in folder/model.safetensors: see `zklora_models::fingerprint`."""
    hasher = blake3.blake3()

    def part(content):
        hasher.update(struct.pack("<Q", len(content)))
        hasher.update(content)

    with open(os.path.join(folder, "model.safetensors"), "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        for name in sorted(header, key=lambda name: name.encode()):
            tensor = header[name]
            begin, end = tensor["data_offsets"]
            part(name.encode())
            part(tensor["dtype"].encode())
            part(b"".join(struct.pack("<Q", dim) for dim in tensor["shape"]))
            file.seek(8 + length + begin)
            part(file.read(end - begin))
    return hasher.hexdigest()


class Logits(torch.nn.Module):
    """The model without its cache, with the input names that the exporter gets."""

    def __init__(self, model, names):
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs):
        named = dict(zip(self.names, inputs))
        return self.model(**named, use_cache=False, return_dict=False)[0]


class Cached(torch.nn.Module):
    """The model with its cache: keys and values of every layer follow the named inputs."""

    def __init__(self, model, names):
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs):
        named = dict(zip(self.names, inputs))
        past = inputs[len(self.names) :]
        cache = DynamicCache(list(zip(past[::2], past[1::2])))
        logits = self.model(**named, past_key_values=cache, use_cache=True, return_dict=True).logits
        present = [part for layer in cache.layers for part in (layer.keys, layer.values)]
        return logits, *present


def export_cached(model, path, folder=None):
    """Writes `path`, with inputs `past_key_values.N.key` and outputs `present.N.key`."""
    config = model.config
    heads = getattr(config, "num_key_value_heads", config.num_attention_heads)
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    names = ["input_ids", "attention_mask", "position_ids"]
    layers = range(config.num_hidden_layers)
    past = [f"past_key_values.{n}.{part}" for n in layers for part in ("key", "value")]
    present = [name.replace("past_key_values", "present") for name in past]
    ids = torch.arange(5)[None] + 1
    caches = tuple(torch.randn(1, heads, 3, width) for _ in past)
    inputs = (ids, torch.ones(1, 8, dtype=torch.int64), ids + 2, *caches)
    dynamic = {name: {0: "batch", 1: "seq"} for name in ("input_ids", "position_ids", "logits")}
    dynamic["attention_mask"] = {0: "batch", 1: "past_plus_seq"}
    dynamic |= {name: {0: "batch", 2: "past"} for name in past}
    dynamic |= {name: {0: "batch", 2: "past_plus_seq"} for name in present}
    torch.onnx.export(
        Cached(model.eval(), names).eval(),
        inputs,
        path,
        input_names=names + past,
        output_names=["logits", *present],
        dynamo=False,
        opset_version=17,
        dynamic_axes=dynamic,
    )
    finish(path, folder)


def export(model, path, folder=None, dynamo=True, position_ids=False, external=False):
    """Writes `path`; `folder` has the weights, for the fingerprint."""
    names = ["input_ids", "attention_mask"] + ["position_ids"] * position_ids
    ids = torch.arange(5)[None] + 1
    inputs = tuple(
        {"input_ids": ids, "attention_mask": torch.ones_like(ids), "position_ids": ids - 1}[n]
        for n in names
    )
    wrapped = Logits(model.eval(), names).eval()
    common = {"input_names": names, "output_names": ["logits"]}
    if dynamo:
        sequence = torch.export.Dim("seq", min=2, max=2048)
        torch.onnx.export(
            wrapped,
            inputs,
            path,
            dynamo=True,
            opset_version=18,
            external_data=external,
            dynamic_shapes=(tuple({1: sequence} for _ in names),),
            **common,
        )
    else:
        dynamic = {name: {0: "batch", 1: "seq"} for name in names + ["logits"]}
        torch.onnx.export(
            wrapped, inputs, path, dynamo=False, opset_version=17, dynamic_axes=dynamic, **common
        )
    finish(path, folder)


def finish(path, folder):
    """Removes what has paths of this machine, and adds the fingerprint."""
    written = onnx.load(path, load_external_data=False)
    for node in written.graph.node:
        # Keep the scopes, which name a node's module; the rest has paths of this machine.
        kept = [entry for entry in node.metadata_props if entry.key == SCOPES]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
        node.doc_string = ""
    for value in [*written.graph.value_info, *written.graph.input, *written.graph.output]:
        del value.metadata_props[:]
    if folder:
        onnx.helper.set_model_props(written, {"zklora.base_fingerprint": fingerprint(folder)})
    with open(path, "wb") as file:
        file.write(written.SerializeToString())
