from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from bright_spots import (
    Against,
    Broken,
    Choosy,
    Contrary,
    Fickle,
    Fixed,
    Greedy,
    Honest,
    Lost,
    Strange,
    Telling,
    film_with_spot,
)
from clocks import SlowClock
from films import as_image

from service.errors import PipelineError
from service.pipelines import Explanation, Threshold
from service.results import Verdict
from workers.assessors.budget import REFERENCE, Budget, forward_s
from workers.assessors.case import Scene, Subject
from workers.assessors.faithfulness import Faithfulness
from workers.explaining import BELOW, Explained, explain_image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workers.models.package import PackagedClassifier

MEASURED = ("faithfulness", "stability", "agreement")
"""Without plausibility: the tests' film is no chest."""


def explained(model: PackagedClassifier, explainers: Sequence[Telling], **settings: object) -> Explained:
    limits = Explanation.model_validate({"assessors": MEASURED, **settings})
    return explain_image(model, explainers, as_image(film_with_spot()), [0], limits)


def verdicts(result: Explained) -> dict[str, Verdict]:
    return {a.method: a.assessment.verdict for a in result.attributions if a.assessment is not None}


def test_an_honest_map_is_reliable_and_a_fickle_or_contrary_one_is_not_shown(model: PackagedClassifier) -> None:
    found = verdicts(explained(model, [Honest("honest"), Fickle("fickle"), Contrary("contrary")]))
    assert found == {
        "honest": Verdict.CAUTION,  # most others mark other places
        "fickle": Verdict.NOT_SHOWN,
        "contrary": Verdict.NOT_SHOWN,
    }
    assert verdicts(explained(model, [Honest("honest")])) == {"honest": Verdict.RELIABLE}


def test_the_default_comes_first_and_the_consensus_last_whatever_they_cost(model: PackagedClassifier) -> None:
    result = explained(model, [Honest("dear", 50), Honest("cheap", 1), Honest("middling", 9)])
    assert [a.method for a in result.attributions] == ["dear", "cheap", "middling", "consensus"]
    consensus = result.attributions[-1]
    assert consensus.spread is not None
    assert consensus.spread.shape == consensus.map.shape == (112, 112)
    assert float(consensus.spread.max()) == pytest.approx(0.0, abs=1e-6)
    assert consensus.assessment is not None
    assert consensus.assessment.verdict is Verdict.RELIABLE
    # It is made of its members: nobody asks whether it agrees with them.
    assert not any("other methods" in sentence for sentence in consensus.assessment.senseless)


def test_a_map_that_failed_is_no_part_of_the_consensus(model: PackagedClassifier) -> None:
    result = explained(model, [Honest("one"), Honest("two"), Fickle("fickle")])
    assert result.attributions[-1].parameters["methods"] == "One, Two"


def test_there_is_no_consensus_of_one_method_or_when_it_is_not_wanted(model: PackagedClassifier) -> None:
    assert [a.method for a in explained(model, [Honest("one"), Fickle("fickle")]).attributions] == ["one", "fickle"]
    assert len(explained(model, [Honest("one"), Honest("two")], consensus=False).attributions) == 2


@pytest.mark.parametrize(
    ("explainer", "reason"),
    [
        (Broken("broken"), "not finite"),
        (Greedy("greedy"), "more memory than this machine has"),
        (Choosy("choosy"), "a model of another kind"),
        (Lost("lost"), "has no layer 'layer9'"),
        (Strange("strange"), "it fails with this model (RuntimeError)"),
    ],
)
def test_a_method_that_fails_is_named_and_costs_the_others_nothing(
    model: PackagedClassifier, explainer: Telling, reason: str
) -> None:
    result = explained(model, [explainer, Honest("honest")])
    assert [a.method for a in result.attributions] == ["honest"]
    (sentence,) = result.unavailable
    assert sentence.startswith(explainer.title)
    assert reason in sentence


def test_a_dear_method_that_does_not_fit_the_time_is_not_begun_and_the_cheap_one_stays(
    model: PackagedClassifier,
) -> None:
    dear = Honest("dear", 10**9)
    result = explained(model, [dear, Honest("cheap")])
    assert dear.calls == 0
    assert verdicts(result) == {"cheap": Verdict.RELIABLE}
    assert "would not have sufficed" in result.unavailable[0]


def test_the_cheapest_method_runs_even_when_there_is_no_time_and_is_no_more_than_cautious(
    model: PackagedClassifier,
) -> None:
    result = explained(model, [Honest("honest")], budget_s=1e-9)
    (only,) = result.attributions
    assert only.assessment is not None
    assert only.assessment.verdict is Verdict.CAUTION
    assert any("could not be tested" in reason for reason in only.assessment.reasons)
    assert any("Not measured: stability noise" in reason for reason in only.assessment.reasons)


def test_a_slow_machine_gives_the_same_maps_and_the_same_verdicts(model: PackagedClassifier) -> None:
    quick, slow = (
        explain_image(
            model,
            [Honest("honest", 20), Fickle("fickle", 30), Contrary("contrary", 40)],
            as_image(film_with_spot()),
            [0],
            Explanation(assessors=MEASURED, budget_s=1e-5, brake_s=1e6),
            now=SlowClock(seconds),
        )
        for seconds in (0.0, 1000.0)
    )
    assert [a.assessment for a in quick.attributions] == [a.assessment for a in slow.attributions]
    assert all(np.array_equal(a.map, b.map) for a, b in zip(quick.attributions, slow.attributions, strict=True))
    assert quick.unavailable == slow.unavailable


def test_the_brake_leaves_out_what_is_left_and_the_result_says_so(model: PackagedClassifier) -> None:
    dear = Honest("dear", 50)
    result = explain_image(
        model,
        [Honest("cheap"), dear],
        as_image(film_with_spot()),
        [0],
        Explanation(assessors=MEASURED, brake_s=5.0),
        now=SlowClock(3.0),
    )
    assert dear.calls == 0
    (sentence,) = result.unavailable
    assert sentence == "Dear: the machine was too slow (explaining took more than 5 s); a repeat may give it"
    (only,) = result.attributions
    assert only.assessment is not None
    assert only.assessment.verdict is Verdict.CAUTION
    assert any("too slow to measure all" in reason for reason in only.assessment.reasons)


def test_work_is_counted_by_the_passes_and_not_by_the_clock() -> None:
    clock = SlowClock(100.0)
    budget = Budget(budget_s=10.0, brake_s=250.0, pass_s=0.1, now=clock)
    budget.spend(50)
    assert budget.allows(50)
    assert not budget.allows(51)
    assert budget.allows(0)
    assert [budget.braked for _ in range(4)] == [False, False, True, True]


def test_a_pass_costs_what_the_networks_arithmetic_says(model: PackagedClassifier) -> None:
    batch = torch.zeros(3, 1, 112, 112)
    # One 1 x 1 convolution of one channel, and one linear layer of one input.
    assert forward_s(model, batch) == pytest.approx((112 * 112 + 1) / REFERENCE)
    assert forward_s(model, torch.zeros(1, 1, 56, 56)) == pytest.approx((56 * 56 + 1) / REFERENCE)


def test_a_model_that_cannot_be_counted_has_a_cost_all_the_same(model: PackagedClassifier) -> None:
    unknown = dataclasses.replace(model, network=None)
    assert forward_s(unknown, torch.zeros(1, 1, 224, 224)) == pytest.approx(4e9 / REFERENCE, rel=0.01)


def test_a_map_without_anything_positive_is_not_shown(model: PackagedClassifier) -> None:
    (only,) = explained(model, [Against("against")]).attributions
    assert only.assessment is not None
    assert only.assessment.verdict is Verdict.NOT_SHOWN
    assert "marks nothing" in only.assessment.reasons[0]


def test_below_the_operating_point_no_map_is_reliable(model: PackagedClassifier) -> None:
    limits = Explanation(assessors=MEASURED)
    result = explain_image(model, [Honest("honest")], as_image(film_with_spot(spot=False)), [0], limits)
    (only,) = result.attributions
    assert only.assessment is not None
    assert only.assessment.verdict is not Verdict.RELIABLE
    assert BELOW in only.assessment.reasons or only.assessment.verdict is Verdict.NOT_SHOWN


def test_a_known_doubt_of_a_method_is_told(model: PackagedClassifier) -> None:
    result = explain_image(
        model,
        [Honest("honest"), Honest("other")],
        as_image(film_with_spot()),
        [0],
        Explanation(assessors=MEASURED),
        doubts={"honest": ("It failed the sanity check.",)},
    )
    assert verdicts(result)["honest"] is Verdict.CAUTION
    assert verdicts(result)["other"] is Verdict.RELIABLE


def test_contradictions_are_sentences_about_maps_that_passed(model: PackagedClassifier) -> None:
    lax = {"faithfulness-chance": {"caution": 1.0, "hide": 1.0}}
    result = explained(model, [Honest("honest"), Fixed("fixed")], thresholds=lax)
    (sentence,) = result.contradictions
    assert "Honest and Fixed mark different places for Bright spot" in sentence
    assert verdicts(result)["consensus"] is not Verdict.RELIABLE


def test_thresholds_of_the_pipeline_decide(model: PackagedClassifier) -> None:
    strict = {"faithfulness-chance": Threshold(caution=-2.0, hide=-1.0)}
    assert verdicts(explained(model, [Honest("honest")], thresholds=strict)) == {"honest": Verdict.NOT_SHOWN}


def test_lungs_are_looked_for_only_by_models_of_chests(model: PackagedClassifier) -> None:
    chests = dataclasses.replace(
        model,
        card=model.card.model_copy(
            update={"eligibility": model.card.eligibility.model_copy(update={"body_parts": ("CHEST",)})}
        ),
    )
    limits = Explanation(assessors=(*MEASURED, "plausibility"))
    names = []
    for classifier in (model, chests):
        (only,) = explain_image(classifier, [Honest("honest")], as_image(film_with_spot()), [0], limits).attributions
        assert only.assessment is not None
        names.append({measure.name for measure in only.assessment.measures})
        assert not any("Not measured: energy body" in reason for reason in only.assessment.reasons)
    assert "energy-body" not in names[0]
    assert "energy-body" in names[1]


def test_what_a_network_sees_of_a_film_is_held_against_the_same_part_of_the_masks(model: PackagedClassifier) -> None:
    expected = model.card.input.model_copy(update={"fit": "centre-crop"})
    chest = model.card.eligibility.model_copy(update={"body_parts": ("CHEST",)})
    cut = dataclasses.replace(model, card=model.card.model_copy(update={"input": expected, "eligibility": chest}))
    # The middle square of the long film is the square film; only there is something burned in.
    square = film_with_spot()
    square[30:42, 80:82] = square[30:42, 88:90] = square[35:37, 80:90] = 1.0  # an H
    rows, columns = square.shape
    long = np.full((2 * rows, columns), float(np.median(square)), dtype=np.float32)
    long[rows // 2 : rows // 2 + rows] = square
    limits = Explanation(assessors=(*MEASURED, "plausibility"))
    found = []
    for classifier, grey in ((cut, square), (cut, long)):
        (only,) = explain_image(classifier, [Honest("honest")], as_image(grey), [0], limits).attributions
        assert only.assessment is not None
        found.append({measure.name: measure.value for measure in only.assessment.measures})
    assert found[0]["energy-text"] > 0.1
    assert found[1]["energy-text"] == pytest.approx(found[0]["energy-text"], abs=0.1)


def test_an_assessor_that_does_not_exist_is_named(model: PackagedClassifier) -> None:
    with pytest.raises(PipelineError, match="assessor 'charm'"):
        explained(model, [Honest("honest")], assessors=("charm",))


def test_maps_come_back_on_the_source_grid(model: PackagedClassifier) -> None:
    grey = np.kron(film_with_spot(), np.ones((2, 3), dtype=np.float32))
    result = explain_image(model, [Honest("honest")], as_image(grey), [0], Explanation(assessors=MEASURED))
    assert result.attributions[0].map.shape == (224, 336)
    row, column = np.unravel_index(int(result.attributions[0].map.argmax()), (224, 336))
    assert np.hypot(row / 2 - 70, column / 3 - 40) < 15


def test_faithfulness_counts_the_random_orders_once(scene: Scene) -> None:
    subject = Subject(method="m", title="M", label=0, map=torch.ones(14, 14))
    assert Faithfulness().cost(scene, subject) == 74
    Faithfulness().assess(scene, subject, ())
    assert Faithfulness().cost(scene, subject) == 10


def test_a_consensus_of_the_few_that_passed_says_so(model: PackagedClassifier) -> None:
    failing = [Contrary("contrary"), Fickle("fickle"), Against("against")]
    consensus = explained(model, [Honest("one"), Honest("two"), *failing]).attributions[-1]
    assert consensus.method == "consensus"
    assert consensus.assessment is not None
    assert consensus.assessment.verdict is Verdict.CAUTION
    assert "Only 2 of 5 methods passed their checks; the consensus joins no others." in consensus.assessment.reasons
