"""Says what is audited and when. A log that cannot be written is reported and counted, and stops nothing."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING

from service.audit import message
from service.audit.chain import AuditLog
from service.audit.digest import settings_digest
from service.audit.message import Action, Event, Outcome, Participant, Study, Subject, to_xml
from service.audit.verify import PURGED, anchor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from service.concepts import Code
    from service.records import Delivery, Instance, Job, OutboxObject
    from service.settings import Settings

log = logging.getLogger(__name__)

ALERT_EVERY_S = 60.0
"""The same alert of the same address is written so often at most; the next one says how many were left out."""
_MAXIMUM_ALERTS = 1000


def open_log(settings: Settings) -> AuditLog:
    """Return the audit log of the state directory."""
    return AuditLog(settings.state.directory.absolute() / "audit")


class Trail:
    """Writes audit messages for one process."""

    def __init__(
        self,
        audit_log: AuditLog,
        *,
        process: str,
        source: str = "",
        settings_sha256: str = "",
        failed: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._log = audit_log
        self._process = process
        self._source = source or socket.gethostname()
        self._settings_sha256 = settings_sha256
        self._failed = failed
        self._clock = clock
        self._lock = threading.Lock()
        self._alerts: dict[tuple[str, str], tuple[float, int]] = {}

    @contextmanager
    def application(self) -> Iterator[None]:
        """Application Activity (A.5.3.1): start, and stop however it comes about."""
        self._activity(message.APPLICATION_START)
        try:
            yield
        finally:
            self._activity(message.APPLICATION_STOP)

    def receiving(self, instance: Instance) -> None:
        """Begin Transferring DICOM Instances (A.5.3.3): the first instance of a study on an association."""
        self._begin(
            "receiving",
            self._from_peer(instance.calling_ae, instance.address, instance.called_ae),
            Study(
                study_instance_uid=instance.study_instance_uid,
                instances={instance.sop_class_uid: (instance.sop_instance_uid,)},
            ),
        )

    def received(self, example: Instance, counts: Mapping[str, int], details: Mapping[str, str]) -> None:
        """DICOM Instances Transferred (A.5.3.7): what one association stored of one study.

        `example` is any of the instances, `counts` has their number by SOP Class UID.
        """
        self._write(
            "received",
            Event(
                identity=message.INSTANCES_TRANSFERRED,
                action=Action.CREATE,
                outcome=Outcome.SUCCESS,
                participants=self._from_peer(example.calling_ae, example.address, example.called_ae),
                about=Study(study_instance_uid=example.study_instance_uid, counts=counts, details=details),
            ),
        )

    def result(self, job: Job, inputs: Mapping[str, str], made: tuple[OutboxObject, ...], *, state: str) -> None:
        """DICOM Instances Accessed (A.5.3.6): which inputs, model, software and settings made which objects.

        `inputs` has the SHA-256 of each by SOP Instance UID; `state` is what the job becomes.
        """
        details = {
            "job": job.id,
            "attempt": str(job.attempts),
            "state": state,
            "pipeline": f"{job.pipeline} {job.pipeline_version}",
            "model sha256": job.model_sha256,
            "software": _software(),
            "settings sha256": self._settings_sha256,
            **{f"input {uid} sha256": digest for uid, digest in inputs.items()},
            **{f"object {entry.sop_instance_uid} sha256": entry.sha256 for entry in made},
        }
        self._write(
            "result",
            Event(
                identity=message.INSTANCES_ACCESSED,
                action=Action.CREATE,
                outcome=Outcome.SUCCESS,
                participants=(self._ourselves(),),
                about=Study(study_instance_uid=job.study_instance_uid, instances=_by_class(made), details=details),
            ),
            job=job.id,
        )

    def sending(self, batch: list[Delivery], address: str) -> None:
        """Begin Transferring DICOM Instances (A.5.3.3): the first try of one job's objects."""
        first = batch[0]
        self._begin(
            "sending",
            self._to_peer(first.destination, address),
            Study(
                study_instance_uid=first.object.study_instance_uid,
                instances=_by_class(tuple(entry.object for entry in batch)),
                details={"job": first.object.job_id},
            ),
            job=first.object.job_id,
        )

    def sent(self, delivery: Delivery, address: str, *, accepted: bool, answer: str) -> None:
        """DICOM Instances Transferred (A.5.3.7): one object with the receiver's answer."""
        outcome = Outcome.SUCCESS if accepted else Outcome.SERIOUS_FAILURE
        self._transferred("sent" if accepted else "rejected", delivery, address, outcome, answer)

    def confirmed(self, delivery: Delivery, *, held: bool, answer: str) -> None:
        """DICOM Instances Transferred (A.5.3.7): what the receiver later says of an object: it holds it, or not."""
        outcome = Outcome.SUCCESS if held else Outcome.MINOR_FAILURE
        self._transferred("confirmed" if held else "not confirmed", delivery, "", outcome, answer)

    def _transferred(self, kind: str, delivery: Delivery, address: str, outcome: Outcome, answer: str) -> None:
        made = delivery.object
        details = {
            "job": made.job_id,
            "kind": made.kind,
            "object sha256": made.sha256,
            "destination": delivery.destination,
            "attempt": str(delivery.attempts + 1),
            "answer": answer,
        }
        self._write(
            kind,
            Event(
                identity=message.INSTANCES_TRANSFERRED,
                action=Action.READ,
                outcome=outcome,
                participants=self._to_peer(delivery.destination, address),
                description=answer,
                about=Study(study_instance_uid=made.study_instance_uid, instances=_by_class((made,)), details=details),
            ),
            job=made.job_id,
        )

    def alert(self, address: str, reason: str, *, kind: Code = message.NODE_AUTHENTICATION) -> None:
        """Security Alert (A.5.3.11), at most once a minute for an address and reason: a flood fills no disk."""
        with self._lock:
            due, left_out = self._alerts.get((address, reason), (0.0, 0))
            now = self._clock()
            if now < due:
                self._alerts[address, reason] = (due, left_out + 1)
                return
            if len(self._alerts) >= _MAXIMUM_ALERTS:
                self._alerts.clear()
            self._alerts[address, reason] = (now + ALERT_EVERY_S, 0)
        details = {"reason": reason, **({"same alerts left out before": str(left_out)} if left_out else {})}
        self._write(
            "alert",
            Event(
                identity=message.SECURITY_ALERT,
                action=Action.EXECUTE,
                outcome=Outcome.MINOR_FAILURE,
                kind=kind,
                description=reason,
                participants=(self._ourselves(),),
                about=Subject(identifier=address, is_node=True, details=details),
            ),
        )

    def purged(self, what: str, details: Mapping[str, str]) -> None:
        """DICOM Instances Accessed with action D: what retention removed."""
        self._write("deleted", self._deletion(message.INSTANCES_ACCESSED, what, details))

    def log_purged(self, *, number: int, digest: str) -> None:
        """Audit Log Used (A.5.3.2): retention is about to remove all records up to this one."""
        event = self._deletion(message.AUDIT_LOG_USED, str(self._log.folder), {"records up to": str(number)})
        # Without this record an intact log would look tampered with: here a failure must stop.
        self._log.append(kind=PURGED, message=self._xml(event), note=anchor(number, digest))

    def _begin(self, kind: str, participants: tuple[Participant, ...], study: Study, *, job: str = "") -> None:
        event = Event(
            identity=message.BEGIN_TRANSFERRING,
            action=Action.EXECUTE,
            outcome=Outcome.SUCCESS,
            participants=participants,
            about=study,
        )
        self._write(kind, event, job=job)

    def _deletion(self, identity: Code, what: str, details: Mapping[str, str]) -> Event:
        return Event(
            identity=identity,
            action=Action.DELETE,
            outcome=Outcome.SUCCESS,
            participants=(self._ourselves(),),
            about=Subject(identifier=what, is_node=False, details=details),
        )

    def _activity(self, kind: Code) -> None:
        self._write(
            kind.meaning.lower(),
            Event(
                identity=message.APPLICATION_ACTIVITY,
                action=Action.EXECUTE,
                outcome=Outcome.SUCCESS,
                kind=kind,
                participants=(self._ourselves(),),
                about=Subject(
                    identifier=self._source,
                    is_node=True,
                    details={"software": _software(), "settings sha256": self._settings_sha256},
                ),
            ),
        )

    def _write(self, kind: str, event: Event, *, job: str = "") -> None:
        study = event.about.study_instance_uid if isinstance(event.about, Study) else ""
        try:
            self._log.append(kind=kind, message=self._xml(event), study=study, job=job)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            log.error("the audit log cannot be written: %s", reason)  # noqa: TRY400
            self._failed()

    def _xml(self, event: Event) -> str:
        return to_xml(event, at=datetime.fromtimestamp(self._clock(), UTC), source=self._source)

    def _ourselves(self) -> Participant:
        return Participant(user_id=f"pellucid {self._process} {os.getpid()}", role=message.APPLICATION, requestor=False)

    def _from_peer(self, calling: str, address: str, called: str) -> tuple[Participant, ...]:
        return (
            Participant(user_id=calling, role=message.SOURCE_ROLE, requestor=True, ae_title=calling, address=address),
            Participant(user_id=called, role=message.DESTINATION_ROLE, requestor=False, ae_title=called),
        )

    def _to_peer(self, destination: str, address: str) -> tuple[Participant, ...]:
        return (
            Participant(user_id=f"pellucid {self._process}", role=message.SOURCE_ROLE, requestor=True),
            Participant(user_id=destination, role=message.DESTINATION_ROLE, requestor=False, address=address),
        )


def _by_class(made: tuple[OutboxObject, ...]) -> dict[str, tuple[str, ...]]:
    classes: dict[str, tuple[str, ...]] = {}
    for entry in made:
        classes[entry.sop_class_uid] = (*classes.get(entry.sop_class_uid, ()), entry.sop_instance_uid)
    return classes


@cache
def _software() -> str:
    return f"pellucid {version('pellucid')}"


def open_trail(settings: Settings, process: str, *, failed: Callable[[], None] = lambda: None) -> Trail:
    """Return the trail of a process."""
    return Trail(
        open_log(settings),
        process=process,
        source=settings.audit.source_id,
        settings_sha256=settings_digest(settings),
        failed=failed,
    )
