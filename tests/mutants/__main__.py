"""The campaign, `make mutants COUNT=20000 SEED=1`: crashes and hangs of the parent, stray files, marked names."""

from __future__ import annotations

import argparse
import json
import re
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from mutants.originals import MARKS

HANG_S = 120.0
"""Longer than a decoder may take."""
_KEY = re.compile(r"spool/(incoming|instances/[0-9a-f]{2}/[0-9a-f]{32}/[0-9a-f]{32}-[0-9a-f]{16}\.dcm)")
_OURS = re.compile(r"(spool(/.*)?|ledger\.sqlite.*|mutant\.dcm|log)")


@dataclass(kw_only=True)
class Report:
    """What was seen."""

    mutants: int = 0
    read: int = 0
    refused: int = 0
    stored: int = 0
    crashes: list[str] = field(default_factory=list)
    hangs: list[int] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)
    marked: list[str] = field(default_factory=list)
    largest_memory_mb: int = 0
    slowest_s: float = 0.0
    kinds: Counter[str] = field(default_factory=Counter)

    @property
    def clean(self) -> bool:
        return not (self.crashes or self.hangs or self.strays or self.marked)


class Child:
    """The process that reads the mutants; it is started anew when it died or hung."""

    def __init__(self, folder: Path, compressed: float) -> None:
        self._folder, self._compressed = folder, compressed
        self._log = (folder / "log").open("ab")
        self._start()

    def ask(self, number: int) -> dict[str, object] | None:
        """Send a mutant through; None when the process hung.

        Raises:
            EOFError: it died.
        """
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{number}\n")
        self._process.stdin.flush()
        if not select.select([self._process.stdout], [], [], HANG_S)[0]:
            self._process.kill()
            self._start()
            return None
        answer = self._process.stdout.readline()
        if not answer:
            self._process.wait()
            self._start()
            raise EOFError
        found: dict[str, object] = json.loads(answer)
        return found

    def stop(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(30)
        self._log.close()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mutants.line", str(self._folder), str(self._compressed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )


def run(count: int, *, seed: int, compressed: float, folder: Path) -> Report:
    """Send so many mutants through a line in a folder."""
    report = Report()
    child = Child(folder, compressed)
    begun = time.monotonic()
    for number in range(seed * 1_000_000, seed * 1_000_000 + count):
        report.mutants += 1
        started = time.monotonic()
        try:
            answer = child.ask(number)
        except EOFError:
            report.crashes.append(f"{number}: {_last_line(folder / 'log')}")
            sys.stderr.write(f"{report.crashes[-1]}\n")
            continue
        if answer is None:
            report.hangs.append(number)
            sys.stderr.write(f"{number}: no answer within {HANG_S:.0f} s\n")
            continue
        _count(report, answer, time.monotonic() - started)
        if report.mutants % 500 == 0:
            rate = report.mutants / (time.monotonic() - begun)
            sys.stderr.write(f"{report.mutants} of {count}, {rate:.0f}/s, clean so far: {report.clean}\n")
    child.stop()
    report.strays = strays(folder)
    log = (folder / "log").read_text(encoding="utf-8", errors="replace")
    report.marked += [f"log: {mark}" for mark in MARKS if mark in log]
    return report


def strays(folder: Path) -> list[str]:
    """Return files that nobody should have written: beside the spool, or in it under another name than a hash."""
    names = [str(path.relative_to(folder.parent)) for path in folder.parent.rglob("*") if path.is_file()]
    inside = [name.removeprefix(f"{folder.name}/") for name in names]
    return [
        name for name in inside if not _OURS.fullmatch(name) or (name.startswith("spool/") and not _KEY.fullmatch(name))
    ]


def _count(report: Report, answer: dict[str, object], seconds: float) -> None:
    report.read += answer["outcome"] == "read"
    report.refused += answer["outcome"] == "refused"
    report.stored += answer["answers"] == [0]
    report.marked += [f"{answer['number']}: {mark}" for mark in answer["marked"]]  # type: ignore[attr-defined]
    report.largest_memory_mb = max(report.largest_memory_mb, int(str(answer["memory_mb"])))
    report.slowest_s = max(report.slowest_s, round(seconds, 2))
    report.kinds.update(answer["kinds"])  # type: ignore[arg-type]


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return lines[-1][:200] if lines else ""


def main() -> int:
    """Run it; 1 when anything was seen that must not be."""
    parser = argparse.ArgumentParser(prog="mutants")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--compressed", type=float, default=0.03, help="share with compressed pixels; each costs a process"
    )
    parser.add_argument("--out", type=Path, default=Path("mutants.json"))
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        folder = Path(name) / "line"
        folder.mkdir()
        report = run(chosen.count, seed=chosen.seed, compressed=chosen.compressed, folder=folder)
    chosen.out.write_text(json.dumps({**vars(report), "clean": report.clean}, indent=2) + "\n", encoding="utf-8")
    shown = {name: value for name, value in vars(report).items() if name != "kinds"}
    sys.stdout.write("\n".join(f"{name:18} {value}" for name, value in shown.items()) + "\n")
    return 0 if report.clean else 1


if __name__ == "__main__":
    sys.exit(main())
