"""What Prometheus is told. Labels are names of ours, states and classes of reasons: no UID, no patient data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from service.errors import UndecodableError
from service.records import JobState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

    from service.ledger.report import Backlog, Reports

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60, 120, 300)
_REASONS = {
    "modality": "modality",
    "has no pixels": "no-pixels",
    "frames in one instance": "multi-frame",
    "conversion type": "made-picture",
    "animal": "species",
    "body part": "body-part",
    "view": "view",
    "model needs at least": "size",
}
_REFUSED = ("0xA700", "0xA900", "0xC000")
_ALIVE_WITHIN_S = 20.0


def reason_class(error: Exception) -> str:
    """Put a refusal into one of a few classes, whose names hold nothing of the image."""
    if isinstance(error, UndecodableError):
        return "undecodable"
    text = str(error)
    return next((name for words, name in _REASONS.items() if words in text), "other")


class ListenerMetrics:
    """What the listener counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.instances = Counter(
            "pellucid_instances_received", "Instances by what became of them.", ["outcome"], registry=registry
        )
        self.refused = Counter(
            "pellucid_instances_refused", "Instances refused, by DIMSE status.", ["status"], registry=registry
        )
        # Prometheus sees no rise in a series that begins at 1.
        for status in _REFUSED:
            self.refused.labels(status)
        self.bytes = Counter("pellucid_received_bytes", "Bytes of data sets that were kept.", registry=registry)
        self.rejected = Counter(
            "pellucid_associations_rejected", "Associations and connections refused.", ["reason"], registry=registry
        )
        self.audit_failures = _audit_failures(registry)


class WorkerMetrics:
    """What a worker counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.jobs = Counter(
            "pellucid_jobs_ended", "Attempts by how they ended.", ["pipeline", "state"], registry=registry
        )
        self.stages = Histogram(
            "pellucid_stage_seconds",
            "Duration of the stages of a job: waiting, analysing, explaining (a part of analysing), writing.",
            ["stage"],
            registry=registry,
            buckets=_SECONDS,
        )
        self.verdicts = Counter(
            "pellucid_verdicts",
            "Findings at or above (positive) and below (negative) their operating point.",
            ["pipeline", "finding", "verdict"],
            registry=registry,
        )
        self.refusals = Counter(
            "pellucid_refusals", "Images not analysed, by class of reason.", ["pipeline", "reason"], registry=registry
        )
        self.audit_failures = _audit_failures(registry)


class SenderMetrics:
    """What a sender counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.deliveries = Counter(
            "pellucid_deliveries", "Tries to send by their outcome.", ["destination", "outcome"], registry=registry
        )
        self.audit_failures = _audit_failures(registry)


def _audit_failures(registry: CollectorRegistry) -> Counter:
    return Counter("pellucid_audit_failures", "Audit records that could not be written.", registry=registry)


class LedgerCollector(Collector):
    """Reads the ledger when asked. Every process that shows it shows the same: take the maximum, not the sum."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports

    def describe(self) -> list[Metric]:
        """Nothing in advance: the ledger may be away when the process starts."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Ask the ledger; when it is away, say that alone."""
        up = GaugeMetricFamily("pellucid_ledger_up", "1 when the ledger answers.")
        try:
            backlog = self._reports.backlog()
            alive = [report.name for report in self._reports.alive(within_s=_ALIVE_WITHIN_S)]
        except Exception:  # noqa: BLE001 -- whatever a database raises, the answer is that it is down
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        yield from _backlog(backlog)
        processes = GaugeMetricFamily("pellucid_processes", "Processes that are alive.", labels=["name"])
        for name in sorted({*alive, "listener", "worker", "sender"}):
            processes.add_metric([name], alive.count(name))
        yield processes


def _backlog(backlog: Backlog) -> Iterator[Metric]:
    jobs = GaugeMetricFamily("pellucid_jobs", "Jobs in the ledger by state.", labels=["state"])
    for each in JobState:
        jobs.add_metric([each], backlog.jobs.get(each, 0))
    yield jobs
    deliveries = GaugeMetricFamily(
        "pellucid_outbox_objects", "Objects that are not delivered.", labels=["destination", "state"]
    )
    for (destination, state), count in sorted(backlog.undelivered.items()):
        deliveries.add_metric([destination, state], count)
    yield deliveries
    for name, text, value in (
        ("pellucid_queue_age_seconds", "Age of the oldest job that waits for a worker.", backlog.queue_age_s),
        ("pellucid_outbox_age_seconds", "Age of the oldest object that waits for delivery.", backlog.outbox_age_s),
        ("pellucid_instances_set_aside", "Instances set aside: a known UID with other content.", backlog.set_aside),
    ):
        gauge = GaugeMetricFamily(name, text)
        gauge.add_metric([], value)
        yield gauge
