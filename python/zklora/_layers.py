"""Where a contributor's modules go in a user's model: the names of a manifest come from a stranger.

A name is looked up, part by part, in the registered submodules of the model (``nn.Module._modules``), and nowhere else: never as an
attribute, an item or a path. What it can name are the keys of ``dict(model.named_modules(remove_duplicate=False))``. Duplicates are kept
because a layer that is registered twice has two names, and an adapter may use either.
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

from ._foreign_text import shown
from .errors import InputError


@dataclass(frozen=True)
class LayerSlot:
    """A layer of a model, with the registry that holds it."""

    name: str
    parent: nn.Module
    child: str
    layer: nn.Module

    def holds(self, layer) -> bool:
        """Whether this very layer is there."""
        return self.parent._modules.get(self.child) is layer

    def put(self, layer):
        """Puts a layer there. It is the registry's entry that changes: no attribute is set."""
        self.parent._modules[self.child] = layer


def child_of(module, name):
    """The registered submodule of this name; none if there is none."""
    if not isinstance(module, nn.Module) or not isinstance(name, str):
        return None
    # A scripted module has none that can be replaced.
    child = module._modules.get(name) if isinstance(module._modules, dict) else None
    return child if isinstance(child, nn.Module) else None


def submodule(model, parts):
    """The submodule below these names, one after the other; none if there is none."""
    for part in parts:
        model = child_of(model, part)
    return model


def find_slot(model, name):
    """The place of a name; none if it is not the name of a submodule. The model itself is none."""
    if not isinstance(name, str) or not name:
        return None
    *parents, child = name.split(".")
    parent = submodule(model, parents)
    layer = child_of(parent, child)
    return None if layer is None else LayerSlot(name, parent, child, layer)


def find_slots(model, names):
    """The places of all names of an adapter. Raises ``InputError`` if one is not in the model, or two are one layer."""
    found, missing, known = [], [], {}
    for name in names:
        at = find_slot(model, name)
        if at is None:
            missing.append(name)
            continue
        if id(at.layer) in known:
            other = known[id(at.layer)]
            raise InputError(
                f"`{shown(other)}` and `{shown(name)}` are one layer of this model, and the adapter has a module for each: it is not clear "
                "what it means"
            )
        known[id(at.layer)] = name
        found.append(at)
    if missing:
        raise InputError(
            f"{len(missing)} of {len(missing) + len(found)} modules of the adapter are not in the model, such as `{shown(missing[0])}`: "
            f"pass the model that the adapter was trained on ({type(model).__name__} has other names)"
        )
    return found


def features(layer) -> Any:
    """The numbers of features that a layer reads and puts out; none for a layer that no adapter is for.

    Adapters are for linear layers (of torch, of transformers, quantised ones) and embeddings: what they are called with is an activation,
    or the ids of tokens. Anything else, such as a container, a loss or a parametrization, may be called with a parameter or a secret.
    """
    if isinstance(layer, nn.Embedding):
        return layer.num_embeddings, layer.embedding_dim
    d_in, d_out = getattr(layer, "in_features", None), getattr(layer, "out_features", None)
    if type(d_in) is int and type(d_out) is int:
        return d_in, d_out
    if any(
        (own.__module__, own.__name__) == ("transformers.pytorch_utils", "Conv1D")
        for own in type(layer).__mro__
    ):
        return tuple(layer.weight.shape)
    return None


def check_fit(at, layer, module):
    """Raises ``InputError`` unless ``module`` of a manifest can be an adapter of the layer, with exactly its features."""
    known = features(layer)
    if known is None:
        raise InputError(
            f"layer `{shown(at.name)}` is a {type(layer).__name__}: adapters are for linear layers and embeddings, and what another one is "
            "called with need not be an activation, so nothing of it is sent"
        )
    d_in, d_out = known
    dims = dict(zip(module.reads, (features for _, features in module.inputs)))
    expected = {"layer": d_in, "base": d_out}
    if module.applies_to == "input":
        fits = (
            module.reads == ["layer"]
            and module.d_out == d_in
            and not isinstance(layer, nn.Embedding)
        )
    else:
        fits = module.d_out == d_out
    if (
        not fits
        or len(dims) != len(module.inputs)
        or any(dims[source] != expected.get(source) for source in dims)
    ):
        raise InputError(
            f"layer `{shown(at.name)}` has {d_out} x {d_in} features, and the adapter's is {shown(repr(module))}: pass the model that the "
            "adapter was trained on"
        )


def check_not_nested(at, model):
    """Raises ``InputError`` if the place is inside of a layer, or below a parametrization.

    What is there is called by the layer's own code, maybe with parameters: peft computes the norm of a DoRA adapter as
    ``lora_B(lora_A(identity))``, which would send all of ``lora_A``.
    """
    from torch.nn.utils.parametrize import ParametrizationList

    from .wrapped import innermost

    parts = at.name.split(".")
    above = [innermost(submodule(model, parts[:end])) for end in range(len(parts))]
    if any(isinstance(module, ParametrizationList) for module in above):
        raise InputError(
            f"`{shown(at.name)}` is part of a parametrization: what it is called with are parameters, so nothing is sent"
        )
    for end, module in enumerate(above):
        # Layers of peft hold the layer that they adapt as `base_layer`, whatever they are.
        if features(module) is not None or "base_layer" in module._modules:
            outer = f"layer `{shown('.'.join(parts[:end]))}`" if end else "the model itself"
            raise InputError(
                f"`{shown(at.name)}` is inside of {outer} ({type(module).__name__}): what it is called with need not be an activation, so "
                "nothing is sent"
            )
