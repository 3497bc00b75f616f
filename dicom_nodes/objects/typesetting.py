"""Sets text into black strips: measured, wrapped, shrunk when a word is too long; never clipped."""

from __future__ import annotations

import functools
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import ImageFont

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.ImageDraw import ImageDraw

MIN_SIZE = 12
"""Pixels; smaller text cannot be read on a reading station."""
_SUBSTITUTES = str.maketrans(
    {"\u2013": "-", "\u2014": "-", "\u2265": ">=", "\u2264": "<=", "\u00b2": "2"}
    # Letters that have no accent to lose.
    | {
        "\u00df": "ss",
        "\u00e6": "ae",
        "\u00c6": "Ae",
        "\u0153": "oe",
        "\u00f8": "o",
        "\u00d8": "O",
        "\u0142": "l",
        "\u0141": "L",
    }
)


@dataclass(frozen=True, kw_only=True)
class Line:
    """One paragraph of a strip."""

    text: str
    size: int
    colour: tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Strip:
    """Lines that fit a width, ready to draw."""

    lines: tuple[Line, ...]
    width: int
    above: int = 0
    """Rows that stay empty above the first line."""

    @property
    def height(self) -> int:
        """Pixels, with half a margin above and below."""
        return self.above + sum(_leading(line.size) for line in self.lines) + _margin(self.width)

    def draw(self, canvas: ImageDraw, left: int, top: int) -> list[tuple[int, int, int, int]]:
        """Draw the lines below `top`; returns the box of each as (left, top, right, bottom)."""
        boxes = []
        y = top + self.above + _margin(self.width) // 2
        x = left + _indent(self.width)
        for line in self.lines:
            canvas.text((x, y), line.text, fill=line.colour, font=font(line.size))
            ends = canvas.textbbox((x, y), line.text, font=font(line.size))
            boxes.append((int(ends[0]), int(ends[1]), int(ends[2]), int(ends[3])))
            y += _leading(line.size)
        return boxes


def corner_rows(width: int) -> int:
    """Return how many rows of a page are left empty above its words; below them two thirds as many.

    Viewers write patient, date and series into the upper corners of what they show, and the window into a lower one;
    over our first line that can hide a word that matters, such as "not".
    """
    return width // 12


def fit(lines: Sequence[Line], width: int, *, above: int = 0) -> Strip:
    """Wrap each line at spaces to `width` pixels; a word that is wider by itself shrinks its line."""
    room = width - 2 * _indent(width)
    wrapped = [part for line in lines if line.text.strip() for part in _wrap(line, room)]
    return Strip(lines=tuple(wrapped), width=width, above=above)


def printable(text: str) -> str:
    """Return the text in the characters that the built-in font has: accents fall, the rest becomes '?'.

    Our words and the model's are English; this only keeps a stray character from becoming an empty box.
    """
    plain = unicodedata.normalize("NFKD", text.translate(_SUBSTITUTES))
    kept = "".join(character for character in plain if not unicodedata.combining(character))
    return kept.encode("ascii", "replace").decode("ascii")


def is_printable(text: str) -> bool:
    """Tell whether a text survives `printable` with nothing but its accents lost."""
    return printable(text).count("?") == text.count("?")


@functools.lru_cache(maxsize=64)
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return Pillow's built-in face: the same on every machine, whatever fonts it has."""
    return ImageFont.load_default(size)


def text_width(text: str, size: int) -> float:
    """Return the width of a line in pixels."""
    return float(font(size).getlength(text))


def _wrap(line: Line, room: int) -> list[Line]:
    words = printable(line.text).split(" ")
    size = line.size
    while size > MIN_SIZE and max(text_width(word, size) for word in words) > room:
        size -= 1
    rows: list[str] = []
    for piece in (part for word in words for part in _pieces(word, size, room)):
        if rows and text_width(f"{rows[-1]} {piece}", size) <= room:
            rows[-1] += f" {piece}"
        else:
            rows.append(piece)
    return [Line(text=row.rstrip(), size=size, colour=line.colour) for row in rows if row.strip()]


def _pieces(word: str, size: int, room: int) -> list[str]:
    """Cut a word that is too wide even at the smallest size."""
    pieces = [""]
    for character in word:
        if pieces[-1] and text_width(pieces[-1] + character, size) > room:
            pieces.append("")
        pieces[-1] += character
    return pieces


def _leading(size: int) -> int:
    return -(-size * 13 // 10)


def _margin(width: int) -> int:
    return max(8, width // 60)


def _indent(width: int) -> int:
    """Return what stays free at either side: the same for a page and for a panel of it, so that words line up."""
    return max(4, min(16, width // 60))
