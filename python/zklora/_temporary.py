"""Temporary folders of contributors: they hold the seed and the weights, so none may outlive its process for long.

A folder is held by a lock on a file in it. Whoever makes the next one removes those that nobody holds any more: their process was killed.
(Folders of a user's sessions are never removed: they hold the record.)
"""

import os
import shutil
import stat
import tempfile

from . import _fork

try:
    import fcntl
except ImportError:  # Not on Windows: there, folders are removed at the end of the process only.
    fcntl = None

PREFIX = "zklora-contributor-"
_LOCK = "lock"

#: Most entries of the temporary folder that are looked at.
_MOST = 100_000

#: Folders of this process, by path.
_own = {}


class Folder:
    """A temporary folder that its owner alone can enter."""

    def __init__(self):
        remove_stale()
        self._process = os.getpid()
        while True:
            self.path = tempfile.mkdtemp(prefix=PREFIX)
            try:
                self._lock = _hold(os.open(os.path.join(self.path, _LOCK), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            except FileNotFoundError:
                continue
            # Another process may have found it before it was held, and removed it.
            if self._lock is not None and os.fstat(self._lock).st_nlink:
                break
        _own[self.path] = self

    def remove(self):
        """Removes it, in the process that made it."""
        if _own.pop(self.path, None) is None or self._process != os.getpid():
            return
        if fcntl is None:
            # Windows removes no file that is open.
            _release(self._lock)
        try:
            shutil.rmtree(self.path)
        except FileNotFoundError:
            # Somebody was faster.
            pass
        finally:
            if fcntl is not None:
                _release(self._lock)


def remove_all():
    """Removes the folders of this process: at its end, when nothing serves from them."""
    for folder in list(_own.values()):
        folder.remove()


def remove_stale():
    """Removes folders of this user whose process has died. A link is never followed, and a folder of anybody else is left alone."""
    if fcntl is None:
        return
    with os.scandir(tempfile.gettempdir()) as listing:
        names = [entry.path for _, entry in zip(range(_MOST), listing) if entry.name.startswith(PREFIX)]
    for path in names:
        if path not in _own:
            _remove_if_stale(path)


def _remove_if_stale(path):
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        status = os.fstat(folder)
        if status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o777 != 0o700:
            return
        lock = _hold(os.open(_LOCK, os.O_RDWR | os.O_NOFOLLOW, dir_fd=folder))
        if lock is None:
            return
        shutil.rmtree(path, ignore_errors=True)
        _release(lock)
    except OSError:
        # It is being made, or being removed.
        return
    finally:
        os.close(folder)


def _hold(lock):
    """Locks an open file; none, and it is closed, if another process holds it."""
    if fcntl is not None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            return None
        _fork.own.add(lock)
    return lock


def _release(lock):
    _fork.own.discard(lock)
    os.close(lock)
