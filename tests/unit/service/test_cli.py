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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("jobs", "--limit", "0"), "x>=1"),
        (("jobs", "--state", "lost"), "'lost' is not one of"),
        (("echo", "--to", "127.0.0.1:104", "--called", "LONGER THAN SIXTEEN"), "1 to 16 printable"),
        (("echo", "--to", "localhost", "--called", "PACS"), "is not HOST:PORT"),
    ],
)
def test_a_wrong_argument_ends_with_code_2_and_says_what_is_wrong(arguments: tuple[str, ...], words: str) -> None:
    done = pellucid(*arguments)
    assert done.returncode == 2
    assert words in done.stderr


def test_a_host_that_no_name_server_knows_is_out_of_reach() -> None:
    done = pellucid("echo", "--to", "nobody.invalid:104", "--called", "PACS", "--json")
    assert done.returncode == 1
    assert "no name server knows" in json.loads(done.stdout)["reason"]


def test_an_audit_trail_that_knows_nothing_of_a_study_says_so(tmp_path: Path) -> None:
    done = pellucid("audit", "show", "1.2.3", PELLUCID__STATE__DIRECTORY=str(tmp_path))
    assert done.returncode == 1
    assert "knows nothing of '1.2.3'" in done.stderr


def test_retrying_an_unknown_job_says_so(tmp_path: Path) -> None:
    done = pellucid("retry", "abc", PELLUCID__STATE__DIRECTORY=str(tmp_path))
    assert done.returncode == 2
    assert "no job begins with 'abc'" in done.stderr


@pytest.mark.parametrize("module", ["service.cli", "dicom_nodes.commands", "dicom_nodes.listener", "workers.app"])
def test_starting_a_process_never_imports_torch(module: str) -> None:
    code = f"import {module}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
