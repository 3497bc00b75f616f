"""What `pellucid doctor` says of the doors: who can get in, who can read the files, and when certificates end."""

from __future__ import annotations

import socket
import stat
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_nodes.peers import is_address
from service.audit.chain import read_place
from service.audit.trail import open_log
from service.tls import client_context, expiries, revocation_ends, server_context

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from service.settings import Settings

_SOON = timedelta(days=30)
_VERY_SOON = timedelta(days=2)
"""Revocation lists are made anew every day or week."""
_MANY_RECORDS = 1000


class State(StrEnum):
    """How something stands."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """One thing that was looked at."""

    name: str
    state: State
    found: str
    advice: str = ""


def listener(settings: Settings) -> Iterator[Diagnosis]:
    """Who can associate, and who can reach the ports beside."""
    yield _associating(settings)
    if settings.listener.known_peers_only:
        yield from _loose_peers(settings)
    yield from _stow(settings)
    yield from _monitoring(settings)


def _associating(settings: Settings) -> Diagnosis:
    chosen = settings.listener
    ports = [str(chosen.port)] if chosen.plain else []
    ports += [f"{settings.tls.port} (TLS)"] if settings.tls.port else []
    place = f"{chosen.host}, port {' and '.join(ports) or 'none'}"
    restricted = chosen.addresses or chosen.calling_ae_titles or chosen.known_peers_only
    if not ports:
        found, advice = "no port is open: listener.plain is false and tls.port is 0", "set tls.port"
        return Diagnosis(name="listener", state=State.PROBLEM, found=found, advice=advice)
    if chosen.plain and not _is_loopback(chosen.host) and not restricted:
        return Diagnosis(
            name="listener",
            state=State.WARNING,
            found=f"{place} is open to everybody on the network",
            advice="set listener.addresses, or known_peers_only with [peers]; better, [tls] and listener.plain = false",
        )
    return Diagnosis(name="listener", state=State.OK, found=f"{place} as {chosen.ae_title}")


def _stow(settings: Settings) -> Iterator[Diagnosis]:
    web = settings.dicomweb
    if web.port and not _is_loopback(web.host):
        yield Diagnosis(
            name="dicomweb",
            state=State.WARNING,
            found=f"STOW-RS at {web.host}:{web.port} speaks no TLS" + ("" if web.token else " and asks for no token"),
            advice="set dicomweb.host to 127.0.0.1 behind a reverse proxy with TLS, and dicomweb.token",
        )


def _monitoring(settings: Settings) -> Iterator[Diagnosis]:
    http = settings.http
    if not _is_loopback(http.host) and any((http.listener_port, http.worker_port, http.sender_port)):
        yield Diagnosis(
            name="http",
            state=State.WARNING,
            found=f"health and metrics are open at {http.host}; there is no password",
            advice="set http.host to 127.0.0.1, or let a firewall or NetworkPolicy admit the monitoring alone",
        )


def ports_taken(settings: Settings) -> Iterator[Diagnosis]:
    """Whether the listener could open its ports; ask only while it does not run."""
    chosen, tls, web = settings.listener, settings.tls, settings.dicomweb
    wanted = {
        "listener.port": (chosen.host, chosen.port if chosen.plain else 0),
        "tls.port": (chosen.host, tls.port),
        "dicomweb.port": (web.host, web.port),
    }
    for setting, (host, port) in wanted.items():
        reason = _why_not_open(host, port) if port else ""
        if reason:
            yield Diagnosis(
                name="port",
                state=State.PROBLEM,
                found=f"{host}:{port} cannot be opened: {reason}",
                advice=f"end the program that holds it, or change {setting} or its host",
            )


def _why_not_open(host: str, port: int) -> str:
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            # As the listener does it: a connection that has just been closed holds no port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as error:
        return error.strerror or type(error).__name__
    return ""


def _loose_peers(settings: Settings) -> Iterator[Diagnosis]:
    for name, peer in settings.peers.items():
        if not (peer.addresses or peer.certificate or is_address(peer.host)):
            yield Diagnosis(
                name=f"peer {name}",
                state=State.WARNING,
                found=f"whoever calls itself {peer.ae_title} is admitted from any address",
                advice=f"set peers.{name}.addresses or peers.{name}.certificate",
            )


def files(settings: Settings) -> Iterator[Diagnosis]:
    """Who can read the state folder and the keys."""
    folder = settings.state.directory.absolute()
    keys = [Path(key) for key in (settings.tls.key, settings.audit.syslog_key) if key]
    found = False
    for path in (folder, *keys):
        if (path.is_dir() if path == folder else path.exists()) and stat.S_IMODE(path.stat().st_mode) & 0o077:
            found = True
            yield Diagnosis(
                name="files",
                state=State.WARNING,
                found=f"others than its owner may read {path}",
                advice=f"chmod go= {path}",
            )
    if not found:
        yield Diagnosis(name="files", state=State.OK, found="state folder and keys are for their owner alone")


def secrets(paths: Iterable[Path]) -> Iterator[Diagnosis]:
    """Whether everybody on this machine can read, or change, files that hold secrets."""
    for path in paths:
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o006:
            yield Diagnosis(
                name="files",
                state=State.WARNING,
                found=f"everybody on this machine may read the secrets in {path}",
                advice=f"chmod o= {path}",
            )


def certificates(settings: Settings) -> Iterator[Diagnosis]:
    """Whether TLS can be spoken, and for how long."""
    tls, audited = settings.tls, settings.audit
    if tls.port:
        server_context(certificate=tls.certificate, key=tls.key, trusted=tls.trusted, crl=tls.crl)
    if audited.syslog_host:
        client_context(trusted=audited.syslog_trusted, certificate=audited.syslog_certificate, key=audited.syslog_key)
    paths = [tls.certificate, tls.trusted, audited.syslog_trusted, audited.syslog_certificate]
    for path, name, end in expiries(path for path in dict.fromkeys(paths) if path):
        late = "replace it: nobody will accept it"
        yield _ending(f"certificate {Path(path).name}", f"{name or path} is valid", end, within=_SOON, late=late)
    for issuer, end in revocation_ends(tls.crl) if tls.crl else ():
        late = f"replace it: no certificate of {issuer} is accepted"
        yield _ending("revocation list", f"that of {issuer} holds", end, within=_VERY_SOON, late=late)


def _ending(name: str, what: str, end: datetime, *, within: timedelta, late: str) -> Diagnosis:
    left = end - datetime.now(UTC)
    if left <= timedelta():
        state, advice = State.PROBLEM, late
    elif left < within:
        state, advice = State.WARNING, "replace it in time"
    else:
        state, advice = State.OK, ""
    return Diagnosis(name=name, state=state, found=f"{what} until {end:%Y-%m-%d}", advice=advice)


def audit(settings: Settings) -> Iterator[Diagnosis]:
    """Whether the collector gets the audit records."""
    log = open_log(settings)
    head = log.head()
    count = head.number if head else 0
    if not settings.audit.syslog_host:
        yield Diagnosis(name="audit", state=State.OK, found=f"{count} records, kept here alone")
        return
    sent = read_place(log.folder / "forwarded")
    waiting = count - (sent.number if sent else 0)
    place = f"{settings.audit.syslog_host}:{settings.audit.syslog_port}"
    yield Diagnosis(
        name="audit",
        state=State.WARNING if waiting > _MANY_RECORDS else State.OK,
        found=f"{count} records, {waiting} not yet forwarded to {place}",
        advice="check that the sender runs and the collector answers" if waiting > _MANY_RECORDS else "",
    )


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (is_address(host) and ip_address(host).is_loopback)
