"""The exceptions. Each message says what failed, where, and what to do.

Some messages name options of the command line: ``--insecure`` stands for the keyword argument
``insecure=True``, and so on.
"""

import warnings

from ._foreign_text import printable


class ZkloraError(RuntimeError):
    """Base class of all errors of this package.

    Raised itself after a fork, and for internal failures.
    """

    def __str__(self):
        # Names and paths in the message are untrusted: escaped, they cannot forge lines of a log.
        return printable(super().__str__())

    def __repr__(self):
        return printable(super().__repr__())


class InputError(ZkloraError, ValueError):
    """An argument, an adapter, a model or an array is unusable."""


class FileError(InputError, OSError):
    """A file or folder cannot be read or written, or has unexpected content."""


class VerificationError(ZkloraError):
    """The answer is no: a proof, a pin, a record or a claim is wrong."""


class NetworkError(ZkloraError, ConnectionError):
    """A contributor is not reachable, refuses, or violates the protocol."""


class ClosedError(ZkloraError):
    """The server or session is closed."""


class UncheckedWarning(UserWarning):
    """A verification lacks an input, and so skips a check."""


class RowsWarning(UserWarning):
    """A server answers any number of rows, and its code did not choose that with ``max_rows``."""


# Every verification warns, not only the first from a line. The caller's filters take precedence.
warnings.filterwarnings("always", category=UncheckedWarning, append=True)
