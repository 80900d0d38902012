"""Creates temporary folders of contributors, and removes those that a killed process left.

Such a folder contains the seed and the weights, so it must not outlive its process for long. The
process holds a lock on a file in the folder. Creating a folder first removes all folders whose lock
is free: their process was killed. Folders of a user's sessions are never removed, because they
contain the record.
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
except ImportError:  # Windows: folders are removed at the end of the process only.
    fcntl = None

PREFIX = "zklora-contributor-"
_LOCK = "lock"

#: Limit for the entries of the system's temporary folder that are searched.
_MAX_ENTRIES = 100_000

#: Folders of this process, by path.
_folders = {}


#: How often another process may remove a new folder before this one holds its lock.
_ATTEMPTS = 20

#: Errors for a lock that another process holds. Other errors mean that there are no locks.
_LOCKED_ELSEWHERE = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


class TemporaryFolder:
    """A temporary folder that only its owner can enter.

    On a file system without locks, only this process removes it, at its end.
    """

    def __init__(self):
        remove_stale()
        self._process = os.getpid()
        for _ in range(_ATTEMPTS):
            self.path = tempfile.mkdtemp(prefix=PREFIX)
            if self._lock_folder():
                break
            # Another process found the folder before it was locked.
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            raise FileError(
                f"{tempfile.gettempdir()}: cannot create a temporary folder: other processes "
                f"removed {_ATTEMPTS} of them. Pass out_dir"
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
            # No locks here. Without the lock file, no other process takes the folder for stale.
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
        """Removes the folder, if this is the process that created it."""
        if _folders.pop(self.path, None) is None or self._process != os.getpid():
            return
        if fcntl is None:
            # Windows does not remove open files.
            _release(self._lock)
        try:
            _remove(self.path)
        finally:
            if fcntl is not None and self._lock is not None:
                _release(self._lock)


def _remove(path):
    """Removes a folder, its lock last: the next process finishes the work if this one dies."""
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
        # Another process removed it first.
        pass


def remove_all():
    """Removes the folders of this process, at its end, after its servers have stopped."""
    for folder in list(_folders.values()):
        folder.remove()


def remove_stale():
    """Removes folders of this user whose process has died.

    Never follows a link, and leaves the folders of other users alone.
    """
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
        # The folder may be writable without being readable.
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
        # Another process is creating or removing it.
        return
    finally:
        os.close(folder)


def _try_lock(lock) -> bool:
    """Locks an open file; returns false if another process holds the lock.

    Raises ``OSError`` on a file system without locks.
    """
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
