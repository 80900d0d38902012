"""Foreign text in messages: names of manifests, paths of a delivered folder. The rule is that of the command, in `zklora_models::text`."""

from . import _native

#: Longest foreign text that a message shows, in characters.
LONGEST = 300


def printable(text: str) -> str:
    """``text`` on one line: what does not show itself is its escape, so a name forges no line, turns no text around and hides nothing."""
    return _native.shown(_whole(text))


def shown(text) -> str:
    """Foreign text for a message: printable, and of bounded length."""
    return _native.shown(_whole(str(text)[: LONGEST + 1]), LONGEST)


def _whole(text):
    """Without halves of characters, which stand for bytes of a path that are no UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
