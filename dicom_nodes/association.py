"""One accepted association: C-ECHO, and C-STORE whose data set is streamed as it arrives (PS3.7)."""

from __future__ import annotations

import logging
import queue
import threading
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pynetdicom import evt
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.pdu_primitives import A_ASSOCIATE

from dicom_nodes.requests import (
    EchoCommand,
    Peer,
    Reception,
    Refused,
    Service,
    StoreCommand,
    echo_response,
    number,
    split_command,
    store_response,
    text,
)
from dicom_nodes.status import SOP_CLASS_NOT_SUPPORTED, SUCCESS, Answer, answer_for
from dicom_nodes.upper_layer import ProtocolError, ServedSocket, ServedUpperLayer, WakingQueue

if TYPE_CHECKING:
    import socket

    from pynetdicom.ae import ApplicationEntity
    from pynetdicom.pdu_primitives import P_DATA

log = logging.getLogger(__name__)

_C_STORE, _C_ECHO = 0x0001, 0x0030
_NO_DATA_SET = 0x0101
_SOP_CLASS, _FIELD, _MESSAGE_ID, _DATA_SET_TYPE, _SOP_INSTANCE = 0x0002, 0x0100, 0x0110, 0x0800, 0x1000
MAXIMUM_COMMAND_BYTES = 1 << 14
MAXIMUM_WAITING = 4
"""Requests that a peer may send before it has our answer; without asynchronous operations it is one."""
_LOOK_UP_S = 0.25


@dataclass(kw_only=True)
class _Request:
    command: StoreCommand | EchoCommand
    context_id: int
    reception: Reception | None = None
    is_valid_request: bool = field(default=True)


class _Streaming(DIMSEServiceProvider):  # type: ignore[misc]  # pynetdicom is read as untyped
    """Puts fragments together: commands in memory, within a limit, and data sets into a reception."""

    def __init__(self, association: ServedAssociation) -> None:
        super().__init__(association)
        self._association = association
        self._command = bytearray()
        self._request: _Request | None = None
        self._guard = threading.Lock()
        self._closed = False

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take the presentation data values of one PDU."""
        try:
            for context_id, fragment in primitive.presentation_data_value_list:
                with self._guard:
                    if not self._closed:
                        self._take(context_id, fragment)
        except ProtocolError:
            self._association.upper_layer.violation()

    def get_msg(self, block: bool = False) -> tuple[Any, Any]:
        """Wait a little for the next request."""
        try:
            context_id, request = self.msg_queue.get(timeout=self.dimse_timeout if block else _LOOK_UP_S)
        except queue.Empty:
            return None, None
        return context_id, request

    def close(self) -> None:
        """Discard what has not come to its end."""
        with self._guard:
            self._closed = True
            requests = [self._request] if self._request else []
            while not self.msg_queue.empty():
                _, waiting = self.msg_queue.get()
                requests += [waiting] if waiting else []
            for request in requests:
                if request.reception:
                    request.reception.discard()

    def _take(self, context_id: int, fragment: memoryview) -> None:
        control = fragment[0]
        if control & 1:
            self._command += fragment[1:]
            if self._request or len(self._command) > MAXIMUM_COMMAND_BYTES:
                raise ProtocolError("a command inside a data set, or too long")
            if control & 2:
                self._begin(context_id)
            return
        if self._request is None or self._request.reception is None:
            raise ProtocolError("a data set without its command")
        self._request.reception.write(fragment[1:])
        if control & 2:
            self._complete(self._request)

    def _begin(self, context_id: int) -> None:
        elements = split_command(self._command)
        self._command.clear()
        context = self._association._accepted_cx.get(context_id)  # noqa: SLF001 -- there is no other way to it
        if context is None or self.msg_queue.qsize() >= MAXIMUM_WAITING:
            raise ProtocolError("a context that was not accepted, or too many requests at once")
        kind, message_id = number(elements, _FIELD), number(elements, _MESSAGE_ID)
        if kind == _C_ECHO:
            self._complete(_Request(command=EchoCommand(message_id=message_id), context_id=context_id))
            return
        if kind != _C_STORE or number(elements, _DATA_SET_TYPE) == _NO_DATA_SET:
            raise ProtocolError(f"command 0x{kind:04X} is not served")
        command = StoreCommand(
            message_id=message_id,
            sop_class_uid=text(elements, _SOP_CLASS),
            sop_instance_uid=text(elements, _SOP_INSTANCE),
            transfer_syntax_uid=str(context.transfer_syntax[0]),
            peer=self._association.peer,
        )
        negotiated = command.sop_class_uid == str(context.abstract_syntax)
        reception = (
            self._association.service.begin(command)
            if negotiated
            else Refused(Answer(status=SOP_CLASS_NOT_SUPPORTED, comment="not the SOP class of the context"))
        )
        self._request = _Request(command=command, context_id=context_id, reception=reception)

    def _complete(self, request: _Request) -> None:
        self._request = None
        self.msg_queue.put((request.context_id, request))


class ServedAssociation(Association):  # type: ignore[misc]  # pynetdicom is read as untyped
    """An association of which we are the acceptor; `serve` runs it in the calling thread."""

    def __init__(
        self,
        entity: ApplicationEntity,
        service: Service,
        connection: socket.socket,
        *,
        address: str,
        request: bytearray,
    ) -> None:
        super().__init__(entity, MODE_ACCEPTOR)
        self.service = service
        self.peer = Peer(association=uuid.uuid4().hex, calling_ae="", called_ae="", address=address)
        self.upper_layer = ServedUpperLayer(self, maximum_pdu_bytes=entity.maximum_pdu_size)
        self.dul = self.upper_layer
        self.streaming = _Streaming(self)
        self.dimse = self.streaming
        # The timers belong to the upper layer that was replaced.
        self.acse_timeout = entity.acse_timeout
        self.network_timeout = entity.network_timeout
        self._socket = ServedSocket(self, connection, timeout_s=entity.network_timeout)
        self.upper_layer.attach(self._socket, request)
        # Waking the reactor that waits for requests: a release or abort is seen at once.
        self.dul.to_user_queue = WakingQueue(lambda: self.streaming.msg_queue.put((None, None)))
        self.acceptor.maximum_length = entity.maximum_pdu_size
        self.acceptor.ae_title = entity.ae_title
        self.acceptor.address_info = self.requestor.address_info = _Address(address)

    def _bind_defaults(self) -> None:
        """Bind no logging: pynetdicom's would format every command and PDU."""
        for event in evt._INTERVENTION_EVENTS:  # noqa: SLF001
            self.bind(event, evt.get_default_handler(event))

    def serve(self) -> None:
        """Negotiate and serve until the association ends."""
        self.dul.start()
        admitted = False
        try:
            self._dul_ready.wait()
            primitive = self.dul.receive_pdu(wait=True, timeout=self.acse_timeout)
            if isinstance(primitive, A_ASSOCIATE):
                admitted = self._negotiate(primitive)
            if self.is_established:
                self._run_reactor()
        finally:
            self._end()
            if admitted:
                self.service.ended(self.peer)

    def _negotiate(self, primitive: A_ASSOCIATE) -> bool:
        self.requestor.primitive = primitive
        self.peer = Peer(
            association=self.peer.association,
            calling_ae=primitive.calling_ae_title.strip(),
            called_ae=primitive.called_ae_title.strip(),
            address=self.peer.address,
        )
        rejection = self.service.admit(self.peer)
        if rejection:
            log.warning("association from %s rejected: %s", self.peer.address, rejection.reason)
            self.acse.send_reject(rejection.result, rejection.source, rejection.diagnostic)
            self.kill()
            return False
        self.acceptor.supported_contexts = self.service.contexts(primitive.presentation_context_definition_list)
        self.acse.negotiate_association()
        return True

    def _end(self) -> None:
        self.streaming.close()
        self._kill = True
        connection = self._socket.socket
        if connection is not None:
            self._socket._shutdown_socket()  # noqa: SLF001
        self.dul.kill_dul()
        self._socket.wake()
        self.dul.join(timeout=5.0)
        if not self.dul.is_alive():
            self._socket.release()

    def _serve_request(self, msg: _Request, context_id: int) -> None:
        if isinstance(msg.command, EchoCommand):
            self.dimse.send_msg(echo_response(msg.command), context_id)
            return
        try:
            answer = msg.reception.finish() if msg.reception else Answer(status=SUCCESS)
        except Exception as error:  # noqa: BLE001 -- whatever fails, the peer must hear that it is not stored
            log.error("an instance could not be stored: %s", type(error).__name__)  # noqa: TRY400
            answer = answer_for(error)
        self.dimse.send_msg(store_response(msg.command, answer), context_id)


class _Address:
    """Enough of pynetdicom's AddressInformation, without asking a name server."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.as_tuple = (address, 0)
