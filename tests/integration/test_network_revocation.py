"""Certificates that were revoked: whose authority says so is not served, whoever else is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from certificates import Authority, Pair

from dicom_nodes.client import verify
from service.errors import DestinationError
from service.tls import client_context
from tests.tls_station import House, dcmtk, destination, tls_station

if TYPE_CHECKING:
    from pathlib import Path


def test_a_revoked_certificate_is_refused_and_others_are_served(tmp_path: Path, authority: Authority) -> None:
    stolen, good = authority.issue("CT1"), authority.issue("CT2")
    crl = authority.revoke(stolen)
    with tls_station(tmp_path, authority, {}, known_only=False, crl=str(crl)) as house:
        assert dcmtk("echoscu", house, stolen) != 0
        assert dcmtk("echoscu", house, good) == 0
        assert house.turned_away("tls") == 1


def test_a_list_that_is_replaced_counts_from_the_next_connection_on(tmp_path: Path, authority: Authority) -> None:
    own = authority.issue("CT1")
    crl = authority.revoke()
    with tls_station(tmp_path, authority, {}, known_only=False, crl=str(crl)) as house:
        verify(destination(house, own))
        crl.write_text("half written", encoding="ascii")
        verify(destination(house, own))
        authority.revoke(own)
        with pytest.raises(DestinationError):
            verify(destination(house, own))


@pytest.mark.parametrize("fault", ["ended", "of another authority"])
def test_without_a_valid_list_nobody_of_that_issuer_is_accepted(
    tmp_path: Path, authority: Authority, fault: str
) -> None:
    other = Authority(tmp_path / "other", "Somebody else")
    crl = authority.revoke(days=-1) if fault == "ended" else other.revoke()
    with tls_station(tmp_path, authority, {}, known_only=False, crl=str(crl)) as house, pytest.raises(DestinationError):
        verify(destination(house, authority.issue("CT1")))


def test_a_server_whose_certificate_was_revoked_gets_nothing(house: House) -> None:
    crl = house.authority.revoke(
        Pair(certificate=house.authority.path.parent / "listener.pem", key=house.authority.path)
    )
    context = client_context(trusted=str(house.authority.path), crl=str(crl))
    with pytest.raises(DestinationError):
        verify(destination(house, house.authority.issue("CT1"), tls=context))
