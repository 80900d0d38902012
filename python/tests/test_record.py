"""`batch_verify_proofs`: pins, complete records, and bounded listings of folders."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

import zklora
from conftest import ADAPTERS, BASES, Q_PROJ
from zklora import _file_listing, _pins


def session(contributor, folder, *batches, end=True):
    """Runs a session with these rows; returns its pin."""
    comm = zklora.BaseModelToLoRAComm(contributor=contributor.contributor, session_dir=folder)
    comm.init_request()
    for rows in batches:
        comm.lora_forward(Q_PROJ, rows)
    if end:
        comm.end_inference()
    comm.close()
    return contributor.adapter_id


# Pins.


@pytest.fixture
def delivery(other_contributor, contributor, rows, tmp_path, monkeypatch):
    """A proof about an adapter that is not pinned, in a folder that has the pin as its name."""
    session(other_contributor, tmp_path / "session", rows)
    pin = contributor.adapter_id
    for name in (pin, pin.upper()):
        (tmp_path / "delivery" / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "session" / "public" / "manifest.json", tmp_path / "delivery" / name)
    shutil.copy(tmp_path / "session" / "session.pf", tmp_path / "delivery")
    shutil.copy(tmp_path / "session" / "trace.safetensors", tmp_path / "delivery")
    monkeypatch.chdir(tmp_path / "delivery")
    return pin


@pytest.mark.parametrize(
    "spelt",
    [str, str.upper, lambda pin: f" {pin}\n", lambda pin: pin.encode()],
    ids=["id", "capitals", "space", "bytes"],
)
@pytest.mark.parametrize("record", [None, "../session"])
def test_a_folder_that_is_called_like_the_pin_is_not_the_pin(delivery, spelt, record):
    pin = spelt(delivery)
    with pytest.raises(zklora.InputError, match="no manifest.json beside it or above it"):
        zklora.batch_verify_proofs(".", record, [pin])
    # The fallback, too: a manifest that is a pin is checked against the pins like any other.
    with (
        pytest.raises(zklora.VerificationError, match="has no proof"),
        pytest.warns(zklora.UncheckedWarning),
    ):
        zklora.batch_verify_proofs(".", None, [pin, os.path.join(".", delivery)])
    assert _pins.pin(pin) == _pins.Pin(delivery)


def test_a_manifest_of_another_adapter_is_none_of_the_pinned_ones(delivery):
    shutil.copytree(delivery, "public")
    for pins in ([delivery], [delivery.upper()]):
        with pytest.raises(zklora.VerificationError, match="which is not pinned"):
            zklora.batch_verify_proofs(".", "../session", pins)


def test_every_entry_point_takes_the_id_for_an_id(
    delivery, contributor, other_contributor, tmp_path
):
    for pin in (delivery, delivery.upper()):
        with pytest.raises(zklora.VerificationError, match="pinned"):
            zklora.verify(
                "../session/public", "../session/trace.safetensors", "../session/session.pf", pin
            )
        with pytest.raises(zklora.VerificationError, match="pinned"):
            zklora.audit(
                "../session/public", ADAPTERS / "llama_qv_r4", "opening", expected_adapter=pin
            )
        own = zklora.Contributor(other_contributor.url, pin)
        with pytest.raises(zklora.VerificationError, match="pinned"):
            zklora.BaseModelToLoRAComm(
                contributor=own, session_dir=tmp_path / "refused"
            ).init_request()
        # The pinned adapter itself is accepted.
        own = zklora.Contributor(contributor.url, pin)
        comm = zklora.BaseModelToLoRAComm(contributor=own, session_dir=tmp_path / f"let-in-{pin}")
        assert comm.session.manifest.adapter_id == delivery
        comm.close()


def test_what_a_pin_may_be(contributor, tmp_path):
    public = os.path.join(contributor.out_dir, "public")
    manifest = zklora.Manifest.load(public)
    for pin in [
        public,
        os.path.join(public, "manifest.json"),
        os.fsencode(public),
        manifest,
        contributor.adapter_id,
    ]:
        assert _pins.pin(pin).adapter_id == contributor.adapter_id
        assert _pins.pin(pin).check(manifest) is manifest
    with pytest.raises(zklora.VerificationError, match="was pinned"):
        _pins.Pin("0" * 64).check(manifest)
    for pin in ["no such file", "0" * 63, "0" * 65, "g" * 64, "\uff10" * 64, tmp_path]:
        with pytest.raises(zklora.InputError):
            _pins.pin(pin)
    with pytest.raises(zklora.InputError, match="int is not a pin"):
        _pins.pin(3)


def test_a_pin_is_read_once_and_two_pins_are_one(contributor, other_contributor, tmp_path):
    path = tmp_path / "manifest.json"
    shutil.copy(os.path.join(contributor.out_dir, "public", "manifest.json"), path)
    comm = zklora.BaseModelToLoRAComm(
        contributor=zklora.Contributor(contributor.url, path), session_dir=tmp_path / "one"
    )
    comm.init_request()
    comm.close()
    (known,) = zklora.contributor.contributors([contributor], [path])
    # A later change of the file has no effect.
    shutil.copy(os.path.join(other_contributor.out_dir, "public", "manifest.json"), path)
    comm.init_request()
    comm.close()
    assert known.session_options()["adapter_id"] == contributor.adapter_id
    with pytest.raises(
        zklora.InputError,
        match=f"pin is adapter {contributor.adapter_id}, but expected_adapters has "
        f"{other_contributor.adapter_id}",
    ):
        zklora.contributor.contributors([contributor], [path])
    (known,) = zklora.contributor.contributors([contributor], [None])
    assert known.expected_adapter.adapter_id == contributor.adapter_id
    for address in ["http://[::1", "http://h:99999", (3, 4), ("h", "x"), 7]:
        with pytest.raises(zklora.InputError):
            zklora.contributor.contributor(address).address


WARNED = """
import sys, zklora
for _ in range(3):
    zklora.batch_verify_proofs(sys.argv[1])
"""


@pytest.mark.parametrize("options, times", [([], 3), (["-W", "ignore"], 0)])
def test_what_was_not_checked_is_said_every_time(tmp_path, options, times):
    done = subprocess.run(
        [sys.executable, *options, "-c", WARNED, tmp_path],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0 and done.stderr.count("NOTHING WAS VERIFIED") == times, done.stderr


def test_a_folder_of_proofs_is_a_path(tmp_path, ignore_unchecked):
    assert (
        zklora.batch_verify_proofs(os.fsencode(tmp_path))
        == zklora.batch_verify_proofs(tmp_path)
        == (0.0, 0)
    )
    with pytest.raises(zklora.InputError, match="int is not a folder of proofs"):
        zklora.batch_verify_proofs(3)


# Every pin and every session.


def test_a_session_with_rows_and_no_trace_is_not_proven(contributor, rows, tmp_path):
    pin = session(contributor, tmp_path / "one", rows)
    assert zklora.batch_verify_proofs(tmp_path, tmp_path, pin)[1] == 1
    session(contributor, tmp_path / "two", 2 * rows, end=False)
    with pytest.raises(
        zklora.VerificationError,
        match=r"two/rows.log: 5 rows were sent in this session and it has no trace.safetensors",
    ):
        zklora.batch_verify_proofs(tmp_path, tmp_path, pin)
    # Not even if the record is passed in pieces.
    with pytest.raises(zklora.VerificationError, match="not proven"):
        zklora.batch_verify_proofs(tmp_path, [tmp_path / "one", tmp_path / "two"], pin)


def test_a_trace_that_is_not_all_of_the_log_is_not_the_session(contributor, rows, tmp_path):
    comm = zklora.BaseModelToLoRAComm(contributor=contributor.contributor, session_dir=tmp_path)
    comm.lora_forward(Q_PROJ, rows)
    comm.session.trace().save(tmp_path / "trace.safetensors")
    comm.lora_forward(Q_PROJ, 2 * rows[:3])
    comm.close()
    with pytest.raises(
        zklora.VerificationError,
        match="8 rows were sent in this session and its trace.safetensors has 5",
    ):
        zklora.batch_verify_proofs(tmp_path, tmp_path, contributor.adapter_id)


@pytest.mark.parametrize("named", ["folder", "trace", "link"])
@pytest.mark.parametrize("more", [5, 9])
def test_a_later_session_in_the_folder_of_a_proven_one_is_not_proven(
    contributor, rows, tmp_path, named, more
):
    folder, proofs = tmp_path / "session", tmp_path / "proofs"
    pin = session(contributor, folder, rows)
    # The user moves the proof elsewhere, and begins another session in the folder.
    proofs.mkdir()
    shutil.move(folder / "session.pf", proofs)
    shutil.copytree(folder / "public", proofs / "public")
    record = {
        "folder": folder,
        "trace": folder / "trace.safetensors",
        "link": tmp_path / "link.safetensors",
    }
    record["link"].symlink_to(record["trace"])
    with pytest.raises(zklora.InputError, match="holds the trace of another session and no log"):
        session(contributor, folder, end=False)
    # Simulates a trace that was copied there later.
    shutil.move(record["trace"], tmp_path / "aside")
    session(contributor, folder, end=False)
    shutil.move(tmp_path / "aside", record["trace"])
    # Nothing has been sent in it yet.
    assert zklora.batch_verify_proofs(proofs, record[named], pin)[1] == 1
    session(contributor, folder, np.vstack([2 * rows, 3 * rows])[:more], end=False)
    log, trace = zklora._native.log_info(folder / "rows.log"), zklora.Trace.info_of(record["trace"])
    assert log[0] == trace[0] and log[1] == more and log[2] != trace[2]
    with pytest.raises(
        zklora.VerificationError,
        match=f"rows.log: {more} rows were sent .* beside it is another session's",
    ):
        zklora.batch_verify_proofs(proofs, record[named], pin)


def test_a_trace_with_as_many_rows_of_other_modules_is_not_the_session(contributor, rows, tmp_path):
    comm = zklora.BaseModelToLoRAComm(contributor=contributor.contributor, session_dir=tmp_path)
    comm.lora_forward(Q_PROJ, rows)
    comm.lora_forward(Q_PROJ.replace("q_proj", "v_proj"), rows[:3])
    path, trace = (
        tmp_path / "rows.log",
        zklora._user_record._Rows(
            "a trace", contributor.adapter_id, 8, comm.session.session_id, [3, 5]
        ),
    )
    comm.close()
    zklora._user_record.Record._add_log(None, path, trace)
    trace.per_module = [4, 4]
    with pytest.raises(
        zklora.VerificationError,
        match="8 rows were sent in this session and its trace.safetensors has 8, or others",
    ):
        zklora._user_record.Record._add_log(None, path, trace)


def test_a_trace_without_a_proof_is_refused(contributor, rows, tmp_path):
    pin = session(contributor, tmp_path / "session", rows)
    (tmp_path / "proofs").mkdir()
    with pytest.raises(zklora.VerificationError, match="1 trace.* have no proof"):
        zklora.batch_verify_proofs(tmp_path / "proofs", tmp_path / "session", pin)


def test_a_pin_without_a_proof_is_refused(contributor, other_contributor, rows, tmp_path):
    pins = [session(contributor, tmp_path, rows), other_contributor.adapter_id]
    with pytest.raises(
        zklora.VerificationError, match=f"the pinned adapter {pins[1]} has no proof"
    ):
        zklora.batch_verify_proofs(tmp_path, tmp_path, pins)
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        zklora.VerificationError, match=f"the pinned adapter {pins[0]} has no proof"
    ):
        zklora.batch_verify_proofs(tmp_path / "empty", None, pins)


def test_a_session_in_which_nothing_was_sent_needs_no_proof(
    contributor, other_contributor, rows, tmp_path, recwarn
):
    pins = [
        session(contributor, tmp_path / "one", rows),
        session(other_contributor, tmp_path / "two", end=False),
    ]
    assert zklora._native.log_info(tmp_path / "two" / "rows.log")[:2] == (pins[1], 0)
    assert zklora.batch_verify_proofs(tmp_path, tmp_path, pins)[1] == 1
    assert not [one for one in recwarn if one.category is zklora.UncheckedWarning]
    # A log that was cut at its creation is of a session that never began; without a log, nothing
    # is known.
    with pytest.warns(zklora.UncheckedWarning, match="NOTHING WAS VERIFIED"):
        assert zklora.batch_verify_proofs(tmp_path / "two", tmp_path / "two", pins[1]) == (0.0, 0)
    os.truncate(tmp_path / "two" / "rows.log", 12)
    assert zklora._native.log_info(tmp_path / "two" / "rows.log")[:2] == (None, 0)
    with pytest.raises(zklora.VerificationError, match="has no proof"):
        zklora.batch_verify_proofs(tmp_path, tmp_path, pins)


def test_rows_that_were_refused_are_not_counted_as_sent(rows, tmp_path):
    out = tmp_path / "contributor"
    with zklora.LocalContributor(
        ADAPTERS / "llama_qv_r4", BASES / "tiny-llama", out, max_rows=7
    ) as contributor:
        comm = zklora.BaseModelToLoRAComm(
            contributor=contributor.contributor, session_dir=tmp_path / "session"
        )
        comm.lora_forward(Q_PROJ, rows)
        with pytest.raises(zklora.NetworkError, match="limit is 7"):
            comm.lora_forward(Q_PROJ, 2 * rows)
        log = tmp_path / "session" / "rows.log"
        assert zklora._native.log_info(log)[:2] == (contributor.adapter_id, 5)
        comm.close()
        (served,) = (out / "private" / "sessions").glob("*.rows")
        with pytest.raises(zklora.FileError, match="log of a contributor"):
            zklora._native.log_info(served)


def test_an_empty_record_and_no_pins_at_all_are_refused(contributor, rows, tmp_path):
    session(contributor, tmp_path / "session", rows)
    (tmp_path / "empty").mkdir()
    for record in ([], (), [[], []]):
        with pytest.raises(zklora.InputError, match="the record is empty"):
            zklora.batch_verify_proofs(tmp_path / "session", record, contributor.adapter_id)
    with pytest.raises(zklora.FileError, match="not the folder of a session"):
        zklora.batch_verify_proofs(tmp_path / "session", tmp_path / "empty", contributor.adapter_id)
    for pins in ([], [None], [contributor.adapter_id, None]):
        with pytest.raises(zklora.InputError, match="is empty or has an empty entry"):
            zklora.batch_verify_proofs(tmp_path / "session", tmp_path / "session", pins)


def test_one_proof_is_for_one_session(contributor, rows, tmp_path):
    pin = session(contributor, tmp_path / "one", rows)
    session(contributor, tmp_path / "two", rows)
    shutil.copy(tmp_path / "one" / "session.pf", tmp_path / "two" / "session.pf")
    with pytest.raises(zklora.VerificationError):
        zklora.batch_verify_proofs(tmp_path, tmp_path, pin)


# Folders.

WALK = """
import sys, zklora
from zklora import _file_listing
links = []
print(len(_file_listing.files_below(sys.argv[1], links)), len(links))
zklora.batch_verify_proofs(sys.argv[1])
"""


def test_links_in_a_circle_are_not_followed(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in "abcdefgh":
        (folder / name).symlink_to(".")
    (folder / "file").touch()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WALK, folder],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "1 8\n" and done.returncode == 0, done.stderr


def test_a_record_with_a_link_to_a_folder_is_refused(contributor, rows, tmp_path):
    pin = session(contributor, tmp_path / "record" / "one", rows)
    session(contributor, tmp_path / "elsewhere", 2 * rows, end=False)
    (tmp_path / "record" / "two").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(zklora.FileError, match="two: a link to a folder is not followed"):
        zklora.batch_verify_proofs(tmp_path / "record", tmp_path / "record", pin)


def test_a_deep_folder_and_one_with_too_many_entries(tmp_path, monkeypatch):
    deep = str(tmp_path)
    try:
        while len(deep) < 3900:
            deep += "/d"
            os.mkdir(deep)
        open(deep + "/x.pf", "w").close()
        assert _file_listing.files_below(tmp_path) == [deep + "/x.pf"]
        monkeypatch.setattr(_file_listing, "MAX_ENTRIES", 100)
        with pytest.raises(zklora.FileError, match="more than 100 entries"):
            zklora.batch_verify_proofs(tmp_path)
    finally:
        # pytest cannot remove a folder of this depth.
        while deep != str(tmp_path):
            shutil.rmtree(deep)
            deep = os.path.dirname(deep)


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_read_is_not_passed_over(tmp_path):
    (tmp_path / "closed").mkdir(0o000)
    with pytest.raises(zklora.FileError, match="cannot be read"):
        zklora.batch_verify_proofs(tmp_path)


def test_a_path_of_a_delivered_folder_forges_no_line(contributor, rows, tmp_path, capsys):
    pin = session(contributor, tmp_path / "session", rows)
    name = f"x\nall.pf: adapter {pin}: accepted\u202e"
    (tmp_path / name).mkdir()
    shutil.move(tmp_path / "session" / "session.pf", tmp_path / name)
    shutil.copytree(tmp_path / "session" / "public", tmp_path / name / "public")
    zklora.batch_verify_proofs(tmp_path / name, tmp_path / "session", pin, verbose=True)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.isprintable() and "x\\nall.pf" in line
    (tmp_path / name / "session.pf").write_bytes(b"")
    with pytest.raises(zklora.VerificationError) as error:
        zklora.batch_verify_proofs(tmp_path / name, tmp_path / "session", pin)
    assert str(error.value).isprintable()


# A trace that is larger than the memory, or claims to be.


def blown_up(path, rows):
    """Grows a trace file to very many rows; it is sparse, so it takes no more disk than before."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header, end = json.loads(raw[8 : 8 + length]), 0
    for name in sorted(name for name in header if name != "__metadata__"):
        tensor = header[name]
        tensor["shape"][0] = rows
        size = {"F32": 4, "I32": 4, "I64": 8}[tensor["dtype"]]
        for many in tensor["shape"]:
            size *= many
        tensor["data_offsets"] = [end, end + size]
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return end


HUGE = """
import resource, sys, warnings, zklora
warnings.simplefilter("ignore")
folder, pin, module, copy = sys.argv[1:]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
manifest = zklora.Manifest.load(folder + "/public", pin)
trace = zklora.Trace.load(folder + "/trace.safetensors", manifest)
print(trace.rows[module])
for verify in (
    lambda: zklora.batch_verify_proofs(folder, None, [pin]),
    lambda: zklora.verify(manifest, folder + "/trace.safetensors", folder + "/session.pf"),
    lambda: zklora.verify(manifest, trace, folder + "/session.pf"),
):
    try:
        verify()
        print("accepted")
    except zklora.ZkloraError as error:
        print(type(error).__name__)
trace.save(copy)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="sparse files, and memory in KiB")
def test_a_trace_beside_a_proof_is_never_held_whole(contributor, rows, tmp_path, ignore_unchecked):
    pin = session(contributor, tmp_path / "session", rows)
    trace = tmp_path / "session" / "trace.safetensors"
    assert blown_up(trace, 1 << 20) > 1 << 29
    script = [sys.executable, "-c", HUGE, tmp_path / "session", pin, Q_PROJ, tmp_path / "copy"]
    said = subprocess.run(script, capture_output=True, text=True, timeout=300)
    assert said.returncode == 0, said.stderr
    lines = [line for line in said.stdout.splitlines() if not line.startswith(str(tmp_path))]
    count, *verdicts, megabytes = lines
    assert count == str(1 << 20)
    assert len(verdicts) == 3 and "accepted" not in verdicts, verdicts
    assert int(megabytes) < 300
    assert zklora.Trace.info_of(tmp_path / "copy") == zklora.Trace.info_of(trace)
    # The file is no longer sparse.
    os.remove(tmp_path / "copy")


def test_a_trace_that_stays_in_its_file_says_what_one_in_memory_says(
    rows, tmp_path, ignore_unchecked
):
    with zklora.LocalContributor(
        ADAPTERS / "llama_qv_r4", BASES / "tiny-llama", tmp_path / "c"
    ) as local:
        artifacts = local.server.artifacts
    memory = zklora.record(artifacts, {Q_PROJ: rows})
    memory.save(tmp_path / "trace")
    file = zklora.Trace.load(tmp_path / "trace", artifacts.manifest)
    assert (
        repr(file) == repr(memory)
        and file.rows == memory.rows
        and file.session_id == memory.session_id
    )
    for module in artifacts.manifest.modules:
        assert (file.deltas(module.name) == memory.deltas(module.name)).all()
    file.save(tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "trace").read_bytes()
    assert zklora.verify(artifacts.manifest, file, zklora.prove(artifacts, file)).rows[Q_PROJ] == 5
