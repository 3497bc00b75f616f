"""Notes what comes over the network: for the audit trail, the metrics and the traces."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from service.audit import message
from service.tracing import Traces

if TYPE_CHECKING:
    from service.audit.trail import Trail
    from service.ledger.arrivals import Outcome
    from service.metrics import ListenerMetrics
    from service.records import Instance


class Witness:
    """Sees everything and notes nothing; `RecordingWitness` does."""

    def arrived(self, association: str, instance: Instance, outcome: Outcome) -> None:
        """An instance is in the ledger."""

    def refused(self, status: int) -> None:
        """An instance was answered with a status that is not success."""

    def ended(self, association: str) -> None:
        """An association ended."""

    def turned_away(self, address: str, kind: str, reason: str) -> None:
        """A connection or association was refused; `kind` is one of a few words, `reason` says it in full."""


@dataclass(kw_only=True)
class _Carried:
    example: Instance
    begun_at: float
    classes: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)


class RecordingWitness(Witness):
    """Writes audit messages, counts, and notes what an association carried of a study in its trace."""

    def __init__(self, trail: Trail, metrics: ListenerMetrics, traces: Traces | None = None) -> None:
        self._trail = trail
        self._metrics = metrics
        self._traces = traces or Traces()
        self._lock = threading.Lock()
        self._carried: dict[str, dict[str, _Carried]] = {}

    def arrived(self, association: str, instance: Instance, outcome: Outcome) -> None:
        """Count; the first instance of a study on an association is audited at once."""
        self._metrics.instances.labels(outcome.replace(" ", "-")).inc()
        self._metrics.bytes.inc(instance.size)
        with self._lock:
            studies = self._carried.setdefault(association, {})
            first = instance.study_instance_uid not in studies
            carried = studies.setdefault(instance.study_instance_uid, _Carried(example=instance, begun_at=time.time()))
            carried.classes[instance.sop_class_uid] += 1
            carried.outcomes[outcome] += 1
        if first:
            self._trail.receiving(instance)

    def refused(self, status: int) -> None:
        """Count."""
        self._metrics.instances.labels("refused").inc()
        self._metrics.refused.labels(f"0x{status:04X}").inc()

    def ended(self, association: str) -> None:
        """Audit what it stored of each study."""
        with self._lock:
            studies = self._carried.pop(association, {})
        for carried in studies.values():
            details = {str(outcome): str(count) for outcome, count in carried.outcomes.items()}
            self._trail.received(carried.example, carried.classes, details)
            self._traces.note(
                "receive",
                carried.example.study_instance_uid,
                begun_at=carried.begun_at,
                association=association,
                instances=carried.outcomes.total(),
            )

    def turned_away(self, address: str, kind: str, reason: str) -> None:
        """Alert and count."""
        self._metrics.rejected.labels(kind).inc()
        if kind == "limit":
            return  # a busy modality, not an intruder
        known = kind in {"called-ae", "calling-ae"}
        self._trail.alert(
            address, reason, kind=message.USE_OF_RESTRICTED_FUNCTION if known else message.NODE_AUTHENTICATION
        )
