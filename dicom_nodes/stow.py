"""The way in by STOW-RS (PS3.18 section 10.5): same spool, same ledger, same rules as C-STORE."""

from __future__ import annotations

import hmac
import json
import logging
import re
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dicom_nodes.headers import is_uid
from dicom_nodes.multipart import MultipartError, MultipartReader, boundary_of, part_type_of
from dicom_nodes.part10_stream import Part10Stream
from dicom_nodes.requests import Peer, Refused, StoreCommand
from dicom_nodes.status import CANNOT_UNDERSTAND, SUCCESS, Answer
from dicom_nodes.web_server import WebAnswer

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from dicom_nodes.budgets import TurnedAway
    from dicom_nodes.multipart import PartSink
    from dicom_nodes.part10_stream import Meta
    from dicom_nodes.reception import Store
    from dicom_nodes.requests import Reception
    from dicom_nodes.web_server import WebRequest

log = logging.getLogger(__name__)

_UNAUTHORIZED = 401

_PATH = re.compile(r"(?:/dicom-web)?(?:/aets/(?P<aet>[^/]{1,16}))?/studies(?:/(?P<study>[^/]+))?")
_JSON = "application/dicom+json"
_OUT_OF_RESOURCES = 0xA7
_REFERENCED, _FAILED = "00081199", "00081198"
_SOP_CLASS, _SOP_INSTANCE, _FAILURE_REASON = "00081150", "00081155", "00081197"
MAXIMUM_PARTS = 50_000


@dataclass(frozen=True, kw_only=True)
class Door:
    """Who may come in, and as whom."""

    called: Collection[str]
    """Our AE titles."""
    default_called: str
    calling: str
    """AE title that counts as the sender."""
    token: str = field(default="", repr=False)
    maximum_bytes: int = 1 << 33


@dataclass(frozen=True, kw_only=True)
class _Stored:
    sop_class_uid: str
    sop_instance_uid: str
    status: int


class StowService:
    """Answers `POST /studies`."""

    def __init__(
        self, store: Store, door: Door, turned_away: TurnedAway = lambda _address, _kind, _reason: None
    ) -> None:
        self._store = store
        self._door = door
        self._turned_away = turned_away

    def answer(self, request: WebRequest, body: Iterator[bytes]) -> WebAnswer:
        """Store what a request holds; nothing is read of one that is refused."""
        refusal = self._refusal(request)
        if refusal is not None:
            log.warning("a request from %s was answered %d", request.address, refusal.status)
            if refusal.status == _UNAUTHORIZED:
                self._turned_away(request.address, "token", "the bearer token is not dicomweb.token")
            return refusal
        match = _PATH.fullmatch(request.path)
        peer = Peer(
            association=uuid.uuid4().hex,
            calling_ae=self._door.calling,
            called_ae=(match and match["aet"]) or self._door.default_called,
            address=request.address,
        )
        transaction = _Transaction(self._store, peer, study_instance_uid=(match and match["study"]) or "")
        try:
            reader = MultipartReader(boundary_of(request.headers.get("content-type", "")), transaction.begin)
            return self._read(reader, body, transaction)
        except MultipartError as error:
            return _text(400, str(error))
        finally:
            self._store.close(peer.association)

    def _read(self, reader: MultipartReader, body: Iterator[bytes], transaction: _Transaction) -> WebAnswer:
        received = 0
        try:
            for block in body:
                received += len(block)
                if received > self._door.maximum_bytes:
                    return _text(413, "the request is larger than dicomweb.maximum_request_mb")
                reader.feed(block)
        finally:
            reader.close()
        if not reader.complete:
            raise MultipartError("the body ends before its last boundary")
        return transaction.answer()

    def _refusal(self, request: WebRequest) -> WebAnswer | None:
        if self._door.token:
            given = request.headers.get("authorization", "")
            if not hmac.compare_digest(given.encode(), f"Bearer {self._door.token}".encode()):
                return _text(_UNAUTHORIZED, "a bearer token is asked for", {"WWW-Authenticate": "Bearer"})
        match = _PATH.fullmatch(request.path)
        if match is None or (match["study"] and not is_uid(match["study"])):
            return _text(404, "POST to /studies")
        if match["aet"] and match["aet"] not in self._door.called:
            return _text(404, "no such AE title is served here")
        if request.method != "POST":
            return _text(405, "POST to /studies", {"Allow": "POST"})
        return self._unfit_body(request)

    def _unfit_body(self, request: WebRequest) -> WebAnswer | None:
        if part_type_of(request.headers.get("content-type", "")) not in ("application/dicom", ""):
            return _text(415, 'send multipart/related; type="application/dicom"')
        if (request.content_length or 0) > self._door.maximum_bytes:
            return _text(413, "the request is larger than dicomweb.maximum_request_mb")
        return None


class _Transaction:
    """One request: its instances and what became of each."""

    def __init__(self, store: Store, peer: Peer, *, study_instance_uid: str) -> None:
        self._store = store
        self._study_instance_uid = study_instance_uid
        self._peer = peer
        self._stored: list[_Stored] = []
        self._parts = 0

    def begin(self, headers: dict[str, str]) -> PartSink:
        """Begin a part."""
        del headers
        self._parts += 1
        if self._parts > MAXIMUM_PARTS:
            raise MultipartError("too many parts")
        return Part10Stream(self._reception, self._done)

    def answer(self) -> WebAnswer:
        """Say what was stored (PS3.18 table 10.5.3-1)."""
        good = [entry for entry in self._stored if entry.status == SUCCESS]
        bad = [entry for entry in self._stored if entry.status != SUCCESS]
        if not self._stored:
            return _text(400, "there is no instance in the request")
        status = 200 if not bad else 202 if good else 409
        if not good and all(entry.status >> 8 == _OUT_OF_RESOURCES for entry in bad):
            status = 503
        content = json.dumps(_response(good, bad)).encode()
        return WebAnswer(status=status, content=content, content_type=_JSON)

    def _reception(self, meta: Meta) -> Reception:
        command = StoreCommand(
            message_id=0,
            sop_class_uid=meta.sop_class_uid,
            sop_instance_uid=meta.sop_instance_uid,
            transfer_syntax_uid=meta.transfer_syntax_uid,
            peer=self._peer,
            # PS3.18 section 10.5.1.1: of the study that the resource names, no other is stored.
            study_instance_uid=self._study_instance_uid,
        )
        if not is_uid(meta.transfer_syntax_uid):
            return Refused(Answer(status=CANNOT_UNDERSTAND))
        return self._store.begin(command)

    def _done(self, meta: Meta | None, result: Answer | Exception) -> None:
        status = result.status if isinstance(result, Answer) else CANNOT_UNDERSTAND
        self._stored.append(
            _Stored(
                sop_class_uid=meta.sop_class_uid if meta and is_uid(meta.sop_class_uid) else "",
                sop_instance_uid=meta.sop_instance_uid if meta and is_uid(meta.sop_instance_uid) else "",
                status=status,
            )
        )


def _response(good: list[_Stored], bad: list[_Stored]) -> dict[str, Any]:
    response: dict[str, Any] = {}
    if good:
        response[_REFERENCED] = {"vr": "SQ", "Value": [_reference(entry) for entry in good]}
    if bad:
        failed = [{**_reference(entry), _FAILURE_REASON: {"vr": "US", "Value": [entry.status]}} for entry in bad]
        response[_FAILED] = {"vr": "SQ", "Value": failed}
    return response


def _reference(entry: _Stored) -> dict[str, Any]:
    values = {_SOP_CLASS: entry.sop_class_uid, _SOP_INSTANCE: entry.sop_instance_uid}
    return {tag: {"vr": "UI", "Value": [uid]} for tag, uid in values.items() if uid}


def _text(status: int, text: str, headers: dict[str, str] | None = None) -> WebAnswer:
    return WebAnswer(status=status, content=f"{text}\n".encode(), headers=headers or {})
