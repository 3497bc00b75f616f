"""From the first byte of a data set to the ledger's row: after it, and only then, the peer hears success."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dicom_nodes.headers import file_meta_information, is_uid, read_header
from dicom_nodes.requests import Refused
from dicom_nodes.status import SUCCESS, Answer, MismatchError, answer_for
from dicom_nodes.witness import Witness
from service.errors import InvalidInstanceError, PellucidError
from service.ledger.arrivals import Arrival, Outcome
from service.records import Instance
from service.together import Together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dicom_nodes.headers import Header
    from dicom_nodes.requests import Reception, StoreCommand
    from service.ledger.arrivals import Arrivals
    from service.spool import Incoming, Spool

log = logging.getLogger(__name__)

OPEN_FOR_S = 30.0
"""How long an association counts as open after its listener last said so."""


class Store:
    """Makes instances durable and tells the intake."""

    def __init__(
        self,
        *,
        spool: Spool,
        arrivals: Arrivals,
        stored: Callable[[], None],
        clock: Callable[[], float] = time.time,
        witness: Witness | None = None,
    ) -> None:
        self.witness = witness or Witness()
        self._spool = spool
        self._arrivals = arrivals
        self._recorded = Together(arrivals.record_all)
        self._stored = stored
        self._clock = clock
        self._lock = threading.Lock()
        self._carrying: set[str] = set()

    def begin(self, command: StoreCommand) -> Reception:
        """Begin to receive an instance; a refusal is a reception that drops everything and says why."""
        try:
            _check_uids(command)
            return _Arriving(self, command, self._spool.receive())
        except (PellucidError, OSError) as error:
            log.warning("an instance was refused before its data set: %s", _logged(error))
            answer = answer_for(error)
            self.witness.refused(answer.status)
            return Refused(answer)

    def keep(self, command: StoreCommand, incoming: Incoming, header: Header) -> Outcome:
        """Put a complete instance under its final name and into the ledger."""
        key = self._spool.keep(
            incoming,
            study_instance_uid=header.study_instance_uid,
            sop_instance_uid=header.sop_instance_uid,
        )
        with self._lock:
            self._carrying.add(command.peer.association)
        # A repeated instance has the same content, so the same key: its file replaced an equal one.
        arrival = Arrival(
            instance=self._instance(command, incoming, header, key),
            association=command.peer.association,
            association_expires_at=self._clock() + OPEN_FOR_S,
        )
        # A file whose row is refused stays: another listener may have the same one, and its row is on the way. It is
        # used when the instance comes again, or set aside.
        outcome = self._recorded.do(arrival)
        self._stored()
        self.witness.arrived(command.peer.association, arrival.instance, outcome)
        return outcome

    def set_orphans_aside(self) -> None:
        """Look once for files that the ledger does not know."""
        moved = self._spool.set_orphans_aside(self._arrivals.recorded_keys)
        if moved:
            log.warning("%d instances without a row in the ledger were moved to the spool's folder orphans", moved)

    def carrying(self) -> list[str]:
        """Names of the associations that stored something and are not closed."""
        with self._lock:
            return list(self._carrying)

    def close(self, association: str) -> None:
        """Note that an association ended; one that stored nothing was never written down."""
        with self._lock:
            carried = association in self._carrying
            self._carrying.discard(association)
        self.witness.ended(association)
        if carried:
            self._arrivals.close_association(association)
            self._stored()

    def renew(self) -> None:
        """Note that associations are still open."""
        self._arrivals.keep_open(self.carrying(), expires_at=self._clock() + OPEN_FOR_S)

    def _instance(self, command: StoreCommand, incoming: Incoming, header: Header, key: str) -> Instance:
        return Instance(
            sop_instance_uid=header.sop_instance_uid,
            sop_class_uid=header.sop_class_uid,
            study_instance_uid=header.study_instance_uid,
            series_instance_uid=header.series_instance_uid,
            transfer_syntax_uid=command.transfer_syntax_uid,
            modality=header.modality,
            sha256=incoming.sha256,
            size=incoming.size,
            key=key,
            calling_ae=command.peer.calling_ae,
            called_ae=command.peer.called_ae,
            address=command.peer.address,
            received_at=datetime.fromtimestamp(self._clock(), UTC),
            ours=header.ours,
        )


class _Arriving:
    """An instance on its way into the spool. A failure is kept until the data set has ended."""

    def __init__(self, store: Store, command: StoreCommand, incoming: Incoming) -> None:
        self._store = store
        self._command = command
        self._incoming = incoming
        self._failure: Exception | None = None
        meta = file_meta_information(
            sop_class_uid=command.sop_class_uid,
            sop_instance_uid=command.sop_instance_uid,
            transfer_syntax_uid=command.transfer_syntax_uid,
            source_ae=command.peer.calling_ae,
        )
        self._offset = len(meta)
        self._try(lambda: incoming.write_meta(meta))

    def write(self, data: memoryview) -> None:
        """Append a piece; after a failure the rest is drained, so that the peer can hear of it."""
        if self._failure is None:
            self._try(lambda: self._incoming.write(data))

    def finish(self) -> Answer:
        """Check, keep and record."""
        if self._failure is None:
            self._try(self._keep)
        if self._failure is not None:
            log.warning("an instance was refused: %s", _logged(self._failure))
            answer = answer_for(self._failure)
            self._store.witness.refused(answer.status)
            return answer
        return Answer(status=SUCCESS)

    def discard(self) -> None:
        """Remove what arrived."""
        self._incoming.discard()

    def _keep(self) -> None:
        header = read_header(
            self._incoming.path,
            offset=self._offset,
            transfer_syntax_uid=self._command.transfer_syntax_uid,
        )
        if header.sop_class_uid != self._command.sop_class_uid:
            raise MismatchError("the data set is of another SOP class than the request")
        if header.sop_instance_uid != self._command.sop_instance_uid:
            raise InvalidInstanceError("the data set has another SOP Instance UID than the request")
        if self._command.study_instance_uid not in ("", header.study_instance_uid):
            raise InvalidInstanceError("the data set is of another study than the request")
        if self._store.keep(self._command, self._incoming, header) is Outcome.SET_ASIDE:
            log.warning("an instance was set aside: its SOP Instance UID is known with other content")

    def _try(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:  # noqa: BLE001 -- disk, ledger or data: each becomes a status
            self._failure = error
            self._incoming.discard()


def _check_uids(command: StoreCommand) -> None:
    for name, value in (("Class", command.sop_class_uid), ("Instance", command.sop_instance_uid)):
        if not is_uid(value):
            raise InvalidInstanceError(f"Affected SOP {name} UID is {'malformed' if value else 'missing'}")


def _logged(error: Exception) -> str:
    """Our own texts name no patient; others' may."""
    return str(error) if isinstance(error, PellucidError) else type(error).__name__


@contextmanager
def kept_open(store: Store) -> Iterator[None]:
    """Renew the associations of a store meanwhile; for who has no listener that does."""
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(OPEN_FOR_S / 6):
            try:
                store.renew()
            except Exception as error:  # noqa: BLE001 -- the ledger may be away for a while
                log.warning("open associations could not be renewed: %s", type(error).__name__)

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
