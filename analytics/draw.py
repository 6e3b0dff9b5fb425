"""Pictures of curves: in the terminal (plotext) and as PNG (matplotlib's Agg, no display, no global state).

Holes stay holes, estimates are dashed, and completeness stands on the picture. Chinese labels appear only where a
Chinese font is installed; characters that the font lacks are replaced, so that a picture never fails on a name.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np

from ..model.lang import lang
from ..model.times import DAY_US, business_day, day_start_us
from .masks import B1, F8, I8

CHINESE_FONTS: Final = (
    "Noto Sans CJK SC", "Source Han Sans SC", "Source Han Sans CN", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei",
    "Microsoft YaHei", "PingFang SC", "SimHei", "Noto Sans SC", "AR PL UMing CN",
)  # fmt: skip
# A load curve that does not start at zero makes every load look like a cliff.
FROM_ZERO: Final = frozenset({"kW", "kvar", "kVA", "A"})
INK, GRID, ACCENT, WARM, FAINT = "#1d2b3a", "#dde3ea", "#0b5fa5", "#c8690f", "#9fb3c8"
DAYS: Final = ("#0b5fa5", "#c8690f", "#2e7d4f", "#8e4a9e", "#b3343c", "#5b6b7b", "#1a9aa0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One line: value float64 (n,) with NaN, hour float64 (n,) of the day (label, 24.0 = midnight), estimated (n,)."""

    label: str
    hour: F8
    value: F8
    estimated: B1

    @property
    def completeness(self) -> float:
        """Share of slots with a measured value."""
        return float((np.isfinite(self.value) & ~self.estimated).mean()) if len(self.value) else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A moment to name on a picture of shedding, e.g. "trip sent"; `target_kw` draws a level as well."""

    time_us: int
    text: str
    target_kw: float | None = None


def terminal_curve(
    traces: Sequence[Trace], *, title: str, unit: str, width: int = 100, height: int = 20, colour: bool = False
) -> str:
    """The curves as text of at most `width` columns (plotext lowers it to the terminal's own), braille dots.

    Without colour the lines of several days look alike: their order and labels are named below the picture.
    """
    import plotext

    figure = plotext.figure
    figure.clear()
    try:
        figure.theme("default" if colour else "colorless")
        figure.plot_size(width, height)
        drawn = False
        for trace in traces:
            at = np.flatnonzero(np.isfinite(trace.value))
            if not len(at):
                continue
            signal = figure.signal(trace.hour[at].tolist(), trace.value[at].tolist(), marker="braille")
            signal.lines()
            for i in np.flatnonzero(np.diff(at) > 1):
                signal.line(int(i) + 1, False)
            guessed = trace.estimated[at]
            for gap in np.flatnonzero(guessed[1:] | guessed[:-1])[::2]:  # estimates are dashed
                signal.line(int(gap) + 1, False)
            figure.draw(signal)
            drawn = True
        figure.title(f"{title}  [{unit}]")
        ruler = figure.ruler("x")
        ruler.lim(0, 24)
        ruler.ticks(list(range(0, 25, 4)), [f"{h:02d}:00" for h in range(0, 25, 4)])
        low, high = _limits(traces, unit)
        scale = figure.ruler("y")
        scale.lim(low, high)
        levels = np.linspace(low, high, 5).tolist()
        scale.ticks(levels, [f"{level:,.0f}" if high - low > 20 else f"{level:,.3f}" for level in levels])
        text = str(figure.build())
    finally:
        figure.clear()
    if not drawn:
        return ""
    return text if colour else "\n".join(line.rstrip() for line in plotext.uncolorize(text).splitlines()) + "\n"


def _limits(traces: Sequence[Trace], unit: str) -> tuple[float, float]:
    """Bottom and top of the value axis: from zero for a load, close around the values for voltages and the like."""
    every = np.concatenate([t.value[np.isfinite(t.value)] for t in traces] or [np.zeros(0)])
    if not len(every):
        return 0.0, 1.0
    low, high = float(every.min()), float(every.max())
    if unit not in FROM_ZERO and low > 0 and (high - low) < 0.2 * high:
        pad = max((high - low) * 0.3, abs(high) * 0.001)
        return low - pad, high + pad
    low, high = min(low, 0.0), max(high, 0.0)
    return (low * 1.08, (high * 1.08) or 1.0)


@cache
def chinese_font() -> str | None:
    """An installed font family with Chinese glyphs, or None."""
    from matplotlib import font_manager

    installed = {entry.name for entry in font_manager.fontManager.ttflist}
    return next((name for name in CHINESE_FONTS if name in installed), None)


def picture_text(en: str, zh: str) -> str:
    """Text on a PNG: Chinese only if it is the language in force and a font can draw it."""
    return zh if lang() == "zh" and chinese_font() else en


@cache
def _glyphs(family: str) -> frozenset[int]:
    from matplotlib import font_manager, ft2font

    return frozenset(ft2font.FT2Font(font_manager.findfont(family)).get_charmap())


def _safe(text: str) -> str:
    have = _glyphs(chinese_font() or "DejaVu Sans")
    return "".join(c if ord(c) in have else "□" for c in text).replace("$", r"\$")


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _styled(axes: Any, unit: str) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.grid(True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=9)
    axes.set_ylabel(unit, color=INK, fontsize=10)


def _context() -> Any:
    import matplotlib

    family = chinese_font()
    names = [family, "DejaVu Sans"] if family else ["DejaVu Sans"]
    return matplotlib.rc_context({"font.family": names, "axes.unicode_minus": False})


def _png(figure: Any) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": "fuhe"})
    return out.getvalue()


def _svg(figure: Any) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="svg", metadata={"Creator": "fuhe", "Date": None})
    return out.getvalue()


def curve_png(
    traces: Sequence[Trace],
    *,
    title: str,
    unit: str,
    note: str = "",
    members: I8 | None = None,
    expected: int = 0,
    vector: bool = False,
) -> bytes:
    """PNG (vector: SVG) of one or several days over 24 h.

    members (slots,) of the last trace: a strip below shows the sum's cover.
    """
    with _context():
        figure = _figure(11, 5.4 if members is not None else 4.8)
        if members is not None and expected:
            axes, strip = figure.subplots(2, 1, sharex=True, height_ratios=[7, 1])
            _members(strip, traces[-1].hour, members, expected)
            bottom = strip
        else:
            axes = bottom = figure.subplots()
        _styled(axes, unit)
        for i, trace in enumerate(traces):
            last = i == len(traces) - 1
            colour = DAYS[0] if last else DAYS[1 + i % (len(DAYS) - 1)]
            _line(axes, trace, colour, bold=last, fill=len(traces) == 1)
        axes.set_ylim(*_limits(traces, unit))
        _peak(axes, traces[-1], unit)
        bottom.set_xlim(0, 24)
        bottom.set_xticks(range(0, 25, 2), [f"{h:02d}:00" for h in range(0, 25, 2)])
        axes.set_title(_safe(title), loc="left", fontsize=14, fontweight="bold", color=INK, pad=22)
        axes.text(0, 1.025, _safe(note or _summary(traces)), transform=axes.transAxes, fontsize=9, color="#5b6b7b")
        if len(traces) > 1 or any(t.estimated.any() for t in traces):
            axes.legend(loc="upper left", frameon=False, fontsize=9, ncols=4)
        return _svg(figure) if vector else _png(figure)


def _summary(traces: Sequence[Trace]) -> str:
    trace = traces[-1]
    guessed = int(trace.estimated.sum())
    return picture_text(
        f"measured {trace.completeness:.1%} of {len(trace.value)} slots, estimated {guessed}",
        f"实测 {trace.completeness:.1%} / {len(trace.value)} 点, 估算 {guessed} 点",
    )


def _line(axes: Any, trace: Trace, colour: str, *, bold: bool, fill: bool) -> None:
    """Measured line with its holes, estimates dashed and joined to their measured neighbours."""
    real = np.where(trace.estimated, np.nan, trace.value)
    axes.plot(trace.hour, real, color=colour, linewidth=2.0 if bold else 1.1, label=_safe(trace.label), zorder=3)
    # A single slot between two holes has no line: give it a dot.
    alone = np.isfinite(real) & ~np.isfinite(np.r_[np.nan, real[:-1]]) & ~np.isfinite(np.r_[real[1:], np.nan])
    axes.plot(trace.hour[alone], real[alone], ".", color=colour, markersize=4)
    if fill:
        axes.fill_between(
            trace.hour, np.nan_to_num(real), where=np.isfinite(real), color=colour, alpha=0.10, linewidth=0
        )
    if trace.estimated.any():
        near = trace.estimated | np.r_[trace.estimated[1:], False] | np.r_[False, trace.estimated[:-1]]
        dashed = np.where(near, trace.value, np.nan)
        label = _safe(picture_text("estimated", "估算"))
        axes.plot(trace.hour, dashed, "--", color=WARM, linewidth=1.5, label=label, zorder=2)


def _peak(axes: Any, trace: Trace, unit: str) -> None:
    """Name the largest measured value and its time."""
    real = np.where(trace.estimated, np.nan, trace.value)
    if not np.isfinite(real).any():
        text = picture_text("no values", "无数据")
        axes.text(0.5, 0.5, _safe(text), transform=axes.transAxes, ha="center", color=FAINT, fontsize=18)
        return
    i = int(np.argmax(np.where(np.isfinite(real), real, -np.inf)))
    minutes = round(float(trace.hour[i]) * 60)
    text = f"{real[i]:,.4g} {unit}" if abs(real[i]) < 1000 else f"{real[i]:,.0f} {unit}"
    axes.plot(trace.hour[i], real[i], "o", color=WARM, markersize=5, zorder=4)
    axes.annotate(
        _safe(f"{text}  {minutes // 60:02d}:{minutes % 60:02d}"),
        (trace.hour[i], real[i]),
        xytext=(0, 7), textcoords="offset points", fontsize=9, color=WARM,
        ha="right" if trace.hour[i] > 20 else "left" if trace.hour[i] < 4 else "center",
    )  # fmt: skip


def _members(strip: Any, hour: F8, members: I8, expected: int) -> None:
    _styled(strip, "")
    strip.bar(hour, members, width=(hour[1] - hour[0]) if len(hour) > 1 else 0.25, color=FAINT, align="center")
    strip.axhline(expected, color=INK, linewidth=0.8)
    strip.set_ylim(0, expected * 1.15)
    strip.set_yticks([0, expected])
    strip.set_ylabel(_safe(picture_text("points", "点数")), color=INK, fontsize=9)


def shed_png(
    time_us: I8,
    kw: F8,
    marks: Sequence[Mark],
    *,
    title: str = "",
    limit_kw: float | None = None,
    baseline_kw: F8 | None = None,
) -> bytes:
    """Power against time around a shedding: time_us (n,) ascending instants, kw (n,) with NaN, moments named by marks.

    limit_kw: the level that the order wants the load to stay under; baseline_kw (n,): what would have been drawn.
    Times are business time.
    """
    with _context():
        figure = _figure(11, 4.8)
        axes = figure.subplots()
        _styled(axes, "kW")
        midnight = day_start_us(business_day(int(time_us[0]))) if len(time_us) else 0
        minute = (np.asarray(time_us) - midnight) / 60e6
        axes.plot(minute, kw, color=ACCENT, linewidth=2.0, zorder=3, marker="." if len(minute) < 80 else "")
        axes.fill_between(minute, np.nan_to_num(kw), where=np.isfinite(kw), color=ACCENT, alpha=0.10, linewidth=0)
        if baseline_kw is not None and np.isfinite(baseline_kw).any():
            label = _safe(picture_text("baseline", "基线"))
            axes.plot(minute, baseline_kw, "--", color=WARM, linewidth=1.5, label=label, zorder=2)
            axes.legend(loc="lower right", frameon=False, fontsize=9)
            kw = np.where(np.isfinite(kw), np.fmax(kw, baseline_kw), kw)
        finite = kw[np.isfinite(kw)]
        levels = [m.target_kw for m in marks if m.target_kw is not None] + ([limit_kw] if limit_kw is not None else [])
        top = max([*finite.tolist(), *levels, 0.0]) or 1.0
        low = min([*finite.tolist(), 0.0])
        axes.set_ylim(low * 1.1, top * 1.38)
        if limit_kw is not None:
            axes.axhline(limit_kw, color="#b3343c", linewidth=1.2, linestyle="--")
            axes.annotate(
                _safe(picture_text(f"limit {limit_kw:,.0f} kW", f"限额 {limit_kw:,.0f} kW")),
                (1, limit_kw), xycoords=("axes fraction", "data"), xytext=(-4, 4), textcoords="offset points",
                ha="right", fontsize=9, color="#b3343c",
            )  # fmt: skip
        for i, mark in enumerate(sorted(marks, key=lambda m: m.time_us)):
            at = (mark.time_us - midnight) / 60e6
            axes.axvline(at, color=WARM, linewidth=1.0, zorder=2)
            # Three heights in turn keep neighbouring names apart.
            axes.annotate(
                _safe(mark.text), (at, top * (1.30 - 0.10 * (i % 3))), xytext=(4, 0), textcoords="offset points",
                fontsize=9, color=INK, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0, "alpha": 0.85},
            )  # fmt: skip
            if mark.target_kw is not None:
                axes.plot(at, mark.target_kw, "v", color=WARM, zorder=4)
        if len(minute):
            _clock_axis(axes, float(minute[0]), float(minute[-1]))
        heading = title or picture_text("Power during the shedding", "控制过程功率曲线")
        axes.set_title(_safe(heading), loc="left", fontsize=14, fontweight="bold", color=INK)
        return _png(figure)


def _clock_axis(axes: Any, first: float, last: float) -> None:
    """Ticks on round minutes, written as HH:MM (HH:MM:SS below three minutes)."""
    span = max(last - first, 1 / 60)
    steps = (1 / 60, 1 / 12, 1 / 6, 1 / 4, 1 / 2, 1, 2, 5, 10, 15, 30, 60, 120, 240)
    step = next((s for s in steps if span / s <= 12), DAY_US / 60e6)
    ticks = [n * step for n in range(math.ceil(first / step - 1e-9), math.floor(last / step + 1e-9) + 1)]

    def name(minute: float) -> str:
        second = round(minute * 60)
        hour, rest = divmod(second, 3600)
        clock = f"{hour % 24:02d}:{rest // 60:02d}"
        return f"{clock}:{rest % 60:02d}" if step < 1 else clock

    axes.set_xticks(ticks, [name(t) for t in ticks])
    axes.set_xlim(first, last + span * 0.04)
