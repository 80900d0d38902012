"""Temporary folders of contributors: they hold the seed and the weights, so none may outlive its process for long.

A folder is held by a lock on a file in it. Whoever makes the next one removes those that nobody holds any more: their process was killed.
(Folders of a user's sessions are never removed: they hold the record.)
"""

import errno
import os
import shutil
import stat
import tempfile

from . import _after_fork
from .errors import FileError

try:
    import fcntl
except ImportError:  # Not on Windows: there, folders are removed at the end of the process only.
    fcntl = None

PREFIX = "zklora-contributor-"
_LOCK = "lock"

#: Most entries of the temporary folder that are looked at.
_MAX_ENTRIES = 100_000

#: Folders of this process, by path.
_folders = {}


#: How often another process may remove a new folder before its lock is held.
_ATTEMPTS = 20

#: What a file system says of a lock that another process holds. Anything else means that it has no locks.
_LOCKED_ELSEWHERE = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


class TemporaryFolder:
    """A temporary folder that its owner alone can enter.

    On a file system without locks it is not held: it is removed at the end of the process, and by nobody else.
    """

    def __init__(self):
        remove_stale()
        self._process = os.getpid()
        for _ in range(_ATTEMPTS):
            self.path = tempfile.mkdtemp(prefix=PREFIX)
            if self._lock_folder():
                break
            # Another process found it before it was held.
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            raise FileError(
                f"{tempfile.gettempdir()}: no temporary folder can be made: others removed {_ATTEMPTS} of them; name an out_dir"
            )
        _folders[self.path] = self

    def _lock_folder(self) -> bool:
        try:
            lock = os.open(
                os.path.join(self.path, _LOCK), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600
            )
        except FileNotFoundError:
            return False
        try:
            held = _try_lock(lock)
        except OSError:
            # No locks here. Without the file nobody takes it for one that nobody holds.
            os.unlink(os.path.join(self.path, _LOCK))
            os.close(lock)
            self._lock = None
            return True
        if not held:
            os.close(lock)
            return False
        self._lock = lock
        if os.fstat(lock).st_nlink or fcntl is None:
            return True
        _release(lock)
        return False

    def remove(self):
        """Removes it, in the process that made it."""
        if _folders.pop(self.path, None) is None or self._process != os.getpid():
            return
        if fcntl is None:
            # Windows removes no file that is open.
            _release(self._lock)
        try:
            _remove(self.path)
        finally:
            if fcntl is not None and self._lock is not None:
                _release(self._lock)


def _remove(path):
    """Removes a folder, its lock last: if this process is killed meanwhile, the next one goes on."""
    try:
        with os.scandir(path) as listing:
            entries = [entry for entry in listing if entry.name != _LOCK]
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)
        shutil.rmtree(path)
    except FileNotFoundError:
        # Somebody was faster.
        pass


def remove_all():
    """Removes the folders of this process: at its end, when nothing serves from them."""
    for folder in list(_folders.values()):
        folder.remove()


def remove_stale():
    """Removes folders of this user whose process has died. A link is never followed, and a folder of anybody else is left alone."""
    if fcntl is None:
        return
    try:
        with os.scandir(tempfile.gettempdir()) as listing:
            names = [
                entry.path
                for _, entry in zip(range(_MAX_ENTRIES), listing)
                if entry.name.startswith(PREFIX)
            ]
    except OSError:
        # It need not be readable to be written to.
        return
    for path in names:
        if path not in _folders:
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
        lock = os.open(_LOCK, os.O_RDWR | os.O_NOFOLLOW, dir_fd=folder)
        try:
            held = _try_lock(lock)
        except OSError:
            held = False
        if not held:
            os.close(lock)
            return
        try:
            _remove(path)
        finally:
            _release(lock)
    except OSError:
        # It is being made, or being removed.
        return
    finally:
        os.close(folder)


def _try_lock(lock) -> bool:
    """Locks an open file; false if another process holds it. Raises ``OSError`` where there are no locks."""
    if fcntl is not None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _LOCKED_ELSEWHERE:
                return False
            raise
        _after_fork.locked_descriptors.add(lock)
    return True


def _release(lock):
    _after_fork.locked_descriptors.discard(lock)
    os.close(lock)
