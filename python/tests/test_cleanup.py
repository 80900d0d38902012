"""What remains after a failure, a kill or a fork: the user's record, but no seed and no lock."""

import errno
import os
import re
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import zklora
from conftest import ADAPTERS, BASES, Q_PROJ
from zklora import _temporary_folder

unix = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")


@pytest.fixture
def gone(rows, tmp_path, monkeypatch):
    """A user without `session_dir` whose contributor stops; and a function that restarts it."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    contributor = zklora.LocalContributor(
        ADAPTERS / "llama_qv_r4", BASES / "tiny-llama", tmp_path / "contributor"
    )
    own = zklora.Contributor(contributor.url, contributor.adapter_id, patience=0, timeout=30)
    port, server, stop = contributor.port, contributor.server, threading.Event()
    again = zklora.AServerTCP("127.0.0.1", port, server, stop)
    yield own, contributor, again
    contributor.close()
    stop.set()
    if again.ident is not None:
        again.join(20)


def folder_in(error):
    return re.search(r"session_dir='([^']+)'", str(error))[1]


def served(contributor):
    """The number of rows that the contributor counted for a module."""
    with zklora.LocalContributor(
        ADAPTERS / "llama_qv_r4", BASES / "tiny-llama", contributor.out_dir, max_rows=1
    ) as limited:
        comm = zklora.BaseModelToLoRAComm(contributor=limited.contributor)
        with pytest.raises(zklora.NetworkError) as error:
            comm.lora_forward(Q_PROJ, np.full((1, 64), 0.5, "float32"))
        comm.close()
    return int(re.search(r"would have served (\d+) rows", str(error.value))[1]) - 1


@pytest.mark.parametrize("next_one", ["the same object", "another object"])
def test_an_error_names_the_record_and_the_session_goes_on_with_it(gone, rows, next_one):
    own, contributor, again = gone
    comm = zklora.BaseModelToLoRAComm(contributor=own)
    comm.lora_forward(Q_PROJ, rows)
    contributor.close()
    with pytest.raises(
        zklora.NetworkError, match="your record of the session is in .*zklora-session-.* call again"
    ) as error:
        comm.lora_forward(Q_PROJ, 2 * rows)
    folder = folder_in(error.value)
    assert folder == comm.session_dir and os.path.isfile(os.path.join(folder, "rows.log"))
    with pytest.raises(zklora.NetworkError, match=re.escape(folder)):
        comm.end_inference()
    again.start()
    if next_one == "another object":
        comm.close()
        comm = zklora.BaseModelToLoRAComm(contributor=own, session_dir=folder)
    comm.lora_forward(Q_PROJ, 2 * rows)
    comm.lora_forward(Q_PROJ, rows)
    assert comm.end_inference()["rows"] == {Q_PROJ: 10}
    again.stop_event.set()
    again.join(20)
    assert served(contributor) == 10


def test_a_session_that_was_closed_is_opened_again_where_it_was(gone, rows):
    own, _, _ = gone
    comm = zklora.BaseModelToLoRAComm(contributor=own)
    comm.lora_forward(Q_PROJ, rows)
    comm.close()
    with pytest.raises(zklora.ClosedError):
        comm.lora_forward(Q_PROJ, rows)
    comm.init_request()
    comm.lora_forward(Q_PROJ, rows)
    assert comm.session.statistics()["rows_reused"] == 5 and comm.end_inference()["rows"] == {
        Q_PROJ: 5
    }


def test_rows_that_left_and_were_not_answered_are_not_no_rows(gone, rows):
    own, contributor, again = gone
    comm = zklora.BaseModelToLoRAComm(contributor=own)
    comm.init_request()
    contributor.close()
    with pytest.raises(zklora.NetworkError):
        comm.lora_forward(Q_PROJ, rows)
    log = os.path.join(comm.session_dir, "rows.log")
    assert comm.session.rows == 0 and zklora._native.log_info(log)[1] == 5
    for _ in range(2):
        with pytest.raises(zklora.NetworkError, match="your record of the session is in"):
            comm.end_inference()
    again.start()
    assert comm.end_inference()["rows"] == {Q_PROJ: 5}


def test_rows_that_are_refused_in_the_end_are_no_rows(gone, rows):
    own, contributor, _ = gone
    comm = zklora.BaseModelToLoRAComm(contributor=own)
    comm.init_request()
    contributor.close()
    with pytest.raises(zklora.NetworkError):
        comm.lora_forward(Q_PROJ, rows)
    stop = threading.Event()
    strict = zklora.AServerTCP("127.0.0.1", contributor.port, contributor.server, stop, max_rows=3)
    strict.start()
    try:
        report = comm.end_inference()
    finally:
        stop.set()
        strict.join(20)
    assert (
        not report["verified"]
        and report["message"] == "no rows were sent: there is nothing to prove"
    )
    assert zklora._native.log_info(os.path.join(comm.session_dir, "rows.log"))[1] == 0


@pytest.mark.torch
def test_a_model_goes_on_with_the_record_of_its_own_context_or_of_another(gone, model, tokenizer):
    import torch

    own, contributor, again = gone
    ids = tokenizer("let mut total = 0;", return_tensors="pt").input_ids

    def run(remote):
        with remote, torch.no_grad():
            model(ids)
            contributor.close()
            model(ids + 1)
            return remote.comms[0].session.statistics()["rows_reused"]

    first = zklora.remote_lora(model, [own])
    with pytest.raises(zklora.NetworkError) as error:
        run(first)
    folder = folder_in(error.value)
    assert folder == first.transcript
    again.start()
    assert run(first) > 0 and first.reports[0]["verified"]
    # Another object takes it by its path.
    with pytest.raises(zklora.InputError, match="finished session"):
        run(zklora.remote_lora(model, [own], session_dir=folder))


def test_where_nothing_was_recorded_no_record_is_named(tmp_path):
    own = zklora.Contributor("http://127.0.0.1:1", patience=0)
    with pytest.raises(zklora.NetworkError) as error:
        zklora.BaseModelToLoRAComm(contributor=own, session_dir=tmp_path).init_request()
    assert "record" not in str(error.value)


# Temporary folders of contributors.

CONTRIBUTOR = """
import os, signal, sys, time, zklora
adapter, base, end = sys.argv[1:]
contributor = zklora.LocalContributor(adapter, base)
assert os.path.isfile(os.path.join(contributor.out_dir, "private", "seed"))
if end == "wait":
    print(contributor.out_dir, flush=True)
    time.sleep(600)
if end == "raise":
    raise LookupError(end)
if end == "fork":
    child = os.fork()
    if child == 0:
        sys.exit(0)
    os.waitpid(child, 0)
    assert os.path.isfile(os.path.join(contributor.out_dir, "private", "seed"))
    contributor.close()
"""


def command(end):
    return [sys.executable, "-c", CONTRIBUTOR, ADAPTERS / "llama_qv_r4", BASES / "tiny-llama", end]


def left(folder):
    return [name for name in os.listdir(folder) if name.startswith("zklora-")]


@pytest.mark.parametrize("end", ["return", "raise", pytest.param("fork", marks=unix)])
def test_a_contributor_that_was_not_closed_leaves_nothing(tmp_path, end):
    done = subprocess.run(
        command(end),
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode == 0) == (
        end != "raise"
    ) and "LookupError" in done.stderr + "LookupError" * (end != "raise"), done.stderr
    assert left(tmp_path) == []


@unix
def test_what_a_killed_contributor_left_is_removed_by_the_next_one(tmp_path, monkeypatch):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    killed, alive = (
        subprocess.Popen(command("wait"), env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    )
    folders = [os.path.basename(one.stdout.readline().strip()) for one in (killed, alive)]
    try:
        killed.kill()
        killed.wait(20)
        assert sorted(left(tmp_path)) == sorted(folders)
        (tmp_path / "zklora-session-mine").mkdir(0o700)
        (tmp_path / "zklora-session-mine" / "lock").touch()
        done = subprocess.run(
            command("return"), env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        # Neither a folder with a running server, nor a user's record.
        assert sorted(left(tmp_path)) == sorted([folders[1], "zklora-session-mine"])
    finally:
        for one in (killed, alive):
            one.kill()
            one.communicate()


@unix
def test_only_own_folders_are_removed_and_no_link_is_followed(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    precious = tmp_path / "precious"
    precious.mkdir(0o700)
    (precious / "lock").touch()
    (tmp_path / (_temporary_folder.PREFIX + "link")).symlink_to(precious)
    for name, mode in [
        ("open", 0o755),
        ("group", 0o750),
        ("no-lock", 0o700),
        ("linked-lock", 0o700),
        ("stale", 0o700),
    ]:
        folder = tmp_path / (_temporary_folder.PREFIX + name)
        folder.mkdir()
        folder.chmod(mode)
        if name not in ("no-lock", "linked-lock"):
            (folder / "lock").touch()
    (tmp_path / (_temporary_folder.PREFIX + "linked-lock") / "lock").symlink_to(precious / "lock")
    (tmp_path / (_temporary_folder.PREFIX + "file")).touch()
    own = _temporary_folder.TemporaryFolder()
    assert os.stat(own.path).st_mode & 0o777 == 0o700
    kept = ["link", "open", "group", "no-lock", "linked-lock", "file"]
    assert sorted(left(tmp_path)) == sorted(
        [_temporary_folder.PREFIX + name for name in kept] + [os.path.basename(own.path)]
    )
    assert (precious / "lock").exists()
    # A folder of this process is not stale.
    _temporary_folder.remove_stale()
    assert os.path.isdir(own.path)
    own.remove()
    own.remove()
    assert not os.path.exists(own.path)


@unix
def test_a_folder_of_another_user_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = tmp_path / (_temporary_folder.PREFIX + "theirs")
    folder.mkdir(0o700)
    (folder / "lock").touch()
    own = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: own + 1)
    _temporary_folder.remove_stale()
    assert folder.exists()
    monkeypatch.setattr(os, "getuid", lambda: own)
    _temporary_folder.remove_stale()
    assert not folder.exists()


class Locks:
    """Stands in for the module `fcntl` on a file system whose locks fail with this error."""

    LOCK_EX = LOCK_NB = LOCK_UN = 0

    def __init__(self, error):
        self.error = error

    def flock(self, *given):
        raise OSError(self.error, "no")


@unix
@pytest.mark.parametrize("error", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO])
def test_without_locks_there_is_one_folder_and_nothing_is_stale(tmp_path, monkeypatch, error):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    stale = tmp_path / (_temporary_folder.PREFIX + "stale")
    stale.mkdir(0o700)
    (stale / "lock").touch()
    monkeypatch.setattr(_temporary_folder, "fcntl", Locks(error))
    one, two = _temporary_folder.TemporaryFolder(), _temporary_folder.TemporaryFolder()
    for own in (one, two):
        assert os.listdir(own.path) == []
    assert len(left(tmp_path)) == 3
    # A process with locks does not take it for a stale one, either.
    monkeypatch.undo()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(_temporary_folder, "_folders", {})
    _temporary_folder.remove_stale()
    assert sorted(left(tmp_path)) == sorted(os.path.basename(own.path) for own in (one, two))
    for own in (one, two):
        _temporary_folder._folders[own.path] = own
        own.remove()
    assert left(tmp_path) == []


@unix
@pytest.mark.parametrize("error", [errno.EWOULDBLOCK, errno.EACCES])
def test_a_folder_that_others_always_hold_is_not_made_for_ever(tmp_path, monkeypatch, error):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(_temporary_folder, "fcntl", Locks(error))
    with pytest.raises(zklora.FileError, match="cannot create a temporary folder"):
        _temporary_folder.TemporaryFolder()
    assert left(tmp_path) == []


@unix
def test_the_lock_is_removed_last(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    own, order = _temporary_folder.TemporaryFolder(), []
    os.mkdir(own.path + "/private")
    for name in ("a", "private/seed", "z"):
        open(os.path.join(own.path, name), "w").close()
    unlink = os.unlink

    def killed(path, **options):
        order.append(os.path.basename(path))
        if len(order) == 2:
            raise KeyboardInterrupt
        unlink(path, **options)

    monkeypatch.setattr(os, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        own.remove()
    assert os.path.exists(own.path + "/lock") and "lock" not in order
    # The next process finishes the removal.
    monkeypatch.setattr(
        os,
        "unlink",
        lambda path, **options: (order.append(os.path.basename(path)), unlink(path, **options)),
    )
    _temporary_folder.remove_stale()
    assert (
        order[-1] == "lock"
        and sorted(set(order)) == ["a", "lock", "seed", "z"]
        and left(tmp_path) == []
    )


@unix
def test_a_temporary_folder_that_cannot_be_listed_is_used_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def closed(path):
        raise PermissionError(errno.EACCES, "closed", path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", closed)
        own = _temporary_folder.TemporaryFolder()
    own.remove()
    assert left(tmp_path) == []


# Forks.


@unix
def test_a_forked_child_does_not_hold_a_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    own = _temporary_folder.TemporaryFolder()
    child = os.fork()
    if child == 0:
        time.sleep(600)
        os._exit(0)
    try:
        # Simulates the death of this process.
        del _temporary_folder._folders[own.path]
        _temporary_folder._release(own._lock)
        deadline = time.monotonic() + 20
        while left(tmp_path) and time.monotonic() < deadline:
            _temporary_folder.remove_stale()
            time.sleep(0.05)
        assert left(tmp_path) == []
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


OPENING = """
import os, sys, threading, time, zklora
from zklora import _native
_native.log_info(sys.argv[1])
comm = zklora.BaseModelToLoRAComm(contributor=zklora.Contributor("http://127.0.0.1:1"))
# Simulates another thread that is opening the session.
comm._opening.acquire()
child = os.fork()
if child == 0:
    try:
        comm.init_request()
    except zklora.ZkloraError as error:
        os._exit(0 if "forked" in str(error) else 1)
    os._exit(2)
deadline = time.monotonic() + 10
while time.monotonic() < deadline:
    pid, status = os.waitpid(child, os.WNOHANG)
    if pid:
        sys.exit(status)
    time.sleep(0.02)
os.kill(child, 9)
sys.exit("hangs")
"""


@unix
def test_a_child_that_was_forked_while_a_session_was_opened_does_not_wait_for_it(comm, tmp_path):
    log = os.path.join(comm.session_dir, "rows.log")
    done = subprocess.run(
        [sys.executable, "-c", OPENING, log], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


SERVER = """
import os, sys, threading, time, zklora
adapter, base, out = sys.argv[1:]
server, stop = zklora.LoRAServer(base, adapter, out), threading.Event()
thread = zklora.AServerTCP("127.0.0.1", 0, server, stop)
thread.start()
contributor = zklora.Contributor(thread.url, server.adapter_id)
comm = zklora.BaseModelToLoRAComm(contributor=contributor, session_dir=out + "/user")
comm.lora_forward("model.layers.0.self_attn.q_proj", [[1.0] * 64])
child = os.fork()
if child == 0:
    os.close(1)
    time.sleep(600)
    os._exit(0)
print(child, thread.port, server.adapter_id, flush=True)
if sys.stdin.readline() == "stop\\n":
    comm.close()
    stop.set()
    thread.join()
    print("stopped", flush=True)
    sys.stdin.read()
"""


@unix
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_forked_child_keeps_neither_locks_nor_port(tmp_path, end):
    arguments = [ADAPTERS / "llama_qv_r4", BASES / "tiny-llama", tmp_path]
    parent = subprocess.Popen(
        [sys.executable, "-c", SERVER, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    child, port, pin = parent.stdout.readline().split()
    try:
        if end == "stop":
            parent.stdin.write("stop\n")
            parent.stdin.flush()
            assert parent.stdout.readline() == "stopped\n"
        else:
            parent.kill()
            parent.wait(20)
        os.kill(int(child), 0)
        start = time.monotonic()
        server, stop = (
            zklora.LoRAServer(BASES / "tiny-llama", ADAPTERS / "llama_qv_r4", tmp_path),
            threading.Event(),
        )
        thread = zklora.AServerTCP("127.0.0.1", int(port), server, stop)
        thread.start()
        try:
            # The user's log is unlocked, too.
            own = zklora.Contributor(thread.url, pin)
            comm = zklora.BaseModelToLoRAComm(contributor=own, session_dir=tmp_path / "user")
            comm.lora_forward(Q_PROJ, [[1.0] * 64])
            assert (
                comm.session.statistics()["rows_reused"] == 1 and comm.end_inference()["verified"]
            )
        finally:
            stop.set()
            thread.join(20)
        assert time.monotonic() - start < 60
        os.kill(int(child), 0)
    finally:
        for process in (int(child), parent.pid):
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                pass
        parent.communicate()
