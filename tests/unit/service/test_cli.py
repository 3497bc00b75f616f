from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from rich.table import Table

from service.cli import cli
from service.ledger.database import open_database
from service.ledger.report import Reports
from service.terminal import terminal

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
    ("arguments", "code", "words"),
    [
        (("jobs", "--limit", "0"), 2, "x>=1"),
        (("jobs", "--state", "lost"), 2, "'lost' is not one of"),
        (("echo", "--to", "127.0.0.1:104", "--called", "LONGER THAN SIXTEEN"), 2, "1 to 16 printable"),
        (("echo", "--to", "localhost", "--called", "PACS"), 2, "is not HOST:PORT"),
        (("echo", "--to", "nobody.invalid:104", "--called", "PACS"), 1, "no name server knows"),
        (("audit", "show", "1.2.3"), 1, "knows nothing of '1.2.3'"),
    ],
)
def test_a_wrong_argument_is_answered_in_words(
    arguments: tuple[str, ...], code: int, words: str, tmp_path: Path
) -> None:
    done = CliRunner(env={"PELLUCID__STATE__DIRECTORY": str(tmp_path)}).invoke(cli, arguments)
    assert done.exit_code == code
    assert words in done.output


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("PELLUCID__STATE__DIRECTORY", "/dev/null/state", "Error: /dev/null: "),
        (
            "PELLUCID__LEDGER__DATABASE_URL",
            "postgresql+psycopg://nobody@127.0.0.1:1/none",
            "the ledger does not answer",
        ),
    ],
)
def test_what_the_machine_refuses_is_said_in_one_line(name: str, value: str, words: str) -> None:
    done = pellucid("jobs", **{name: value})
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_retrying_an_unknown_job_says_so(tmp_path: Path) -> None:
    done = pellucid("retry", "abc", PELLUCID__STATE__DIRECTORY=str(tmp_path))
    assert done.returncode == 2
    assert "no job begins with 'abc'" in done.stderr


@pytest.mark.parametrize("module", ["service.cli", "dicom_nodes.commands", "dicom_nodes.listener", "workers.app"])
def test_starting_a_process_never_imports_torch(module: str) -> None:
    code = f"import {module}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_a_reason_quotes_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("reason")
    table.add_row("no [peers] section has AE title X: add one [/b] [link=http://x]y[/link]")
    terminal().print(table)
    assert "no [peers] section has AE title X: add one [/b] [link=http://x]y[/link]" in capsys.readouterr().out


def test_a_schema_is_not_taken_from_under_a_process_that_is_alive(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    Reports(engine).announce("worker")
    engine.dispose()
    done = pellucid("migrate", "--to", "0001", PELLUCID__STATE__DIRECTORY=str(tmp_path))
    assert (done.returncode, "worker said within 20 s to be alive: stop them" in done.stderr) == (2, True)
