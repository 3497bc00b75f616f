from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from bright_spots import Contrary, Fickle, Fixed, Honest, Telling, bright_spots
from scipy.ndimage import gaussian_filter

from workers.assessors.agreement import Agreement, contradictions, top_overlap
from workers.assessors.case import Scene, Subject, correlation, on_grid, rank_correlation
from workers.assessors.consensus import consensus
from workers.assessors.faithfulness import Curves, Faithfulness, chance, erase, order_of
from workers.assessors.plausibility import Plausibility, smear
from workers.assessors.regions import Regions, border_mask
from workers.assessors.stability import Stability

if TYPE_CHECKING:
    from workers.assessors.case import Assessor


def subject_of(explainer: Telling, scene: Scene) -> Subject:
    (explanation,) = explainer.explain(scene.classifier, scene.batch, [0])
    return Subject(
        method=explainer.name,
        title=explainer.title,
        label=0,
        map=explanation.map,
        explainer=explainer,
        explanation=explanation,
    )


def figures(assessor: Assessor, explainer: Telling, scene: Scene) -> dict[str, float]:
    return {m.name: m.value for m in assessor.assess(scene, subject_of(explainer, scene), ())}


def test_an_honest_map_is_more_faithful_than_random_regions_and_a_contrary_one_less(scene: Scene) -> None:
    honest = figures(Faithfulness(), Honest("honest"), scene)
    contrary = figures(Faithfulness(), Contrary("contrary"), scene)
    assert honest["faithfulness"] > 0.2
    assert contrary["faithfulness"] < 0
    assert honest["faithfulness-chance"] < 0.05
    assert contrary["faithfulness-chance"] > 0.8
    assert honest["deletion-auc"] < honest["insertion-auc"]


def test_random_orders_are_scored_once_for_all_methods(scene: Scene) -> None:
    first = Faithfulness().assess(scene, subject_of(Honest("honest"), scene), ())
    kept = dict(scene.random_orders)
    second = Faithfulness().assess(scene, subject_of(Fixed("fixed"), scene), ())
    assert scene.random_orders == kept
    assert first[0].baseline == second[0].baseline


def test_maps_of_random_regions_are_called_faithful_no_oftener_than_promised(scene: Scene) -> None:
    curves = Curves(scene, 0)
    spread = curves.random().spread
    rng = np.random.default_rng(99)
    fields = gaussian_filter(rng.standard_normal((80, 14, 14)), (0, 1.5, 1.5), mode="wrap").astype(np.float32)
    found = np.array([chance(curves.of(order_of(field)).gap, spread) for field in fields])
    assert (found < 0.1).mean() <= 0.2
    assert 0.35 <= (found > 0.5).mean() <= 0.65


def test_a_probability_that_stays_near_one_hides_no_faithful_map(scene: Scene) -> None:
    sure = replace(scene, classifier=bright_spots())
    with torch.no_grad():
        sure.classifier.network.fc.bias.fill_(5.0)  # type: ignore[union-attr]
    honest = figures(Faithfulness(), Honest("honest"), sure)
    assert honest["insertion-auc"] - honest["deletion-auc"] < 0.02
    assert honest["faithfulness-chance"] < 0.05


def test_nothing_is_said_where_taking_everything_away_does_not_lower_the_answer(scene: Scene) -> None:
    flat = replace(scene, classifier=bright_spots(), random_orders={})
    with torch.no_grad():
        flat.classifier.network.fc.weight.fill_(-1.0)  # type: ignore[union-attr]
    assert set(figures(Faithfulness(), Honest("honest"), flat)) == {"deletion-auc", "insertion-auc"}


def test_where_nothing_moves_the_answer_nothing_is_more_than_chance() -> None:
    assert chance(0.0, 0.0) == 0.5
    assert chance(1.86, 1.0) == pytest.approx(0.05, abs=0.001)


def test_faithfulness_is_the_same_every_time(scene: Scene) -> None:
    again = Scene(classifier=scene.classifier, batch=scene.batch, seed=scene.seed)
    assert figures(Faithfulness(), Honest("honest"), scene) == figures(Faithfulness(), Honest("honest"), again)


def test_erasing_leaves_nothing_brighter_than_the_darker_parts(scene: Scene) -> None:
    erased = erase(scene.batch)
    assert float(erased.max()) < float(scene.batch.mean())
    assert float(erased.min()) == float(scene.batch.min())


def test_a_map_that_follows_the_film_is_stable_and_one_that_wanders_is_not(scene: Scene) -> None:
    honest = figures(Stability(), Honest("honest"), scene)
    fickle = figures(Stability(), Fickle("fickle"), scene)
    assert set(honest) == {"stability-noise", "stability-turn", "stability-shift"}
    assert min(honest.values()) > 0.9
    assert max(fickle.values()) < 0.3


def test_a_map_glued_to_the_frame_does_not_follow_a_shift(scene: Scene) -> None:
    class Glued(Telling):
        def draw(self, film: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
            rows = torch.zeros(112, 112)
            rows[40:43] = 1.0
            return rows

    assert (
        figures(Stability(), Glued("glued"), scene)["stability-shift"]
        < figures(Stability(), Honest("honest"), scene)["stability-shift"]
    )


def test_a_map_without_a_method_has_no_stability(scene: Scene) -> None:
    orphan = replace(subject_of(Honest("honest"), scene), explainer=None)
    assert Stability().assess(scene, orphan, ()) == ()
    assert Stability().cost(scene, orphan) == 0


def test_agreement_is_high_among_like_maps_and_absent_without_others(scene: Scene) -> None:
    honest, contrary = subject_of(Honest("honest"), scene), subject_of(Contrary("contrary"), scene)
    with_itself = {m.name: m.value for m in Agreement().assess(scene, honest, [honest])}
    with_contrary = {m.name: m.value for m in Agreement().assess(scene, honest, [contrary])}
    assert with_itself == {"agreement-rank": pytest.approx(1.0), "agreement-top": 1.0}
    assert with_contrary["agreement-rank"] < 0
    assert Agreement().assess(scene, honest, ()) == ()


def test_methods_that_mark_different_places_contradict_each_other_by_name(scene: Scene) -> None:
    subjects = [subject_of(e, scene) for e in (Honest("honest"), Honest("likewise"), Fixed("fixed"))]
    sentences = contradictions(scene, subjects, "Bright spot")
    assert len(sentences) == 1
    assert sentences[0].startswith("Fixed marks other places for Bright spot than Honest and Likewise: of what two ")
    assert contradictions(scene, subjects[:2], "Bright spot") == ()
    assert contradictions(scene, subjects[1:], "Bright spot")[0].startswith("Likewise and Fixed mark different places")


def test_every_pair_that_contradicts_is_named_once_in_few_sentences(scene: Scene) -> None:
    tops = {"one": 0, "two": 0, "three": 1, "four": 2, "five": 2}
    subjects = []
    for name, place in tops.items():
        map_ = torch.zeros(scene.grid)
        map_[10 * place : 10 * place + 6] = 1.0
        subjects.append(Subject(method=name, title=name, label=0, map=map_))
    sentences = contradictions(scene, subjects, "Bright spot")
    assert [sentence.partition(":")[0] for sentence in sentences] == [
        "three marks other places for Bright spot than one, two, four and five",
        "one and two mark other places for Bright spot than four and five",
    ]


def test_a_map_of_few_places_agrees_with_a_wide_one_that_marks_them_too() -> None:
    few, wide = np.full((14, 14), -1.0, dtype=np.float32), np.zeros((14, 14), dtype=np.float32)
    few[3:5, 4:6] = 1.0
    wide[2:6, 3:8] = 1.0
    assert top_overlap(few, wide) == top_overlap(wide, few) == 1.0
    assert top_overlap(few, np.roll(wide, 7, axis=0)) == 0.0
    assert top_overlap(few, -np.abs(few)) == 0.0


def test_random_tops_share_a_tenth() -> None:
    rng = np.random.default_rng(0)
    shared = [top_overlap(*(rng.random((14, 14)).astype(np.float32) for _ in range(2))) for _ in range(200)]
    assert np.mean(shared) == pytest.approx(0.1, abs=0.02)


def regions(*, lungs: bool = True) -> Regions:
    body = np.zeros((112, 112), dtype=bool)
    body[:, 10:100] = True
    field = np.zeros_like(body)
    field[50:90, 20:60] = True
    text = np.zeros_like(body)
    text[:24, :24] = True
    return Regions(body=body, lungs=field if lungs else None, border=border_mask(112, 112), text=text)


def test_plausibility_tells_lungs_from_letters(scene: Scene) -> None:
    known = replace(scene, find_regions=lambda _rows, _columns: regions())
    honest = figures(Plausibility(), Honest("honest"), known)
    fixed = figures(Plausibility(), Fixed("fixed"), known)
    assert honest["energy-lungs"] > 0.9
    assert honest["energy-text"] < 0.1
    assert fixed["energy-text"] > 0.9
    assert fixed["energy-lungs"] < 0.1
    assert fixed["energy-border"] > honest["energy-border"]


def test_plausibility_of_a_blind_map_equals_its_baseline(scene: Scene) -> None:
    known = replace(scene, find_regions=lambda _rows, _columns: regions())
    blind = Subject(method="blind", title="Blind", label=0, map=torch.ones(112, 112))
    for measure in Plausibility().assess(known, blind, ()):
        assert measure.value == pytest.approx(measure.baseline, abs=1e-5)


def test_unknown_anatomy_is_not_measured(scene: Scene) -> None:
    honest = subject_of(Honest("honest"), scene)
    assert Plausibility().assess(scene, honest, ()) == ()
    no_lungs = replace(scene, find_regions=lambda _rows, _columns: regions(lungs=False))
    assert "energy-lungs" not in {m.name for m in Plausibility().assess(no_lungs, honest, ())}


def test_a_coarse_map_is_allowed_its_own_cells() -> None:
    assert smear((14, 14), (224, 224)) == 16
    assert smear((224, 224), (224, 224)) == 0
    assert smear((7, 7), (224, 224)) < 32


def test_consensus_lies_where_the_methods_agree_and_spreads_where_they_do_not() -> None:
    first, second = torch.zeros(28, 28), torch.zeros(28, 28)
    first[5:10, 5:10] = 2.0
    second[5:10, 5:10] = 30.0
    second[20:24, 20:24] = 30.0
    subjects = [Subject(method=name, title=name, label=0, map=m) for name, m in (("a", first), ("b", second))]
    joined = consensus(subjects, 28, 28)
    assert joined is not None
    assert float(joined.map[7, 7]) == pytest.approx(1.0)
    assert 0 < float(joined.map[22, 22]) < 0.9
    assert float(joined.spread[22, 22]) > float(joined.spread[7, 7])
    assert consensus(subjects[:1], 28, 28) is None


def test_copies_of_one_method_do_not_outvote_another() -> None:
    first, second = torch.zeros(28, 28), torch.zeros(28, 28)
    first[5:10, 5:10] = 1.0
    second[20:25, 20:25] = 1.0
    maps = [first] * 5 + [second]
    subjects = [Subject(method=str(i), title=str(i), label=0, map=m) for i, m in enumerate(maps)]
    joined = consensus(subjects, 28, 28)
    assert joined is not None
    assert float(joined.map[22, 22]) == pytest.approx(float(joined.map[7, 7]), rel=0.15)


def test_correlations_are_those_of_the_field() -> None:
    rng = np.random.default_rng(1)
    a = rng.random((14, 14)).astype(np.float32)
    assert correlation(a, 3 * a) == pytest.approx(1.0)
    assert rank_correlation(a, np.exp(a)) == pytest.approx(1.0)
    assert rank_correlation(a, -a) == pytest.approx(-1.0)
    assert correlation(a, np.zeros_like(a)) == 0.0


def test_shrinking_a_map_keeps_its_mean() -> None:
    values = torch.rand(112, 112)
    assert float(on_grid(values, 14, 14).mean()) == pytest.approx(float(values.mean()), rel=1e-5)
