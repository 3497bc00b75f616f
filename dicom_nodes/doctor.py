"""`pellucid doctor`: looks at everything a running service needs, and says what to do."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections import Counter
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import click

from dicom_nodes.client import verify
from dicom_nodes.destinations import UnknownDestinationError, find_destination
from dicom_nodes.exposure import Diagnosis, State, audit, certificates, files, listener, ports_taken, secrets
from dicom_nodes.requestor import Destination
from dicom_nodes.web_client import verify_web
from service.cli import settings_of
from service.errors import DestinationError, PellucidError, StoreError
from service.files import make_directory
from service.ledger.arrivals import Arrivals
from service.ledger.database import open_database
from service.ledger.report import Reports
from service.model_card import load_card
from service.observe import configure_logging
from service.pipelines import SERIES_NUMBERS, alike, chosen_by, load_pipelines
from service.queue import make_app
from service.settings import files_with_secrets
from service.spool import open_spool
from service.storage import open_storage

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from dicom_nodes.web_client import WebDestination
    from service.ledger.report import ProcessReport
    from service.settings import Settings

PROCESSES = ("listener", "worker", "sender")
_ALIVE_WITHIN_S = 20.0
_TIMEOUT_S = 5.0
_CLOCKS_DIFFER_S = 10.0
_ADVICE = {
    "disk": "set state.directory to a folder that this user may write",
    "spool": "set state.directory to a folder that this user may write, or correct [spool]",
    "store": "correct [spool]; docs/operations.md says what the bucket must allow",
    "ledger": "start the database, or correct ledger.database_url (postgresql+psycopg://user@host/name); empty is "
    "SQLite, whose folder must be writable and have room",
    "broker": "start the broker, or correct queue.broker_url (redis://host:6379/0; empty: a folder)",
    "pipelines": "correct pipelines.enabled, the pipeline's file, or models.directory",
    "certificates": "correct the paths in [tls] and [audit], and who may read the files",
}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Check settings, disk, ledger, broker, models and destinations. Exit code 1: there is a problem."""
    configure_logging("doctor")
    settings = settings_of(ctx)
    diagnoses = [*diagnose(settings), *secrets(files_with_secrets(ctx.find_root().obj, os.environ))]
    if as_json:
        click.echo(json.dumps([asdict(entry) for entry in diagnoses], indent=2))
    else:
        for entry in diagnoses:
            click.echo(f"{entry.state:8} {entry.name}: {entry.found}")
            if entry.advice:
                click.echo(f"{'':8} -> {entry.advice}")
    ctx.exit(1 if any(entry.state is State.PROBLEM for entry in diagnoses) else 0)


def diagnose(settings: Settings) -> list[Diagnosis]:
    """Look at everything; one thing that is broken does not hide the next."""
    found = [Diagnosis(name="settings", state=State.OK, found="valid")]
    for name, examine in _EXAMINATIONS.items():
        try:
            found += examine(settings)
        except PellucidError as error:
            found.append(Diagnosis(name=name, state=State.PROBLEM, found=str(error), advice=_ADVICE.get(name, "")))
        except Exception as error:  # noqa: BLE001 -- whatever a database or broker raises is a finding
            words = f"does not work: {_first_line(error)}"
            found.append(Diagnosis(name=name, state=State.PROBLEM, found=words, advice=_ADVICE.get(name, "")))
    return found


def _disk(settings: Settings) -> Iterator[Diagnosis]:
    folder = settings.state.directory.absolute()
    make_directory(folder)
    free_mb = shutil.disk_usage(folder).free >> 20
    least = settings.listener.minimum_free_mb
    if not os.access(folder, os.W_OK):
        yield Diagnosis(name="disk", state=State.PROBLEM, found=f"{folder} is not writable", advice="change its owner")
    elif free_mb < least:
        yield Diagnosis(
            name="disk",
            state=State.PROBLEM,
            found=f"{free_mb} MB free in {folder}: new instances are refused",
            advice=f"free space, or lower listener.minimum_free_mb (now {least})",
        )
    else:
        yield Diagnosis(name="disk", state=State.OK, found=f"{free_mb} MB free in {folder}")


def _spool(settings: Settings) -> Iterator[Diagnosis]:
    spool = open_spool(settings)
    orphans = spool.orphans()
    if orphans:
        yield Diagnosis(
            name="spool",
            state=State.WARNING,
            found=f"{len(orphans)} instances without a row in the ledger lie in {spool.place}, folder orphans",
            advice="their senders were not told that they are stored: compare with the PACS, or send them again with "
            "`pellucid send`, then delete them",
        )
    else:
        yield Diagnosis(name="spool", state=State.OK, found="every file is accounted for")


def _store(settings: Settings) -> Iterator[Diagnosis]:
    """Do with one small file what the service does with every one."""
    if not settings.spool.url:
        return
    storage = open_storage(settings, "doctor")
    key = uuid.uuid4().hex
    storage.write(key, key.encode())
    with storage.file(key) as path:
        same = path.read_bytes() == key.encode()
    moved = storage.move(key, f"{key}.moved")
    listed = [entry.key for entry in storage.entries("")]
    storage.remove(f"{key}.moved")
    if not same or not moved or f"{key}.moved" not in listed:
        raise StoreError(f"{storage.place} does not give back what it was given")
    yield Diagnosis(name="store", state=State.OK, found=f"{storage.place} keeps, lists, gives and deletes files")
    if settings.spool.endpoint_url.startswith("http://"):
        yield Diagnosis(
            name="store",
            state=State.WARNING,
            found="patients' images go to the store without TLS",
            advice="set spool.endpoint_url to https://, and spool.trusted to its authority's certificate",
        )


def _ledger(settings: Settings) -> Iterator[Diagnosis]:
    engine = open_database(settings.database_url)
    reports = Reports(engine)
    counts = reports.counts()
    words = ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "no jobs yet"
    yield Diagnosis(name="ledger", state=State.OK, found=f"{engine.dialect.name}; {words}")
    processes = reports.alive(within_s=_ALIVE_WITHIN_S)
    engine.dispose()
    yield from _clocks(processes)
    if engine.dialect.name != "sqlite" and not settings.worker.time_zone:
        yield Diagnosis(
            name="time zone",
            state=State.WARNING,
            found="results are dated in the zone of the machine that makes them",
            advice='several machines may share this ledger: set worker.time_zone, for example "Europe/Berlin"',
        )
    yield from _processes(settings, {report.name for report in processes})


def _clocks(processes: Sequence[ProcessReport]) -> Iterator[Diagnosis]:
    ahead = max((-report.age_s for report in processes), default=0.0)
    if ahead > _CLOCKS_DIFFER_S:
        yield Diagnosis(
            name="clock",
            state=State.PROBLEM,
            found=f"a process wrote into the ledger {ahead:.0f} s in the future of this machine's clock",
            advice="set the clocks of all machines by NTP: leases and quiet periods go by them",
        )


def _processes(settings: Settings, alive: Collection[str]) -> Iterator[Diagnosis]:
    missing = [name for name in PROCESSES if name not in alive]
    if "listener" in missing:
        yield from ports_taken(settings)
    if missing:
        yield Diagnosis(
            name="processes",
            state=State.WARNING,
            found=f"not running: {', '.join(missing)}",
            advice="start `pellucid serve`, or each as a service of its own; a worker takes a while to load its models",
        )
    else:
        yield Diagnosis(name="processes", state=State.OK, found="listener, worker and sender are alive")


def _set_aside(settings: Settings) -> Iterator[Diagnosis]:
    engine = open_database(settings.database_url)
    rows = Arrivals(engine).set_aside()
    engine.dispose()
    if rows:
        newest = rows[0]
        yield Diagnosis(
            name="set aside",
            state=State.WARNING,
            found=f"{len(rows)} instances came under a known SOP Instance UID with other content, last from "
            f"{newest.calling_ae} at {newest.address}: {newest.sop_instance_uid}",
            advice="they are kept and never analysed: find the device that gives out one UID twice, or the PACS "
            "that sends again what it corrected (a patient's name, say)",
        )


def _broker(settings: Settings) -> Iterator[Diagnosis]:
    with make_app(settings).connection_for_write() as connection:
        connection.ensure_connection(max_retries=1, interval_start=0.1, timeout=_TIMEOUT_S)
    yield Diagnosis(name="broker", state=State.OK, found=f"{connection.transport_cls} is reachable")


def _models(settings: Settings) -> Iterator[Diagnosis]:
    pipelines = load_pipelines(settings)
    names = ", ".join(entry.pipeline.name for entry in pipelines)
    yield Diagnosis(name="pipelines", state=State.OK, found=names or "none is enabled")
    title = settings.listener.ae_title
    if pipelines and not chosen_by(title, pipelines):
        titles = ", ".join(sorted({title for entry in pipelines for title in entry.called_ae_titles}))
        yield Diagnosis(
            name="pipelines",
            state=State.WARNING,
            found=f"what is sent to {title} is kept, and no pipeline analyses it",
            advice=f"send to {titles}, or add {title} to the called_ae_titles of a pipeline",
        )
    for pair in alike(entry.pipeline for entry in pipelines):
        yield Diagnosis(
            name="pipelines",
            state=State.WARNING,
            found=f"results of {pair} in one study get the same Series Numbers",
            advice=f"set series_number in their files at least {SERIES_NUMBERS} apart",
        )
    for model in sorted({entry.pipeline.model for entry in pipelines}):
        folder = settings.models_directory / model
        weights = load_card(folder).weights
        path = folder / weights.file
        if not path.is_file():
            found = f"{path} is missing"
        elif hashlib.sha256(path.read_bytes()).hexdigest() != weights.sha256:
            found = f"{path} is not the file that model.toml names (sha256 differs)"
        else:
            yield Diagnosis(name=f"model {model}", state=State.OK, found="weights are intact")
            continue
        yield Diagnosis(name=f"model {model}", state=State.PROBLEM, found=found, advice="restore the model package")


def _destinations(settings: Settings) -> Iterator[Diagnosis]:
    if not settings.peers:
        yield Diagnosis(
            name="destinations",
            state=State.WARNING,
            found="there is no [peers] section: results have nowhere to go",
            advice="add [peers.NAME] with ae_title, host and port of the PACS",
        )
    titles = Counter(peer.ae_title for peer in settings.peers.values())
    for name in (*settings.peers, *(f"@{title}" for title, count in titles.items() if count > 1)):
        try:
            way = _verify(replace(find_destination(settings, name), timeout_s=_TIMEOUT_S))
        except (DestinationError, UnknownDestinationError) as error:
            yield Diagnosis(
                name=f"destination {name}",
                state=State.PROBLEM,
                found=str(error),
                advice=f"check host, port and AE title here, and that the peer knows {settings.sender.ae_title}",
            )
        else:
            yield Diagnosis(name=f"destination {name}", state=State.OK, found=way)


def _verify(to: Destination | WebDestination) -> str:
    if isinstance(to, Destination):
        verify(to)
        return "answers C-ECHO"
    verify_web(to)
    return "answers QIDO-RS"


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


_EXAMINATIONS: dict[str, Callable[[Settings], Iterator[Diagnosis]]] = {
    "disk": _disk,
    "spool": _spool,
    "store": _store,
    "ledger": _ledger,
    "set aside": _set_aside,
    "broker": _broker,
    "pipelines": _models,
    "destinations": _destinations,
    "listener": listener,
    "files": files,
    "certificates": certificates,
    "audit": audit,
}
