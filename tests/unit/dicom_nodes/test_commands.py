from __future__ import annotations

import json
import socket
import time
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from dicom_nodes.doctor import State, diagnose
from service.cli import cli
from service.ledger.database import open_database
from service.ledger.report import Reports
from service.settings import load_settings
from tests.network import AE, cr_image, station, write_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from click.testing import Result

    from tests.network import Station


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Station]:
    with station(tmp_path) as running:
        yield running


def pellucid(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def test_send_tells_how_many_were_stored(listener: Station, tmp_path: Path) -> None:
    write_image(tmp_path / "a.dcm")
    done = pellucid("send", str(tmp_path / "a.dcm"), "--to", f"127.0.0.1:{listener.port}", "--called", AE)
    assert done.exit_code == 0
    assert done.output.startswith("1 of 1 stored")


def test_send_ends_with_1_and_the_reason_when_something_was_not_stored(listener: Station, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("no DICOM")
    write_image(tmp_path / "a.dcm")
    to = f"127.0.0.1:{listener.port}"
    files = [str(tmp_path / "note.txt"), str(tmp_path / "a.dcm")]
    done = pellucid("send", *files, "--to", to, "--called", AE, "--json")
    assert done.exit_code == 1
    assert [(entry["verdict"], entry["status"]) for entry in json.loads(done.stdout)] == [
        ("rejected", None),
        ("delivered", "0x0000"),
    ]


def test_send_without_any_dicom_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    done = pellucid("send", str(tmp_path / "folder"), "--to", "127.0.0.1:1", "--called", AE)
    assert done.exit_code == 1
    assert "no DICOM file" in done.output


def test_echo_tells_whether_a_peer_answers(listener: Station) -> None:
    to = f"127.0.0.1:{listener.port}"
    assert pellucid("echo", "--to", to, "--called", AE).exit_code == 0
    refused = pellucid("echo", "--to", to, "--called", "NOBODY", "--json")
    assert refused.exit_code == 1
    assert "Called AE title not recognised" in json.loads(refused.stdout)["reason"]


@pytest.mark.parametrize("place", ["nowhere", "host:", "host:0", "host:99999", ":104"])
def test_a_place_that_is_none_is_a_usage_error(place: str) -> None:
    done = pellucid("echo", "--to", place, "--called", AE)
    assert done.exit_code == 2
    assert "HOST:PORT" in done.output


def environment(folder: Path, **more: str) -> dict[str, str]:
    return {
        "PELLUCID__STATE__DIRECTORY": str(folder / "state"),
        "PELLUCID__LISTENER__MINIMUM_FREE_MB": "0",
        "PELLUCID__PIPELINES__ENABLED": "[]",
        **more,
    }


def test_doctor_finds_nothing_wrong_with_a_destination_that_answers(listener: Station, tmp_path: Path) -> None:
    peer = f'{{pacs = {{ae_title = "{AE}", host = "127.0.0.1", port = {listener.port}}}}}'
    found = diagnose(load_settings(None, environment(tmp_path, PELLUCID__PEERS=peer)))
    assert {entry.name for entry in found} >= {"disk", "ledger", "broker", "destination pacs", "listener"}
    assert [entry for entry in found if entry.state is State.PROBLEM] == []


@pytest.mark.parametrize(
    ("change", "name", "state", "words"),
    [
        (
            {"PELLUCID__PEERS": '{pacs = {ae_title = "X", host = "127.0.0.1", port = 1}}'},
            "destination pacs",
            State.PROBLEM,
            "out of reach",
        ),
        (
            {
                "PELLUCID__PEERS": '{a = {ae_title = "X", host = "::1", port = 1}, b = {ae_title = "X", url = "http://h"}}'
            },
            "destination @X",
            State.PROBLEM,
            "2 [peers] sections have AE title X",
        ),
        ({"PELLUCID__LISTENER__MINIMUM_FREE_MB": "999999999"}, "disk", State.PROBLEM, "refused"),
        ({"PELLUCID__LISTENER__HOST": "0.0.0.0"}, "listener", State.WARNING, "open to everybody"),  # noqa: S104
        ({"PELLUCID__PIPELINES__ENABLED": '["nothing"]'}, "pipelines", State.PROBLEM, "'nothing'"),
        ({"PELLUCID__LEDGER__DATABASE_URL": "nonsense"}, "ledger", State.PROBLEM, "database_url"),
        ({"PELLUCID__QUEUE__BROKER_URL": "redis://127.0.0.1:1/0"}, "broker", State.PROBLEM, "does not work"),
    ],
)
def test_doctor_names_what_is_wrong(
    change: dict[str, str], name: str, state: State, words: str, tmp_path: Path
) -> None:
    found = diagnose(load_settings(None, environment(tmp_path, **change)))
    (entry,) = [entry for entry in found if entry.name == name]
    assert entry.state is state
    assert words in entry.found


def test_doctor_says_which_file_tls_cannot_use(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone.pem")
    changes = environment(tmp_path, PELLUCID__TLS__PORT="2762", PELLUCID__TLS__CERTIFICATE=gone)
    (entry,) = [entry for entry in diagnose(load_settings(None, changes)) if entry.name == "certificates"]
    assert entry.state is State.PROBLEM
    assert "gone.pem: No such file" in entry.found
    assert "[tls]" in entry.advice


def test_doctor_notices_that_another_program_holds_the_port(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = environment(tmp_path, PELLUCID__LISTENER__PORT=str(other.getsockname()[1]))
        (entry,) = [entry for entry in diagnose(load_settings(None, taken)) if entry.name == "port"]
        assert "in use" in entry.found
        assert "listener.port" in entry.advice
    assert "port" not in {entry.name for entry in diagnose(load_settings(None, taken))}


def test_doctor_notices_clocks_that_differ(tmp_path: Path) -> None:
    settings = load_settings(None, environment(tmp_path))
    engine = open_database(settings.database_url)
    Reports(engine, lambda: time.time() + 3600).announce("worker")
    engine.dispose()
    (entry,) = [entry for entry in diagnose(settings) if entry.name == "clock"]
    assert entry.state is State.PROBLEM
    assert "NTP" in entry.advice


def test_doctor_names_what_was_set_aside(tmp_path: Path) -> None:
    with station(tmp_path / "listener", spool_root=tmp_path / "state" / "spool") as running:
        for rows in (16, 32):
            path = write_image(tmp_path / f"{rows}.dcm", cr_image("1.2.3.4", rows=rows))
            pellucid("send", str(path), "--to", f"127.0.0.1:{running.port}", "--called", AE)
        url = str(running.arrivals.engine.url)
    changes = environment(tmp_path, PELLUCID__LEDGER__DATABASE_URL=url)
    (entry,) = [entry for entry in diagnose(load_settings(None, changes)) if entry.name == "set aside"]
    assert entry.state is State.WARNING
    assert entry.found.startswith("1 instances")
    assert "1.2.3.4" in entry.found


def test_doctor_notices_pipelines_whose_results_get_the_same_series_numbers(tmp_path: Path) -> None:
    folder = tmp_path / "pipelines"
    folder.mkdir()
    shipped = load_settings(None, {}).pipelines_directory / "chest-xray-pneumonia.toml"
    (folder / shipped.name).write_text(shipped.read_text())
    copy = shipped.read_text().replace('name = "chest-xray-pneumonia"', 'name = "copy"')
    (folder / "copy.toml").write_text(copy)
    changes = environment(tmp_path, PELLUCID__PIPELINES__DIRECTORY=str(folder))
    changes["PELLUCID__PIPELINES__ENABLED"] = '["chest-xray-pneumonia", "copy"]'
    warnings = [entry for entry in diagnose(load_settings(None, changes)) if entry.state is State.WARNING]
    (entry,) = [entry for entry in warnings if "Series Numbers" in entry.found]
    assert "'chest-xray-pneumonia' (9000) and 'copy' (9000)" in entry.found
    assert "100 apart" in entry.advice


def test_doctor_notices_a_title_that_no_pipeline_reads(tmp_path: Path) -> None:
    folder = tmp_path / "pipelines"
    folder.mkdir()
    shipped = load_settings(None, {}).pipelines_directory / "chest-xray-pneumonia.toml"
    text = shipped.read_text().replace("called_ae_titles = []", 'called_ae_titles = ["PELLUCID_CXR"]')
    (folder / shipped.name).write_text(text)
    changes = environment(tmp_path, PELLUCID__PIPELINES__DIRECTORY=str(folder))
    del changes["PELLUCID__PIPELINES__ENABLED"]
    warnings = [entry for entry in diagnose(load_settings(None, changes)) if entry.state is State.WARNING]
    assert any("no pipeline analyses it" in entry.found and "PELLUCID_CXR" in entry.advice for entry in warnings)


def test_doctor_ends_with_1_when_there_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(tmp_path, PELLUCID__LISTENER__MINIMUM_FREE_MB="999999999").items():
        monkeypatch.setenv(name, value)
    done = pellucid("doctor", "--json")
    assert done.exit_code == 1
    assert "problem" in {entry["state"] for entry in json.loads(done.stdout)}


def test_doctor_notices_altered_weights(tmp_path: Path) -> None:
    import shutil  # noqa: PLC0415

    models = tmp_path / "models"
    shutil.copytree(load_settings(None, {}).models_directory, models)
    for weights in models.glob("*/*.safetensors"):
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x00\x01")
    changes = environment(tmp_path, PELLUCID__MODELS__DIRECTORY=str(models))
    del changes["PELLUCID__PIPELINES__ENABLED"]
    problems = [entry for entry in diagnose(load_settings(None, changes)) if entry.state is State.PROBLEM]
    assert any("sha256 differs" in entry.found for entry in problems)
