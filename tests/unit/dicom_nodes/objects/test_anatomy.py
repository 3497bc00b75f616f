"""A picture lies as its source lies, and is of the side that its source is of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydicom import Dataset

from dicom_nodes.objects.anatomy import add_anatomy

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydicom.dataset import FileDataset

    Make = Callable[..., FileDataset]


@pytest.mark.parametrize("orientation", [["L", "F"], ["F", "L"], ["A", "FR"]])
def test_rows_and_columns_run_as_the_sources_do(source: Make, orientation: list[str]) -> None:
    picture = Dataset()
    add_anatomy(source(PatientOrientation=orientation), picture)
    assert list(picture.PatientOrientation) == orientation


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"BodyPartExamined": "HAND", "Laterality": "L"}, {"Laterality": "L"}),
        ({"BodyPartExamined": "HAND", "Laterality": "R"}, {"Laterality": "R"}),
        ({"BodyPartExamined": "HAND", "ImageLaterality": "L"}, {"ImageLaterality": "L"}),
        ({"BodyPartExamined": "HAND", "ImageLaterality": "R"}, {"ImageLaterality": "R"}),
        # The image's own side counts: both at once may contradict each other (PS3.3 C.7.3.1).
        ({"BodyPartExamined": "HAND", "Laterality": "L", "ImageLaterality": "B"}, {"ImageLaterality": "B"}),
        ({"BodyPartExamined": "HAND"}, {"Laterality": ""}),
        ({"BodyPartExamined": "CHEST", "Laterality": "L"}, {}),
    ],
)
def test_the_side_is_the_one_that_the_source_states(
    source: Make, attributes: dict[str, Any], expected: dict[str, str]
) -> None:
    picture = Dataset()
    add_anatomy(source(**attributes), picture)
    sides = {name: picture[name].value or "" for name in ("Laterality", "ImageLaterality") if name in picture}
    assert sides == expected
