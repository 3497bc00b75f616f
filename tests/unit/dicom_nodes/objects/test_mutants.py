from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from mutants.__main__ import strays
from mutants.line import Line
from mutants.mutations import MUTATIONS

if TYPE_CHECKING:
    import pytest

COUNT = 150
TESTS = Path(__file__).parents[3]


def test_mutants_are_read_or_refused_and_leave_no_file_and_no_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The beginning of `make mutants`; whatever escapes the reading as another error than ours fails here."""
    folder = tmp_path / "line"
    folder.mkdir()
    line = Line(folder, compressed=0.01)
    outcomes: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    with caplog.at_level("DEBUG", logger="dicom_nodes"):
        for number in range(COUNT):
            answer = line.run(number)
            outcomes[answer["outcome"]] += 1
            kinds.update(answer["kinds"])
            assert answer["marked"] == []
    line.close()
    assert strays(folder) == []
    assert "Geheimnis" not in caplog.text
    assert min(outcomes["read"], outcomes["refused"]) > COUNT // 10
    assert set(kinds) == set(MUTATIONS)


def test_a_stray_file_and_a_spool_file_under_a_name_of_its_own_would_be_seen(tmp_path: Path) -> None:
    folder = tmp_path / "line"
    for path in ("outside", "line/spool/evil.dcm", "line/spool/instances/../../evil", "line/log", "line/mutant.dcm"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"")
    assert sorted(strays(folder)) == ["evil", "outside", "spool/evil.dcm"]


def test_the_campaign_writes_what_it_saw(tmp_path: Path) -> None:
    out = tmp_path / "mutants.json"
    command = [sys.executable, "-m", "mutants", "--count", "5", "--compressed", "0", "--out", str(out)]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(TESTS)}, cwd=TESTS.parent, check=True, timeout=120)
    report = json.loads(out.read_text())
    assert report["mutants"] == report["read"] + report["refused"] == 5
    assert report["clean"] is True
    assert set(report["kinds"]) <= set(MUTATIONS)
