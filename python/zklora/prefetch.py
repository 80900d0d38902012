"""Modules that read the same tensor travel together: q, k and v of a layer in one message.

Which modules do is learned from the calls themselves, for all layers of one kind at once: the first layer sends q, k and v one by one, the
next ones together. A guess that was wrong costs rows that nobody needed, and is not made again.
"""

import re
import threading

from . import _arrays, _native


class Batch:
    """Modules that were sent together."""

    def __init__(self, pending):
        self._pending = pending
        self._deltas = None

    def delta(self, at):
        """The deltas of the module at this place, ``[rows, d_out]``."""
        if self._deltas is None:
            self._deltas = self._pending.result()
        return self._deltas[at]


class Reading:
    """The modules of one parent that read one tensor, so far."""

    def __init__(self, tensor, parent):
        # Held, so that no other tensor takes its place in memory.
        self._tensor = tensor
        self._version = None if tensor.is_inference() else tensor._version
        self.parent = parent
        #: ``{child: (batch, place)}``.
        self.sent = {}
        #: Children that were called.
        self.used = set()

    def continues(self, tensor, parent):
        """Whether a call belongs to it. A tensor of inference mode does not tell whether it was changed meanwhile: it does not."""
        return (
            tensor is self._tensor
            and self._version is not None
            and tensor._version == self._version
            and parent == self.parent
        )


class Prefetch:
    """The calls of one contributor's modules."""

    def __init__(self, comm):
        self._comm = comm
        #: Names of modules below a parent: ``{parent: [child]}``.
        self._children = {}
        #: For what was learned, below: a model may be called from several threads.
        self._lock = threading.Lock()
        #: ``{(kind of parent, child): children that read the same tensor}``.
        self._together = {}
        #: Kinds and children of guesses that were wrong.
        self._apart = set()
        #: What the last call of each thread read.
        self._last = threading.local()

    def add(self, name):
        """A module that will be called."""
        parent, _, child = name.rpartition(".")
        self._children.setdefault(parent, []).append(child)

    def send(self, name, tensor, rows):
        """Sends the rows of a module that reads only ``tensor``, which holds ``rows``; returns what waits for the deltas."""
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
                # Asked again, they are sent again.
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
        """Lets go of the last tensors."""
        self._last = threading.local()


def kind(parent):
    """Layers that differ in their number only are of one kind."""
    return re.sub(r"\d+", "#", parent)


def full_name(parent, child):
    """The name of a child."""
    return f"{parent}.{child}" if parent else child


def rows_of(tensor, module):
    """A tensor's values as rows of a module's input."""
    return _arrays.to_rows(tensor, module.inputs[0][1], f"module `{module.name}`")[0]
