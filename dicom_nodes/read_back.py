"""Asks a peer for an object that it was sent: by WADO-RS, C-GET, or C-MOVE to our listener."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from pydicom import Dataset, dcmread
from pynetdicom import build_context

from dicom_nodes import web_client
from dicom_nodes.contexts import UNCOMPRESSED
from dicom_nodes.headers import file_meta_information
from dicom_nodes.requestor import Destination
from dicom_nodes.retrieval import get, identifier_of, move
from dicom_nodes.sameness import Comparison, compare
from dicom_nodes.status import SUCCESS
from service.errors import DamagedFileError, DestinationError
from service.ledger.arrivals import Arrivals
from service.outbox import open_outbox
from service.spool import open_spool

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from dicom_nodes.web_client import WebDestination
    from service.records import OutboxObject
    from service.sections import Peer
    from service.settings import Settings

_SLACK_BYTES = 1 << 20
_UNREADABLE = Comparison(differing=("the data set as a whole: it cannot be read",), reconciled=(), pixels_compared=True)


class Reader:
    """Compares what peers hold with the outbox."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._arrivals = Arrivals(engine)
        self._spool = open_spool(settings)
        self._outbox = open_outbox(settings)
        self._our_ae = settings.listener.ae_title

    def check(self, peer: Peer, to: Destination | WebDestination, entry: OutboxObject) -> Comparison:
        """Read an object back and compare it.

        Raises:
            DestinationError: it could not be had; the message says why.
            DamagedFileError: our own file of it is gone.
            StoreError: our own files cannot be read now.
        """
        with self._outbox.file(entry.key) as path:
            sent = dcmread(path)
        held = self._held(peer, to, entry)
        try:
            return compare(sent, dcmread(held))
        except Exception:  # noqa: BLE001 -- pydicom raises whatever a damaged file makes it raise
            return _UNREADABLE

    def _held(self, peer: Peer, to: Destination | WebDestination, entry: OutboxObject) -> BytesIO:
        if not isinstance(to, Destination):
            return _by_wado(to, entry)
        return self._by_move(to, entry) if peer.retrieve == "move" else _by_get(to, entry)

    def _by_move(self, to: Destination, entry: OutboxObject) -> BytesIO:
        """Let the peer send it to our listener, which keeps it in the spool and never analyses what is ours."""
        uid = entry.sop_instance_uid
        before = self._arrivals.kept(uid)
        move(to, _identifier(entry), self._our_ae)
        after = self._arrivals.kept(uid)
        # The first content is kept as it came; another one is noted each time that it comes.
        others = [key for key, seen in after.others.items() if before.others.get(key) != seen]
        key = others[0] if others else after.first
        if not key:
            raise DestinationError(f"{to.called} says that it sent the object to {self._our_ae}, and it did not arrive")
        try:
            with self._spool.file(key) as path:
                return BytesIO(path.read_bytes())
        except (OSError, DamagedFileError):
            raise DestinationError("it came back, and cannot be read from the spool") from None


def _by_get(to: Destination, entry: OutboxObject) -> BytesIO:
    syntaxes = dict.fromkeys((entry.transfer_syntax_uid, *UNCOMPRESSED))
    contexts = [build_context(entry.sop_class_uid, [name]) for name in syntaxes]
    received: list[BytesIO] = []

    def stored(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, data: bytes) -> int:
        meta = file_meta_information(
            sop_class_uid=sop_class_uid,
            sop_instance_uid=sop_instance_uid,
            transfer_syntax_uid=transfer_syntax_uid,
            source_ae=to.called,
        )
        received.append(BytesIO(meta + data))
        return SUCCESS

    get(to, _identifier(entry), contexts, stored)
    return _only(received, to.called)


def _by_wado(to: WebDestination, entry: OutboxObject) -> BytesIO:
    received: list[BytesIO] = []
    path = f"/studies/{entry.study_instance_uid}/series/{entry.series_instance_uid}/instances/{entry.sop_instance_uid}"
    web_client.retrieve(to, path, lambda _headers: _Part(received, at_most=2 * entry.size + _SLACK_BYTES))
    return _only(received, to.url)


class _Part:
    """Gathers one part of an answer; what is far longer than what was sent is not gathered to its end."""

    def __init__(self, received: list[BytesIO], *, at_most: int) -> None:
        self._received = received
        self._at_most = at_most
        self._data = BytesIO()

    def write(self, data: memoryview) -> None:
        if self._data.tell() <= self._at_most:
            self._data.write(data)

    def finish(self) -> None:
        self._data.seek(0)
        self._received.append(self._data)

    def discard(self) -> None:
        self._data.close()


def _only(received: list[BytesIO], place: str) -> BytesIO:
    if len(received) != 1:
        raise DestinationError(f"{place} returned {len(received)} objects when asked for one")
    return received[0]


def _identifier(entry: OutboxObject) -> Dataset:
    return identifier_of(
        StudyInstanceUID=entry.study_instance_uid,
        SeriesInstanceUID=entry.series_instance_uid,
        SOPInstanceUID=entry.sop_instance_uid,
    )
