"""What stands below the film in a presentation state: how to read the lines, and how far they may be trusted."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest

from dicom_nodes.objects.presentation_state import build
from dicom_nodes.objects.read import SourceImage, read_image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pydicom import Dataset
    from pydicom.dataset import FileDataset

    from service.results import Result

    Make = Callable[..., FileDataset]
    Save = Callable[[Dataset], Path]
    Results = Callable[..., Result]

FLAT = np.full((300, 240), 128, dtype=np.uint8)
READING = "Lines show what influenced the model, not the extent of disease."


@pytest.fixture
def read(source: Make, saved: Save) -> SourceImage:
    return read_image(saved(source(FLAT)))


def words(state: Dataset) -> str:
    return " ".join(
        str(text.UnformattedTextValue)
        for item in state.GraphicAnnotationSequence
        for text in item.get("TextObjectSequence", ())
    )


@pytest.mark.parametrize(("method", "trust"), [(0, "use with caution"), (2, "reliable by its measures")])
def test_the_lines_have_the_verdict_of_their_own_map(
    read: SourceImage, several: Results, method: int, trust: str
) -> None:
    result = several(FLAT.shape)
    alone = dataclasses.replace(result, attributions=result.attributions[method : method + 1])
    told = words(build(read.header, read.image, alone))
    assert f"{alone.attributions[0].title} for Pneumonia, 50 % and 80 %; {trust}" in told


def test_how_to_read_lines_is_said_where_there_are_lines(read: SourceImage, several: Results) -> None:
    result = several(FLAT.shape)
    failed = dataclasses.replace(result, attributions=result.attributions[1:2])
    negative = several(FLAT.shape, probability=0.1)
    told = [words(build(read.header, read.image, each)) for each in (result, failed, negative)]
    assert [READING in each for each in told] == [True, False, False]
    assert all("AI - research use, not for primary diagnosis." in each for each in told)


@pytest.mark.parametrize("side", ["L", "R"])
def test_the_state_of_a_hand_is_of_the_side_of_its_film(source: Make, saved: Save, several: Results, side: str) -> None:
    hand = read_image(saved(source(FLAT, BodyPartExamined="HAND", Laterality=side)))
    state = build(hand.header, hand.image, several(FLAT.shape))
    assert (state.BodyPartExamined, state.Laterality) == ("HAND", side)
