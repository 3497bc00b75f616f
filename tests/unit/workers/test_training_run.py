"""A tiny run on phantoms: it learns, it repeats itself, and a kill does not change its result."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from safetensors.torch import load_file

from service.errors import SettingsError
from service.model_card import load_card
from workers.models.package import load_package
from workers.phantom.film import make_phantom
from workers.training.prepare import prepare
from workers.training.run import run_training
from workers.training.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CPU = torch.device("cpu")
SETTINGS = """
seed = 3
runs = "runs"
output = "package"
[data]
folder = "films"
side = 64
validation_share = 0.25
[optimisation]
epochs = 2
batch = 8
threads = 2
[synthesis]
planted_share = 0.25
phantom_share = 0.25
phantoms = 10
inside_weight = 0.3
outside_weight = 0.5
lung_epochs = 1
[package]
name = "tiny"
title = "Tiny"
version = "0"
manufacturer = "Test"
intended_use = "Tests, with a \\"quote\\"."
limits = "Everything."
label = "Pneumonia"
code = { value = "233604007", scheme = "SCT", meaning = "Pneumonia" }
graph = "resnet-compact"
cam_layer = "features"
[package.input]
rows = 64
columns = 64
[package.eligibility]
modalities = ["DX"]
[package.training]
data = "Phantoms"
licence = "None"
attribution = "None"
"""


class KilledError(Exception):
    """Stands for a power cut."""


class Silent:
    """Watches without a word; may stop the run after an epoch, as a kill would before the next one."""

    def __init__(self, kill_in_epoch: int = 0) -> None:
        self.kill_in_epoch = kill_in_epoch
        self.steps: list[tuple[int, int]] = []
        self.epochs = 0

    def step(self, epoch: int, done: int, total: int) -> None:
        if epoch == self.kill_in_epoch:
            raise KilledError
        self.steps.append((done, total))

    def epoch(self, record: dict[str, float]) -> None:
        self.epochs += 1
        assert np.isfinite(record["loss"])


def quiet(title: str, total: int) -> Callable[[int], None]:
    return lambda amount: None  # noqa: ARG005 - nobody watches


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    for index in range(24):
        sick = index % 2
        inside = folder / ("PNEUMONIA" if sick else "NORMAL")
        inside.mkdir(exist_ok=True)
        name = f"person{index}_virus_1.png" if sick else f"IM-{index:04d}-0001.png"
        pixels = make_phantom(index, (64, 64), opacities=3 * sick).pixels
        Pillow.fromarray((pixels // 16).astype(np.uint8)).save(inside / name)
    return folder


def write_settings(folder: Path, films: Path, text: str = SETTINGS) -> Path:
    (folder / "films").symlink_to(films)
    path = folder / "settings.toml"
    path.write_text(text)
    return path


def run(path: Path, *, resume: bool = False, watcher: Silent | None = None) -> Path:
    return run_training(path, resume=resume, device=CPU, watcher=watcher or Silent(), progress=quiet).folder


def test_a_killed_run_that_is_resumed_ends_as_an_unbroken_one(tmp_path: Path, films: Path) -> None:
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    for folder in (unbroken, broken):
        folder.mkdir()
    watcher = Silent()
    first = run(write_settings(unbroken, films), watcher=watcher)
    settings = write_settings(broken, films)
    with pytest.raises(KilledError):
        run(settings, watcher=Silent(kill_in_epoch=2))
    resumed = Silent()
    second = run(settings, resume=True, watcher=resumed)

    assert watcher.epochs == 2
    assert resumed.epochs == 1
    assert watcher.steps[-1][0] == watcher.steps[-1][1]
    assert (first / "weights.safetensors").read_bytes() == (second / "weights.safetensors").read_bytes()
    assert (first / "model.toml").read_text() == (second / "model.toml").read_text()

    # What was written is a package that loads, with its log beside it.
    card = load_card(first)
    assert card.intended_use == 'Tests, with a "quote".'
    assert [point.name for point in card.labels[0].operating_points] == ["screening", "balanced", "rule-in"]
    logits = load_package(first, CPU).logits(torch.zeros(1, 1, 64, 64))
    assert logits.shape == (1, 1)
    log = json.loads((first / "training.json").read_text())
    assert len(log["history"]) == 2
    with Pillow.open(first / "curves.png") as curves:
        assert curves.size == (720, 420)

    # Other settings do not go on from this checkpoint.
    settings.write_text(SETTINGS.replace("seed = 3", "seed = 4"))
    with pytest.raises(SettingsError, match="belongs to other settings"):
        run(settings, resume=True)


def test_an_unknown_setting_is_refused_with_the_nearest_name(tmp_path: Path, films: Path) -> None:
    path = write_settings(tmp_path, films, SETTINGS.replace("epochs = 2", "epoch = 2"))
    with pytest.raises(SettingsError, match=r"unknown setting 'optimisation\.epoch' \(did you mean 'epochs'"):
        run(path)


def test_a_folder_without_a_class_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    path = write_settings(tmp_path, tmp_path / "empty")
    with pytest.raises(SettingsError, match="no film of 'NORMAL'"):
        run(path)


def test_a_student_learns_from_a_csv_and_a_teacher_on_films_that_grow(tmp_path: Path, films: Path) -> None:
    teacher = tmp_path / "teacher"
    teacher.mkdir()
    run(write_settings(teacher, films))
    rows = [
        f"films/{label}/{path.name},{label},{path.stem}\n"
        for label in ("NORMAL", "PNEUMONIA")
        for path in sorted((films / label).iterdir())
    ]
    (tmp_path / "films.csv").write_text("path,label,patient\n" + "".join(rows))
    text = (
        SETTINGS.replace('folder = "films"', 'folder = "films.csv"')
        .replace("threads = 2", "threads = 2\nsides = [[0.0, 32], [0.5, 64]]")
        .replace("[package]\n", '[distillation]\nteacher = "teacher/package"\nweight = 0.5\n[package]\n', 1)
    )
    log = json.loads((run(write_settings(tmp_path, films, text)) / "training.json").read_text())
    assert [record["side"] for record in log["history"]] == [32, 64]
    # What ships has seen the largest films, however good an earlier epoch was on small ones.
    assert log["chosen_epoch"] == 2


def test_frozen_modules_keep_the_weights_and_statistics_that_they_start_with(tmp_path: Path, films: Path) -> None:
    text = SETTINGS.replace("epochs = 2", "epochs = 1")
    start, on = tmp_path / "start", tmp_path / "on"
    for folder in (start, on):
        folder.mkdir()
    first = run(write_settings(start, films, text))
    frozen = text.replace("threads = 2", 'threads = 2\nfrozen = ["stem"]')
    with pytest.raises(SettingsError, match="name the package they come from in start"):
        run(write_settings(on, films, frozen))
    (on / "films").unlink()
    frozen = frozen.replace("seed = 3", 'seed = 3\nstart = "../start/package"')
    second = run(write_settings(on, films, frozen))
    before, after = (load_file(folder / "weights.safetensors") for folder in (first, second))
    same = {name for name in before if torch.equal(before[name], after[name])}
    stem = {name for name in before if name.startswith("stem.")}
    assert stem
    assert same == stem

    (on / "settings.toml").write_text(frozen.replace('"stem"', '"steam"'))
    with pytest.raises(SettingsError, match=r"optimisation\.frozen: the graph has no module 'steam'; it begins with"):
        run(on / "settings.toml")


def test_a_label_of_neither_class_is_named(tmp_path: Path, films: Path) -> None:
    (tmp_path / "films.csv").write_text("path,label\nfilms/a.png,maybe\n")
    path = write_settings(tmp_path, films, SETTINGS.replace('folder = "films"', 'folder = "films.csv"'))
    with pytest.raises(SettingsError, match="label 'maybe' is not 'NORMAL' or 'PNEUMONIA'"):
        run(path)


def test_clear_films_from_elsewhere_join_the_training_alone(tmp_path: Path, films: Path) -> None:
    (tmp_path / "adults").mkdir()
    for index in range(3):
        Pillow.fromarray(np.full((64, 64), 200 + index, np.uint8)).save(tmp_path / "adults" / f"{index}.png")
    settings, table = load_settings(write_settings(tmp_path, films)), tmp_path / "adults.csv"
    table.write_text("path,label\n" + "".join(f"adults/{index}.png,NORMAL\n" for index in range(3)))
    plain, joined, from_folder = (
        prepare(settings, data=films, clear=clear, runs=tmp_path / "runs", progress=quiet)
        for clear in (None, table, tmp_path / "adults")
    )
    for training, validation in (joined, from_folder):
        assert len(training.films) == len(plain[0].films) + 3
        assert training.films.pixels[-3:, 0, 0].tolist() == [200, 201, 202]
        assert training.films.labels[-3:].tolist() == [0, 0, 0]
        assert validation.films.patients == plain[1].films.patients
    table.write_text("path,label\nadults/0.png,PNEUMONIA\n")
    with pytest.raises(SettingsError, match="label 'PNEUMONIA' is not 'NORMAL'"):
        prepare(settings, data=films, clear=table, runs=tmp_path / "runs", progress=quiet)
