"""What peers tell our listener: what they committed to keep, and what a study consists of."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from dicom_nodes import dimse
from dicom_nodes.headers import is_uid
from dicom_nodes.references import (
    AVAILABILITY,
    COMMITMENT,
    decode_notice,
    read_availability,
    read_commitment_report,
)
from dicom_nodes.status import INVALID_ARGUMENT, PROCESSING_FAILURE, SOP_CLASS_NOT_SUPPORTED, SUCCESS, Answer
from service.errors import InvalidInstanceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dicom_nodes.confirmation import Settlement
    from dicom_nodes.requests import NoticeCommand
    from service.ledger.arrivals import Arrivals

log = logging.getLogger(__name__)


class Notices:
    """Writes notices into the ledger."""

    def __init__(self, arrivals: Arrivals, confirmations: Settlement, *, announced: Callable[[], None]) -> None:
        """Take the ledger's parts, and what wakes the intake."""
        self._arrivals = arrivals
        self._confirmations = confirmations
        self._announced = announced

    def take(self, command: NoticeCommand, data: bytes) -> Answer:
        """Take one notice; the answer goes back to the peer."""
        try:
            if command.sop_class_uid == COMMITMENT and command.field == dimse.N_EVENT_REPORT:
                self._commitment(command, data)
            elif command.sop_class_uid == AVAILABILITY and command.field == dimse.N_CREATE:
                self._availability(command, data)
            else:
                return Answer(status=SOP_CLASS_NOT_SUPPORTED, comment="this is not served for this SOP class")
        except InvalidInstanceError as error:
            return Answer(status=INVALID_ARGUMENT, comment=str(error)[:64])
        except Exception as error:  # noqa: BLE001 -- the ledger is away: the peer may tell us again
            log.error("a notice could not be recorded: %s", type(error).__name__)  # noqa: TRY400
            return Answer(status=PROCESSING_FAILURE, comment="internal failure, try again later")
        return Answer(status=SUCCESS)

    def _commitment(self, command: NoticeCommand, data: bytes) -> None:
        report = read_commitment_report(decode_notice(data, command.transfer_syntax_uid))
        settled = self._confirmations.settle(report)
        if not settled:
            log.info("a storage commitment report names a transaction that nothing waits for")

    def _availability(self, command: NoticeCommand, data: bytes) -> None:
        notice = read_availability(decode_notice(data, command.transfer_syntax_uid))
        if not all(map(is_uid, (notice.study_instance_uid, *notice.sop_instance_uids))):
            raise InvalidInstanceError("a notification with a malformed UID")
        self._arrivals.announce(notice.study_instance_uid, notice.sop_instance_uids)
        self._announced()
