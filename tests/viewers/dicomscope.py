"""Drives DICOMscope, the reference viewer for presentation states, on a screen that nobody looks at."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import ImageGrab
from require import require_tool

from workers.sandbox import end

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from viewers.pictures import Colour

ARCHIVE = Path("/usr/share/java/DICOMscope.jar")
SIDE = 1400
"""Of the screen, in pixels: a phantom's film fits at its own size beside DICOMscope's panels."""
_SELECTED = (184, 207, 229)
"""Java's colour of a selected row."""
_TREE_TOP = 80
_STACK_BAR = 50
"""Rows that buttons lie lower when the state is about several images."""
_LEVELS = 4
"""Of DICOMscope's tree: all studies, study, series, instance."""
_SETTINGS = r"""[[GENERAL]]
[APPLICATION]
LogDirectory = {folder}
[MONITOR]
Resolution = {side}\{side}
Screensize = 400\400
[DATABASE]
Directory = {folder}/database
[LUT]
Directory = /usr/share/dicomscope/lut
[GUI]
HighResolutionGraphics = false
PSPanelOn = false
[[COMMUNICATION]]
"""


class Dicomscope:
    """A running DICOMscope with a database of its own."""

    def __init__(self, folder: Path, files: Sequence[Path]) -> None:
        database = folder / "database"
        database.mkdir()
        copies = [database / f"{index}.dcm" for index, _ in enumerate(files)]
        for file, copy in zip(files, copies, strict=True):
            shutil.copy(file, copy)
        subprocess.run([require_tool("dcmqridx"), str(database), *map(str, copies)], check=True)
        self._files = len(copies)
        (folder / "DICOMscope.cfg").write_text(_SETTINGS.format(folder=folder, side=SIDE))
        reading, writing = os.pipe()
        screen = ["-screen", "0", f"{SIDE}x{SIDE}x24", "-nolisten", "tcp", "-displayfd", str(writing)]
        self._server = subprocess.Popen(
            [require_tool("Xvfb"), *screen], pass_fds=[writing], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(writing)
        with os.fdopen(reading) as numbers:
            self._display = f":{numbers.readline().strip()}"
        with (folder / "dicomscope.log").open("wb") as log:
            self._viewer = subprocess.Popen(
                ["java", "-Xmx1g", "-jar", str(ARCHIVE)],
                cwd=folder,
                env={**os.environ, "DISPLAY": self._display},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._until(lambda picture: float(picture.mean()) > 200, what="DICOMscope does not start")

    def look(self) -> Colour:
        """Return the screen, (rows, columns, 3)."""
        return np.asarray(ImageGrab.grab(xdisplay=self._display).convert("RGB"), dtype=np.float64)

    def photograph(self, path: Path) -> None:
        """Leave a screenshot."""
        ImageGrab.grab(xdisplay=self._display).save(path)

    def open_last(self) -> None:
        """Open the last instance of the last series of the only study: walk down its tree, then double-click."""
        self._click(120, 70)
        for _ in range(2 * _LEVELS + self._files):
            self._do("key", "Right")
            self._do("key", "Down")
        self._settle()
        # The tree alone: the window's borders have the colour of a selected row, too.
        tree = self.look()[_TREE_TOP:, 10:400]
        counts = (np.abs(tree - _SELECTED) < 4).all(axis=2).sum(axis=1)
        row = _TREE_TOP + int(np.median(np.flatnonzero(counts > 100)))
        self._click(130, row, times=2)
        self._settle()

    def show_pixel_for_pixel(self) -> None:
        """Press the button 1:1. Its place is fixed by the screen's size and Java's own fonts."""
        self._click(1249, 348 + (_STACK_BAR if self._files > 2 else 0))
        self._settle()

    def next_image(self) -> None:
        """Go on in the stack of a presentation state about several images."""
        self._click(192, 82)
        self._settle()

    def stop(self) -> None:
        """End the viewer and its screen."""
        end(self._viewer)
        end(self._server)

    def _click(self, column: int, row: int, *, times: int = 1) -> None:
        self._do("mousemove", str(column), str(row))
        self._do("click", "--repeat", str(times), "--delay", "80", "1")

    def _do(self, *action: str) -> None:
        subprocess.run([require_tool("xdotool"), *action], env={**os.environ, "DISPLAY": self._display}, check=True)
        time.sleep(0.3)

    def _settle(self) -> None:
        seen = [self.look()]

        def still(picture: Colour) -> bool:
            seen.append(picture)
            return len(seen) > 3 and all(np.array_equal(picture, other) for other in seen[-3:])

        self._until(still, what="DICOMscope's picture does not come to rest")

    def _until(self, condition: Callable[[Colour], bool], *, what: str) -> None:
        deadline = time.monotonic() + 300
        while not condition(self.look()):
            assert self._viewer.poll() is None, "DICOMscope ended"
            assert time.monotonic() < deadline, what
            time.sleep(1.0)
