"""Pins: what a user knows of an adapter before the session."""

import os
import re

from ._native import Manifest
from .errors import InputError


def adapter_id(pin):
    """The adapter id of a pin: 64 hex digits, a manifest, or the path of a manifest file or public folder."""
    if pin is None:
        return None
    if isinstance(pin, Manifest):
        return pin.adapter_id
    text = os.fspath(pin)
    if re.fullmatch(r"[0-9a-fA-F]{64}", text):
        return text.lower()
    if not os.path.exists(text):
        raise InputError(f"`{text}` is no adapter: expected an adapter id of 64 hex digits, a manifest file or a public folder")
    return Manifest.load(text).adapter_id


def as_list(pins):
    """One pin or several, as a list; none is none."""
    if pins is None:
        return None
    if isinstance(pins, (str, os.PathLike, Manifest)):
        return [pins]
    return list(pins)
