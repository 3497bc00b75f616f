"""`pellucid health`: asks the processes of this machine, for container health checks."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import click

from service.cli import UsageError, settings_of

_TIMEOUT_S = 5.0
PROCESSES = ("listener", "worker", "sender")


@click.command()
@click.argument("process", required=False, type=click.Choice(PROCESSES))
@click.option("--ready", is_flag=True, help="Ask whether it is ready, not only alive.")
@click.pass_context
def health(ctx: click.Context, process: str | None, ready: bool) -> None:
    """Ask PROCESS for its health; without one, all that answer here. Exit code 1: something is wrong."""
    settings = settings_of(ctx)
    ports = {name: getattr(settings.http, f"{name}_port") for name in ([process] if process else PROCESSES)}
    asked = {name: port for name, port in ports.items() if port}
    if not asked:
        raise UsageError("no port is set in [http]: nothing can be asked")
    host = "127.0.0.1" if settings.http.host in ("0.0.0.0", "::") else settings.http.host  # noqa: S104 -- compared
    path = "ready" if ready else "live"
    answers = {name: ask(f"http://{host}:{port}/health/{path}") for name, port in asked.items()}
    heard = {name: answer for name, answer in answers.items() if answer is not None}
    for name, answer in heard.items():
        click.echo(f"{name}: {answer or 'ok'}")
    if not heard:
        click.echo("nothing answers")
    ctx.exit(0 if heard and not any(heard.values()) else 1)


def ask(url: str) -> str | None:
    """Return what is wrong, empty when nothing is; None when nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S):  # noqa: S310 -- http, from our settings
            return ""
    except urllib.error.HTTPError as error:
        with error:
            return ", ".join(f"{name}: {text}" for name, text in json.load(error)["wrong"].items())
    except OSError:
        return None
