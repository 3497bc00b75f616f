"""Of classes that exclude each other, what is explained is what a class has ahead of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from films import as_image
from torch import nn
from white_box import classifier

from workers.explainers.cam import GradCam
from workers.explainers.evidence import contrast, evidence
from workers.explainers.gradients import Saliency
from workers.explainers.guided import GuidedGradCam
from workers.explainers.integrated_gradients import IntegratedGradients
from workers.explainers.kernel_shap import KernelShap
from workers.explainers.lime import Lime
from workers.explainers.occlusion import Occlusion
from workers.explainers.relevance import LrpComposite
from workers.explainers.shapley_gradients import DeepShap

if TYPE_CHECKING:
    from workers.interfaces import Explainer
    from workers.models.package import PackagedClassifier

METHODS: list[Explainer] = [
    GradCam(),
    Saliency(),
    GuidedGradCam(),
    IntegratedGradients(),
    Occlusion(),
    Lime(),
    KernelShap(),
    DeepShap(),
    LrpComposite(),
]


class Classes(nn.Module):
    """Three classes; `common` is added to the output of each, and changes no probability."""

    def __init__(self, common: float) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.features = nn.Sequential(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU())
        self.head = nn.Linear(6, 3, bias=False)
        with torch.no_grad():
            self.head.weight += common * torch.randn(6, generator=torch.Generator().manual_seed(3))

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.features(batch).mean(dim=(2, 3)))
        return logits


def of_classes(common: float = 0.0) -> PackagedClassifier:
    made = classifier(Classes(common).eval().requires_grad_(requires_grad=False), labels=("A", "B", "C"))
    return type(made)(
        card=made.card.model_copy(update={"task": "multi-class"}), network=made.network, device=made.device
    )


@pytest.fixture(scope="module")
def grey() -> np.ndarray:
    values = np.random.default_rng(4).random((64, 64), dtype=np.float32) * 0.3
    values[20:40, 30:50] += 0.6
    return values


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_what_is_added_to_every_class_changes_no_map(method: Explainer, grey: np.ndarray) -> None:
    plain, lifted = of_classes(), of_classes(common=2.0)
    batch = plain.preprocess(as_image(grey))
    assert plain.probabilities(plain.logits(batch)) == pytest.approx(lifted.probabilities(lifted.logits(batch)))
    (expected,), (found,) = (method.explain(model, batch, [1]) for model in (plain, lifted))
    scale = float(expected.map.abs().max())
    # Relevance is shared out by what each class's own sum is made of, and a path is cut where outputs bend: alike.
    if method.name in {"lrp", "integrated-gradients"}:
        alike = np.corrcoef(expected.map.ravel(), found.map.ravel())[0, 1]
        assert alike > 0.9
    else:
        torch.testing.assert_close(found.map, expected.map, atol=0.03 * scale, rtol=0)


def test_evidence_is_the_logit_of_the_probability() -> None:
    outputs = torch.randn((5, 3), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    card = of_classes().card
    torch.testing.assert_close(evidence(card, outputs), torch.logit(torch.softmax(outputs, dim=1)))
    apart = card.model_copy(update={"task": "multi-label"})
    assert evidence(apart, outputs) is outputs
    assert contrast(apart, outputs[0], [2, 0]).tolist() == [[0, 0, 1], [1, 0, 0]]


def test_a_contrast_bends_as_the_evidence_does_at_these_outputs() -> None:
    card = of_classes().card
    outputs = torch.randn(3, generator=torch.Generator().manual_seed(1)).requires_grad_()
    for label in range(3):
        (slope,) = torch.autograd.grad(evidence(card, outputs)[label], outputs)
        torch.testing.assert_close(contrast(card, outputs.detach(), [label])[0], slope)
