"""What can go wrong, as exceptions. Each says what, where and what to do.

Some messages name options of the command line: ``--insecure`` is the keyword argument ``insecure=True``, and so on.
"""

import warnings

from ._foreign_text import printable


class ZkloraError(RuntimeError):
    """Base class of all errors of this package. By itself: after a fork, or when something failed inside."""

    def __str__(self):
        # Names and paths in it may come from a stranger: here they cannot forge lines of a terminal or log.
        return printable(super().__str__())

    def __repr__(self):
        return printable(super().__repr__())


class InputError(ZkloraError, ValueError):
    """An argument, an adapter, a model or an array that cannot be used."""


class FileError(InputError, OSError):
    """A file or folder that cannot be read or written, or does not hold what it should."""


class VerificationError(ZkloraError):
    """The answer is no: a proof, a pin, a record or a claim does not hold."""


class NetworkError(ZkloraError, ConnectionError):
    """A contributor cannot be reached, refuses, or answers what no contributor may answer."""


class ClosedError(ZkloraError):
    """A server or session that was closed."""


class UncheckedWarning(UserWarning):
    """Something that a verification rests on was not given, and so not checked."""


# Each verification says it, not only the first one from a line. Filters of the caller go first.
warnings.filterwarnings("always", category=UncheckedWarning, append=True)
