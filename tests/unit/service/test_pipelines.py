"""Which pipelines may run beside each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from service.errors import SettingsError
from service.pipelines import load_pipelines
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


def test_a_pipeline_alone_needs_no_number(tmp_path: Path) -> None:
    (entry,) = load("one", folder=numbered(tmp_path, one=None))
    assert entry.pipeline.series_number == 9000


@pytest.mark.parametrize("other", [None, 9000, 9099, 8901])
def test_two_pipelines_that_would_share_numbers_are_refused_with_what_to_write(
    tmp_path: Path, other: int | None
) -> None:
    folder = numbered(tmp_path, one=9000, two=other)
    with pytest.raises(SettingsError, match=r"'one' \(9000\)") as caught:
        load("one", "two", folder=folder)
    assert "'two'" in str(caught.value)
    assert "series_number = 9" in str(caught.value)
    # Each by itself is in order.
    assert load("one", folder=folder)
    assert load("two", folder=folder)


@pytest.mark.parametrize("other", [8900, 9100])
def test_numbers_a_hundred_apart_are_far_enough(tmp_path: Path, other: int) -> None:
    assert len(load("one", "two", folder=numbered(tmp_path, one=9000, two=other))) == 2


@pytest.mark.parametrize("number", [-1, 0, 1, 999, 999_901, 2**31])
def test_a_number_among_a_modalitys_own_or_too_long_to_show_is_refused(tmp_path: Path, number: int) -> None:
    with pytest.raises(SettingsError, match="series_number"):
        load("one", folder=numbered(tmp_path, one=number))
