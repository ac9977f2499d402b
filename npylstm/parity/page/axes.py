"""Axes of a plot: scales, ticks, and the frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from npylstm.arrays import Array
from npylstm.parity.page.markup import esc, power

__all__ = ["BOTTOM", "HEIGHT", "LEFT", "RIGHT", "TOP", "WIDTH", "Scale", "crosses", "dots", "frame",
           "line"]  # fmt: skip

WIDTH, HEIGHT = 360, 264
LEFT, RIGHT, TOP, BOTTOM = 54, 348, 14, 222  # of the area inside the axes
_TICKS = 5


@dataclass(frozen=True)
class Scale:
    """A linear map of values, ``low`` to ``high``, to pixels, ``start`` to ``end``."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def around(cls, values: Array, start: float, end: float) -> Scale:
        """Return a scale for all finite values, with a margin."""
        low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
        margin = 0.05 * max(abs(low), abs(high)) or 1.0
        largest = float(np.finfo(np.float64).max)
        return cls(max(low - margin, -largest), min(high + margin, largest), start, end)

    def __call__(self, values: Array | float) -> Array:
        """Return the pixels of values, clipped to the ends."""
        # Halves, because the range of the largest numbers overflows.
        inside = np.clip(np.asarray(values, np.float64), self.low, self.high)
        part = (inside / 2 - self.low / 2) / (self.high / 2 - self.low / 2)
        return self.start + part * (self.end - self.start)

    def ticks(self, least: float = 0.0) -> list[tuple[float, str]]:
        """Return ticks at round values with their text, at least ``least`` apart."""
        rough = max((self.high / 2 - self.low / 2) / _TICKS * 2, least)
        scale = 10.0 ** math.floor(math.log10(rough))
        step = scale * next((m for m in (1, 2, 5) if m * scale >= rough), 10)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        values = [k * step for k in range(first, last + 1)]
        digits = max(0, -math.floor(math.log10(step)))
        plain = digits < 5 and max(abs(self.low), abs(self.high)) < 1e5
        if plain:
            return [(v, f"{v:.{digits}f}") for v in values]
        return [(v, f"{v:.3g}".replace("e+0", "e").replace("e+", "e")) for v in values]

    def powers(self) -> list[tuple[float, str]]:
        """Return ticks at powers of ten; the values are decimal logarithms."""
        first, last = math.ceil(self.low), math.floor(self.high)
        step = max(1, -(-(last - first) // _TICKS))
        start = -(-first // step) * step  # so that 1 is one of them
        return [(float(k), power(k)) for k in range(start, last + 1, step)]


def frame(
    label: str,
    content: str,
    x: tuple[str, Sequence[tuple[float, str]]],
    y: tuple[str, Sequence[tuple[float, str]]],
) -> str:
    """Draw axes around the content.

    Parameters
    ----------
    label
        Text for screen readers.
    content
        SVG.
    x, y
        The name of the axis, and its ticks: pixel and text.
    """
    parts = []
    for place, text in x[1]:
        parts.append(f'<path class="grid" d="M{place:.1f} {TOP}V{BOTTOM}"/>')
        parts.append(
            f'<text x="{place:.1f}" y="{BOTTOM + 16}" text-anchor="middle">{esc(text)}</text>'
        )
    for place, text in y[1]:
        parts.append(f'<path class="grid" d="M{LEFT} {place:.1f}H{RIGHT}"/>')
        parts.append(
            f'<text x="{LEFT - 7}" y="{place + 4:.1f}" text-anchor="end">{esc(text)}</text>'
        )
    middle_x, middle_y = (LEFT + RIGHT) / 2, (TOP + BOTTOM) / 2
    parts.append(
        f'<text class="axis" x="{middle_x:g}" y="{BOTTOM + 36}" text-anchor="middle">{esc(x[0])}'
        f'</text><text class="axis" text-anchor="middle" '
        f'transform="translate(11 {middle_y:g}) rotate(-90)">{esc(y[0])}</text>'
    )
    return (
        f'<svg role="img" viewBox="0 0 {WIDTH} {HEIGHT}" aria-label="{esc(label, 400)}">'
        f"{''.join(parts)}{content}"
        f'<path class="frame" d="M{LEFT} {TOP}V{BOTTOM}H{RIGHT}"/></svg>'
    )


def line(x: Array, y: Array, kind: str) -> str:
    """Draw a line through points."""
    if len(x) == 1:
        return dots(x, y, f"{kind} dots")
    points = "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True))
    return f'<path class="{kind}" d="M{points}"/>' if points else ""


def dots(x: Array, y: Array, kind: str) -> str:
    """Draw a dot at every point: a line of length zero with round ends."""
    data = "".join(f"M{a:.1f} {b:.1f}h0" for a, b in zip(x, y, strict=True))
    return f'<path class="{kind}" d="{data}"/>' if data else ""


def crosses(x: Array, y: Array, kind: str) -> str:
    """Draw a cross at every point."""
    data = "".join(f"M{a - 3:.1f} {b - 3:.1f}l6 6m0-6l-6 6" for a, b in zip(x, y, strict=True))
    return f'<path class="{kind}" d="{data}"/>' if data else ""
