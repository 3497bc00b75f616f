"""The PACS: a real Orthanc, and a storage SCP that misbehaves to order."""

from __future__ import annotations

import io
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

from pydicom import Dataset, dcmread
from pydicom.filewriter import write_file_meta_info
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    Verification,
)

from dicom_nodes.contexts import UNCOMPRESSED
from faults.content import dataset_sha256
from workers.sandbox import PACS_AE, OrthancPacs, free_port

if TYPE_CHECKING:
    from pathlib import Path

_JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
_SLOW_S = 2.0


class Archive(Protocol):
    """What the reconciliation asks of a PACS."""

    port: int

    def inventory(self) -> dict[str, list[str]]:
        """SHA-256 of every data set that it holds, by SOP Instance UID."""

    def stop(self) -> None:
        """End it."""


class OrthancArchive(OrthancPacs):
    """Orthanc, which lets anybody ask what it has; read through its REST interface."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, extra={"DicomAlwaysAllowFind": True})

    def inventory(self) -> dict[str, list[str]]:
        """SHA-256 of every data set that it holds, by SOP Instance UID."""
        found: dict[str, list[str]] = {}
        for entry in self.get("/instances?expand"):
            uid = str(entry["MainDicomTags"]["SOPInstanceUID"])
            found.setdefault(uid, []).append(dataset_sha256(self.get(f"/instances/{entry['ID']}/file")))
        return found


class FaultyArchive:
    """Keeps what it is sent, or does what `behaviour` says.

    `keep`, a status as a number, `slow`, `abort`, `lose-answer`, `other-bytes` or `forget`.
    """

    def __init__(self, _folder: Path | None = None) -> None:
        self.port = free_port()
        self.behaviour: str | int = "keep"
        self.requests: list[str] = []
        self._kept: dict[str, list[bytes]] = {}
        self._guard = threading.Lock()
        self._server: Any = None
        self.begin()

    def begin(self) -> None:
        """Open the port."""
        entity = AE(PACS_AE)
        entity.add_supported_context(Verification)
        entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind, list(UNCOMPRESSED))
        entity.add_supported_context(StudyRootQueryRetrieveInformationModelGet, list(UNCOMPRESSED))
        for context in AllStoragePresentationContexts:
            # What it holds goes back on the association that asks, where the peer takes the provider's role.
            entity.add_supported_context(
                str(context.abstract_syntax), [*UNCOMPRESSED, _JPEG_BASELINE], scu_role=True, scp_role=True
            )
        self._server = entity.start_server(("127.0.0.1", self.port), block=False, evt_handlers=self._handlers(entity))

    def _handlers(self, _entity: AE) -> list[Any]:
        return [(evt.EVT_C_STORE, self._store), (evt.EVT_C_FIND, self._find), (evt.EVT_C_GET, self._get)]

    def stop(self) -> None:
        """Close the port."""
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    def inventory(self) -> dict[str, list[str]]:
        """SHA-256 of every data set that it holds, by SOP Instance UID; an equal one that came again is one."""
        with self._guard:
            return {uid: sorted({dataset_sha256(file) for file in files}) for uid, files in self._kept.items()}

    def _store(self, event: Any) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        with self._guard:
            self.requests.append(uid)
        behaviour = self.behaviour
        if isinstance(behaviour, int) and behaviour >> 12 != 0xB:
            return behaviour
        if behaviour == "abort":
            event.assoc.abort()
            return 0xC000
        if behaviour == "slow":
            time.sleep(_SLOW_S)
        if behaviour != "forget":
            self._keep(uid, event, altered=behaviour == "other-bytes")
        if behaviour == "lose-answer":
            event.assoc.abort()
        return behaviour if isinstance(behaviour, int) else 0x0000

    def _keep(self, uid: str, event: Any, *, altered: bool) -> None:
        file = _part10(event)
        if altered:
            changed = dcmread(io.BytesIO(file))
            changed.SeriesDescription = "something else"
            target = io.BytesIO()
            changed.save_as(target)
            file = target.getvalue()
        with self._guard:
            self._kept.setdefault(uid, []).append(file)

    def _find(self, event: Any) -> Any:
        wanted = str(event.identifier.get("SOPInstanceUID", ""))
        with self._guard:
            known = wanted in self._kept
        if known:
            match = Dataset()
            match.QueryRetrieveLevel = "IMAGE"
            match.SOPInstanceUID = wanted
            yield 0xFF00, match

    def _get(self, event: Any) -> Any:
        wanted = str(event.identifier.get("SOPInstanceUID", ""))
        with self._guard:
            files = self._kept.get(wanted, [])[-1:]
        yield len(files)
        for file in files:
            yield 0xFF00, dcmread(io.BytesIO(file))


def _part10(event: Any) -> bytes:
    target = io.BytesIO()
    target.write(b"\0" * 128 + b"DICM")
    write_file_meta_info(target, event.file_meta)
    return target.getvalue() + event.encoded_dataset(include_meta=False)
