"""Runs the sample scripts in two processes: on a tiny model, and on SmolLM2 with its adapter."""

import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest

import zklora
from conftest import ADAPTERS, BASES, ROOT

pytestmark = pytest.mark.torch
EXAMPLES = ROOT / "python" / "examples"
TEXT = (
    "And it came to pass in those days, that there went out a decree from Caesar Augustus, that "
    "all the world should be taxed."
)


def run(script, *arguments):
    done = subprocess.run(
        [sys.executable, EXAMPLES / script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def contribute(tmp_path):
    """Starts the contributor's script; returns its port, adapter id and process."""
    started = []

    def start(base, adapter):
        command = [
            sys.executable,
            EXAMPLES / "lora_contributor_sample_script.py",
            "--port_a",
            "0",
            "--base_model",
            base,
        ]
        command += ["--lora_model_id", adapter, "--out_dir", tmp_path / "a-out"]
        process = subprocess.Popen(
            list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        said = process.stdout.readline() + process.stdout.readline()
        found = re.search(r"adapter id ([0-9a-f]{64})\n.*:(\d+); Ctrl-C", said)
        assert found, (said, process.stderr.read() if process.poll() is not None else "")
        return int(found[2]), found[1], process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def scripts(base, adapter, contribute, tmp_path, rel):
    """Runs both parties and the verification; returns the losses of peft and of the script."""
    import peft
    import torch
    import transformers

    port, pin, process = contribute(base, adapter)
    user = [
        "--port_a",
        port,
        "--base_model",
        base,
        "--session_dir",
        tmp_path / "b-out",
        "--text",
        TEXT,
        "--generate",
        5,
    ]
    code, said, errors = run("base_model_user_sample_script.py", *user, "--expected_adapter", pin)
    assert code == 0, errors
    assert f"adapter {pin} (your pin): every delta" in said and "continuation" in said
    ours = float(re.search(r"with the adapter: ([\d.]+)", said)[1])

    model = peft.PeftModel.from_pretrained(
        transformers.AutoModelForCausalLM.from_pretrained(base), adapter
    ).eval()
    ids = transformers.AutoTokenizer.from_pretrained(base)(TEXT, return_tensors="pt").input_ids
    with torch.no_grad():
        theirs = model(ids, labels=ids).loss.item()
    assert ours == pytest.approx(theirs, rel=rel)

    own = [
        "--proof_dir",
        tmp_path / "b-out",
        "--transcript",
        tmp_path / "b-out",
        "--expected_adapter",
        pin,
        "--verbose",
    ]
    code, said, errors = run("verify_proofs.py", *own)
    assert (
        code == 0
        and "1 proofs" in said
        and "rows of your record" in said
        and "Warning" not in errors
    ), errors
    # The contributor's folder alone, as in the original: its proof is found, without a claim.
    code, said, errors = run("verify_proofs.py", "--proof_dir", tmp_path / "a-out")
    assert (
        code == 0
        and "1 proofs" in said
        and "NOTHING WAS VERIFIED" in errors
        and "NOT PINNED" in errors
    )

    # After tampering with a delta of the record, then with a byte of the proof, nothing verifies.
    trace = tmp_path / "b-out" / "contributor-1" / "trace.safetensors"
    good = trace.read_bytes()
    trace.write_bytes(good[:-8] + bytes([good[-8] ^ 1]) + good[-7:])
    code, said, errors = run("verify_proofs.py", *own)
    assert code != 0 and "VerificationError" in errors
    trace.write_bytes(good)
    proof = trace.with_name("session.pf")
    bytes_ = proof.read_bytes()
    proof.write_bytes(bytes_[:200] + bytes([bytes_[200] ^ 1]) + bytes_[201:])
    assert run("verify_proofs.py", *own)[0] != 0

    # Another pin than the contributor's adapter: refused before anything is sent.
    code, said, errors = run(
        "base_model_user_sample_script.py",
        *user[:-1],
        0,
        "--session_dir",
        tmp_path / "c-out",
        "--expected_adapter",
        "0" * 64,
    )
    assert (
        code != 0
        and "VerificationError" in errors
        and not list((tmp_path / "c-out").glob("*/rows.log"))
    )

    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and "proofs: ['" in said, errors
    return theirs, ours


def test_two_processes_on_a_tiny_model(contribute, tmp_path):
    scripts(BASES / "tiny-llama", ADAPTERS / "llama_qv_r4", contribute, tmp_path, rel=1e-3)


@pytest.mark.smollm2
def test_two_processes_on_smollm2_with_its_trained_adapter(contribute, tmp_path):
    base = pathlib.Path(os.environ["ZKLORA_SMOLLM2"]) / "hf"
    theirs, ours = scripts(base, ADAPTERS / "smollm2-r4-qv", contribute, tmp_path, rel=1e-3)
    print(f"SmolLM2: peft's loss {theirs:.6f}, through the contributor {ours:.6f}")


def test_errors_are_sentences(tmp_path):
    code, _, errors = run("verify_proofs.py", "--proof_dir", tmp_path / "missing")
    assert code != 0 and errors.splitlines()[-1].startswith("zklora.errors.FileError:")
    assert issubclass(zklora.FileError, OSError)
