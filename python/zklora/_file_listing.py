"""Lists the files below a folder that another party may have created."""

import os

from ._foreign_text import shown
from .errors import FileError

#: Limit for the number of entries: a folder of proofs has a handful for each session.
MAX_ENTRIES = 500_000


def files_below(top, links=None):
    """Returns the paths of all files below ``top``, sorted.

    A link to a folder is not followed, because it may lead in a circle or out of the folder; its
    path is appended to ``links``. The number of entries is bounded, and the depth is not limited by
    the stack.

    Raises ``FileError`` if a folder cannot be read or there are too many entries: the list is never
    incomplete.
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
                            f"{shown(top)}: more than {MAX_ENTRIES} entries: name the folder of "
                            "the session"
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
