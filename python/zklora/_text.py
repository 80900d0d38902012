"""Foreign text in messages: names of manifests, paths of a delivered folder."""

#: Longest foreign text that a message shows, in characters.
LONGEST = 300


def printable(text: str) -> str:
    """``text`` on one line: a character that is not printable is its escape, so a name forges no line and turns no text around."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text)


def shown(text) -> str:
    """Foreign text for a message: printable, and of bounded length."""
    text = str(text)
    return printable(text if len(text) <= LONGEST else text[:LONGEST] + "…")
