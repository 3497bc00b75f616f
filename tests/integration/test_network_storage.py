from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest
from pydicom import dcmread
from pydicom.uid import JPEG2000Lossless
from pynetdicom import AllStoragePresentationContexts, build_context, evt
from pynetdicom.ae import ApplicationEntity

from dicom_nodes.budgets import Limits
from dicom_nodes.client import echo, send_files
from dicom_nodes.contexts import VERIFICATION
from dicom_nodes.objects.identity import MANUFACTURER, MODEL_NAME
from dicom_nodes.status import Verdict
from service.errors import DestinationError
from service.ledger.database import open_database
from service.ledger.report import Reports
from tests.network import AE, CR, cr_image, station, write_image
from tests.require import require_tool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pynetdicom.association import Association

    from tests.network import Station


def associate(port: int, *, called: str = AE, calling: str = "TEST") -> Association:
    return ApplicationEntity(calling).associate("127.0.0.1", port, [build_context(CR)], ae_title=called)


def statuses(running: Station, *paths: Path) -> list[int | None]:
    return [outcome.status for outcome in send_files(paths, "127.0.0.1", running.port, AE, "TEST")]


def test_an_instance_is_kept_byte_for_byte_and_recorded(listener: Station, tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.dcm", cr_image("1.2.3.4"))
    assert statuses(listener, path) == [0x0000]
    (instance,) = listener.arrivals.unassigned()
    assert (instance.sop_instance_uid, instance.study_instance_uid) == ("1.2.3.4", "1.2.3")
    assert (instance.modality, instance.calling_ae, instance.called_ae) == ("CR", "TEST", AE)
    assert (instance.address, instance.ours) == ("127.0.0.1", False)
    kept = listener.spool.root / "instances" / instance.key
    assert dcmread(kept) == dcmread(path)
    assert kept.read_bytes().endswith(path.read_bytes()[-instance.size :])
    assert listener.woken


def test_a_repeated_instance_is_acknowledged_and_stored_once(listener: Station, tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.dcm")
    assert statuses(listener, path, path) == [0x0000]
    assert statuses(listener, path) == [0x0000]
    assert len(listener.arrivals.unassigned()) == 1
    assert len(listener.files()) == 1


def test_the_same_uid_with_other_content_is_set_aside(listener: Station, tmp_path: Path) -> None:
    first = write_image(tmp_path / "a.dcm", cr_image())
    second = write_image(tmp_path / "b.dcm", cr_image(Manufacturer="Somebody else"))
    assert statuses(listener, first, second) == [0x0000, 0x0000]
    assert len(listener.arrivals.unassigned()) == 1
    assert len(listener.arrivals.set_aside()) == 1
    assert len(listener.files()) == 2


def test_what_we_made_ourselves_is_stored_but_not_new(listener: Station, tmp_path: Path) -> None:
    dataset = cr_image(Manufacturer=MANUFACTURER, ManufacturerModelName=MODEL_NAME)
    assert statuses(listener, write_image(tmp_path / "a.dcm", dataset)) == [0x0000]
    assert listener.arrivals.unassigned() == []
    assert len(listener.files()) == 1


def test_every_storage_sop_class_is_accepted(listener: Station) -> None:
    classes = [str(context.abstract_syntax) for context in AllStoragePresentationContexts]
    for start in (0, 100):
        contexts = [build_context(name, "1.2.840.10008.1.2.4.90") for name in classes[start : start + 100]]
        association = ApplicationEntity().associate("127.0.0.1", listener.port, contexts, ae_title=AE)
        assert association.is_established
        assert association.rejected_contexts == []
        association.release()


def test_real_files_arrive_as_they_are(listener: Station, shared_dicom: Path) -> None:
    files = [shared_dicom / "chest", shared_dicom / "mr-series"]
    outcomes = send_files(files, "127.0.0.1", listener.port, AE, "TEST")
    assert {outcome.status for outcome in outcomes} == {0x0000}
    stored = {instance.transfer_syntax_uid for instance in listener.arrivals.unassigned()}
    assert JPEG2000Lossless in stored or "1.2.840.10008.1.2.4.91" in stored


def test_malformed_files_are_stored_or_refused_and_the_service_goes_on(listener: Station, shared_dicom: Path) -> None:
    outcomes = send_files([shared_dicom / "malformed"], "127.0.0.1", listener.port, AE, "TEST")
    assert {outcome.path.name: outcome.status for outcome in outcomes} == {
        "MR_truncated.dcm": 0x0000,
        "badVR.dcm": 0xC000,
        "meta_missing_tsyntax.dcm": None,
    }
    echo("127.0.0.1", listener.port, AE, "TEST")
    assert len(listener.files()) == 1


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"SOPInstanceUID": "1.2.9"}, 0xC000),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, 0xA900),
        ({"StudyInstanceUID": ""}, 0xC000),
    ],
)
def test_a_data_set_that_contradicts_its_request_is_refused(
    changes: dict[str, str], status: int, listener: Station, tmp_path: Path
) -> None:
    path = write_image(tmp_path / "a.dcm")
    dataset = dcmread(path)
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path, enforce_file_format=False)
    assert statuses(listener, path) == [status]
    assert listener.files() == []


def test_dcmtk_clients_are_served(listener: Station, tmp_path: Path) -> None:
    files = [str(write_image(tmp_path / f"{n}.dcm", cr_image(f"1.2.3.{n}", rows=4000))) for n in (1, 2)]
    peer = ["-aec", AE, "127.0.0.1", str(listener.port)]
    for command in (
        [require_tool("echoscu"), *peer],
        [require_tool("storescu"), *peer, files[0]],
        [require_tool("dcmsend"), *peer, files[1]],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr
    assert len(listener.arrivals.unassigned()) == 2


def test_an_unknown_called_ae_title_is_told(listener: Station) -> None:
    with pytest.raises(DestinationError, match="Called AE title not recognised"):
        echo("127.0.0.1", listener.port, "NOBODY", "TEST")


def test_only_listed_calling_ae_titles_may_connect(tmp_path: Path) -> None:
    with station(tmp_path, calling=["MODALITY"]) as running:
        echo("127.0.0.1", running.port, AE, "MODALITY")
        with pytest.raises(DestinationError, match="Calling AE title not recognised"):
            echo("127.0.0.1", running.port, AE, "STRANGER")


def test_only_listed_addresses_may_connect(tmp_path: Path) -> None:
    with (
        station(tmp_path, allows=lambda address: address != "127.0.0.1") as running,
        pytest.raises(DestinationError),
    ):
        echo("127.0.0.1", running.port, AE, "TEST")


def test_more_associations_than_allowed_are_refused_for_now(tmp_path: Path) -> None:
    with station(tmp_path, limits=Limits(associations=1)) as running:
        first = associate(running.port)
        assert first.is_established
        second = associate(running.port)
        assert second.is_rejected
        assert second.acceptor.primitive.result == 0x02
        first.release()
        time.sleep(0.2)
        echo("127.0.0.1", running.port, AE, "TEST")


def test_below_the_watermark_an_instance_is_refused_before_it_is_accepted(tmp_path: Path) -> None:
    with station(tmp_path, minimum_free_bytes=1 << 60) as running:
        assert statuses(running, write_image(tmp_path / "a.dcm", cr_image(rows=4000))) == [0xA700]
        assert running.files() == []
        echo("127.0.0.1", running.port, AE, "TEST")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system can only be mounted by root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_up_in_the_middle_of_an_object_leaves_nothing(small_disk: Path, tmp_path: Path) -> None:
    large = write_image(tmp_path / "large.dcm", cr_image("1.2.3.1", rows=1 << 17 >> 2, study="1.2.5"))
    huge = cr_image("1.2.3.2", study="1.2.6", rows=60000)
    huge.NumberOfFrames = "4"
    huge.PixelData = bytes(2 * 16 * 60000 * 4)
    too_large = write_image(tmp_path / "huge.dcm", huge)
    with station(tmp_path, spool_root=small_disk / "spool") as running:
        assert statuses(running, too_large, large) == [0xA700, 0x0000]
        assert len(running.files()) == 1
        assert list((small_disk / "spool" / "incoming").iterdir()) == []


def test_a_500_mb_object_is_received_in_less_than_150_mb(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.dcm", cr_image())
    head = path.read_bytes()[: -16 * 16 * 2 - 4]
    size = 500 << 20
    with path.open("wb") as file:
        file.write(head + size.to_bytes(4, "little"))
        file.truncate(len(head) + 4 + size)
    process, port = start_listener(tmp_path)
    try:
        sender = subprocess.Popen(
            [require_tool("storescu"), "--max-send-pdu", "131072", "-aec", AE, "127.0.0.1", str(port), str(path)]
        )
        peak = 0
        while sender.poll() is None:
            peak = max(peak, process.memory_info().rss)
            time.sleep(0.02)
        assert sender.returncode == 0
        assert peak < 150 << 20
    finally:
        process.terminate()
        assert process.wait(timeout=15) == 0
    path.unlink()


def test_an_open_association_is_finished_on_sigterm(tmp_path: Path) -> None:
    process, port = start_listener(tmp_path)
    association = associate(port)
    process.terminate()
    time.sleep(1.0)
    assert association.send_c_store(dcmread(write_image(tmp_path / "a.dcm"))).Status == 0x0000
    association.release()
    assert process.wait(timeout=15) == 0


def start_listener(folder: Path) -> tuple[psutil.Popen, int]:
    """Start `pellucid listener` on a free port and read the port from its announcement."""
    environment = {
        **os.environ,
        "PELLUCID__STATE__DIRECTORY": str(folder / "state"),
        "PELLUCID__LISTENER__PORT": "0",
        "PELLUCID__LISTENER__MINIMUM_FREE_MB": "0",
        "PELLUCID__PIPELINES__ENABLED": "[]",
    }
    command = [sys.executable, "-c", "from service.cli import main; main()", "listener"]
    process = psutil.Popen(command, env=environment, cwd=folder, stderr=subprocess.DEVNULL)
    reports = Reports(open_database(f"sqlite:///{folder / 'state' / 'ledger.sqlite'}"))
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for report in reports.alive(within_s=60):
            reports.engine.dispose()
            return process, int(report.detail.rpartition(":")[2])
        time.sleep(0.05)
    process.kill()
    raise TimeoutError("the listener did not announce itself")


def test_a_compressed_file_is_decompressed_only_when_the_peer_refuses_it(shared_dicom: Path, tmp_path: Path) -> None:
    source = shared_dicom / "chest" / "philips-mono1-15bit-j2k.dcm"
    received = []

    entity = ApplicationEntity("PLAIN")
    entity.add_supported_context(dcmread(source, stop_before_pixels=True).SOPClassUID)
    entity.add_supported_context(VERIFICATION)
    server = entity.start_server(
        ("127.0.0.1", 0),
        block=False,
        evt_handlers=[(evt.EVT_C_STORE, lambda event: received.append(event.dataset) or 0x0000)],
    )
    try:
        (outcome,) = send_files([source], "127.0.0.1", server.server_address[1], "PLAIN", "TEST")
    finally:
        server.shutdown()
    assert outcome.verdict is Verdict.DELIVERED
    assert len(received[0].PixelData) == received[0].Rows * received[0].Columns * 2
    assert received[0].SOPInstanceUID == dcmread(source, stop_before_pixels=True).SOPInstanceUID
