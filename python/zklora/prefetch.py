"""Sends modules that read the same tensor in one message: q, k and v of a layer, say.

The calls show which modules do, for all layers of one kind at once: the first layer sends q, k and
v one by one, the following layers send them together. A wrong guess sends rows that were not
needed, and is not repeated.
"""

import re
import threading

from . import _arrays, _native


class Batch:
    """Modules that were sent in one message."""

    def __init__(self, pending):
        self._pending = pending
        self._deltas = None

    def delta(self, at):
        """Returns the deltas of the module at this index: ``[rows, d_out]``."""
        if self._deltas is None:
            self._deltas = self._pending.result()
        return self._deltas[at]


class Reading:
    """The modules of one parent that have read one tensor so far."""

    def __init__(self, tensor, parent):
        # A reference, so that no other tensor gets the same memory.
        self._tensor = tensor
        # A tensor of inference mode has no version that shows changes, so its values are compared.
        self._version = None if tensor.is_inference() else tensor._version
        self._values = tensor.clone() if tensor.is_inference() else None
        self.parent = parent
        #: ``{child: (batch, index)}``.
        self.sent = {}
        #: Children that were called.
        self.used = set()

    def continues(self, tensor, parent):
        """Whether a call of ``parent`` reads the same, unchanged tensor."""
        if tensor is not self._tensor or parent != self.parent:
            return False
        if self._values is None:
            return tensor._version == self._version
        return tensor.equal(self._values)


class Prefetch:
    """The calls of one contributor's modules."""

    def __init__(self, comm):
        self._comm = comm
        #: Names of modules below a parent: ``{parent: [child]}``.
        self._children = {}
        #: Protects the two fields below: several threads may call a model.
        self._lock = threading.Lock()
        #: ``{(kind of parent, child): children that read the same tensor}``.
        self._together = {}
        #: Kinds and children of wrong guesses.
        self._apart = set()
        #: The reading of the last call, for each thread.
        self._last = threading.local()

    def add(self, name):
        """Registers a module."""
        parent, _, child = name.rpartition(".")
        self._children.setdefault(parent, []).append(child)

    def has_sent(self, name, tensor):
        """Whether ``send`` would send nothing, because the rows went with those of a partner."""
        parent, _, child = name.rpartition(".")
        reading = getattr(self._last, "reading", None)
        return reading is not None and child in reading.sent and reading.continues(tensor, parent)

    def send(self, name, tensor, rows):
        """Sends ``rows``, the values of ``tensor``, for a module that reads no other tensor.

        Returns a function that waits for the deltas.
        """
        _native.check_process()
        parent, _, child = name.rpartition(".")
        reading = getattr(self._last, "reading", None)
        if reading is None or not reading.continues(tensor, parent):
            if reading is not None:
                self._unlearn(reading)
            reading = self._last.reading = Reading(tensor, parent)
        if child not in reading.sent:
            children = [child, *self._partners(reading, child)]
            batch = Batch(
                self._comm.submit([(full_name(parent, each), [rows]) for each in children])
            )
            reading.sent.update((each, (batch, at)) for at, each in enumerate(children))
        reading.used.add(child)
        self._learn(reading)
        batch, at = reading.sent[child]

        def wait():
            try:
                return batch.delta(at)
            except BaseException:
                # A repeated call sends the rows again.
                self._last.reading = None
                raise

        return wait

    def _partners(self, reading, child):
        features = self._features(reading.parent, child)
        with self._lock:
            known = set(self._together.get((kind(reading.parent), child), ()))
        here = (
            other
            for other in self._children.get(reading.parent, ())
            if other in known and other not in reading.sent
        )
        return [other for other in here if self._features(reading.parent, other) == features]

    def _features(self, parent, child):
        return self._comm.modules[full_name(parent, child)].inputs[0][1]

    def _learn(self, reading):
        if len(reading.used) < 2:
            return
        where = kind(reading.parent)
        with self._lock:
            together = {child for child in reading.used if (where, child) not in self._apart}
            for child in together:
                self._together.setdefault((where, child), set()).update(together - {child})

    def _unlearn(self, reading):
        unused = set(reading.sent) - reading.used
        if not unused:
            return
        where = kind(reading.parent)
        with self._lock:
            self._apart.update((where, child) for child in unused)
            for child in reading.sent:
                self._together.get((where, child), set()).difference_update(unused)
            for child in unused:
                self._together.pop((where, child), None)

    def release(self):
        """Releases the references to tensors."""
        self._last = threading.local()


def kind(parent):
    """The kind of a layer: its name without numbers."""
    return re.sub(r"\d+", "#", parent)


def full_name(parent, child):
    """The full name of a child."""
    return f"{parent}.{child}" if parent else child


def rows_of(tensor, module):
    """Returns a tensor's values as rows of a module's input."""
    return _arrays.to_rows(tensor, module.inputs[0][1], f"module `{module.name}`")[0]
