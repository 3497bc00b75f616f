"""Sends a file's data set over an established association, straight from the disk into the socket.

pynetdicom would first put the whole file, cut into PDUs, into a queue in memory.
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from io import BytesIO
from typing import TYPE_CHECKING

from pynetdicom.dimse_primitives import C_STORE

from dicom_nodes import dimse
from service.errors import DestinationError

if TYPE_CHECKING:
    from pathlib import Path

    from pynetdicom.association import Association

LARGEST_PDU_BYTES = 1 << 20
_UNLIMITED_PDU_BYTES = 1 << 17
"""Taken when the peer sets no limit."""
_ITEM_HEADER_BYTES = 6
_DATA, _LAST_DATA = 0x00, 0x02
_MORE: int = getattr(socket, "MSG_MORE", 0)


def transmit(
    association: Association,
    path: Path,
    *,
    offset: int,
    context_id: int,
    sop_class_uid: str,
    sop_instance_uid: str,
    message_id: int,
    timeout_s: float,
) -> int:
    """Send one C-STORE request and wait for its answer.

    Args:
        association: established; nobody else sends on it meanwhile.
        path: a Part 10 file.
        offset: where its data set begins.
        context_id: of the accepted presentation context that fits its transfer syntax.
        sop_class_uid: Affected SOP Class UID.
        sop_instance_uid: Affected SOP Instance UID.
        message_id: 1 to 65535.
        timeout_s: of each wait for the peer to take more.

    Returns:
        The status of the answer.

    Raises:
        DestinationError: the connection failed or no answer came; the association is over.
    """
    _pause(association)
    try:
        connection = association.dul.socket.socket
        if connection is None:
            raise DestinationError("the association ended before the object was sent")
        if isinstance(connection, ssl.SSLSocket):
            return _transmit_over_tls(
                association, path, offset, context_id, (sop_class_uid, sop_instance_uid, message_id)
            )
        connection.settimeout(timeout_s)
        command = _store_command(sop_class_uid, sop_instance_uid, message_id)
        connection.sendall(dimse.command_pdus(command, context_id, longest_pdu_bytes=_longest_pdu(association)))
        _send_data_set(connection, path, offset, context_id, _fragment_bytes(association))
        return _answer(association)
    except OSError as error:
        association.abort()
        raise DestinationError(f"the object could not be sent ({type(error).__name__})") from None
    finally:
        association._reactor_checkpoint.set()  # noqa: SLF001 -- as pynetdicom's own requests do


def _transmit_over_tls(
    association: Association, path: Path, offset: int, context_id: int, request: tuple[str, str, int]
) -> int:
    """Let pynetdicom's own thread send: a TLS session must not be read and written by two threads at once."""
    message = C_STORE()
    message.AffectedSOPClassUID, message.AffectedSOPInstanceUID, message.MessageID = request
    message.Priority = 0x0002
    with path.open("rb") as file:
        file.seek(offset)
        message.DataSet = BytesIO(file.read())
    association.dimse.send_msg(message, context_id)
    return _answer(association)


def _answer(association: Association) -> int:
    _, response = association.dimse.get_msg(block=True)
    if response is None or response.Status is None:
        association._handle_no_response()  # noqa: SLF001
        raise DestinationError("the association ended while waiting for the answer")
    return int(response.Status)


def _pause(association: Association) -> None:
    """Keep pynetdicom's reactor from taking our answer out of the queue."""
    association._reactor_checkpoint.clear()  # noqa: SLF001
    while not association._is_paused:  # noqa: SLF001
        time.sleep(0.0001)


def _send_data_set(connection: socket.socket, path: Path, offset: int, context_id: int, fragment_bytes: int) -> None:
    with path.open("rb") as file:
        left = os.fstat(file.fileno()).st_size - offset
        while True:
            count = min(left, fragment_bytes)
            left -= count
            connection.sendall(dimse.data_header(count, context_id, _DATA if left else _LAST_DATA), _MORE)
            if count and connection.sendfile(file, offset, count) != count:
                raise OSError("the file became shorter")
            offset += count
            if not left:
                return


def _fragment_bytes(association: Association) -> int:
    return max(1, min(_longest_pdu(association), LARGEST_PDU_BYTES) - _ITEM_HEADER_BYTES)


def _longest_pdu(association: Association) -> int:
    return int(association.acceptor.maximum_length or _UNLIMITED_PDU_BYTES)


def _store_command(sop_class_uid: str, sop_instance_uid: str, message_id: int) -> bytes:
    """Encode a C-STORE-RQ command set (PS3.7 table 9.3-1)."""
    return dimse.encode_command(
        {
            dimse.AFFECTED_SOP_CLASS: sop_class_uid,
            dimse.COMMAND_FIELD: dimse.C_STORE,
            dimse.MESSAGE_ID: message_id,
            dimse.PRIORITY: 0x0002,  # low
            dimse.DATA_SET_TYPE: dimse.DATA_SET,
            dimse.AFFECTED_SOP_INSTANCE: sop_instance_uid,
        }
    )
