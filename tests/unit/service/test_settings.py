from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from service.errors import SettingsError
from service.settings import Settings, load_settings, packaged_config

if TYPE_CHECKING:
    from pathlib import Path

DEFAULTS = packaged_config() / "default.toml"


def test_the_documented_defaults_equal_the_codes_defaults() -> None:
    assert load_settings(DEFAULTS, {}) == Settings()


def test_every_setting_is_in_the_documented_file() -> None:
    text = DEFAULTS.read_text()
    for name, section in Settings.model_fields.items():
        assert f"[{name}]" in text
        for key in getattr(section.annotation, "model_fields", {}):
            assert f"\n{key} = " in text, f"{name}.{key}"


def test_a_file_of_a_windows_editor_is_read(tmp_path: Path) -> None:
    path = tmp_path / "pellucid.toml"
    path.write_bytes(b"\xef\xbb\xbf[listener]\r\nport = 104\r\n")
    assert load_settings(path, {}).listener.port == 104


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text("[listener]\nport = 104\nhost = '10.0.0.1'\n")
    settings = load_settings(path, {"PELLUCID__LISTENER__PORT": "105", "PELLUCID__LISTENER__AE_TITLE": "AI NODE"})
    assert (settings.listener.port, settings.listener.host, settings.listener.ae_title) == (
        105,
        "10.0.0.1",
        "AI NODE",
    )


def test_an_unknown_key_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(SettingsError, match=r"'listener.prot'.*did you mean 'port'"):
        load_settings(None, {"PELLUCID__LISTENER__PROT": "1"})


def test_an_unknown_section_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(SettingsError, match=r"'listner'.*did you mean 'listener'"):
        load_settings(None, {"PELLUCID__LISTNER__PORT": "1"})


@pytest.mark.parametrize("title", ["", "X" * 17, "A\\B", "TITÉL"])
def test_an_impossible_ae_title_is_refused(title: str) -> None:
    with pytest.raises(SettingsError, match="ae_title"):
        load_settings(None, {"PELLUCID__LISTENER__AE_TITLE": f"'{title}'"})


def test_an_unknown_time_zone_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"'worker.time_zone'.*no time zone 'Europe/Berlinn'"):
        load_settings(None, {"PELLUCID__WORKER__TIME_ZONE": "Europe/Berlinn"})


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        (
            "maximum_connections = 5\nmaximum_connections_per_address = 10",
            r"'dicomweb'.*per_address \(10\) is more than maximum_connections \(5\)",
        ),
        ("maximum_connections_per_address = 21", r"per_address \(21\) is more than maximum_connections \(20\): set it"),
        ("maximum_connections_per_address = -1", r"'dicomweb\.maximum_connections_per_address'"),
        ("minimum_bytes_per_s = 0", r"'dicomweb\.minimum_bytes_per_s'"),
        ("minimum_bytes_per_s = -1.0", r"'dicomweb\.minimum_bytes_per_s'"),
        ("minimum_bytes_per_s = inf", r"'dicomweb\.minimum_bytes_per_s'"),
        ("slow_timeout_s = 0", r"'dicomweb\.slow_timeout_s'"),
    ],
)
def test_limits_of_stow_that_protect_nobody_are_refused(tmp_path: Path, toml: str, words: str) -> None:
    path = tmp_path / "pellucid.toml"
    path.write_text(f"[dicomweb]\n{toml}\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=words):
        load_settings(path, {})


def test_behind_one_proxy_all_places_may_be_one_addresses(tmp_path: Path) -> None:
    path = tmp_path / "pellucid.toml"
    path.write_text("[dicomweb]\nmaximum_connections_per_address = 20\n", encoding="utf-8")
    assert load_settings(path, {}).dicomweb.maximum_connections == 20


@pytest.mark.parametrize(("together", "each"), [(20, 10), (5, 2), (1, 1)])
def test_one_address_gets_half_of_the_places_unless_told_otherwise(together: int, each: int) -> None:
    settings = load_settings(None, {"PELLUCID__DICOMWEB__MAXIMUM_CONNECTIONS": str(together)})
    assert settings.dicomweb.connections_each == each


@pytest.mark.parametrize("secret", ["98765", "1e5", "true", "12#3", "2026-11-23", "9" * 5000, "[" * 5000])
def test_a_secret_that_looks_like_a_number_stays_as_it_is_written(secret: str) -> None:
    settings = load_settings(None, {"PELLUCID__DICOMWEB__TOKEN": secret})
    assert settings.dicomweb.token == secret


def test_a_peer_named_by_the_environment_alone_may_have_a_title_of_digits() -> None:
    settings = load_settings(
        None,
        {
            "PELLUCID__PEERS__PACS__AE_TITLE": "4711",
            "PELLUCID__PEERS__PACS__HOST": "10.1.2.3",
            "PELLUCID__PEERS__PACS__PORT": "104",
        },
    )
    assert (settings.peers["pacs"].ae_title, settings.peers["pacs"].port) == ("4711", 104)


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("listener = 5", "'listener' must be a section"),
        ('[listener]\nport = "x"', "'listener.port' must be a whole number"),
        ("[listener]\nport = 1.5", "'listener.port' must be a whole number"),
        ('[listener]\ncalling_ae_titles = "PACS"', r"'listener.calling_ae_titles' must be a list, written \["),
        ("[listener]\nae_title = 5", "'listener.ae_title' must be a text, written in quotes"),
        ('[listener]\nplain = "maybe"', "'listener.plain' must be true or false"),
        ('[listener]\nae_title = "A\\\\B"', "'listener.ae_title': an AE title has"),
        ("[[peers]]\nae_title = 'X'", "'peers' must be a section"),
        ("a = " + "[" * 5000, "is no TOML"),
        ("a = " + "9" * 5000, "is no TOML"),
    ],
)
def test_a_wrong_file_is_answered_in_the_files_own_words(tmp_path: Path, toml: str, words: str) -> None:
    path = tmp_path / "p.toml"
    path.write_text(toml)
    with pytest.raises(SettingsError, match=words) as caught:
        load_settings(path, {})
    assert "Input should" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"gone\.toml: no such file"):
        load_settings(tmp_path / "gone.toml", {})


def test_a_secret_is_read_from_a_file_that_the_environment_names(tmp_path: Path) -> None:
    secret = tmp_path / "url"
    secret.write_text("postgresql+psycopg://pellucid:secret@db/pellucid\n")
    settings = load_settings(None, {"PELLUCID__LEDGER__DATABASE_URL__FILE": str(secret)})
    assert settings.database_url == "postgresql+psycopg://pellucid:secret@db/pellucid"


def test_a_missing_secret_names_variable_and_file_but_no_content(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"PELLUCID__LEDGER__DATABASE_URL__FILE: the file .*gone cannot be read"):
        load_settings(None, {"PELLUCID__LEDGER__DATABASE_URL__FILE": str(tmp_path / "gone")})
