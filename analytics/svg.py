"""Small vector pictures for HTML, as text: a day's curve, a sparkline, a strip; sharp in browsers and in print.

Text is left to the browser's fonts, so Chinese needs nothing installed on the server.
"""

from __future__ import annotations

import math
from html import escape

import numpy as np

from .masks import B1, F8, I8

# Presentation attributes, not style sheets: printers' renderers do not carry the page's CSS into a picture.
STYLE = {
    "grid": 'stroke="#dde3ea" stroke-width="1" fill="none"',
    "tick": 'font-size="12" fill="#5b6b7b"',
    "hole": 'fill="#e8ebef"',
    "area": 'fill="#0b5fa5" fill-opacity="0.09"',
    "line": 'stroke="#0b5fa5" stroke-width="2" stroke-linejoin="round" fill="none"',
    "thin": 'stroke="#0b5fa5" stroke-width="1.3" stroke-linejoin="round" fill="none"',
    "guess": 'stroke="#c8690f" stroke-width="2" stroke-dasharray="5 4" fill="none"',
    "dot": 'fill="#c8690f"',
    "peak": 'font-size="13" font-weight="600" fill="#c8690f"',
    "full": 'fill="#9fb3c8"',
    "some": 'fill="#c8690f"',
}
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 1000, 320, 64, 14, 26, 28


def _runs(ok: B1) -> list[tuple[int, int]]:
    """[start, end) of the runs of true."""
    edge = np.diff(np.r_[False, ok, False].astype(np.int8))
    return list(zip(np.flatnonzero(edge == 1).tolist(), np.flatnonzero(edge == -1).tolist(), strict=True))


def _path(x: F8, y: F8, ok: B1) -> str:
    """Polyline commands with a new start after each hole; a lone slot becomes a short dash."""
    parts = []
    for a, b in _runs(ok):
        points = [f"{x[i]:.1f} {y[i]:.1f}" for i in range(a, b)]
        parts.append("M" + "L".join(points) if b - a > 1 else f"M{x[a] - 2:.1f} {y[a]:.1f}h4")
    return "".join(parts)


def nice_ceiling(value: float) -> float:
    """The next of 1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8 x 10^n."""
    if not math.isfinite(value) or value <= 0:
        return 1.0
    base = 10.0 ** math.floor(math.log10(value))
    return next((m * base for m in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8) if value <= m * base * (1 + 1e-12)), 10 * base)


def curve_svg(
    hour: F8, kw: F8, estimated: B1, *, unit: str = "kW", peak: tuple[int, str] | None = None, label: str = ""
) -> str:
    """A day's curve 0-24 h with grid, area, dashed estimates, grey holes and the peak (slot, text): one `<svg>`."""
    finite = np.isfinite(kw)
    top = nice_ceiling(float(np.max(kw, where=finite, initial=0.0)) * 1.02)
    floor = -nice_ceiling(-float(np.min(kw, where=finite, initial=0.0))) if bool(np.any(kw[finite] < 0)) else 0.0
    x = LEFT + hour / 24.0 * (WIDTH - LEFT - RIGHT)
    y = TOP + (top - np.where(finite, kw, 0.0)) / (top - floor) * (HEIGHT - TOP - BOTTOM)
    zero = TOP + top / (top - floor) * (HEIGHT - TOP - BOTTOM)
    out = [f'<svg class="curve" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label or unit)}">']
    step = (x[1] - x[0]) if len(x) > 1 else 10.0
    for a, b in _runs(~finite):
        left = max(x[a] - step, LEFT)
        box = f'x="{left:.1f}" y="{TOP}" width="{x[b - 1] - left:.1f}" height="{HEIGHT - TOP - BOTTOM}"'
        out.append(f"<rect {STYLE['hole']} {box}/>")
    for i in range(5):
        level = floor + (top - floor) * i / 4
        at = TOP + (top - level) / (top - floor) * (HEIGHT - TOP - BOTTOM)
        out.append(f'<path {STYLE["grid"]} d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>')
        out.append(f'<text {STYLE["tick"]} x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{level:,.6g}</text>')
    for h in range(0, 25, 3):
        at = LEFT + h / 24 * (WIDTH - LEFT - RIGHT)
        out.append(f'<path {STYLE["grid"]} d="M{at:.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
        anchor = "end" if h == 24 else "middle"
        out.append(f'<text {STYLE["tick"]} x="{at:.1f}" y="{HEIGHT - 8}" text-anchor="{anchor}">{h:02d}:00</text>')
    out.append(f'<text {STYLE["tick"]} x="{LEFT - 8}" y="14" text-anchor="end">{escape(unit)}</text>')
    for a, b in _runs(finite):
        if b - a > 1:
            line = "L".join(f"{x[i]:.1f} {y[i]:.1f}" for i in range(a, b))
            out.append(f'<path {STYLE["area"]} d="M{x[a]:.1f} {zero:.1f}L{line}V{zero:.1f}Z"/>')
    out.append(f'<path {STYLE["line"]} d="{_path(x, y, finite & ~estimated)}"/>')
    if estimated.any():
        near = estimated | np.r_[estimated[1:], False] | np.r_[False, estimated[:-1]]
        out.append(f'<path {STYLE["guess"]} d="{_path(x, y, finite & near)}"/>')
    if peak is not None:
        i, text = peak
        anchor = "end" if hour[i] > 20 else "start" if hour[i] < 4 else "middle"
        out.append(f'<circle {STYLE["dot"]} cx="{x[i]:.1f}" cy="{y[i]:.1f}" r="4"/>')
        place = f'x="{x[i]:.1f}" y="{max(y[i] - 9, 14):.1f}"'
        out.append(f'<text {STYLE["peak"]} {place} text-anchor="{anchor}">{escape(text)}</text>')
    return "".join([*out, "</svg>"])


def sparkline_svg(value: F8, estimated: B1) -> str:
    """A curve in a table cell: 120 x 26, no axes; holes stay holes."""
    finite = np.isfinite(value)
    high = float(np.max(value, where=finite, initial=0.0))
    low = float(np.min(value, where=finite, initial=0.0))
    span = (high - low) or 1.0
    x = np.linspace(1.0, 119.0, len(value))
    y = 24.0 - (np.where(finite, value, 0.0) - low) / span * 22.0
    real, guess = _path(x, y, finite & ~estimated), _path(x, y, finite & estimated)
    dashed = f'<path {STYLE["guess"]} d="{guess}"/>' if guess else ""
    line = f'<path {STYLE["thin"]} d="{real}"/>'
    return f'<svg class="spark" viewBox="0 0 120 26" width="120" height="26">{line}{dashed}</svg>'


def members_svg(members: I8, expected: int, covered: B1) -> str:
    """How many members each slot of a sum has: a strip of bars under the curve, the uncovered slots in warm colour."""
    n, width = len(members), WIDTH - LEFT - RIGHT
    bars = []
    for i in range(n):
        share = float(members[i]) / expected if expected else 0.0
        kind = "full" if covered[i] else "some"
        bars.append(
            f'<rect {STYLE[kind]} x="{LEFT + i * width / n:.1f}" y="{22 - 18 * share:.1f}" '
            f'width="{width / n:.2f}" height="{18 * share:.1f}"/>'
        )
    text = f'<text {STYLE["tick"]} x="{LEFT - 8}" y="17" text-anchor="end">{expected}</text>'
    return f'<svg class="members" viewBox="0 0 {WIDTH} 26">{"".join(bars)}{text}</svg>'
