from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image as Pillow

from service.cli import cli
from service.errors import ModelError
from workers.assessors.lung_field import generous, load_lung_network, lung_field
from workers.assessors.regions import body_mask, find_regions, text_mask
from workers.phantom.film import WHITE, make_phantom
from workers.training.augment import render_text
from workers.training.lung_network import SIDE

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SIZE = (448, 416)
FIRST = 70_000_000


def phantom(seed: int, opacities: int = 0) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    drawn = make_phantom(FIRST + seed, SIZE, opacities=opacities)
    return drawn.pixels.astype(np.float32) / WHITE, drawn.lungs


def lettered(grey: NDArray[np.float32], row: int, column: int, size: int = 22) -> NDArray[np.bool_]:
    """Burn an R into the film and return where."""
    glyph = render_text("R", size).numpy()
    where = np.zeros(grey.shape, dtype=bool)
    place = (slice(row, row + glyph.shape[0]), slice(column, column + glyph.shape[1]))
    where[place] = glyph > 0.5
    grey[place] = np.maximum(grey[place], glyph)
    return where


@pytest.mark.parametrize("opacities", [0, 3])
def test_the_lungs_of_phantoms_are_found_whole_and_not_much_else(opacities: int) -> None:
    found = [find_regions(grey, *SIZE).lungs for grey, _ in (phantom(seed, opacities) for seed in range(6))]
    truths = [phantom(seed, opacities)[1] for seed in range(6)]
    for mask, truth in zip(found, truths, strict=True):
        assert mask is not None
        assert (mask & truth).sum() > 0.9 * truth.sum()
        assert truth.sum() > 0.5 * mask.sum()


def test_a_film_without_lungs_has_none() -> None:
    rng = np.random.default_rng(0)
    noise = rng.random((200, 200)).astype(np.float32)
    regions = find_regions(noise, 112, 112)
    assert regions.lungs is None or regions.lungs.mean() < 0.62
    assert generous(np.zeros((SIDE, SIDE), dtype=np.float32)) is None
    assert generous(np.ones((SIDE, SIDE), dtype=np.float32)) is None


def test_the_body_of_a_phantom_is_not_the_air_around_it() -> None:
    grey, lungs = phantom(1)
    body = body_mask(grey)
    assert body[lungs].mean() > 0.99
    assert not body[:20, :20].any()
    assert not body[:20, -20:].any()


@pytest.mark.parametrize(("row", "column"), [(20, 20), (30, 360), (200, 15), (400, 370)])
def test_a_side_marker_is_found_and_little_beside_it(row: int, column: int) -> None:
    grey, _ = phantom(2)
    where = lettered(grey, row, column)
    text = find_regions(grey, *SIZE).text
    assert text[where].mean() > 0.9
    assert text.mean() < 0.03


def test_a_film_without_letters_has_almost_no_text() -> None:
    shares = [find_regions(phantom(seed)[0], *SIZE).text.mean() for seed in range(6)]
    assert np.mean(shares) < 0.005


def test_no_letters_at_all_are_found_in_grey_noise() -> None:
    rng = np.random.default_rng(0)
    assert not text_mask((0.5 + 0.02 * rng.standard_normal((300, 300))).astype(np.float32)).any()


def test_masks_lie_on_the_grid_that_was_asked_for() -> None:
    grey, _ = phantom(3)
    regions = find_regions(grey, 224, 100)
    for mask in (regions.body, regions.border, regions.text, regions.lungs):
        assert mask is not None
        assert mask.shape == (224, 100)


def test_a_constant_film_breaks_nothing() -> None:
    for value in (0.0, 0.5, 1.0):
        regions = find_regions(np.full((64, 48), value, dtype=np.float32), 32, 32)
        assert not regions.text.any()


def test_an_altered_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lung-field.safetensors"
    with pytest.raises(ModelError, match="cannot be read"):
        load_lung_network(path)
    path.write_bytes(b"no tensors")
    with pytest.raises(ModelError, match="cannot be read"):
        load_lung_network(path)


def test_the_outline_does_not_depend_on_the_films_size() -> None:
    grey, _ = phantom(4)
    small = np.asarray(Pillow.fromarray(grey).resize((208, 224), Pillow.Resampling.BOX), dtype=np.float32)
    large_mask, small_mask = lung_field(grey), lung_field(small)
    assert large_mask is not None
    assert small_mask is not None
    assert (large_mask & small_mask).sum() > 0.9 * (large_mask | small_mask).sum()
    torch.testing.assert_close(torch.from_numpy(large_mask), torch.from_numpy(lung_field(grey)))


def test_real_films_of_adults_have_two_lungs(shared_dicom: Path) -> None:
    folder = shared_dicom.parent / "nih-adult-64"
    paths = sorted(folder.rglob("*.png"))[::40]
    found = []
    for path in paths:
        with Pillow.open(path) as picture:
            grey = np.asarray(picture.convert("L"), dtype=np.float32) / 255
        mask = lung_field(grey)
        found.append(mask is not None and bool(mask[:, : SIDE // 2].any() and mask[:, SIDE // 2 :].any()))
    assert len(found) >= 20
    assert np.mean(found) >= 0.9


def test_the_command_writes_a_network_that_loads(tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    for seed in range(3):
        grey, _ = phantom(seed)
        Pillow.fromarray(np.round(grey * 255).astype(np.uint8)).save(films / f"{seed}.png")
    out = tmp_path / "lungs.safetensors"
    options = ["--out", str(out), "--phantoms", "33", "--epochs", "1"]
    ended = CliRunner().invoke(cli, ["lung-field", str(films), *options])
    assert ended.exit_code == 0, ended.output
    assert out.stat().st_size < 1_000_000
    network = load_lung_network(out)
    assert not network.training
    assert network(torch.zeros(1, 1, SIDE, SIDE)).shape == (1, 1, SIDE, SIDE)
