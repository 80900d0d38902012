"""The functions export, compile, record, prove, verify and audit."""

import os
import stat

import numpy as np
import pytest

import zklora
from conftest import ADAPTERS, BASES, Q_PROJ


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifacts")
    steps = []
    names = zklora.export_adapter(
        ADAPTERS / "llama_qv_r4",
        folder / "onnx",
        BASES / "tiny-llama",
        progress=lambda *step: steps.append(step),
    )
    artifacts = zklora.compile(folder / "onnx", folder, progress=lambda *step: steps.append(step))
    assert names == [module.name for module in artifacts.modules]
    assert [step[1:] for step in steps] == [(0, 2), (1, 2), (2, 2)] * 2
    return artifacts


def test_a_session_is_proven_and_verified_and_the_adapter_audited(artifacts, rows, tmp_path):
    pin = artifacts.adapter_id
    trace = zklora.record(artifacts, {Q_PROJ: rows}, tmp_path / "trace.safetensors")
    assert trace.rows == {Q_PROJ: 5} and trace.deltas(Q_PROJ).shape == (5, 64)
    proof = zklora.prove(artifacts, trace, tmp_path / "session.pf")
    public = artifacts.folder / "public"
    verdict = zklora.verify(
        public,
        tmp_path / "trace.safetensors",
        tmp_path / "session.pf",
        pin,
        activations={Q_PROJ: rows},
    )
    assert verdict.pinned and verdict.rows[Q_PROJ] == 5 and verdict.adapter_id == pin
    assert zklora.verify(artifacts.manifest, trace, proof, public).pinned
    opening = artifacts.folder / "private" / "opening"
    report = zklora.audit(
        public, ADAPTERS / "llama_qv_r4", opening, BASES / "tiny-llama", expected_adapter=pin
    )
    assert report.accepted and report.base_compared
    report = zklora.audit(public, ADAPTERS / "llama_qv_r4", opening, expected_adapter=pin)
    assert report.accepted and not report.base_compared
    report = zklora.audit(
        public,
        ADAPTERS / "llama_all_linear_r8",
        opening,
        BASES / "tiny-llama",
        expected_adapter=pin,
    )
    assert not report.accepted and report.differences


def test_a_registered_adapter_is_registered_in_manifests_and_verdicts(artifacts, rows, tmp_path):
    registered = zklora.compile(artifacts.folder / "onnx", tmp_path, registered=True)
    public = tmp_path / "public"
    assert zklora.Manifest.load(public).registered is True
    assert zklora.Manifest.load(public / "manifest.json").registered is None
    assert zklora.Manifest.load(artifacts.folder / "public").registered is False
    trace = zklora.record(registered, {Q_PROJ: rows})
    proof = zklora.prove(registered, trace)
    assert zklora.verify(public, trace, proof, registered.adapter_id).registered is True
    file = public / "registration.proof"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(zklora.VerificationError, match="registration.proof"):
        zklora.verify(public, trace, proof, registered.adapter_id)


def test_deltas_are_those_of_the_adapter(artifacts):
    from safetensors_reader import read

    tensors = read(ADAPTERS / "llama_qv_r4" / "activations.safetensors")
    x, expected = tensors[f"{Q_PROJ}.x"], tensors[f"{Q_PROJ}.delta"]
    delta = zklora.record(artifacts, {Q_PROJ: x}).deltas(Q_PROJ)
    assert np.linalg.norm(delta - expected) < 1e-3 * np.linalg.norm(expected)


def test_a_proof_of_other_rows_or_of_another_adapter_or_changed_is_refused(artifacts, rows):
    pin = artifacts.adapter_id
    trace, other = (
        zklora.record(artifacts, {Q_PROJ: rows}),
        zklora.record(artifacts, {Q_PROJ: 2 * rows}),
    )
    proof = zklora.prove(artifacts, trace)
    for changed in [proof[:-1], proof + b"x", b"", bytes(64)]:
        with pytest.raises(zklora.VerificationError, match="malformed"):
            zklora.verify(artifacts.manifest, trace, changed, pin)
    flipped = bytearray(proof)
    flipped[-1] ^= 1
    for own, given in [(trace, bytes(flipped)), (other, proof)]:
        with pytest.raises(zklora.VerificationError):
            zklora.verify(artifacts.manifest, own, given, pin)
    with pytest.raises(zklora.VerificationError, match="pinned"):
        zklora.verify(artifacts.manifest, trace, proof, "0" * 64)
    with pytest.raises(zklora.VerificationError, match="not of your activations"):
        zklora.verify(artifacts.manifest, trace, proof, pin, activations={Q_PROJ: 2 * rows})
    with pytest.raises(zklora.VerificationError, match="not of yours"):
        zklora.verify(artifacts.manifest, trace, proof, pin, session_id="0" * 64)
    with pytest.warns(zklora.UncheckedWarning, match="NOT PINNED"):
        zklora.verify(artifacts.manifest, trace, proof)


def test_files_that_cannot_be_proofs_are_refused_before_they_are_read(artifacts, rows, tmp_path):
    trace = zklora.record(artifacts, {Q_PROJ: rows})
    with open(tmp_path / "large.pf", "wb") as file:
        file.truncate(1 << 40)
    os.mkfifo(tmp_path / "pipe.pf")
    for name, why in [("large.pf", "at most"), ("pipe.pf", "not a file"), ("none.pf", "none.pf")]:
        with pytest.raises(zklora.FileError, match=why):
            zklora.verify(artifacts.manifest, trace, tmp_path / name, artifacts.adapter_id)
    with pytest.raises(zklora.FileError, match="create it first"):
        zklora.prove(artifacts, trace, tmp_path / "no folder" / "session.pf")


def test_only_what_was_served_is_proven(artifacts, rows, tmp_path):
    elsewhere = tmp_path / "artifacts"
    zklora.export_adapter(ADAPTERS / "llama_qv_r4", tmp_path / "onnx", BASES / "tiny-llama")
    other = zklora.compile([tmp_path / "onnx"], elsewhere)
    trace = zklora.record(artifacts, {Q_PROJ: rows})
    with pytest.raises(zklora.ZkloraError):
        zklora.prove(other, trace)


def test_arrays_that_do_not_fit_are_refused_by_name(artifacts, rows):
    for activations, why in [
        ({Q_PROJ: rows[:, :63]}, "expected 64 features"),
        ({Q_PROJ: "text"}, "cannot be sent"),
        ({Q_PROJ: [[1.0], [2.0, 3.0]]}, "not an array"),
        ({Q_PROJ: np.full((1, 64), np.nan)}, "finite"),
        ({Q_PROJ: (1 + 1j) * rows}, "complex"),
        ({"no.such.module": rows}, "no module `no.such.module`"),
    ]:
        with pytest.raises(ValueError, match=why):
            zklora.record(artifacts, activations)
    with pytest.raises(zklora.InputError, match="limit is 3"):
        zklora.record(artifacts, {"model.layers.1.self_attn.q_proj": rows}, max_rows=3)
    with pytest.raises(zklora.InputError, match="64 hex digits"):
        zklora.record(artifacts, {Q_PROJ: rows}, session_id="ab")


def test_folders_that_are_none_say_what_is_missing(tmp_path):
    for call in [
        lambda: zklora.Artifacts.load(tmp_path),
        lambda: zklora.Manifest.load(tmp_path / "missing.json"),
        lambda: zklora.compile([], tmp_path / "out"),
        lambda: zklora.export_adapter(tmp_path, tmp_path / "out"),
        lambda: zklora.export_adapter(ADAPTERS / "gpt2_dora_r4", tmp_path / "out"),
        lambda: zklora.export_adapter(ADAPTERS / "gpt2_c_attn_r4_bin", tmp_path / "out"),
    ]:
        with pytest.raises(zklora.InputError) as error:
            call()
        assert len(str(error.value)) > 20


def test_secrets_are_readable_by_their_owner_only_and_are_not_shown(artifacts):
    private = artifacts.folder / "private"
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    for path in private.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    seed = (private / "seed").read_text().strip()
    for value in [artifacts, artifacts.manifest, artifacts.modules]:
        assert seed not in repr(value)
    assert not [
        name for name in dir(artifacts) if "weight" in name or "mask" in name or "seed" in name
    ]


def test_an_exception_of_the_progress_callback_arrives(tmp_path):
    def stop(*step):
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        zklora.export_adapter(
            ADAPTERS / "llama_qv_r4", tmp_path / "onnx", BASES / "tiny-llama", progress=stop
        )


def test_a_manifest_is_pinned_by_id_file_or_folder(artifacts, tmp_path):
    path = tmp_path / "pinned.json"
    artifacts.manifest.save(path)
    assert zklora.Manifest.load(path).adapter_id == artifacts.adapter_id
    assert os.path.samefile(artifacts.folder, artifacts.folder)
    with pytest.raises(zklora.VerificationError):
        zklora.Manifest.load(path, "1" * 64)
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(zklora.ZkloraError):
        zklora.Manifest.load(path)


def test_a_source_that_does_not_exist_is_a_file_error(tmp_path):
    with pytest.raises(zklora.FileError, match="missing.onnx"):
        zklora.compile([tmp_path / "missing.onnx"], tmp_path / "out")
