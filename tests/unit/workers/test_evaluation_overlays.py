from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image as Pillow

from workers.evaluation.overlays import GAP, LINE, OUTLINE, SIDE
from workers.phantom.film import make_phantom
from workers.training_commands import overlays


@pytest.fixture(scope="module")
def sheet(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    """The shipped model twice, on two phantoms of which one's opacities are outlined."""
    root = tmp_path_factory.mktemp("films")
    lines = ["path,label,mask"]
    for seed in range(2):
        drawn = make_phantom(seed, (256, 200), opacities=2)
        Pillow.fromarray((drawn.pixels // 16).astype(np.uint8)).save(root / f"{seed}.png")
        Pillow.fromarray(drawn.opacities.astype(np.uint8) * 255).save(root / f"mask{seed}.png")
        lines.append(f"{seed}.png,1,{'' if seed else 'mask0.png'}")
    (root / "cases.csv").write_text("\n".join(lines))
    out = root / "overlays.png"
    arguments = ["pneumonia-compact", "pneumonia-compact", "--data", str(root / "cases.csv"), "--out", str(out)]
    done = CliRunner().invoke(overlays, arguments, catch_exceptions=False)
    assert Path(done.stdout.strip()) == out
    return np.asarray(Pillow.open(out))


def _panel(
    sheet: np.ndarray[tuple[int, int, int], np.dtype[np.uint8]], row: int, column: int
) -> np.ndarray[tuple[int, int, int], np.dtype[np.int64]]:
    top, left = row * (SIDE + 2 * LINE + GAP) + LINE, GAP + column * (SIDE + GAP)
    return sheet[top : top + SIDE, left : left + SIDE].astype(np.int64)


def test_films_stand_grey_above_the_coloured_maps_of_each_model(
    sheet: np.ndarray[tuple[int, int, int], np.dtype[np.uint8]],
) -> None:
    film, first, second = (_panel(sheet, row, 1) for row in range(3))
    assert np.ptp(film, axis=2).max() == 0
    assert np.ptp(first, axis=2).max() > 60
    assert np.array_equal(first, second)


def test_a_known_place_is_outlined_in_every_row(sheet: np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]) -> None:
    outlined = [(_panel(sheet, row, 0) == OUTLINE).all(axis=2) for row in range(3)]
    assert outlined[0].sum() > 20
    assert np.array_equal(outlined[0], outlined[2])
    assert not (_panel(sheet, 0, 1) == OUTLINE).all(axis=2).any()
