"""From a model's probabilities to findings, and which of them are explained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.results import Finding

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from service.model_card import ModelCard


def findings_of(
    card: ModelCard, probabilities: NDArray[np.float64], slices: NDArray[np.float64] | None = None
) -> tuple[Finding, ...]:
    """Return one finding per label that is no background class, in the card's order.

    Args:
        card: of the model.
        probabilities: of the image or series, shape (labels,).
        slices: of its slices, shape (slices, labels); None for single images and volumes.
    """
    return tuple(
        Finding(
            label=label.name,
            code=label.code.code(),
            probability=float(probabilities[index]),
            operating_point=label.default_operating_point(),
            operating_points=tuple(point.operating_point() for point in label.operating_points),
            slice_probabilities=() if slices is None else tuple(float(value) for value in slices[:, index]),
        )
        for index, label in enumerate(card.labels)
        if not label.background
    )


def labels_to_explain(card: ModelCard, findings: Sequence[Finding], most: int) -> list[int]:
    """Return indices into the card's labels: what is at or above its operating point, the most probable first.

    With nothing there, the finding that came nearest to its own operating point.
    """
    indices = {label.name: index for index, label in enumerate(card.labels)}
    ranked = sorted(findings, key=lambda finding: -finding.probability)
    nearest = sorted(findings, key=lambda finding: finding.operating_point.threshold - finding.probability)
    chosen = [finding for finding in ranked if finding.positive][:most] or nearest[:1]
    return [indices[finding.label] for finding in chosen]
