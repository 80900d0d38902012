"""Reads a user's own record: which sessions there were, and which of them are proven."""

import os
from dataclasses import dataclass
from typing import Any, List, Optional

from . import _file_listing, _native
from ._foreign_text import shown
from ._native import Trace
from .errors import FileError, InputError, VerificationError

#: File names in a session's folder. The log exists from before the first row is sent until the
#: proof is verified.
LOG, TRACE = "rows.log", "trace.safetensors"


@dataclass(eq=False)
class _Rows:
    """A trace of the record."""

    #: The trace, or its path.
    source: Any
    adapter_id: str
    #: Rows of all modules.
    count: int
    session_id: str
    #: Number of rows of each module that has rows, sorted.
    per_module: List[int]
    proven: bool = False

    @property
    def folder(self) -> Optional[str]:
        """Folder of the trace; ``None`` for a trace in memory."""
        return (
            None
            if isinstance(self.source, Trace)
            else os.path.dirname(os.path.abspath(self.source))
        )

    def load(self, manifest):
        """Returns the trace, checked against this adapter's manifest."""
        return self.source if isinstance(self.source, Trace) else Trace.load(self.source, manifest)


class Record:
    """A record: a session's folder, a trace file, a ``Trace``, or several of them.

    Raises ``VerificationError`` if a session has rows but no trace, or a trace that does not match
    its log: it cannot be proven. Raises ``FileError`` or ``InputError`` if there is no record.
    """

    def __init__(self, transcript):
        self._traces, self._silent, self._seen = [], set(), set()
        self._add(transcript)
        if not self._traces and not self._silent:
            raise InputError(
                "the record is empty: pass the folder of a session, a trace file or a Trace as "
                "transcript"
            )

    def _add(self, transcript):
        if isinstance(transcript, Trace):
            rows = sorted(transcript.rows.values())
            self._traces.append(
                _Rows(transcript, transcript.adapter_id, sum(rows), transcript.session_id, rows)
            )
        elif not isinstance(transcript, (str, bytes, os.PathLike)):
            for one in transcript:
                self._add(one)
        elif os.path.isdir(transcript):
            self._add_folder(os.fsdecode(transcript))
        elif os.path.exists(transcript):
            self._add_file(os.fsdecode(transcript))
        else:
            raise FileError(f"{shown(transcript)}: no such trace or folder of a session")

    def _add_folder(self, folder):
        links = []
        found = [
            path
            for path in _file_listing.files_below(folder, links)
            if os.path.basename(path) in (LOG, TRACE)
        ]
        if links:
            raise FileError(
                f"{shown(links[0])}: a link to a folder is not followed: name the folder that it "
                "leads to, or remove the link"
            )
        if not found:
            raise FileError(
                f"{shown(folder)}: neither {TRACE} nor {LOG} here: this is not the folder of a "
                "session"
            )
        for path in found:
            if os.path.basename(path) == TRACE:
                self._add_file(path)
        for path in found:
            # A log beside a trace was checked with the trace.
            if os.path.basename(path) == LOG and not os.path.lexists(
                os.path.join(os.path.dirname(path), TRACE)
            ):
                self._add_log(path)

    def _add_file(self, path):
        """Adds a trace, and checks it against the log beside it.

        While the log exists, the session has not ended with a verified proof.
        """
        real = os.path.realpath(path)
        if real in self._seen:
            return
        self._seen.add(real)
        trace = _Rows(path, *Trace.info_of(path))
        self._traces.append(trace)
        # Beside the given path, and beside the file that a link leads to.
        for log in dict.fromkeys(
            os.path.join(os.path.dirname(at), LOG) for at in (os.path.abspath(path), real)
        ):
            if os.path.lexists(log):
                self._add_log(log, trace)

    def _add_log(self, path, own=None):
        """Checks a session without a verified proof against its log.

        ``own`` is the trace beside the log.
        """
        adapter_id, sent, session_id, per_module = _native.log_info(path)
        if sent == 0 and own is None:
            # The log is written before a row is sent, so none was sent.
            self._silent.add(adapter_id)
        elif own is None:
            raise VerificationError(
                f"{shown(path)}: {sent} rows were sent in this session and it has no {TRACE}, so "
                "they are not proven: end the session first"
            )
        elif sent and (own.session_id, own.adapter_id) != (session_id, adapter_id):
            raise VerificationError(
                f"{shown(path)}: {sent} rows were sent in this session and the {TRACE} beside it "
                "is another session's, so they are not proven: end the session first"
            )
        elif sent and own.per_module != per_module:
            raise VerificationError(
                f"{shown(path)}: {sent} rows were sent in this session and its {TRACE} has "
                f"{own.count}, or others: end the session again"
            )
        elif not sent and own.session_id != session_id:
            # Another session began in this folder, and nothing was sent in it.
            self._silent.add(adapter_id)
        elif own.count != sent:
            raise VerificationError(
                f"{shown(path)}: no rows were sent in this session, but its {TRACE} has "
                f"{own.count}: it does not match the log"
            )

    def verify(self, path, proof, manifest) -> int:
        """Verifies a proof against an unproven trace; returns the trace's number of rows.

        Raises ``VerificationError`` if the proof is about none of them.
        """
        failure = VerificationError(
            f"{shown(path)}: the record has no unproven trace of adapter {manifest.adapter_id}"
        )
        beside = os.path.dirname(os.path.abspath(path))
        # The trace beside the proof first.
        for trace in sorted(self._traces, key=lambda trace: trace.folder != beside):
            if trace.proven or trace.adapter_id != manifest.adapter_id:
                continue
            try:
                rows = _native.verify(manifest, trace.load(manifest), proof)
            except VerificationError as error:
                failure = VerificationError(f"{shown(path)}: {error}")
                continue
            trace.proven = True
            return sum(rows.values())
        raise failure

    def require_proofs(self, proof_dir):
        """Raises ``VerificationError`` if a trace with rows has no proof."""
        unproven = [trace for trace in self._traces if trace.count and not trace.proven]
        if unproven:
            example = (
                unproven[0].source
                if isinstance(unproven[0].source, Trace)
                else shown(unproven[0].source)
            )
            raise VerificationError(
                f"{len(unproven)} trace(s) of the record have no proof in {shown(proof_dir)}, such "
                f"as {example}"
            )

    def sent_nothing_to(self, adapter_id) -> bool:
        """Whether the record has sessions with this adapter, all of them without rows."""
        known = [trace.count for trace in self._traces if trace.adapter_id == adapter_id]
        return (adapter_id in self._silent or bool(known)) and not any(known)
