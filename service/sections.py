"""The sections of the settings. `config/default.toml` explains each key."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, Field, model_validator

from service.validation import Strict

if TYPE_CHECKING:
    from datetime import datetime


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


class Spool(Strict):
    """Where instances and results lie: in the state folder, or in an S3-compatible store."""

    url: str = ""
    endpoint_url: str = ""
    region: str = ""
    access_key_id: str = ""
    secret_access_key: str = Field(default="", repr=False)
    trusted: str = ""
    timeout_s: Seconds = 8.0

    @model_validator(mode="after")
    def _is_whole(self) -> Spool:
        if self.url and not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[\w.-]+)*/?", self.url):
            raise ValueError("url is written like s3://bucket or s3://bucket/prefix; empty keeps everything here")
        if self.endpoint_url and not self.endpoint_url.startswith(("http://", "https://")):
            raise ValueError("endpoint_url begins with https:// (or http:// on a network that nobody else can read)")
        if bool(self.access_key_id) != bool(self.secret_access_key):
            raise ValueError("give access_key_id and secret_access_key, or neither")
        if not self.url and (self.endpoint_url or self.region or self.access_key_id or self.trusted):
            raise ValueError("url is missing: without it nothing goes to an S3-compatible store")
        return self


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
    standby: bool = True
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
    maximum_connections_per_address: int = Field(default=0, ge=0)
    minimum_bytes_per_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 4096.0
    slow_timeout_s: Seconds = 60.0
    maximum_request_mb: int = Field(default=8192, ge=1)

    @property
    def connections_each(self) -> int:
        """Of one address: what is set, else half of all."""
        return self.maximum_connections_per_address or max(1, self.maximum_connections // 2)

    @model_validator(mode="after")
    def _leaves_room(self) -> DicomWeb:
        each, together = self.maximum_connections_per_address, self.maximum_connections
        if each > together:
            raise ValueError(
                f"maximum_connections_per_address ({each}) is more than maximum_connections ({together}): "
                "set it below, or equal where all come through one proxy"
            )
        return self


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
