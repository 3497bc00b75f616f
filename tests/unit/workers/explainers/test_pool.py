from __future__ import annotations

import numpy as np
import torch
from known_networks import Asked, Smooth, film

from workers.explainers.kernel_shap import KernelShap
from workers.explainers.lime import Lime
from workers.explainers.pool import KEPT, forget_pools, pool_of


class Counting(Asked):
    """Counts the inputs that it is asked about."""

    inputs = 0

    def logits(self, batch: torch.Tensor) -> torch.Tensor:
        self.inputs += len(batch)
        return super().logits(batch)


def test_a_method_finds_the_same_whoever_asked_before() -> None:
    batch = film()
    lime, shap = Lime(regions=12), KernelShap(regions=12, samples=256)
    alone = shap.explain(Asked(inside=Smooth()), batch, [0])[0]  # type: ignore[arg-type]
    shared = Counting(inside=Smooth())
    lime.explain(shared, batch, [0])  # type: ignore[arg-type]
    before = shared.inputs
    after_lime = shap.explain(shared, batch, [0])[0]  # type: ignore[arg-type]
    assert torch.equal(alone.map, after_lime.map)
    assert alone.measures == after_lime.measures
    samples = next(m.value for m in after_lime.measures if m.name == "samples")
    assert shared.inputs - before < samples


def test_another_image_another_seed_and_changed_weights_are_asked_anew() -> None:
    classifier = Asked(inside=Smooth())
    first = pool_of(classifier, film(), 12, "dark", 0)  # type: ignore[arg-type]
    assert pool_of(classifier, film().clone(), 12, "dark", 0) is first  # type: ignore[arg-type]
    others = [(film(1), 12, "dark", 0), (film(), 9, "dark", 0), (film(), 12, "mean", 0), (film(), 12, "dark", 1)]
    assert all(pool_of(classifier, *other) is not first for other in others)  # type: ignore[arg-type]


def test_only_so_many_images_are_kept() -> None:
    classifier = Asked(inside=Smooth())
    first = pool_of(classifier, film(), 12, "dark", 0)  # type: ignore[arg-type]
    for seed in range(1, KEPT + 1):
        pool_of(classifier, film(), 12, "dark", seed)  # type: ignore[arg-type]
    assert pool_of(classifier, film(), 12, "dark", 0) is not first  # type: ignore[arg-type]
    kept = pool_of(classifier, film(), 12, "dark", 0)  # type: ignore[arg-type]
    forget_pools()
    assert pool_of(classifier, film(), 12, "dark", 0) is not kept  # type: ignore[arg-type]


def test_more_pairs_begin_with_those_asked_before() -> None:
    pool = pool_of(Asked(inside=Smooth()), film(), 12, "dark", 0)  # type: ignore[arg-type]
    few = pool.halves(5)
    many = pool.halves(20)
    np.testing.assert_array_equal(many[0][:5], few[0])
    np.testing.assert_array_equal(many[1][:5], few[1])
    np.testing.assert_allclose(pool.ask(~many[0])[:, 0], many[1][:, 1, 0], atol=1e-6)
