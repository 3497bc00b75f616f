from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image as Picture

from dicom_nodes.objects.phantom_series import PhantomSeries, write_phantom_series
from service.cli import cli
from workers.phantom.files import write_samples
from workers.phantom.head import make_head_ct

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def explained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explained")
    write_samples(folder / "in", count=1, seed=21, size=(256, 240))
    (folder / "in" / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"nothing")
    options = ["--methods", "grad-cam,occlusion", "--out", str(folder / "out")]
    result = CliRunner().invoke(cli, ["explain", str(folder / "in"), *options])
    assert result.exit_code == 1, result.output
    return folder / "out"


@pytest.mark.timeout(600)
def test_the_page_needs_no_network_and_names_every_map_with_its_verdict(explained: Path) -> None:
    page = (explained / "index.html").read_text("utf-8")
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert "http" not in page
    assert "<script" not in page
    for words in ("Grad-CAM", "Occlusion", "How to read it", "What it does not tell", "not for primary diagnosis"):
        assert words in page
    badges = re.findall(r'<p class="badge (\w+)">', page)
    assert len(badges) >= 2
    assert set(badges) <= {"reliable", "caution", "hidden"}


def test_a_file_that_was_not_analysed_is_named_with_the_reason(explained: Path) -> None:
    page = (explained / "index.html").read_text("utf-8")
    assert re.search(r"<b>broken.dcm</b>: \w+", page)


def test_maps_that_may_be_shown_are_pictures_too_and_hidden_ones_are_not(explained: Path) -> None:
    page = (explained / "index.html").read_text("utf-8")
    (original,) = explained.glob("*.original.png")
    with Picture.open(original) as film:
        assert np.asarray(film).std() > 10
    shown = len(re.findall(r'<p class="badge (?:reliable|caution)">', page))
    drawn = [p for p in explained.glob("*.png") if re.search(r"\.(grad-cam|occlusion|consensus)\.png$", p.name)]
    assert len(drawn) == shown
    assert page.count('class="withheld"') == len(re.findall(r'<p class="badge hidden">', page))


@pytest.mark.timeout(600)
def test_the_page_of_a_series_shows_the_slices_that_mattered_with_the_verdict(tmp_path: Path) -> None:
    phantom = make_head_ct(800_004, bleed=True)
    series = PhantomSeries(
        volume=phantom.volume,
        modality="CT",
        positions_mm=phantom.positions_mm,
        pixel_mm=phantom.pixel_mm,
        name="head",
        number=1,
        taken_at=datetime(2026, 1, 5, 9, 0),  # noqa: DTZ001 - DICOM's dates are local by definition
    )
    write_phantom_series(tmp_path / "in", series)
    (tmp_path / "in" / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"nothing")
    settings = tmp_path / "settings.toml"
    settings.write_text('[pipelines]\nenabled = ["head-ct-bleed-demo"]\n', encoding="utf-8")
    out = tmp_path / "out"
    result = CliRunner().invoke(cli, ["--config", str(settings), "explain", str(tmp_path / "in"), "--out", str(out)])
    assert result.exit_code == 1, result.output
    page = (out / "index.html").read_text("utf-8")
    assert re.search(r"<b>broken.dcm</b>: \w+", page)
    assert re.search(r"Slice 13 of 24, image number \d+ as received", page)
    assert '<p class="badge reliable">' in page
    assert "Map inside the lungs is not measured" in page
    assert "Map inside the body" in page
    assert len(list(out.glob("0000-series.grad-cam*.png"))) >= 2
