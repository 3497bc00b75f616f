"""`pellucid listener`, `sender`, `send` and `echo`."""

from __future__ import annotations

import json
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dicom_nodes.client import echo as verify
from dicom_nodes.client import send_files
from dicom_nodes.listener import run_listener
from dicom_nodes.sender import run_sender
from dicom_nodes.status import Verdict
from service.cli import settings_of
from service.errors import DestinationError
from service.observe import configure_logging
from service.sections import ae_title

if TYPE_CHECKING:
    from dicom_nodes.outgoing import SendOutcome


class Place(click.ParamType):  # type: ignore[type-arg]  # generic in the newest click only
    """HOST:PORT; an IPv6 address stands in brackets."""

    name = "HOST:PORT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        """Split and check."""
        host, _, port = str(value).rpartition(":")
        if not host or not port.isdigit() or not 1 <= int(port) <= 65535:  # noqa: PLR2004
            self.fail(f"'{value}' is not HOST:PORT", param, ctx)
        return host.strip("[]"), int(port)


class Title(click.ParamType):  # type: ignore[type-arg]  # generic in the newest click only
    """An AE title (PS3.5 section 6.2)."""

    name = "AE TITLE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check."""
        try:
            return ae_title(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


TO = click.option("--to", required=True, type=Place(), help="Where the peer listens.")
CALLED = click.option("--called", required=True, type=Title(), help="AE title of the peer.")
CALLING = click.option("--calling", type=Title(), help="Our AE title; default: sender.ae_title.")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="For machines.")


@click.command()
@click.pass_context
def listener(ctx: click.Context) -> None:
    """Receive studies until SIGTERM; open associations are finished first."""
    settings = settings_of(ctx)
    configure_logging("listener", form=settings.log.format)
    run_listener(settings, _stop_on_signals())


@click.command()
@click.pass_context
def sender(ctx: click.Context) -> None:
    """Deliver results until SIGTERM; the object on its way is finished first."""
    settings = settings_of(ctx)
    configure_logging("sender", form=settings.log.format)
    run_sender(settings, _stop_on_signals())


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@TO
@CALLED
@CALLING
@AS_JSON
@click.pass_context
def send(  # noqa: PLR0917 -- click passes them by name
    ctx: click.Context, paths: tuple[Path, ...], to: tuple[str, int], called: str, calling: str | None, as_json: bool
) -> None:
    """Send files, folders or a DICOMDIR by C-STORE, as they are. Exit code 1: something was not stored."""
    configure_logging("send")
    calling = calling or settings_of(ctx).sender.ae_title
    begun = time.monotonic()
    progress = (lambda _outcome: None) if as_json else _show
    outcomes = send_files(paths, *to, called, calling, progress)
    stored = sum(outcome.verdict is Verdict.DELIVERED for outcome in outcomes)
    if as_json:
        click.echo(json.dumps([_as_dict(outcome) for outcome in outcomes], indent=2))
    else:
        click.echo(f"{stored} of {len(outcomes)} stored in {time.monotonic() - begun:.1f} s")
    if not outcomes:
        raise click.ClickException("there is no DICOM file among the paths")
    ctx.exit(0 if stored == len(outcomes) else 1)


@click.command()
@TO
@CALLED
@CALLING
@AS_JSON
@click.pass_context
def echo(ctx: click.Context, to: tuple[str, int], called: str, calling: str | None, as_json: bool) -> None:
    """Verify a peer by C-ECHO. Exit code 1: it does not answer, and why."""
    configure_logging("echo")
    begun = time.monotonic()
    reason = ""
    try:
        verify(*to, called, calling or settings_of(ctx).sender.ae_title)
    except DestinationError as error:
        reason = str(error)
    seconds = round(time.monotonic() - begun, 3)
    if as_json:
        click.echo(json.dumps({"ok": not reason, "reason": reason, "seconds": seconds}))
    else:
        click.echo(reason or f"{called} answers ({seconds} s)")
    ctx.exit(1 if reason else 0)


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: stop.set())
    return stop


def _show(outcome: SendOutcome) -> None:
    if outcome.verdict is not Verdict.DELIVERED or outcome.reason:
        click.echo(f"{outcome.path}: {outcome.verdict}: {outcome.reason}")


def _as_dict(outcome: SendOutcome) -> dict[str, Any]:
    return {
        "path": str(outcome.path),
        "verdict": str(outcome.verdict),
        "status": None if outcome.status is None else f"0x{outcome.status:04X}",
        "reason": outcome.reason,
    }
