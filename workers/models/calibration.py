"""From logits to what a result says: temperature and bias, then sigmoid, softmax, or torchxrayvision's scaling."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from service.model_card import ModelCard

LARGEST = 60.0
"""Clipped, so that a confident logit neither overflows nor warns."""


def calibrated(card: ModelCard, logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return probabilities, shape (batch, labels): logit / temperature + bias, through the task's function.

    A label with `op_norm` gives a score instead, 0.5 at its threshold (Cohen et al. 2022, "TorchXRayVision",
    MIDL): a screening order, not a probability.
    """
    temperature = np.array([label.temperature for label in card.labels])
    bias = np.array([label.bias for label in card.labels])
    scaled = np.clip(logits / temperature + bias, -LARGEST, LARGEST)
    if card.task == "multi-class":
        return softmax(scaled)
    probabilities: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-scaled))
    for index, label in enumerate(card.labels):
        if label.op_norm is not None:
            probabilities[:, index] = op_norm(probabilities[:, index], label.op_norm)
    return probabilities


def largest_change(card: ModelCard, logits: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """Return how far the difference of two sets of logits, shape (batch, labels), could move any probability.

    Not at the logits given, which may lie where a sigmoid is flat, but wherever it is steepest: a quarter of the
    difference for a sigmoid, half of it for a softmax and for torchxrayvision's score.
    """
    temperature = np.array([label.temperature for label in card.labels])
    steep = card.task == "multi-class" or any(label.op_norm is not None for label in card.labels)
    return float(np.abs((logits - others) / temperature).max()) * (0.5 if steep else 0.25)


def softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return shares that sum to 1 along the last axis."""
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def op_norm(probability: NDArray[np.float64], threshold: float) -> NDArray[np.float64]:
    """Return torchxrayvision's score: [0, threshold] mapped to [0, 0.5] and [threshold, 1] to [0.5, 1], linearly."""
    below = probability / (2 * threshold)
    above = 1 - (1 - probability) / (2 * (1 - threshold))
    return np.where(probability < threshold, below, above)


def pooled(logits: NDArray[np.float64], aggregation: str, *, top_k: int, sharpness: float) -> NDArray[np.float64]:
    """Aggregate the slices' logits, shape (slices, labels), into the series', shape (1, labels).

    `max` and `top-k-mean` follow multiple-instance learning's usual pooling; `attention` is the mean weighed by
    softmax(sharpness x logit), an attention without parameters of its own (compare Ilse et al. 2018,
    arXiv:1802.04712, whose attention is learned).
    """
    if aggregation == "max":
        return np.asarray(logits.max(axis=0, keepdims=True))
    if aggregation == "top-k-mean":
        best = np.sort(logits, axis=0)[-min(top_k, len(logits)) :]
        return np.asarray(best.mean(axis=0, keepdims=True))
    weights = softmax(sharpness * logits.T).T
    return np.asarray((weights * logits).sum(axis=0, keepdims=True))
