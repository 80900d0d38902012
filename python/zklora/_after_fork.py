"""Releases locks and sockets in a forked child: only one process may hold them.

They are the locks of ledgers and logs, and a server's sockets. A lock belongs to the open file,
which a child shares with its parent. A child that outlives its parent's server would otherwise keep
the ledger locked and the port in use. The child itself cannot use them: zklora refuses to work in a
forked child.
"""

import os

from . import _native

#: Descriptors of this package's Python part that hold a lock.
locked_descriptors = set()

_before = []


def _identity(descriptor):
    """Identifies the file or socket of a descriptor; ``None`` if the descriptor is closed."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _remember():
    global _before
    _before = [
        (descriptor, _identity(descriptor))
        for descriptor in [*_native.not_inherited(), *locked_descriptors]
    ]


def _release_in_child():
    global _before
    held, _before = _before, []
    # Another thread may have closed a descriptor, and its number may now be another file.
    held = [
        descriptor
        for descriptor, identity in held
        if identity is not None and _identity(descriptor) == identity
    ]
    if not held:
        return
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in held:
        # Not closed: its owner in the native module closes this number later, when it may belong to
        # another file.
        os.dup2(nothing, descriptor, inheritable=False)
    os.close(nothing)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_remember, after_in_child=_release_in_child)
