from __future__ import annotations

import json
import logging
import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from service.observe import JsonLines

if TYPE_CHECKING:
    from pathlib import Path

JOB = "0123456789abcdef0123456789abcdef"


def line(text: str, *arguments: object, error: Exception | None = None) -> dict[str, str]:
    information = (type(error), error, None) if error else None
    record = logging.LogRecord("service.x", logging.WARNING, "x.py", 1, text, arguments, information)
    loaded: dict[str, str] = json.loads(JsonLines("worker").format(record))
    return loaded


def test_a_line_about_a_job_carries_its_id() -> None:
    found = line("job %s: %s", JOB, "done")
    assert found["job"] == JOB
    assert (found["message"], found["level"], found["process"]) == (f"job {JOB}: done", "warning", "worker")


def test_other_lines_carry_none() -> None:
    assert "job" not in line("listening at %s", "127.0.0.1:104")


def test_an_exception_is_named_and_not_quoted() -> None:
    found = line("failed", error=ValueError("Mustermann^Erika"))
    assert found["exception"] == "ValueError"
    assert "Mustermann" not in json.dumps(found)


def test_a_text_with_line_breaks_stays_one_line() -> None:
    record = logging.LogRecord("service.x", logging.INFO, "x.py", 1, "a\nb\u2028c", (), None)
    assert len(JsonLines("worker").format(record).splitlines()) == 1


def test_warnings_and_other_libraries_messages_lose_what_may_be_a_patients(tmp_path: Path) -> None:
    code = """
import logging, warnings
from service.observe import configure_logging
configure_logging("test", form="json")
warnings.warn("Invalid value for VR DA: 'Mustermann^Erika'")
logging.getLogger("celery.worker").error("Received invalid task message: %s\\nMustermann^Erika", "pickle")
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    warning, message = (json.loads(line) for line in done.stderr.splitlines())
    assert warning["message"].startswith("UserWarning at ")
    assert message["message"] == "Received invalid task message: pickle"
    assert "Mustermann" not in done.stderr + done.stdout


@pytest.mark.parametrize("umask", [0o000, 0o022])
def test_what_a_command_writes_is_for_its_owner_alone(tmp_path: Path, umask: int) -> None:
    state = tmp_path / "state"
    code = "from service.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "jobs", "--json"],
        check=False,
        umask=umask,
        capture_output=True,
        env={**os.environ, "PELLUCID__STATE__DIRECTORY": str(state)},
        timeout=60,
    )
    assert done.returncode == 0
    paths = [state, *state.rglob("*")]
    assert len(paths) > 1
    for path in paths:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
