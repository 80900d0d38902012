"""Pins: what a user knows of an adapter before the session. This is the only place that decides what a pin is."""

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

    #: 64 hex digits, in small letters.
    adapter_id: str
    #: The manifest, if that was the pin.
    manifest: Optional[Manifest] = None

    def check(self, manifest: Manifest) -> Manifest:
        """``manifest``, if it is the pinned adapter's. Raises ``VerificationError`` if it is not."""
        if manifest.adapter_id != self.adapter_id:
            raise VerificationError(
                f"this manifest has adapter id {manifest.adapter_id}, but {self.adapter_id} was pinned"
            )
        return manifest


def pin(value) -> Optional[Pin]:
    """The pin that ``value`` stands for; none for none.

    64 hex digits are an adapter id, always, whatever lies in the working folder under this name. Anything else is a ``Manifest``, or the
    path of a manifest file or public folder, which is read here and only once.
    """
    if value is None or isinstance(value, Pin):
        return value
    if isinstance(value, Manifest):
        return Pin(value.adapter_id, value)
    try:
        text = os.fsdecode(value)
    except TypeError:
        raise InputError(
            f"{type(value).__name__} is no pin: expected an adapter id of 64 hex digits, a manifest, a manifest file or a public folder"
        ) from None
    if re.fullmatch(r"[0-9a-fA-F]{64}", text.strip()):
        return Pin(text.strip().lower())
    if not os.path.exists(text):
        raise InputError(
            f"`{shown(text)}` is no adapter: expected an adapter id of 64 hex digits, a manifest file or a public folder"
        )
    manifest = Manifest.load(text)
    return Pin(manifest.adapter_id, manifest)


def adapter_id(value) -> Optional[str]:
    """The adapter id of a pin, in small letters; none for none."""
    known = pin(value)
    return None if known is None else known.adapter_id


def as_list(pins):
    """One pin or several, as a list; none is none."""
    if pins is None:
        return None
    if isinstance(pins, (str, bytes, os.PathLike, Manifest, Pin)):
        return [pins]
    return list(pins)
