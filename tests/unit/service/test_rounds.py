from __future__ import annotations

from typing import TYPE_CHECKING

from service.rounds import LONGEST_PAUSE_S, Round

if TYPE_CHECKING:
    import pytest


def test_a_round_that_fails_is_counted_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise RuntimeError("Mustermann^Erika")

    entry = Round("test", 1.0, fail)
    entry.run_if_due(0.0)
    entry.run_if_due(0.5)
    entry.run_if_due(1.0)
    assert entry.failures == 2
    assert "RuntimeError" in caplog.text
    assert "Mustermann" not in caplog.text


def test_a_night_without_a_database_leaves_a_page_of_log_not_a_full_disk(caplog: pytest.LogCaptureFixture) -> None:
    away = True

    def step() -> None:
        if away:
            raise ConnectionError

    caplog.set_level("INFO")
    entry = Round("intake", 0.0, step)
    tenths = 8 * 3600 * 10
    for tenth in range(tenths):
        entry.run_if_due(tenth / 10)
    assert entry.failures <= tenths / 10 / LONGEST_PAUSE_S + 10
    assert entry.failures >= tenths / 10 / LONGEST_PAUSE_S - 10
    assert len(caplog.records) < 20
    away = False
    entry.run_if_due(tenths / 10 + LONGEST_PAUSE_S)
    assert f"works again after {entry.failures} failures" in caplog.text


def test_after_a_success_the_first_failure_is_told_at_once(caplog: pytest.LogCaptureFixture) -> None:
    fails = iter([True, True, True, False, True])

    def step() -> None:
        if next(fails):
            raise ConnectionError

    entry = Round("sweep", 0.0, step)
    for second in range(0, 60, 12):
        entry.run_if_due(float(second))
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
        "sweep failed (1 times in a row): ConnectionError",
        "sweep failed (2 times in a row): ConnectionError",
        "sweep failed (1 times in a row): ConnectionError",
    ]
