from __future__ import annotations

import faulthandler
import logging
import os
import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil
import pytest

from workers.relay import DONE, END, READY, NobodyLeftError, Relay
from workers.sandbox import wait_until
from workers.zygote import Zygote

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from workers.zygote import Line


@contextmanager
def relay_over(folder: Path, *, standby: bool) -> Iterator[Relay]:
    """A relay over processes that note what they do in a folder; some jobs end them."""

    def note(what: str) -> None:
        (folder / f"{time.monotonic_ns()} {what} {os.getpid()}").touch()

    def live(line: Line) -> None:
        note("loaded")
        if (folder / "broken").exists():
            return
        line.send_bytes(READY)
        line.recv_bytes()
        while (job := line.recv_bytes().decode()) != END.decode():
            note(job)
            if job == "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            if job == "hang":
                signal.setitimer(signal.ITIMER_REAL, 0.2)
                signal.pause()
            line.send_bytes(DONE)
        note("ended")

    def prepare() -> None:
        faulthandler.disable()
        logging.basicConfig(filename=folder / "log", force=True)

    relay = Relay(Zygote(prepare, live).fork, standby=standby)
    try:
        yield relay
    finally:
        relay.close()


def noted(folder: Path, what: str) -> list[int]:
    """Ids of the processes that did something, in order."""
    parts = [path.name.split(" ") for path in sorted(folder.iterdir()) if " " in path.name]
    return [int(pid) for _, did, pid in parts if did == what]


def test_one_process_does_the_jobs_and_ends_in_good_order(tmp_path: Path) -> None:
    with relay_over(tmp_path, standby=False) as relay:
        relay.run("film")
        relay.run("film")
    assert len(set(noted(tmp_path, "film"))) == 1
    assert noted(tmp_path, "ended") == noted(tmp_path, "loaded")


@pytest.mark.parametrize("poison", ["crash", "hang"])
def test_a_job_that_ends_its_process_comes_back_and_the_next_one_finds_the_one_that_stood_by(
    tmp_path: Path, poison: str
) -> None:
    with relay_over(tmp_path, standby=True) as relay:
        relay.run("film")
        wait_until(lambda: len(noted(tmp_path, "loaded")) == 2, timeout_s=60, what="nobody stands by")
        relay.run(poison)
        relay.run("film")
        wait_until(lambda: len(noted(tmp_path, "loaded")) == 3, timeout_s=60, what="nobody stands by again")
        first, second, _ = noted(tmp_path, "loaded")
        assert noted(tmp_path, "film") == [first, second]
        assert noted(tmp_path, poison) == [first]
    cause = {"crash": "SIGSEGV", "hang": "worker.task_time_limit_s"}[poison]
    wait_until(lambda: cause in (tmp_path / "log").read_text(), timeout_s=60, what="nobody said why it ended")


def test_without_a_standby_a_crash_waits_for_the_next_process(tmp_path: Path) -> None:
    with relay_over(tmp_path, standby=False) as relay:
        relay.run("crash")
        relay.run("film")
        first, second = noted(tmp_path, "loaded")
    assert noted(tmp_path, "crash") == [first]
    assert noted(tmp_path, "film") == [second]


def test_a_process_that_is_killed_between_two_jobs_is_replaced_before_the_next_one(tmp_path: Path) -> None:
    with relay_over(tmp_path, standby=True) as relay:
        relay.mend()
        assert len(noted(tmp_path, "loaded")) in {1, 2}
        wait_until(lambda: len(noted(tmp_path, "loaded")) == 2, timeout_s=60, what="nobody stands by")
        first, standby = noted(tmp_path, "loaded")
        for pid in (first, standby):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not psutil.pid_exists(standby), timeout_s=60, what="it lives")
        relay.mend()
        relay.run("film")
        assert noted(tmp_path, "film")[0] not in {first, standby}


def test_a_job_is_not_lost_to_a_process_that_was_killed_before_it_came(tmp_path: Path) -> None:
    with relay_over(tmp_path, standby=False) as relay:
        (first,) = noted(tmp_path, "loaded")
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: not psutil.pid_exists(first), timeout_s=60, what="it lives")
        relay.run("film")
        assert noted(tmp_path, "film") == noted(tmp_path, "loaded")[1:]


def test_a_relay_whose_processes_do_not_start_any_more_says_so(tmp_path: Path) -> None:
    with relay_over(tmp_path, standby=False) as relay:
        (tmp_path / "broken").touch()
        with pytest.raises(NobodyLeftError):
            relay.run("crash")


def test_everything_ends_when_the_worker_is_killed(tmp_path: Path) -> None:
    """The worker is a process of its own here, which leaves without a word."""
    worker = os.fork()
    if not worker:
        with relay_over(tmp_path, standby=True) as relay:
            relay.run("film")
            (tmp_path / "zygote").touch()
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(worker, 0)
    assert (tmp_path / "zygote").exists()
    pids = set(noted(tmp_path, "loaded"))
    assert pids
    wait_until(lambda: not any(map(psutil.pid_exists, pids)), timeout_s=60, what="a process outlived its worker")


def test_a_zygote_prepares_once_and_is_seen_to_have_ended() -> None:
    prepared: list[str] = []

    def live(line: Line) -> None:
        line.send_bytes(f"{os.getppid()} {prepared}".encode())

    zygote = Zygote(lambda: prepared.append("imports"), live)
    answers = [zygote.fork().recv_bytes().decode() for _ in range(2)]
    pid = int(answers[0].split()[0])
    assert answers == [f"{pid} ['imports']"] * 2
    assert not prepared
    assert zygote.is_alive()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not zygote.is_alive(), timeout_s=60, what="it lives")
    with pytest.raises(OSError, match="Broken pipe"):
        zygote.fork()
