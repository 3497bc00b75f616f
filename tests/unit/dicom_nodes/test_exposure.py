from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from certificates import Authority

from dicom_nodes.exposure import Diagnosis, State, audit, certificates, files, listener, secrets
from service.audit.chain import write_place
from service.audit.trail import open_log, open_trail
from service.settings import Settings, files_with_secrets, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def settings(folder: Path, **values: str) -> Settings:
    variables = {f"PELLUCID__{name}": value for name, value in values.items()}
    return load_settings(None, {"PELLUCID__STATE__DIRECTORY": str(folder / "state"), **variables})


def states(examine: Callable[[Settings], Iterator[Diagnosis]], chosen: Settings) -> list[State]:
    return [entry.state for entry in examine(chosen)]


def test_loopback_is_no_exposure(tmp_path: Path) -> None:
    assert states(listener, settings(tmp_path)) == [State.OK]


def test_a_listener_that_is_open_to_everybody_is_warned_of(tmp_path: Path) -> None:
    (found,) = listener(settings(tmp_path, LISTENER__HOST="0.0.0.0"))  # noqa: S104 -- what is warned of
    assert found.state is State.WARNING
    assert "open to everybody" in found.found


@pytest.mark.parametrize(
    "restriction",
    [
        {"LISTENER__ADDRESSES": '["10.0.0.0/8"]'},
        {"LISTENER__CALLING_AE_TITLES": '["CT1"]'},
        {"LISTENER__KNOWN_PEERS_ONLY": "true"},
        {"LISTENER__PLAIN": "false", "TLS__PORT": "2762"},
    ],
)
def test_a_restricted_listener_is_not(tmp_path: Path, restriction: dict[str, str]) -> None:
    chosen = settings(tmp_path, LISTENER__HOST="0.0.0.0", **restriction)  # noqa: S104 -- restricted
    assert states(listener, chosen) == [State.OK]


def test_a_listener_without_a_port_is_a_problem(tmp_path: Path) -> None:
    assert states(listener, settings(tmp_path, LISTENER__PLAIN="false")) == [State.PROBLEM]


def test_a_known_peer_whose_title_is_enough_is_warned_of(tmp_path: Path) -> None:
    chosen = settings(
        tmp_path,
        LISTENER__KNOWN_PEERS_ONLY="true",
        PEERS__LOOSE__AE_TITLE="CT1",
        PEERS__LOOSE__HOST="ct1.example",
        PEERS__LOOSE__PORT="104",
        PEERS__BOUND__AE_TITLE="CT2",
        PEERS__BOUND__HOST="10.0.0.1",
        PEERS__BOUND__PORT="104",
    )
    assert [entry.name for entry in listener(chosen) if entry.state is State.WARNING] == ["peer loose"]


@pytest.mark.parametrize(("token", "says"), [("", "asks for no token"), ("secret", "speaks no TLS")])
def test_a_web_door_on_the_network_is_warned_of(tmp_path: Path, token: str, says: str) -> None:
    chosen = settings(tmp_path, DICOMWEB__HOST="0.0.0.0", DICOMWEB__PORT="8080", DICOMWEB__TOKEN=f'"{token}"')  # noqa: S104
    (found,) = [entry for entry in listener(chosen) if entry.name == "dicomweb"]
    assert found.state is State.WARNING
    assert says in found.found
    assert "secret" not in found.found


def test_metrics_on_the_network_are_warned_of(tmp_path: Path) -> None:
    chosen = settings(tmp_path, HTTP__HOST="0.0.0.0", HTTP__LISTENER_PORT="9464")  # noqa: S104 -- what is warned of
    assert [entry.name for entry in listener(chosen) if entry.state is State.WARNING] == ["http"]


def test_a_state_folder_that_is_a_file_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("somebody's")
    (tmp_path / "state").chmod(0o644)
    assert states(files, settings(tmp_path)) == [State.OK]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('[peers.pacs]\nae_title = "P"\nurl = "https://p"\ntoken = "abc"\n', 1),
        ('[ledger]\ndatabase_url = "postgresql+psycopg://u:p@db/x"\n', 1),
        ('[queue]\nbroker_url = "redis://host:6379/0"\n[dicomweb]\ntoken = ""\n', 0),
    ],
)
def test_settings_that_hold_a_secret_and_that_everybody_may_read_are_warned_of(
    tmp_path: Path, content: str, expected: int
) -> None:
    path = tmp_path / "p.toml"
    path.write_text(content)
    path.chmod(0o644)
    assert len(list(secrets(files_with_secrets(path, {})))) == expected
    path.chmod(0o640)
    assert list(secrets(files_with_secrets(path, {}))) == []


def test_a_secret_in_a_file_that_everybody_may_read_is_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("abc")
    path.chmod(0o604)
    (found,) = secrets(files_with_secrets(None, {"PELLUCID__DICOMWEB__TOKEN__FILE": str(path)}))
    assert (found.state, found.advice) == (State.WARNING, f"chmod o= {path}")


def test_a_state_folder_that_others_may_read_is_warned_of(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o755)
    (tmp_path / "state").chmod(0o755)
    assert states(files, settings(tmp_path)) == [State.WARNING]
    (tmp_path / "state").chmod(0o700)
    assert states(files, settings(tmp_path)) == [State.OK]


@pytest.mark.parametrize(("days", "state"), [(300, State.OK), (10, State.WARNING), (-1, State.PROBLEM)])
def test_certificates_are_warned_of_before_they_end(tmp_path: Path, days: int, state: State) -> None:
    authority = Authority(tmp_path / "pki")
    own = authority.issue("listener", days=days, begins=-10)
    chosen = settings(tmp_path, TLS__PORT="2762", TLS__CERTIFICATE=str(own.certificate), TLS__KEY=str(own.key))
    assert states(certificates, chosen) == [state]


def test_records_that_the_collector_does_not_get_are_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicom_nodes.exposure._MANY_RECORDS", 2)
    chosen = settings(tmp_path, AUDIT__SYSLOG_HOST="collector")
    assert states(audit, chosen) == [State.OK]
    trail = open_trail(chosen, "test")
    for number in range(3):
        trail.alert(f"10.0.0.{number}", "unknown AE title")
    assert states(audit, chosen) == [State.WARNING]
    log = open_log(chosen)
    write_place(log.folder / "forwarded", list(log.records())[1][1])
    (found,) = audit(chosen)
    assert (found.state, found.found) == (State.OK, "3 records, 1 not yet forwarded to collector:6514")


@pytest.mark.parametrize(("days", "state"), [(30, State.OK), (1, State.WARNING), (-1, State.PROBLEM)])
def test_revocation_lists_are_warned_of_before_they_end(tmp_path: Path, days: int, state: State) -> None:
    authority = Authority(tmp_path / "pki")
    own = authority.issue("listener", days=300)
    chosen = settings(
        tmp_path,
        TLS__PORT="2762",
        TLS__CERTIFICATE=str(own.certificate),
        TLS__KEY=str(own.key),
        TLS__CRL=str(authority.revoke(days=days)),
    )
    assert states(certificates, chosen) == [State.OK, state]
