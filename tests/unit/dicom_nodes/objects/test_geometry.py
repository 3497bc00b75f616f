"""Objects in space are made of slices that are one stack, and lie where these lie."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from dicom_nodes.objects import segmentation, subject
from dicom_nodes.objects.geometry import stack_geometry
from service.errors import ObjectRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydicom import Dataset

    from service.images import Series
    from service.results import Result

    Stack = Callable[..., tuple[list[Dataset], Series]]
    Results = Callable[..., Result]

SHAPE = (64, 48)


@pytest.mark.parametrize(
    ("keyword", "value", "reason"),
    [
        ("FrameOfReferenceUID", "2.25.78", "different frames of reference"),
        ("ImageOrientationPatient", ["0.999", "0.0447", "0", "-0.0447", "0.999", "0"], "not parallel"),
        ("PixelSpacing", ["0.5", "0.6"], "no pixel spacing in common"),
    ],
)
def test_one_slice_that_lies_otherwise_is_enough_to_refuse(
    stack: Stack, several: Results, keyword: str, value: Any, reason: str
) -> None:
    headers, series = stack(7)
    setattr(headers[3], keyword, value)
    with pytest.raises(ObjectRefusedError, match=reason):
        stack_geometry(subject.of_series(headers, series, several(SHAPE, slices=7)))


def test_slices_of_different_sizes_are_no_stack(stack: Stack, several: Results) -> None:
    headers, series = stack(7)
    smaller = dataclasses.replace(series.slices[3], grey=series.slices[3].grey[:-1])
    slices = (*series.slices[:3], smaller, *series.slices[4:])
    about = subject.of_series(headers, dataclasses.replace(series, slices=slices), several(SHAPE, slices=7))
    with pytest.raises(ObjectRefusedError, match="differ in rows or columns"):
        stack_geometry(about)


@pytest.mark.parametrize(("tilt_mm", "refused"), [(0.03, False), (0.05, True)])
def test_a_stack_may_be_sheared_by_less_than_half_a_pixel(
    stack: Stack, several: Results, tilt_mm: float, refused: bool
) -> None:
    headers, series = stack(7, tilt_mm=tilt_mm)  # from the first to the last slice six times as much
    about = subject.of_series(headers, series, several(SHAPE, slices=7))
    if refused:
        with pytest.raises(ObjectRefusedError, match=r"sheared by 0\.3 mm"):
            stack_geometry(about)
    else:
        assert stack_geometry(about).slice_spacing == pytest.approx(2.0)


def test_slices_may_have_gaps_between_them(stack: Stack, several: Results) -> None:
    headers, series = stack(5, gaps=(3.0,))
    geometry = stack_geometry(subject.of_series(headers, series, several(SHAPE, slices=5)))
    assert geometry.slice_spacing == pytest.approx(3.0)
    assert geometry.slice_thickness == 2.0


def test_directions_and_sizes_of_pixels_are_written_as_the_source_has_them(stack: Stack, several: Results) -> None:
    sagittal = (0, 1, 0, 0, 0, -1)
    headers, series = stack(5, orientation=sagittal, PixelSpacing=["0.5", "0.8"])
    dataset = segmentation.build_series(headers, series, several(SHAPE, slices=5))
    (shared,) = dataset.SharedFunctionalGroupsSequence
    (measures,), (plane,) = shared.PixelMeasuresSequence, shared.PlaneOrientationSequence
    assert [float(value) for value in measures.PixelSpacing] == [0.5, 0.8]
    assert np.allclose([float(value) for value in plane.ImageOrientationPatient], sagittal)
