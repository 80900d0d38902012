"""Shared by the tests: the repository's fixtures, contributors in this process, and models."""

import os
import pathlib
import tempfile
import warnings

import numpy as np
import pytest

import zklora

ROOT = pathlib.Path(__file__).resolve().parents[2]
ADAPTERS = ROOT / "fixtures" / "adapters"
BASES = ROOT / "fixtures" / "base"
# Not the state folder of whoever runs the tests.
STATE = tempfile.TemporaryDirectory(prefix="zklora-state-")
os.environ["XDG_STATE_HOME"] = STATE.name
Q_PROJ = "model.layers.0.self_attn.q_proj"
TEXT = "let mut total = 0; for x in &values { total += x; }"


def pytest_collection_modifyitems(items):
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401

        without = None
    except ImportError:
        without = pytest.mark.skip(reason="torch and transformers are not installed")
    for item in items:
        if without is not None and "torch" in item.keywords:
            item.add_marker(without)
        if "smollm2" in item.keywords and "ZKLORA_SMOLLM2" not in os.environ:
            item.add_marker(pytest.mark.skip(reason="ZKLORA_SMOLLM2 names no folder"))


@pytest.fixture(scope="session")
def contributor(tmp_path_factory):
    """Rank 4 on q_proj and v_proj of tiny-llama."""
    out = tmp_path_factory.mktemp("contributor")
    with zklora.LocalContributor(
        ADAPTERS / "llama_qv_r4", BASES / "tiny-llama", out
    ) as contributor:
        yield contributor


@pytest.fixture(scope="session")
def other_contributor(tmp_path_factory):
    """Rank 8 on all linear layers of tiny-llama."""
    out = tmp_path_factory.mktemp("other")
    with zklora.LocalContributor(
        ADAPTERS / "llama_all_linear_r8", BASES / "tiny-llama", out
    ) as contributor:
        yield contributor


@pytest.fixture
def comm(contributor, tmp_path):
    """An open session."""
    comm = zklora.BaseModelToLoRAComm(
        contributor=contributor.contributor, session_dir=tmp_path / "session"
    )
    comm.init_request()
    yield comm
    comm.close()


@pytest.fixture
def rows():
    """Rows for `Q_PROJ`."""
    return np.random.default_rng(1).normal(size=(5, 64)).astype(np.float32)


@pytest.fixture
def ignore_unchecked():
    """Silences warnings about arguments that a test omits on purpose."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", zklora.UncheckedWarning)
        yield


@pytest.fixture
def model():
    """tiny-llama, unpatched."""
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(BASES / "tiny-llama").eval()


@pytest.fixture
def tokenizer():
    """The tokenizer of tiny-llama."""
    import transformers

    return transformers.AutoTokenizer.from_pretrained(BASES / "tiny-llama")


def with_peft(name, base="tiny-llama", dtype=None):
    """A base model with an adapter, computed by peft."""
    import peft
    import transformers

    options = {} if dtype is None else {"dtype": dtype}
    base = transformers.AutoModelForCausalLM.from_pretrained(BASES / base, **options)
    return peft.PeftModel.from_pretrained(base, ADAPTERS / name).eval()
