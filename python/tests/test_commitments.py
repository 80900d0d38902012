"""Commitments to activations: compatible with the original, and malformed ones refused."""

import json

import pytest

import zklora
from conftest import ROOT
from zklora.polynomial_commit import commit_activations, verify_commitment

KNOWN = sorted((ROOT / "fixtures" / "activation_commitments").glob("*.commitment.json"))


@pytest.mark.parametrize("path", KNOWN, ids=lambda path: path.name.split(".")[0])
def test_commitments_of_the_original_are_accepted(path):
    values = path.with_name(path.name.replace(".commitment", ""))
    assert verify_commitment(values, path.read_text())
    assert not verify_commitment(
        values.with_name("flat-1.json" if values.name != "flat-1.json" else "flat-2.json"),
        path.read_text(),
    )


@pytest.fixture
def values(tmp_path):
    path = tmp_path / "values.json"
    path.write_text(json.dumps({"input_data": [[1, 2], [3, [4, 5.5]], 6]}))
    return path


def test_a_commitment_hides_with_a_fresh_nonce_and_opens(values):
    first, second = commit_activations(str(values)), commit_activations(values)
    assert first != second
    assert list(json.loads(first)) == ["root", "nonce"]
    assert all(text.startswith("0x") and len(text) == 66 for text in json.loads(first).values())
    assert (
        verify_commitment(str(values), first) is True and verify_commitment(values, second) is True
    )


def test_hex_digits_of_either_case_with_and_without_0x(values):
    known = json.loads(commit_activations(values))
    assert verify_commitment(
        values, json.dumps({name: text.upper() for name, text in known.items()})
    )
    assert verify_commitment(values, json.dumps({name: text[2:] for name, text in known.items()}))


def test_text_that_is_no_commitment_is_one_to_nothing(values):
    known = json.loads(commit_activations(values))
    for text in [
        "",
        "not JSON",
        "[]",
        "{}",
        json.dumps({"root": known["root"]}),
        json.dumps({**known, "root": "0xzz"}),
        json.dumps({**known, "more": 1}),
    ]:
        assert verify_commitment(values, text) is False
    twice = '{{"root": "{root}", "root": "{root}", "nonce": "{nonce}"}}'.format(**known)
    assert verify_commitment(values, twice) is False


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        '{"input_data": [NaN]}',
        '{"input_data": [1], "input_data": [2]}',
        '{"input_data": ["1"]}',
    ],
)
def test_malformed_values_are_refused_with_a_sentence(tmp_path, text):
    path = tmp_path / "values.json"
    path.write_text(text)
    with pytest.raises(zklora.FileError, match="values.json"):
        commit_activations(path)
    with pytest.raises(OSError):
        verify_commitment(path, "{}")
    with pytest.raises(zklora.FileError):
        commit_activations(tmp_path / "missing.json")
