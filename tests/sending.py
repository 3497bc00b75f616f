"""Results that wait to be sent, and a sender that is driven by hand."""

from __future__ import annotations

import hashlib
import threading
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import select

from dicom_nodes.confirmation import Confirmer
from dicom_nodes.listener import run_listener
from dicom_nodes.sender import Sender
from service.audit.trail import open_trail
from service.ledger.arrivals import Arrivals
from service.ledger.creation import NewJob
from service.ledger.database import open_database
from service.ledger.delivery import Deliveries
from service.ledger.report import Reports
from service.ledger.schema import deliveries
from service.ledger.work import Work
from service.outbox import open_outbox
from service.records import Instance, OutboxObject
from service.settings import Settings, load_settings
from tests.network import CR, cr_image, write_image
from tests.waiting import comes_true

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pynetdicom.ae import ApplicationEntity


def settings_for(folder: Path, *, our_port: int = 11112, **peer: str | int) -> Settings:
    """Settings with one peer, AE title PACS, and short pauses."""
    values = {"ae_title": "PACS", **peer}
    text = ", ".join(
        f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}" for key, value in values.items()
    )
    return load_settings(
        None,
        {
            "PELLUCID__STATE__DIRECTORY": str(folder / "state"),
            "PELLUCID__LISTENER__PORT": str(our_port),
            "PELLUCID__LISTENER__MINIMUM_FREE_MB": "0",
            "PELLUCID__PIPELINES__ENABLED": "[]",
            "PELLUCID__PEERS": f"{{archive = {{{text}}}}}",
            "PELLUCID__SENDER__FIRST_RETRY_S": "0.1",
            "PELLUCID__SENDER__LONGEST_RETRY_S": "0.2",
            "PELLUCID__SENDER__CONFIRM_TIMEOUT_S": "0.4",
        },
    )


@contextmanager
def listening(settings: Settings) -> Iterator[None]:
    """Run the listener, which hears the peer's reports."""
    stop = threading.Event()
    thread = threading.Thread(target=run_listener, args=(settings, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=60)
        assert not thread.is_alive()


class Desk:
    """A sender that is driven by hand."""

    def __init__(self, settings: Settings) -> None:
        self.sender = Sender(settings)
        self.engine = open_database(settings.database_url)
        self.confirmer = Confirmer(Deliveries(self.engine), settings, open_trail(settings, "sender"))

    def deliver(self) -> int:
        return self.sender.deliver("@PACS", threading.Event())

    def confirm(self) -> None:
        self.confirmer.confirm("@PACS", threading.Event())

    def states(self) -> list[str]:
        with self.engine.connect() as connection:
            return sorted(connection.execute(select(deliveries.c.state)).scalars())

    def column(self, name: str) -> list[str]:
        with self.engine.connect() as connection:
            return list(connection.execute(select(deliveries.c[name])).scalars())

    def until(self, *states: str, confirm: bool = True) -> None:
        """Work until the objects are in these states."""

        def reached() -> bool:
            self.deliver()
            if confirm:
                self.confirm()
            return self.states() == sorted(states)

        assert comes_true(reached, 30), (self.states(), self.column("reason"))


def entity_reaches(entity: ApplicationEntity, port: int) -> bool:
    """Tell whether our listener answers yet."""
    association = entity.associate("127.0.0.1", port, ae_title="PELLUCID")
    reached = bool(association.is_established)
    if reached:
        association.release()
    return reached


def finished_job(settings: Settings, folder: Path, *, count: int = 1, destination: str = "@PACS") -> Reports:
    """Put a job with objects for a destination into the ledger and the outbox."""
    engine = open_database(settings.database_url)
    source = Instance(
        sop_instance_uid="1.1", sop_class_uid=CR, study_instance_uid="1.2.3", series_instance_uid="1.2.3.1",
        transfer_syntax_uid="1.2.840.10008.1.2.1", modality="CR", sha256="a" * 64, size=1, key="k",
        calling_ae="PACS", called_ae="PELLUCID", address="127.0.0.1", received_at=datetime.now(UTC),
    )  # fmt: skip
    Arrivals(engine).record(source, association="a", association_expires_at=0.0)
    work = Work(engine)
    work.assign(
        [
            NewJob(
                id="j" * 32, study_instance_uid="1.2.3", pipeline="p", pipeline_version="1", model_sha256="m",
                calling_ae="PACS", called_ae="PELLUCID", priority="routine", sop_instance_uids=("1.1",),
            )
        ],
        [source],
    )  # fmt: skip
    made = []
    for index in range(count):
        uid = f"1.2.9.{index}"
        data = write_image(folder / f"{index}.dcm", cr_image(uid)).read_bytes()
        made.append(
            OutboxObject(
                sop_instance_uid=uid, sop_class_uid=CR, study_instance_uid="1.2.3", series_instance_uid="1.2.3.1",
                transfer_syntax_uid="1.2.840.10008.1.2.1", job_id="j" * 32, kind=f"kind-{index}",
                key=open_outbox(settings).keep("j" * 32, data), sha256=hashlib.sha256(data).hexdigest(),
                size=len(data),
            )
        )  # fmt: skip
    claim = work.claim("j" * 32, lease_s=10, maximum_attempts=3)
    assert claim is not None
    work.finish(claim, made, [destination])
    return Reports(engine)
