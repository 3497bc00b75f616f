"""Which pipelines may run beside each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from service.errors import SettingsError
from service.pipelines import SERIES_NUMBERS, alike, load_pipelines
from service.settings import load_settings, packaged_config

if TYPE_CHECKING:
    from pathlib import Path

    from service.pipelines import RunnablePipeline

SHIPPED = packaged_config() / "pipelines"
FILM = "chest-xray-pneumonia"


def load(*names: str, folder: Path = SHIPPED) -> tuple[RunnablePipeline, ...]:
    enabled = ", ".join(f'"{name}"' for name in names)
    changes = {"PELLUCID__PIPELINES__ENABLED": f"[{enabled}]", "PELLUCID__PIPELINES__DIRECTORY": f'"{folder}"'}
    return load_pipelines(load_settings(None, changes))


def numbered(folder: Path, **numbers: int | None) -> Path:
    """Write copies of a shipped pipeline, each with its own number or without any."""
    for name, number in numbers.items():
        lines = (SHIPPED / f"{FILM}.toml").read_text(encoding="utf-8").splitlines()
        changed = [line.replace(f'name = "{FILM}"', f'name = "{name}"') for line in lines]
        said = [] if number is None else [f"series_number = {number}"]
        kept = [line for line in changed if not line.startswith("series_number")]
        (folder / f"{name}.toml").write_text("\n".join([*said, *kept]), encoding="utf-8")
    return folder


def test_the_shipped_pipelines_can_all_run_together() -> None:
    entries = load(*(path.stem for path in SHIPPED.glob("*.toml")))
    assert len({entry.pipeline.series_number for entry in entries}) == len(entries) == 4


def test_pipelines_that_name_no_number_get_one_by_their_names(tmp_path: Path) -> None:
    folder = numbered(tmp_path, one=None, two=None)
    numbers = [entry.pipeline.series_number for entry in load("one", "two", folder=folder)]
    assert abs(numbers[0] - numbers[1]) >= SERIES_NUMBERS
    # Its own, whatever else is enabled.
    assert [load(name, folder=folder)[0].pipeline.series_number for name in ("one", "two")] == numbers
    assert all(10_000 <= number < 100_000 for number in numbers)


@pytest.mark.parametrize(("other", "shared"), [(9000, True), (9099, True), (8901, True), (8900, False), (9100, False)])
def test_numbers_less_than_a_hundred_apart_are_told(tmp_path: Path, other: int, *, shared: bool) -> None:
    entries = load("one", "two", folder=numbered(tmp_path, one=9000, two=other))
    found = alike(entry.pipeline for entry in entries)
    assert len(found) == shared
    assert all("'one' (9000)" in pair and f"'two' ({other})" in pair for pair in found)


@pytest.mark.parametrize("number", [-1, 0, 1, 999, 999_901, 2**31])
def test_a_number_among_a_modalitys_own_or_too_long_to_show_is_refused(tmp_path: Path, number: int) -> None:
    with pytest.raises(SettingsError, match="series_number"):
        load("one", folder=numbered(tmp_path, one=number))
