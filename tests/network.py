"""Files to send, and a listener to send them to, for tests of the network."""

from __future__ import annotations

import socket
import struct
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from dicom_nodes.budgets import Limits
from dicom_nodes.client import echo
from dicom_nodes.contexts import VERIFICATION
from dicom_nodes.listener import StorageService
from dicom_nodes.reception import Store
from dicom_nodes.server import Server
from service.ledger.arrivals import Arrivals
from service.ledger.database import open_database
from service.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

CR = "1.2.840.10008.5.1.4.1.1.1"
AE = "PELLUCID"


@dataclass(kw_only=True)
class Station:
    """A listener's server over a spool and a ledger of its own."""

    server: Server
    arrivals: Arrivals
    spool: Spool
    woken: list[bool] = field(default_factory=list)

    @property
    def port(self) -> int:
        return self.server.port

    def files(self) -> list[Path]:
        """Everything in the spool, half-received or kept."""
        return [path for path in self.spool.root.rglob("*") if path.is_file()]


@contextmanager
def station(
    folder: Path,
    *,
    limits: Limits | None = None,
    called: Collection[str] = (AE,),
    calling: Collection[str] = (),
    reports_to: Collection[str] = (),
    allows: Callable[[str], bool] = lambda _address: True,
    minimum_free_bytes: int = 0,
    spool_root: Path | None = None,
    spool: Spool | None = None,
) -> Iterator[Station]:
    """Run a listener's server on a free loopback port."""
    engine = open_database(f"sqlite:///{folder / 'ledger.sqlite'}")
    spool = spool or Spool(spool_root or folder / "spool", minimum_free_bytes=minimum_free_bytes)
    spool.prepare()
    arrivals = Arrivals(engine)
    woken: list[bool] = []
    store = Store(spool=spool, arrivals=arrivals, stored=lambda: woken.append(True))
    server = Server(
        StorageService(store, called=called, calling=calling, reports_to=reports_to),
        host="127.0.0.1",
        port=0,
        limits=limits or Limits(association_timeout_s=2.0, network_timeout_s=4.0),
        allows=allows,
    )
    server.start()
    try:
        yield Station(server=server, arrivals=arrivals, spool=spool, woken=woken)
    finally:
        server.stop(grace_s=1.0)
        engine.dispose()


def cr_image(sop: str = "1.2.3.4", *, study: str = "1.2.3", rows: int = 16, **changes: str) -> Dataset:
    """Make a small CR image."""
    dataset = Dataset()
    dataset.SOPClassUID = CR
    dataset.SOPInstanceUID = sop
    dataset.Modality = "CR"
    dataset.Manufacturer = "Somebody"
    dataset.PatientID = "1"
    dataset.PatientName = "Mustermann^Erika"
    dataset.StudyInstanceUID = study
    dataset.SeriesInstanceUID = f"{study}.1"
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = rows, 16
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelData = bytes(2 * 16 * rows)
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    return dataset


def write_image(path: Path, dataset: Dataset | None = None, syntax: str = ExplicitVRLittleEndian) -> Path:
    """Write a data set as a Part 10 file."""
    dataset = dataset or cr_image()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path, enforce_file_format=True)
    return path


def command_set(elements: dict[int, bytes]) -> bytes:
    """Encode a command set (PS3.7 section 6.3.1)."""
    body = b"".join(struct.pack("<HHI", 0, element, len(value)) + value for element, value in sorted(elements.items()))
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def store_request(sop_instance: bytes, sop_class: bytes = CR.encode(), *, data_set: bool = True) -> bytes:
    """Encode a C-STORE request with whatever UIDs."""
    even = [uid + b"\x00" * (len(uid) % 2) for uid in (sop_class, sop_instance)]
    return command_set(
        {
            0x0002: even[0],
            0x0100: struct.pack("<H", 0x0001),
            0x0110: struct.pack("<H", 1),
            0x0700: struct.pack("<H", 2),
            0x0800: struct.pack("<H", 0 if data_set else 0x0101),
            0x1000: even[1],
        }
    )


def association_request(sop_class: str = CR, *, called: str = AE, calling: str = "TEST") -> bytes:
    """Encode an A-ASSOCIATE-RQ with one context, identifier 1 (PS3.8 section 9.3.2)."""
    context = _item(0x30, sop_class.encode()) + _item(0x40, b"1.2.840.10008.1.2")
    user = _item(0x51, struct.pack(">L", 16384)) + _item(0x52, b"1.2.3.4")
    items = _item(0x10, b"1.2.840.10008.3.1.1.1") + _item(0x20, bytes([1, 0, 0, 0]) + context) + _item(0x50, user)
    body = struct.pack(">HH16s16s32x", 1, 0, called.ljust(16).encode(), calling.ljust(16).encode()) + items
    return struct.pack(">BBL", 1, 0, len(body)) + body


def data_pdu(content: bytes, control: int, context: int = 1) -> bytes:
    """Encode a P-DATA-TF with one presentation data value."""
    value = struct.pack(">LBB", len(content) + 2, context, control) + content
    return struct.pack(">BBL", 4, 0, len(value)) + value


def echo_request() -> bytes:
    """Encode a C-ECHO request."""
    return command_set(
        {
            0x0002: b"1.2.840.10008.1.1\x00",
            0x0100: struct.pack("<H", 0x0030),
            0x0110: struct.pack("<H", 1),
            0x0800: struct.pack("<H", 0x0101),
        }
    )


def connect(running: Station) -> socket.socket:
    """Connect, with a deadline for every answer."""
    connection = socket.create_connection(("127.0.0.1", running.port))
    connection.settimeout(8.0)
    return connection


def established(running: Station, sop_class: str = CR) -> socket.socket:
    """Negotiate one context (id 1) by hand and return the bare connection."""
    connection = connect(running)
    connection.sendall(association_request(sop_class))
    assert receive_pdu(connection)[0] == 0x02
    return connection


def receive_pdu(connection: socket.socket) -> bytes:
    """Read one PDU, with its head (PS3.8 section 9.3.1)."""
    data = bytearray()
    while len(data) < 6 or len(data) < 6 + int.from_bytes(data[2:6], "big"):
        block = connection.recv(65536)
        if not block:
            raise ConnectionResetError
        data += block
    return bytes(data)


def status_of(answer: bytes) -> int:
    """Find the Status (0000,0900) of a DIMSE answer."""
    element = struct.pack("<HHI", 0, 0x0900, 2)
    position = answer.index(element) + len(element)
    return int.from_bytes(answer[position : position + 2], "little")


def echo_s(running: Station) -> float:
    """Seconds from connecting to the answer, by a client that itself takes no time."""
    begun = time.monotonic()
    connection = established(running, VERIFICATION)
    connection.sendall(data_pdu(echo_request(), 3))
    assert status_of(receive_pdu(connection)) == 0x0000
    seconds = time.monotonic() - begun
    connection.sendall(bytes.fromhex("05000000000400000000"))
    connection.close()
    return seconds


def assert_serves(running: Station) -> None:
    """An echo is answered, and at once."""
    # The best of three: a machine that is busy with other things may hold up any one of them, a listener that is
    # blocked holds up all.
    assert min(echo_s(running) for _ in range(3)) <= 1.0
    echo("127.0.0.1", running.port, AE, "TEST")


def _item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(content)) + content
