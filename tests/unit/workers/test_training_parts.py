from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from service.errors import ModelError
from workers.models.compact import CompactResNet
from workers.phantom.film import make_phantom
from workers.training.augment import Batch, augment, render_text, widen
from workers.training.breasts import lay_breasts
from workers.training.calibrate import calibrate, choose_points
from workers.training.films import decode, find_films, patient_of, split_by_patient
from workers.training.loop import one_cycle
from workers.training.lung_network import SIDE, complete_lungs
from workers.training.lungs import lungs_by_threshold
from workers.training.objective import Activation, losses
from workers.training.plant import plant, plant_outside
from workers.training.settings import Synthesis

if TYPE_CHECKING:
    from pathlib import Path


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def chests() -> Batch:
    """Eight phantoms with clear lungs."""
    phantoms = [make_phantom(seed, (112, 112)) for seed in range(8)]
    films = torch.stack([torch.from_numpy(p.pixels.astype(np.float32) / 4095)[None] for p in phantoms])
    lungs = torch.stack([torch.from_numpy(p.lungs)[None].float() for p in phantoms])
    return Batch(films=films, lungs=lungs, masks=torch.zeros_like(films))


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("person1000_bacteria_2931.jpeg", "bacteria-1000"),
        ("person1000_virus_1681.jpeg", "virus-1000"),
        ("IM-0115-0001.jpeg", "normal-115"),
        ("NORMAL2-IM-0123-0001.jpeg", "normal2-123"),
        ("NORMAL2-IM-0832-0001-0002.jpeg", "normal2-832"),
        ("elsewhere.png", "elsewhere.png"),
    ],
)
def test_files_of_one_child_share_a_patient(name: str, patient: str) -> None:
    assert patient_of(name) == patient


def write_films(folder: Path) -> None:
    for index in range(30):
        sick = index % 2
        inside = folder / ("PNEUMONIA" if sick else "NORMAL")
        inside.mkdir(parents=True, exist_ok=True)
        for copy in range(2):
            name = f"person{index}_virus_{copy}.png" if sick else f"IM-{index:04d}-000{copy}.png"
            Pillow.fromarray(np.full((8, 8), index * 2 + copy, np.uint8)).save(inside / name)
    Pillow.fromarray(np.full((8, 8), 0, np.uint8)).save(folder / "NORMAL" / "IM-9999-0001.png")


def test_no_patient_and_no_duplicate_is_in_both_splits(tmp_path: Path) -> None:
    write_films(tmp_path)
    films = find_films(tmp_path, negative="NORMAL", positive="PNEUMONIA")
    training, validation = split_by_patient(films, share=0.2, seed=1)
    assert len(films) == 60  # 61 files, one of them twice
    assert len(training) + len(validation) == 60
    assert not {film.patient for film in training} & {film.patient for film in validation}
    assert sum(film.label for film in validation) == len(validation) / 2 == 6
    assert split_by_patient(films, share=0.2, seed=1) == (training, validation)


def test_decoded_films_are_taken_from_the_cache_until_a_file_changes(tmp_path: Path) -> None:
    write_films(tmp_path)
    films = find_films(tmp_path, negative="NORMAL", positive="PNEUMONIA")
    read: list[int] = []
    for _ in range(2):
        decoded = decode(films, rows=4, columns=4, cache=tmp_path / "c.npz", advance=read.append)
    assert sum(read) == 60
    assert decoded.pixels.shape == (60, 4, 4)
    Pillow.fromarray(np.full((9, 9), 200, np.uint8)).save(films[0].path)
    again = decode(films, rows=4, columns=4, cache=tmp_path / "c.npz", advance=read.append)
    assert int(again.pixels[0, 0, 0]) == 200


def test_the_rule_finds_the_lungs_of_phantoms(chests: Batch) -> None:
    overlaps = []
    for film, lungs in zip(chests.films[:, 0].numpy(), chests.lungs[:, 0].numpy() > 0, strict=True):
        found = lungs_by_threshold((film * 255).astype(np.uint8))
        if found is not None:
            overlaps.append((found & lungs).sum() / (found | lungs).sum())
    assert len(overlaps) >= 6
    assert np.median(overlaps) > 0.7


def test_the_rule_finds_no_lungs_where_there_are_none() -> None:
    assert lungs_by_threshold(np.full((112, 112), 90, np.uint8)) is None


def test_a_lung_that_was_missed_is_mirrored_from_the_other() -> None:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[30:80, 10:40] = 1
    both = complete_lungs(mask)
    assert np.array_equal(both, both[:, ::-1])
    mask[30:80, 75:100] = 1
    assert np.array_equal(complete_lungs(mask), mask)


def test_planted_opacities_brighten_the_lung_where_the_mask_says(chests: Batch) -> None:
    planted = plant(chests.films, chests.lungs, generator())
    change = planted.films - chests.films
    inside = planted.masks > 0
    assert inside.flatten(1).any(dim=1).sum() >= 6
    assert float(change[inside].mean()) > 0.05
    assert float(change[~inside].abs().mean()) < 0.01
    assert float((planted.masks * (1 - widen(chests.lungs, 8))).sum() / planted.masks.sum()) < 0.05


def test_a_decoy_leaves_the_lungs_as_they_were(chests: Batch) -> None:
    change = (plant_outside(chests.films, chests.lungs, generator()) - chests.films).abs()
    assert float(change.max()) > 0.05
    assert float(change[chests.lungs > 0].mean()) < 0.2 * float(change.mean())


def test_augmentation_is_seeded_and_moves_masks_with_films(chests: Batch) -> None:
    # A film that is its own mask: after the same move both still agree.
    marked = Batch(films=chests.films, lungs=chests.lungs, masks=chests.lungs)
    first, second = augment(marked, generator(1)), augment(marked, generator(1))
    assert torch.equal(first.films, second.films)
    assert torch.equal(first.lungs, first.masks)
    assert not torch.equal(first.films, augment(marked, generator(2)).films)
    assert float(first.films.min()) >= 0
    assert float(first.films.max()) <= 1
    darker = [float(f[m > 0.5].mean() - f[m < 0.5].mean()) for f, m in zip(first.films, first.lungs, strict=True)]
    assert np.median(darker) < 0


def test_augmentation_never_mirrors_left_and_right(chests: Batch) -> None:
    side = torch.zeros_like(chests.lungs)
    side[..., :56] = 1.0
    moved = augment(Batch(films=chests.films, lungs=chests.lungs, masks=side), generator(4))
    left, right = moved.masks[..., :40].mean(dim=(1, 2, 3)), moved.masks[..., 72:].mean(dim=(1, 2, 3))
    assert bool((left > right).all())


def test_breast_shadows_brighten_the_lower_part_of_both_lungs(chests: Batch) -> None:
    added = lay_breasts(chests.films, chests.lungs, generator(3)) - chests.films
    assert float(added.min()) >= 0
    inside, means = chests.lungs > 0.5, []
    for film, lungs in zip(added[:, 0], inside[:, 0], strict=True):
        rows, columns = lungs.any(1).nonzero(), lungs.any(0).nonzero()
        half, middle = int(rows.float().mean()), int(columns.float().mean())
        for side in (slice(None, middle), slice(middle, None)):
            upper, lower = film[:half, side][lungs[:half, side]], film[half:, side][lungs[half:, side]]
            means.append(torch.stack([upper.mean(), lower.mean()]))
            assert float(lower.max()) > 0.02
    upper_mean, lower_mean = torch.stack(means).mean(0).tolist()
    assert lower_mean > 2 * upper_mean


def test_breast_shadows_are_laid_only_where_lungs_are_known(chests: Batch) -> None:
    lungs = chests.lungs.clone()
    lungs[1::2] = 0
    laid = lay_breasts(chests.films, lungs, generator(3))
    assert torch.equal(laid[1::2], chests.films[1::2])
    assert not torch.equal(laid[0], chests.films[0])


def test_text_is_as_tall_as_asked() -> None:
    glyphs = render_text("R", 20)
    assert 12 <= glyphs.shape[0] <= 24
    assert float(glyphs.max()) > 0.9


def test_the_losses_see_where_the_evidence_lies() -> None:
    settings = Synthesis(inside_weight=1.0, outside_weight=1.0)
    lungs = torch.zeros(1, 1, 64, 64)
    lungs[..., :32] = 1.0
    batch = Batch(films=torch.zeros_like(lungs), lungs=lungs, masks=lungs)
    good, bad = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)
    good[..., :4], bad[..., 6:] = 1.0, 1.0
    inside, outside = (
        losses(torch.zeros(1, 1), m, target=torch.ones(1, 1), batch=batch, settings=settings) for m in (good, bad)
    )
    assert float(inside.outside) < 0.1
    assert float(outside.outside) > 0.9
    assert float(inside.inside) < 0.1
    assert float(outside.inside) > 3
    assert float(inside.entropy) == pytest.approx(float(outside.entropy))


def test_one_bright_cell_does_not_cover_an_opacity() -> None:
    settings = Synthesis(covered_weight=1.0)
    masks = torch.zeros(1, 1, 64, 64)
    masks[..., 16:48, 16:48] = 1.0
    batch = Batch(films=torch.zeros_like(masks), lungs=torch.ones_like(masks), masks=masks)
    whole, spot = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)
    whole[..., 2:6, 2:6], spot[..., 3, 3] = 4.0, 4.0
    covering, missing = (
        losses(torch.zeros(1, 1), m, target=torch.ones(1, 1), batch=batch, settings=settings) for m in (whole, spot)
    )
    assert float(covering.covered) == 0
    assert float(missing.covered) == pytest.approx(15 / 16)
    assert float(missing.total - missing.entropy) == pytest.approx(15 / 16)


def test_the_hook_for_the_activation_map_leaves_with_its_context() -> None:
    network = CompactResNet().eval()
    layer = network.get_submodule("features")
    with Activation(network, "features") as activation, torch.inference_mode():
        logit = network(torch.randn(1, 1, 64, 64))
        assert activation.map().mean() + network.fc.bias == pytest.approx(float(logit), abs=1e-4)
    assert not layer._forward_hooks
    with pytest.raises(ModelError, match="no forward pass"):
        activation.map()


def test_calibration_undoes_a_known_scale_and_shift() -> None:
    rng = np.random.default_rng(0)
    true_logit = rng.normal(0, 2, 20_000)
    truth = (rng.random(20_000) < 1 / (1 + np.exp(-true_logit))).astype(np.int64)
    found = calibrate(true_logit * 3 - 1.5, truth)
    assert found.temperature == pytest.approx(3, rel=0.1)
    assert found.bias == pytest.approx(0.5, abs=0.1)


def test_operating_points_keep_their_promises() -> None:
    rng = np.random.default_rng(1)
    truth = np.repeat([0, 1], 400)
    probability = np.clip(rng.normal(0.35 + 0.3 * truth, 0.13), 0, 1)
    screening, balanced, rule_in = choose_points(truth, probability)
    assert [p.name for p in (screening, balanced, rule_in)] == ["screening", "balanced", "rule-in"]
    assert screening.sensitivity >= 0.98
    assert rule_in.specificity >= 0.98
    assert screening.threshold < balanced.threshold < rule_in.threshold
    assert balanced.sensitivity + balanced.specificity > screening.sensitivity + screening.specificity


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [one_cycle(x) for x in np.linspace(0, 1, 101)]
    peak = int(np.argmax(rates))
    assert 10 <= peak <= 20
    assert rates[peak] == pytest.approx(1, abs=0.01)
    assert rates[-1] < 0.001
