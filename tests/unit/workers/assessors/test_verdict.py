from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from service.errors import PipelineError, SettingsError
from service.pipelines import Threshold
from service.results import Measure, Verdict
from workers.assessors.agreement import Agreement
from workers.assessors.case import Criterion
from workers.assessors.faithfulness import Faithfulness
from workers.assessors.loading import load_assessors
from workers.assessors.plausibility import Plausibility
from workers.assessors.stability import Stability
from workers.assessors.verdict import UNMEASURED, judge, with_thresholds

TRUST = Path(__file__).parents[4] / "docs" / "trust.md"
HIGH = Criterion(measure="good", higher_is_better=True, caution=0.7, hide=0.3, reason="Too little: {value}.")
LOW = Criterion(measure="bad", higher_is_better=False, caution=0.2, hide=None, reason="Too much: {value}.")


def figure(name: str, value: float) -> Measure:
    return Measure(name=name, title=name, value=value)


@pytest.mark.parametrize(
    ("good", "bad", "verdict"),
    [
        (0.7, 0.2, Verdict.RELIABLE),
        (0.69, 0.2, Verdict.CAUTION),
        (0.7, 0.21, Verdict.CAUTION),
        (0.7, 99.0, Verdict.CAUTION),
        (0.3, 0.0, Verdict.CAUTION),
        (0.29, 0.0, Verdict.NOT_SHOWN),
        (1.0, float("nan"), Verdict.CAUTION),
        (float("nan"), 0.0, Verdict.NOT_SHOWN),
    ],
)
def test_the_worst_vote_counts(good: float, bad: float, verdict: Verdict) -> None:
    assessment = judge([figure("good", good), figure("bad", bad)], (HIGH, LOW))
    assert assessment.verdict is verdict
    assert bool(assessment.reasons) is (verdict is not Verdict.RELIABLE)


def test_what_was_not_measured_is_not_reliable_unless_it_need_not_be() -> None:
    missing = judge([figure("good", 1.0)], (HIGH, LOW))
    assert missing.verdict is Verdict.CAUTION
    assert missing.reasons == ("Not measured: bad.",)
    assert judge([figure("good", 1.0)], (HIGH, replace(LOW, required=False))).verdict is Verdict.RELIABLE


def test_a_doubt_means_caution_and_is_told() -> None:
    assessment = judge([figure("good", 1.0)], (HIGH,), doubts=("The moon is full.",))
    assert assessment.verdict is Verdict.CAUTION
    assert assessment.reasons == ("The moon is full.",)


def test_reasons_carry_the_figures() -> None:
    assert judge([figure("good", 0.123)], (HIGH,)).reasons == ("Too little: 0.12.",)


def test_a_pipeline_may_set_its_own_thresholds_but_only_of_known_measures() -> None:
    (own, other) = with_thresholds((HIGH, LOW), {"good": Threshold(caution=0.9, hide=0.8)})
    assert (own.caution, own.hide, other) == (0.9, 0.8, LOW)
    with pytest.raises(SettingsError, match="'good'"):
        with_thresholds((HIGH, LOW), {"god": Threshold(caution=0.9)})


def test_the_built_in_assessors_are_found_by_entry_point() -> None:
    names = ("plausibility", "faithfulness", "stability", "agreement")
    assert [assessor.name for assessor in load_assessors(names)] == list(names)
    with pytest.raises(PipelineError, match="stability"):
        load_assessors(["stabilty"])


@pytest.mark.parametrize("assessor", [Faithfulness(), Stability(), Plausibility(), Agreement()])
def test_every_reason_reads_as_a_sentence_and_hiding_is_stricter_than_caution(assessor: Plausibility) -> None:
    for criterion in assessor.criteria:
        sentence = criterion.reason.format(value="1 %", baseline="2 %")
        assert sentence.endswith(".")
        assert "{" not in sentence
        if criterion.hide is not None:
            assert (criterion.hide < criterion.caution) is criterion.higher_is_better


def test_thresholds_are_those_that_the_document_tells() -> None:
    table = re.compile(
        r"^\| `([\w-]+)` \| (above|below) ([\d.]+)( %)? \| (?:never|\2 ([\d.]+)(?: %)?) \|", re.MULTILINE
    )
    told = {}
    for measure, side, caution, per_cent, hide in table.findall(TRUST.read_text(encoding="utf-8")):
        scale = 100 if per_cent else 1
        told[measure] = (side == "below", float(caution) / scale, float(hide) / scale if hide else None)
    held = {
        criterion.measure: (criterion.higher_is_better, criterion.caution, criterion.hide)
        for assessor in (Faithfulness(), Stability(), Plausibility(), Agreement())
        for criterion in assessor.criteria
    }
    assert told == held


def test_a_map_of_which_nothing_was_measured_is_not_called_reliable() -> None:
    """A pipeline may name no assessors."""
    assessment = judge([], ())
    assert assessment.verdict is Verdict.CAUTION
    assert assessment.reasons == (UNMEASURED,)
