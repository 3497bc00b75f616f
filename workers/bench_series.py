"""The same benches for models of CT and MR series: where maps lie on phantom heads, and what verdicts they get."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from service.pipelines import Explanation
from service.results import Verdict
from workers.assessors.series_calibration import gather_heads, kind_of, modality_of
from workers.assessors.stack_regions import patient
from workers.assessors.tube import HEADS, as_series, head, teach_tube
from workers.assessors.verdict import of_kind
from workers.evaluation.localisation import Place, centre_prior, place, soften
from workers.explainers.cam import GradCam
from workers.series_reading import explain_series, find_in_series

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from service.images import Series
    from service.results import Attribution
    from workers.assessors.calibration import Gathered
    from workers.assessors.case import Criterion
    from workers.interfaces import Explainer
    from workers.models.package import PackagedClassifier

FIRST_HEAD = 7_000_000
"""Seed of the first phantom; no training run and no other benchmark draws from here on."""


@dataclass(kw_only=True)
class Tally:
    """What is known so far of one method's maps."""

    places: list[Place] = field(default_factory=list)
    verdicts: dict[str, dict[str, int]] = field(default_factory=dict)
    """How often each verdict was given, by whether the map's maximum lay in the lesion."""

    def add(self, attribution: Attribution, lesion: NDArray[np.bool_]) -> None:
        """Note one map."""
        found = place(attribution.map, lesion)
        self.places.append(found)
        if attribution.assessment is not None:
            counts = self.verdicts.setdefault("pointing" if found.points else "missing", dict.fromkeys(Verdict, 0))
            counts[attribution.assessment.verdict] += 1

    def as_dict(self) -> dict[str, object]:
        """Return means for the report."""
        known: dict[str, object] = {"n": len(self.places), **mean_place(self.places)}
        return known | ({"verdicts": self.verdicts} if self.verdicts else {})


def mean_place(places: Sequence[Place]) -> dict[str, float]:
    """Return the means over places; nothing for none."""
    rows = [asdict(one) for one in places]
    return {name: round(float(np.mean([row[name] for row in rows])), 4) for name in (rows[0] if rows else {})}


def localise_heads(
    classifier: PackagedClassifier,
    explainers: Sequence[Explainer],
    count: int,
    *,
    dear: int,
    advance: Callable[[int], None],
) -> dict[str, object]:
    """Explain `count` phantom heads with a lesion by every method as the service would; dear ones only first `dear`.

    Beside them stand chance (the lesion's share of the volume), a bell in the middle, and the estimate of the patient.
    Where a model reads slices, those that it calls are explained, and the map is 0 elsewhere: it has gone half of the
    way by calling them, and `chance_in_slices` says what is left to chance.
    """
    modality = modality_of(classifier)
    tallies: dict[str, Tally] = {}
    centre, body, area, left, called = Tally(), Tally(), [], [], 0
    unsupported: dict[str, None] = {}
    for index in range(count):
        phantom = head(modality, FIRST_HEAD + index, sick=True)
        series = as_series(phantom, modality)
        findings = find_in_series(classifier, series)
        called += findings[0].positive
        chosen = [one for one in explainers if one.cost <= 100 or index < dear]  # noqa: PLR2004 - said in the help
        explained = explain_series(
            classifier, chosen, series, findings=findings, labels=[0], limits=Explanation(), doubts={}
        )
        for attribution in explained.attributions:
            tallies.setdefault(attribution.method, Tally()).add(attribution, phantom.lesion)
        unsupported |= dict.fromkeys(explained.unavailable)
        shown = [np.flatnonzero(attribution.map.any(axis=(1, 2))) for attribution in explained.attributions[:1]]
        left += [float(phantom.lesion[slices].mean()) for slices in shown if len(slices)]
        centre.places.append(place(centre_prior(phantom.lesion.shape), phantom.lesion))
        body.places.append(place(_body(series), phantom.lesion))
        area.append(float(phantom.lesion.mean()))
        advance(1)
    return {
        "model": classifier.card.name,
        "model_sha256": classifier.card.weights.sha256,
        "reading": kind_of(classifier).value,
        "n": count,
        "called": round(called / count, 4),
        "chance": round(float(np.mean(area)), 5),
        "chance_in_slices": round(float(np.mean(left)), 5) if left else 0.0,
        "centre_prior": centre.as_dict(),
        "body_prior": body.as_dict(),
        "methods": {name: tally.as_dict() for name, tally in tallies.items()},
        "unsupported": list(unsupported),
    }


def _body(series: Series) -> NDArray[np.float32]:
    return soften(patient(series).astype(np.float32))


def gather_series(
    classifier: PackagedClassifier, *, heads: int, tubes: int, progress: Callable[[str, int], Callable[[int], None]]
) -> Gathered:
    """Teach the tube reader, then measure good and bad maps by Grad-CAM; `progress` begins a bar."""
    advance = progress("drawing the tube reader's lessons", HEADS)
    shortcut = teach_tube(classifier.card, modality_of(classifier), 1, advance)
    advance = progress("measuring", heads + tubes)
    return gather_heads(classifier, GradCam(), shortcut, heads=heads, tubes=tubes, advance=advance)


def criteria_of_series(classifier: PackagedClassifier, criteria: Sequence[Criterion]) -> tuple[Criterion, ...]:
    """Return the criteria that hold for what the model is given of a series."""
    return of_kind(criteria, kind_of(classifier))[0]
