"""The native module, a thin layer over the Rust crates. Use it through `zklora`."""

from os import PathLike
from typing import Any, Callable, Optional, Union

import numpy
from numpy.typing import NDArray

__version__: str

_Path = Union[str, PathLike[str]]
_Rows = NDArray[numpy.float32]
_Progress = Optional[Callable[[str, int, int], object]]

class Module:
    """One module of an adapter, as its manifest describes it."""

    @property
    def name(self) -> str: ...
    @property
    def inputs(self) -> list[tuple[str, int]]: ...
    @property
    def reads(self) -> list[str]: ...
    @property
    def applies_to(self) -> str: ...
    @property
    def d_out(self) -> int: ...
    @property
    def rank(self) -> int: ...

class Manifest:
    """The public description of an adapter. Its digest is the adapter id."""

    @staticmethod
    def load(path: _Path, adapter_id: Optional[str] = None) -> Manifest: ...
    def save(self, path: _Path) -> None: ...
    @property
    def adapter_id(self) -> str: ...
    @property
    def modules(self) -> list[Module]: ...
    @property
    def base_model(self) -> str: ...
    @property
    def left_out(self) -> list[str]: ...
    @property
    def base_fingerprint(self) -> Optional[str]: ...
    @property
    def registered(self) -> Optional[bool]: ...

class Artifacts:
    """A contributor's artifact folder, with its private part, which Python cannot read."""

    @staticmethod
    def load(folder: _Path) -> Artifacts: ...
    @property
    def folder(self) -> PathLike[str]: ...
    @property
    def manifest(self) -> Manifest: ...
    @property
    def adapter_id(self) -> str: ...
    @property
    def modules(self) -> list[Module]: ...

class Trace:
    """The rows of a session: activations sent and deltas received.

    Both are integers with one scale per row.
    """

    @staticmethod
    def load(path: _Path, manifest: Manifest) -> Trace: ...
    @staticmethod
    def info_of(path: _Path) -> tuple[str, int, str, list[int]]: ...
    def save(self, path: _Path) -> None: ...
    @property
    def adapter_id(self) -> str: ...
    @property
    def session_id(self) -> str: ...
    @property
    def rows(self) -> dict[str, int]: ...
    def deltas(self, module: str) -> _Rows: ...

class Server:
    """Serves the deltas of an artifact folder until it is stopped or dropped."""

    def __new__(
        cls,
        artifacts: _Path,
        host: str,
        port: int,
        *,
        data: Optional[_Path] = None,
        max_rows: Union[int, str, None] = None,
        token_file: Optional[_Path] = None,
        tls_cert: Optional[_Path] = None,
        tls_key: Optional[_Path] = None,
        client_ca: Optional[_Path] = None,
        insecure: bool = False,
    ) -> Server: ...
    def stop(self) -> None: ...
    @property
    def is_running(self) -> bool: ...
    @property
    def port(self) -> int: ...
    @property
    def url(self) -> str: ...
    @property
    def manifest(self) -> Manifest: ...

class Pending:
    """Rows that were sent, and the deltas to come."""

    def result(self) -> list[_Rows]: ...

def fetch_offer(
    reached: tuple[Any, ...], out: _Path, after: Optional[_Path], sent: Optional[_Path]
) -> str: ...
def evaluate(
    units: str,
    reached: tuple[Any, ...],
    own: tuple[Any, ...],
    offer: _Path,
    out: _Path,
    asked: tuple[bool, int, bool],
    kept: tuple[list[_Path], Optional[_Path]],
    progress: _Progress,
) -> str: ...
def settle(
    what: tuple[Optional[_Path], Optional[_Path]],
    own: tuple[Any, ...],
    delivered: tuple[Optional[_Path], Optional[_Path], Optional[_Path]],
    signer: Optional[str],
    progress: _Progress,
) -> str: ...
def evaluation_report(folder: _Path) -> str: ...

class Session:
    """Sends rows to a contributor, receives deltas, records both, and verifies the proof."""

    def __new__(
        cls,
        url: str,
        folder: _Path,
        *,
        adapter_id: Optional[str] = None,
        token_file: Optional[_Path] = None,
        tls_ca: Optional[_Path] = None,
        tls_cert: Optional[_Path] = None,
        tls_key: Optional[_Path] = None,
        insecure: bool = False,
        timeout: float = 60.0,
        patience: float = 30.0,
        proof_timeout: float = 3600.0,
        moved: bool = False,
    ) -> Session: ...
    def submit(self, calls: list[tuple[str, list[_Rows]]]) -> Pending: ...
    def finish(self, progress: _Progress = None) -> dict[str, object]: ...
    def trace(self) -> Trace: ...
    @property
    def rows(self) -> int: ...
    def statistics(self) -> dict[str, float]: ...
    def close(self) -> None: ...
    @property
    def manifest(self) -> Manifest: ...
    @property
    def session_id(self) -> str: ...
    @property
    def url(self) -> str: ...
    @property
    def folder(self) -> PathLike[str]: ...

def check_process() -> None: ...
def drain_log() -> None: ...
def not_inherited() -> list[int]: ...
def log_info(path: _Path) -> tuple[Optional[str], int, Optional[str], list[int]]: ...
def shown(text: str, most: Optional[int] = None) -> str: ...
def base_fingerprint(folder: _Path) -> str: ...
def commit_activations(path: _Path) -> str: ...
def verify_commitment(path: _Path, commitment: str) -> bool: ...
def export_adapter(
    adapter: _Path,
    out: _Path,
    base: Optional[_Path] = None,
    modules: list[str] = [],
    progress: _Progress = None,
    base_name: Optional[str] = None,
    rename: list[tuple[str, str]] = [],
    lora_only: bool = False,
) -> tuple[list[str], list[str]]: ...
def compile(
    paths: list[_Path],
    out: _Path,
    seed_file: Optional[_Path] = None,
    calibrate: Optional[_Path] = None,
    progress: _Progress = None,
    registered: bool = False,
    k: Optional[int] = None,
) -> Artifacts: ...
def record(
    artifacts: Artifacts,
    activations: Union[dict[str, list[_Rows]], _Path],
    session_id: Optional[str] = None,
    max_rows: Optional[int] = None,
    out: Optional[_Path] = None,
) -> Trace: ...
def prove(artifacts: Artifacts, trace: Trace, progress: _Progress = None) -> bytes: ...
def verify(
    manifest: Manifest,
    trace: Trace,
    proof: bytes,
    session_id: Optional[str] = None,
    activations: Union[dict[str, list[_Rows]], _Path, None] = None,
) -> dict[str, int]: ...
def read_proof(path: _Path) -> bytes: ...
def write_proof(path: _Path, proof: bytes) -> None: ...
def check_proof_format(manifest: Manifest, proof: bytes) -> None: ...
def audit(
    manifest: Manifest, delivered: _Path, opening: _Path, base: Optional[_Path] = None
) -> tuple[list[tuple[str, str]], bool]: ...
