"""Two charts, a line for each task: what becomes of its questions, and how right each model is. Computes nothing."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from corea.evaluate.metrics import Estimate, GroupMetrics
from corea.evaluate.report.figures import Fate, Report
from corea.evaluate.report.svg import BLUE, INK, PALE, VERMILLION, WIDTH_INCHES, Chart, drawing, inline
from corea.evaluate.report.words import MIN_TO_TELL, counted, interval, percent, shortened

#: Lines of one chart.
MAX_TASKS = 20


def fates(report: Report) -> Chart | None:
    """What becomes of the questions of each task; None where no task has enough, or no threshold keeps any answer."""
    rows = [fate for fate in report.fates if fate.by == "task"]
    drawn = _drawn(report)
    if not drawn or report.operation.by == "none":
        return None
    name = "fates"
    with drawing(name):
        figure, axes = _lines(drawn)
        places = list(range(len(drawn)))
        deferred = [100 * fate.deferral_rate for fate in drawn]
        wrong = [100 * fate.kept_wrong / fate.n for fate in drawn]
        right = [100 - gone - lost for gone, lost in zip(deferred, wrong, strict=True)]
        axes.barh(places, right, height=0.72, color=BLUE, label="kept, right")
        axes.barh(
            places, wrong, left=right, height=0.72, color=VERMILLION, hatch="////", edgecolor="white", linewidth=0,
            label="kept, wrong",
        )  # fmt: skip
        lefts = [one + two for one, two in zip(right, wrong, strict=True)]
        axes.barh(places, deferred, left=lefts, height=0.72, color=PALE, label="deferred")
        axes.grid(False, axis="y")
        axes.set_xlim(0, 100)
        axes.set_xlabel("share of the task's questions, %")
        figure.legend(loc="outside lower center", ncols=3, columnspacing=1.2, handlelength=1.4)
        most, least = drawn[-1], drawn[0]
        label = (
            f"Bar chart of what is kept and deferred by task. Most deferred: {most.name}, "
            f"{percent(most.deferral_rate)}; least: {least.name}, {percent(least.deferral_rate)}."
        )
        svg = inline(figure, name=name, label=label)
    return Chart(
        name=name,
        title="What becomes of each task's questions",
        svg=svg,
        columns=("task", "questions", "deferred", "95 % interval", "kept", "wrong among the kept"),
        rows=tuple(_fate_row(fate) for fate in sorted(rows, key=lambda fate: (-fate.deferral_rate, fate.name))),
        note=_tasks_note(report),
    )


def accuracies(report: Report) -> Chart | None:
    """How right each model is on each task, in the order of :func:`fates`; None where no task has enough questions."""
    groups = {group.name: group for group in report.groups if group.by == "task"}
    fates_drawn = _drawn(report)
    drawn = [groups[fate.name] for fate in fates_drawn]
    if not drawn:
        return None
    name = "accuracies"
    with drawing(name):
        figure, axes = _lines(fates_drawn)
        sides: tuple[tuple[str, list[Estimate], float, dict[str, Any]], ...] = (
            (report.small, [group.small_pass_at_1 for group in drawn], -0.14, {"fmt": "o", "color": BLUE}),
            (report.large, [group.large_pass_at_1 for group in drawn], 0.14, {"fmt": "^", "color": INK}),
        )
        for label, rights, shift, style in sides:
            values = [100 * (right.value or 0.0) for right in rights]
            downs = [value - 100 * (right.low or 0.0) for value, right in zip(values, rights, strict=True)]
            ups = [100 * (right.high or 0.0) - value for value, right in zip(values, rights, strict=True)]
            axes.errorbar(
                values, [place + shift for place in range(len(drawn))],
                xerr=[[max(down, 0) for down in downs], [max(up, 0) for up in ups]],
                markersize=4.5, elinewidth=0.9, capsize=0, label=f"{shortened(label, 22)} alone", **style,
            )  # fmt: skip
        axes.set_xlim(0, 102)
        axes.set_xlabel("right answers, %")
        figure.legend(loc="outside lower center", ncols=2, columnspacing=1.2)
        widest = max(drawn, key=lambda one: (one.large_pass_at_1.value or 0) - (one.small_pass_at_1.value or 0))
        label = (
            f"Chart of accuracy by task. {report.small} is furthest behind {report.large} on {widest.name}: "
            f"{percent(widest.small_pass_at_1.value)} against {percent(widest.large_pass_at_1.value)}."
        )
        svg = inline(figure, name=name, label=label)
    return Chart(
        name=name,
        title="How right each model is",
        svg=svg,
        columns=(
            "task",
            "questions",
            f"{report.small} right",
            "95 % interval",
            f"{report.large} right",
            "95 % interval",
        ),
        rows=tuple(_accuracy_row(group) for group in sorted(groups.values(), key=lambda group: (-group.n, group.name))),
        note=_tasks_note(report),
    )


def _lines(drawn: list[Fate]) -> tuple[Figure, Axes]:
    """A figure as high as its tasks are many, with their names and numbers of questions on the left."""
    figure = Figure(figsize=(WIDTH_INCHES, 1.3 + 0.24 * len(drawn)), layout="constrained")
    axes = figure.add_subplot()
    axes.set_yticks(list(range(len(drawn))), [f"{shortened(fate.name, 24)} ({fate.n:,})" for fate in drawn])
    axes.tick_params(axis="y", length=0, labelsize=8.5)
    axes.set_ylim(-0.6, len(drawn) - 0.4)
    return figure, axes


def _fate_row(fate: Fate) -> tuple[str, ...]:
    if fate.n < MIN_TO_TELL:
        return fate.name, f"{fate.n:,}", "too few to tell", "", f"{fate.kept:,}", ""
    spread = f"{100 * fate.low:.1f} to {100 * fate.high:.1f}"
    wrong = percent(fate.kept_wrong / fate.kept) if fate.kept else "–"
    return fate.name, f"{fate.n:,}", percent(fate.deferral_rate), spread, f"{fate.kept:,}", wrong


def _accuracy_row(group: GroupMetrics) -> tuple[str, ...]:
    if group.n < MIN_TO_TELL:
        return group.name, f"{group.n:,}", "too few to tell", "", "", ""
    small, large = group.small_pass_at_1, group.large_pass_at_1
    told = [text for one in (small, large) for text in (percent(one.value), interval(one, "percent"))]
    return group.name, f"{group.n:,}", *told


def _told(report: Report) -> list[Fate]:
    """Tasks that have enough questions, the largest first."""
    tasks = (fate for fate in report.fates if fate.by == "task" and fate.n >= MIN_TO_TELL)
    return sorted(tasks, key=lambda fate: (-fate.n, fate.name))


def _drawn(report: Report) -> list[Fate]:
    """The largest of them, from the bottom up: the most deferred on top."""
    return sorted(_told(report)[:MAX_TASKS], key=lambda fate: (fate.deferral_rate, fate.name))


def _tasks_note(report: Report) -> str | None:
    tasks, told = sum(fate.by == "task" for fate in report.fates), len(_told(report))
    notes = []
    if told > MAX_TASKS:
        notes.append(f"The {MAX_TASKS} largest of {told} tasks; the others are in the table")
    if tasks > told:
        notes.append(f"{counted(tasks - told, 'task')} with fewer than {MIN_TO_TELL} questions: too few to tell")
    return ". ".join(notes) or None
