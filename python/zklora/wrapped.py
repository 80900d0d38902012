"""A layer of a model whose output gets a contributor's deltas. Needs torch."""

import torch
from torch import nn

from . import _arrays
from ._foreign_text import shown
from .errors import InputError
from .prefetch import rows_of

COMBINE_MODES = ("replace", "add_delta")


class _NoGradient(torch.autograd.Function):
    """Deltas in a graph of gradients: computed elsewhere, so there is no way back."""

    @staticmethod
    def forward(ctx, x, delta):
        return delta.view_as(delta)

    @staticmethod
    def backward(ctx, *gradients):
        raise InputError(
            "a contributor's deltas have no gradient: train with the adapter at hand, not through a session"
        )


class ParameterMemory:
    """The memory of a model's parameters and buffers: what lies there is no activation, and is not sent.

    It is looked at anew for each tensor: parameters move (``to``, ``load_state_dict(assign=True)``, ``.data = …``), and that takes less time
    than a message. A copy of a parameter cannot be told from an activation.
    """

    def __init__(self, model):
        self._model = model

    def contains(self, tensor) -> bool:
        """Whether a tensor is a parameter or buffer, or shares memory with one."""
        if isinstance(tensor, nn.Parameter):
            return True
        at = _memory(tensor)
        if at is None:
            return False
        device, start, end = at
        return any(
            device == other[0] and start < other[2] and other[1] < end for other in self._memories()
        )

    def _memories(self):
        for module in self._model.modules():
            kept = [own for own in module._parameters.values() if own is not None]
            # Buffers of ids or positions are what embeddings are called with.
            kept += [
                own for own in module._buffers.values() if own is not None and own.dtype not in _IDS
            ]
            for own in kept:
                at = _memory(own)
                if at is not None:
                    yield at


_IDS = (torch.int64, torch.int32)


def _memory(tensor):
    """Where a tensor's memory is, from and to; none if there is none, or it does not tell."""
    try:
        storage = tensor.untyped_storage()
        start = storage.data_ptr()
        return (storage.device, start, start + storage.nbytes()) if start else None
    except (AttributeError, NotImplementedError, RuntimeError):
        return None


class RemoteLoRAWrappedModule(nn.Module):
    """A layer, with the deltas of the module ``sub_name`` of a contributor.

    ``combine_mode`` is ``"add_delta"`` (base + delta, which is what an adapter is) or ``"replace"`` (what the contributor sends, alone: for
    contributors who serve whole layers). The parameters of the layer keep their names: a model's ``state_dict`` stays as it was.

    ``comm`` is a ``BaseModelToLoRAComm`` or anything with its ``lora_forward``; with ``send_base_activations``, with its
    ``lora_forward_with_base``.
    """

    def __init__(
        self, sub_name, local_sub, comm, combine_mode="replace", send_base_activations=False
    ):
        super().__init__()
        if combine_mode not in COMBINE_MODES:
            raise InputError(
                f"combine_mode {combine_mode!r}: expected one of {', '.join(map(repr, COMBINE_MODES))}"
            )
        # Not a child: the layer's own parameters and children are those of this module.
        object.__setattr__(self, "local_sub", local_sub)
        if isinstance(local_sub, nn.Module):
            self._parameters, self._buffers, self._modules = (
                local_sub._parameters,
                local_sub._buffers,
                local_sub._modules,
            )
            self._non_persistent_buffers_set = local_sub._non_persistent_buffers_set
            self.training = local_sub.training
        self.sub_name = sub_name
        self.comm = comm
        self.combine_mode = combine_mode
        self.send_base_activations = send_base_activations
        #: How calls of several modules travel together; none: one by one.
        object.__setattr__(self, "prefetch", None)
        #: Whether it is a wrapper no more: it may still be where somebody else put it.
        object.__setattr__(self, "released", False)
        #: Whether the model ever called it.
        object.__setattr__(self, "called", False)
        #: What is never sent; none: not known.
        object.__setattr__(self, "parameters_of_model", None)

    def __getattr__(self, name):
        # For the model's own code, which may read what its layers have. No name of a manifest comes here: see `_places`.
        try:
            return super().__getattr__(name)
        except AttributeError:
            local_sub = self.__dict__.get("local_sub")
            if local_sub is None or not hasattr(local_sub, name):
                raise
            return getattr(local_sub, name)

    def train(self, mode=True):
        super().train(mode)
        if isinstance(self.local_sub, nn.Module):
            self.local_sub.train(mode)
        return self

    def forward(self, x, *args, **kwargs):
        """What the layer puts out, combined with the deltas: in the dtype and on the device of the layer's output."""
        _, combined = self._with_base(x, *args, **kwargs)
        return combined

    def _with_base(self, x, *args, **kwargs):
        """What the layer itself puts out, and that with the deltas of every contributor to it."""
        if self.released:
            return self._inner(x, *args, **kwargs)
        object.__setattr__(self, "called", True)
        module = self._served()
        if module is not None and module.applies_to == "input":
            x = self._combined(x, x, self._ask(module, x)())
            return self._inner(x, *args, **kwargs)
        # Deltas that need nothing but x travel while the layer computes.
        early = self._ask(module, x) if module is not None and "base" not in module.reads else None
        base, so_far = self._inner(x, *args, **kwargs)
        if not isinstance(base, torch.Tensor):
            raise InputError(
                f"layer `{self.sub_name}` puts out {type(base).__name__}: only layers that put out one tensor are adapted"
            )
        answer = early or self._ask(module, x, base)
        return base, self._combined(so_far, x, answer())

    def _inner(self, x, *args, **kwargs):
        if isinstance(self.local_sub, RemoteLoRAWrappedModule):
            return self.local_sub._with_base(x, *args, **kwargs)
        out = self.local_sub(x, *args, **kwargs)
        return out, out

    def _served(self):
        """The contributor's description of the module; none for a ``comm`` of another kind."""
        return None if self.prefetch is None else self.comm.modules[self.sub_name]

    def _ask(self, module, x, base=None):
        """Sends the rows; returns what waits for the deltas."""
        x = self._dense(x, module)
        if base is not None and (module is None or "base" in module.reads):
            self._refuse_parameter(base, "puts out")
        if module is None:
            if self.send_base_activations:
                arrays = (
                    _arrays.to_numpy(value, f"layer `{self.sub_name}`") for value in (x, base)
                )
                answer = self.comm.lora_forward_with_base(self.sub_name, *arrays)
            else:
                answer = self.comm.lora_forward(
                    self.sub_name, _arrays.to_numpy(x, f"layer `{self.sub_name}`")
                )
            if answer is None:
                raise InputError(
                    f"layer `{self.sub_name}`: no output from A: the contributor gave no deltas"
                )
            return lambda: answer
        if module.reads == ["layer"]:
            wait = self.prefetch.send(self.sub_name, x, rows_of(x, module))
        else:
            deltas = self.comm.lora_forward_with_base(self.sub_name, x, base)
            wait = lambda: deltas  # noqa: E731
        return lambda: wait().reshape(*x.shape[:-1], module.d_out)

    def _dense(self, x, module):
        """What the module reads: the layer's input, or for an embedding the rows that its ids select."""
        if not isinstance(x, torch.Tensor):
            raise InputError(
                f"layer `{self.sub_name}` was called with {type(x).__name__}: expected a tensor"
            )
        self._refuse_parameter(x, "was called with")
        if module is None or x.is_floating_point():
            return x
        entries = module.inputs[module.reads.index("layer")][1]
        if x.dtype not in (torch.int64, torch.int32) or not isinstance(
            innermost(self.local_sub), nn.Embedding
        ):
            raise InputError(
                f"layer `{self.sub_name}` was called with a tensor of {x.dtype}: expected floating-point numbers"
            )
        return nn.functional.one_hot(x.long(), entries).to(torch.float32)

    def _refuse_parameter(self, tensor, what):
        if self.parameters_of_model is not None and self.parameters_of_model.contains(tensor):
            raise InputError(
                f"layer `{shown(self.sub_name)}` {what} a parameter of the model or a buffer, or a view of one, which is no activation: it is "
                "not sent"
            )

    def _combined(self, value, x, answer):
        delta = torch.as_tensor(answer, dtype=torch.float32).to(value.device)
        if torch.is_grad_enabled() and x.requires_grad:
            delta = _NoGradient.apply(x, delta)
        if self.combine_mode == "replace":
            return delta.to(value.dtype)
        return (value + delta).to(value.dtype)

    def extra_repr(self):
        return f"{shown(self.sub_name)}, {self.combine_mode}, {self.comm!r}"


def wrappers(layer):
    """The wrappers around a layer, the outermost first."""
    while isinstance(layer, RemoteLoRAWrappedModule):
        yield layer
        layer = layer.local_sub


def innermost(layer):
    """The layer itself, without the wrappers around it."""
    while isinstance(layer, RemoteLoRAWrappedModule):
        layer = layer.local_sub
    return layer
