from __future__ import annotations

import io
import subprocess
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image as Picture
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian
from require import require_tool

from dicom_nodes.objects.presentation_state import build, build_series
from dicom_nodes.objects.read import read_image
from dicom_nodes.objects.write import to_bytes
from service.errors import ObjectRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pydicom.dataset import FileDataset

    from service.results import Result

    Make = Callable[..., FileDataset]
    Save = Callable[[Dataset], Path]
    Results = Callable[..., Result]

RAMP = (np.arange(80 * 64, dtype=np.uint16).reshape(80, 64) % 4096).astype(np.uint16)


def state(path: Path, results: Results, **arguments: Any) -> Dataset:
    read = read_image(path)
    return dcmread(io.BytesIO(to_bytes(build(read.header, read.image, results(read.image, **arguments)))))


def lines(dataset: Dataset, layer: str) -> list[np.ndarray]:
    return [
        np.array(each.GraphicData).reshape(-1, 2)
        for item in dataset.GraphicAnnotationSequence
        if item.GraphicLayer == layer
        for each in item.get("GraphicObjectSequence", ())
    ]


def captions(dataset: Dataset) -> list[str]:
    return [
        text.UnformattedTextValue
        for item in dataset.GraphicAnnotationSequence
        for text in item.get("TextObjectSequence", ())
    ]


SOURCES: dict[str, dict[str, Any]] = {
    "monochrome2": {"WindowCenter": "2000", "WindowWidth": "3000"},
    "monochrome1": {"WindowCenter": "2000", "WindowWidth": "3000", "PhotometricInterpretation": "MONOCHROME1"},
    "rescaled": {
        "WindowCenter": "-20",
        "WindowWidth": "900",
        "RescaleSlope": "0.25",
        "RescaleIntercept": "-500",
    },
}


@pytest.mark.parametrize("name", SOURCES)
def test_dcmtk_shows_the_film_as_without_the_state(
    source: Make, saved: Save, result: Results, tmp_path: Path, name: str
) -> None:
    path = saved(source(RAMP, BitsStored=12, HighBit=11, **SOURCES[name]))
    file = tmp_path / "state.dcm"
    state(path, result).save_as(file)
    with_state, without = tmp_path / "with.pgm", tmp_path / "without.pgm"
    for tool, *arguments in (
        ("dcmp2pgm", "--pstate", str(file), str(path), str(with_state)),
        ("dcm2pnm", "+Wi", "1", str(path), str(without)),
    ):
        done = subprocess.run([require_tool(tool), *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    with Picture.open(with_state) as one, Picture.open(without) as two:
        difference = np.abs(np.asarray(one, dtype=int) - np.asarray(two, dtype=int))
    assert difference.max() == 0


def test_dcmtk_finds_nothing_wrong(source: Make, saved: Save, result: Results, tmp_path: Path) -> None:
    file = tmp_path / "state.dcm"
    state(saved(source(RAMP)), result).save_as(file)
    done = subprocess.run([require_tool("dcmpschk"), str(file)], capture_output=True, text=True, check=False)
    assert "Test passed" in done.stdout + done.stderr


@pytest.mark.parametrize("attributes", [{}, {"PhotometricInterpretation": "MONOCHROME1"}])
def test_a_film_without_window_gets_the_one_that_the_pictures_use(
    source: Make, saved: Save, result: Results, attributes: dict[str, Any]
) -> None:
    path = saved(source(RAMP, BitsStored=12, HighBit=11, **attributes))
    image = read_image(path).image
    (voi,) = state(path, result).SoftcopyVOILUTSequence
    grey = (image.values - (voi.WindowCenter - 0.5)) / (voi.WindowWidth - 1) + 0.5
    shown = 1 - image.grey if attributes else image.grey
    assert np.abs(np.clip(grey, 0, 1) - shown).max() < 1e-3
    assert "WindowCenterWidthExplanation" not in voi


def test_the_function_of_a_window_is_repeated(source: Make, saved: Save, result: Results) -> None:
    path = saved(source(RAMP, WindowCenter="2000", WindowWidth="3000", VOILUTFunction="SIGMOID"))
    (voi,) = state(path, result).SoftcopyVOILUTSequence
    assert (voi.WindowCenter, voi.WindowWidth, voi.VOILUTFunction) == (2000, 3000, "SIGMOID")


def test_a_voi_table_is_repeated(source: Make, saved: Save, result: Results) -> None:
    dataset = source(RAMP % 256, BitsStored=8, HighBit=7)
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [256, 0, 8])
    item.add_new("LUTData", "US", [min(255, 2 * value) for value in range(256)])
    dataset.VOILUTSequence = [item]
    (voi,) = state(saved(dataset), result).SoftcopyVOILUTSequence
    assert list(voi.VOILUTSequence[0].LUTDescriptor) == [256, 0, 16]
    assert np.frombuffer(voi.VOILUTSequence[0].LUTData, "<u2")[:4].tolist() == [0, 2 * 257, 4 * 257, 6 * 257]


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 63), (79, 0), (79, 63)])
def test_a_mark_in_a_corner_is_outlined_in_that_corner(
    source: Make, saved: Save, result: Results, row: int, column: int
) -> None:
    mark = np.zeros(RAMP.shape, dtype=np.float32)
    mark[max(0, row - 3) : row + 4, max(0, column - 3) : column + 4] = 1
    (line,) = lines(state(saved(source(RAMP)), result, attribution=mark), "AI_50")
    assert np.allclose(line.mean(axis=0), [column + 0.5, row + 0.5], atol=4)
    assert line[0].tolist() == line[-1].tolist()


def test_both_levels_have_a_layer_and_the_inner_lies_inside(source: Make, saved: Save, result: Results) -> None:
    dataset = state(saved(source(RAMP)), result)
    outer, inner = lines(dataset, "AI_50")[0], lines(dataset, "AI_80")[0]
    assert (outer.min(axis=0) < inner.min(axis=0)).all()
    assert (outer.max(axis=0) > inner.max(axis=0)).all()
    assert [item.GraphicLayer for item in dataset.GraphicLayerSequence] == ["AI_50", "AI_80", "AI_TEXT"]


def test_a_negative_film_has_a_caption_and_no_line(source: Make, saved: Save, result: Results) -> None:
    dataset = state(saved(source(RAMP)), result, probability=0.1)
    assert lines(dataset, "AI_50") == []
    said = " ".join(captions(dataset))
    assert "Pneumonia not indicated (below operating point): 10.0 %" in said
    assert "not for primary diagnosis" in said


def test_a_map_that_failed_is_not_drawn_and_the_caption_says_why(source: Make, saved: Save, several: Results) -> None:
    read = read_image(saved(source(RAMP)))
    result = several(read.image.grey.shape)
    failed = type(result)(**{**vars(result), "attributions": result.attributions[1:2]})
    dataset = build(read.header, read.image, failed)
    assert lines(dataset, "AI_50") == []
    assert "not shown. Deleting its parts changes nothing." in " ".join(captions(dataset))


def test_the_whole_film_is_displayed_with_its_spacing(source: Make, saved: Save, result: Results) -> None:
    (area,) = state(saved(source(RAMP, ImagerPixelSpacing=["0.2", "0.1"])), result).DisplayedAreaSelectionSequence
    assert list(area.DisplayedAreaTopLeftHandCorner) == [1, 1]
    columns, rows = area.DisplayedAreaBottomRightHandCorner
    assert columns == 64
    assert rows > 80
    assert [float(value) for value in area.PresentationPixelSpacing] == [0.2, 0.1]
    (area,) = state(saved(source(RAMP, PixelAspectRatio=["2", "1"])), result).DisplayedAreaSelectionSequence
    assert list(area.PresentationPixelAspectRatio) == [2, 1]


@pytest.mark.parametrize("shape", [(800, 640), (300, 900), (900, 200)])
@pytest.mark.parametrize("aspect", [None, ["2", "1"], ["1", "2"]])
def test_no_word_of_the_caption_lies_on_the_film(
    source: Make, saved: Save, several: Results, shape: tuple[int, int], aspect: list[str] | None
) -> None:
    read = read_image(saved(source(np.zeros(shape, dtype=np.uint8), PixelAspectRatio=aspect)))
    dataset = build(read.header, read.image, several(shape))
    (area,) = dataset.DisplayedAreaSelectionSequence
    displayed = area.DisplayedAreaBottomRightHandCorner[1]
    boxes = [
        (text.BoundingBoxTopLeftHandCorner[1], text.BoundingBoxBottomRightHandCorner[1], text.UnformattedTextValue)
        for item in dataset.GraphicAnnotationSequence
        for text in item.get("TextObjectSequence", ())
    ]
    assert len(boxes) >= 3
    for (upper, lower, _), (following, _, _) in zip(boxes, [*boxes[1:], (1.0, 1.0, "")], strict=True):
        assert shape[0] <= upper * displayed < lower * displayed <= displayed
        assert lower <= following + 1e-4
    # At the height of its line no text is wider than the area: a character is about half as wide as high.
    high = (boxes[0][1] - boxes[0][0]) * displayed * (2 if aspect == ["2", "1"] else 0.5 if aspect else 1)
    assert all(0.5 * high * len(words) <= shape[1] for _, _, words in boxes if " " in words)


def test_layers_name_a_grey_for_screens_without_colour(source: Make, saved: Save, result: Results) -> None:
    layers = state(saved(source(RAMP)), result).GraphicLayerSequence
    assert {layer.GraphicLayerRecommendedDisplayGrayscaleValue for layer in layers} == {65535}


def test_a_colour_source_is_refused(source: Make, saved: Save, result: Results) -> None:
    with pytest.raises(ObjectRefusedError, match="in colour"):
        state(saved(source(np.full((64, 64, 3), 9, dtype=np.uint8))), result)


def test_a_palette_is_colour_too(source: Make, saved: Save, result: Results) -> None:
    dataset = source(RAMP.astype(np.uint8), PhotometricInterpretation="PALETTE COLOR")
    for name in ("Red", "Green", "Blue"):
        dataset.add_new(f"{name}PaletteColorLookupTableDescriptor", "US", [256, 0, 8])
        dataset.add_new(f"{name}PaletteColorLookupTableData", "OW", bytes(range(256)))
    with pytest.raises(ObjectRefusedError, match="in colour"):
        state(saved(dataset), result)


def test_a_scanned_film_keeps_the_shape_of_its_pixels(source: Make, saved: Save, result: Results) -> None:
    path = saved(source(RAMP, NominalScannedPixelSpacing=["0.4", "0.2"]))
    (area,) = state(path, result).DisplayedAreaSelectionSequence
    assert list(area.PresentationPixelSpacing) == [0.4, 0.2]


def test_rescale_and_spacing_are_found_where_enhanced_images_keep_them(
    source: Make, saved: Save, result: Results
) -> None:
    groups, measures, rescale = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = ["0.4", "0.2"]
    rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = "2", "-1024", "HU"
    groups.PixelMeasuresSequence, groups.PixelValueTransformationSequence = [measures], [rescale]
    written = state(saved(source(RAMP, SharedFunctionalGroupsSequence=[groups])), result)
    assert (written.RescaleSlope, written.RescaleIntercept, written.RescaleType) == (2, -1024, "HU")
    (area,) = written.DisplayedAreaSelectionSequence
    assert list(area.PresentationPixelSpacing) == [0.4, 0.2]


def test_a_series_is_outlined_on_the_slices_that_mattered(stack: Callable[..., tuple], several: Results) -> None:
    headers, series = stack(7)
    dataset = build_series(headers, series, several((64, 48), slices=7))
    (referenced,) = dataset.ReferencedSeriesSequence
    uids = [item.ReferencedSOPInstanceUID for item in referenced.ReferencedImageSequence]
    assert uids == [header.SOPInstanceUID for header in headers[2:5]]
    assert len(lines(dataset, "AI_50")) == 3
    assert (dataset.RescaleIntercept, dataset.RescaleType) == (-1024, "HU")


def test_slices_in_other_units_than_the_strongest_are_left_out(stack: Callable[..., tuple], several: Results) -> None:
    headers, series = stack(9)
    for number, header in enumerate(headers):
        header.RescaleSlope, header.RescaleIntercept = ("0.5", "4.0")[number % 2], "0"
    outcome = several((64, 48), slices=9)
    dataset = build_series(headers, series, outcome)
    shown = [item.ReferencedSOPInstanceUID for item in dataset.ReferencedSeriesSequence[0].ReferencedImageSequence]
    assert shown
    slopes = {header.RescaleSlope for header in headers if header.SOPInstanceUID in shown}
    assert slopes == {dataset.RescaleSlope}


def test_a_table_of_an_odd_number_of_bits_is_written_with_16(
    source: Make, saved: Save, result: Callable[..., Result]
) -> None:
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [1920, 0, 12])
    table.add_new("LUTData", "OW", np.linspace(0, 4095, 1920).astype("<u2").tobytes())
    table.PatientName = "Hidden^Name"
    read = read_image(saved(source(VOILUTSequence=[table])))
    (voi,) = build(read.header, read.image, result(read.image)).SoftcopyVOILUTSequence
    (written,) = voi.VOILUTSequence
    assert list(written.LUTDescriptor) == [1920, 0, 16]
    assert np.allclose(np.frombuffer(written.LUTData, "<u2") / 65535, np.linspace(0, 1, 1920), atol=1e-3)
    assert "PatientName" not in written


@pytest.mark.parametrize("little", [True, False])
def test_a_modality_table_of_12_bits_is_written_with_16_and_keeps_its_values(
    source: Make, result: Results, tmp_path: Path, *, little: bool
) -> None:
    """PS3.3 C.11.1.1.1 allows 8 and 16; the window that follows counts in what comes out of the table."""
    order = "<u2" if little else ">u2"
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [4096, 0, 12])
    values = np.rint(np.sqrt(np.linspace(0, 1, 4096)) * 4095)
    table.add_new("LUTData", "OW", values.astype(order).tobytes())
    table.ModalityLUTType = "US"
    dataset = source(RAMP, BitsStored=12, HighBit=11, ModalityLUTSequence=[table], WindowCenter="2000")
    dataset.WindowWidth, dataset.PixelData = "3000", RAMP.astype(order).tobytes()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    path, file = tmp_path / "film.dcm", tmp_path / "state.dcm"
    dcmwrite(path, dataset, implicit_vr=False, little_endian=little, force_encoding=True)
    read = read_image(path)
    assert read.image.values.tolist() == values[RAMP].tolist()
    written = build(read.header, read.image, result(read.image))
    (copied,) = written.ModalityLUTSequence
    assert list(copied.LUTDescriptor) == [4096, 0, 16]
    assert np.frombuffer(copied.LUTData, "<u2").tolist() == values.tolist()
    written.save_as(file)
    shown = tmp_path / "shown.pgm"
    subprocess.run([require_tool("dcmp2pgm"), "--pstate", str(file), str(path), str(shown)], check=True)
    with Picture.open(shown) as picture:
        assert np.abs(np.asarray(picture) - 255 * read.image.grey).max() <= 1


@pytest.mark.parametrize(("function", "width", "written"), [("LOG?", "400", "400"), ("", "0.5", "1")])
def test_a_window_that_the_standard_does_not_know_is_written_as_it_was_shown(  # noqa: PLR0917
    source: Make, saved: Save, result: Callable[..., Result], function: str, width: str, written: str
) -> None:
    dataset = source(WindowCenter="900", WindowWidth=width)
    dataset.add_new("VOILUTFunction", "LO", function)
    read = read_image(saved(dataset))
    (voi,) = build(read.header, read.image, result(read.image)).SoftcopyVOILUTSequence
    assert "VOILUTFunction" not in voi
    assert str(voi.WindowWidth) == written


def test_nothing_but_the_table_is_copied_of_a_modality_table(
    source: Make, saved: Save, result: Callable[..., Result]
) -> None:
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [1920, 0, 16])
    table.add_new("LUTData", "OW", np.linspace(0, 65535, 1920).astype("<u2").tobytes())
    table.ModalityLUTType = "no unit " * 5
    table.PatientName = "Hidden^Name"
    read = read_image(saved(source(ModalityLUTSequence=[table])))
    (written,) = build(read.header, read.image, result(read.image)).ModalityLUTSequence
    assert sorted(element.keyword for element in written) == ["LUTData", "LUTDescriptor", "ModalityLUTType"]
    assert written.ModalityLUTType == "US"
