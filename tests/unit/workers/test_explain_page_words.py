"""What the page of `pellucid explain` says of maps with known verdicts: no model is asked for it."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
from films import as_image
from PIL import Image as Picture
from pydicom import Dataset
from readings import reading

from dicom_nodes.objects.legends import legend
from dicom_nodes.objects.read import SourceImage
from service.results import Assessment, Measure, Verdict
from workers.explain_page import Film, write_page
from workers.pipeline import Analysis

if TYPE_CHECKING:
    from pathlib import Path

    from service.results import Attribution, Result

SHAPE = (120, 100)
HILL = np.outer(np.hanning(SHAPE[0]), np.hanning(SHAPE[1])).astype(np.float32)
DELETION = Measure(name="deletion-auc", title="Deletion AUC", value=0.31, baseline=0.52)


def judged(method: str, title: str, verdict: Verdict, *reasons: str) -> Attribution:
    (attribution,) = reading(HILL).attributions
    assessment = Assessment(verdict=verdict, reasons=reasons, measures=(DELETION,))
    return dataclasses.replace(attribution, method=method, title=title, assessment=assessment)


@pytest.fixture
def page(tmp_path: Path) -> str:
    """The usual method failed its checks, another one is reliable, a third one is to be used with caution."""
    result: Result = dataclasses.replace(
        reading(HILL),
        attributions=(
            judged("lime", "LIME", Verdict.NOT_SHOWN, "Deleting its parts changes nothing."),
            judged("rise", "RISE", Verdict.RELIABLE),
            judged("grad-cam", "Grad-CAM", Verdict.CAUTION, "The map moves <much>."),
        ),
        contradictions=("RISE contradicts Grad-CAM for Pneumonia.", "A contradicts B for Effusion."),
    )
    return written(Dataset(), result, tmp_path)


def written(header: Dataset, result: Result, out: Path) -> str:
    source = SourceImage(header=header, image=as_image(np.full(SHAPE, 0.5)))
    analysis = Analysis(source=source, result=result, objects=())
    return write_page([Film(name="film <1>", stem="0000", analysis=analysis)], [], out).read_text("utf-8")


def cards(page: str) -> dict[str, str]:
    return {title: text for text in page.split("<article")[1:] for title in re.findall(r"<h3>(.*?)</h3>", text)}


def test_each_map_has_its_verdict_its_reasons_and_its_legend(page: str) -> None:
    lime, rise, cam = (cards(page)[title] for title in ("LIME", "RISE", "Grad-CAM"))
    assert '<p class="badge hidden">' in lime
    assert "Deleting its parts changes nothing." in lime
    assert '<p class="badge reliable">' in rise
    assert "No measure spoke against this map." in rise
    assert '<p class="badge caution">' in cam
    assert "The map moves &lt;much&gt;." in cam
    for text, method in ((lime, "lime"), (rise, "rise"), (cam, "grad-cam")):
        assert legend(method).reading in text
        assert "<td>Deletion AUC</td><td>0.31</td><td>0.52</td>" in text


def test_a_map_that_failed_is_no_picture(page: str, tmp_path: Path) -> None:
    assert "<img" not in cards(page)["LIME"]
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [
        "0000.grad-cam.png",
        "0000.original.png",
        "0000.rise.png",
    ]


def test_contradictions_of_the_finding_and_what_the_pacs_gets_instead_are_told(page: str) -> None:
    assert "RISE contradicts Grad-CAM for Pneumonia." in page
    assert "Effusion" not in page
    assert "2 of 3 maps may be shown. Objects sent to the PACS draw RISE in place of LIME." in page
    assert "Pneumonia indicated (at or above operating point)" in page


def test_the_scale_grows_from_weaker_to_stronger(page: str) -> None:
    found = re.search(r'weaker <img alt="colour scale" src="data:image/jpeg;base64,([^"]+)"> stronger', page)
    assert found is not None
    with Picture.open(io.BytesIO(base64.b64decode(found[1]))) as picture:
        colours = np.ptp(np.asarray(picture).astype(int)[8], axis=1)
    assert colours[:40].max() < 20
    assert colours[-10:].min() > 60


def test_below_each_picture_its_sides_are_told_or_that_nobody_stated_them(page: str, tmp_path: Path) -> None:
    pictures = len(re.findall("<article[^>]*><h3>[^<]*</h3><img", page))
    assert page.count("The image does not state which side is which.") == pictures
    mirrored = Dataset()
    mirrored.PatientOrientation = ["R", "F"]
    stated = written(mirrored, reading(HILL), tmp_path)
    assert '<p class="sides"><span>L</span><span>R</span></p>' in stated
    assert "which side is which" not in stated
