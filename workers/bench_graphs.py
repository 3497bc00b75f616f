"""Networks to time explanations on: any registered graph, with random features and a head that was fitted to phantoms.

A network of random weights alone answers every image alike, so nothing that is hidden changes its answer: methods that
stop when they are sure would never stop, and no map would be better than another. A head fitted in seconds makes the
answer depend on opacities, well enough to compare maps of this very network with each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from service.errors import ModelError
from workers.assessors.shortcut import as_batch, grey_of
from workers.models.graphs import build_graph
from workers.models.package import PackagedClassifier
from workers.phantom.film import make_phantom

if TYPE_CHECKING:
    from collections.abc import Iterator

FIRST_PHANTOM = 9_000_000_000
FILMS = 12
"""Chests; each is seen clear and with opacities."""
SIZE = (224, 224)
RIDGE = 1.0
"""Penalty on the head, as a share of the features' mean variance times the films."""
LOGITS = 3.0
"""What a film with opacities should be given, and a clear one less than nothing."""


def graph_with_head(classifier: PackagedClassifier, graph: str) -> PackagedClassifier:
    """Return the classifier with another graph in place of its own.

    Raises:
        ModelError: there is no such graph, or it ends in no linear layer.
    """
    torch.manual_seed(0)
    network = build_graph(graph, labels=len(classifier.card.labels))
    network.to(classifier.device).eval().requires_grad_(requires_grad=False)
    layers = [name for name, _ in network.named_children() if name in {"features", "layer4"}]
    weights = classifier.card.weights.model_copy(update={"graph": graph, "cam_layer": layers[0]})
    card = classifier.card.model_copy(update={"weights": weights})
    made = PackagedClassifier(card=card, network=network, device=classifier.device)
    _fit_head(made, network)
    return made


def _fit_head(classifier: PackagedClassifier, network: nn.Module) -> None:
    heads = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not heads:
        raise ModelError(f"graph '{classifier.card.weights.graph}' ends in no linear layer that could be fitted")
    seen: list[torch.Tensor] = []
    handle = heads[-1].register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].double().cpu()))
    try:
        with torch.inference_mode():
            for film in _films(classifier):
                network(film)
    finally:
        handle.remove()
    features = torch.cat(seen)
    wanted = LOGITS * torch.tensor([-1.0, 1.0], dtype=torch.float64).repeat(FILMS)
    middle = features.mean(dim=0)
    centred = features - middle
    # As many equations as films, not as many as features.
    kernel = centred @ centred.T
    penalty = RIDGE * float(kernel.diagonal().mean())
    dual = torch.linalg.solve(kernel + penalty / FILMS * torch.eye(len(kernel), dtype=torch.float64), wanted)
    weight = dual @ centred
    heads[-1].weight.copy_(weight.expand_as(heads[-1].weight))
    if heads[-1].bias is not None:
        heads[-1].bias.fill_(-float(weight @ middle))


def _films(classifier: PackagedClassifier) -> Iterator[torch.Tensor]:
    expected = classifier.card.input
    for number in range(FILMS):
        for opacities in (0, 1 + number % 3):
            grey = grey_of(make_phantom(FIRST_PHANTOM + number, SIZE, opacities=opacities))
            yield as_batch(grey, expected.rows, expected.columns).to(classifier.device)
