"""The frontier as a chart: accuracy against cost of every policy there is on the same questions. Computes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from corea.evaluate.baselines import Baseline, Point
from corea.evaluate.report.figures import Report, SignalFigures
from corea.evaluate.report.svg import (
    BLUE,
    CHANCE,
    INK,
    LINES,
    ROUTER,
    VERMILLION,
    WIDTH_INCHES,
    Chart,
    drawing,
    inline,
)
from corea.evaluate.report.words import counted, dollars, interval, number, percent, shortened, value_of

#: Lines of one chart; more cannot be told apart.
MAX_SIGNALS = len(LINES)

Style = dict[str, Any]
_POINTS: dict[str, Style] = {
    "always small": {"marker": "v", "color": "white", "markeredgecolor": INK, "markersize": 8},
    "always large": {"marker": "^", "color": INK, "markersize": 8},
    "oracle": {"marker": "*", "color": INK, "markersize": 10},
    "oracle router": {"marker": "*", "color": "white", "markeredgecolor": INK, "markersize": 10},
}
_RULES: dict[str, Style] = {
    "naive": {"marker": "D", "color": BLUE, "markersize": 6.5, "markeredgecolor": "white"},
    "paper": {"marker": "s", "color": BLUE, "markersize": 6.5, "markeredgecolor": "white"},
}
_OPERATION: Style = {"marker": "o", "color": VERMILLION, "markeredgecolor": INK, "markersize": 9, "zorder": 6}


def frontier(report: Report) -> Chart:
    """Accuracy against cost, or against the share that is deferred where costs are unknown."""
    name, axis = "frontier", _Axis.of(report)
    with drawing(name):
        figure = Figure(figsize=(WIDTH_INCHES, 4.7), layout="constrained")
        axes = figure.add_subplot()
        for label, baseline, style in _curves(report):
            _line(axes, axis, label, baseline, style)
        for label, point, style in _singles(report):
            _mark(axes, axis, label, point, style)
        axes.set_xlim(left=0)
        axes.set_xlabel(axis.title)
        axes.set_ylabel("right answers, %")
        figure.legend(loc="outside lower center", ncols=2, columnspacing=1.2)
        svg = inline(figure, name=name, label=_label(report, axis))
    return Chart(
        name=name,
        title="Accuracy against cost" if axis.cost else "Accuracy against deferral",
        svg=svg,
        columns=("policy", "threshold", "right", "95 % interval", "for 1,000 questions", "saving", "deferred"),
        rows=tuple(_rows(report)),
        note=_note(report, axis),
    )


def ordered(report: Report) -> list[SignalFigures]:
    """The certified signal first, then the others by what they are worth on the frontier."""
    chosen = report.choice.signal
    return sorted(report.signals, key=lambda one: (one.name != chosen, -(one.area_under_frontier.value or 0), one.name))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Axis:
    """What lies to the right: money, or where that is unknown, questions for the large model. Both in per cent."""

    cost: bool
    title: str

    @classmethod
    def of(cls, report: Report) -> _Axis:
        alone = [one for one in report.baselines if one.name in ("always small", "always large")]
        if all(one.points[0].saving.value is not None for one in alone):
            return cls(cost=True, title=f"cost, % of {shortened(report.large, 28)} alone")
        return cls(cost=False, title=f"questions for {shortened(report.large, 28)}, %")

    def at(self, point: Point) -> float | None:
        if not self.cost:
            return 100 * (point.deferral_rate.value or 0.0)
        return None if point.saving.value is None else 100 * (1 - point.saving.value)

    def spread(self, point: Point) -> tuple[float, float] | None:
        """How far its interval goes to the left and to the right."""
        found = point.saving if self.cost else point.deferral_rate
        if found.value is None or found.low is None or found.high is None:
            return None
        down, up = 100 * max(found.value - found.low, 0), 100 * max(found.high - found.value, 0)
        # A higher saving is a lower cost.
        return (up, down) if self.cost else (down, up)


def _curves(report: Report) -> Iterator[tuple[str, Baseline, Style]]:
    by_name = {baseline.name: baseline for baseline in report.baselines if len(baseline.points) > 1}
    for signal, style in zip(ordered(report), LINES, strict=False):
        if signal.name in by_name:
            yield shortened(signal.name, 22), by_name[signal.name], style
    for name, label, style in (("router", "router, by text alone", ROUTER), ("random", "by lot", CHANCE)):
        if name in by_name:
            yield label, by_name[name], style


def _singles(report: Report) -> Iterator[tuple[str, Point, Style]]:
    names = {
        "always small": f"{shortened(report.small, 16)} alone",
        "always large": f"{shortened(report.large, 16)} alone",
    }
    rules = {f"{rule}: {report.choice.signal}": rule for rule in _RULES}
    for baseline in report.baselines:
        if baseline.name in _POINTS and baseline.points:
            yield names.get(baseline.name, baseline.name), baseline.points[0], _POINTS[baseline.name]
        if baseline.name in rules and baseline.points:
            rule = rules[baseline.name]
            label = "naive rule" if rule == "naive" else "rule of 2603.03752"
            yield label, baseline.points[0], _RULES[rule]
    if report.operation.by == "certified":
        yield "certified threshold", report.operation.point, _OPERATION


def _line(axes: Axes, axis: _Axis, label: str, baseline: Baseline, style: Style) -> None:
    told = [(at, point.accuracy) for point in baseline.points if (at := axis.at(point)) is not None]
    xs = [at for at, _ in told]
    axes.plot(xs, [100 * (right.value or 0) for _, right in told], label=label, **style)
    if style is not LINES[0]:
        return
    lows, highs = (
        [100 * (bound or 0) for bound in bounds] for bounds in ([r.low for _, r in told], [r.high for _, r in told])
    )
    axes.fill_between(xs, lows, highs, color=BLUE, alpha=0.12, linewidth=0)


def _mark(axes: Axes, axis: _Axis, label: str, point: Point, style: Style) -> None:
    at, right = axis.at(point), point.accuracy
    if at is None or right.value is None:
        return
    axes.plot([at], [100 * right.value], linestyle="none", label=label, **{"zorder": 5, **style})
    sides = axis.spread(point)
    if style is not _OPERATION or sides is None or right.low is None or right.high is None:
        return
    down, up = 100 * max(right.value - right.low, 0), 100 * max(right.high - right.value, 0)
    axes.errorbar(
        [at], [100 * right.value], xerr=[[sides[0]], [sides[1]]], yerr=[[down], [up]], fmt="none", ecolor=INK,
        elinewidth=1, capsize=2.5, zorder=5.5,
    )  # fmt: skip


def _label(report: Report, axis: _Axis) -> str:
    overall, point = report.overall, report.operation.point
    told = (
        f"Chart of accuracy against {'cost' if axis.cost else 'deferral'}. {report.small} alone: "
        f"{percent(overall.small_pass_at_1.value)} right; {report.large} alone: "
        f"{percent(overall.large_pass_at_1.value)}."
    )
    if report.operation.by != "certified":
        return f"{told} No threshold is certified."
    at = f"saving {percent(point.saving.value)}" if axis.cost else f"deferring {percent(point.deferral_rate.value)}"
    return f"{told} Certified threshold: {percent(point.accuracy.value)} right, {at}."


def _note(report: Report, axis: _Axis) -> str | None:
    told = (
        [] if axis.cost else ["Costs are not known, so what lies to the right is work for the large model, not money"]
    )
    told += [report.frontier_note] if report.frontier_note else []
    told += [f"{baseline.name}: {baseline.note}" for baseline in report.baselines if baseline.note]
    left_out = len(report.signals) - MAX_SIGNALS
    told += [f"{counted(left_out, 'more signal')} in the table only"] if left_out > 0 else []
    # Each once, in the order in which they came.
    return "; ".join(dict.fromkeys(told)) or None


def _rows(report: Report) -> Iterator[tuple[str, ...]]:
    if report.operation.by != "none":
        yield _row(f"{report.operation.by} threshold", report.operation.point, report.operation.threshold)
    for baseline in report.baselines:
        for point in baseline.points:
            yield _row(baseline.name, point, point.threshold)


def _row(name: str, point: Point, threshold: float | None) -> tuple[str, ...]:
    cost = point.cost_nano_usd.value
    return (
        name,
        "–" if threshold is None else "above all" if threshold == float("inf") else number(threshold, 4),
        percent(point.accuracy.value),
        interval(point.accuracy, "percent"),
        "–" if cost is None else dollars(1000 * cost),
        value_of(point.saving, "percent"),
        percent(point.deferral_rate.value),
    )
