"""A Pellucid of the campaign's own: three processes that are restarted at once when they die, as a cluster does it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from faults.nursery import Forked, nursery
from faults.sabotage import CRASHES_VARIABLE, FRESH_ONLY, POISON_VARIABLE
from workers.sandbox import Sandbox, end, free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROLES = ("listener", "worker", "sender")
LEASE_S = 4.0
START_S = 240.0
_PIPELINE = """
name = "campaign"
title = "Campaign"
version = "1"
input = "image"
model = "pneumonia-compact"
modalities = ["CR", "DX"]
explainers = ["grad-cam"]
outputs = ["secondary-capture", "structured-report"]
destinations = ["@sender"]

[explanation]
assessors = []
consensus = false
"""
_SABOTAGE = Path(__file__).with_name("sabotage.py")
_RESTART_AFTER_S = 0.2
_SEEN_TO_END_S = 15.0
"""A process ends when it sees that the one which made it has; one that loads a model looks after that."""
_MIGRATING = threading.Lock()
"""Alembic's context is one for all threads, and several installations may begin at once."""


class Installation(Sandbox):
    """Listener, worker and sender over one state folder; `faults` are built into every process."""

    def __init__(
        self,
        folder: Path,
        *,
        pacs_port: int,
        settings: Mapping[str, str] | None = None,
        faults: Sequence[str] = (),
        roles: Sequence[str] = ROLES,
        confirm: str = "query",
    ) -> None:
        """Prepare. A role that is named twice has two processes."""
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(
            folder,
            pacs_port=pacs_port,
            settings={**_quick(_cheap_pipeline(folder)), "PELLUCID__PEERS__PACS__CONFIRM": confirm, **(settings or {})},
        )
        self.poisons = folder / "poisons.json"
        self.poisons.write_text("{}")
        self.crashes = folder / "crashes"
        self.crashes.mkdir(exist_ok=True)
        self._folder = folder
        self._faults = faults
        self._roles = list(roles)
        self.ports = [self.port, *(free_port() for _ in range(self._roles.count("listener") - 1))]
        """Of the listeners."""
        self._children: dict[int, subprocess.Popen[bytes] | Forked] = {}
        self._seen: dict[int, psutil.Process] = {}
        self._wanted = threading.Event()
        self._guard = threading.Lock()
        self._keeper: threading.Thread | None = None

    def start(self) -> None:
        """Start every process, and keep each running until `stop`."""
        with _MIGRATING:
            self.reports.counts()
        self._wanted.set()
        for number in range(len(self._roles)):
            self._spawn(number)
        self._keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)
        self._keeper.start()

    def stop(self) -> None:
        """End every process, also those that survived their parent."""
        self._wanted.clear()
        if self._keeper:
            self._keeper.join()
        with self._guard:
            self._note()
            for child in self._children.values():
                child.terminate()
            for child in self._children.values():
                end(child, patience_s=40.0)
        for process in self.orphans():
            process.kill()
        super().stop()

    def kill(self, role: str, *, chosen: int = 0) -> int:
        """Kill -9 one process of a role (the worker has a parent and a child), or with `all` every one of all roles.

        Returns:
            How many were killed.
        """
        with self._guard:
            self._note()
            numbers = [number for number, name in enumerate(self._roles) if role in ("all", name)]
            found: list[psutil.Process] = []
            for number in numbers:
                found += self._family(number)
            victims = found if role == "all" or not found else [found[chosen % len(found)]]
            for process in victims:
                process.kill()
        return len(victims)

    def terminate(self, role: str) -> None:
        """SIGTERM to every process of a role: it ends in good order and is started again."""
        with self._guard:
            for number, name in enumerate(self._roles):
                if role == name:
                    self._children[number].terminate()

    def processes(self, role: str) -> list[int]:
        """Ids of the processes of a role that we started; another one when it was started again."""
        with self._guard:
            return [self._children[number].pid for number, name in enumerate(self._roles) if role == name]

    def logs(self, role: str) -> list[str]:
        """What each process of a role has logged, over all its lives."""
        numbers = [number for number, name in enumerate(self._roles) if name == role]
        return [(self._folder / f"{role}-{number}.log").read_text(errors="replace") for number in numbers]

    def orphans(self) -> list[psutil.Process]:
        """Processes that outlived the process that we started, some seconds after its death."""
        deadline = time.monotonic() + _SEEN_TO_END_S
        while (left := self._left()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return left

    def wait_ready(self, **_options: object) -> None:
        """Wait for C-ECHO and, if there is to be one, for a worker with its model loaded."""
        if "worker" in self._roles:
            super().wait_ready(timeout_s=START_S)
        else:
            wait_until(self._listens, timeout_s=START_S, what="the listener does not start")

    def _left(self) -> list[psutil.Process]:
        own = {process.pid for number in self._children for process in self._family(number)}
        return [
            process
            for process in self._seen.values()
            if process.pid not in own and process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        ]

    def _family(self, number: int) -> list[psutil.Process]:
        child = self._children[number]
        if child.poll() is not None:
            return []
        try:
            process = psutil.Process(child.pid)
            return [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _note(self) -> None:
        for number in self._children:
            for process in self._family(number):
                self._seen.setdefault(process.pid, process)

    def _keep(self) -> None:
        while self._wanted.is_set():
            with self._guard:
                self._note()
                for number, child in list(self._children.items()):
                    if child.poll() is not None:
                        self._spawn(number)
            time.sleep(_RESTART_AFTER_S)

    def _spawn(self, number: int) -> None:
        role = self._roles[number]
        faults, log = ",".join(self._faults), self._folder / f"{role}-{number}.log"
        environment = {
            **self.environment,
            POISON_VARIABLE: str(self.poisons),
            CRASHES_VARIABLE: str(self.crashes),
            "OMP_NUM_THREADS": "1",
            **self._ports_of(number),
        }
        if FRESH_ONLY.isdisjoint(self._faults):
            self._children[number] = nursery().fork([faults, role], environment=environment, log=log)
            return
        with log.open("ab") as written:
            self._children[number] = subprocess.Popen(
                [sys.executable, str(_SABOTAGE), faults, role], env=environment, stdout=written, stderr=written
            )

    def _ports_of(self, number: int) -> dict[str, str]:
        """A second listener has a port of its own."""
        listeners = [index for index, role in enumerate(self._roles) if role == "listener"]
        port = self.ports[listeners.index(number)] if number in listeners else self.port
        return {"PELLUCID__LISTENER__PORT": str(port)}


def _quick(pipelines: Path) -> dict[str, str]:
    """Settings that make faults heal within seconds, so that many fit into an hour."""
    return {
        "PELLUCID__PIPELINES__DIRECTORY": json.dumps(str(pipelines)),
        "PELLUCID__PIPELINES__ENABLED": '["campaign"]',
        "PELLUCID__WORKER__THREADS": "1",
        "PELLUCID__WORKER__LEASE_S": str(LEASE_S),
        "PELLUCID__WORKER__MAXIMUM_ATTEMPTS": "3",
        "PELLUCID__INTAKE__SWEEP_INTERVAL_S": "1.0",
        "PELLUCID__LISTENER__MINIMUM_FREE_MB": "0",
        "PELLUCID__SENDER__FIRST_RETRY_S": "0.2",
        "PELLUCID__SENDER__LONGEST_RETRY_S": "1.0",
        "PELLUCID__SENDER__TIMEOUT_S": "10.0",
        "PELLUCID__SENDER__LEASE_S": "16.0",
        "PELLUCID__SENDER__CONFIRM_TIMEOUT_S": "4.0",
    }


def _cheap_pipeline(folder: Path) -> Path:
    """Write a pipeline with the shipped model, one explainer and no assessor."""
    target = folder / "pipelines"
    target.mkdir(exist_ok=True)
    (target / "campaign.toml").write_text(_PIPELINE)
    return target
