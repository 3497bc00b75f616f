"""Starts a `pellucid` command with faults built in: `python sabotage.py FAULT[,FAULT] COMMAND`.

Only the campaign runs this, in processes of its own. Each fault is either a deliberately broken build, which the
campaign must catch, or a study that poisons whoever reads it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

POISON_VARIABLE = "CAMPAIGN_POISON"
"""Names a file: SOP Instance UID to `hang`, `memory` or `crash`."""
CRASHES_VARIABLE = "CAMPAIGN_CRASHES"
"""Names a folder: each crash point kills once for each file that it can take away there."""
ACKNOWLEDGED_EARLY_S = 1.5


def acknowledge_early() -> None:
    """Success is said before the instance is durable and in the ledger."""
    from dicom_nodes import reception  # noqa: PLC0415
    from dicom_nodes.status import SUCCESS, Answer  # noqa: PLC0415

    durable = reception._Arriving.finish
    discard = reception._Arriving.discard

    def finish(self: Any) -> Answer:
        def later() -> None:
            time.sleep(ACKNOWLEDGED_EARLY_S)
            durable(self)
            discard(self)

        threading.Thread(target=later, daemon=True).start()
        return Answer(status=SUCCESS)

    reception._Arriving.finish = finish
    reception._Arriving.discard = lambda _self: None


def no_lease() -> None:
    """A job that is being worked on can be taken by anybody."""
    from service.ledger import leases  # noqa: PLC0415
    from service.ledger.schema import jobs  # noqa: PLC0415
    from service.records import JobState  # noqa: PLC0415

    leases.claimable = lambda _now: jobs.c.state.in_((JobState.QUEUED, JobState.RUNNING))


def random_uids() -> None:
    """A repeated task gives its objects other UIDs."""
    from dicom_nodes.objects import identity  # noqa: PLC0415

    identity.sop_instance_uid = lambda **_parts: f"2.25.{uuid.uuid4().int}"


def no_sweep() -> None:
    """Nobody looks for jobs whose wake-up call was lost."""
    from service.intake import Intake  # noqa: PLC0415

    Intake.sweep = lambda _self: 0  # type: ignore[method-assign]


def crash_before_finish() -> None:
    """The worker dies after its objects are in the outbox and before the ledger knows."""
    from service.ledger.work import Work  # noqa: PLC0415

    finish = Work.finish

    def dying(self: Work, *arguments: Any, **named: Any) -> None:
        die_once("before-finish")
        finish(self, *arguments, **named)

    Work.finish = dying  # type: ignore[method-assign]


def crash_before_record() -> None:
    """The listener dies after the file is durable and before its row is."""
    from service.ledger.arrivals import Arrivals  # noqa: PLC0415

    record_all = Arrivals.record_all

    def dying(self: Arrivals, entries: Any) -> Any:
        die_once("before-record")
        return record_all(self, entries)

    Arrivals.record_all = dying  # type: ignore[method-assign]


def crash_after_record() -> None:
    """The listener dies after the row is durable and before the peer hears of it."""
    from service.ledger.arrivals import Arrivals  # noqa: PLC0415

    record_all = Arrivals.record_all

    def dying(self: Arrivals, entries: Any) -> Any:
        found = record_all(self, entries)
        die_once("after-record")
        return found

    Arrivals.record_all = dying  # type: ignore[method-assign]


def crash_after_send() -> None:
    """The sender dies after the PACS took an object and before the ledger knows."""
    from service.ledger.delivery import Deliveries  # noqa: PLC0415

    for name in ("sent", "delivered"):
        _dying_settlement(Deliveries, name)


def _dying_settlement(owner: Any, name: str) -> None:
    settle = getattr(owner, name)

    def dying(self: Any, *arguments: Any, **named: Any) -> None:
        die_once("after-send")
        settle(self, *arguments, **named)

    setattr(owner, name, dying)


def poisoned() -> None:
    """Some studies hang, exhaust memory or crash native code in the worker that reads them."""
    from workers.tasks import JobRunner  # noqa: PLC0415

    analyse = JobRunner._analyse_unit

    def swallow(self: JobRunner, analyst: Any, claim: Any, unit: Any) -> Any:
        poisons = json.loads(Path(os.environ[POISON_VARIABLE]).read_text())
        for instance in unit:
            _suffer(poisons.get(instance.sop_instance_uid, ""))
        return analyse(self, analyst, claim, unit)

    JobRunner._analyse_unit = swallow  # type: ignore[method-assign]


def _suffer(poison: str) -> None:
    if poison == "hang":
        while True:
            time.sleep(60)
    elif poison == "memory":
        held = [bytearray(50 << 20) for _ in range(8)]
        # As the kernel ends a process when memory is out, without exhausting a machine that others use too.
        os.kill(os.getpid(), signal.SIGKILL)
        del held
    elif poison == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)


def shifted_clock() -> None:
    """The clock of this machine is off by as many seconds as a file says, from whenever it says so."""
    real, order = time.time, Path(os.environ[CRASHES_VARIABLE]) / "clock"

    def shifted() -> float:
        try:
            return real() + float(order.read_text())
        except (FileNotFoundError, ValueError):
            return real()

    time.time = shifted


def deaf() -> None:
    """On order, the worker lives on and asks its broker for nothing more."""
    from service.redis_queue import QoS  # noqa: PLC0415

    hears, order = QoS.can_consume, Path(os.environ[CRASHES_VARIABLE]) / "deaf"
    since: list[float] = []

    def can_consume(self: Any) -> bool:
        if not since and order.exists():
            order.unlink()
            since.append(time.time())
        return bool(not since and hears(self))

    QoS.can_consume = can_consume


def die_once(point: str) -> None:
    """Kill this process if the campaign ordered a death at this point; each order is carried out once."""
    order = Path(os.environ[CRASHES_VARIABLE]) / point
    try:
        order.unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


FAULTS = {
    "acknowledge-early": acknowledge_early,
    "no-lease": no_lease,
    "random-uids": random_uids,
    "no-sweep": no_sweep,
    "crash-before-finish": crash_before_finish,
    "crash-before-record": crash_before_record,
    "crash-after-record": crash_after_record,
    "crash-after-send": crash_after_send,
    "poisoned": poisoned,
    "shifted-clock": shifted_clock,
    "deaf": deaf,
}


FRESH_ONLY = frozenset({"random-uids", "shifted-clock"})
"""These come before anything imports the names that they change: no process with imports can be forked for them."""


def run(arguments: list[str]) -> None:
    """Build the faults in and be `pellucid`."""
    names, *command = arguments
    for entry in filter(None, names.split(",")):
        FAULTS[entry]()
    from service.cli import main  # noqa: PLC0415

    sys.argv = ["pellucid", *command]
    main()


if __name__ == "__main__":
    run(sys.argv[1:])
