"""`pellucid fetch`: a study, and its patient's earlier ones, from a peer into the spool."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click
from prometheus_client import CollectorRegistry

from dicom_nodes.commands import Title
from dicom_nodes.destinations import UnknownDestinationError, destination_of, find_peer
from dicom_nodes.headers import is_uid
from dicom_nodes.reception import Store, kept_open
from dicom_nodes.requestor import Destination
from dicom_nodes.retrieval import Archive, Inbox, missing, wait_for
from dicom_nodes.witness import RecordingWitness
from service.audit.trail import open_trail
from service.cli import UsageError, settings_of
from service.errors import DestinationError
from service.ledger.arrivals import Arrivals
from service.ledger.database import open_database
from service.metrics import ListenerMetrics
from service.observe import configure_logging
from service.pipelines import load_pipelines
from service.spool import open_spool

if TYPE_CHECKING:
    from service.sections import Peer
    from service.settings import Settings

NOT_FOUND = 3
"""Exit code: the peer does not have the study."""


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """What became of one study."""

    study_instance_uid: str
    listed: int
    """Instances that the peer says it has."""
    missing: int
    """Of these, those that are not here."""
    reason: str = ""


@click.command()
@click.argument("study")
@click.option("--from", "source", required=True, help="Name of a [peers] section.")
@click.option("--priors", default=0, show_default=True, type=click.IntRange(min=0), help="So many earlier studies too.")
@click.option("--called", type=Title(), help="AE title of ours that it counts as sent to; default: listener.ae_title.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.pass_context
def fetch(ctx: click.Context, study: str, source: str, priors: int, called: str | None, as_json: bool) -> None:  # noqa: PLR0917
    """Fetch STUDY (a Study Instance UID) from a peer, as if the peer had sent it.

    Exit code 0: all of it is here; 1: something is missing, and why; 2: usage or settings; 3: the peer does not
    have the study.
    """
    settings = settings_of(ctx)
    configure_logging("fetch", form=settings.log.format)
    if not is_uid(study):
        raise UsageError(f"'{study}' is no UID")
    try:
        found = fetch_studies(settings, study, source, priors=priors, called=called or settings.listener.ae_title)
    except UnknownDestinationError as error:
        raise UsageError(str(error)) from None
    if as_json:
        click.echo(json.dumps([asdict(entry) for entry in found], indent=2))
    else:
        for entry in found:
            _show(entry, source)
    if not found[0].listed and not found[0].reason:
        ctx.exit(NOT_FOUND)
    ctx.exit(1 if any(entry.missing or entry.reason for entry in found) else 0)


def fetch_studies(settings: Settings, study: str, source: str, *, priors: int, called: str) -> list[Fetched]:
    """Fetch a study and its patient's earlier ones.

    Raises:
        UnknownDestinationError: the peer is in no section, or its certificates cannot be used; or no pipeline is
            called by `called`.
    """
    peer = find_peer(settings, source)
    _check_called(settings, called)
    engine = open_database(settings.database_url)
    arrivals = Arrivals(engine)
    spool = open_spool(settings)
    # The listener cleans up what dead processes left; here the folders alone are needed.
    spool.prepare()
    trail = open_trail(settings, "fetch")
    witness = RecordingWitness(trail, ListenerMetrics(CollectorRegistry()))
    store = Store(spool=spool, arrivals=arrivals, stored=lambda: None, witness=witness)
    archive = Archive(destination_of(settings, peer), move=peer.retrieve == "move")
    try:
        with kept_open(store):
            found = [_fetch(settings, peer, archive, store, arrivals, study, called)]
            if priors and found[0].listed:
                wanted = [entry.study_instance_uid for entry in archive.earlier(study, limit=priors)]
                found += [_fetch(settings, peer, archive, store, arrivals, uid, called) for uid in wanted]
    except DestinationError as error:
        found = [Fetched(study_instance_uid=study, listed=0, missing=0, reason=str(error))]
    finally:
        engine.dispose()
    return found


def _check_called(settings: Settings, called: str) -> None:
    served = {settings.listener.ae_title}
    served |= {title for pipeline in load_pipelines(settings) for title in pipeline.called_ae_titles}
    if called not in served:
        raise UnknownDestinationError(f"AE title '{called}' serves no pipeline; served are {', '.join(sorted(served))}")


def _fetch(  # noqa: PLR0917 -- one caller, above
    settings: Settings, peer: Peer, archive: Archive, store: Store, arrivals: Arrivals, study: str, called: str
) -> Fetched:
    listed = archive.instances(study)
    if not listed:
        return Fetched(study_instance_uid=study, listed=0, missing=0)
    to = destination_of(settings, peer)
    inbox = Inbox(store, calling_ae=peer.ae_title, called_ae=called, address=to.host[:64])
    reason = ""
    try:
        archive.fetch(study, listed, inbox)
    except DestinationError as error:
        reason = str(error)
    finally:
        inbox.close()
    by_listener = isinstance(to, Destination) and peer.retrieve == "move"
    patience = settings.sender.timeout_s if by_listener and not reason else 0.0
    left = wait_for(lambda: missing(arrivals, listed), timeout_s=patience)
    if left and not reason:
        reason = (
            "the peer did not send everything"
            if not by_listener
            else (
                f"not everything came to our listener: is it running, and does the peer know {called} with its address?"
            )
        )
    return Fetched(study_instance_uid=study, listed=len(listed), missing=left, reason=reason if left else "")


def _show(entry: Fetched, source: str) -> None:
    if not entry.listed and not entry.reason:
        click.echo(f"{entry.study_instance_uid}: {source} does not have it")
    else:
        here = f"{entry.listed - entry.missing} of {entry.listed} instances are here"
        click.echo(f"{entry.study_instance_uid}: {entry.reason or here}")
