"""The table and faults.json."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from faults.reconcile import Balance


@dataclass(kw_only=True)
class Row:
    """One fault and what it did."""

    fault: str
    trials: int = 0
    lost: int = 0
    duplicated: int = 0
    stuck: int = 0
    longest_recovery_s: float = 0.0
    set_aside: int = 0
    """Visibly: failed, refused or rejected with the reason."""
    acknowledged: int = 0
    must_be_caught: bool = False
    """A deliberately broken build: here a clean balance is the failure."""
    notes: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """The promise was kept, or the broken build was caught."""
        wrong = bool(self.lost or self.duplicated or self.stuck)
        return self.trials > 0 and wrong == self.must_be_caught and not self._errors

    def take(self, balance: Balance, *, acknowledged: int) -> None:
        """Note what does not agree, with the first few names."""
        self.lost, self.duplicated = len(balance.lost), len(balance.duplicated)
        self.stuck, self.set_aside = len(balance.stuck), len(balance.set_aside)
        self.acknowledged = acknowledged
        self.notes += [*balance.lost[:3], *balance.duplicated[:3], *balance.stuck[:3], *balance.set_aside[:2]]

    def recovered(self, seconds: float) -> None:
        """A trial is over."""
        self.trials += 1
        self.longest_recovery_s = round(max(self.longest_recovery_s, seconds), 1)

    def wrong(self, what: str) -> None:
        """Something was not as it must be, beyond the balance."""
        self.notes.append(f"WRONG: {what}")

    @property
    def _errors(self) -> bool:
        return any(note.startswith("WRONG") for note in self.notes)


def table(rows: Iterable[Row]) -> str:
    """Lay the rows out for humans."""
    head = (
        f"{'fault':44} {'trials':>6} {'acked':>6} {'lost':>5} {'twice':>5} {'stuck':>5} {'aside':>5} {'longest s':>9}"
    )
    lines = [head, "-" * len(head)]
    for row in rows:
        verdict = "ok" if row.passed else "FAILED"
        verdict = "caught" if row.must_be_caught and row.passed else verdict
        lines.append(
            f"{row.fault:44} {row.trials:6} {row.acknowledged:6} {row.lost:5} {row.duplicated:5} {row.stuck:5} "
            f"{row.set_aside:5} {row.longest_recovery_s:9.1f}  {verdict}"
        )
        lines += [f"    {note}" for note in row.notes]
    return "\n".join(lines)


def write(rows: Iterable[Row], path: Path) -> None:
    """Write faults.json."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([{**asdict(row), "passed": row.passed} for row in rows], indent=2) + "\n")
