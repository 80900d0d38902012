"""Runs the code blocks of docs/python.md in order."""

import re

import pytest

from conftest import ROOT

pytestmark = pytest.mark.torch


def test_the_tutorial_runs(tmp_path, monkeypatch):
    (tmp_path / "fixtures").symlink_to(ROOT / "fixtures")
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "python.md").read_text()
    blocks = list(re.finditer(r"^```python\n(.*?)^```$", text, re.S | re.M))
    assert len(blocks) > 8
    names = {}
    for block in blocks:
        line = text[: block.start()].count("\n") + 1
        exec(compile("\n" * line + block[1], "docs/python.md", "exec"), names)
    assert names["base"] != names["adapted"] and names["count"] == 1
