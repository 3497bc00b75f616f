"""How `pellucid serve` ends, and what becomes of its children when it is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def supervisor() -> Iterator[subprocess.Popen[str]]:
    """A supervisor without children, which says when it listens to signals and when it ended in good order."""
    code = """
import service.serve as serve
from service.settings import Settings
serve.PROCESSES = ()
serve.configure_logging("serve")
serve.supervise(Settings(), None)
"""
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_supervisor_in_good_order(supervisor: subprocess.Popen[str], number: signal.Signals) -> None:
    assert supervisor.stderr is not None
    assert "serving as" in supervisor.stderr.readline()
    supervisor.send_signal(number)
    assert "stopped" in supervisor.stderr.readline()
    assert supervisor.wait(60) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children that their parent was killed")
def test_the_children_of_a_killed_supervisor_end_in_good_order() -> None:
    # The supervisor's child stands for a listener: it says that it runs, and says so when it was asked to end.
    child = """
import signal, sys, time, service.serve as serve
def main():
    signal.signal(signal.SIGTERM, lambda *_: (print("asked to end", flush=True), sys.exit(0)))
    print("running", flush=True)
    time.sleep(120)
serve.main = main
serve.run_child(int(sys.argv[1]))
"""
    parent = f"""
import os, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {child!r}, str(os.getpid())], start_new_session=True)
time.sleep(120)
"""
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        process.kill()
        # The pipe ends when the last one who holds it has ended.
        assert process.stdout.read() == "asked to end\n"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children that their parent was killed")
def test_a_child_that_comes_too_late_for_its_supervisor_does_nothing() -> None:
    code = f"from service.serve import run_child; run_child({os.getpid() + 1})"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 1
