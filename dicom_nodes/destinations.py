"""Where `[peers]` say that results go and studies come from."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from dicom_nodes.requestor import Destination
from dicom_nodes.web_client import WebDestination
from service.errors import SettingsError
from service.tls import client_context

if TYPE_CHECKING:
    from service.sections import Peer
    from service.settings import Settings


class UnknownDestinationError(Exception):
    """The settings do not say where a destination is."""


def find_peer(settings: Settings, name: str) -> Peer:
    """Look a destination up in `[peers]`: `@AE` by AE title, else by name.

    Raises:
        UnknownDestinationError: no section fits, or several that differ; the message says what to do.
    """
    if name.startswith("@"):
        titled = [entry for entry in settings.peers.values() if entry.ae_title == name[1:]]
        if len({(entry.host, entry.port, entry.url) for entry in titled}) > 1:
            # One of them did not send the study: a guess may carry a patient's results to another house.
            raise UnknownDestinationError(
                f"{len(titled)} [peers] sections have AE title {name[1:]}: name one in the pipeline's destinations"
            )
        peer = next(iter(titled), None)
        missing = f"no [peers] section has AE title {name[1:]}: add one"
    else:
        peer = settings.peers.get(name)
        missing = f"there is no section [peers.{name}]: add one"
    if peer is None:
        raise UnknownDestinationError(missing)
    return peer


def find_destination(settings: Settings, name: str) -> Destination | WebDestination:
    """Look up how to speak with a destination; see `find_peer`."""
    return destination_of(settings, find_peer(settings, name))


def destination_of(settings: Settings, peer: Peer) -> Destination | WebDestination:
    """Return how to speak with a peer.

    Raises:
        UnknownDestinationError: its certificates cannot be used.
    """
    if peer.url:
        return WebDestination(
            url=peer.url.rstrip("/"),
            token=peer.token,
            user=peer.user,
            password=peer.password,
            tls=_web_context(peer),
            timeout_s=settings.sender.timeout_s,
        )
    return Destination(
        host=peer.host,
        port=peer.port,
        called=peer.ae_title,
        calling=settings.sender.ae_title,
        timeout_s=settings.sender.timeout_s,
        tls=_context(settings, peer) if peer.tls else None,
        certificate=peer.certificate if peer.tls else "",
    )


def _context(settings: Settings, peer: Peer) -> ssl.SSLContext:
    chosen = settings.tls
    try:
        return client_context(
            trusted=chosen.trusted,
            certificate=chosen.certificate,
            key=chosen.key,
            crl=chosen.crl,
            # A certificate that is known by itself needs no name in it; hospitals' devices often have none.
            check_name=not peer.certificate,
        )
    except SettingsError as error:
        raise UnknownDestinationError(str(error)) from None


def _web_context(peer: Peer) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=peer.trusted or None)
    except OSError as error:
        raise UnknownDestinationError(f"peers.*.trusted: {peer.trusted} cannot be used: {error.strerror}") from None
