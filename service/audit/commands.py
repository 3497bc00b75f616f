"""`pellucid audit verify` and `pellucid audit show`."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import fromstring

import click
from sqlalchemy.exc import SQLAlchemyError

from service.audit.trail import open_log
from service.audit.verify import verify as check
from service.cli import settings_of
from service.errors import SettingsError
from service.ledger.database import open_database
from service.ledger.report import Reports

if TYPE_CHECKING:
    from datetime import datetime

    from service.audit.chain import Record
    from service.settings import Settings


_SHORTEST_ID = 8


@click.group()
def audit() -> None:
    """The audit trail: who sent what, which model made which result, and who took it."""


@audit.command()
@click.option("--known-hash", default="", help="Hash of a record seen elsewhere, for example in a syslog message.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.pass_context
def verify(ctx: click.Context, known_hash: str, as_json: bool) -> None:
    """Check that no record was altered, removed or reordered. Exit code 1: one was."""
    settings = settings_of(ctx)
    found = check(open_log(settings), known_hash=known_hash, first_arrival=_first_arrival(settings))
    if as_json:
        click.echo(json.dumps({"intact": found.intact, **asdict(found)}, indent=2))
    else:
        for line in (*found.problems, *found.notes):
            click.echo(line)
        click.echo(f"{found.records} records, {'intact' if found.intact else 'NOT intact'}; last {found.last_hash}")
    ctx.exit(0 if found.intact else 1)


def _first_arrival(settings: Settings) -> datetime | None:
    """Ask the ledger; the log itself is checked without it, too."""
    try:
        return Reports(open_database(settings.database_url)).first_arrival()
    except (SettingsError, SQLAlchemyError) as error:
        click.echo(f"not compared with the ledger, which does not answer ({type(error).__name__})", err=True)
        return None


@audit.command()
@click.argument("study")
@click.option("--json", "as_json", is_flag=True, help="For machines: every record with its whole message.")
@click.pass_context
def show(ctx: click.Context, study: str, as_json: bool) -> None:
    """Show what happened with a STUDY.

    By its Study Instance UID, or a job's id as `pellucid jobs` shows it. Exit code 1: nothing is known of it.
    """
    records = [
        record
        for record, _ in open_log(settings_of(ctx)).records()
        if record.study == study or (len(study) >= _SHORTEST_ID and record.job.startswith(study))
    ]
    if as_json:
        click.echo(json.dumps([{**asdict(record), "details": details(record)} for record in records], indent=2))
    else:
        for record in records:
            click.echo(f"{record.at} {record.number} {record.kind}")
            for name, value in details(record).items():
                click.echo(f"    {name}: {value}")
    if not records:
        raise click.ClickException(f"the audit trail knows nothing of '{study}'")


def details(record: Record) -> dict[str, Any]:
    """Return what an audit message says: outcome, participants, SOP classes, and our details in clear."""
    # Our own log, not a stranger's document; it holds no entities, since ElementTree wrote it.
    root = fromstring(record.message)  # noqa: S314
    event = root.find("EventIdentification")
    event_id = root.find("EventIdentification/EventID")
    found = {
        "event": "" if event_id is None else event_id.attrib["originalText"],
        "outcome": "" if event is None else event.attrib["EventOutcomeIndicator"],
        "participants": ", ".join(
            " ".join(filter(None, [entry.attrib["UserID"], entry.attrib.get("NetworkAccessPointID", "")]))
            for entry in root.findall("ActiveParticipant")
        ),
    }
    for listed in root.iter("SOPClass"):
        uids = [entry.attrib["UID"] for entry in listed.findall("Instance")]
        found[f"SOP class {listed.attrib['UID']}"] = " ".join([listed.attrib["NumberOfInstances"], *uids])
    for entry in root.iter("ParticipantObjectDetail"):
        found[entry.attrib["type"]] = base64.b64decode(entry.attrib["value"]).decode()
    return found
