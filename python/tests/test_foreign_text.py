"""All messages escape foreign text as the command line does."""

import os
import pickle

import pytest

import zklora
from hostile import HostileContributor
from zklora import _foreign_text

#: Python takes some of these for printable; they are drawn as nothing.
HIDDEN = "\n\t\x1b\x7f\u034f\u115f\u17b4\u180b\u200b\u202e\u2028\u3164\ufe0f\uffa0\U000e0101\ue000"


@pytest.mark.parametrize("letter", HIDDEN)
@pytest.mark.parametrize(
    "show",
    [
        _foreign_text.shown,
        _foreign_text.printable,
        lambda text: str(zklora.InputError(text)),
        lambda text: repr(zklora.FileError(text)),
    ],
)
def test_what_hides_is_an_escape(letter, show):
    once = show(f"a{letter}b")
    assert letter not in once and "\\" in once
    # Escaping is idempotent, so text that is escaped several times stays readable.
    assert _foreign_text.printable(once) == once


def test_other_text_stays_and_is_cut():
    assert _foreign_text.shown("häß日本\\n é") == "häß日本\\n é"
    assert _foreign_text.shown("x" * 300) == "x" * 300 and _foreign_text.shown(
        "ü" * 301
    ) == "ü" * 300 + "…" == _foreign_text.shown("ü" * 10**6)
    # Bytes of a path that are not UTF-8.
    assert _foreign_text.shown(os.fsdecode(b"a\xffb")) == "a\\udcffb"
    error = pickle.loads(pickle.dumps(zklora.InputError("a\nb")))
    assert str(error) == "a\\nb" and error.args == ("a\nb",)


def test_a_module_with_a_hostile_name_is_shown_on_one_line(tmp_path):
    hostile = HostileContributor(tmp_path, ["first\ufe0f\u3164\u202eVerdict ACCEPTED"])
    try:
        (module,) = hostile.artifacts.modules
        assert repr(module).startswith(
            "Module('first\\u{fe0f}\\u{3164}\\u{202e}Verdict ACCEPTED', "
        )
    finally:
        hostile.close()
