"""Escapes foreign text for messages: names in manifests, paths in a delivered folder.

The command line escapes by the same function, in `zklora_files::text`.
"""

from . import _native

#: Limit for the length of foreign text in a message, in characters.
LONGEST = 300


def printable(text: str) -> str:
    """Returns ``text`` on one line, with escapes for invisible characters.

    So a name cannot forge a line, reverse the direction of text, or hide anything.
    """
    return _native.shown(_whole(text))


def shown(text) -> str:
    """Returns foreign text for a message: printable, and of bounded length."""
    return _native.shown(_whole(str(text)[: LONGEST + 1]), LONGEST)


def _whole(text):
    """Escapes lone surrogates, which stand for bytes of a path that are not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
