"""Runs a contributor in this process, for tests and experiments.

It is the real server, on a free port of this machine.
"""

import threading

from . import _temporary_folder
from .contributor import Contributor
from .lora_contributor_mpi import AServerTCP, LoRAServer


class LocalContributor:
    """Exports, compiles and serves an adapter, as a context manager::

        @pytest.fixture
        def contributor():
            with zklora.LocalContributor("adapter", base_model="base") as contributor:
                yield contributor

    The object can be passed as a contributor with its pin: ``zklora.remote_lora(model,
    [contributor])``. Its files are in ``out_dir``, or in a temporary folder, which is removed at
    the end of the context or of the process. If the process was killed, the next
    ``LocalContributor`` removes it. ``options`` are those of ``AServerTCP`` (``max_rows`` and
    others).
    """

    def __init__(self, adapter, base_model="", out_dir=None, **options):
        self._temporary = None if out_dir is not None else _temporary_folder.TemporaryFolder()
        try:
            self.server = LoRAServer(
                base_model, adapter, out_dir if self._temporary is None else self._temporary.path
            )
            self._stop = threading.Event()
            self._thread = AServerTCP("127.0.0.1", 0, self.server, self._stop, **options)
            self._thread.start()
        except BaseException:
            self._remove()
            raise

    @property
    def adapter_id(self) -> str:
        """The adapter id."""
        return self.server.adapter_id

    @property
    def out_dir(self) -> str:
        """Folder of its files."""
        return self.server.out_dir

    @property
    def host(self) -> str:
        """The address that it listens on."""
        return self._thread.host

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._thread.port

    @property
    def url(self) -> str:
        """The URL at which users reach it."""
        return self._thread.url

    @property
    def contributor(self) -> Contributor:
        """Its address, with its adapter id as the pin."""
        return Contributor(self.url, expected_adapter=self.adapter_id)

    def close(self):
        """Stops serving, and removes temporary files."""
        self._stop.set()
        self._thread.join()
        self._remove()

    def _remove(self):
        if self._temporary is not None:
            self._temporary.remove()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        self.close()
