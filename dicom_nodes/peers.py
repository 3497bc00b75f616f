"""Who may associate: a peer is its AE title, its address and, over TLS, its certificate."""

from __future__ import annotations

import threading
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

from dicom_nodes.requests import Rejection

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from ipaddress import IPv4Network, IPv6Network

    from dicom_nodes.requests import Peer
    from service import sections

NOT_KNOWN = Rejection(result=1, source=1, diagnostic=3, reason="the calling AE title is in no [peers] section")
NOT_ITSELF = Rejection(
    result=1, source=1, diagnostic=3, reason="the calling AE title is known, but with another address or certificate"
)
TOO_MANY = Rejection(result=2, source=3, diagnostic=2, reason="too many associations of this peer")


class Peers:
    """The sections of `[peers]`, as far as they say who connects to us, with the associations each has open."""

    def __init__(self, known: Mapping[str, sections.Peer], *, known_only: bool) -> None:
        """Take the sections; `known_only` refuses every AE title that is in none."""
        self._known = dict(known)
        self._known_only = known_only
        self._lock = threading.Lock()
        self._open: dict[str, str] = {}

    def admit(self, peer: Peer) -> Rejection | None:
        """Compare title, address and certificate, and count the association."""
        titled = {name: entry for name, entry in self._known.items() if entry.ae_title == peer.calling_ae}
        if not titled:
            return NOT_KNOWN if self._known_only else None
        fitting = {name: entry for name, entry in titled.items() if self._fits(entry, peer)}
        if not fitting:
            return NOT_ITSELF
        with self._lock:
            for name, entry in fitting.items():
                count = sum(other == name for other in self._open.values())
                if not entry.maximum_associations or count < entry.maximum_associations:
                    self._open[peer.association] = name
                    return None
        return TOO_MANY

    def ended(self, association: str) -> None:
        """Forget an association."""
        with self._lock:
            self._open.pop(association, None)

    def _fits(self, entry: sections.Peer, peer: Peer) -> bool:
        if entry.certificate and not (peer.identity and peer.identity.matches(entry.certificate)):
            return False
        if entry.addresses:
            networks = [ip_network(address, strict=False) for address in entry.addresses]
            return permitted(peer.address, networks)
        # Names are not looked up here: a slow name server must not hold associations up.
        return not (self._known_only and is_address(entry.host)) or permitted(peer.address, [ip_network(entry.host)])


def permitted(address: str, networks: Collection[IPv4Network | IPv6Network]) -> bool:
    """Tell whether an address is in one of the networks; no network admits all."""
    return not networks or any(ip_address(address) in network for network in networks)


def is_address(host: str) -> bool:
    """Tell an IP address from a name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
