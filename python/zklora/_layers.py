"""Finds the layers of a user's model that a manifest names. Its names are untrusted.

A name is looked up, part by part, in the registered submodules of the model
(``nn.Module._modules``), never as an attribute, an item or a path. Valid names are the keys of
``dict(model.named_modules(remove_duplicate=False))``. Duplicates are kept because a layer that is
registered twice has two names, and an adapter may use either.
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

from ._foreign_text import shown
from ._layer_rows import check_convolution, is_convolution, patch_features
from .errors import InputError


@dataclass(frozen=True)
class LayerSlot:
    """A layer of a model, and its entry in the registry of its parent."""

    name: str
    parent: nn.Module
    child: str
    layer: nn.Module

    def holds(self, layer) -> bool:
        """Whether the entry is this object."""
        return self.parent._modules.get(self.child) is layer

    def put(self, layer):
        """Replaces the registry's entry. No attribute is set."""
        self.parent._modules[self.child] = layer


def child_of(module, name):
    """Returns the registered submodule of this name, or ``None``."""
    if not isinstance(module, nn.Module) or not isinstance(name, str):
        return None
    # The submodules of a scripted module cannot be replaced.
    child = module._modules.get(name) if isinstance(module._modules, dict) else None
    return child if isinstance(child, nn.Module) else None


def submodule(model, parts):
    """Follows the names one after the other; returns the submodule, or ``None``."""
    for part in parts:
        model = child_of(model, part)
    return model


def find_slot(model, name):
    """Returns the slot of a submodule's name, or ``None``. The model itself has no slot."""
    if not isinstance(name, str) or not name:
        return None
    *parents, child = name.split(".")
    parent = submodule(model, parents)
    layer = child_of(parent, child)
    return None if layer is None else LayerSlot(name, parent, child, layer)


def find_slots(model, names):
    """Returns the slots of all names of an adapter.

    Raises ``InputError`` if a name is not in the model, or two names are the same layer.
    """
    found, missing, known = [], [], {}
    for name in names:
        slot = find_slot(model, name)
        if slot is None:
            missing.append(name)
            continue
        if id(slot.layer) in known:
            other = known[id(slot.layer)]
            raise InputError(
                f"`{shown(other)}` and `{shown(name)}` are the same layer of this model, but the "
                "adapter has a module for each: pass a model in which they are two layers"
            )
        known[id(slot.layer)] = name
        found.append(slot)
    if missing:
        raise InputError(
            f"{len(missing)} of {len(missing) + len(found)} modules of the adapter are not in the "
            f"model, such as `{shown(missing[0])}`: pass the model that the adapter was trained on "
            f"({type(model).__name__} has other names)"
        )
    return found


def features(layer) -> Any:
    """Returns a layer's input and output features; ``None`` for a layer that cannot be adapted.

    Adapters are for linear layers (of torch, of transformers, quantised ones), convolutions,
    embeddings, and norms whose bias was trained: their input is an activation, or token ids.
    Another module, such as a container, a loss or a parametrization, may be called with a parameter
    or a secret.
    """
    if isinstance(layer, nn.Embedding):
        return layer.num_embeddings, layer.embedding_dim
    if is_convolution(layer):
        return patch_features(layer)
    if isinstance(layer, nn.LayerNorm) and len(layer.normalized_shape) == 1:
        return layer.normalized_shape * 2
    d_in, d_out = getattr(layer, "in_features", None), getattr(layer, "out_features", None)
    if type(d_in) is int and type(d_out) is int:
        return d_in, d_out
    if any(
        (own.__module__, own.__name__) == ("transformers.pytorch_utils", "Conv1D")
        for own in type(layer).__mro__
    ):
        return tuple(layer.weight.shape)
    return None


def check_fit(slot, layer, module):
    """Raises ``InputError`` unless a manifest's ``module`` has exactly the layer's features."""
    known = features(layer)
    # Of a norm, only the bias has a delta.
    if known is None or (isinstance(layer, nn.LayerNorm) and module.reads != ["base"]):
        raise InputError(
            f"layer `{shown(slot.name)}` is a {type(layer).__name__}: adapters are for "
            "linear layers, convolutions and embeddings. The input of another layer may be no "
            "activation, so it is not sent"
        )
    if is_convolution(layer):
        check_convolution(layer, f"layer `{shown(slot.name)}`")
    d_in, d_out = known
    dims = dict(zip(module.reads, (features for _, features in module.inputs)))
    expected = {"layer": d_in, "base": d_out}
    if module.applies_to == "input":
        fits = (
            module.reads == ["layer"]
            and module.d_out == d_in
            and not isinstance(layer, nn.Embedding)
            and not is_convolution(layer)
        )
    else:
        fits = module.d_out == d_out
    if (
        not fits
        or len(dims) != len(module.inputs)
        or any(dims[source] != expected.get(source) for source in dims)
    ):
        raise InputError(
            f"layer `{shown(slot.name)}` has {d_out} x {d_in} features, but the adapter's module "
            f"is {shown(repr(module))}: pass the model that the adapter was trained on"
        )


def check_not_nested(slot, model):
    """Raises ``InputError`` if the slot is inside of a layer, or below a parametrization.

    The layer's own code calls such a module, maybe with parameters: peft computes the norm of a
    DoRA adapter as ``lora_B(lora_A(identity))``, which would send all of ``lora_A``.
    """
    from torch.nn.utils.parametrize import ParametrizationList

    from .wrapped import innermost

    parts = slot.name.split(".")
    above = [innermost(submodule(model, parts[:end])) for end in range(len(parts))]
    if any(isinstance(module, ParametrizationList) for module in above):
        raise InputError(
            f"`{shown(slot.name)}` is part of a parametrization: its inputs are parameters, so "
            "nothing is sent"
        )
    for end, module in enumerate(above):
        # peft's layers of all kinds register the layer that they adapt as `base_layer`.
        if features(module) is not None or "base_layer" in module._modules:
            outer = f"layer `{shown('.'.join(parts[:end]))}`" if end else "the model itself"
            raise InputError(
                f"`{shown(slot.name)}` is inside of {outer} ({type(module).__name__}): its input "
                "may be no activation, so nothing is sent"
            )
