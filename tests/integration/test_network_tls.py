"""DICOM over TLS, with certificates made here and dcmtk's programs as peers."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest
from certificates import Authority
from network import cr_image, write_image
from require import require_tool

from dicom_nodes.client import send, verify
from dicom_nodes.outgoing import SendFile
from dicom_nodes.requestor import Destination
from dicom_nodes.status import Verdict
from service.errors import DestinationError
from service.sections import Peer
from service.tls import client_context
from tests.archives import listens, running
from tests.tls_station import HANDSHAKE_S, House, dcmtk, destination, tls_station
from workers.sandbox import free_port, wait_until

if TYPE_CHECKING:
    from pathlib import Path


def test_dcmtk_verifies_and_stores_over_tls(house: House, tmp_path: Path) -> None:
    own = house.authority.issue("CT1")
    film = write_image(tmp_path / "film.dcm", cr_image(rows=512))
    assert dcmtk("echoscu", house, own) == 0
    assert dcmtk("storescu", house, own, str(film)) == 0
    assert house.stored() == 1


def test_our_own_sender_stores_the_same_bytes_over_tls(house: House, tmp_path: Path) -> None:
    image = cr_image(rows=2000)
    film = write_image(tmp_path / "film.dcm", image)
    file = SendFile(
        path=film,
        sop_class_uid=image.SOPClassUID,
        sop_instance_uid=image.SOPInstanceUID,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
    )
    (outcome,) = send([file], destination(house, house.authority.issue("CT1")))
    assert outcome.verdict is Verdict.DELIVERED
    (kept,) = house.spool.root.rglob("*.dcm")
    assert kept.read_bytes()[-64000:] == film.read_bytes()[-64000:]


def test_a_peer_that_takes_no_more_over_tls_is_given_up(tmp_path: Path, authority: Authority) -> None:
    film, image = tmp_path / "film.dcm", cr_image(rows=12_000, Columns=1_000, PixelData=bytes(24_000_000))
    write_image(film, image)
    file = SendFile(
        path=film,
        sop_class_uid=image.SOPClassUID,
        sop_instance_uid=image.SOPInstanceUID,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
    )
    pair, port = authority.issue("localhost"), free_port()
    command = [require_tool("storescp"), "+tls", str(pair.key), str(pair.certificate), "-ic", "--sleep-during", "30"]
    to = Destination(
        host="127.0.0.1",
        port=port,
        called="PACS",
        calling="CT1",
        timeout_s=2.0,
        tls=client_context(trusted=str(authority.path)),
    )
    received = tmp_path / "received"
    received.mkdir()
    with running([*command, "-od", str(received), str(port)], received, lambda: listens(port)):
        begun = time.monotonic()
        (outcome,) = send([file], to)
        assert time.monotonic() - begun < 15
    assert outcome.verdict is Verdict.RETRY, outcome


def test_many_at_once_are_served(house: House) -> None:
    own = house.authority.issue("CT1")
    failures: list[BaseException] = []

    def once() -> None:
        try:
            verify(destination(house, own))
        except DestinationError as error:
            failures.append(error)

    threads = [threading.Thread(target=once) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert failures == []


@pytest.mark.parametrize("fault", ["no certificate", "expired", "not valid yet", "another authority"])
def test_a_peer_without_a_valid_certificate_stores_nothing_and_others_are_served(
    house: House, tmp_path: Path, fault: str
) -> None:
    stranger = Authority(tmp_path / "other", "Somebody else")
    own = {
        "no certificate": None,
        "expired": house.authority.issue("CT1", begins=-10, days=-1),
        "not valid yet": house.authority.issue("CT1", begins=1),
        "another authority": stranger.issue("CT1"),
    }[fault]
    film = write_image(tmp_path / "film.dcm")
    assert dcmtk("storescu", house, own, str(film)) != 0
    with pytest.raises(DestinationError):
        verify(destination(house, own))
    assert house.stored() == 0
    # The peer hears of it first; it is written down in the connection's own time.
    wait_until(lambda: house.turned_away("tls") >= 1 and house.alerts() >= 1, timeout_s=30, what="nobody was alarmed")
    verify(destination(house, house.authority.issue("CT2")))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_old_versions_of_tls_are_refused(house: House, version: ssl.TLSVersion) -> None:
    own = house.authority.issue("CT1", weak=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, version
    context.load_verify_locations(house.authority.path)
    context.load_cert_chain(own.certificate, own.key)
    with socket.create_connection(("127.0.0.1", house.port), timeout=20) as plain, pytest.raises(OSError, match=r"."):
        context.wrap_socket(plain, server_hostname="127.0.0.1").close()
    verify(destination(house, own))


def test_suites_without_aead_or_forward_secrecy_are_refused(house: House) -> None:
    own = house.authority.issue("CT1", weak=True)
    for suite in ("AES256-SHA256", "AES256-GCM-SHA384", "ECDHE-ECDSA-AES256-SHA384"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(f"{suite}:@SECLEVEL=0")
        context.load_verify_locations(house.authority.path)
        context.load_cert_chain(own.certificate, own.key)
        with socket.create_connection(("127.0.0.1", house.port), timeout=20) as plain, pytest.raises(ssl.SSLError):
            context.wrap_socket(plain, server_hostname="127.0.0.1").close()


def test_silent_and_half_spoken_connections_block_nobody_and_are_closed(house: House) -> None:
    own = house.authority.issue("CT1")
    silent = [socket.create_connection(("127.0.0.1", house.port)) for _ in range(20)]
    silent[0].sendall(b"\x16\x03\x01\x02\x00\x01")
    silent[1].sendall(b"GET / HTTP/1.1\r\n\r\n")
    try:
        begun = time.monotonic()
        verify(destination(house, own))
        assert time.monotonic() - begun < HANDSHAKE_S
        for connection in silent:
            connection.settimeout(30.0)
            while connection.recv(4096):
                pass
    except ConnectionResetError:
        pass
    finally:
        for connection in silent:
            connection.close()
    verify(destination(house, own))


def test_a_plain_peer_on_the_tls_port_is_turned_away(house: House) -> None:
    with pytest.raises(DestinationError):
        verify(destination(house, tls=None, timeout_s=10.0))
    assert house.turned_away("tls") >= 1


def test_a_peer_is_its_title_address_and_certificate(tmp_path: Path, authority: Authority) -> None:
    ct1, ct2 = authority.issue("CT1"), authority.issue("CT2")
    known = {
        "ct1": Peer(ae_title="CT1", host="ct1", port=104, certificate=ct1.fingerprint, addresses=("127.0.0.0/8",)),
        "by-subject": Peer(ae_title="CT2", host="ct2", port=104, certificate="CN=CT2"),
        "elsewhere": Peer(ae_title="CT3", host="ct3", port=104, addresses=("10.9.9.9",)),
        "at-its-host": Peer(ae_title="CT4", host="10.9.9.9", port=104),
    }
    with tls_station(tmp_path, authority, known, known_only=True) as house:
        verify(destination(house, ct1, calling="CT1"))
        verify(destination(house, ct2, calling="CT2"))
        for own, calling in ((ct2, "CT1"), (ct1, "CT2"), (ct1, "CT3"), (ct1, "CT4"), (ct1, "CT5")):
            with pytest.raises(DestinationError, match="rejected"):
                verify(destination(house, own, calling=calling))
        assert house.turned_away("calling-ae") == 5


def test_a_peer_has_a_budget_of_its_own(tmp_path: Path, authority: Authority) -> None:
    own = authority.issue("CT1")
    known = {"ct1": Peer(ae_title="CT1", host="ct1", port=104, maximum_associations=1)}
    with tls_station(tmp_path, authority, known, known_only=False) as house:
        images = [cr_image(f"1.2.3.{number}") for number in range(2)]
        files = [
            SendFile(
                path=write_image(tmp_path / f"{number}.dcm", image),
                sop_class_uid=image.SOPClassUID,
                sop_instance_uid=image.SOPInstanceUID,
                transfer_syntax_uid="1.2.840.10008.1.2.1",
            )
            for number, image in enumerate(images)
        ]
        outcomes = send(files, destination(house, own))
        next(outcomes)
        with pytest.raises(DestinationError, match="Local limit exceeded"):
            verify(destination(house, own))
        verify(destination(house, own, calling="CT2"))
        assert [outcome.verdict for outcome in outcomes] == [Verdict.DELIVERED]
        # Its place was free before it heard that the association ended.
        verify(destination(house, own))
        assert house.alerts() == 0


def test_a_destination_with_another_certificate_gets_nothing(house: House) -> None:
    own = house.authority.issue("CT1")
    with pytest.raises(DestinationError, match="another certificate"):
        verify(destination(house, own, certificate="0" * 64))
    verify(destination(house, own, certificate="CN=listener"))


def test_what_arrived_is_audited_when_its_association_ends(house: House, tmp_path: Path) -> None:
    film = write_image(tmp_path / "film.dcm")
    assert dcmtk("storescu", house, house.authority.issue("CT1"), str(film)) == 0
    for _ in range(200):
        kinds = [record.kind for record, _ in house.audit.records()]
        if kinds == ["receiving", "received"]:
            break
        time.sleep(0.05)
    assert kinds == ["receiving", "received"]
    text = b"".join(path.read_bytes() for path in house.audit.segments())
    assert b"1.2.3" in text
    assert b"Mustermann" not in text


def test_a_client_that_asks_to_negotiate_anew_is_cut_off(house: House) -> None:
    own = house.authority.issue("CT1")
    place = ["-connect", f"127.0.0.1:{house.port}", "-tls1_2", "-cert", str(own.certificate), "-key", str(own.key)]
    done = subprocess.run(
        [require_tool("openssl"), "s_client", *place, "-CAfile", str(house.authority.path)],
        input=b"R\nR\n",
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert b"RENEGOTIATING" in done.stdout + done.stderr
    assert b"no renegotiation" in (done.stdout + done.stderr).lower()
    verify(destination(house, own))
