"""The only reader of settings: defaults, then a TOML file, then `PELLUCID__SECTION__KEY`."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.errors import SettingsError
from service.sections import (
    Audit,
    DicomWeb,
    Http,
    Intake,
    Ledger,
    Listener,
    Log,
    Models,
    Peer,
    Pipelines,
    Queue,
    Retention,
    Sender,
    Spool,
    State,
    Tls,
    Tracing,
    Worker,
)
from service.validation import Strict, is_text, read_toml, validate

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "PELLUCID__"
SECRETS = frozenset({"token", "password", "database_url", "broker_url", "access_key_id", "secret_access_key"})
"""Keys whose values are secrets, or may hold one."""


class Settings(Strict):
    """Every setting, validated."""

    state: State = State()
    spool: Spool = Spool()
    listener: Listener = Listener()
    tls: Tls = Tls()
    intake: Intake = Intake()
    ledger: Ledger = Ledger()
    queue: Queue = Queue()
    worker: Worker = Worker()
    sender: Sender = Sender()
    peers: dict[str, Peer] = {}
    audit: Audit = Audit()
    retention: Retention = Retention()
    dicomweb: DicomWeb = DicomWeb()
    http: Http = Http()
    tracing: Tracing = Tracing()
    log: Log = Log()
    models: Models = Models()
    pipelines: Pipelines = Pipelines()

    @property
    def database_url(self) -> str:
        """The ledger's SQLAlchemy URL; SQLite in the state directory by default."""
        return self.ledger.database_url or f"sqlite:///{self.state.directory.absolute() / 'ledger.sqlite'}"

    @property
    def broker_url(self) -> str:
        """Celery's broker; a folder in the state directory by default."""
        return self.queue.broker_url or "filesystem://"

    @property
    def models_directory(self) -> Path:
        """Folder with one model package per sub-folder."""
        return packaged_config() / "models" if self.models.directory == Path() else self.models.directory

    @property
    def pipelines_directory(self) -> Path:
        """Folder with one TOML per pipeline."""
        return packaged_config() / "pipelines" if self.pipelines.directory == Path() else self.pipelines.directory


def packaged_config() -> Path:
    """Return the folder `config`: in a checkout beside the packages, in a wheel inside `service`."""
    installed = Path(__file__).parent / "_config"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "config"


def load_settings(path: Path | None, environment: Mapping[str, str]) -> Settings:
    """Read the settings.

    Args:
        path: a TOML file whose values override the defaults; None for none.
        environment: `PELLUCID__SECTION__KEY` overrides both; values are TOML, or plain text.
            `PELLUCID__SECTION__KEY__FILE` names a file that holds the value as plain text: for secrets.

    Raises:
        SettingsError: names the file or variable, the key, and the nearest key that exists.
    """
    values = read_toml(path) if path else {}
    source = str(path) if path else "settings"
    for name, text in sorted(environment.items()):
        if name.startswith(PREFIX):
            source = f"{source} with environment variables" if "environment" not in source else source
            path_to = [_key(part) for part in name.removeprefix(PREFIX).split("__")]
            if path_to[-1] == "file" and len(path_to) > 2:  # noqa: PLR2004 -- section and key stand before it
                _insert(values, path_to[:-1], _secret(name, Path(text)))
            else:
                _insert(values, path_to, _value(text, is_text=is_text(Settings, path_to)))
    return validate(Settings, values, source=source)


def files_with_secrets(path: Path | None, environment: Mapping[str, str]) -> list[Path]:
    """Name the files that hold secrets: those that variables name, and the settings file if there is one in it."""
    named = [Path(text) for name, text in environment.items() if name.startswith(PREFIX) and name.endswith("__FILE")]
    return [*named, path] if path and _holds_secret(read_toml(path)) else named


def _holds_secret(values: dict[str, Any]) -> bool:
    return any(
        _holds_secret(value) if isinstance(value, dict) else _is_secret(key, value) for key, value in values.items()
    )


def _is_secret(key: str, value: Any) -> bool:
    # A URL without a user is none.
    return key in SECRETS and ("@" in str(value) if key.endswith("_url") else bool(value))


def _secret(name: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise SettingsError(f"{name}: the file {path} cannot be read") from None


def _key(part: str) -> str:
    return part.lower()


def _insert(values: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        inner = values.setdefault(part, {})
        if not isinstance(inner, dict):
            inner = values[part] = {}
        values = inner
    values[path[-1]] = value


def _value(text: str, *, is_text: bool) -> Any:
    """Read a value; a text may stand in quotes, and without them a password of digits stays what it is."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text
    return text if is_text and not isinstance(value, str) else value
