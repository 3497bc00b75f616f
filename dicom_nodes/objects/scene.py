"""One film with one explanation of one finding: what a page draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dicom_nodes.objects import contours
from dicom_nodes.objects.captions import is_shown, none_shown
from dicom_nodes.objects.key_slices import key_slices, strongest_slice
from dicom_nodes.objects.subject import default_explanation, explained_findings, explanations_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom import Dataset

    from dicom_nodes.objects.subject import Subject
    from service.images import Image
    from service.results import Attribution, Finding, Result


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A slice or film, a finding, and at most one explanation of it."""

    header: Dataset
    image: Image
    result: Result
    finding: Finding
    attribution: Attribution | None
    magnitude: NDArray[np.float32]
    """Shape (rows, columns), in [0, 1]; of a series relative to the maximum of all slices. Zero where nothing may
    be drawn."""
    smoothed: bool = False
    """True when the map is one of single pixels, which nobody can read unless it is smoothed."""
    place: str = ""
    """Which slice; empty for a single image."""

    @property
    def withheld(self) -> bool:
        """True when there is a map that failed its checks and must not be shown."""
        return self.attribution is not None and not is_shown(self.attribution)


def scene(about: Subject, finding: Finding, attribution: Attribution | None, index: int) -> Scene:
    """Return the scene of one slice of a subject."""
    image = about.images[index]
    magnitude = np.zeros(image.grey.shape, dtype=np.float32)
    if attribution is not None and is_shown(attribution):
        magnitude = about.magnitude(attribution, index)
    smooth = contours.outlined(magnitude)
    return Scene(
        header=about.headers[index],
        image=image,
        result=about.result,
        finding=finding,
        attribution=attribution,
        magnitude=smooth,
        smoothed=smooth is not magnitude,
        place=about.place(index),
    )


def default_scene(about: Subject) -> Scene:
    """Return the scene of the default explanation, on the slice that stands for a series."""
    attribution, finding = default_explanation(about.result)
    return scene(about, finding, attribution, strongest_slice(about, finding))


def large_scenes(about: Subject) -> list[Scene]:
    """Return what is drawn large, the most important first.

    A radiograph has one scene per explained finding; a series one per slice that mattered and was explained, the
    strongest first: a slice without a map would look as if nothing in it had mattered. A map that must not be shown has
    one scene, to say so: more of them would say no more.
    """
    scenes = []
    for finding in explained_findings(about.result):
        attribution = explanations_of(about.result, finding)[0]
        first = strongest_slice(about, finding)
        several = about.series is not None and is_shown(attribution)
        marked = about.influence(attribution) > 0 if several else ()
        others = [index for index in key_slices(about, finding) if index != first and marked[index]] if several else []
        scenes += [scene(about, finding, attribution, index) for index in (first, *others)]
    return scenes or [default_scene(about)]


def compared_scenes(about: Subject) -> list[list[Scene]]:
    """Return, for each finding with several explanations, the scenes to lay side by side.

    Nothing where none of them may be shown: there is nothing to compare, and the large page tells why.
    """
    compared = []
    for finding in explained_findings(about.result):
        explained = explanations_of(about.result, finding)
        if len(explained) > 1 and not none_shown(explained):
            index = strongest_slice(about, finding)
            compared.append([scene(about, finding, attribution, index) for attribution in explained])
    return compared
