"""What an explanation is of: the logit of a label's probability.

Of labels that stand for themselves that is what the network returns. Classes that exclude each other share one softmax,
and only what a class has ahead of the others counts: what is added to all of them changes no answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.model_card import ModelCard


def evidence(card: ModelCard, outputs: torch.Tensor) -> torch.Tensor:
    """Return the logit of each label's probability before calibration, of the outputs' shape (..., labels)."""
    if card.task != "multi-class":
        return outputs
    return outputs - torch.logsumexp(_others(outputs), dim=-1)


def contrast(card: ModelCard, outputs: torch.Tensor, labels: Sequence[int]) -> torch.Tensor:
    """Return what of the outputs (labels,) each label's evidence is made of, as weights (labels asked for, labels).

    For methods that share out a weighted sum: a class has weight 1, and the others together -1, each by its share of
    their softmax at these outputs (Gu, Yang and Tresp 2018, arXiv:1812.02100).
    """
    own = torch.eye(len(outputs), dtype=outputs.dtype, device=outputs.device)
    if card.task == "multi-class":
        own = own - torch.softmax(_others(outputs), dim=-1)
    return own[list(labels)]


def _others(outputs: torch.Tensor) -> torch.Tensor:
    """Return the outputs once for each label, without its own: (..., labels, labels)."""
    count = outputs.shape[-1]
    own = torch.eye(count, dtype=torch.bool, device=outputs.device)
    return outputs.unsqueeze(-2).expand(*outputs.shape, count).masked_fill(own, -torch.inf)
