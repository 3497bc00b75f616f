"""The words on and in our objects: one source of phrasing, so that picture and report say the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from service.results import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from service.results import Attribution, Finding, Measure, OperatingPoint, Result

NOT_FOR_DIAGNOSIS = "AI - research use, not for primary diagnosis."
HOW_TO_READ = "Colour shows what influenced the model, not the extent of disease."
HOW_TO_READ_LINES = "Lines show what influenced the model, not the extent of disease."
HOW_TO_READ_NEGATIVE = "The outline shows what influenced the model most; it marks no disease."


def verdict(finding: Finding) -> str:
    """Say on which side of the operating point the finding is; it never says that disease is absent."""
    if finding.positive:
        return f"{finding.label} indicated (at or above operating point)"
    return f"{finding.label} not indicated (below operating point)"


def percent(probability: float) -> str:
    """Return a probability as per cent, never rounded to certainty."""
    value = 100.0 * probability
    if 0.0 < value < 0.1:  # noqa: PLR2004 - one decimal place
        return "<0.1 %"
    if 99.9 < value < 100.0:  # noqa: PLR2004 - one decimal place
        return ">99.9 %"
    return f"{value:.1f} %"


def probability(finding: Finding) -> str:
    """Say the probability beside the operating point that it is measured against."""
    point = finding.operating_point
    return (
        f"Model probability {percent(finding.probability)}   Operating point '{point.name}': {percent(point.threshold)}"
    )


def operating_point(finding: Finding) -> str:
    """Say what the operating point was chosen for."""
    point = finding.operating_point
    return (
        f"Operating point '{point.name}': threshold {percent(point.threshold)}; on validation data "
        f"sensitivity {percent(point.sensitivity)}, specificity {percent(point.specificity)}"
    )


def threshold(point: OperatingPoint, finding: Finding) -> str:
    """Say on which side of one of the card's operating points the probability lies."""
    side = "at or above" if finding.probability >= point.threshold else "below"
    used = " (in use)" if point.name == finding.operating_point.name else ""
    return (
        f"Operating point '{point.name}'{used}: {side} its threshold of {percent(point.threshold)}; on validation data "
        f"sensitivity {percent(point.sensitivity)}, specificity {percent(point.specificity)}"
    )


def is_shown(attribution: Attribution) -> bool:
    """Tell whether a map may be drawn; one that nobody assessed may, and its caption says so."""
    return attribution.assessment is None or attribution.assessment.verdict is not Verdict.NOT_SHOWN


def none_shown(attributions: Sequence[Attribution]) -> str:
    """Say plainly that of the explanations of a finding none may be drawn; empty when one may, or there are none."""
    if not attributions or any(is_shown(attribution) for attribution in attributions):
        return ""
    if len(attributions) == 1:
        return f"No explanation is shown: {attributions[0].title} did not pass its checks."
    return f"No explanation is shown: none of {len(attributions)} methods passed its checks."


def in_place_of(default: Attribution | None, most: int | None = None) -> str:
    """Say that what is drawn stands in for the pipeline's first method, and why; empty where that one is drawn."""
    if default is None:
        return ""
    return f"Drawn in place of {default.title}, which is not shown: {doubts(default, most)}".strip()


def trust(attribution: Attribution) -> str:
    """Say how far an explanation may be trusted on this image."""
    if attribution.assessment is None:
        return "not assessed"
    if attribution.assessment.verdict is Verdict.RELIABLE:
        return "reliable by its measures"
    if attribution.assessment.verdict is Verdict.CAUTION:
        return "use with caution"
    return "not shown"


def doubts(attribution: Attribution, most: int | None = None) -> str:
    """Give the reasons of the verdict as sentences; empty when there are none.

    With `most`, only so many of them, and how many more the report has: a picture is no place to read.
    """
    if attribution.assessment is None:
        return "Nothing was measured of this explanation, which is no reason to trust it."
    reasons = [f"{reason.strip().rstrip('.')}." for reason in attribution.assessment.reasons if reason.strip()]
    left = len(reasons) - most if most is not None else 0
    return " ".join([*reasons[:most], f"({left} more in the report.)"] if left > 0 else reasons)


def senseless(attribution: Attribution) -> str:
    """Say which figures were not taken because they make no sense here, and why."""
    return " ".join(attribution.assessment.senseless) if attribution.assessment else ""


def measure(value: Measure) -> str:
    """Give one figure beside what it is compared with."""
    compared = "" if value.baseline is None else f" (for comparison {_figure(value.baseline, value)})"
    return f"{value.title} {_figure(value.value, value)}{compared}"


def is_share(value: Measure) -> bool:
    """Tell whether a figure is a share of a map, which people read as per cent."""
    return value.name.startswith("energy-")


def _figure(number: float, of: Measure) -> str:
    """Write shares of a map as per cent, and two digits of anything else: 7.1e-08 is a figure for machines."""
    if is_share(of):
        return f"{100 * number:.0f} %"
    told = "0" if abs(number) < 0.0005 else f"{number:.2g}"  # noqa: PLR2004 - what three decimals show
    # Braces mark a UCUM annotation, which is for machines.
    return told if of.unit == "1" else f"{told} {of.unit.strip('{}')}"


def spread(attribution: Attribution) -> str:
    """Say how far the methods behind a consensus differ where it is strong; empty for a single method."""
    peak = float(np.fmax.reduce(attribution.map, axis=None))
    if attribution.spread is None or not peak > 0:
        return ""
    differs = float(attribution.spread[attribution.map >= peak / 2].mean()) / peak
    return f"Inside its 50 % region the methods differ by {100 * differs:.0f} % of its maximum on average."


def model(result: Result) -> str:
    """Name the model and the software."""
    return f"Model: {result.model.title} {result.model.version}   Pellucid {result.software_version}"


def method(attribution: Attribution) -> str:
    """Name the explanation and what it explains."""
    return f"{attribution.title} for {attribution.finding}"


def moment(local: datetime) -> str:
    """Return a time with its offset from UTC."""
    offset = local.strftime("%z")
    zone = "UTC" if offset in {"", "+0000"} else f"UTC{offset[:3]}:{offset[3:]}"
    return f"{local:%Y-%m-%d %H:%M} {zone}"


def no_positive(attribution: Attribution | None) -> str:
    """Say so when nothing in the map raised the probability."""
    if attribution is None or float(np.fmax.reduce(attribution.map, axis=None)) > 0:
        return ""
    return "Nothing in the image raised the probability by this method."


def ignored_negative(attribution: Attribution | None) -> str:
    """Say so when a signed map has a negative part, which is not drawn."""
    if attribution is None or not float(np.fmin.reduce(attribution.map, axis=None)) < 0:
        return ""
    return "Influence against the finding exists and is not drawn."


def contradiction(result: Result) -> str:
    """Name the methods that contradict each other, so that nobody takes one map for the answer."""
    return " ".join(f"Methods contradict each other: {line.rstrip('.')}." for line in result.contradictions)


def replaces(result: Result) -> str:
    """Say that an earlier result of the study is out of date."""
    return "Replaces an earlier result of this study." if result.supersedes else ""
