from __future__ import annotations

import socket
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest

from dicom_nodes.peers import permitted
from dicom_nodes.ports import bind
from service.errors import SettingsError
from service.settings import load_settings
from service.spool import open_spool

if TYPE_CHECKING:
    from pathlib import Path


def test_no_network_admits_every_address() -> None:
    assert permitted("203.0.113.9", ())


@pytest.mark.parametrize(("address", "expected"), [("10.1.2.3", True), ("10.2.0.1", False), ("::1", False)])
def test_only_addresses_in_the_networks_are_permitted(address: str, expected: bool) -> None:
    assert permitted(address, (ip_network("10.1.0.0/16"),)) is expected


def test_a_port_that_is_taken_names_the_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        settings = load_settings(None, {"PELLUCID__LISTENER__PORT": str(port)})
        with pytest.raises(SettingsError, match=r"listener\.port"):
            bind(settings, None)


def test_the_spool_lies_in_the_state_directory(tmp_path: Path) -> None:
    settings = load_settings(None, {"PELLUCID__STATE__DIRECTORY": str(tmp_path)})
    assert open_spool(settings).root == tmp_path / "spool"
