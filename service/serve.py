"""`pellucid serve`: listener, worker and sender on one machine, as supervised child processes."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click
from filelock import FileLock, Timeout

from service.cli import UsageError, main, settings_of
from service.files import make_directory
from service.ledger.database import open_database
from service.observe import configure_logging
from service.pipelines import load_pipelines
from service.retention_commands import purge_regularly

if TYPE_CHECKING:
    from pathlib import Path

    from service.settings import Settings

log = logging.getLogger(__name__)

PROCESSES = ("listener", "worker", "sender")
GRACE_S = 45.0
"""Longer than an association or a usual task needs to finish."""
_LONGEST_PAUSE_S = 30.0
_PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that a process gets when its parent ends."""


@click.command()
@click.pass_context
def serve(ctx: click.Context) -> None:
    """Run everything on one machine until SIGTERM or Ctrl-C."""
    settings = settings_of(ctx)
    load_pipelines(settings)
    configure_logging("serve", form=settings.log.format)
    make_directory(settings.state.directory.absolute())
    lock = FileLock(settings.state.directory / "serve.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(
            f"another 'pellucid serve' uses {settings.state.directory}: stop it, or set state.directory"
        ) from None
    with lock:
        # The schema is brought up to date once, before three processes need it.
        open_database(settings.database_url).dispose()
        supervise(settings, ctx.find_root().obj)


@dataclass(kw_only=True)
class _Child:
    name: str
    command: list[str]
    process: subprocess.Popen[bytes]
    started: float
    failures: int = 0
    restart_at: float = field(default=0.0)


def supervise(settings: Settings, config: Path | None) -> None:
    """Start the children, restart those that end, and end them all on SIGTERM, SIGINT or SIGHUP."""
    stop = threading.Event()

    def ask_to_stop(_number: int, _frame: Any) -> None:
        stop.set()

    # A terminal that is closed sends SIGHUP.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, ask_to_stop)
    if settings.retention.automatic:
        threading.Thread(target=purge_regularly, args=(settings, stop), name="purge", daemon=True).start()
    children = [_start(name, config) for name in PROCESSES]
    log.info("serving as %s on %s:%d", settings.listener.ae_title, settings.listener.host, settings.listener.port)
    while not stop.wait(0.2):
        for child in children:
            _look_after(child)
    _end(children)
    log.info("stopped")


def _start(name: str, config: Path | None) -> _Child:
    options = ["--config", str(config)] if config else []
    code = f"from service.serve import run_child; run_child({os.getpid()})"
    command = [sys.executable, "-c", code, *options, name]
    return _Child(name=name, command=command, process=_spawn(command), started=time.monotonic())


def run_child(supervisor: int) -> None:
    """Run a command as a child of the process `supervisor`, and end in good order when that is killed.

    Else it would hold the port, with yesterday's settings, against the next `pellucid serve`.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != supervisor:
            sys.exit(1)
    main()


def _spawn(command: list[str]) -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C reaches the supervisor alone, which ends the children in good order.
    return subprocess.Popen(command, start_new_session=True)


def _look_after(child: _Child) -> None:
    now = time.monotonic()
    code = child.process.poll()
    if code is None:
        return
    if child.restart_at == 0.0:
        lived = now - child.started
        child.failures = 1 if lived > _LONGEST_PAUSE_S else child.failures + 1
        pause = min(_LONGEST_PAUSE_S, 0.5 * 2 ** min(child.failures - 1, 10))
        child.restart_at = now + pause
        log.error("%s ended with code %s after %.0f s; it starts again in %.1f s", child.name, code, lived, pause)
    elif now >= child.restart_at:
        child.process, child.started, child.restart_at = _spawn(child.command), now, 0.0


def _end(children: list[_Child]) -> None:
    for child in children:
        if child.process.poll() is None:
            child.process.terminate()
    deadline = time.monotonic() + GRACE_S
    for child in children:
        try:
            child.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.warning("%s did not finish in %.0f s; its work is done again after the start", child.name, GRACE_S)
            child.process.kill()
            child.process.wait()
