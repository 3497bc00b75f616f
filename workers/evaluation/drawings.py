"""Curves and bars as inline SVG, so that a page needs neither network nor script."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

SIDE = 300
"""Width and height of a square drawing, in CSS pixels."""
BAR = 26
LABELS = 250
SCALE = 360
BLUE, GREY = "#2060b0", "#a8b4c4"


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar: a share in [0, 1], perhaps with an interval, beside a published value."""

    title: str
    value: float
    interval: tuple[float, float] | None = None
    published: float | None = None


def curve(
    title: str,
    points: Sequence[tuple[float, float]],
    *,
    across: str,
    up: str,
    chance: tuple[tuple[float, float], tuple[float, float]],
    dots: bool = False,
) -> str:
    """Draw points of the unit square, with what chance (or perfection) would give as a thin line."""
    path = " ".join(f"{x * SIDE:.1f},{(1 - y) * SIDE:.1f}" for x, y in points)
    (x0, y0), (x1, y1) = chance
    marks = "".join(
        f'<circle cx="{x * SIDE:.1f}" cy="{(1 - y) * SIDE:.1f}" r="3" fill="{BLUE}"/>' for x, y in points if dots
    )
    return (
        f'<svg width="{SIDE + 70}" height="{SIDE + 80}" viewBox="-50 -30 {SIDE + 70} {SIDE + 80}" role="img">'
        f'<text x="0" y="-12" font-size="13" font-weight="bold">{escape(title)}</text>{_grid()}'
        f'<line x1="{x0 * SIDE}" y1="{(1 - y0) * SIDE}" x2="{x1 * SIDE}" y2="{(1 - y1) * SIDE}" stroke="#999" '
        f'stroke-dasharray="4 3"/><polyline points="{path}" fill="none" stroke="{BLUE}" stroke-width="2"/>{marks}'
        f'<text x="{SIDE / 2}" y="{SIDE + 36}" font-size="12" text-anchor="middle">{escape(across)}</text>'
        f'<text x="-36" y="{SIDE / 2}" font-size="12" text-anchor="middle" '
        f'transform="rotate(-90 -36 {SIDE / 2})">{escape(up)}</text></svg>'
    )


def bars(title: str, entries: Sequence[Bar]) -> str:
    """Draw horizontal bars with their intervals; a grey bar below each is the published value."""
    height = sum(BAR + (12 if entry.published is not None else 0) for entry in entries)
    parts, top = [], 0
    for entry in entries:
        middle = top + BAR / 2
        parts.append(
            f'<text x="{LABELS - 8}" y="{middle + 4}" font-size="13" text-anchor="end">{escape(entry.title)}</text>'
            f'<rect x="{LABELS}" y="{top + 3}" width="{entry.value * SCALE:.1f}" height="{BAR - 9}" fill="{BLUE}"/>'
            f'<text x="{LABELS + SCALE + 8}" y="{middle + 4}" font-size="13">{entry.value:.3f}</text>'
        )
        if entry.interval is not None:
            low, high = (LABELS + bound * SCALE for bound in entry.interval)
            parts.append(f'<path d="M{low:.1f} {middle - 2}H{high:.1f}" stroke="#111" stroke-width="2"/>')
        top += BAR
        if entry.published is not None:
            parts.append(
                f'<rect x="{LABELS}" y="{top - 4}" width="{entry.published * SCALE:.1f}" height="8" fill="{GREY}"/>'
                f'<text x="{LABELS + SCALE + 8}" y="{top + 5}" font-size="11" fill="#555">{entry.published:.3f}</text>'
            )
            top += 12
    width = LABELS + SCALE + 70
    return (
        f'<svg width="{width}" height="{height + 40}" viewBox="0 -30 {width} {height + 40}" '
        f'role="img"><text x="0" y="-12" font-size="13" font-weight="bold">{escape(title)}</text>{"".join(parts)}</svg>'
    )


def _grid() -> str:
    lines = [f'<rect width="{SIDE}" height="{SIDE}" fill="none" stroke="#888"/>']
    for step in range(6):
        place = step / 5 * SIDE
        lines.append(f'<path d="M{place} {SIDE}v4M0 {SIDE - place}h-4" stroke="#888"/>')
        lines.append(f'<text x="{place}" y="{SIDE + 18}" font-size="11" text-anchor="middle">{step / 5:.1f}</text>')
        lines.append(f'<text x="-8" y="{SIDE - place + 4}" font-size="11" text-anchor="end">{step / 5:.1f}</text>')
    return "".join(lines)
