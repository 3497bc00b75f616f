"""`make faults`: run the campaign, print the table, write faults.json. Exit code 1: a promise was broken."""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from faults import broken, clocks, commitments, disk, pacs, poison, shared, stores
from faults import kills as killing
from faults.report import Row, table, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Rows = Callable[[Path, int], Iterator[Row]]


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some rows over an installation of their own; parts of one group differ in `name`."""

    group: str
    name: str = ""
    rows: Rows

    @property
    def title(self) -> str:
        return f"{self.group} {self.name}".rstrip()


ALONE = ("poison",)
"""Groups that compare times: nothing else runs beside them."""
LONGEST = ("servers", "pacs", "disk", "commitment", "clocks", "kills")
"""These begin first, so that no lane works long after the others have ended."""


def main() -> int:
    """Run."""
    options = _options()
    chosen = [part for part in _parts(options) if not options.only or part.group in options.only.split(",")]
    board = Board(chosen, options.out)
    with tempfile.TemporaryDirectory(prefix="pellucid-faults-") as folder:
        # Outside the folders that tests of others share, readable by the user of PostgreSQL.
        run = partial(board.run, folder=Path(folder), seed=options.seed)
        with ThreadPoolExecutor(options.lanes) as lanes:
            list(lanes.map(run, sorted((part for part in chosen if part.group not in ALONE), key=_turn)))
        for part in chosen:
            if part.group in ALONE:
                run(part)
    rows = board.rows()
    sys.stdout.write(table(rows) + "\n")
    return 0 if rows and all(row.passed for row in rows) else 1


def _parts(options: argparse.Namespace) -> list[Part]:
    """Return everything that there is, in the order of the report."""
    trials, kills = (1, 12) if options.fast else (options.trials, options.kills)
    groups: dict[str, Rows] = {
        "points": partial(killing.at_points, trials=trials),
        "pacs": partial(pacs.misbehaving, trials=trials),
        "commitment": partial(commitments.answering, trials=trials),
        "sqlite": partial(stores.sqlite_locked, trials=trials),
        "servers": partial(stores.redis_and_postgresql, trials=trials),
        "disk": partial(disk.full, trials=trials),
        "clocks": partial(clocks.set_while_working, trials=trials),
        "shared": partial(shared.ledger, trials=trials),
        "poison": partial(poison.studies, trials=trials),
    }
    each = kills // len(killing.VICTIMS)
    killed = {role: partial(killing.at_random, kills=each, roles=[role]) for role in killing.VICTIMS}
    return [
        *(Part(group="kills", name=role, rows=rows) for role, rows in killed.items()),
        *(Part(group=group, rows=rows) for group, rows in groups.items()),
        *(Part(group="broken", name=name, rows=rows) for name, rows in broken.BUILDS.items()),
    ]


def _turn(part: Part) -> int:
    return LONGEST.index(part.group) if part.group in LONGEST else len(LONGEST)


class Board:
    """Runs parts, from several threads at once, and keeps what they found; faults.json is always up to date."""

    def __init__(self, parts: Sequence[Part], out: Path) -> None:
        self._found: dict[str, dict[str, Row]] = {part.title: {} for part in parts}
        self._out = out
        self._guard = threading.Lock()

    def rows(self) -> list[Row]:
        """All rows, in the order of the parts."""
        return [row for found in self._found.values() for row in found.values()]

    def run(self, part: Part, *, folder: Path, seed: int) -> None:
        """Run a part; what it could not do is a row that failed."""
        begun = time.monotonic()
        try:
            for row in part.rows(folder / part.title.replace(" ", "-"), seed):
                self._note(part, row)
            if not self._found[part.title]:
                self._say(part, "nothing was run; it needs root")
        except Exception as error:  # noqa: BLE001 -- one part that breaks down must not hide the others
            failed = Row(fault=f"{part.title}: broke down")
            failed.wrong(f"{type(error).__name__}: {error}")
            self._note(part, failed)
        self._say(part, f"{time.monotonic() - begun:.0f} s")

    def _note(self, part: Part, row: Row) -> None:
        """Take a row, or more of one that is under way: whoever ends the campaign early has this much."""
        with self._guard:
            self._found[part.title][row.fault] = row
            write(self.rows(), self._out)
        self._say(part, "  ".join([table([row]).splitlines()[2], *row.notes[:1]]))

    def _say(self, part: Part, what: str) -> None:
        with self._guard:
            sys.stderr.write(f"{part.title:16} {what}\n")
            sys.stderr.flush()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="faults")
    parser.add_argument("--fast", action="store_true", help="every row once")
    parser.add_argument("--trials", type=int, default=20, help="of every row but kill -9")
    parser.add_argument("--kills", type=int, default=1000, help="over half as many studies, by listener, worker, ...")
    parser.add_argument("--lanes", type=int, default=3, help="how many installations are broken side by side")
    parser.add_argument("--seed", type=int, default=6)
    parser.add_argument("--only", default="", help="names of groups, with commas between")
    parser.add_argument("--out", type=Path, default=Path("faults.json"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
