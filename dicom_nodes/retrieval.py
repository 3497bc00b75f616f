"""Gets studies from a peer: C-FIND with C-MOVE or C-GET (PS3.4 annex C), or QIDO-RS with WADO-RS."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydicom import Dataset
from pynetdicom import ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, build_context, build_role, evt
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from dicom_nodes import web_client
from dicom_nodes.contexts import MAXIMUM_CONTEXTS, UNCOMPRESSED
from dicom_nodes.part10_stream import Part10Stream
from dicom_nodes.query import find
from dicom_nodes.requestor import Destination, associated
from dicom_nodes.requests import Peer, StoreCommand
from dicom_nodes.status import SUCCESS, Answer, describe
from service.errors import DestinationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pynetdicom.presentation import PresentationContext

    from dicom_nodes.multipart import PartSink
    from dicom_nodes.part10_stream import Meta
    from dicom_nodes.reception import Store
    from dicom_nodes.requests import Reception
    from dicom_nodes.web_client import WebDestination
    from service.ledger.arrivals import Arrivals

_GET = str(StudyRootQueryRetrieveInformationModelGet)
_MOVE = str(StudyRootQueryRetrieveInformationModelMove)
_PENDING = frozenset({0xFF00, 0xFF01})
_POLL_S = 0.1
_TAGS = {"study": "0020000D", "series": "0020000E", "instance": "00080018", "class": "00080016", "date": "00080020"}
_PATIENT, _MODALITIES = "00100020", "00080061"


@dataclass(frozen=True, kw_only=True)
class Listed:
    """An instance that a peer says a study has."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """An earlier study of the same patient."""

    study_instance_uid: str
    date: str


class Archive:
    """A peer to get studies from, whatever it speaks."""

    def __init__(self, to: Destination | WebDestination, *, move: bool) -> None:
        """Take the peer; `move` asks it by C-MOVE rather than C-GET."""
        self._to = to
        self._move = move

    def instances(self, study: str) -> list[Listed]:
        """List the instances of a study; none when the peer does not have it."""
        if not isinstance(self._to, Destination):
            found = web_client.query(self._to, f"/studies/{study}/instances", {})
            return [
                Listed(
                    sop_class_uid=web_client.value(entry, _TAGS["class"]),
                    sop_instance_uid=web_client.value(entry, _TAGS["instance"]),
                )
                for entry in found
            ]
        listed: list[Listed] = []
        for series in find(self._to, "SERIES", {"StudyInstanceUID": study, "SeriesInstanceUID": ""}):
            keys = {"StudyInstanceUID": study, "SeriesInstanceUID": str(series.SeriesInstanceUID)}
            listed += [
                Listed(sop_class_uid=str(match.get("SOPClassUID") or ""), sop_instance_uid=str(match.SOPInstanceUID))
                for match in find(self._to, "IMAGE", {**keys, "SOPInstanceUID": "", "SOPClassUID": ""})
            ]
        return listed

    def earlier(self, study: str, *, limit: int) -> list[Earlier]:
        """Find the patient's studies of the same modalities before this one, newest first."""
        matches = self._studies({"StudyInstanceUID": study})
        if not matches or not matches[0].patient:
            return []
        this = matches[0]
        others = self._studies({"PatientID": this.patient})
        before = [
            entry
            for entry in others
            if entry.uid != study and entry.date and entry.date < this.date and entry.modalities & this.modalities
        ]
        before.sort(key=lambda entry: entry.date, reverse=True)
        return [Earlier(study_instance_uid=entry.uid, date=entry.date) for entry in before[:limit]]

    def fetch(self, study: str, listed: Sequence[Listed], inbox: Inbox) -> None:
        """Bring a study into the spool.

        Raises:
            DestinationError: out of reach, refused or incomplete; what came stays.
        """
        if not isinstance(self._to, Destination):
            web_client.retrieve(self._to, f"/studies/{study}", inbox.part)
        elif self._move:
            move(self._to, identifier_of(StudyInstanceUID=study), inbox.called_ae)
        else:
            get(self._to, identifier_of(StudyInstanceUID=study), _storage_contexts(listed), inbox.take)

    def _studies(self, keys: dict[str, str]) -> list[_Study]:
        wanted = {"StudyInstanceUID": "", "PatientID": "", "StudyDate": "", "ModalitiesInStudy": "", **keys}
        if isinstance(self._to, Destination):
            return [_Study.of_dataset(match) for match in find(self._to, "STUDY", wanted)]
        return [_Study.of_json(entry) for entry in web_client.query(self._to, "/studies", keys)]


@dataclass(frozen=True, kw_only=True)
class _Study:
    uid: str
    patient: str
    date: str
    modalities: frozenset[str]

    @classmethod
    def of_dataset(cls, match: Dataset) -> _Study:
        found = match.get("ModalitiesInStudy") or []
        return cls(
            uid=str(match.get("StudyInstanceUID") or ""),
            patient=str(match.get("PatientID") or ""),
            date=str(match.get("StudyDate") or ""),
            modalities=frozenset([found] if isinstance(found, str) else map(str, found)),
        )

    @classmethod
    def of_json(cls, entry: dict[str, Any]) -> _Study:
        return cls(
            uid=web_client.value(entry, _TAGS["study"]),
            patient=web_client.value(entry, _PATIENT),
            date=web_client.value(entry, _TAGS["date"]),
            modalities=frozenset(map(str, entry.get(_MODALITIES, {}).get("Value", []))),
        )


class Inbox:
    """Where fetched instances go: the spool and the ledger, as if the peer had sent them."""

    def __init__(self, store: Store, *, calling_ae: str, called_ae: str, address: str) -> None:
        self._store = store
        self.called_ae = called_ae
        self._peer = Peer(association=uuid.uuid4().hex, calling_ae=calling_ae, called_ae=called_ae, address=address)
        self.outcomes: Counter[int] = Counter()
        """How many instances were answered with each status."""

    def close(self) -> None:
        """Nothing more comes: the study may count as complete."""
        self._store.close(self._peer.association)

    def part(self, headers: dict[str, str]) -> PartSink:
        """Begin a Part 10 file."""
        del headers
        return Part10Stream(self._begin, self._done)

    def take(self, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, data: bytes) -> int:
        """Store one encoded data set; return a status of C-STORE."""
        reception = self._store.begin(self._command(sop_class_uid, sop_instance_uid, transfer_syntax_uid))
        reception.write(memoryview(data))
        answer = reception.finish()
        self.outcomes[answer.status] += 1
        return answer.status

    def _begin(self, meta: Meta) -> Reception:
        return self._store.begin(self._command(meta.sop_class_uid, meta.sop_instance_uid, meta.transfer_syntax_uid))

    def _done(self, _meta: Meta | None, result: Answer | Exception) -> None:
        self.outcomes[result.status if isinstance(result, Answer) else 0xC000] += 1

    def _command(self, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> StoreCommand:
        return StoreCommand(
            message_id=0,
            sop_class_uid=sop_class_uid,
            sop_instance_uid=sop_instance_uid,
            transfer_syntax_uid=transfer_syntax_uid,
            peer=self._peer,
        )


def missing(arrivals: Arrivals, listed: Sequence[Listed]) -> int:
    """Count the listed instances that are not here."""
    here = arrivals.recorded_uids([entry.sop_instance_uid for entry in listed])
    return sum(entry.sop_instance_uid not in here for entry in listed)


def wait_for(missing_now: Callable[[], int], *, timeout_s: float) -> int:
    """Wait for what comes by another way, as long as it keeps coming; return how many are missing in the end."""
    least = missing_now()
    deadline = time.monotonic() + timeout_s
    while least and time.monotonic() < deadline:
        time.sleep(_POLL_S)
        now = missing_now()
        if now < least:
            least, deadline = now, time.monotonic() + timeout_s
    return least


def move(to: Destination, identifier: Dataset, our_ae: str) -> None:
    """Have a peer send what an identifier names to our listener, by C-MOVE.

    Raises:
        DestinationError: out of reach, refused or incomplete.
    """
    with associated(to, [build_context(_MOVE, list(UNCOMPRESSED))]) as association:
        _finish(association.send_c_move(identifier, our_ae, _MOVE), "C-MOVE")


def get(
    to: Destination,
    identifier: Dataset,
    storage: Sequence[PresentationContext],
    stored: Callable[[str, str, str, bytes], int],
) -> None:
    """Have a peer send what an identifier names on this association, by C-GET.

    Args:
        to: the peer.
        identifier: names it.
        storage: contexts on which it may come.
        stored: takes SOP class, SOP instance, transfer syntax and encoded data set; returns a status of C-STORE.

    Raises:
        DestinationError: out of reach, refused or incomplete.
    """

    def take(event: Any) -> int:
        return stored(
            str(event.request.AffectedSOPClassUID),
            str(event.request.AffectedSOPInstanceUID),
            str(event.context.transfer_syntax),
            event.encoded_dataset(include_meta=False),
        )

    contexts = [build_context(_GET, list(UNCOMPRESSED)), *storage]
    roles = [build_role(name, scp_role=True) for name in dict.fromkeys(str(entry.abstract_syntax) for entry in storage)]
    with associated(to, contexts, handlers=[(evt.EVT_C_STORE, take)], roles=roles) as association:
        _finish(association.send_c_get(identifier, _GET), "C-GET")


def identifier_of(**uids: str) -> Dataset:
    """Name a study, a series of it or an instance of that: UIDs by keyword, from the study downwards."""
    identifier = Dataset()
    identifier.QueryRetrieveLevel = ("STUDY", "SERIES", "IMAGE")[len(uids) - 1]
    for keyword, uid in uids.items():
        setattr(identifier, keyword, uid)
    return identifier


def _storage_contexts(listed: Sequence[Listed]) -> list[PresentationContext]:
    known = {str(context.abstract_syntax) for context in AllStoragePresentationContexts}
    classes = sorted({entry.sop_class_uid for entry in listed} & known) or sorted(known)
    return [build_context(name, ALL_TRANSFER_SYNTAXES) for name in classes[: MAXIMUM_CONTEXTS - 1]]


def _finish(answers: Any, name: str) -> None:
    for answer, _ in answers:
        if "Status" not in answer:
            raise DestinationError(f"the peer gave no answer to {name}")
        if answer.Status in _PENDING:
            continue
        failed = int(answer.get("NumberOfFailedSuboperations") or 0)
        if answer.Status != SUCCESS or failed:
            raise DestinationError(f"{name} ended with {describe(answer.Status)}, {failed} instances failed")
