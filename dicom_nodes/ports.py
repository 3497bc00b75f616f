"""The ports of the listener's process: DICOM, DICOM over TLS, DICOMweb."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from dicom_nodes.budgets import Limits
from dicom_nodes.peers import permitted
from dicom_nodes.server import Server
from dicom_nodes.stow import Door, StowService
from dicom_nodes.web_places import WebLimits
from dicom_nodes.web_server import WebServer
from service.errors import SettingsError
from service.tls import ServerContexts

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Collection

    from dicom_nodes.budgets import TurnedAway
    from dicom_nodes.reception import Store
    from dicom_nodes.requests import Service
    from service.settings import Settings

GRACE_S = 30.0


def bind_all(settings: Settings, service: Service, turned_away: TurnedAway) -> list[Server]:
    """Take the plain port, the one for TLS, or both.

    Raises:
        SettingsError: a port is taken, a certificate is unusable, or neither port is wanted.
    """
    servers = [bind(settings, service, turned_away=turned_away)] if settings.listener.plain else []
    chosen = settings.tls
    if chosen.port:
        tls = ServerContexts(certificate=chosen.certificate, key=chosen.key, trusted=chosen.trusted, crl=chosen.crl)
        servers.append(bind(settings, service, tls=tls.current, turned_away=turned_away))
    if not servers:
        raise SettingsError("listener.plain is false and tls.port is 0: set tls.port")
    return servers


def end_all(servers: Collection[Server | WebServer]) -> None:
    """Close the ports at once; open associations of all may finish."""
    threads = [threading.Thread(target=server.stop, kwargs={"grace_s": GRACE_S}) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def bind(
    settings: Settings,
    service: Service,
    *,
    tls: Callable[[], ssl.SSLContext] | None = None,
    turned_away: TurnedAway = lambda _address, _kind, _reason: None,
) -> Server:
    """Take one port.

    Raises:
        SettingsError: somebody else has it, or the address is not ours.
    """
    chosen = settings.listener
    port = settings.tls.port if tls else chosen.port
    try:
        return Server(
            service,
            host=chosen.host,
            port=port,
            limits=Limits(
                associations=chosen.maximum_associations,
                associations_per_address=chosen.maximum_associations_per_address,
                pdu_bytes=chosen.maximum_pdu_bytes,
                association_timeout_s=chosen.association_timeout_s,
                network_timeout_s=chosen.network_timeout_s,
                pdu_timeout_s=chosen.pdu_timeout_s,
                minimum_bytes_per_s=chosen.minimum_bytes_per_s,
            ),
            allows=lambda address: permitted(address, chosen.networks()),
            tls=tls,
            turned_away=turned_away,
        )
    except OSError as error:
        name = "tls.port" if tls else "listener.port"
        raise SettingsError(f"listener.host, {name}: cannot listen at {chosen.host}:{port}: {error.strerror}") from None


def bind_web(settings: Settings, store: Store, titles: Collection[str], turned_away: TurnedAway) -> WebServer:
    """Take the port of DICOMweb.

    Raises:
        SettingsError: somebody else has it, or the address is not ours.
    """
    chosen = settings.dicomweb
    door = Door(
        called={settings.listener.ae_title, *titles},
        default_called=settings.listener.ae_title,
        calling=chosen.calling_ae_title,
        token=chosen.token,
        maximum_bytes=chosen.maximum_request_mb << 20,
    )
    try:
        return WebServer(
            StowService(store, door, turned_away),
            host=chosen.host,
            port=chosen.port,
            limits=WebLimits(
                connections=chosen.maximum_connections,
                connections_per_address=chosen.connections_each,
                minimum_bytes_per_s=chosen.minimum_bytes_per_s,
                slow_timeout_s=chosen.slow_timeout_s,
            ),
            allows=lambda address: permitted(address, settings.listener.networks()),
            turned_away=turned_away,
        )
    except OSError as error:
        place = f"{chosen.host}:{chosen.port}"
        raise SettingsError(f"dicomweb.host, dicomweb.port: cannot listen at {place}: {error.strerror}") from None
