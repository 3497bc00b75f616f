"""A second engine, dwv, shows the film and the heatmap."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from viewers.conftest import PACKAGES, package
from viewers.ohif import PATIENCE_MS
from viewers.pictures import coloured, fit, from_png, likeness, overlap, shown_colour, shown_grey
from viewers.site import Site

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from viewers.pictures import Colour
    from viewers.studies import Study

HERE = Path(__file__).parent
PAGES: dict[str, str | Path] = {
    "/dwv.html": HERE / "dwv.html",
    # Both are made for script elements; dwv imports them.
    "/jszip.mjs": "import '/jszip/dist/jszip.min.js';\nexport default window.JSZip;\n",
    "/magic-wand-tool.mjs": "import '/magic-wand-tool/dist/magic-wand.js';\nexport default window.MagicWand;\n",
}


def open_in_dwv(browser: Browser, file: Path, photograph: Path) -> Colour:
    """Return what dwv draws of a file."""
    for name in ("dwv", "konva", "jszip", "magic-wand-tool"):
        package(name)
    site = Site(PACKAGES, archive_port=0, pages={**PAGES, "/object.dcm": file})
    page = browser.new_page(viewport={"width": 1200, "height": 700})
    page.set_default_timeout(PATIENCE_MS)
    try:
        page.goto(f"{site.url}/dwv.html?file=object.dcm")
        page.wait_for_function("window.seen !== 'loading'")
        assert page.evaluate("window.seen") == "rendered"
        page.wait_for_timeout(2000)
        page.screenshot(path=photograph)
        encoded = page.locator("#picture canvas").first.evaluate("canvas => canvas.toDataURL('image/png')")
        return from_png(base64.b64decode(encoded.split(",", 1)[1]))
    finally:
        page.close()
        site.stop()


@pytest.mark.parametrize("name", ["phantom-003", "phantom-004"])
def test_dwv_shows_the_heatmap(browser: Browser, radiographs: dict[str, Study], screenshots: Path, name: str) -> None:
    study = radiographs[name]
    photograph = screenshots / f"dwv-secondary-capture-{name}.png"
    seen = open_in_dwv(browser, study.objects["secondary-capture"], photograph)
    expected = shown_colour(study.object("secondary-capture"))
    drawn = fit(expected.shape[:2], seen.shape[:2]).draw(expected, seen.shape[:2])
    assert likeness(seen, drawn, blur=5) > 0.98
    assert overlap(coloured(seen, least=15, blur=9), coloured(drawn, least=15, blur=9)) > 0.8


def test_dwv_shows_the_first_frame_of_a_series_heatmap(browser: Browser, head: Study, screenshots: Path) -> None:
    photograph = screenshots / f"dwv-series-secondary-capture-{head.modality}.png"
    seen = open_in_dwv(browser, head.objects["secondary-capture"], photograph)
    expected = shown_colour(head.object("secondary-capture"))
    drawn = fit(expected.shape[:2], seen.shape[:2]).draw(expected, seen.shape[:2])
    assert likeness(seen, drawn, blur=5) > 0.98


def test_dwv_shows_the_film_that_the_heatmap_is_about(browser: Browser, negative: Study, screenshots: Path) -> None:
    seen = open_in_dwv(browser, negative.sources[0], screenshots / "dwv-film.png")
    expected = shown_grey(negative.source())
    assert likeness(seen, fit(expected.shape, seen.shape[:2]).draw(expected, seen.shape[:2])) > 0.98
