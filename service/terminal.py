"""How tables and lines reach a person."""

from __future__ import annotations

import sys

from rich.console import Console


def terminal() -> Console:
    """Return standard output, 160 characters wide where it is no terminal.

    What is quoted there (reasons, file names, titles) is text: in rich's markup `[peers]` would be a style and vanish.
    """
    return Console(width=None if sys.stdout.isatty() else 160, markup=False)
