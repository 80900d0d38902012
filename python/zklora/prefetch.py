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
        self._lock = threading.Lock()
        self._deltas = None

    def delta(self, at):
        """The deltas of the module at this place, ``[rows, d_out]``."""
        with self._lock:
            if self._deltas is None:
                self._deltas = self._pending.result()
            return self._deltas[at]


class Prefetch:
    """The calls of one contributor's modules."""

    def __init__(self, comm):
        self._comm = comm
        self._lock = threading.Lock()
        #: Names of modules below a parent: ``{parent: [child]}``.
        self._children = {}
        #: ``{(kind of parent, child): children that read the same tensor}``.
        self._together = {}
        #: Kinds and children of guesses that were wrong.
        self._apart = set()
        self._forget()

    def _forget(self):
        self._tensor = self._version = self._parent = None
        self._sent = {}
        self._used = set()

    def add(self, name):
        """A module that will be called."""
        parent, _, child = name.rpartition(".")
        self._children.setdefault(parent, []).append(child)

    def send(self, name, tensor, rows):
        """Sends the rows of a module that reads only ``tensor``, which holds ``rows``; returns what waits for the deltas."""
        _native.check_process()
        parent, _, child = name.rpartition(".")
        # A tensor of inference mode does not tell whether it was changed meanwhile.
        version = None if tensor.is_inference() else tensor._version
        with self._lock:
            same = tensor is self._tensor and version is not None and version == self._version and parent == self._parent
            if not same:
                self._unlearn()
                self._forget()
                self._tensor, self._version, self._parent = tensor, version, parent
            if child not in self._sent:
                children = [child, *self._partners(child)]
                names = [f"{parent}.{each}" if parent else each for each in children]
                batch = Batch(self._comm.session.submit([(each, [rows]) for each in names]))
                self._sent.update((each, (batch, at)) for at, each in enumerate(children))
            self._used.add(child)
            self._learn()
            batch, at = self._sent[child]

        def wait():
            try:
                return batch.delta(at)
            except BaseException:
                # Asked again, they are sent again.
                self.release()
                raise

        return wait

    def _partners(self, child):
        prefix = f"{self._parent}." if self._parent else ""
        features = self._comm.modules[prefix + child].inputs[0][1]
        known = self._together.get((kind(self._parent), child), ())
        here = (other for other in self._children.get(self._parent, ()) if other in known and other not in self._sent)
        return [other for other in here if self._comm.modules[prefix + other].inputs[0][1] == features]

    def _learn(self):
        if len(self._used) > 1:
            where = kind(self._parent)
            together = {child for child in self._used if (where, child) not in self._apart}
            for child in together:
                self._together.setdefault((where, child), set()).update(together - {child})

    def _unlearn(self):
        unused = set(self._sent) - self._used
        if unused:
            where = kind(self._parent)
            self._apart.update((where, child) for child in unused)
            for child in self._sent:
                self._together.get((where, child), set()).difference_update(unused)
                if child in unused:
                    self._together.pop((where, child), None)

    def release(self):
        """Lets go of the last tensor."""
        with self._lock:
            self._forget()


def kind(parent):
    """Layers that differ in their number only are of one kind."""
    return re.sub(r"\d+", "#", parent)


def rows_of(tensor, module):
    """A tensor's values as rows of a module's input."""
    return _arrays.to_rows(tensor, module.inputs[0][1], f"module `{module.name}`")[0]
