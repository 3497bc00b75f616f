from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import ndimage

from dicom_nodes.objects.read import read_image
from workers.phantom.files import sample_opacities, write_samples
from workers.phantom.film import make_phantom

if TYPE_CHECKING:
    from pathlib import Path

SIZE = (256, 240)


def test_the_same_seed_draws_the_same_film() -> None:
    first, second = (make_phantom(5, SIZE, opacities=2) for _ in range(2))
    assert np.array_equal(first.pixels, second.pixels)
    assert not np.array_equal(first.pixels, make_phantom(6, SIZE, opacities=2).pixels)


def test_pixels_use_twelve_bits() -> None:
    pixels = make_phantom(1, SIZE).pixels
    assert pixels.dtype == np.uint16
    assert int(pixels.max()) <= 4095
    assert int(pixels.max()) - int(pixels.min()) > 3000


@pytest.mark.parametrize("seed", range(6))
def test_both_lungs_are_darker_than_what_lies_around_them(seed: int) -> None:
    phantom = make_phantom(seed, SIZE)
    _, count = ndimage.label(ndimage.binary_opening(phantom.lungs, iterations=3))
    around = ndimage.binary_dilation(phantom.lungs, iterations=8) & ~ndimage.binary_dilation(
        phantom.lungs, iterations=2
    )
    assert count == 2
    assert 0.12 < phantom.lungs.mean() < 0.35
    assert np.median(phantom.pixels[phantom.lungs]) < 0.8 * np.median(phantom.pixels[around])


@pytest.mark.parametrize("seed", range(6))
def test_an_opacity_is_planted_in_the_lungs_and_nowhere_else(seed: int) -> None:
    clear, sick = make_phantom(seed, SIZE), make_phantom(seed, SIZE, opacities=1)
    change = sick.pixels.astype(float) - clear.pixels
    assert not clear.opacities.any()
    assert sick.opacities.any()
    assert not (sick.opacities & ~ndimage.binary_dilation(clear.lungs, iterations=4)).any()
    assert change[sick.opacities].mean() > 150
    far = ~ndimage.binary_dilation(sick.opacities, iterations=40)
    assert abs(change[far].mean()) < 30


def test_a_phantom_too_small_for_a_chest_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 64"):
        make_phantom(1, (32, 256))


def test_samples_repeat_byte_for_byte_and_are_different_studies(tmp_path: Path) -> None:
    first = write_samples(tmp_path / "a", 4, 3, SIZE)
    second = write_samples(tmp_path / "b", 4, 3, SIZE)
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    assert len({read_image(p).header.StudyInstanceUID for p in first}) == 4


def test_samples_read_back_as_the_phantoms_they_are_whatever_their_polarity(tmp_path: Path) -> None:
    kinds = set()
    for index, path in enumerate(write_samples(tmp_path, 4, 3, SIZE)):
        source = read_image(path)
        header = source.image.header
        kinds.add((header.modality, header.photometric_interpretation))
        phantom = make_phantom(3 * 10_000 + index, SIZE, opacities=sample_opacities(index))
        assert np.corrcoef(source.image.grey.ravel(), phantom.pixels.ravel())[0, 1] > 0.99
        assert (header.body_part, header.view_position, header.patient_orientation) == ("CHEST", "PA", ("L", "F"))
        assert str(source.header.PatientName).startswith("Phantom^")
    assert {photometric for _, photometric in kinds} == {"MONOCHROME1", "MONOCHROME2"}
    assert {modality for modality, _ in kinds} == {"DX", "CR"}


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian: dicom3tools) is not installed")
def test_samples_have_no_error_for_the_dicom_validator(tmp_path: Path) -> None:
    for path in write_samples(tmp_path, 4, 3, SIZE):
        told = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
        assert "Image" in told.stderr
        assert not [line for line in told.stderr.splitlines() if line.startswith("Error")]
