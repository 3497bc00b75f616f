from __future__ import annotations

import dataclasses
import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image as Picture
from pydicom import dcmread
from pydicom.encaps import generate_frames
from pydicom.uid import MultiFrameTrueColorSecondaryCaptureImageStorage, SecondaryCaptureImageStorage

from dicom_nodes.objects import narrative, subject
from dicom_nodes.objects.comparison import render_comparison
from dicom_nodes.objects.overlay import none_shown_lines, render_scene
from dicom_nodes.objects.pages import render_pages
from dicom_nodes.objects.read import SourceImage, read_image
from dicom_nodes.objects.scene import compared_scenes, default_scene
from dicom_nodes.objects.secondary_capture import build, build_single, build_uncompressed
from dicom_nodes.objects.write import to_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pydicom import Dataset
    from pydicom.dataset import FileDataset

    from dicom_nodes.objects.panels import Rendering
    from service.images import Series
    from service.results import Result

    Make = Callable[..., FileDataset]
    Save = Callable[[Dataset], Path]
    Results = Callable[..., Result]

FLAT = np.full((300, 240), 128, dtype=np.uint8)


@pytest.fixture
def read(source: Make, saved: Save) -> SourceImage:
    """A grey film without anything on it."""
    return read_image(saved(source(FLAT)))


def cut(page: Rendering, film: int) -> np.ndarray:
    left, top, right, bottom = page.films[film]
    return page.picture[top:bottom, left:right]


def test_every_method_that_may_be_shown_has_a_film(read: SourceImage, several: Results) -> None:
    about = subject.of_image(read.header, read.image, several(FLAT.shape))
    (scenes,) = compared_scenes(about)
    assert len(scenes) == 3
    # The first of the three has the page before to itself, the second failed its checks.
    (page,) = render_comparison(scenes)
    assert len(page.films) == 1
    assert len(render_pages(about).renderings) == 2


@pytest.mark.parametrize(("methods", "pages"), [(2, 1), (3, 1), (4, 2), (5, 2)])
def test_no_page_has_a_straggler(read: SourceImage, several: Results, methods: int, pages: int) -> None:
    result = several(FLAT.shape)
    shown = result.attributions[0]
    named = tuple(dataclasses.replace(shown, method=f"m{each}", title=f"Method {each}") for each in range(methods))
    (scenes,) = compared_scenes(
        subject.of_image(read.header, read.image, dataclasses.replace(result, attributions=named))
    )
    drawn = render_comparison(scenes)
    assert [len(page.films) for page in drawn] == [2] * pages


def test_where_a_map_failed_there_are_words_and_no_colour(read: SourceImage, several: Results) -> None:
    (scenes,) = compared_scenes(subject.of_image(read.header, read.image, several(FLAT.shape)))
    (page,) = render_comparison(scenes)
    (film,) = page.films
    top, bottom = film[1], film[3]
    middle = page.picture[top:bottom, : film[0] - 4]
    assert any(top <= box[1] and box[3] <= bottom for box in page.texts)
    # White or amber words on black: never the violet to yellow of the heat at half opacity on grey film.
    assert (middle.reshape(-1, 3) == 0).all(axis=1).mean() > 0.9


def test_no_word_touches_a_film_or_leaves_the_page(source: Make, saved: Save, several: Results) -> None:
    for shape in [(200, 200), (60, 600), (600, 60)]:
        film = read_image(saved(source(np.full(shape, 128, dtype=np.uint8))))
        for page in render_pages(subject.of_image(film.header, film.image, several(shape))).renderings:
            height, width = page.picture.shape[:2]
            for box in page.texts:
                assert 0 <= box[0] <= box[2] <= width
                assert 0 <= box[1] <= box[3] <= height
                for left, top, right, bottom in page.films:
                    apart = box[2] <= left or right <= box[0] or box[3] <= top or bottom <= box[1]
                    assert apart, (shape, box)


def test_the_heat_of_each_method_lies_where_its_map_is_strong(read: SourceImage, several: Results) -> None:
    (scenes,) = compared_scenes(subject.of_image(read.header, read.image, several(FLAT.shape)))
    (page,) = render_comparison(scenes[::2])
    for film, (row, column) in enumerate([(0.3, 0.7), (0.35, 0.65)]):
        panel = cut(page, film).astype(int)
        rows, columns = np.nonzero(np.ptp(panel, axis=2) > 40)
        assert rows.mean() / panel.shape[0] == pytest.approx(row, abs=0.03)
        assert columns.mean() / panel.shape[1] == pytest.approx(column, abs=0.03)


def test_a_negative_film_gets_no_colour_on_any_page(read: SourceImage, several: Results) -> None:
    pages = render_pages(subject.of_image(read.header, read.image, several(FLAT.shape, probability=0.1)))
    for page in pages.renderings:
        for film in range(len(page.films)):
            assert np.ptp(cut(page, film).astype(int), axis=2).max() <= 2


def test_a_default_map_that_failed_is_not_drawn_large(read: SourceImage, several: Results) -> None:
    result = several(FLAT.shape)
    failed = dataclasses.replace(result, attributions=result.attributions[1:2])
    page = render_scene(default_scene(subject.of_image(read.header, read.image, failed)))
    assert len(page.films) == 1
    assert page.films[0][0] == 0
    right = page.picture[page.films[0][1] : page.films[0][3], page.films[0][2] :]
    assert right.max() > 0
    assert (right.reshape(-1, 3) == 0).all(axis=1).mean() > 0.9


def test_several_explanations_make_pages_of_one_size(read: SourceImage, several: Results) -> None:
    dataset = dcmread(io.BytesIO(to_bytes(build(read.header, read.image, several(FLAT.shape)))))
    assert dataset.SOPClassUID == MultiFrameTrueColorSecondaryCaptureImageStorage
    assert dataset.NumberOfFrames == 2
    assert list(dataset.PageNumberVector) == [1, 2]
    for frame in generate_frames(dataset.PixelData, number_of_frames=2):
        with Picture.open(io.BytesIO(frame)) as page:
            assert page.size == (dataset.Columns, dataset.Rows)


def test_frames_are_pages_that_nobody_plays(read: SourceImage, several: Results) -> None:
    dataset = build(read.header, read.image, several(FLAT.shape))
    assert dataset.FrameIncrementPointer == 0x00182001
    for keyword in (
        "FrameTime",
        "FrameTimeVector",
        "CineRate",
        "RecommendedDisplayFrameRate",
        "PreferredPlaybackSequencing",
    ):
        assert keyword not in dataset
    # OHIF opens its player for whatever is called OT.
    assert dataset.Modality == "CR"


def test_a_distance_is_right_on_every_film_of_every_page(source: Make, saved: Save, several: Results) -> None:
    film = read_image(saved(source(FLAT, PixelSpacing=["0.2", "0.3"])))
    dataset = build(film.header, film.image, several(FLAT.shape))
    row_mm, column_mm = (float(value) for value in dataset.PixelSpacing)
    pages = render_pages(subject.of_image(film.header, film.image, several(FLAT.shape))).renderings
    assert len(pages) == dataset.NumberOfFrames == 2
    for left, top, right, bottom in (box for page in pages for box in page.films):
        assert (bottom - top) * row_mm == pytest.approx(FLAT.shape[0] * 0.2)
        assert (right - left) * column_mm == pytest.approx(FLAT.shape[1] * 0.3)


def test_a_single_frame_has_the_first_page_alone(read: SourceImage, several: Results) -> None:
    result = several(FLAT.shape)
    dataset = build_single(read.header, read.image, result)
    assert dataset.SOPClassUID == SecondaryCaptureImageStorage
    assert "NumberOfFrames" not in dataset
    first = render_pages(subject.of_image(read.header, read.image, result)).renderings[0]
    assert dataset.Columns == first.picture.shape[1]


def test_uncompressed_pages_are_the_drawn_ones(read: SourceImage, several: Results) -> None:
    result = several(FLAT.shape)
    dataset = dcmread(io.BytesIO(to_bytes(build_uncompressed(read.header, read.image, result))))
    pages = render_pages(subject.of_image(read.header, read.image, result)).renderings
    assert np.array_equal(dataset.pixel_array, np.stack([page.picture for page in pages]))


def test_pages_of_noise_stay_below_one_megabyte_together(source: Make, saved: Save, several: Results) -> None:
    noise = np.random.default_rng(0).integers(0, 4096, size=(1200, 900), dtype=np.uint16)
    film = read_image(saved(source(noise, BitsStored=12, HighBit=11)))
    result = several(noise.shape)
    two = dataclasses.replace(result, attributions=result.attributions[::2])
    assert len(to_bytes(build(film.header, film.image, two))) <= 1_000_000


def none_passed(result: Result, methods: int = 3) -> Result:
    """Return the result with so many methods, none of which may be shown."""
    failed = result.attributions[1]
    named = tuple(dataclasses.replace(failed, method=f"m{each}", title=f"Method {each}") for each in range(methods))
    return dataclasses.replace(result, attributions=named, contradictions=(), unavailable=())


@pytest.mark.parametrize("methods", [1, 2, 3, 20])
def test_where_no_method_passed_there_is_one_page_that_says_so_and_no_comparison(
    read: SourceImage, several: Results, methods: int
) -> None:
    about = subject.of_image(read.header, read.image, none_passed(several(FLAT.shape), methods))
    assert compared_scenes(about) == []
    (page,) = render_pages(about).renderings
    # The film as sent, and words where the map would have been: none of them off the page or on the film.
    (film,) = page.films
    beside = [box for box in page.texts if box[0] > film[2] and box[1] > film[1]]
    assert len(beside) >= methods if methods < 20 else len(beside) >= 7
    height, width = page.picture.shape[:2]
    assert all(box[2] <= width and box[3] <= height for box in page.texts)
    dataset = build(read.header, read.image, about.result)
    assert dataset.SOPClassUID == SecondaryCaptureImageStorage
    assert "no explanation" in dataset.DerivationDescription


def test_the_words_say_of_every_method_why_it_is_not_shown(read: SourceImage, several: Results) -> None:
    about = subject.of_image(read.header, read.image, none_passed(several(FLAT.shape)))
    told = " ".join(line.text for line in none_shown_lines(default_scene(about)))
    assert told.startswith("No explanation is shown: none of 3 methods passed its checks.")
    for each in range(3):
        assert f"Method {each}: Deleting its parts changes nothing." in told
    for lines in (narrative.explanations(about), narrative.verdicts(about)):
        assert "Pneumonia: no explanation is shown: none of 3 methods passed its checks." in lines


def test_one_method_that_passed_is_enough_for_a_comparison(read: SourceImage, several: Results) -> None:
    result = several(FLAT.shape)
    failed, passed = result.attributions[1], result.attributions[2]
    about = subject.of_image(read.header, read.image, dataclasses.replace(result, attributions=(failed, passed)))
    assert len(render_pages(about).renderings) == 2
    assert none_shown_lines(default_scene(about)) == []
    assert not any("no explanation" in line for line in narrative.explanations(about))


def test_the_comparisons_have_their_pages_however_many_slices_mattered(
    stack: Callable[..., tuple[list[Dataset], Series]], several: Results
) -> None:
    headers, series = stack(7)
    result = several((64, 48), slices=7)
    labels = ("Pneumonia", "Effusion", "Nodule")
    found = dataclasses.replace(result.findings[0], slice_probabilities=(0.6, 0.7, 0.8, 0.9, 0.8, 0.7, 0.6))
    findings = tuple(dataclasses.replace(found, label=label) for label in labels)
    attributions = tuple(
        dataclasses.replace(each, finding=label) for label in labels for each in result.attributions[::2]
    )
    told = dataclasses.replace(result, findings=findings, attributions=attributions)
    pages = render_pages(subject.of_series(headers, series, told), largest=256).renderings
    assert len(pages) == 12
    # A page of a slice begins with the film as sent; one of two methods with an explained one.
    coloured = [bool(np.ptp(cut(page, 0).astype(int), axis=2).max() > 40) for page in pages]
    assert coloured == [False] * 9 + [True] * 3
