"""After a fork, the child lets go of what only one process may hold: the locks of ledgers and logs, and a server's sockets.

A lock belongs to the open file, which a child shares with its parent. Without this, a child that lives on keeps the ledger locked and the
port taken after its parent's server has stopped. The child could do nothing with them: zklora refuses to work there.
"""

import os

from . import _native

#: Descriptors of this package's Python part that hold a lock.
locked_descriptors = set()

_before = []


def _identity(descriptor):
    """Which file or socket a descriptor is; none for one that is closed."""
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
    # A descriptor that another thread closed meanwhile may be another file now.
    held = [
        descriptor
        for descriptor, identity in held
        if identity is not None and _identity(descriptor) == identity
    ]
    if not held:
        return
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in held:
        # Not closed: its owner in the native module would later close whatever got its number.
        os.dup2(nothing, descriptor, inheritable=False)
    os.close(nothing)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_remember, after_in_child=_release_in_child)
