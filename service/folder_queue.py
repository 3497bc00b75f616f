"""The embedded queue: kombu's queue of files in a folder, with messages that are there whole or not at all.

kombu writes a message under its final name; a worker that looks in between reads an empty file, cannot parse it, and
ends. So does one that finds what a full disk or a power cut left of a message.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from pathlib import Path
from queue import Empty
from typing import Any

from kombu.exceptions import ChannelError
from kombu.transport import filesystem
from kombu.utils.json import dumps, loads
from kombu.utils.scheduling import FairCycle

from service.dropped_messages import Dropping, note_dropped


class InOrder(FairCycle):  # type: ignore[misc]  # kombu has no types
    """Asks the queues in their order, each time from the first: urgent work is never taken in turns with the rest."""

    def get(self, callback: Any, **options: Any) -> Any:
        """Return what the first queue that holds something gives."""
        self.pos = 0
        return super().get(callback, **options)


class Channel(filesystem.Channel):  # type: ignore[misc]  # kombu has no types
    """Puts messages by renaming them into place, and takes them queue by queue."""

    def _reset_cycle(self) -> None:
        self._cycle = InOrder(self._get_and_deliver, self._active_queues, Empty)

    def _put(self, queue: str, payload: dict[str, Any], **_options: Any) -> None:
        """Write a message under a name that no consumer looks for, then give it its own."""
        folder = Path(self.data_folder_out)
        name = f"{time.time_ns()}_{uuid.uuid4()}.{queue}.msg"  # kombu sorts by name: first come, first served
        part = folder / f".{name}.part"
        try:
            part.write_text(dumps(payload), encoding="utf-8")
            part.replace(folder / name)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise ChannelError(f"cannot add a message to the queue: {error.strerror}") from error

    def _get(self, queue: str) -> Any:
        """Take the first message; what is left of a broken one is passed over, the sweep calls again.

        It is taken by renaming it within the folder. kombu moves it to the temporary files, and takes nothing more once
        these are full.
        """
        for path in sorted(Path(self.data_folder_in).glob(f"*.{queue}.msg")):
            taken = path.with_name(f".{path.name}.taken")
            try:
                path.rename(taken)
            except FileNotFoundError:  # another worker was faster
                continue
            payload = self._read(taken)
            if payload is not None:
                return payload
        raise Empty

    def _read(self, taken: Path) -> Any:
        """Read a message and remove its file; None when it is none, which would end the worker further on."""
        try:
            payload = loads(taken.read_text(encoding="utf-8"))
            self.Message(payload, channel=self)
        except Exception as error:  # noqa: BLE001 -- whatever lies there
            note_dropped(error)
            return None
        finally:
            with contextlib.suppress(OSError):
                taken.unlink()
        return payload


class Transport(Dropping, filesystem.Transport):  # type: ignore[misc]  # kombu has no types
    """kombu's, with our channel."""

    Channel = Channel
