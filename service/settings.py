"""The only reader of settings: defaults, then a TOML file, then `PELLUCID__SECTION__KEY`."""

from __future__ import annotations

import tomllib
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, Field, model_validator

from service.errors import SettingsError
from service.validation import Strict, read_toml, validate

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

PREFIX = "PELLUCID__"


def ae_title(value: str) -> str:
    """Check an AE title by PS3.5 section 6.2: 1 to 16 printable ASCII characters, no backslash."""
    if not 1 <= len(value.strip()) <= 16 or "\\" in value or not (value.isascii() and value.isprintable()):  # noqa: PLR2004
        raise ValueError("an AE title has 1 to 16 printable ASCII characters and no backslash")
    return value.strip()


def _network(value: str) -> str:
    ip_network(value, strict=False)
    return value


def _time_zone(value: str) -> str:
    if value and value not in available_timezones():
        raise ValueError(f"there is no time zone '{value}'; it is written like Europe/Berlin")
    return value


AeTitle = Annotated[str, AfterValidator(ae_title)]
Network = Annotated[str, AfterValidator(_network)]
TimeZone = Annotated[str, AfterValidator(_time_zone)]
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0)]


class State(Strict):
    """Where everything that must survive is kept."""

    directory: Path = Path("pellucid-data")


class Listener(Strict):
    """How the C-STORE and C-ECHO service answers."""

    ae_title: AeTitle = "PELLUCID"
    host: str = "127.0.0.1"
    port: Port = 11112
    plain: bool = True
    calling_ae_titles: tuple[AeTitle, ...] = ()
    addresses: tuple[Network, ...] = ()
    known_peers_only: bool = False
    maximum_associations: int = Field(default=50, ge=1)
    maximum_associations_per_address: int = Field(default=20, ge=1)
    maximum_pdu_bytes: int = Field(default=1 << 20, ge=4096, le=1 << 20)
    association_timeout_s: Seconds = 10.0
    network_timeout_s: Seconds = 30.0
    pdu_timeout_s: Seconds = 10.0
    minimum_bytes_per_s: Annotated[float, Field(gt=0)] = 1024.0
    minimum_free_mb: int = Field(default=1024, ge=0)
    maximum_instance_mb: int = Field(default=4096, ge=1)

    def networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """Return `addresses`, parsed."""
        return tuple(ip_network(address, strict=False) for address in self.addresses)


class Tls(Strict):
    """DICOM over TLS, for the listener's second port and for peers that are sent to over TLS."""

    port: Port = 0
    certificate: str = ""
    key: str = ""
    trusted: str = ""
    crl: str = ""


class Intake(Strict):
    """When a study counts as complete."""

    quiet_period_s: Seconds = 10.0
    interval_s: Seconds = 0.25
    sweep_interval_s: Seconds = 5.0


class Ledger(Strict):
    """The database of jobs and deliveries."""

    database_url: str = ""


class Queue(Strict):
    """The broker that wakes workers."""

    broker_url: str = ""
    polling_interval_s: Seconds = 0.05


class Worker(Strict):
    """How studies are analysed."""

    device: str = "auto"
    threads: int = Field(default=0, ge=0)
    time_zone: TimeZone = ""
    lease_s: Seconds = 30.0
    task_time_limit_s: Seconds = 300.0
    maximum_attempts: int = Field(default=3, ge=1)

    def local(self, moment: datetime) -> datetime:
        """Return a time in the zone that results are dated in."""
        return moment.astimezone(ZoneInfo(self.time_zone) if self.time_zone else None)


class Sender(Strict):
    """How results reach the PACS."""

    ae_title: AeTitle = "PELLUCID"
    poll_interval_s: Seconds = 0.1
    first_retry_s: Seconds = 2.0
    longest_retry_s: Seconds = 300.0
    timeout_s: Seconds = 30.0
    confirm_timeout_s: Seconds = 60.0
    lease_s: Seconds = 60.0


class Peer(Strict):
    """An application entity that results can be sent to."""

    ae_title: AeTitle
    host: str = ""
    port: Port = 0
    url: str = ""
    token: str = Field(default="", repr=False)
    user: str = ""
    password: str = Field(default="", repr=False)
    trusted: str = ""
    confirm: Literal["none", "commitment", "query", "retrieve"] = "none"
    retrieve: Literal["get", "move"] = "move"
    outputs: tuple[str, ...] = ()
    tls: bool = False
    certificate: str = ""
    addresses: tuple[Network, ...] = ()
    maximum_associations: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _has_a_place(self) -> Peer:
        if self.url:
            if self.host or self.port:
                raise ValueError("give either url (DICOMweb) or host and port (DIMSE), not both")
            if not self.url.startswith(("http://", "https://")):
                raise ValueError("url begins with https:// (or http:// on a network that nobody else can read)")
            if self.confirm == "commitment":
                raise ValueError("confirm: DICOMweb has no storage commitment here; take 'query' or 'retrieve'")
        elif not self.host or not self.port:
            raise ValueError("give host and port (DIMSE), or url (DICOMweb)")
        return self


class Audit(Strict):
    """Who hears of what happened."""

    source_id: str = ""
    syslog_host: str = ""
    syslog_port: Port = 6514
    syslog_trusted: str = ""
    syslog_certificate: str = ""
    syslog_key: str = ""


class Retention(Strict):
    """How long things are kept, in days; 0 keeps them for ever."""

    instances_days: float = Field(default=0.0, ge=0)
    results_days: float = Field(default=0.0, ge=0)
    audit_days: float = Field(default=0.0, ge=0)
    automatic: bool = False
    interval_h: float = Field(default=24.0, gt=0)


class DicomWeb(Strict):
    """The way in by STOW-RS, next to C-STORE."""

    port: Port = 0
    host: str = "127.0.0.1"
    calling_ae_title: AeTitle = "STOW"
    token: str = Field(default="", repr=False)
    maximum_connections: int = Field(default=20, ge=1)
    maximum_request_mb: int = Field(default=8192, ge=1)


class Http(Strict):
    """Health and metrics of each process."""

    host: str = "127.0.0.1"
    listener_port: Port = 0
    worker_port: Port = 0
    sender_port: Port = 0


class Tracing(Strict):
    """Where traces of studies are sent."""

    endpoint: str = ""
    share: float = Field(default=1.0, ge=0, le=1)


class Log(Strict):
    """How processes write what they do."""

    format: Literal["text", "json"] = "text"


class Models(Strict):
    """Where model packages lie."""

    directory: Path = Path()


class Pipelines(Strict):
    """Which pipelines run."""

    directory: Path = Path()
    enabled: tuple[str, ...] = ("chest-xray-pneumonia",)


class Settings(Strict):
    """Every setting, validated. `config/default.toml` explains each."""

    state: State = State()
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
                _insert(values, path_to, _value(text))
    return validate(Settings, values, source=source)


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


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
