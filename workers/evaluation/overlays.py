"""One picture of the same films under several models: where each of them looks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont
from scipy import ndimage

from dicom_nodes.objects.colour import blend
from workers.evaluation.cases import read_any, region_of
from workers.preprocess import resize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from service.images import Image
    from workers.evaluation.cases import Case
    from workers.interfaces import Explainer
    from workers.models.package import PackagedClassifier

SIDE = 224
"""Pixels of a film, drawn square."""
GAP = 6
LINE = 20
LETTERS = 13
OUTLINE = (64, 224, 255)


def overlay_grid(
    classifiers: Sequence[tuple[PackagedClassifier, int]],
    explainer: Explainer,
    cases: Sequence[Case],
    *,
    advance: Callable[[int], None],
) -> Pillow.Image:
    """Draw one column per film: the film alone, and under it the explanation of each model with its probability.

    With each model goes the index of the label that is explained. Known places of lesions are outlined. Each map is
    scaled to its own maximum, as results are. `advance` hears of each film that is done.

    Raises:
        NotEligibleError: a film cannot be read, or a model refuses it.
    """
    titles = ["Films, outlined where the place is known"]
    titles += [f"{classifier.card.title} {classifier.card.version}" for classifier, _ in classifiers]
    height = SIDE + 2 * LINE + GAP
    sheet = Pillow.new("RGB", (GAP + len(cases) * (SIDE + GAP), len(titles) * height), "black")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(LETTERS)
    for row, title in enumerate(titles):
        pen.text((GAP, row * height + 2), title, font=font, fill="white")
    for column, case in enumerate(cases):
        left = GAP + column * (SIDE + GAP)
        for row, (picture, note) in enumerate(_panels(classifiers, explainer, case)):
            top = row * height + LINE
            sheet.paste(Pillow.fromarray(picture.round().astype(np.uint8)), (left, top))
            pen.text((left, top + SIDE + 2), note, font=font, fill="white")
        advance(1)
    return sheet


def _panels(
    classifiers: Sequence[tuple[PackagedClassifier, int]], explainer: Explainer, case: Case
) -> Iterator[tuple[NDArray[np.float32], str]]:
    """Yield pictures, RGB in [0, 255] of shape (SIDE, SIDE, 3), with the line below each."""
    image = read_any(case.path)
    film = _square(image.grey)
    edge = _edge(_square(region_of(case, image.grey.shape).astype(np.float32)))
    yield _outlined(film, np.zeros_like(film), edge), "with the finding" if case.truth else "without"
    for classifier, label in classifiers:
        values, probability = _explained(classifier, explainer, image, label)
        yield _outlined(film, values, edge), f"p = {probability:.2f}"


def _explained(
    classifier: PackagedClassifier, explainer: Explainer, image: Image, label: int
) -> tuple[NDArray[np.float32], float]:
    batch = classifier.preprocess(image)
    found = _square(classifier.to_source(image, explainer.explain(classifier, batch, [label])[0].map))
    positive = np.maximum(found, 0)
    probability = float(classifier.probabilities(classifier.exact_logits(batch))[0, label])
    return np.asarray(positive / max(float(positive.max()), 1e-12), dtype=np.float32), probability


def _outlined(film: NDArray[np.float32], values: NDArray[np.float32], edge: NDArray[np.bool_]) -> NDArray[np.float32]:
    picture = blend(film, values)
    picture[edge] = OUTLINE
    return picture


def _square(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(resize(torch.tensor(values, dtype=torch.float32)[None, None], SIDE, SIDE)[0, 0].numpy())


def _edge(region: NDArray[np.float32]) -> NDArray[np.bool_]:
    inside = region >= 0.5  # noqa: PLR2004 - half covered counts as inside
    edge: NDArray[np.bool_] = ndimage.binary_dilation(inside) & ~inside
    return edge
