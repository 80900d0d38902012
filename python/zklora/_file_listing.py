"""The files below a folder that somebody else may have made."""

import os

from ._foreign_text import shown
from .errors import FileError

#: Most entries that are looked at: a folder of proofs has a handful for each session.
MAX_ENTRIES = 500_000


def files_below(top, links=None):
    """The paths of all files below ``top``, in order.

    A link to a folder is not followed: it may lead round in a circle, or out of the folder. ``links`` gets its path. The number of
    entries is bounded, and the depth costs no stack.

    Raises ``FileError`` for a folder that cannot be read, or one with too many entries: what was not looked at is never passed over.
    """
    found, folders, entries = [], [os.fspath(top)], 0
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as listing:
                for entry in listing:
                    entries += 1
                    if entries > MAX_ENTRIES:
                        raise FileError(
                            f"{shown(top)}: more than {MAX_ENTRIES} entries: name the folder that holds the session"
                        )
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif entry.is_symlink() and entry.is_dir():
                        if links is not None:
                            links.append(entry.path)
                    else:
                        found.append(entry.path)
        except OSError as error:
            if isinstance(error, FileError):
                raise
            raise FileError(f"{shown(folder)}: cannot be read: {error.strerror or error}") from None
    return sorted(found)
