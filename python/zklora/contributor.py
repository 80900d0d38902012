"""Describes contributors: address, options and pin."""

from dataclasses import dataclass, replace
from os import PathLike
from typing import Any, Optional, Union
from urllib.parse import urlsplit

from . import _pins
from .errors import InputError

PathOrText = Union[str, "PathLike[str]"]


@dataclass(frozen=True)
class Contributor:
    """A contributor's address, the pin, and options of the connection. Times are in seconds.

    ``expected_adapter`` is an adapter id, a manifest file or a public folder. Without it, nothing
    shows that the adapter was fixed before the session.
    """

    url: str
    expected_adapter: Any = None
    token_file: Optional[PathOrText] = None
    tls_ca: Optional[PathOrText] = None
    tls_cert: Optional[PathOrText] = None
    tls_key: Optional[PathOrText] = None
    insecure: bool = False
    timeout: float = 60.0
    patience: float = 30.0
    proof_timeout: float = 3600.0
    moved: bool = False

    @property
    def address(self):
        """Host and port."""
        try:
            parts = urlsplit(self.url)
            return parts.hostname, parts.port
        except ValueError as error:
            raise InputError(
                f"{self.url} is not a URL such as http://127.0.0.1:30000: {error}"
            ) from None

    def session_options(self):
        """The keyword arguments of ``Session``."""
        names = (
            "token_file",
            "tls_ca",
            "tls_cert",
            "tls_key",
            "insecure",
            "timeout",
            "patience",
            "proof_timeout",
            "moved",
        )
        options = {name: getattr(self, name) for name in names}
        return {"adapter_id": _pins.adapter_id(self.expected_adapter), **options}


def contributor(value):
    """Returns a ``Contributor``.

    ``value`` is one, a URL, ``(host, port)``, or an object with an attribute ``contributor``.
    """
    if isinstance(value, Contributor):
        return value
    if isinstance(value, str):
        return Contributor(value)
    own = getattr(value, "contributor", None)
    if isinstance(own, Contributor):
        return own
    try:
        host, port = value
        port = int(port)
        if not isinstance(host, str):
            raise TypeError
    except (TypeError, ValueError):
        raise InputError(
            f"{value!r} is not a contributor: pass a URL, (host, port), Contributor or "
            "LocalContributor"
        ) from None
    return Contributor(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")


def pinned(own):
    """Reads a contributor's pin now: a later change of its file has no effect."""
    return replace(own, expected_adapter=_pins.pin(own.expected_adapter))


def contributors(values, expected_adapters=None):
    """Returns several contributors with their pins, in the same order.

    Raises ``InputError`` if one already has a different pin.
    """
    known = [pinned(contributor(value)) for value in values]
    pins = _pins.as_list(expected_adapters)
    if pins is None:
        return known
    if len(pins) != len(known):
        raise InputError(
            f"{len(pins)} expected adapters for {len(known)} contributors: give one for each, in "
            "the same order"
        )
    return [_with_pin(own, _pins.pin(pin)) for own, pin in zip(known, pins)]


def _with_pin(own, pin):
    before = own.expected_adapter
    if pin is None:
        return own
    if before is not None and before.adapter_id != pin.adapter_id:
        raise InputError(
            f"{own.url}: the contributor's pin is adapter {before.adapter_id}, but "
            f"expected_adapters has {pin.adapter_id}: give one pin"
        )
    return replace(own, expected_adapter=pin)
