"""Guided backpropagation, and Guided Grad-CAM made with it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from service.errors import UnsupportedMethodError
from workers.explainers.batching import out_of_memory
from workers.explainers.cam import GradCam, activation_map
from workers.explainers.copies import graph_copy
from workers.explainers.evidence import evidence
from workers.explainers.gradients import on_places
from workers.explainers.graph import Kind, kind
from workers.interfaces import Explanation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.model_card import ModelCard
    from workers.interfaces import Classifier


class _GuidedRelu(torch.autograd.Function):
    """A ReLU through which only positive gradients go back."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x.clamp_min(0.0)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        result: torch.Tensor = gradients[0].clamp_min(0.0) * (x > 0)
        return result


class _Guided(fx.Interpreter):
    """Computes a graph with guided ReLUs in place of its own."""

    relus = 0

    def run_node(self, n: fx.Node) -> object:
        if _is_relu(n, self.module):
            self.relus += 1
            arguments, _ = self.fetch_args_kwargs_from_env(n)
            guided: object = _GuidedRelu.apply(arguments[0])  # type: ignore[no-untyped-call]
            return guided
        return super().run_node(n)


def _is_relu(node: fx.Node, graph: nn.Module) -> bool:
    if not isinstance(graph, fx.GraphModule) or kind(node, graph) is not Kind.ACTIVATION:
        return False
    if node.op == "call_module":
        return type(graph.get_submodule(str(node.target))) is nn.ReLU
    return node.target in {F.relu, torch.relu, "relu"}


def guided_backpropagation(classifier: Classifier, batch: torch.Tensor, labels: Sequence[int]) -> torch.Tensor:
    """Return the guided gradient of each label's logit by the input, (labels, channels, ...), on the CPU.

    Source: Springenberg et al. 2015, "Striving for Simplicity: The All Convolutional Net", arXiv:1412.6806. It draws
    edges that are much alike whatever the network learned (Adebayo et al. 2018, arXiv:1810.03292), so it is no
    explanation of its own here.

    Raises:
        UnsupportedMethodError: the model gives no gradients, has no ReLU, or there is no memory.
    """
    for device in dict.fromkeys((classifier.device, torch.device("cpu"))):
        interpreter = _Guided(graph_copy(classifier, device))
        try:
            found = _guided(interpreter, classifier.card, batch.to(device), labels)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            continue
        if interpreter.relus == 0:
            raise UnsupportedMethodError(
                f"model '{classifier.card.name}' has no ReLU that gradients could be guided by"
            )
        return found
    raise UnsupportedMethodError("there is not enough memory for a guided backward pass")


def _guided(interpreter: _Guided, card: ModelCard, batch: torch.Tensor, labels: Sequence[int]) -> torch.Tensor:
    with torch.enable_grad():
        leaf = batch.detach().clone().requires_grad_()
        logits = evidence(card, interpreter.run(leaf))
        found = [torch.autograd.grad(logits[0, label], leaf, retain_graph=True)[0][0] for label in labels]
    return torch.stack(found).float().cpu()


class GuidedGradCam:
    """Grad-CAM times guided backpropagation: where, as coarsely as Grad-CAM says it, with fine edges drawn in.

    Source: Selvaraju et al. 2017, arXiv:1610.02391, section 3.2. The positive part of Grad-CAM, resized to the input's
    grid, times the guided gradient, summed over channels; in arbitrary units. What it adds to Grad-CAM is mostly edges
    of the image.

    Args:
        layer: of Grad-CAM; empty for the card's.

    Raises:
        ValueError: the layer's name is no text.
    """

    name = "guided-grad-cam"
    title = "Guided Grad-CAM"
    cost = 6

    def __init__(self, *, layer: str = "") -> None:
        self._cam = GradCam(layer=layer)
        self.layer = layer

    def explain(self, classifier: Classifier, batch: torch.Tensor, labels: Sequence[int]) -> list[Explanation]:
        """Explain all labels; the map lies on the input's grid.

        Raises:
            UnsupportedMethodError: the model gives no gradients, or its operations cannot be followed.
            ModelError: the network has no such layer.
        """
        begun = time.perf_counter()
        guided = guided_backpropagation(classifier, batch, labels)
        maps = [activation_map(self._cam, classifier, batch, label, self.layer) for label in labels]
        products = [on_places(_resized(cam, batch) * fine) for (cam, _), fine in zip(maps, guided, strict=True)]
        seconds = (time.perf_counter() - begun) / max(len(labels), 1)
        return [
            Explanation(label=label, map=product, parameters={"layer": layer}, seconds=seconds)
            for label, product, (_, layer) in zip(labels, products, maps, strict=True)
        ]


def _resized(cam: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
    """Carry the positive part of a map onto the input's grid; corners of the grids coincide, as in `preprocess`."""
    mode = "bilinear" if cam.ndim == 2 else "trilinear"  # noqa: PLR2004 - rows and columns
    positive = cam.clamp_min(0.0)[None, None]
    return F.interpolate(positive, size=batch.shape[2:], mode=mode, align_corners=False)[0]
