"""`pellucid models`: what packages there are, what is in one, whether it works here, and how one is added."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from service.cli import UsageError, settings_of
from service.errors import PellucidError, SettingsError
from service.model_card import load_card
from service.terminal import terminal
from service.validation import nearest

if TYPE_CHECKING:
    from service.model_card import ModelCard
    from workers.models.check import Check


@click.group()
def models() -> None:
    """List, show, check, add and export model packages."""


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.pass_context
def list_(ctx: click.Context, as_json: bool) -> None:
    """List the packages in the models directory; one whose card is wrong is listed with the reason."""
    folder = settings_of(ctx).models_directory
    rows: list[dict[str, object]] = []
    for path in sorted(folder.glob("*/model.toml")):
        try:
            card = load_card(path.parent)
        except SettingsError as error:
            rows.append({"name": path.parent.name, "fault": str(error)})
            continue
        rows.append(
            {
                "name": card.name,
                "title": card.title,
                "version": card.version,
                "format": card.weights.format,
                "labels": [label.name for label in card.labels],
                "reads": card.series.reading if card.series else "image",
                "checked": _is_checked(path.parent, card),
                "fault": "",
            }
        )
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    table = Table("name", "title", "version", "format", "labels", "reads", "checked", "fault")
    for row in rows:
        cells = [row.get(k, "") for k in ("name", "title", "version", "format", "labels", "reads", "checked", "fault")]
        table.add_row(*(", ".join(c) if isinstance(c, list) else str(c) for c in cells))
    terminal().print(table)


def _is_checked(folder: Path, card: ModelCard) -> bool:
    try:
        found = json.loads((folder / "check.json").read_text(encoding="utf-8"))
        return bool(found["passed"] and found["sha256"] == card.weights.sha256)
    except (OSError, ValueError, KeyError, TypeError):
        return False


@models.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.pass_context
def show(ctx: click.Context, name: str, as_json: bool) -> None:
    """Show a package's card and the last check of it."""
    folder = _folder(ctx, name)
    card = load_card(folder)
    check = _last_check(folder)
    if as_json:
        click.echo(json.dumps({"card": card.model_dump(), "check": check}, indent=2))
        return
    console = terminal()
    console.print(f"{card.title} ({card.name} {card.version}), {card.manufacturer}")
    for title, text in (
        ("intended use", card.intended_use),
        ("limits", card.limits),
        ("learned from", card.training.data),
        ("licence", card.training.licence),
        ("sha256", card.weights.sha256),
    ):
        console.print(f"{title}: {text}", highlight=False)
    table = Table("label", "code", "operating point", "threshold", "sensitivity", "specificity")
    for label in card.labels:
        for point in label.operating_points:
            mark = " (default)" if point.name == label.operating_point else ""
            code = f"{label.code.value} {label.code.scheme}"
            figures = (f"{point.threshold:.3f}", f"{point.sensitivity:.3f}", f"{point.specificity:.3f}")
            table.add_row(label.name, code, point.name + mark, *figures)
    console.print(table)
    console.print("Sensitivity and specificity are the card's own, on its makers' data. Research use.")


def _last_check(folder: Path) -> object:
    try:
        return json.loads((folder / "check.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


@models.command()
@click.argument("name")
@click.option("--explainer", "names", multiple=True, help="Only these methods; default: all that are registered.")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option(
    "--thorough", is_flag=True, help="Draw the weights anew for methods of many passes too: minutes for each."
)
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.pass_context
def check(  # noqa: PLR0917 -- click passes them by name
    ctx: click.Context, name: str, names: tuple[str, ...], device: str, thorough: bool, as_json: bool
) -> None:
    """Run a package on phantoms and keep what was seen beside its card, as check.json."""
    folder = _folder(ctx, name)
    found = _check(folder, device, names, thorough=thorough)
    try:
        _write(folder, found)
    except OSError as error:
        # A packaged configuration may be read-only; what was seen is still worth printing.
        click.echo(f"{folder}: check.json cannot be written ({error.strerror})", err=True)
    _report(found, as_json=as_json)
    if not found.passed:
        ctx.exit(1)


def _check(folder: Path, device: str, names: tuple[str, ...], *, thorough: bool = False) -> Check:
    # torch is heavy: a wrong option must be told before it is loaded.
    import torch  # noqa: PLC0415

    from workers.models.check import QUICK, check_package, known_explainers  # noqa: PLC0415

    explainers = known_explainers()
    for name in names:
        known = [explainer.name for explainer in explainers]
        if name not in known:
            raise UsageError(f"there is no explainer '{name}'{nearest(name, known)}")
    chosen = [explainer for explainer in explainers if not names or explainer.name in names]
    with Console(stderr=True).status("loading") as status:
        return check_package(
            folder,
            torch.device(device),
            explainers=chosen,
            sanity_below=math.inf if thorough else QUICK,
            progress=status.update,
        )


def _write(folder: Path, found: Check) -> None:
    from workers.models.check import write_check  # noqa: PLC0415

    write_check(folder, found)


def _report(found: Check, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({**asdict(found), "passed": found.passed}, indent=2))
        return
    console = terminal()
    console.print(f"{found.name}: {'usable' if found.passed else 'NOT usable'} on this machine", highlight=False)
    for title, value in (
        ("equal answers to equal inputs", found.deterministic),
        ("finite answers", found.finite),
        ("answers every input alike", found.constant),
        ("probability alone and in a batch differs by", f"{found.batch_difference:.1e}"),
        ("runtime", " ".join(found.runtime.values())),
        ("rounding may move a probability by up to", f"{found.fast_difference:.1e}"),
        ("images per second", found.images_per_second),
    ):
        console.print(f"  {title}: {value}", highlight=False)
    table = Table("method", "works", "seconds", "repeats", "depends on the weights", "why not")
    for m in found.methods:
        sanity = {None: "not tested", True: "yes", False: "NO"}[m.sanity_passed] if m.supported else ""
        table.add_row(m.method, _yes(m.supported), str(m.seconds or ""), _yes(m.deterministic), sanity, m.reason)
    console.print(table)


def _yes(value: bool | None) -> str:
    return {None: "", True: "yes", False: "no"}[value]


@models.command()
@click.argument("source", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--trust", is_flag=True, help="Say that you know where a file that holds a program came from.")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.pass_context
def add(ctx: click.Context, source: Path, trust: bool, device: str) -> None:
    """Check the package in SOURCE and copy it into the models directory; nothing is copied when the check fails."""
    target_folder = settings_of(ctx).models_directory
    _refuse_links(source)
    card = load_card(source)
    if card.weights.trusted and not trust:
        raise UsageError(
            f"{source}: the card calls itself trusted; its {card.weights.format} file holds a program. "
            "Say --trust if you made sure where it came from"
        )
    target = target_folder / card.name
    if target.exists():
        raise UsageError(f"{target} exists: give the new package another name, or remove the old one")
    found = _check(source, device, ())
    _report(found, as_json=False)
    if not found.passed:
        raise UsageError(f"{source}: not added, as it is not usable on this machine")
    # Beside the target, so that the last step is a rename: a half-copied package is never seen.
    with tempfile.TemporaryDirectory(prefix=".adding-", dir=target_folder) as temporary:
        copied = Path(temporary) / card.name
        shutil.copytree(source, copied)
        _write(copied, found)
        copied.rename(target)
    click.echo(f'added to {target}. A pipeline names it by: model = "{card.name}"')


def _refuse_links(source: Path) -> None:
    """A link would be followed: to a file of this machine that others should not read, or to one without an end."""
    for path in source.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise UsageError(
                f"{path}: a package holds files and folders, no links; where you know what they point to, "
                f"copy them with 'cp -rL {source} COPY' and add COPY"
            )


@models.command()
@click.argument("name")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="File to write.")
@click.pass_context
def export(ctx: click.Context, name: str, out: Path) -> None:
    """Write a package's network as ONNX, after proving that ONNX Runtime gives the same probabilities."""
    folder = _folder(ctx, name)
    import torch  # noqa: PLC0415

    from workers.models.export import export_onnx  # noqa: PLC0415
    from workers.models.package import load_package  # noqa: PLC0415

    content, difference = export_onnx(load_package(folder, torch.device("cpu"), fast=False))
    try:
        out.write_bytes(content)
    except OSError as error:
        raise PellucidError(f"{out}: cannot be written ({error.strerror})") from None
    click.echo(f"{out}: {len(content)} bytes; probabilities differ by at most {difference:.1e}")


def _folder(ctx: click.Context, name: str) -> Path:
    folder = settings_of(ctx).models_directory
    known = [path.parent.name for path in sorted(folder.glob("*/model.toml"))]
    if name not in known:
        raise UsageError(f"there is no model '{name}' in {folder}{nearest(name, known)}")
    return folder / name
