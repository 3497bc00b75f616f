"""One accepted association, served in one thread: requests are read, carried out and answered in turn.

Data sets are streamed: a C-STORE's into the spool as its bytes arrive (PS3.7 section 9.1.1).
"""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dicom_nodes import dimse
from dicom_nodes.dimse import ProtocolError, number, split_command, text
from dicom_nodes.negotiation import agree, read_request, reject
from dicom_nodes.requests import (
    EchoCommand,
    NoticeCommand,
    Noticed,
    Peer,
    Reception,
    Refused,
    Service,
    StoreCommand,
    response,
)
from dicom_nodes.status import SOP_CLASS_NOT_SUPPORTED, SUCCESS, UNRECOGNIZED_OPERATION, Answer, answer_for
from dicom_nodes.upper_layer import ABORT, RELEASED, PduStream, Tolerance

if TYPE_CHECKING:
    from dicom_nodes.negotiation import Agreement
    from dicom_nodes.upper_layer import Piece
    from dicom_nodes.wire import Wire
    from service.tls import Identity

log = logging.getLogger(__name__)

MAXIMUM_COMMAND_BYTES = 1 << 14
_UNRECOGNIZED = Answer(status=UNRECOGNIZED_OPERATION, comment="this operation is not served")
_ANOTHER_CLASS = Answer(status=SOP_CLASS_NOT_SUPPORTED, comment="not the SOP class of the context")


@dataclass(kw_only=True)
class _Request:
    command: StoreCommand | EchoCommand | NoticeCommand
    context_id: int
    reception: Reception


class ServedAssociation:
    """An association of which we are the acceptor."""

    def __init__(
        self,
        service: Service,
        wire: Wire,
        *,
        address: str,
        request: bytearray,
        maximum_pdu_bytes: int,
        tolerance: Tolerance,
        identity: Identity | None = None,
    ) -> None:
        self._service = service
        self._wire = wire
        self._request_pdu = request
        self._maximum_pdu_bytes = maximum_pdu_bytes
        self._tolerance = tolerance
        self._peer = Peer(association=uuid.uuid4().hex, calling_ae="", called_ae="", address=address, identity=identity)
        self._contexts: dict[int, tuple[str, str]] = {}
        self._answer_pdu_bytes = 0
        self._command = bytearray()
        self._request: _Request | None = None

    def serve(self) -> None:
        """Negotiate and serve until the association ends, in whatever way."""
        try:
            agreement = self._negotiate()
        except ProtocolError:
            self._last_words(ABORT)
            return
        if agreement is None:
            return
        self._contexts = agreement.contexts
        last_words = ABORT
        try:
            last_words = self._serve(agreement.pdu)
        finally:
            if self._request is not None:
                self._request.reception.discard()
            # The peer may come again as soon as it hears of the end, and need not wait while that is written down.
            self._service.leaves(self._peer)
            heard = self._say(last_words)
            self._service.ended(self._peer)
        if heard:
            self._wire.finish()

    def abort(self) -> None:
        """End it from another thread."""
        self._wire.abort(ABORT)

    def _negotiate(self) -> Agreement | None:
        request = read_request(self._request_pdu)
        self._peer = replace(self._peer, calling_ae=request.calling_ae, called_ae=request.called_ae)
        rejection = request.rejection or self._service.admit(self._peer)
        if rejection:
            # Not the titles: a stranger writes into them what he likes, and it would stand in the log.
            log.warning("association from %s rejected: %s", self._peer.address, rejection.reason)
            self._last_words(reject(rejection))
            return None
        self._answer_pdu_bytes = request.maximum_pdu_bytes
        try:
            return agree(request, self._service.contexts(), maximum_pdu_bytes=self._maximum_pdu_bytes)
        except BaseException:
            self._service.leaves(self._peer)
            self._service.ended(self._peer)
            raise

    def _serve(self, accepted: bytes) -> bytes:
        """Serve requests; return what is to be said in the end."""
        stream = PduStream(self._wire, maximum_pdu_bytes=self._maximum_pdu_bytes, tolerance=self._tolerance)
        try:
            self._wire.send(accepted, timeout_s=self._tolerance.silence_s)
            for piece in stream.pieces():
                if self._take(piece):
                    stream.message_is_complete()
        except TimeoutError:
            log.warning("association from %s aborted: it was silent or too slow", self._peer.address)
            return ABORT
        except ProtocolError as error:
            log.warning("association from %s aborted: %s", self._peer.address, error)
            return ABORT
        except OSError:
            return b""
        return RELEASED if self._request is None else ABORT

    def _take(self, piece: Piece) -> bool:
        """Take a piece; True when it completed a message."""
        if piece.is_command:
            self._command += piece.data
            if self._request or len(self._command) > MAXIMUM_COMMAND_BYTES:
                raise ProtocolError("a command inside a data set, or too long")
            if piece.ends_message:
                return self._begin(piece.context_id)
            return False
        if self._request is None or piece.context_id != self._request.context_id:
            raise ProtocolError("a data set without its command")
        self._request.reception.write(piece.data)
        if piece.ends_message:
            self._complete(self._request)
        return piece.ends_message

    def _begin(self, context_id: int) -> bool:
        elements = split_command(self._command)
        self._command.clear()
        if context_id not in self._contexts:
            raise ProtocolError("a context that was not accepted")
        field, has_data = number(elements, dimse.COMMAND_FIELD), _has_data_set(elements)
        if field == dimse.C_CANCEL and not has_data:
            # Nothing that we serve lasts long enough to be cancelled; the request has no response (PS3.7 9.3.2.3).
            return True
        if field == dimse.C_STORE and not has_data:
            raise ProtocolError("a C-STORE without a data set")
        request = self._request_of(field, elements, context_id)
        if has_data:
            self._request = request
        else:
            self._answer(request)
        return not has_data

    def _request_of(self, field: int, elements: dict[int, bytes], context_id: int) -> _Request:
        sop_class, syntax = self._contexts[context_id]
        message_id = number(elements, dimse.MESSAGE_ID)
        if field == dimse.C_ECHO:
            return _Request(
                command=EchoCommand(message_id=message_id),
                context_id=context_id,
                reception=Refused(Answer(status=SUCCESS)),
            )
        asked_class = text(elements, dimse.AFFECTED_SOP_CLASS)
        command: StoreCommand | NoticeCommand
        if field == dimse.C_STORE:
            command = StoreCommand(
                message_id=message_id,
                sop_class_uid=asked_class,
                sop_instance_uid=text(elements, dimse.AFFECTED_SOP_INSTANCE),
                transfer_syntax_uid=syntax,
                peer=self._peer,
            )
        elif field in (dimse.N_EVENT_REPORT, dimse.N_CREATE):
            command = NoticeCommand(
                message_id=message_id,
                field=field,
                sop_class_uid=asked_class,
                sop_instance_uid=text(elements, dimse.AFFECTED_SOP_INSTANCE),
                event_type=number(elements, dimse.EVENT_TYPE) if field == dimse.N_EVENT_REPORT else 0,
                transfer_syntax_uid=syntax,
                peer=self._peer,
            )
        else:
            return self._unserved(field, message_id, context_id)
        reception = self._reception(command) if asked_class == sop_class else Refused(_ANOTHER_CLASS)
        return _Request(command=command, context_id=context_id, reception=reception)

    def _unserved(self, field: int, message_id: int, context_id: int) -> _Request:
        """Refuse an operation that we do not serve, and go on serving others."""
        if field & dimse.RESPONSE:
            raise ProtocolError(f"a response 0x{field:04X} that nobody asked for")
        sop_class, syntax = self._contexts[context_id]
        command = NoticeCommand(
            message_id=message_id,
            field=field,
            sop_class_uid=sop_class,
            sop_instance_uid="",
            event_type=0,
            transfer_syntax_uid=syntax,
            peer=self._peer,
        )
        return _Request(command=command, context_id=context_id, reception=Refused(_UNRECOGNIZED))

    def _reception(self, command: StoreCommand | NoticeCommand) -> Reception:
        if isinstance(command, StoreCommand):
            return self._service.begin(command)
        return Noticed(lambda data: self._service.notice(command, data))

    def _complete(self, request: _Request) -> None:
        try:
            self._answer(request)
        finally:
            self._request = None

    def _answer(self, request: _Request) -> None:
        try:
            answer = request.reception.finish()
        except Exception as error:  # noqa: BLE001 -- whatever fails, the peer must hear that it is not stored
            log.error("a request could not be carried out: %s", type(error).__name__)  # noqa: TRY400
            answer = answer_for(error)
        pdus = dimse.command_pdus(
            response(request.command, answer), request.context_id, longest_pdu_bytes=self._answer_pdu_bytes
        )
        self._wire.send(pdus, timeout_s=self._tolerance.silence_s)

    def _last_words(self, words: bytes) -> None:
        if self._say(words):
            self._wire.finish()

    def _say(self, words: bytes) -> bool:
        try:
            self._wire.send(words, timeout_s=1.0)
        except OSError:
            return False
        return True


def _has_data_set(elements: dict[int, bytes]) -> bool:
    return number(elements, dimse.DATA_SET_TYPE) != dimse.NO_DATA_SET
