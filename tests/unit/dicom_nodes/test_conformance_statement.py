from __future__ import annotations

import re
from pathlib import Path

from click.testing import CliRunner

from dicom_nodes.conformance import conformance, statement
from dicom_nodes.conformance_tables import accepted, storage_classes
from dicom_nodes.objects.catalogue import CATALOGUE
from service.settings import Settings

COMMITTED = Path(__file__).parents[3] / "docs" / "conformance.md"


def test_the_committed_statement_is_what_the_code_says() -> None:
    assert COMMITTED.read_text(encoding="utf-8") == statement(Settings()), (
        "print it anew: pellucid conformance > docs/conformance.md"
    )


def test_the_command_prints_it_for_the_settings_at_hand(tmp_path: Path) -> None:
    settings = tmp_path / "pellucid.toml"
    settings.write_text('[listener]\nae_title = "XRAY_AI"\nport = 104\n')
    done = CliRunner().invoke(conformance, obj=settings)
    assert done.exit_code == 0, done.output
    assert "**Listener** (XRAY_AI)" in done.output
    assert "| `listener.port` | `104` |" in done.output


def test_it_follows_the_layout_of_the_standard() -> None:
    heads = re.findall(r"^## (\d .*)$", statement(Settings()), flags=re.MULTILINE)
    assert heads == [
        "1 Conformance statement overview",
        "2 Table of contents",
        "3 Introduction",
        "4 Networking",
        "5 Media interchange",
        "6 Support of character sets",
        "7 Security",
        "8 Annexes",
    ]


def test_nothing_is_left_to_fill_in() -> None:
    assert not re.search(r"\$\{?[a-z]|None\b.*\|", statement(Settings()).replace("None.", ""))


def test_every_class_that_is_created_is_also_accepted_back() -> None:
    known = set(storage_classes())
    assert {uid for entry in CATALOGUE for uid in entry.sop_classes} <= known


def test_what_is_kept_but_not_analysed_is_said() -> None:
    told = statement(Settings())
    for syntax in ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.201"):
        assert f"| {syntax} | yes |" in told
    for syntax in ("1.2.840.10008.1.2.4.94", "1.2.840.10008.1.2.4.102", "1.2.840.10008.1.2.4.112"):
        assert f"| {syntax} | no |" in told


def test_queries_are_not_accepted() -> None:
    classes, syntaxes = accepted()
    assert not [uid for uid in classes if uid.startswith("1.2.840.10008.5.1.4.1.2.")]
    assert {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.50"} <= set(syntaxes)
