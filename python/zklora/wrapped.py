"""Wraps a layer of a model, so that its output gets a contributor's deltas. Needs torch."""

import bisect
import itertools
import operator

import torch
from torch import nn

from . import _arrays
from ._foreign_text import shown
from ._layer_rows import is_convolution, layer_rows, output_of, output_rows
from .errors import InputError
from .prefetch import rows_of

COMBINE_MODES = ("replace", "add_delta")


class _NoGradient(torch.autograd.Function):
    """Deltas in an autograd graph. They are computed elsewhere, so they have no gradient."""

    @staticmethod
    def forward(ctx, x, delta):
        return delta.view_as(delta)

    @staticmethod
    def backward(ctx, *gradients):
        raise InputError(
            "a contributor's deltas have no gradient: train with a local adapter, not in a session"
        )


class ParameterMemory:
    """The memory of a model's parameters and buffers, which are not activations and never sent.

    Parameters move (``to``, ``load_state_dict(assign=True)``, ``.data = …``), so for each tensor
    that is sent, the model's modules, parameters and their addresses are compared with those that
    are known. A copy of a parameter cannot be distinguished from an activation.
    """

    def __init__(self, model):
        self._model = model
        #: The dictionaries of all modules' children, parameters and buffers.
        self._dictionaries = []
        #: Their values when memory was last read.
        self._values = None
        #: The parameters and buffers among the values, and their addresses.
        self._tensors, self._addresses = [], []
        #: ``{device: (starts, ends)}`` of their memory, in order.
        self._memory = {}

    def contains(self, tensor) -> bool:
        """Whether a tensor is a parameter or buffer, or shares memory with one."""
        if isinstance(tensor, nn.Parameter):
            return True
        at = _memory(tensor)
        if at is None:
            return False
        device, start, end = at
        # Merged, so the last one that begins before the end decides.
        starts, ends = self._memories().get(device, ((), ()))
        before = bisect.bisect_left(starts, end)
        return before > 0 and start < ends[before - 1]

    def _memories(self):
        values = self._read()
        is_known = (
            self._values is not None
            and len(values) == len(self._values)
            and all(map(operator.is_, values, self._values))
            and list(map(_address, self._tensors)) == self._addresses
        )
        if not is_known:
            modules = list(self._model.modules())
            self._dictionaries = [
                own
                for module in modules
                for own in (module._modules, module._parameters, module._buffers)
            ]
            self._values = self._read()
            self._tensors = [
                own
                for own in self._values
                # Embeddings may be called with buffers of ids or positions.
                if isinstance(own, torch.Tensor) and own.dtype not in _IDS
            ]
            self._addresses = list(map(_address, self._tensors))
            self._memory = _merged(filter(None, map(_memory, self._tensors)))
        return self._memory

    def _read(self):
        # Scripted modules have dictionaries of their own kind, with new values at each reading.
        values = map(operator.methodcaller("values"), self._dictionaries)
        return list(itertools.chain.from_iterable(values))


_IDS = (torch.int64, torch.int32)


def _address(tensor):
    try:
        return tensor.data_ptr()
    except (AttributeError, NotImplementedError, RuntimeError):
        return None


def _merged(memories):
    """Merges ``(device, start, end)`` that touch: ``{device: (starts, ends)}``, in order."""
    merged = {}
    for device, start, end in sorted(memories, key=lambda memory: memory[1]):
        starts, ends = merged.setdefault(device, ([], []))
        if ends and start <= ends[-1]:
            ends[-1] = max(ends[-1], end)
        else:
            starts.append(start)
            ends.append(end)
    return merged


def _memory(tensor):
    """Returns device, start and end of a tensor's memory; ``None`` if they are not known."""
    try:
        storage = tensor.untyped_storage()
        start = storage.data_ptr()
        return (storage.device, start, start + storage.nbytes()) if start else None
    except (AttributeError, NotImplementedError, RuntimeError):
        return None


class RemoteLoRAWrappedModule(nn.Module):
    """A layer, with the deltas of the module ``sub_name`` of a contributor.

    ``combine_mode`` is ``"add_delta"`` (base + delta, for adapters) or ``"replace"`` (the deltas
    alone, for contributors that serve whole layers). The parameters of the layer keep their names:
    a model's ``state_dict`` is unchanged.

    ``comm`` is a ``BaseModelToLoRAComm`` or any object with ``lora_forward``; with
    ``send_base_activations``, any object with ``lora_forward_with_base``.
    """

    def __init__(
        self, sub_name, local_sub, comm, combine_mode="replace", send_base_activations=False
    ):
        super().__init__()
        if combine_mode not in COMBINE_MODES:
            raise InputError(
                f"combine_mode {combine_mode!r}: expected one of "
                f"{', '.join(map(repr, COMBINE_MODES))}"
            )
        # Not a child, because this module has the layer's own parameters and children.
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
        #: Combines calls of several modules; ``None``: one message for each.
        object.__setattr__(self, "prefetch", None)
        #: Whether it adds no deltas any more; other code may still refer to it.
        object.__setattr__(self, "released", False)
        #: Whether the model has called it.
        object.__setattr__(self, "called", False)
        #: Memory that is never sent; ``None``: not known.
        object.__setattr__(self, "parameters_of_model", None)

    def __getattr__(self, name):
        # For the model's own code, which may read its layers' attributes. Names of manifests are
        # never looked up here: see `_layers`.
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
        """Returns the layer's output with the deltas, in its own dtype and on its own device."""
        _, combined = self._with_base(x, *args, **kwargs)
        return combined

    def _with_base(self, x, *args, **kwargs):
        """Returns the layer's own output, and its output with the deltas of all contributors."""
        if self.released:
            return self._inner(x, *args, **kwargs)
        object.__setattr__(self, "called", True)
        module = self._served()
        if module is not None and module.applies_to == "input":
            x = self._combined(x, x, self._ask(module, x)())
            return self._inner(x, *args, **kwargs)
        # Deltas that depend on x alone are requested while the layer computes.
        early = self._ask(module, x) if module is not None and "base" not in module.reads else None
        base, so_far = self._inner(x, *args, **kwargs)
        if not isinstance(base, torch.Tensor):
            raise InputError(
                f"layer `{self.sub_name}` outputs {type(base).__name__}: only layers that output "
                "one tensor can be adapted"
            )
        answer = early or self._ask(module, x, base)
        return base, self._combined(so_far, x, answer())

    def _inner(self, x, *args, **kwargs):
        if isinstance(self.local_sub, RemoteLoRAWrappedModule):
            return self.local_sub._with_base(x, *args, **kwargs)
        out = self.local_sub(x, *args, **kwargs)
        return out, out

    def _served(self):
        """Returns the contributor's ``Module``; ``None`` for a ``comm`` of another type."""
        return None if self.prefetch is None else self.comm.modules[self.sub_name]

    def _ask(self, module, x, base=None):
        """Sends the rows; returns a function that waits for the deltas."""
        if not self._has_sent(x):
            x = self._dense(x, module)
        if base is not None and (module is None or "base" in module.reads):
            self._refuse_parameter(base, "outputs")
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
        layer = innermost(self.local_sub)
        rows = layer_rows(layer, x)
        if module.reads != ["layer"]:
            base = None if base is None else output_rows(layer, base)
            deltas = self.comm.lora_forward_with_base(self.sub_name, rows, base)
            wait = lambda: deltas  # noqa: E731
        elif is_convolution(layer):
            request = self.comm.submit([(self.sub_name, [rows_of(rows, module)])])
            wait = lambda: request.result()[0]  # noqa: E731
        else:
            wait = self.prefetch.send(self.sub_name, x, rows_of(x, module))

        def answer():
            deltas = torch.as_tensor(wait(), dtype=torch.float32)
            return output_of(layer, deltas.reshape(*rows.shape[:-1], module.d_out))

        return answer

    def _has_sent(self, x):
        """Whether the rows of ``x`` were sent, with those of a layer before this one."""
        return self.prefetch is not None and self.prefetch.has_sent(self.sub_name, x)

    def _dense(self, x, module):
        """Returns the module's input: the layer's input, or an embedding's ids as one-hot rows."""
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
                f"layer `{self.sub_name}` was called with a tensor of {x.dtype}: expected "
                "floating-point numbers"
            )
        return nn.functional.one_hot(x.long(), entries).to(torch.float32)

    def _refuse_parameter(self, tensor, what):
        if self.parameters_of_model is not None and self.parameters_of_model.contains(tensor):
            raise InputError(
                f"layer `{shown(self.sub_name)}` {what} a parameter of the model or a buffer, or a "
                "view of one, which is not an activation: it is not sent"
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
    """Yields the wrappers around a layer, outermost first."""
    while isinstance(layer, RemoteLoRAWrappedModule):
        yield layer
        layer = layer.local_sub


def innermost(layer):
    """Returns the layer itself, without its wrappers."""
    while isinstance(layer, RemoteLoRAWrappedModule):
        layer = layer.local_sub
    return layer
