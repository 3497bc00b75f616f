from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest
from retention_house import House

from service.retention_commands import purge_regularly

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Books


@pytest.fixture
def house(tmp_path: Path, books: Books) -> House:
    return House(tmp_path / "state", books)


def test_the_command_says_what_it_would_delete(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from service.cli import main; main()", "purge", "--dry-run", "--json"],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PELLUCID__STATE__DIRECTORY": str(tmp_path / "state")},
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["dry_run"] is True
    assert found["instances"] == 0


def test_purging_by_itself_goes_on_until_it_is_told_to_stop(house: House) -> None:
    house.receive()
    house.finish(house.make_job())
    house.deliver()
    left = house.folder / "outbox" / house.outbox.keep("f" * 32, b"left by a worker that died")
    os.utime(left, (0, 0))
    stop = threading.Event()
    thread = threading.Thread(target=purge_regularly, args=(house.settings, stop), daemon=True)
    thread.start()
    for _ in range(600):
        if not left.exists():
            break
        time.sleep(0.05)
    stop.set()
    thread.join(timeout=10)
    assert not left.exists()
    assert not thread.is_alive()
