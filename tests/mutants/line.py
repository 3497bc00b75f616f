"""What the service makes of one mutant: the way in, the worker's reading, the objects. Run as a child of the campaign.

`python -m mutants.line FOLDER` reads numbers from standard input and answers each with a line of JSON.
"""

from __future__ import annotations

import json
import logging
import random
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from readings import lateral, reading

from dicom_nodes.objects import presentation_state, refusal_report, secondary_capture, structured_report, text_report
from dicom_nodes.objects.read import read_header, read_image
from dicom_nodes.objects.write import to_bytes
from dicom_nodes.part10_stream import Part10Stream
from dicom_nodes.reception import Store
from dicom_nodes.requests import Peer, StoreCommand
from mutants.anatomy import File, take_apart
from mutants.mutations import mutate
from mutants.originals import COMPRESSED, MARKS, originals
from service.errors import PellucidError
from service.ledger.arrivals import Arrivals
from service.ledger.database import open_database
from service.observe import configure_logging
from service.spool import Spool

if TYPE_CHECKING:
    from dicom_nodes.objects.read import SourceImage
    from dicom_nodes.part10_stream import Meta
    from dicom_nodes.requests import Reception
    from dicom_nodes.status import Answer
    from service.results import Result

_BUILDERS = (structured_report.build, text_report.build, presentation_state.build)


class Line:
    """A spool, a ledger and the worker's reading of what arrived, in one folder."""

    def __init__(self, folder: Path, *, compressed: float = 0.03) -> None:
        self.folder = folder
        self.spool = Spool(folder / "spool")
        self.spool.prepare()
        self._engine = open_database(f"sqlite:///{folder / 'ledger.sqlite'}")
        self._store = Store(spool=self.spool, arrivals=Arrivals(self._engine), stored=lambda: None)
        self._originals = {syntax: self._apart(data, syntax) for syntax, data in originals().items()}
        self._compressed = compressed

    def close(self) -> None:
        self._engine.dispose()

    def run(self, number: int) -> dict[str, Any]:
        """Make the mutant of a number and send it the whole way.

        Anything but an error of ours is let through: that is what the campaign looks for.
        """
        chance = random.Random(number)  # noqa: S311 - no secret is made
        native = [syntax for syntax in self._originals if syntax not in COMPRESSED]
        syntax = chance.choice(COMPRESSED if chance.random() < self._compressed else native)
        file = self._copy(str(syntax))
        kinds = mutate(file, chance)
        data = file.data()
        said: list[str] = []
        answers = self._receive(data, chance, said)
        path = self.folder / "mutant.dcm"
        path.write_bytes(data)
        outcome = self._read(path, said, pictures=number % 50 == 0)
        return {
            "number": number,
            "syntax": str(syntax),
            "kinds": kinds,
            "answers": answers,
            "outcome": outcome,
            "marked": [mark for mark in MARKS if mark in " ".join(said)],
            "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        }

    def _receive(self, data: bytes, chance: random.Random, said: list[str]) -> list[int]:
        statuses: list[int] = []

        def begin(meta: Meta) -> Reception:
            peer = Peer(association=f"{chance.getrandbits(64):x}", calling_ae="M", called_ae="P", address="127.0.0.1")
            command = StoreCommand(
                message_id=1,
                sop_class_uid=meta.sop_class_uid,
                sop_instance_uid=meta.sop_instance_uid,
                transfer_syntax_uid=meta.transfer_syntax_uid,
                peer=peer,
            )
            return self._store.begin(command)

        def done(_meta: Meta | None, result: Answer | Exception) -> None:
            said.append(str(result))
            statuses.append(-1 if isinstance(result, Exception) else result.status)

        stream = Part10Stream(begin, done)
        step = chance.choice((17, 1000, 1 << 20))
        for start in range(0, len(data), step):
            stream.write(memoryview(data)[start : start + step])
        stream.finish()
        return statuses

    def _read(self, path: Path, said: list[str], *, pictures: bool) -> str:
        try:
            header, _ = read_header(path)
            to_bytes(refusal_report.build(header, lateral()))
            read = read_image(path)
            grey = read.image.grey
            if not (np.isfinite(grey).all() and 0 <= grey.min() <= grey.max() <= 1):
                raise AssertionError("grey values out of range")
            if grey.size > 1 << 20:
                return "read"
            for build in (*_BUILDERS, secondary_capture.build) if pictures else _BUILDERS[:1]:
                to_bytes(build(read.header, read.image, _result(read)))
        except PellucidError as error:
            said.append(str(error))
            return "refused"
        return "read"

    def _apart(self, data: bytes, syntax: str) -> File:
        explicit = take_apart(originals()["1.2.840.10008.1.2.1"], "1.2.840.10008.1.2.1", {})
        return take_apart(data, syntax, {element.tag: element.vr for element in explicit.elements})

    def _copy(self, syntax: str) -> File:
        known = self._originals[syntax]
        elements = [type(element)(**vars(element)) for element in known.elements]
        return File(syntax=syntax, preamble=known.preamble, meta=known.meta, elements=elements)


def _result(read: SourceImage) -> Result:
    values = np.zeros(read.image.grey.shape, dtype=np.float32)
    values[: values.shape[0] // 2, : values.shape[1] // 2] = 1
    return reading(values)


def main() -> None:
    """Serve the campaign."""
    configure_logging("mutants")
    logging.getLogger("dicom_nodes").setLevel(logging.DEBUG)
    line = Line(Path(sys.argv[1]), compressed=float(sys.argv[2]))
    for text in sys.stdin:
        sys.stdout.write(json.dumps(line.run(int(text))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
