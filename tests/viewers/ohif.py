"""Drives OHIF as a reader does: opens a study, opens a series, scrolls, looks."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from viewers.pictures import from_png

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Locator, Page
    from viewers.pictures import Colour

THUMBNAILS = '[data-cy="study-browser-thumbnail"], [data-cy="study-browser-thumbnail-no-image"]'
PANE = '[data-cy="viewport-pane"]'
CANVAS = f"{PANE} canvas.cornerstone-canvas"
_STILL_MS = 1000
_LOOKS = 20
PATIENCE_MS = 300_000
"""Of every step that waits for something; each ends as soon as that is there."""


class Ohif:
    """One open study. Coordinates are those of the viewport's canvas."""

    def __init__(self, page: Page, site: str, study_uid: str) -> None:
        self.page = page
        page.set_default_timeout(PATIENCE_MS)
        # A reader has seen the tour before.
        page.add_init_script("localStorage.setItem('shownTours', JSON.stringify(['basicViewerTour']))")
        page.goto(f"{site}/viewer?StudyInstanceUIDs={study_uid}")
        page.wait_for_selector(CANVAS)
        self.settle()

    def thumbnail(self, description: str) -> Locator:
        """Return the entry of a series in the study browser."""
        return self.page.locator(THUMBNAILS).filter(has_text=description)

    def open(self, description: str) -> None:
        """Open a series as a reader does, by a double click."""
        self.thumbnail(description).dblclick()
        self.settle()

    def open_with_lines(self, description: str) -> None:
        """Open a report whose regions are drawn over the film.

        OHIF sometimes shows the film before it has read the report, and then draws the regions only when the report is
        opened again after something else.
        """
        for _ in range(4):
            self.open(description)
            if self.drawn_lines():
                return
            self.open("AI heatmap")

    def settle(self) -> None:
        """Wait until the picture no longer changes."""
        before, same = b"", 0
        for _ in range(_LOOKS):
            self.page.wait_for_timeout(_STILL_MS)
            now = self.page.locator(PANE).first.screenshot()
            same = same + 1 if now == before else 0
            if same == 2:  # a network answer fits between two looks
                return
            before = now

    def canvas(self) -> Colour:
        """Return what the engine drew, without the viewer's own text and without annotations."""
        encoded = self.page.locator(CANVAS).first.evaluate("canvas => canvas.toDataURL('image/png')")
        return from_png(base64.b64decode(encoded.split(",", 1)[1]))

    def screen(self) -> Colour:
        """Return all that a reader sees in the viewport."""
        return from_png(self.page.locator(PANE).first.screenshot())

    def text(self) -> str:
        """Return the text in the viewport."""
        return self.page.locator(PANE).first.inner_text()

    def plays(self) -> bool:
        """Tell whether OHIF has opened its player of moving pictures."""
        return self.page.get_by_text("FPS", exact=True).count() > 0

    def labels(self) -> list[str]:
        """Return the lines of text that are drawn over the picture."""
        return self.page.locator(f"{PANE} svg text tspan").all_text_contents()

    def label_boxes(self) -> list[tuple[float, float, float, float]]:
        """Return where those lines are, as left, top, right, bottom in the pane."""
        return self.page.locator(PANE).first.evaluate(
            """pane => [...pane.querySelectorAll('svg text tspan')].filter(each => each.textContent).map(each => {
                const from = pane.getBoundingClientRect(), box = each.getBoundingClientRect();
                return [box.left - from.left, box.top - from.top, box.right - from.left, box.bottom - from.top];
            })"""
        )

    def drawn_lines(self) -> list[list[tuple[float, float]]]:
        """Return the polylines that are drawn over the picture, as points in the canvas."""
        return self.page.locator(PANE).first.evaluate(
            """pane => [...pane.querySelectorAll('svg polyline')].map(line => {
                const numbers = line.getAttribute('points').match(/-?[0-9.]+/g);
                const points = [];
                for (let at = 0; at + 1 < numbers.length; at += 2) points.push([+numbers[at], +numbers[at + 1]]);
                return points;
            })"""
        )

    def scroll(self, steps: int) -> None:
        """Turn the wheel over the picture; positive goes down the series."""
        box = self.page.locator(PANE).first.bounding_box()
        assert box is not None
        self.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        for _ in range(abs(steps)):
            self.page.mouse.wheel(0, 100 if steps > 0 else -100)
            self.page.wait_for_timeout(150)
        self.settle()

    def photograph(self, path: Path) -> None:
        """Leave a screenshot of the whole window."""
        self.page.screenshot(path=path)
