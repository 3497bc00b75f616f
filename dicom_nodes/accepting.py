"""Opens a port and hands out its connections until told to stop."""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator

log = logging.getLogger(__name__)

_POLL_S = 0.5
_PAUSE_S = 0.05


def open_port(host: str, port: int, *, backlog: int) -> socket.socket:
    """Listen at an address; port 0 takes any that is free.

    Raises:
        OSError: the port cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.create_server((host, port), family=family, backlog=backlog)
    opened.settimeout(_POLL_S)
    return opened


def connections(opened: socket.socket, stopping: threading.Event) -> Iterator[tuple[socket.socket, str]]:
    """Yield each connection with the peer's address. What goes wrong with one is logged, and the next one comes."""
    while not stopping.is_set():
        try:
            connection, peer = opened.accept()
        except TimeoutError:
            continue
        except OSError as error:
            if stopping.is_set():
                return
            # Out of descriptors, or the peer was gone again: the next one may do better.
            log.warning("a connection could not be accepted: %s", error.strerror)
            stopping.wait(_PAUSE_S)
            continue
        yield connection, peer[0].removeprefix("::ffff:")
