from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


def pellucid(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    import os  # noqa: PLC0415

    return subprocess.run(
        [sys.executable, "-c", "from service.cli import main; main()", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **variables},
    )


def test_a_command_that_does_not_exist_is_refused_with_the_nearest_one() -> None:
    done = pellucid("serv")
    assert done.returncode == 2
    assert "did you mean 'serve'" in done.stderr


def test_the_help_says_what_each_command_does() -> None:
    shown = " ".join(pellucid("--help").stdout.split())
    assert "doctor Check settings, disk, ledger, broker, models and destinations" in shown
    assert "train Train a model package as SETTINGS (a TOML file) says" in shown


def test_a_wrong_setting_ends_with_code_2_and_its_name(tmp_path: Path) -> None:
    done = pellucid("jobs", PELLUCID__LISTENER__PROT="1", PELLUCID__STATE__DIRECTORY=str(tmp_path))
    assert done.returncode == 2
    assert "did you mean 'port'" in done.stderr


def test_jobs_of_a_new_ledger_are_an_empty_list(tmp_path: Path) -> None:
    done = pellucid("jobs", "--json", PELLUCID__STATE__DIRECTORY=str(tmp_path))
    assert done.returncode == 0
    assert json.loads(done.stdout) == []


def test_retrying_an_unknown_job_says_so(tmp_path: Path) -> None:
    done = pellucid("retry", "abc", PELLUCID__STATE__DIRECTORY=str(tmp_path))
    assert done.returncode == 2
    assert "no job begins with 'abc'" in done.stderr


@pytest.mark.parametrize("module", ["service.cli", "dicom_nodes.commands", "dicom_nodes.listener", "workers.app"])
def test_starting_a_process_never_imports_torch(module: str) -> None:
    code = f"import {module}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
