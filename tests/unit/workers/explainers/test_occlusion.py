from __future__ import annotations

import warnings
from itertools import product

import pytest
import torch
from known_networks import COLUMNS, ROWS, Asked, Smooth, Spot, film

from workers.explainers.hiding import REPLACEMENTS, replacement
from workers.explainers.occlusion import Occlusion


def by_definition(
    classifier: Asked, batch: torch.Tensor, window: list[int], starts: list[list[int]], kind: str
) -> torch.Tensor:
    hidden = replacement(batch, kind)
    total, times = torch.zeros(batch.shape[2:]), torch.zeros(batch.shape[2:])
    for corner in product(*starts):
        place = tuple(slice(a, a + w) for a, w in zip(corner, window, strict=True))
        occluded = batch.clone()
        occluded[(0, 0, *place)] = hidden[(0, 0, *place)]
        total[place] += (classifier.logits(batch) - classifier.logits(occluded))[0, 0]
        times[place] += 1
    return total / times


@pytest.mark.parametrize("kind", REPLACEMENTS)
def test_the_map_equals_the_definition(kind: str) -> None:
    classifier, batch = Asked(inside=Smooth()), film()
    (found,) = Occlusion(window=20, stride=9, refine=0.0, replacement=kind).explain(classifier, batch, [0])  # type: ignore[arg-type]
    # 48 rows end at 28 = 48 - 20, off the stride.
    expected = by_definition(classifier, batch, [20, 20], [[0, 9, 18, 27, 28], [0, 9, 18, 27, 36, 44]], kind)
    torch.testing.assert_close(found.map, expected, atol=1e-5, rtol=0)
    assert {m.name: m.value for m in found.measures} == {"samples": 31.0}


def test_the_map_of_a_volume_equals_the_definition() -> None:
    classifier = Asked(inside=Spot(4, 6, 5))
    batch = torch.randn(1, 1, 6, 16, 20, generator=torch.Generator().manual_seed(0))
    explainer = Occlusion(window=8, stride=4, slices=4, slice_stride=2, refine=0.0, replacement="mean")
    (found,) = explainer.explain(classifier, batch, [0])  # type: ignore[arg-type]
    expected = by_definition(classifier, batch, [4, 8, 8], [[0, 2], [0, 4, 8], [0, 4, 8, 12]], "mean")
    assert found.map.shape == (6, 16, 20)
    torch.testing.assert_close(found.map, expected, atol=1e-5, rtol=0)


def test_from_coarse_to_fine_equals_every_window_where_it_matters() -> None:
    classifier, batch = Asked(inside=Spot(16, 24, 8)), film()
    options = {"window": 8, "stride": 4, "replacement": "mean"}
    (every,) = Occlusion(refine=0.0, **options).explain(classifier, batch, [0])  # type: ignore[arg-type]
    (fine,) = Occlusion(**options).explain(classifier, batch, [0])  # type: ignore[arg-type]
    torch.testing.assert_close(fine.map[16:24, 24:32], every.map[16:24, 24:32], atol=1e-5, rtol=0)
    counts = [next(m.value for m in found.measures if m.name == "samples") for found in (every, fine)]
    assert counts[1] < 0.6 * counts[0]


def test_side_by_side_windows_leave_no_gap() -> None:
    for window, stride in ((32, 16), (20, 9), (7, 3), (8, 8)):
        (found,) = Occlusion(window=window, stride=stride, refine=1.0).explain(Asked(inside=Smooth()), film(), [0])  # type: ignore[arg-type]
        assert torch.isfinite(found.map).all()


def test_too_many_windows_become_coarser_and_still_cover_everything() -> None:
    classifier = Asked(inside=Spot(4, 6, 5))
    batch = torch.randn(1, 1, 24, 64, 64, generator=torch.Generator().manual_seed(0))
    (found,) = Occlusion(windows=20).explain(classifier, batch, [0])  # type: ignore[arg-type]
    assert {m.name: m.value for m in found.measures}["samples"] <= 21
    assert torch.isfinite(found.map).all()


def test_only_windows_that_touch_the_spot_matter() -> None:
    (found,) = Occlusion(window=8, stride=8, replacement="mean").explain(Asked(inside=Spot(16, 24, 8)), film(), [0])  # type: ignore[arg-type]
    outside = torch.ones(ROWS, COLUMNS, dtype=torch.bool)
    outside[16:24, 24:32] = False
    assert found.map[outside].abs().max() < 1e-6
    assert found.map[20, 28].abs() > 0.01


def test_values_agree_with_captum() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = pytest.importorskip("captum.attr", reason="captum is absent (extra 'peers')")
    smooth, batch = Smooth(), film(2)
    hidden = replacement(batch, "blur")
    theirs = peer.Occlusion(smooth).attribute(
        batch, sliding_window_shapes=(1, 16, 16), strides=(1, 8, 8), baselines=hidden, target=1
    )
    (ours,) = Occlusion(window=16, stride=8, refine=0.0, replacement="blur").explain(Asked(inside=smooth), batch, [1])  # type: ignore[arg-type]
    torch.testing.assert_close(ours.map, theirs[0, 0], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "wrong", [{"window": 0}, {"refine": 2.0}, {"stride": 40}, {"slices": 0}, {"replacement": "grey"}]
)
def test_a_wrong_parameter_is_named(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Occlusion(**wrong)  # type: ignore[arg-type]
