"""Sessions over loopback, without torch: deltas, proofs, and failures."""

import ast
import gc
import inspect
import logging
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest

import zklora
from conftest import ADAPTERS, BASES, Q_PROJ

V_PROJ = Q_PROJ.replace("q_proj", "v_proj")


def session(contributor, folder, **options):
    own = zklora.Contributor(contributor.url, contributor.adapter_id, **options)
    return zklora.BaseModelToLoRAComm(contributor=own, session_dir=folder)


def test_deltas_are_proven_and_verified_against_pin_and_own_record(
    contributor, comm, rows, ignore_unchecked
):
    assert Q_PROJ in comm.init_request()
    delta = comm.lora_forward(Q_PROJ, rows.reshape(1, 5, 64))
    assert delta.shape == (1, 5, 64) and delta.dtype == np.float32 and np.abs(delta).max() > 0
    steps = []
    report = comm.end_inference(progress=lambda *step: steps.append(step))
    assert report["verified"] and report["pinned"] and report["rows"] == {Q_PROJ: 5}
    assert steps[-1] == ("verified", 3, 3)
    assert comm.end_inference() is report

    folder, pin = comm.session_dir, contributor.adapter_id
    seconds, count = zklora.batch_verify_proofs(folder, folder, [pin])
    assert seconds > 0 and count == 1
    manifest = zklora.Manifest.load(folder / "public")
    trace = zklora.Trace.load(folder / "trace.safetensors", manifest)
    assert np.array_equal(trace.deltas(Q_PROJ), delta[0])
    assert zklora.batch_verify_proofs(folder, trace, pin)[1] == 1
    # The pin as a manifest file, which is then used instead of the one beside the proof.
    manifest.save(folder / "pinned.json")
    os.makedirs(folder / "proofs")
    shutil.copy(folder / "session.pf", folder / "proofs")
    assert zklora.batch_verify_proofs(folder / "proofs", trace, folder / "pinned.json")[1] == 1


def test_several_modules_travel_in_one_message(comm, rows):
    together = comm.session.submit([(Q_PROJ, [rows]), (V_PROJ, [rows])])
    q, v = together.result()
    assert comm.session.statistics()["calls"] == 1
    assert np.array_equal(q, comm.lora_forward(Q_PROJ, rows)) and np.array_equal(
        v, comm.lora_forward(V_PROJ, rows)
    )
    assert comm.session.statistics()["calls"] == 1, "known rows are not sent again"
    with pytest.raises(zklora.ClosedError, match="taken already"):
        together.result()


def test_arrays_that_begin_at_the_same_place_are_not_the_same(comm, rows):
    q, v = comm.session.submit([(Q_PROJ, [rows]), (V_PROJ, [rows[:2]])]).result()
    assert (len(q), len(v)) == (5, 2)
    assert np.array_equal(v, comm.lora_forward(V_PROJ, rows[:2]))


def test_half_a_client_certificate_is_refused(contributor, tmp_path):
    with pytest.raises(zklora.InputError, match="both tls_cert and tls_key"):
        session(contributor, tmp_path, tls_cert=tmp_path / "cert.pem").init_request()


def test_a_record_that_was_changed_is_not_proven(comm, rows, ignore_unchecked):
    comm.lora_forward(Q_PROJ, rows)
    comm.end_inference()
    folder = comm.session_dir
    path = folder / "trace.safetensors"
    good = path.read_bytes()
    # Changes a byte of each tensor, whatever their order.
    for at in range(len(good) - 5 * 64 * 8, len(good), 997):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(zklora.ZkloraError) as error:
            zklora.batch_verify_proofs(folder, folder, [comm.session.manifest.adapter_id])
        assert not isinstance(error.value, zklora.NetworkError)
    path.write_bytes(good)
    proof = (folder / "session.pf").read_bytes()
    (folder / "session.pf").write_bytes(proof[:-1] + bytes([proof[-1] ^ 1]))
    with pytest.raises(zklora.VerificationError):
        zklora.batch_verify_proofs(folder, folder, [comm.session.manifest.adapter_id])
    os.remove(folder / "session.pf")
    with pytest.raises(zklora.VerificationError, match="have no proof"):
        zklora.batch_verify_proofs(folder, folder, [comm.session.manifest.adapter_id])


def test_a_warning_that_is_an_exception_takes_no_report(contributor, rows, tmp_path):
    comm = zklora.BaseModelToLoRAComm(
        contributor=zklora.Contributor(contributor.url), session_dir=tmp_path
    )
    comm.lora_forward(Q_PROJ, rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error", zklora.UncheckedWarning)
        with pytest.raises(zklora.UncheckedWarning, match="NOT PINNED"):
            comm.end_inference()
    report = comm.end_inference()
    assert report["verified"] and not report["pinned"]


def test_what_was_not_checked_is_said_loudly(comm, rows):
    comm.lora_forward(Q_PROJ, rows)
    comm.end_inference()
    folder = comm.session_dir
    with pytest.warns(zklora.UncheckedWarning) as said:
        assert zklora.batch_verify_proofs(folder)[1] == 1
    said = " ".join(str(one.message) for one in said)
    assert "NOT PINNED" in said and "CAME WITH THE PROOF" in said
    (folder / "trace.safetensors").rename(folder / "elsewhere.safetensors")
    with pytest.warns(zklora.UncheckedWarning, match="NOTHING WAS VERIFIED"):
        zklora.batch_verify_proofs(folder, expected_adapters=comm.session.manifest.adapter_id)
    with pytest.raises(zklora.VerificationError, match="which is not pinned"):
        zklora.batch_verify_proofs(folder, expected_adapters=["0" * 64])
    (folder / "session.pf").write_bytes(b"not a proof")
    with (
        pytest.raises(zklora.VerificationError, match="malformed"),
        pytest.warns(zklora.UncheckedWarning),
    ):
        zklora.batch_verify_proofs(folder)
    with pytest.raises(zklora.FileError):
        zklora.batch_verify_proofs(folder / "missing")
    empty = folder / "empty"
    empty.mkdir()
    assert zklora.batch_verify_proofs(empty) == (0.0, 0)


@pytest.mark.parametrize("stage", ["verifying", "verified"])
def test_the_verdict_of_an_interrupted_wait_is_returned_again(comm, rows, stage):
    class Stop(Exception):
        pass

    def progress(now, done, total):
        if now == stage:
            raise Stop

    comm.lora_forward(Q_PROJ, rows)
    session = comm.session
    with pytest.raises(Stop):
        session.finish(progress)
    finished = session.finish()
    assert dict(finished["rows"]) == {Q_PROJ: 5} and session.finish() == finished
    with pytest.raises(zklora.ClosedError):
        session.trace()


def test_a_session_without_rows_has_nothing_to_prove(comm):
    assert comm.end_inference()["verified"] is False


def test_another_adapter_than_the_pinned_one_is_refused_before_anything_is_sent(
    contributor, other_contributor, tmp_path
):
    own = zklora.Contributor(other_contributor.url, contributor.adapter_id)
    with pytest.raises(zklora.VerificationError, match="was pinned"):
        zklora.BaseModelToLoRAComm(contributor=own, session_dir=tmp_path / "session").init_request()
    assert not (tmp_path / "session").exists()


def test_without_a_pin_there_is_a_warning(contributor, rows, tmp_path, caplog):
    comm = zklora.BaseModelToLoRAComm(
        contributor.host, contributor.port, session_dir=tmp_path / "session"
    )
    with caplog.at_level(logging.WARNING, "zklora"):
        comm.lora_forward(Q_PROJ, rows)
    assert "not pinned" in caplog.text
    with pytest.warns(zklora.UncheckedWarning, match="NOT PINNED"):
        assert comm.end_inference()["pinned"] is False


def test_a_closed_session_and_a_module_that_is_not_served(comm, rows):
    with pytest.raises(zklora.InputError, match="does not serve a module"):
        comm.lora_forward("no.such.module", rows)
    with pytest.raises(zklora.InputError, match="expected 64 features"):
        comm.lora_forward(Q_PROJ, rows[:, :3])
    comm.close()
    with pytest.raises(zklora.ClosedError, match="closed"):
        comm.lora_forward(Q_PROJ, rows)
    with pytest.raises(RuntimeError):
        comm.end_inference()


def test_no_server_listens(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(zklora.NetworkError, match="cannot connect"):
        zklora.BaseModelToLoRAComm("127.0.0.1", port).init_request()
    with pytest.raises(ConnectionError):
        zklora.BaseModelToLoRAComm("127.0.0.1", port).init_request()


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", os.urandom(4096)],
    ids=["hangs up", "HTTP", "noise"],
)
def test_a_server_that_is_something_else(answer):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            try:
                while True:
                    connection, _ = listener.accept()
                    connection.sendall(answer)
                    connection.close()
            except OSError:
                pass

        threading.Thread(target=serve, daemon=True).start()
        own = zklora.Contributor(
            f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=2, patience=0
        )
        with pytest.raises(zklora.NetworkError):
            zklora.BaseModelToLoRAComm(contributor=own).init_request()


def test_a_silent_server_is_waited_for_no_longer_than_the_timeout():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        own = zklora.Contributor(
            f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=0.5, patience=0
        )
        start = time.monotonic()
        with pytest.raises(zklora.NetworkError):
            zklora.BaseModelToLoRAComm(contributor=own).init_request()
        assert time.monotonic() - start < 5


class TamperingProxy:
    """A proxy that changes a byte of the contributor's next long piece of data."""

    def __init__(self, port):
        self.tamper = threading.Event()
        self._upstream = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                down, _ = self._listener.accept()
            except OSError:
                return
            up = socket.create_connection(("127.0.0.1", self._upstream))
            threading.Thread(target=self._pump, args=(down, up, False), daemon=True).start()
            threading.Thread(target=self._pump, args=(up, down, True), daemon=True).start()

    def _pump(self, source, target, changes):
        try:
            while data := source.recv(1 << 16):
                if changes and self.tamper.is_set() and len(data) > 1000:
                    self.tamper.clear()
                    middle = len(data) // 2
                    data = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
                target.sendall(data)
        except OSError:
            pass
        for one in (source, target):
            one.close()

    def close(self):
        self._listener.close()


@pytest.mark.parametrize("when", ["manifest", "deltas"])
def test_a_byte_that_was_changed_on_the_way_is_detected(contributor, rows, tmp_path, when):
    proxy = TamperingProxy(contributor.port)
    own = zklora.Contributor(proxy.url, contributor.adapter_id, patience=0, timeout=5)
    comm = zklora.BaseModelToLoRAComm(contributor=own, session_dir=tmp_path / "session")
    if when == "manifest":
        proxy.tamper.set()
        with pytest.raises(zklora.ZkloraError):
            comm.init_request()
    else:
        comm.init_request()
        proxy.tamper.set()
        with pytest.raises((zklora.VerificationError, zklora.NetworkError)) as error:
            comm.lora_forward(Q_PROJ, rows)
            comm.end_inference()
        assert "proves other rows" in str(error.value) or "outside the certified bound" in str(
            error.value
        ), error.value
    assert not proxy.tamper.is_set() and not (tmp_path / "session" / "session.pf").exists()
    proxy.close()


def test_closing_does_not_wait(contributor, rows, tmp_path):
    proxy = TamperingProxy(contributor.port)
    own = zklora.Contributor(proxy.url, contributor.adapter_id, patience=5, timeout=5)
    comm = zklora.BaseModelToLoRAComm(contributor=own, session_dir=tmp_path / "session")
    comm.init_request()
    # New connections still arrive, but are not accepted.
    proxy.close()
    pending = comm.session.submit([(Q_PROJ, [rows])])
    start = time.monotonic()
    comm.close()
    assert time.monotonic() - start < 1
    with pytest.raises(zklora.ClosedError):
        comm.session.trace()
    del pending


def test_a_server_that_is_stopped_and_comes_back(rows, tmp_path):
    out = tmp_path / "contributor"
    with zklora.LocalContributor(
        ADAPTERS / "llama_qv_r4", BASES / "tiny-llama", out
    ) as contributor:
        comm = session(contributor, tmp_path / "session", patience=0, timeout=30)
        comm.lora_forward(Q_PROJ, rows)
        port = contributor.port
    with pytest.raises(zklora.NetworkError):
        comm.lora_forward(Q_PROJ, 2 * rows)
    with pytest.raises(zklora.NetworkError):
        comm.end_inference()
    stop = threading.Event()
    again = zklora.AServerTCP("127.0.0.1", port, contributor.server, stop)
    again.start()
    try:
        assert comm.lora_forward(Q_PROJ, 3 * rows).shape == (5, 64)
        assert comm.end_inference()["verified"]
    finally:
        stop.set()
        again.join(20)
    assert not again.is_alive()


def test_a_contributor_that_computes_with_other_weights_is_found_out(rows, tmp_path, caplog):
    out, other = tmp_path / "contributor", tmp_path / "other"
    server = zklora.LoRAServer(BASES / "tiny-llama", ADAPTERS / "llama_qv_r4", out)
    changed = shutil.copytree(ADAPTERS / "llama_qv_r4", tmp_path / "changed")
    weights = bytearray((changed / "adapter_model.safetensors").read_bytes())
    # Changes the low bits of a few numbers: other integers of the same widths.
    for at in range(len(weights) - 4000, len(weights), 40):
        weights[at] ^= 0x40
        weights[at + 1] ^= 0x40
    (changed / "adapter_model.safetensors").write_bytes(weights)
    zklora.LoRAServer(BASES / "tiny-llama", changed, other)
    shutil.copy(other / "private" / "weights.bin", out / "private" / "weights.bin")
    stop = threading.Event()
    thread = zklora.AServerTCP("127.0.0.1", 0, server, stop)
    thread.start()
    try:
        own = zklora.Contributor(thread.url, server.adapter_id, patience=0)
        comm = zklora.BaseModelToLoRAComm(contributor=own, session_dir=tmp_path / "session")
        comm.lora_forward(Q_PROJ, rows)
        comm.lora_forward("model.layers.1.self_attn.v_proj", rows)
        with pytest.raises(zklora.ZkloraError):
            comm.end_inference()
        assert not (tmp_path / "session" / "session.pf").exists()
    finally:
        stop.set()
        thread.join(20)


def test_two_clients_in_threads_and_two_threads_of_one_client(contributor, rows, tmp_path):
    failures = []

    def run(comm, scale):
        try:
            for at in range(10):
                delta = comm.lora_forward(Q_PROJ, rows * (scale + at))
                assert delta.shape == (5, 64)
        except BaseException as error:
            failures.append(error)

    comms = [session(contributor, tmp_path / name) for name in ("one", "two")]
    threads = [threading.Thread(target=run, args=(comms[at % 2], 10 * at + 1)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures and not any(thread.is_alive() for thread in threads)
    for comm in comms:
        assert comm.end_inference()["rows"] == {Q_PROJ: 100}


@pytest.mark.parametrize("first", ["server", "session", "pending"])
def test_objects_are_collected_in_any_order(rows, tmp_path, first):
    served = zklora.LoRAServer(
        BASES / "tiny-llama", ADAPTERS / "llama_qv_r4", tmp_path / "contributor"
    )
    server = zklora.Server(served.out_dir, "127.0.0.1", 0, max_rows="unlimited")
    own = zklora.Session(server.url, tmp_path / "session", adapter_id=served.adapter_id, patience=0)
    pending = own.submit([(Q_PROJ, [rows])])
    alive = {"server": server, "session": own, "pending": pending}
    del server, own, pending
    for name in [first, *(name for name in list(alive) if name != first)]:
        del alive[name]
        gc.collect()


def test_a_server_that_runs_already_and_a_port_that_is_taken(contributor, tmp_path):
    stop = threading.Event()
    with pytest.raises(zklora.ZkloraError):
        zklora.AServerTCP("127.0.0.1", 0, contributor.server, stop).start()
    other = zklora.LoRAServer(
        BASES / "tiny-llama", ADAPTERS / "llama_qv_r4", tmp_path / "contributor"
    )
    with pytest.raises(zklora.InputError, match="cannot listen"):
        zklora.AServerTCP("127.0.0.1", contributor.port, other, stop).start()
    with pytest.raises(zklora.InputError, match="loopback"):
        zklora.AServerTCP("0.0.0.0", 0, other, stop).start()
    with pytest.raises(zklora.NetworkError, match="plaintext"):
        zklora.BaseModelToLoRAComm("192.0.2.1", 1).init_request()


def test_a_limit_of_rows_is_kept(rows, tmp_path):
    with zklora.LocalContributor(
        ADAPTERS / "llama_qv_r4", BASES / "tiny-llama", tmp_path / "contributor", max_rows=7
    ) as contributor:
        comm = session(contributor, tmp_path / "session")
        comm.lora_forward(Q_PROJ, rows)
        with pytest.raises(zklora.NetworkError, match="limit is 7"):
            comm.lora_forward(Q_PROJ, 2 * rows)
        assert comm.end_inference()["rows"] == {Q_PROJ: 5}


def test_local_use_of_the_adapter_is_counted_and_proven(rows, tmp_path, ignore_unchecked):
    server = zklora.LoRAServer(
        BASES / "tiny-llama", ADAPTERS / "llama_qv_r4", tmp_path / "contributor"
    )
    assert server.list_lora_injection_points()[0] == Q_PROJ
    assert server.apply_lora(Q_PROJ, rows.reshape(5, 1, 64)).shape == (5, 1, 64)
    (proof,) = server.finalize_proofs_and_collect()
    assert os.path.basename(os.path.dirname(proof)) == "proofs" and not server.session_data
    server.write_adapter_manifest(tmp_path / "manifest.json")
    assert (
        zklora.batch_verify_proofs(server.out_dir, expected_adapters=tmp_path / "manifest.json")[1]
        == 1
    )
    with pytest.raises(ValueError, match="not recognized"):
        server.apply_lora("no.such.module", rows)
    with pytest.raises(zklora.InputError, match="huggingface_hub|neither a folder"):
        zklora.LoRAServer("base", "no/such-adapter", tmp_path / "other")


def test_what_the_server_does_is_logged_and_no_secret_is(rows, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "zklora"):
        with zklora.LocalContributor(
            ADAPTERS / "llama_qv_r4", BASES / "tiny-llama", tmp_path / "contributor"
        ) as contributor:
            comm = session(contributor, tmp_path / "session")
            comm.lora_forward(Q_PROJ, rows)
            comm.end_inference()
    said = caplog.text
    assert "serving adapter" in said and "proven" in said and "stopped serving" in said
    for secret in ("seed",):
        assert (tmp_path / "contributor" / "private" / secret).read_text().strip() not in said


def run_python(code, *arguments, timeout=60, **options):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        **options,
    )


FORK = """
import os, sys, zklora
url, folder, pin, module = sys.argv[1:]
comm = zklora.BaseModelToLoRAComm(contributor=zklora.Contributor(url, pin), session_dir=folder)
comm.lora_forward(module, [[1.0] * 64])
child = os.fork()
if child == 0:
    status = 1
    try:
        comm.lora_forward(module, [[2.0] * 64])
    except zklora.ZkloraError as error:
        status = 0 if "forked" in str(error) else 2
    try:
        zklora.commit_activations("x")
    except zklora.ZkloraError as error:
        status = status if "forked" in str(error) else 3
    del comm
    import gc; gc.collect()
    os._exit(status)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert comm.end_inference()["verified"]
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_gets_a_sentence_and_the_parent_goes_on(contributor, tmp_path):
    done = run_python(FORK, contributor.url, tmp_path / "session", contributor.adapter_id, Q_PROJ)
    assert done.returncode == 0 and done.stdout == "done\n", done.stderr


def test_a_fork_before_the_first_use_is_fine(tmp_path):
    (tmp_path / "values.json").write_text('{"input_data": [1, 2]}')
    code = """
import os, sys, zklora
child = os.fork()
if child == 0:
    zklora.commit_activations(sys.argv[1])
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
zklora.commit_activations(sys.argv[1])
"""
    done = run_python(code, tmp_path / "values.json")
    assert done.returncode == 0, done.stderr


def test_ctrl_c_ends_a_wait():
    code = """
import sys, time, zklora
try:
    print("waiting", flush=True)
    zklora.BaseModelToLoRAComm("127.0.0.1", int(sys.argv[1])).init_request()
except KeyboardInterrupt:
    print("interrupted")
"""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        child = subprocess.Popen(
            [sys.executable, "-c", code, str(listener.getsockname()[1])],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout.readline() == "waiting\n"
        # On a busy machine, it takes a while until the process waits.
        time.sleep(2)
        start = time.monotonic()
        child.send_signal(signal.SIGINT)
        assert child.communicate(timeout=20)[0] == "interrupted\n"
        assert time.monotonic() - start < 5 and child.returncode == 0


def test_rows_that_nobody_chose_to_serve_are_warned_of_once():
    code = """
import sys, tempfile, threading, warnings, zklora
adapter, base = sys.argv[1:]
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    with zklora.LocalContributor(adapter, base, max_rows=5):
        with zklora.LocalContributor(adapter, base, max_rows="unlimited"):
            print(len(said))
    for _ in range(2):
        with zklora.LocalContributor(adapter, base) as local:
            rows = __import__("numpy").ones((1, 64), "float32")
            comm = zklora.BaseModelToLoRAComm(contributor=local.contributor)
            comm.lora_forward(comm.init_request()[0], rows)
            comm.close()
    server, stop = zklora.LoRAServer(base, adapter, tempfile.mkdtemp()), threading.Event()
    thread = zklora.LoRAServerSocket("127.0.0.1", 0, server, stop)
    thread.start()
    stop.set()
    thread.join()
print(*[f"{warning.category.__name__}: {warning.message}" for warning in said], sep="\\n")
"""
    done = run_python(code, ADAPTERS / "llama_qv_r4", BASES / "tiny-llama")
    assert done.returncode == 0, done.stderr
    first, warning = done.stdout.splitlines()
    assert first == "0"
    assert warning.startswith("RowsWarning: ") and "paid or are under contract" in warning


def test_a_server_that_nobody_told_to_serve_rows_serves_none(rows, tmp_path):
    served = zklora.LoRAServer(
        BASES / "tiny-llama", ADAPTERS / "llama_qv_r4", tmp_path / "contributor"
    )
    server = zklora.Server(served.out_dir, "127.0.0.1", 0)
    comm = zklora.BaseModelToLoRAComm(
        contributor=zklora.Contributor(server.url, served.adapter_id),
        session_dir=tmp_path / "session",
    )
    comm.init_request()
    with pytest.raises(zklora.NetworkError, match="serves no rows .* ask for an evaluation"):
        comm.lora_forward(Q_PROJ, rows)
    server.stop()
    for wrong in [0, "some", "-1"]:
        with pytest.raises(zklora.InputError, match="max_rows"):
            zklora.Server(served.out_dir, "127.0.0.1", 0, max_rows=wrong)


@pytest.mark.parametrize("end", ["", "raise SystemExit(3)", "raise ValueError('x')"])
def test_the_interpreter_ends_while_all_is_open(tmp_path, end):
    code = f"""
import sys, zklora
adapter, base, out = sys.argv[1:]
contributor = zklora.LocalContributor(adapter, base, out)
comm = zklora.BaseModelToLoRAComm(contributor=contributor.contributor, session_dir=out + "/user")
rows = __import__("numpy").ones((300, 64), "float32")
pending = comm.session.submit([(comm.init_request()[0], [rows])])
{end}
"""
    done = run_python(code, ADAPTERS / "llama_qv_r4", BASES / "tiny-llama", tmp_path)
    expected = {"": 0, "raise SystemExit(3)": 3}.get(end, 1)
    assert done.returncode == expected, (done.returncode, done.stderr)
    assert "panicked" not in done.stderr and "Fatal" not in done.stderr


def test_the_package_needs_no_torch():
    code = """
import sys
sys.modules["torch"] = sys.modules["transformers"] = sys.modules["peft"] = None
import zklora, zklora.base_model_user_mpi, zklora.lora_contributor_mpi
import zklora.polynomial_commit, zklora.zk_proof_generator
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(
    sys.version_info < (3, 10), reason="Python 3.9 does not tell the signature of native classes"
)
def test_the_stubs_are_those_of_the_native_module():
    tree = ast.parse(pathlib.Path(zklora.__file__).with_name("_native.pyi").read_text())
    native = zklora._native

    def parameters(function):
        names = function.args
        return [
            one.arg
            for one in names.posonlyargs + names.args + names.kwonlyargs
            if one.arg not in ("self", "cls")
        ]

    def native_parameters(function):
        return [name for name in inspect.signature(function).parameters if name != "self"]

    stubs = {
        node.name: node for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))
    }
    assert set(stubs) == {name for name in dir(native) if not name.startswith("__")}
    for name, node in stubs.items():
        real = getattr(native, name)
        if isinstance(node, ast.FunctionDef):
            assert parameters(node) == native_parameters(real), name
            continue
        members = {
            member.name: member for member in node.body if isinstance(member, ast.FunctionDef)
        }
        assert set(members) - {"__new__"} == {
            member for member in vars(real) if not member.startswith("__")
        }, name
        for member, stub in members.items():
            if stub.decorator_list and stub.decorator_list[0].id == "property":
                continue
            assert parameters(stub) == native_parameters(
                real if member == "__new__" else getattr(real, member)
            ), (name, member)
