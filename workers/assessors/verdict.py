"""From figures to one honest verdict with reasons: each criterion votes, the worst vote counts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from service.errors import SettingsError
from service.results import Assessment, Verdict
from service.validation import nearest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from service.pipelines import Threshold
    from service.results import Measure
    from workers.assessors.case import Criterion, Kind

UNMEASURED = "Nothing was measured of this explanation, which is no reason to trust it."
EMPTY = "The map marks nothing: no place speaks for the finding."


@dataclass(frozen=True, kw_only=True)
class Vote:
    """What one criterion says of one figure."""

    verdict: Verdict
    reason: str


def judge(
    measures: Sequence[Measure],
    criteria: Sequence[Criterion],
    *,
    doubts: Sequence[str] = (),
    senseless: Sequence[str] = (),
) -> Assessment:
    """Return the verdict on one map.

    Args:
        measures: what was measured.
        criteria: what the figures are held against. A required one whose figure is missing means caution: what
            was not measured is not known to be good.
        doubts: further reasons for caution that no figure expresses.
        senseless: sentences on figures that are not asked of such an input.
    """
    figures = {measure.name: measure for measure in measures}
    votes = [vote for criterion in criteria if (vote := _vote(criterion, figures.get(criterion.measure)))]
    hidden = [vote.reason for vote in votes if vote.verdict is Verdict.NOT_SHOWN]
    careful = [vote.reason for vote in votes if vote.verdict is Verdict.CAUTION and vote.reason]
    missing = [criterion for criterion in criteria if criterion.required and criterion.measure not in figures]
    named = ", ".join(_spoken(criterion.measure) for criterion in missing if not criterion.unmeasured)
    unmeasured = [criterion.unmeasured for criterion in missing if criterion.unmeasured]
    unmeasured += [f"Not measured: {named}."] if named else []
    unmeasured += [UNMEASURED] if not measures and not unmeasured else []
    reasons = tuple(dict.fromkeys((*hidden, *careful, *doubts, *unmeasured)))
    worst = Verdict.NOT_SHOWN if hidden else Verdict.CAUTION if reasons else Verdict.RELIABLE
    unasked = [c.senseless for c in criteria if not c.required and c.measure not in figures]
    told = tuple(filter(None, dict.fromkeys((*senseless, *unasked))))
    return Assessment(verdict=worst, reasons=reasons, measures=tuple(measures), senseless=told)


def of_kind(criteria: Sequence[Criterion], kind: Kind) -> tuple[tuple[Criterion, ...], tuple[str, ...]]:
    """Return the criteria for a kind of input, and why other figures are not taken of it."""
    chosen = tuple(criterion for criterion in criteria if kind in criterion.kinds)
    measured = {criterion.measure for criterion in chosen}
    others = [criterion for criterion in criteria if criterion.measure not in measured]
    return chosen, tuple(dict.fromkeys(criterion.senseless for criterion in others if criterion.senseless))


def with_thresholds(criteria: Sequence[Criterion], thresholds: Mapping[str, Threshold]) -> tuple[Criterion, ...]:
    """Return the criteria with a pipeline's own numbers.

    Raises:
        SettingsError: a threshold is for a measure that no assessor of the pipeline takes.
    """
    known = [criterion.measure for criterion in criteria]
    for name in thresholds:
        if name not in known:
            raise SettingsError(
                f"[explanation.thresholds.{name}] is for no measure of this pipeline{nearest(name, known)}"
            )
    return tuple(
        replace(criterion, caution=own.caution, hide=own.hide)
        if (own := thresholds.get(criterion.measure))
        else criterion
        for criterion in criteria
    )


def _vote(criterion: Criterion, measure: Measure | None) -> Vote | None:
    if measure is None:
        return None
    if criterion.hide is not None and _beyond(criterion, measure.value, criterion.hide):
        return Vote(verdict=Verdict.NOT_SHOWN, reason=_reason(criterion, measure))
    if _beyond(criterion, measure.value, criterion.caution):
        return Vote(verdict=Verdict.CAUTION, reason=_reason(criterion, measure))
    return None


def _beyond(criterion: Criterion, value: float, limit: float) -> bool:
    # Written so that NaN is beyond every limit.
    return not value >= limit if criterion.higher_is_better else not value <= limit


def _reason(criterion: Criterion, measure: Measure) -> str:
    share = measure.name.startswith(("energy-", "agreement-top", "faithfulness-chance"))
    baseline = measure.baseline if measure.baseline is not None else float("nan")
    shown = (f"{measure.value:.0%}", f"{baseline:.0%}") if share else (f"{measure.value:.2f}", f"{baseline:.2f}")
    return criterion.reason.format(value=shown[0], baseline=shown[1])


def _spoken(measure: str) -> str:
    return measure.replace("-", " ")
