"""All pages of a result in one size, as the frames of a Secondary Capture need it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dicom_nodes.objects.comparison import render_comparison
from dicom_nodes.objects.overlay import render_scene
from dicom_nodes.objects.panels import LARGEST_PANEL, Rendering
from dicom_nodes.objects.scene import Scene, compared_scenes, large_scenes

if TYPE_CHECKING:
    from dicom_nodes.objects.subject import Subject

MOST = 12
"""Pages; nobody turns more."""


@dataclass(frozen=True, kw_only=True)
class Pages:
    """Pages of equal size."""

    first: Scene
    """What the first page shows; spacing and orientation are its."""
    renderings: tuple[Rendering, ...]


def render_pages(about: Subject, *, largest: int = LARGEST_PANEL) -> Pages:
    """Draw the default explanation large, then further findings or slices, then the methods side by side."""
    large = large_scenes(about)
    drawn = [render_scene(scene, largest) for scene in large]
    compared = [page for scenes in compared_scenes(about) for page in render_comparison(scenes, largest)]
    # The comparison must not fall off the end of a series with many slices.
    kept = [*drawn[: max(1, MOST - len(compared))], *compared][:MOST]
    return Pages(first=large[0], renderings=_of_one_size(kept))


def render_first(about: Subject, *, largest: int = LARGEST_PANEL) -> Pages:
    """Draw the default explanation alone, for viewers that show no multi-frame pictures."""
    first = large_scenes(about)[0]
    return Pages(first=first, renderings=(render_scene(first, largest),))


def _of_one_size(pages: list[Rendering]) -> tuple[Rendering, ...]:
    """Extend pages by black at the right and below; nothing moves."""
    height = max(page.picture.shape[0] for page in pages)
    width = max(page.picture.shape[1] for page in pages)
    sized = []
    for page in pages:
        canvas = np.zeros((height, width, 3), dtype=np.uint8)
        canvas[: page.picture.shape[0], : page.picture.shape[1]] = page.picture
        sized.append(Rendering(picture=canvas, films=page.films, texts=page.texts))
    return tuple(sized)
