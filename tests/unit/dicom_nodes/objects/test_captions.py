"""Pictures and reports have one source of phrasing: it never rounds to certainty and never leaves a doubt out."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest
from readings import pneumonia, reading

from dicom_nodes.objects import captions
from dicom_nodes.objects.legends import legend
from service.results import Assessment, Verdict

if TYPE_CHECKING:
    from service.results import Attribution


def judged(verdict: Verdict, *reasons: str) -> Attribution:
    """Return a map with a verdict."""
    (attribution,) = reading(np.ones((4, 4), dtype=np.float32)).attributions
    assessment = Assessment(verdict=verdict, reasons=reasons, measures=())
    return dataclasses.replace(attribution, assessment=assessment)


@pytest.mark.parametrize(
    ("probability", "expected"),
    [
        (0.0, "0.0 %"),
        (0.0004, "<0.1 %"),
        (0.001, "0.1 %"),
        (0.5, "50.0 %"),
        (0.999, "99.9 %"),
        (0.9996, ">99.9 %"),
        (1.0, "100.0 %"),
    ],
)
def test_no_probability_is_rounded_to_certainty(probability: float, expected: str) -> None:
    assert captions.percent(probability) == expected


@pytest.mark.parametrize(("probability", "side"), [(0.5, "at or above"), (0.4999, "below")])
def test_a_finding_at_its_operating_point_is_above_it(probability: float, side: str) -> None:
    finding = pneumonia(probability)
    assert f"({side} operating point)" in captions.verdict(finding)
    assert f"Operating point 'balanced' (in use): {side} its threshold of 50.0 %" in captions.threshold(
        finding.operating_point, finding
    )
    screening = captions.threshold(finding.operating_points[0], finding)
    assert screening.startswith("Operating point 'screening': at or above its threshold of 5.0 %")


@pytest.mark.parametrize(
    ("verdict", "expected", "shown"),
    [
        (Verdict.RELIABLE, "reliable by its measures", True),
        (Verdict.CAUTION, "use with caution", True),
        (Verdict.NOT_SHOWN, "not shown", False),
    ],
)
def test_each_verdict_has_its_own_words(verdict: Verdict, expected: str, shown: bool) -> None:
    assert captions.trust(judged(verdict)) == expected
    assert captions.is_shown(judged(verdict)) is shown


def test_doubts_that_a_picture_has_no_room_for_are_counted() -> None:
    doubtful = judged(Verdict.CAUTION, "One", "Two.", "Three", "Four")
    assert captions.doubts(doubtful) == "One. Two. Three. Four."
    assert captions.doubts(doubtful, 4) == "One. Two. Three. Four."
    assert captions.doubts(doubtful, 1) == "One. (3 more in the report.)"


def test_a_variant_has_the_legend_of_its_nearest_family() -> None:
    assert legend("lrp-gamma") == legend("lrp") != legend("no such method")
    assert legend("grad-cam-plus-plus-smooth") == legend("grad-cam-plus-plus") != legend("grad-cam")
