from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
import white_box
from torch import nn

from service.errors import UnsupportedMethodError
from service.settings import packaged_config
from workers.explainers.batching import Forwards, out_of_memory
from workers.explainers.kernel_shap import KernelShap
from workers.explainers.lime import Lime
from workers.explainers.occlusion import Occlusion
from workers.explainers.owen import Owen
from workers.explainers.rise import Rise
from workers.models.eight_bit import has_fast_bytes
from workers.models.package import load_package
from workers.phantom.film import make_phantom
from workers.preprocess import standardize

if TYPE_CHECKING:
    from service.model_card import ModelCard
    from workers.interfaces import Explainer

SPACE = (24, 32)


class Normed(nn.Module):
    """Has a batch norm to fold, and a mean that shows what was folded wrongly."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.first = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.head = nn.Linear(8, 2)
        for parameter in self.parameters():
            nn.init.normal_(parameter, generator=generator)
        self.eval().requires_grad_(requires_grad=False)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.relu(self.norm(self.first(batch))).mean(dim=(2, 3)))
        return logits


@dataclass(kw_only=True, eq=False)
class Scarce:
    """A classifier whose memory holds `holds` inputs at once; with `network` None it is as ONNX is."""

    inside: nn.Module = field(default_factory=Normed)
    network: nn.Module | None = None
    holds: int = 10**9
    card: ModelCard = field(default_factory=lambda: white_box.classifier(None).card)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    sizes: list[int] = field(default_factory=list)

    def logits(self, batch: torch.Tensor) -> torch.Tensor:
        if len(batch) > self.holds:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        self.sizes.append(len(batch))
        with torch.no_grad():
            result: torch.Tensor = self.inside(batch)
        return result


def inputs(count: int) -> torch.Tensor:
    return torch.randn(count, 1, *SPACE, generator=torch.Generator().manual_seed(1))


def answers(classifier: Scarce, batch: torch.Tensor) -> np.ndarray:
    forwards = Forwards(classifier, batch[:2])  # type: ignore[arg-type]
    found = forwards(len(batch), lambda start, end, device: batch[start:end].to(device))
    assert forwards.count == len(batch)
    return found


def test_a_classifier_without_a_graph_is_asked_by_its_logits() -> None:
    batch = inputs(37)
    classifier = Scarce()
    np.testing.assert_allclose(answers(classifier, batch), classifier.inside(batch), atol=1e-6)
    assert sum(classifier.sizes) == 37
    assert max(classifier.sizes) > 1


def test_a_fast_copy_answers_as_the_classifier_does_and_leaves_it_alone() -> None:
    batch, network = inputs(20), Normed()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    classifier = Scarce(inside=network, network=network)
    found = answers(classifier, batch)
    np.testing.assert_allclose(found, network(batch), atol=0.03)
    # Asked once, on the probes: the rest was the copy's work.
    assert classifier.sizes == [2]
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_a_copy_is_made_anew_when_weights_changed_behind_its_back() -> None:
    batch, network = inputs(4), Normed()
    classifier = Scarce(inside=network, network=network)
    answers(classifier, batch)
    network.head.weight.data.mul_(-1.0)
    np.testing.assert_allclose(answers(classifier, batch), network(batch), atol=0.03)


def test_a_classifier_that_does_more_than_its_graph_answers_itself() -> None:
    batch = inputs(4)
    inside = Normed()
    inside.head.bias.data.add_(7.0)
    np.testing.assert_allclose(answers(Scarce(inside=inside, network=Normed()), batch), inside(batch), atol=1e-5)


def test_batches_are_halved_until_they_fit() -> None:
    batch = inputs(23)
    classifier = Scarce(holds=3)
    np.testing.assert_allclose(answers(classifier, batch), classifier.inside(batch), atol=1e-6)
    assert max(classifier.sizes) <= 3


@pytest.mark.parametrize("explainer", [Lime(regions=9), KernelShap(regions=9), Owen(regions=9), Occlusion(), Rise()])
def test_without_memory_for_one_input_a_method_is_refused_in_words(explainer: Explainer) -> None:
    with pytest.raises(UnsupportedMethodError, match="not enough memory"):
        explainer.explain(Scarce(holds=0), inputs(1), [0])  # type: ignore[arg-type]


def test_a_method_gives_the_same_map_with_little_memory() -> None:
    explainer = Lime(regions=9, samples=64)
    (plenty,) = explainer.explain(Scarce(), inputs(1), [0])  # type: ignore[arg-type]
    (scarce,) = explainer.explain(Scarce(holds=2), inputs(1), [0])  # type: ignore[arg-type]
    torch.testing.assert_close(plenty.map, scarce.map, atol=1e-5, rtol=0)


def test_another_error_is_not_taken_for_lack_of_memory() -> None:
    assert out_of_memory(torch.OutOfMemoryError("x"))
    assert out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"))
    assert not out_of_memory(RuntimeError("shapes do not match"))


# A machine without a GPU has nothing that this could be tried on.
if torch.cuda.is_available():

    def test_what_does_not_fit_on_the_gpu_runs_on_the_cpu() -> None:
        batch = inputs(5).cuda()
        network = Normed().cuda()
        forwards = Forwards(Scarce(inside=network, network=network, device=torch.device("cuda")), batch[:2])  # type: ignore[arg-type]
        seen: list[str] = []

        def make(start: int, end: int, device: torch.device) -> torch.Tensor:
            seen.append(device.type)
            if device.type == "cuda":
                raise torch.OutOfMemoryError("no memory")
            return batch[start:end].to(device)

        np.testing.assert_allclose(forwards(5, make), network(batch).cpu(), atol=0.05)
        assert seen[-1] == "cpu"


@pytest.mark.skipif(not has_fast_bytes(), reason="this processor has no 8-bit products")
def test_the_image_asked_about_in_between_changes_no_answer() -> None:
    classifier = load_package(packaged_config() / "models" / "pneumonia-compact", torch.device("cpu"))

    def asked(seed: int) -> tuple[Forwards, torch.Tensor]:
        pixels = make_phantom(seed, (224, 224), opacities=2).pixels.astype(np.float32) / 4095
        film = standardize(torch.from_numpy(pixels)[None, None])
        return Forwards(classifier, torch.cat([film, torch.full_like(film, float(film.quantile(0.05)))])), film

    first, film = asked(3)
    assert first.precision == "int8"
    before = first(1, lambda *_: film)
    other, another = asked(4)
    other(1, lambda *_: 0.5 * another)
    assert np.array_equal(first(1, lambda *_: film), before)
