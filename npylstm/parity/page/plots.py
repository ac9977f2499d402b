"""The three plots of an output: scatter of values, residuals, and histogram of errors.

Each function returns the plot as SVG and its caption as HTML.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from npylstm.arrays import Array
from npylstm.parity.comparison import Comparison
from npylstm.parity.page import evidence
from npylstm.parity.page.axes import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    Scale,
    crosses,
    dots,
    frame,
    line,
)
from npylstm.parity.page.evidence import Residual
from npylstm.parity.page.markup import esc, number, plural, power, share

__all__ = ["errors", "residual", "scatter"]

_FAINT = 12  # cases that are drawn behind the worst one


def scatter(parts: Sequence[Comparison], framework: str, most: int) -> tuple[str, str]:
    """Draw the framework's values against npylstm's."""
    values = evidence.sample(parts, most)
    both = np.concatenate([values.framework, values.ours])
    across, up = Scale.around(both, LEFT, RIGHT), Scale.around(both, BOTTOM, TOP)
    x, y, failed = across(values.framework), up(values.ours), values.failed
    content = (
        f'<path class="reference" d="M{LEFT} {BOTTOM}L{RIGHT} {TOP}"/>'
        f"{dots(x[~failed], y[~failed], 'values dots')}{crosses(x[failed], y[failed], 'failed')}"
    )
    shown = f"{len(x):,} of {plural(values.total, 'value')}"
    outside = int(np.count_nonzero(failed))
    label = (
        f"Scatter plot of {shown}: {framework} across, npylstm upwards. "
        f"{plural(outside, 'value')} shown differ by more than rounding explains."
    )
    caption = f"Values side by side: {shown}, those that differ most included. On the line both "
    caption += "agree."
    if outside:
        caption += ' <span class="bad">✗</span> differs by more than rounding explains.'
    if values.infinite:
        caption += f" Left out: {plural(values.infinite, 'value')} where a side is not finite."
    ticks = (
        [(float(across(v)), text) for v, text in across.ticks()],
        [(float(up(v)), text) for v, text in up.ticks()],
    )
    return frame(label, content, (framework, ticks[0]), ("npylstm", ticks[1])), caption


def residual(parts: Sequence[Comparison], axis: int | None) -> tuple[str, str]:
    """Draw the largest and the rms difference over the steps, or over the cases."""
    lines = evidence.by_step(parts, axis) if axis is not None else ()
    if not lines:
        return _over_cases(evidence.by_case(parts))
    ordered = sorted(lines, key=lambda r: -float(r.largest.max()))
    worst, others = ordered[0], ordered[1 : 1 + _FAINT]
    up, bottom = _share_scale([r.largest for r in ordered[: 1 + _FAINT]] + [worst.rms])
    last = float(max(r.places[-1] for r in (worst, *others)))
    across = Scale(0.0, last, LEFT, RIGHT)

    def draw(r: Residual, values: Array, kind: str) -> str:
        return line(across(r.places), up(_log(values, bottom)), kind)

    content = "".join(draw(r, r.largest, "others") for r in reversed(others))
    content += _tolerance_across(up)
    content += draw(worst, worst.rms, "rms") + draw(worst, worst.largest, "largest")
    tolerance = next(p.tolerance for p in parts if p.case == worst.case)
    label = (
        f"Line plot of the difference over the steps of case {worst.case}, as a share of the "
        f"tolerance: at most {share(float(worst.largest.max()))}."
    )
    caption = (
        f"Residual over the steps of case {worst.case}, where it is largest: "
        '<span class="key largest">━</span> largest and <span class="key rms">╌</span> rms of each '
        f"step. At 1 is the tolerance, in this case {number(tolerance)}."
    )
    if others:
        caption += f" Faint: the largest of {plural(len(others), 'other case')}."
    caption += _not_finite(worst.largest)
    ticks = [(float(across(v)), text) for v, text in across.ticks(least=1.0)]
    return (
        frame(
            label, content, ("step", ticks), ("difference / tolerance", _share_ticks(up))
        ),
        caption,
    )  # fmt: skip


def _over_cases(found: Residual) -> tuple[str, str]:
    up, bottom = _share_scale([found.largest, found.rms])
    across = Scale(-0.6, len(found.places) - 0.4, LEFT, RIGHT)
    places = across(np.arange(len(found.places)))
    stems = "".join(
        f"M{x:.1f} {a:.1f}V{b:.1f}"
        for x, a, b in zip(
            places, up(_log(found.rms, bottom)), up(_log(found.largest, bottom)), strict=True
        )
    )
    content = (
        f'{_tolerance_across(up)}<path class="stem" d="{stems}"/>'
        f"{dots(places, up(_log(found.rms, bottom)), 'rms dots')}"
        f"{crosses(places, up(_log(found.largest, bottom)), 'largest')}"
    )
    label = (
        f"Plot of the difference in {plural(len(places), 'case')}, as a share of the tolerance: "
        f"at most {share(float(found.largest.max(initial=0.0)))}."
    )
    caption = (
        'Residual by case: <span class="key largest">×</span> largest and '
        '<span class="key rms">●</span> rms of each case. At 1 is the tolerance of the case.'
    )
    caption += _not_finite(found.largest)
    every = -(-len(places) // 12)
    ticks = [
        (float(x), str(case))
        for x, case in zip(places[::every], found.places[::every], strict=True)
    ]
    return (
        frame(label, content, ("case", ticks), ("difference / tolerance", _share_ticks(up))),
        caption,
    )


def errors(parts: Sequence[Comparison]) -> tuple[str, str]:
    """Draw the histogram of differences as shares of the tolerance."""
    counts, edges = evidence.histogram(parts)
    step = edges[1] - edges[0]
    across = Scale(edges[0] - 2 * step, edges[-1], LEFT, RIGHT)
    total = max(1, int(counts.sum()))
    up = Scale(0.0, 1.06 * float(counts.max()) / total or 1.0, BOTTOM, TOP)
    lows = np.concatenate([[edges[0] - 1.7 * step], edges[:-1]])
    highs = np.concatenate([[edges[0] - 0.7 * step], edges[1:]])
    bars = []
    for low, high, count in zip(lows, highs, counts, strict=True):
        if count:
            left, right = float(across(low)) + 0.5, float(across(high)) - 0.5
            top = min(float(up(count / total)), BOTTOM - 2.0)  # one of a million is visible
            kind = "over" if high > 0 else "equal" if low < edges[0] else "within"
            bars.append(
                f'<rect class="{kind}" x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" '
                f'height="{BOTTOM - top:.1f}"/>'
            )
    one = float(across(0.0))
    content = (
        f'{"".join(bars)}<path class="tolerance" d="M{one:.1f} {TOP}V{BOTTOM}"/>'
        f"{_tolerance_text(one - 5, TOP + 10)}"
    )
    over = int(counts[1:][edges[1:] > 0].sum())
    label = (
        f"Histogram of {plural(total, 'difference')} as shares of the tolerance: {counts[0]:,} "
        f"equal or nearly, {over:,} above the tolerance."
    )
    caption = (
        f"Sizes of all {plural(int(counts.sum()), 'difference')}. The unit is the largest that "
        f"rounding explains in its case{_in_ulps(parts)}. Far left: equal, or under "
        f"{esc(power(-5))}."
    )
    if over:
        caption += f' <span class="bad">✗</span> {plural(over, "value")} right of the line.'
    ticks = [(float(across(v)), text) for v, text in across.powers() if v > edges[0]]
    ticks.insert(0, (float(across((lows[0] + highs[0]) / 2)), "0"))
    heights = [(float(up(v)), f"{100 * v:g} %") for v, _ in up.ticks()]
    return (
        frame(label, content, ("difference / tolerance", ticks), ("share of values", heights)),
        caption,
    )


def _in_ulps(parts: Sequence[Comparison]) -> str:
    """Return a sentence: the tolerances in units in the last place of the largest output."""
    found = []
    for part in parts:
        finite = np.abs(part.exact[np.isfinite(part.exact)])
        unit = float(np.finfo(part.ours.dtype).eps) * float(finite.max(initial=0.0))
        if unit > 0:
            found.append(part.tolerance / unit)
    if not found:
        return ""
    low, high = (f"{v:,.0f}" if v < 1e6 else f"{v:.1e}" for v in (min(found), max(found)))
    span = low if low == high else f"{low} to {high}"
    return f" ({span} units in the last place of the largest output)"


def _share_scale(series: Sequence[Array]) -> tuple[Scale, float]:
    """Return a logarithmic scale for all shares and 1, and the value at which zeros are drawn."""
    values = np.concatenate(series)
    finite = values[np.isfinite(values) & (values > 0)]
    low = float(np.log10(np.clip(finite.min(initial=0.1), 1e-6, 0.1)))
    high = float(np.log10(np.clip(finite.max(initial=1.0), 1.0, 1e12)))
    bottom = float(np.floor(low))
    return Scale(bottom, float(np.floor(high)) + 1.0, BOTTOM, TOP), bottom


def _share_ticks(scale: Scale) -> list[tuple[float, str]]:
    return [(float(scale(v)), text) for v, text in scale.powers()]


def _log(values: Array, bottom: float) -> Array:
    """Return decimal logarithms; ``bottom`` for zeros, a large value for infinities."""
    with np.errstate(divide="ignore"):
        return np.clip(np.log10(values), bottom, 400.0)


def _tolerance_across(scale: Scale) -> str:
    y = float(scale(0.0))
    rule = f'<path class="tolerance" d="M{LEFT} {y:.1f}H{RIGHT}"/>'
    return f"{rule}{_tolerance_text(RIGHT - 4, y - 5)}"


def _tolerance_text(x: float, y: float) -> str:
    return f'<text class="tolerance" x="{x:.1f}" y="{y:.1f}" text-anchor="end">tolerance</text>'


def _not_finite(values: Array) -> str:
    if np.isfinite(values).all():
        return ""
    return " Where a side is not finite and the other is, the line is at the upper edge."
