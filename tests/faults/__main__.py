"""`make faults`: run the campaign, print the table, write faults.json. Exit code 1: a promise was broken."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from faults import broken, clocks, commitments, disk, pacs, poison, shared, stores
from faults import kills as killing
from faults.report import Row, table, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def main() -> int:
    """Run."""
    options = _options()
    trials = 1 if options.fast else options.trials
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="pellucid-faults-") as folder:
        for name, group in _groups(trials, kills=12 if options.fast else options.kills, out=options.out).items():
            if options.only and name not in options.only.split(","):
                continue
            begun = time.monotonic()
            # Outside the folders that tests of others share, readable by the user of PostgreSQL.
            rows += _run(name, partial(group, Path(folder) / name, options.seed), options.out, rows)
            sys.stderr.write(f"{name}: {time.monotonic() - begun:.0f} s\n")
    sys.stdout.write(table(rows) + "\n")
    return 0 if rows and all(row.passed for row in rows) else 1


def _groups(trials: int, *, kills: int, out: Path) -> dict[str, Callable[[Path, int], Iterator[Row]]]:
    return {
        "kills": partial(killing.at_random, kills=kills, progress=partial(_progress, out=out)),
        "points": partial(killing.at_points, trials=trials),
        "pacs": partial(pacs.misbehaving, trials=trials),
        "commitment": partial(commitments.answering, trials=trials),
        "sqlite": partial(stores.sqlite_locked, trials=trials),
        "servers": partial(stores.redis_and_postgresql, trials=trials),
        "disk": partial(disk.full, trials=trials),
        "clocks": partial(clocks.set_while_working, trials=trials),
        "shared": partial(shared.ledger, trials=trials),
        "poison": partial(poison.studies, trials=trials),
        "broken": broken.builds,
    }


def _run(name: str, group: Callable[[], Iterator[Row]], out: Path, before: list[Row]) -> list[Row]:
    """Run a group; what it could not do is a row that failed."""
    rows: list[Row] = []
    try:
        for row in group():
            rows.append(row)
            sys.stderr.write(table([row]).splitlines()[2] + "\n")
            sys.stderr.flush()
            write([*before, *rows], out)
        if not rows:
            sys.stderr.write(f"{name}: nothing was run; it needs root\n")
    except Exception as error:  # noqa: BLE001 -- one group that breaks down must not hide the others
        failed = Row(fault=f"{name}: broke down")
        failed.wrong(f"{type(error).__name__}: {error}")
        rows.append(failed)
        sys.stderr.write(f"{failed.notes}\n")
    write([*before, *rows], out)
    return rows


def _progress(row: Row, *, out: Path) -> None:
    """Say how far a long row is; whoever ends the campaign early has this much."""
    sys.stderr.write(f"  so far: {table([row]).splitlines()[2]} {row.notes[0]}\n")
    sys.stderr.flush()
    write([row], out.with_suffix(".partial.json"))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="faults")
    parser.add_argument("--fast", action="store_true", help="every row once")
    parser.add_argument("--trials", type=int, default=20, help="of every row but kill -9")
    parser.add_argument("--kills", type=int, default=1000, help="over half as many studies, by listener, worker, ...")
    parser.add_argument("--seed", type=int, default=6)
    parser.add_argument("--only", default="", help="names of groups, with commas between")
    parser.add_argument("--out", type=Path, default=Path("faults.json"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
