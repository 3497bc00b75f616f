from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from bright_spots import (
    Contrary,
    Fickle,
    Fixed,
    Honest,
    Telling,
    bright_balls,
    volume_with_ball,
)

from service.pipelines import Explanation
from service.results import Verdict
from workers.assessors.case import Kind, on_grid
from workers.assessors.regions import Regions, border_mask
from workers.explaining import Explained, explain_input

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workers.models.package import PackagedClassifier


def volume_of(model: PackagedClassifier, methods: Sequence[Telling], **settings: object) -> Explained:
    """Explain a volume of which a ball is bright, inside a patient that fills the middle of it."""
    body = np.zeros((12, 112, 112), dtype=bool)
    body[:, 20:100, 10:90] = True
    return explain_input(
        model,
        methods,
        volume_with_ball(),
        [0],
        Explanation.model_validate(settings),
        to_source=lambda values: on_grid(values, 12, 112, 112),
        regions=lambda *axes: Regions(body=body, border=border_mask(*axes), unscanned=np.zeros(axes, dtype=bool)),
        kind=Kind.VOLUME,
    )


def test_maps_of_a_volume_are_measured_and_judged_like_those_of_a_film() -> None:
    result = volume_of(bright_balls(), [Honest("honest"), Contrary("contrary"), Fickle("fickle")])
    found = {a.method: a.assessment.verdict for a in result.attributions if a.assessment is not None}
    assert found["contrary"] is found["fickle"] is Verdict.NOT_SHOWN
    (alone,) = volume_of(bright_balls(), [Honest("honest")]).attributions
    assert alone.assessment is not None
    assert alone.assessment.verdict is Verdict.RELIABLE, alone.assessment.reasons
    measured = {measure.name for measure in alone.assessment.measures}
    assert measured >= {"faithfulness-chance", "stability-noise", "stability-turn", "stability-shift", "energy-body"}
    assert measured >= {"deletion-auc", "insertion-auc", "energy-border", "energy-unscanned"}
    assert alone.map.shape == (12, 112, 112)


def test_what_makes_no_sense_of_a_volume_is_said_with_the_reason_and_is_no_doubt() -> None:
    (alone,) = volume_of(bright_balls(), [Honest("honest")]).attributions
    assert alone.assessment is not None
    told = " ".join(alone.assessment.senseless)
    for words in ("inside the lungs is not measured", "text and markers is not measured", "none beside this map"):
        assert words in told
    assert alone.assessment.reasons == ()


def test_methods_that_agree_on_a_volume_make_a_consensus_with_its_spread() -> None:
    *_, joined = volume_of(bright_balls(), [Honest("one"), Honest("two")]).attributions
    assert joined.method == "consensus"
    assert joined.spread is not None
    assert joined.spread.shape == joined.map.shape == (12, 112, 112)
    assert joined.assessment is not None
    assert joined.assessment.verdict is Verdict.RELIABLE


def test_a_map_of_a_volume_that_lies_beside_the_patient_is_not_shown() -> None:
    (only,) = volume_of(bright_balls(), [Fixed("fixed")], assessors=("plausibility",)).attributions
    assert only.assessment is not None
    assert only.assessment.verdict is Verdict.NOT_SHOWN
    assert any("of the map lies on the patient" in reason for reason in only.assessment.reasons)


def test_a_volume_gets_the_same_figures_every_time_and_its_work_is_counted() -> None:
    first, second = (volume_of(bright_balls(), [Honest("honest"), Fickle("other")]) for _ in range(2))
    assert [a.assessment for a in first.attributions[:1]] == [a.assessment for a in second.attributions[:1]]
    # Enough for the map, not for the passes that faithfulness and stability take.
    (poor,) = volume_of(bright_balls(), [Honest("honest")], budget_s=1e-9).attributions
    assert poor.assessment is not None
    assert poor.assessment.verdict is Verdict.CAUTION
    assert any("could not be tested" in reason for reason in poor.assessment.reasons)
