"""One installation with its PACS, its modality and its auditor: where faults are injected."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Self

from dicom_nodes.client import echo
from faults.installation import ROLES, Installation
from faults.modality import Modality
from faults.reconcile import Auditor, Balance
from faults.report import Row
from service.errors import DestinationError
from service.storage import Folder
from workers.sandbox import PACS_AE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from faults.archives import FaultyArchive, OrthancArchive

SETTLE_S = 300.0
"""At most: a busy machine needs it; a quiet one is done within seconds."""
_BACK_WITHIN_S = 30.0


class Lab:
    """A context: everything is started on entering and ended on leaving."""

    def __init__(
        self,
        folder: Path,
        archive: OrthancArchive | FaultyArchive,
        *,
        seed: int,
        settings: Mapping[str, str] | None = None,
        faults: Sequence[str] = (),
        roles: Sequence[str] = ROLES,
        confirm: str = "query",
        before: Callable[[Lab], None] = lambda _lab: None,
    ) -> None:
        self.rng = random.Random(f"{seed}-{folder.name}")  # noqa: S311 -- a schedule, no secret
        self.archive = archive
        self.pellucid = Installation(
            folder, pacs_port=archive.port, settings=settings, faults=faults, roles=roles, confirm=confirm
        )
        self.modality = Modality(folder / "films", ports=self.pellucid.ports, seed=self.rng.randrange(1, 900))
        self.auditor = Auditor(self.pellucid, archive)
        self.outbox = Folder(self.pellucid.settings.state.directory / "outbox")
        before(self)

    def __enter__(self) -> Self:
        try:
            self.pellucid.start()
            self.pellucid.wait_ready()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.pellucid.stop()
        self.archive.stop()

    def row(self, fault: str, *, must_be_caught: bool = False) -> Row:
        """Begin a row: nothing may be broken before it."""
        self.baseline()
        return Row(fault=fault, must_be_caught=must_be_caught)

    def baseline(self) -> None:
        """C-ECHO and C-STORE work, and the result is in the PACS.

        Raises:
            RuntimeError: they do not, so that no row would mean anything.
        """
        self._wait_listening()
        (film,) = self.modality.films(1)
        sent = self.modality.send(film)
        if sent is None:
            raise RuntimeError("the baseline film was not accepted")
        self.auditor.wait_settled([sent], timeout_s=SETTLE_S / 2)
        balance = self.balance()
        if not balance.even:
            raise RuntimeError(f"the baseline is not even: {balance}")

    def _wait_listening(self) -> None:
        """Give a listener that the last row killed the time to be back."""
        deadline = time.monotonic() + _BACK_WITHIN_S
        while True:
            try:
                echo("127.0.0.1", self.pellucid.port, called="PELLUCID", calling=PACS_AE)
            except DestinationError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                return

    def balance(self) -> Balance:
        """Reconcile everything since the start."""
        return self.auditor.balance(self.modality.acknowledged)

    def recover(self, row: Row, *, since: float | None = None, timeout_s: float = SETTLE_S) -> None:
        """Wait until all work is done and count the trial."""
        begun = time.monotonic() if since is None else since
        self.auditor.wait_settled(self.modality.acknowledged, timeout_s=timeout_s)
        row.recovered(time.monotonic() - begun)

    def close(self, row: Row) -> Row:
        """Reconcile and end the row."""
        row.take(self.balance(), acknowledged=len({entry.sop_instance_uid for entry in self.modality.acknowledged}))
        return row
