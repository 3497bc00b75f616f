"""The command `pellucid`: finds its commands by entry point, so that starting it never imports torch."""

from __future__ import annotations

import ast
import os
import sys
from importlib.metadata import EntryPoint, entry_points, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import click

from service.errors import PellucidError, SettingsError
from service.settings import Settings, load_settings
from service.validation import nearest

GROUP = "pellucid.commands"


class Commands(click.Group):
    """Loads a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all registered commands."""
        del ctx
        return sorted(entry.name for entry in entry_points(group=GROUP))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        del ctx
        for entry in entry_points(group=GROUP, name=cmd_name):
            command = entry.load()
            return command if isinstance(command, click.Command) else None
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which one is near."""
        if args and args[0] not in self.list_commands(ctx):
            ctx.fail(f"no command '{args[0]}'{nearest(args[0], self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List each command with the first sentence of its help."""
        del ctx
        entries = sorted(entry_points(group=GROUP), key=lambda entry: entry.name)
        with formatter.section("Commands"):
            formatter.write_dl([(entry.name, _first_sentence(entry)) for entry in entries])


def _first_sentence(entry: EntryPoint) -> str:
    """Read a command's first sentence from its source: importing them all would take seconds, and torch."""
    found = find_spec(entry.module)
    source = Path(found.origin).read_text(encoding="utf-8") if found and found.origin else ""
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name == entry.attr:
            return " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split()).partition(". ")[0].rstrip(".")
    return ""


@click.command(cls=Commands)
@click.version_option(version("pellucid"), prog_name="pellucid")
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML file with settings; config/default.toml explains each. Default: $PELLUCID_CONFIG.",
)
@click.pass_context
def cli(ctx: click.Context, config: Path | None) -> None:
    """Explainable AI results in the PACS you have. Research use; not for primary diagnosis."""
    # Everything that is written here may hold patient data: it is for its owner alone.
    os.umask(0o077)
    named = os.environ.get("PELLUCID_CONFIG")
    ctx.obj = config or (Path(named) if named else None)


def settings_of(ctx: click.Context) -> Settings:
    """Read the settings for a command.

    Raises:
        UsageError: names the key.
    """
    path: Any = ctx.find_root().obj
    try:
        return load_settings(path, os.environ)
    except SettingsError as error:
        raise UsageError(str(error)) from None


class UsageError(click.ClickException):
    """Ends the command with exit code 2: usage or settings."""

    exit_code = 2


def main() -> None:
    """Run `pellucid`. Exit code 0: done; 1: it failed or something was refused; 2: usage or settings."""
    # Threads that wait for their fellows shall sleep: spinning ones slow a busy machine down several times.
    # OpenMP reads it once, when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        cli.main(prog_name="pellucid", standalone_mode=True)
    except PellucidError as error:
        _end(str(error), 2 if isinstance(error, SettingsError) else 1)
    except OSError as error:
        if error.filename is None:
            raise
        _end(f"{error.filename}: {error.strerror} (pellucid runs as user {os.geteuid()})", 1)
    except Exception as error:
        # Loaded already, if the error is the ledger's.
        database = sys.modules.get("sqlalchemy.exc")
        if database is None or not isinstance(error, database.DBAPIError):
            raise
        _end(f"the ledger does not answer: {str(error.orig).partition(chr(10))[0]}; see pellucid doctor", 1)


def _end(words: str, code: int) -> NoReturn:
    click.echo(f"Error: {words}", err=True)
    sys.exit(code)
