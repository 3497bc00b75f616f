"""A real Orthanc with DICOMweb, viewers in front of it, and a headless browser. `make viewers` runs these tests."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from require import require_tool
from viewers.ohif import Ohif
from viewers.site import Site
from viewers.studies import REPOSITORY, Study, explained_head, explained_radiographs, send

from workers.sandbox import OrthancPacs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser

PACKAGES = REPOSITORY / "build" / "viewers"
SCREENSHOTS = PACKAGES / "screenshots"
PLUGIN = "libOrthancDicomWeb.so"
POSITIVE, NEGATIVE = "phantom-003", "phantom-004"
_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give what drives a browser more time than other tests: on a busy machine a click can take minutes."""
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.timeout(1800))


def package(name: str) -> Path:
    """Return the folder of an unpacked viewer."""
    folder = PACKAGES / name
    if not folder.is_dir():
        pytest.skip(f"{name} is not unpacked: run make viewers")
    return folder


@pytest.fixture(scope="session")
def radiographs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Study]:
    """One film at its operating point (CR, MONOCHROME2), one below (DX, MONOCHROME1), through the pipeline."""
    return explained_radiographs(tmp_path_factory.mktemp("radiographs"), [POSITIVE, NEGATIVE])


@pytest.fixture(scope="session")
def positive(radiographs: dict[str, Study]) -> Study:
    """The film at its operating point."""
    return radiographs[POSITIVE]


@pytest.fixture(scope="session")
def negative(radiographs: dict[str, Study]) -> Study:
    """The film below its operating point."""
    return radiographs[NEGATIVE]


@pytest.fixture(scope="session")
def heads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Study]:
    """A head as CT and one as MR, with every object of a series."""
    return {modality: explained_head(tmp_path_factory.mktemp(modality), modality) for modality in ("CT", "MR")}


@pytest.fixture(scope="session", params=["CT", "MR"])
def head(heads: dict[str, Study], request: pytest.FixtureRequest) -> Study:
    """Each of them."""
    return heads[request.param]


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrthancPacs]:
    """Orthanc with the DICOMweb plug-in; it holds a study once that was opened."""
    require_tool("Orthanc")
    plugins = [folder / PLUGIN for folder in map(Path, ("/usr/share/orthanc/plugins", "/usr/lib/orthanc"))]
    plugin = next((path for path in plugins if path.exists()), None)
    if plugin is None:
        pytest.skip("Orthanc's DICOMweb plug-in is not installed: make viewers")
    web = {"Enable": True, "Root": "/dicom-web/", "StudiesMetadata": "Full", "SeriesMetadata": "Full"}
    pacs = OrthancPacs(tmp_path_factory.mktemp("archive"), extra={"Plugins": [str(plugin)], "DicomWeb": web})
    yield pacs
    pacs.stop()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The system's Chromium, without a screen and without a graphics card."""
    playwright = pytest.importorskip("playwright.sync_api")
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    if executable is None:
        pytest.skip("chromium is not installed: make viewers")
    with playwright.sync_playwright() as driver:
        # Chromium refuses its sandbox to root, as which containers run.
        alone = ["--no-sandbox"] if os.geteuid() == 0 else []
        opened = driver.chromium.launch(
            executable_path=executable,
            args=[*alone, "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"],
        )
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def ohif_site(archive: OrthancPacs) -> Iterator[str]:
    """OHIF and the archive under one address."""
    site = Site(
        package("ohif") / "dist",
        archive_port=archive.http_port,
        pages={"/app-config.js": _HERE / "app-config.js"},
    )
    yield site.url
    site.stop()


@pytest.fixture(scope="session")
def ohif(browser: Browser, ohif_site: str, archive: OrthancPacs) -> Iterator[Callable[..., Ohif]]:
    """Open a study in OHIF: once, so that its objects are opened in turn, or `fresh`."""
    context = browser.new_context(viewport={"width": 1280, "height": 840})
    opened: dict[str, Ohif] = {}
    stored: set[str] = set()

    def open_study(study: Study, *, fresh: bool = False) -> Ohif:
        if study.uid not in stored:
            send(study.files, archive.port)
            stored.add(study.uid)
        if fresh:
            return Ohif(context.new_page(), ohif_site, study.uid)
        if study.uid not in opened:
            for other in opened.values():
                other.page.close()
            opened.clear()
            opened[study.uid] = Ohif(context.new_page(), ohif_site, study.uid)
        return opened[study.uid]

    yield open_study
    context.close()


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """Where pictures of what was seen are left."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    return SCREENSHOTS
