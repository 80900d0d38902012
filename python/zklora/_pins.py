"""Parses pins: what a user knows of an adapter before the session.

No other module decides what a pin is.
"""

import os
import re
from dataclasses import dataclass
from typing import Optional

from ._foreign_text import shown
from ._native import Manifest
from .errors import InputError, VerificationError


@dataclass(frozen=True)
class Pin:
    """A pinned adapter."""

    #: 64 hex digits, in lower case.
    adapter_id: str
    #: The manifest, if the pin was one.
    manifest: Optional[Manifest] = None

    def check(self, manifest: Manifest) -> Manifest:
        """Returns ``manifest`` if it is the pinned adapter's, else raises ``VerificationError``."""
        if manifest.adapter_id != self.adapter_id:
            raise VerificationError(
                f"this manifest has adapter id {manifest.adapter_id}, but {self.adapter_id} was "
                "pinned"
            )
        return manifest


def pin(value) -> Optional[Pin]:
    """Parses a pin; ``None`` stands for no pin.

    64 hex digits are always an adapter id, even if a file in the working folder has this name.
    Anything else is a ``Manifest``, or the path of a manifest file or public folder, which is read
    here and only once.
    """
    if value is None or isinstance(value, Pin):
        return value
    if isinstance(value, Manifest):
        return Pin(value.adapter_id, value)
    try:
        text = os.fsdecode(value)
    except TypeError:
        raise InputError(
            f"{type(value).__name__} is not a pin: expected an adapter id of 64 hex digits, a "
            "manifest, a manifest file or a public folder"
        ) from None
    if re.fullmatch(r"[0-9a-fA-F]{64}", text.strip()):
        return Pin(text.strip().lower())
    if not os.path.exists(text):
        raise InputError(
            f"`{shown(text)}` is not an adapter: expected an adapter id of 64 hex digits, a "
            "manifest file or a public folder"
        )
    manifest = Manifest.load(text)
    return Pin(manifest.adapter_id, manifest)


def adapter_id(value) -> Optional[str]:
    """Returns the adapter id of a pin, in lower case; ``None`` for no pin."""
    known = pin(value)
    return None if known is None else known.adapter_id


def as_list(pins):
    """Returns one or several pins as a list; ``None`` stays ``None``."""
    if pins is None:
        return None
    if isinstance(pins, (str, bytes, os.PathLike, Manifest, Pin)):
        return [pins]
    return list(pins)
