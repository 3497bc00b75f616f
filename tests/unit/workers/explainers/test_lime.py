from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from known_networks import Asked, Smooth, Spot, film
from scipy.stats import spearmanr

from workers.explainers.hiding import replacement
from workers.explainers.lime import Lime, surrogate, weights
from workers.explainers.sampling import every_coalition
from workers.explainers.superpixels import superpixels


def test_the_whole_image_weighs_most_and_the_empty_one_least() -> None:
    shown = every_coalition(4)
    weight = weights(shown, 0.25)
    assert weight[-1] == 1.0
    assert weight.argmin() == 0
    # Half the regions: cosine distance 1 - sqrt(1/2).
    assert weight[0b0011] == pytest.approx(np.exp(-(((1 - 0.5**0.5) / 0.25) ** 2)))


def test_the_values_solve_the_weighted_ridge_regression() -> None:
    rng = np.random.default_rng(0)
    drawn = rng.random((60, 7)) < 0.5
    shown = np.stack([drawn, ~drawn], axis=1).reshape(-1, 7)
    answers = rng.normal(size=(120, 1))
    found = surrogate(shown, answers, width=0.25, ridge=0.01).values[:, 0]
    weight = weights(shown, 0.25)

    def loss(values: np.ndarray) -> float:
        plain = answers[:, 0] - shown @ values
        intercept = (weight * plain).sum() / weight.sum()
        return float((weight * (plain - intercept) ** 2).sum() + 0.01 * 120 * (values**2).sum())

    best = loss(found)
    assert all(loss(found + 1e-3 * rng.normal(size=7)) > best for _ in range(50))


def test_a_linear_classifier_is_explained_by_what_each_region_adds() -> None:
    spot = Spot(8, 16, 16)
    batch = film()
    (found,) = Lime(regions=20, ridge=0.0, replacement="blur").explain(Asked(inside=spot), batch, [0])  # type: ignore[arg-type]
    regions = superpixels(batch, 20)
    hidden = replacement(batch, "blur")
    for region in range(int(regions.max()) + 1):
        inside = torch.from_numpy(regions == region)
        added = spot(batch) - spot(torch.where(inside, hidden, batch))
        assert found.map[inside].mean().item() == pytest.approx(added.item(), abs=1e-4)
    measures = {m.name: m.value for m in found.measures}
    assert measures["interval"] < 1e-3
    assert measures["samples"] < 120


def test_intervals_cover_what_many_more_samples_give() -> None:
    classifier, batch = Asked(inside=Smooth()), film(3)
    (truth,) = Lime(regions=16, samples=20000, stability=1.0, ridge=0.0, seed=7).explain(classifier, batch, [0])  # type: ignore[arg-type]
    hits = []
    for seed in range(6):
        (found,) = Lime(regions=16, samples=100, stability=1.0, ridge=0.0, seed=seed).explain(classifier, batch, [0])  # type: ignore[arg-type]
        interval = next(m.value for m in found.measures if m.name == "interval")
        hits.append(((found.map - truth.map).abs() <= interval).float().mean().item())
    assert 0.8 <= np.mean(hits) <= 1.0


def test_the_ranking_agrees_with_the_program_of_the_methods_authors() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = pytest.importorskip("lime.lime_image", reason="lime is absent (extra 'peers')")
    smooth, batch = Smooth(), film(1)
    regions = superpixels(batch, 16)
    grey = batch[0, 0].double().numpy()
    mean = float(batch.mean())

    def classify(images: np.ndarray) -> np.ndarray:
        inputs = torch.from_numpy(images[..., 0]).float().unsqueeze(1)
        return smooth(inputs).double().numpy()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = peer.LimeImageExplainer(random_state=0).explain_instance(
            np.stack([grey] * 3, axis=-1),
            classify,
            labels=(0,),
            top_labels=None,
            hide_color=mean,
            num_samples=3000,
            segmentation_fn=lambda _: regions,
        )
    values = dict(theirs.local_exp[0])
    explainer = Lime(regions=16, replacement="mean", samples=400, stability=1.0)
    (ours,) = explainer.explain(Asked(inside=smooth), batch, [0])  # type: ignore[arg-type]
    count = int(regions.max()) + 1
    found = [ours.map.numpy()[regions == region][0] for region in range(count)]
    assert spearmanr(found, [values[region] for region in range(count)]).statistic > 0.95


def test_the_seed_decides_and_nothing_else_does() -> None:
    classifier, batch = Asked(inside=Smooth()), film()
    first, again, other = (
        Lime(regions=12, samples=60, seed=seed).explain(classifier, batch, [0])[0].map  # type: ignore[arg-type]
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    "wrong", [{"regions": 1}, {"samples": 3}, {"kernel_width": 0}, {"ridge": -1}, {"replacement": "grey"}]
)
def test_a_wrong_parameter_is_named(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Lime(**wrong)  # type: ignore[arg-type]
