"""The charts of a report: from its figures to inline SVG, each with a table of the same figures. Computes nothing.

About 4.4 inches wide, so that text is readable on a phone; told apart by shape and lightness as well as by colour.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from corea.evaluate.curves import ReliabilityBin
from corea.evaluate.report.figures import Report, SignalFigures
from corea.evaluate.report.frontier import MAX_SIGNALS, ordered
from corea.evaluate.report.svg import (
    BLUE,
    CHANCE,
    GREY,
    INK,
    LINES,
    ORANGE,
    VERMILLION,
    WIDTH_INCHES,
    Chart,
    drawing,
    inline,
)
from corea.evaluate.report.words import counted, dollars, number, percent, shortened


def reliability(report: Report) -> Chart | None:
    """Stated confidence against the share of right answers; None where no confidence is known."""
    signal = _main(report)
    if signal is None or not signal.reliability:
        return None
    name = "reliability"
    with drawing(name):
        figure = Figure(figsize=(WIDTH_INCHES, 4.5), layout="constrained")
        axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
        axes.plot([0, 100], [0, 100], label="as sure as right", **CHANCE)
        mass, width = signal.reliability_equal_mass, signal.reliability
        axes.plot(
            [100 * one.confidence for one in mass], [100 * one.accuracy for one in mass], linestyle="none",
            marker="s", markersize=5, markerfacecolor="none", markeredgecolor=GREY, label="tenths of the answers",
        )  # fmt: skip
        axes.errorbar(
            [100 * one.confidence for one in width], [100 * one.accuracy for one in width],
            yerr=_bars(width), fmt="o", color=BLUE, markersize=5.5, capsize=2.5, elinewidth=1.2,
            label="tenths of the scale",
        )  # fmt: skip
        axes.set_ylabel("right answers, %")
        axes.set_ylim(-3, 103)
        axes.set_xlim(-3, 103)
        lefts = [10 * max(ceil(10 * one.confidence - 1e-9) - 1, 0) for one in width]
        below.bar(lefts, [one.n for one in width], width=9.2, align="edge", color=BLUE, alpha=0.75)
        below.set_ylabel("answers")
        below.set_xlabel(f"confidence, % ({shortened(signal.name, 24)})")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, columnspacing=1.2)
        svg = inline(figure, name=name, label=_reliability_label(signal))
    return Chart(
        name=name,
        title=f"How sure it is, and how right: {signal.name}",
        svg=svg,
        columns=("signal", "bins", "from", "to", "answers", "mean confidence", "right", "95 % interval"),
        rows=tuple(row for one in report.signals for row in _reliability_rows(one)),
        note=signal.note,
    )


def risk_coverage(report: Report) -> Chart | None:
    """Error rate of the kept answers against their share, for the best signals; None where none is known."""
    signals = [signal for signal in ordered(report) if signal.risk_coverage]
    if not signals:
        return None
    name, drawn = "risk", signals[:MAX_SIGNALS]
    small = report.overall.small_pass_at_1.value or 0.0
    # A handful of answers at the left edge may all be wrong: that must not flatten the rest.
    seen = [point.risk for signal in drawn for point in signal.risk_coverage if point.coverage >= 0.05]
    operation = report.operation
    at = operation.kept_wrong / operation.kept if operation.kept else 0.0
    top = min(1.0, 1.25 * max([1 - small, at, *seen])) or 1.0
    with drawing(name):
        figure = Figure(figsize=(WIDTH_INCHES, 3.9), layout="constrained")
        axes = figure.add_subplot()
        for signal, style in zip(drawn, LINES, strict=False):
            xs = [100 * point.coverage for point in signal.risk_coverage]
            ys = [100 * point.risk for point in signal.risk_coverage]
            marker = "." if len(xs) < 10 else None
            axes.plot(xs, ys, label=shortened(signal.name, 24), marker=marker, **style)
        axes.axhline(100 * (1 - small), label="by lot", **CHANCE)
        ideal = [share / 50 for share in range(51)]
        perfect = [100 * max(share - small, 0) / share if share else 0.0 for share in ideal]
        axes.plot([100 * share for share in ideal], perfect, color=INK, linewidth=0.9, label="perfect signal")
        if operation.by != "none" and operation.kept:
            axes.plot(
                100 * operation.kept / operation.n, 100 * at, marker="o",
                markersize=9, color=VERMILLION, markeredgecolor=INK, linestyle="none", zorder=5,
                label=f"{operation.by} threshold",
            )  # fmt: skip
        axes.set_xlim(0, 101)
        axes.set_ylim(0, 100 * top)
        axes.set_xlabel(f"kept answers, % of {counted(report.n, 'question')}")
        axes.set_ylabel("wrong among the kept, %")
        figure.legend(loc="outside lower center", ncols=2, columnspacing=1.2)
        first = drawn[0]
        label = (
            f"Line chart of the error rate of kept answers against their share. All answers: {percent(1 - small)} "
            f"wrong. {first.name}: {_risk_at(first, 0.5)} of the surest half are wrong."
        )
        svg = inline(figure, name=name, label=label)
    notes = []
    if any(point.risk > top for signal in drawn for point in signal.risk_coverage):
        notes.append("At the left edge, where a handful of answers is kept, a line leaves the chart")
    if len(signals) > len(drawn):
        notes.append(f"{counted(len(signals) - len(drawn), 'more signal')} in the table only")
    return Chart(
        name=name,
        title="Errors among kept answers",
        svg=svg,
        columns=("signal", "threshold", "kept", "wrong among the kept"),
        rows=tuple(row for signal in signals for row in _risk_rows(signal)),
        note=". ".join(notes) or None,
    )


def costs(report: Report) -> Chart | None:
    """Where the money goes, for 1,000 questions; None where costs are unknown."""
    found, operation = report.costs, report.operation
    alone, small, deferred, saved = (
        found.large_alone_nano_usd, found.small_nano_usd, found.deferred_nano_usd, found.saved_nano_usd,
    )  # fmt: skip
    if alone is None or small is None or deferred is None or saved is None:
        return None
    name, per = "costs", 1000 / found.n
    rows: list[tuple[str, float, float]] = [
        (f"{shortened(report.large, 18)} alone", 0.0, alone * per),
        (f"{operation.by} threshold", small * per, deferred * per),
    ]
    rows = rows if operation.by != "none" else rows[:1]
    with drawing(name):
        figure = Figure(figsize=(WIDTH_INCHES, 1.45 + 0.42 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        places = list(range(len(rows)))[::-1]
        smalls, larges = [row[1] / 1e9 for row in rows], [row[2] / 1e9 for row in rows]
        axes.barh(places, smalls, height=0.6, color=BLUE)
        axes.barh(places, larges, left=smalls, height=0.6, color=ORANGE, hatch="\\\\\\", edgecolor="white", linewidth=0)
        handles = [
            Patch(facecolor=BLUE, label=f"{shortened(report.small, 22)} calls"),
            Patch(facecolor=ORANGE, hatch="\\\\\\", edgecolor="white", label=f"{shortened(report.large, 22)} calls"),
        ]
        if len(rows) > 1 and saved > 0:
            axes.barh(
                [places[1]], [saved * per / 1e9], left=[smalls[1] + larges[1]], height=0.6, color="white",
                edgecolor=GREY, linestyle="--", linewidth=1,
            )  # fmt: skip
            handles.append(Patch(facecolor="white", edgecolor=GREY, linestyle="--", label="saved"))
        axes.set_yticks(places, [row[0] for row in rows])
        axes.tick_params(axis="y", length=0)
        axes.grid(False, axis="y")
        axes.set_xlabel("USD for 1,000 questions")
        axes.locator_params(axis="x", nbins=5)
        figure.legend(handles=handles, loc="outside lower center", ncols=2, columnspacing=1.2, handlelength=1.4)
        label = (
            f"Bar chart of costs for 1,000 questions. {report.large} alone: {dollars(alone * per)}. Cascade: "
            f"{dollars(small * per)} for {report.small} and {dollars(deferred * per)} for {report.large}."
        )
        svg = inline(figure, name=name, label=label)
    asked = "not asked" if operation.by == "none" else "all questions"
    parts: list[tuple[str, float]] = [
        (f"{report.small}, {asked}", small),
        (f"{report.large}, deferred questions", deferred),
        ("cascade", small + deferred),
        (f"{report.large} alone", alone),
        ("saved", saved),
    ]
    return Chart(
        name=name,
        title="Where the money goes",
        svg=svg,
        columns=("", "for 1,000 questions", f"for these {found.n:,}", f"share of {report.large} alone"),
        rows=tuple(
            (what, dollars(spent * per), dollars(spent), percent(spent / alone) if alone else "–")
            for what, spent in parts
        ),
        note=found.note,
    )


def _main(report: Report) -> SignalFigures | None:
    return next((signal for signal in report.signals if signal.name == report.choice.signal), None)


def _bars(bins: Sequence[ReliabilityBin]) -> list[list[float]]:
    """How far the intervals go down and up, in per cent."""
    downs = [100 * max(one.accuracy - one.low, 0.0) for one in bins]
    return [downs, [100 * max(one.high - one.accuracy, 0.0) for one in bins]]


def _reliability_label(signal: SignalFigures) -> str:
    bins = signal.reliability
    fullest = max(bins, key=lambda one: one.n)
    return (
        f"Reliability diagram of {signal.name}. Fullest of {len(bins)} bins: {fullest.n:,} answers, mean confidence "
        f"{percent(fullest.confidence)}, right {percent(fullest.accuracy)}."
    )


def _reliability_rows(signal: SignalFigures) -> Iterator[tuple[str, ...]]:
    for kind, bins in (("of the scale", signal.reliability), ("of the answers", signal.reliability_equal_mass)):
        for one in bins:
            yield (
                signal.name,
                kind,
                number(one.least),
                number(one.most),
                f"{one.n:,}",
                number(one.confidence),
                percent(one.accuracy),
                f"{100 * one.low:.1f} to {100 * one.high:.1f}",
            )


def _risk_at(signal: SignalFigures, coverage: float) -> str:
    return percent(min(signal.risk_coverage, key=lambda point: abs(point.coverage - coverage)).risk)


def _risk_rows(signal: SignalFigures) -> Iterator[tuple[str, ...]]:
    for point in signal.risk_coverage:
        yield signal.name, number(point.threshold, 4), percent(point.coverage), percent(point.risk)
