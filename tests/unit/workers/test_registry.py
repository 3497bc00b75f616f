from __future__ import annotations

import pytest

from service.errors import PipelineError
from workers.registry import load_explainers


def test_the_pipelines_seed_reaches_methods_that_sample_and_their_own_seed_wins() -> None:
    smooth, occlusion = load_explainers(["smoothgrad", "occlusion"], {}, seed=7)
    assert smooth._seed == 7  # type: ignore[attr-defined]
    assert not hasattr(occlusion, "_seed")
    (own,) = load_explainers(["smoothgrad"], {"smoothgrad": {"seed": 3}}, seed=7)
    assert own._seed == 3  # type: ignore[attr-defined]


def test_a_parameter_of_no_explainer_or_of_a_wrong_name_is_refused() -> None:
    with pytest.raises(PipelineError, match=r"\[parameters\.lime\] is for no explainer"):
        load_explainers(["grad-cam"], {"lime": {"samples": 3}})
    with pytest.raises(PipelineError, match=r"\[parameters\.lime\]"):
        load_explainers(["lime"], {"lime": {"nonsense": 3}})
