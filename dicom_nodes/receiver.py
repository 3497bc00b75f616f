"""A small storage SCP that keeps what it receives: the demo's PACS where no Orthanc is installed."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification

if TYPE_CHECKING:
    from pathlib import Path


class Receiver:
    """Listens on loopback and writes each instance to a folder, named by a hash of its UID."""

    def __init__(self, folder: Path, *, ae_title: str, port: int) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        entity = AE(ae_title)
        entity.add_supported_context(Verification)
        for context in AllStoragePresentationContexts:
            entity.add_supported_context(str(context.abstract_syntax), ALL_TRANSFER_SYNTAXES)
        self._server = entity.start_server(
            ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)]
        )

    def fetch(self, sop_instance_uid: str) -> bytes | None:
        """Return the file of an instance, or None when it did not arrive."""
        path = self._path(sop_instance_uid)
        return path.read_bytes() if path.is_file() else None

    def stop(self) -> None:
        """Close the port."""
        self._server.shutdown()

    def _store(self, event: Any) -> int:
        path = self._path(str(event.request.AffectedSOPInstanceUID))
        path.write_bytes(event.encoded_dataset())
        return 0x0000

    def _path(self, sop_instance_uid: str) -> Path:
        return self._folder / f"{hashlib.sha256(sop_instance_uid.encode()).hexdigest()[:32]}.dcm"
