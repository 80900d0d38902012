"""Connects to a contributor: sends rows, receives deltas, and ends with a verified proof.

This module does not depend on torch.
"""

import logging
import os
import tempfile
import threading
from contextlib import contextmanager

from . import _arrays, _native
from ._native import Session
from .contributor import Contributor, contributor, contributors, pinned
from .errors import InputError, NetworkError, VerificationError, ZkloraError
from .pipeline import warn_unpinned

logger = logging.getLogger("zklora")


class Request:
    """Rows that were sent to a contributor, whose deltas are still to come."""

    def __init__(self, comm, pending):
        self._comm = comm
        self._pending = pending

    def result(self):
        """Waits for the deltas: ``[rows, d_out]`` for each call."""
        with self._comm.record_named():
            return self._pending.result()


class BaseModelToLoRAComm:
    """The user's end of a session with the contributor at ``host_a:port_a``, or ``contributor``.

    Nothing is sent before ``init_request``. The user's record of the session is kept in
    ``session_dir`` [default: a new temporary folder], which is not removed. Several threads may use
    one object.
    """

    def __init__(self, host_a="127.0.0.1", port_a=30000, *, contributor=None, session_dir=None):
        self.host_a = host_a
        self.port_a = port_a
        self._contributor = contributor
        self._session_dir = session_dir
        #: The argument ``session_dir`` with which another object resumes from the record, if it is
        #: not the folder itself.
        self._resume_dir = None
        self._session = None
        self._closed = False
        self._opening = threading.Lock()
        #: The report that ``end_inference`` returned.
        self.report = None

    @property
    def contributor(self) -> Contributor:
        """The contributor's address and options."""
        return contributor(self._contributor or (self.host_a, self.port_a))

    @property
    def session(self) -> Session:
        """The session, opened by the first access."""
        _native.check_process()
        with self._opening:
            if self._session is None:
                self._open()
            return self._session

    def _open(self):
        own = self._contributor = pinned(self.contributor)
        if own.expected_adapter is None:
            logger.warning("%s: the adapter is not pinned", own.url)
        if self._session_dir is None:
            self._session_dir = tempfile.mkdtemp(prefix="zklora-session-")
        session = Session(own.url, self._session_dir, **own.session_options())
        self._modules = {module.name: module for module in session.manifest.modules}
        logger.info(
            "%s: session %s, recorded in %s", own.url, session.session_id, self._session_dir
        )
        self._session = session

    @property
    def session_dir(self):
        """Folder of the user's record.

        It contains ``public/``, and after the end ``trace.safetensors`` and ``session.pf``.
        """
        return self._session_dir

    @property
    def modules(self) -> dict:
        """The modules that the contributor serves, as ``Module`` by name."""
        self.session
        return self._modules

    def init_request(self) -> list:
        """Connects, checks the manifest against the pin, and returns the names of the modules.

        A closed session is opened again, and resumes from its record.
        """
        # Before taking the lock: in a forked child, the thread that holds it does not exist.
        _native.check_process()
        with self._opening:
            if self._closed:
                self._session, self._closed = None, False
        with self.record_named():
            return list(self.modules)

    @contextmanager
    def record_named(self):
        """Adds to a ``NetworkError`` where the record is and how to resume, if there is one."""
        try:
            yield
        except NetworkError as error:
            if self._session_dir is None or not os.path.exists(
                os.path.join(self._session_dir, "rows.log")
            ):
                raise
            folder = os.fspath(self._resume_dir or self._session_dir)
            raise NetworkError(
                f"{error}; your record of the session is in {os.fspath(self._session_dir)}: to "
                f"resume, call again, or pass session_dir={folder!r} next time"
            ) from None

    def submit(self, calls) -> Request:
        """Sends rows of several modules in one message.

        ``calls`` are pairs of a module's name and its arrays, one for each input.
        """
        with self.record_named():
            return Request(self, self.session.submit(calls))

    def lora_forward(self, sub_name, arr):
        """Returns the deltas of a module for rows ``[..., d_in]``: float32 ``[..., d_out]``."""
        return self._forward(sub_name, [arr])

    def lora_forward_with_base(self, sub_name, arr, base_arr):
        """As ``lora_forward``, for modules that also read the base layer's output (DoRA).

        For other modules, ``base_arr`` is not sent.
        """
        reads = self._module(sub_name).reads
        return self._forward(sub_name, [arr if source == "layer" else base_arr for source in reads])

    def _module(self, sub_name):
        module = self.modules.get(sub_name)
        if module is None:
            raise InputError(
                f"{self.contributor.url} does not serve a module `{sub_name}`; it serves "
                f"{list(self.modules)[:3]} and so on"
            )
        return module

    def _forward(self, sub_name, arrays):
        module = self._module(sub_name)
        if len(arrays) != len(module.inputs):
            raise InputError(
                f"module `{sub_name}` reads {' and '.join(module.reads)}: call "
                "lora_forward_with_base(sub_name, x, base)"
            )
        rows = [
            _arrays.to_rows(array, dim, f"module `{sub_name}`")
            for array, (_, dim) in zip(arrays, module.inputs)
        ]
        (delta,) = self.submit([(sub_name, [array for array, _ in rows])]).result()
        return delta.reshape(*rows[0][1], module.d_out)

    def end_inference(self, progress=None) -> dict:
        """Ends the session: requests the proof of all rows and verifies it.

        It is verified against the user's record and the pin. Returns a report. Raises
        ``VerificationError`` if the answer is no, and ``NetworkError`` if there is no proof: then
        the session stays open, and this method can be called again.
        """
        if self.report is not None:
            return self.report
        with self.record_named():
            session = self.session
        own, adapter_id = self.contributor, session.manifest.adapter_id
        about = {
            "adapter_id": adapter_id,
            "left_out": session.manifest.left_out,
            "pinned": own.expected_adapter is not None,
            "url": own.url,
        }
        if not self._sent(session):
            return self._nothing_sent(session, about)
        try:
            with self.record_named():
                finished = session.finish(progress)
        except ZkloraError:
            # Unanswered rows were requested again, and the contributor may have refused them,
            # without counting them.
            if self._sent(session):
                raise
            return self._nothing_sent(session, about)
        self.report = {
            **about,
            **finished,
            "rows": dict(finished["rows"]),
            "verified": True,
            "proof": os.path.join(self._session_dir, "session.pf"),
            "message": "every delta of your record came from this adapter",
        }
        if not about["pinned"]:
            # Last, because the caller's filters may turn a warning into an exception.
            warn_unpinned(adapter_id)
        return self.report

    def _sent(self, session):
        """Whether rows were sent. Unanswered rows are only in the session's log."""
        return (
            bool(session.rows)
            or _native.log_info(os.path.join(self._session_dir, "rows.log"))[1] > 0
        )

    def _nothing_sent(self, session, about):
        session.close()
        self.report = {
            **about,
            "verified": False,
            "message": "no rows were sent: there is nothing to prove",
        }
        return self.report

    def close(self):
        """Closes the session without a proof.

        Its record stays: ``init_request``, or a session in the same folder, resumes from it.
        """
        if self._session is not None:
            self._session.close()
            self._closed = True

    def __repr__(self):
        return f"BaseModelToLoRAComm({self.contributor.url})"


def sessions(values, expected_adapters, folder):
    """Returns a connection to each contributor, with its pin and a record below ``folder``."""
    known = contributors(values, expected_adapters)
    each = ((own, os.path.join(folder, f"contributor-{at + 1}")) for at, own in enumerate(known))
    comms = [
        BaseModelToLoRAComm(*own.address, contributor=own, session_dir=record)
        for own, record in each
    ]
    for comm in comms:
        comm._resume_dir = folder
    return comms


def end_all(comms, progress=None):
    """Ends the sessions of all contributors, and returns their reports.

    After trying all, raises the first ``VerificationError``, else the first other error.
    """
    reports, failures = [], []
    for comm in comms:
        try:
            reports.append(
                comm.end_inference() if progress is None else comm.end_inference(progress)
            )
        except ZkloraError as error:
            failures.append(error)
    if failures:
        raise min(failures, key=lambda error: not isinstance(error, VerificationError))
    return reports
