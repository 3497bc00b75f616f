"""Runs one explanation method and its peer in turns on one image, and measures both alike."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Self, TypeVar

import psutil
import torch

from service.errors import ModelError, UnsupportedMethodError
from workers.assessors.case import Scene, Subject
from workers.assessors.faithfulness import Curves
from workers.bench_peers import PEERS, PeerMap, Task, quiet
from workers.explainers.hiding import HiddenImage, replacement
from workers.explainers.passes import Gradients
from workers.explainers.pool import forget_pools
from workers.registry import load_explainers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from workers.interfaces import Explainer, Explanation
    from workers.models.package import PackagedClassifier

T = TypeVar("T")
POLL_S = 0.02
SINGLE = 12
"""Methods up to this cost are over so soon that starting up would be most of what is timed; they run once before."""


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What one call cost."""

    seconds: float
    cpu_seconds: float


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One method beside its peer; None where there is no peer, or nothing can be said."""

    seconds: float | None = None
    cpu_seconds: float | None = None
    samples: int | None = None
    """Forward passes that the method reports."""
    deletion_auc: float | None = None
    """Low is good."""
    insertion_auc: float | None = None
    """High is good."""
    peer: str | None = None
    peer_seconds: float | None = None
    peer_cpu_seconds: float | None = None
    peer_samples: int | None = None
    """Inputs that the library gives the network by its default."""
    peer_samples_run: int | None = None
    """Those that were run. With fewer than by default the time of the others is added, at the pace of the network
    alone, and nothing is said of fidelity."""
    peer_deletion_auc: float | None = None
    peer_insertion_auc: float | None = None
    ratio: float | None = None
    """Wall time of the peer over ours."""
    cpu_ratio: float | None = None
    """Processor time of the peer over ours: what a busy machine disturbs less."""
    failed: str | None = None
    peer_failed: str | None = None


class Bench:
    """Runs methods and peers in turns on one image.

    Args:
        classifier: with a network.
        image: what is explained, (1, channels, rows, columns).
        other: another image, to start up with.
        limit: of a peer's samples, see `Task.limit`.
    """

    def __init__(
        self, classifier: PackagedClassifier, image: torch.Tensor, other: torch.Tensor, limit: int | None = None
    ) -> None:
        if classifier.network is None:
            raise ModelError(f"model '{classifier.card.name}' has no graph to give to the other libraries")
        self._classifier, self._other = classifier, other
        logits = classifier.exact_logits(image)[0]
        self.task = Task(
            network=classifier.network,
            layer=classifier.card.weights.cam_layer,
            batch=image,
            hidden=replacement(image, "dark"),
            label=int(logits.argmax()),
            limit=limit,
        )
        self._curves = Curves(Scene(classifier=classifier, batch=image, seed=0), self.task.label)
        self.peak_mb = 0.0
        # A worker has its model loaded and its copies made: both start up once, on another image.
        HiddenImage(classifier, other, "dark")
        Gradients(classifier, image.shape[1:], "auto")
        with torch.no_grad():
            self.task.network(other)

    def together(self, methods: Sequence[str]) -> Spent:
        """Run methods one after the other, as a worker does: the cheapest first, sharing what they share."""
        explainers = sorted(load_explainers(methods, {}), key=lambda explainer: explainer.cost)
        forget_pools()

        def run() -> None:
            for explainer in explainers:
                with suppress(UnsupportedMethodError):
                    self._explain(explainer)

        return timed(run)[1]

    def compare(self, method: str, *, with_peers: bool) -> Figures:
        """Run one method, as if it were alone, and its peer."""
        (explainer,) = load_explainers([method], {})
        forget_pools()
        short = explainer.cost <= SINGLE
        ours = self._ours(explainer, short=short)
        if not with_peers or method not in PEERS:
            return ours
        title, peer = PEERS[method]
        return self._beside(ours, title, peer, short=short)

    def _ours(self, explainer: Explainer, *, short: bool) -> Figures:
        try:
            if short:
                explainer.explain(self._classifier, self._other, [self.task.label])
            with Memory() as memory:
                (explanation,), spent = timed(partial(self._explain, explainer))
        except UnsupportedMethodError as error:
            return Figures(failed=str(error))
        self.peak_mb = max(self.peak_mb, memory.peak_mb)
        deletion, insertion = self._fidelity(explanation.map)
        reported = [measure.value for measure in explanation.measures if measure.name == "samples"]
        return Figures(
            seconds=spent.seconds,
            cpu_seconds=spent.cpu_seconds,
            samples=int(reported[0]) if reported else None,
            deletion_auc=deletion,
            insertion_auc=insertion,
        )

    def _explain(self, explainer: Explainer) -> list[Explanation]:
        return explainer.explain(self._classifier, self.task.batch, [self.task.label])

    def _beside(self, ours: Figures, title: str, peer: Callable[[Task], PeerMap], *, short: bool) -> Figures:
        try:
            with quiet():
                if short:
                    peer(replace(self.task, batch=self._other))
                found, spent = timed(partial(peer, self.task))
        except ImportError as error:
            return replace(ours, peer=title, peer_failed=f"{error.name} is absent: install the extra 'peers'")
        except Exception as error:  # noqa: BLE001 - what a library cannot do with this network is a result
            return replace(ours, peer=title, peer_failed=f"{type(error).__name__}: {str(error)[:200]}")
        deletion, insertion = (None, None) if found.left else self._fidelity(found.map)
        seconds = round(spent.seconds + found.left_seconds, 4)
        cpu_seconds = round(spent.cpu_seconds + found.left_cpu_seconds, 4)
        return replace(
            ours,
            peer=title,
            peer_seconds=seconds,
            peer_cpu_seconds=cpu_seconds,
            peer_samples=found.samples + found.left,
            peer_samples_run=found.samples,
            peer_deletion_auc=deletion,
            peer_insertion_auc=insertion,
            ratio=_ratio(seconds, ours.seconds),
            cpu_ratio=_ratio(cpu_seconds, ours.cpu_seconds),
        )

    def _fidelity(self, values: torch.Tensor) -> tuple[float, float]:
        subject = Subject(method="", title="", label=self.task.label, map=values)
        areas = self._curves.of(self._curves.order(subject.cells))
        return round(areas.deletion, 4), round(areas.insertion, 4)


class Memory:
    """The most memory that the process (or the GPU) held meanwhile, in MB."""

    peak_mb = 0.0

    def __enter__(self) -> Self:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        if torch.cuda.is_available():
            self.peak_mb = torch.cuda.max_memory_allocated() / 1e6

    def _watch(self) -> None:
        process = psutil.Process()
        while True:
            self.peak_mb = max(self.peak_mb, process.memory_info().rss / 1e6)
            if self._ended.wait(POLL_S):
                return


def timed(run: Callable[[], T]) -> tuple[T, Spent]:
    """Return what a call returned and what it cost, the GPU's work included."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    return result, Spent(seconds=round(seconds, 4), cpu_seconds=round(cpu_seconds, 4))


def total(found: Mapping[str, Figures], together: Spent | None = None) -> dict[str, object]:
    """Sum up the methods that ran on both sides; the others are named, and in no sum.

    `together` is what the same methods cost one after the other, when they share what they can.
    """
    both = {name: f for name, f in found.items() if f.seconds is not None and f.peer_seconds is not None}
    ours = [sum(getattr(f, key) for f in both.values()) for key in ("seconds", "cpu_seconds")]
    theirs = [sum(getattr(f, key) for f in both.values()) for key in ("peer_seconds", "peer_cpu_seconds")]
    return {
        "seconds": round(ours[0], 3),
        "peer_seconds": round(theirs[0], 3),
        "ratio": _ratio(theirs[0], ours[0]),
        "cpu_ratio": _ratio(theirs[1], ours[1]),
        "together_seconds": together and together.seconds,
        "together_ratio": _ratio(theirs[0], together.seconds) if together else None,
        "together_cpu_ratio": _ratio(theirs[1], together.cpu_seconds) if together else None,
        "methods": sorted(both),
        "peers_extrapolated": sorted(name for name, f in both.items() if f.peer_samples != f.peer_samples_run),
        "without_peer": sorted(name for name in found if name not in both),
        "seconds_without_peer": round(sum(f.seconds or 0.0 for name, f in found.items() if name not in both), 3),
    }


def _ratio(theirs: float | None, ours: float | None) -> float | None:
    return round(theirs / ours, 2) if theirs is not None and ours else None
