from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from clocks import SlowClock

from service.pipelines import load_pipelines
from service.settings import load_settings
from workers.phantom.files import write_samples
from workers.pipeline import Analyst

if TYPE_CHECKING:
    from pathlib import Path

    from service.pipelines import Pipeline
    from service.settings import Settings

CREATED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def settings() -> Settings:
    return load_settings(None, {})


@pytest.fixture
def pipeline(settings: Settings) -> Pipeline:
    chosen = load_pipelines(settings)[0].pipeline
    # A method that samples, and stops when it is sure, beside those of the pipeline.
    return chosen.model_copy(update={"explainers": (*chosen.explainers, "lime")})


@pytest.fixture
def film(tmp_path: Path) -> Path:
    return write_samples(tmp_path, count=1, seed=11)[0]


def written(pipeline: Pipeline, settings: Settings, film: Path, seconds: float) -> list[bytes]:
    analyst = Analyst(pipeline, settings, now=SlowClock(seconds))
    return [built.data for built in analyst.analyse(film, job_id="j" * 32, created_at=CREATED).objects]


def test_a_busy_machine_writes_the_same_bytes(pipeline: Pipeline, settings: Settings, film: Path) -> None:
    # The slow clock has left the budget's 60 s behind before the second method begins.
    quick, slow = (written(pipeline, settings, film, seconds) for seconds in (0.001, 8.0))
    assert [hashlib.sha256(data).digest() for data in quick] == [hashlib.sha256(data).digest() for data in slow]
    assert len(quick) == 2


def test_what_the_brake_left_out_stands_in_the_report(pipeline: Pipeline, settings: Settings, film: Path) -> None:
    _, report = written(pipeline, settings, film, 120.0)
    assert b"the machine was too slow" in report
