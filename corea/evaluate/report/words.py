"""A report's figures in words and in a form for people. What is said here is in the JSON as well. Knows no HTML."""

from __future__ import annotations

from math import floor, log10
from typing import Literal

from corea.evaluate.metrics import Estimate, GroupMetrics
from corea.evaluate.outcomes import Pair
from corea.evaluate.report.figures import Certification, Choice, Operation, Report

UNKNOWN = "unknown"
Kind = Literal["percent", "points", "number", "count", "dollars"]
#: Questions below which a task is not told about: its shares would be noise.
MIN_TO_TELL = 20


def headline(
    pair: Pair,
    overall: GroupMetrics,
    choice: Choice,
    certification: Certification,
    operation: Operation,
    *,
    max_drop: float,
) -> tuple[str, ...]:
    """What a manager needs to know, the most important sentence first."""
    lead = _lead(pair, choice, certification, operation)
    small, large = overall.small_pass_at_1.value or 0.0, overall.large_pass_at_1.value or 0.0
    scores = f"{pair.small} alone is right on {percent(small)} of the {counted(len(pair), 'question')}, "
    scores += f"{pair.large} alone on {percent(large)}"
    if operation.by == "certified":
        scores += f", the cascade on {percent(operation.point.accuracy.value)}"
    told = [*lead, f"{scores}."]
    if small >= large:
        told.append(f"{pair.large} is no better here, so there is little to defer for: consider {pair.small} alone.")
    if choice.signal is None or operation.by == "certified":
        return tuple(told)
    if overall.signals[choice.signal].coverage.value:
        told.append(_naive(pair, choice.signal, operation, max_drop))
    return tuple(told)


def _lead(pair: Pair, choice: Choice, certification: Certification, operation: Operation) -> list[str]:
    certified = certification.certified
    if choice.signal is None:
        return ["Nothing can be promised: there is no confidence signal to decide by."]
    if certified is None:
        return ["Nothing can be promised with these outcomes.", sentence(certification.note or "")]
    if certified.threshold is None:
        return [certified.promise]
    saving = operation.point.saving.value
    what = f"spares {pair.large} {percent(1 - (operation.point.deferral_rate.value or 0.0))} of the questions"
    if saving is not None:
        what = f"is {'no' if saving < 0 else 'hardly'} cheaper than {pair.large} alone"
    if saving is not None and saving >= 0.005:
        what = f"is about {percent(saving, 0 if saving >= 0.1 else 1)} cheaper than {pair.large} alone"
    return [f"{pair.small} first, {pair.large} for the rest: that {what}.", certified.promise]


def _naive(pair: Pair, signal: str, operation: Operation, max_drop: float) -> str:
    saving = operation.point.saving.value
    if operation.by == "none":
        free = "" if saving is None else " and saves money"
        return (
            f"No threshold on {signal} stays within {points(max_drop)} of {pair.large}{free} on these questions: ask "
            f"{pair.large} alone."
        )
    kept = f"Keeping what {signal} puts at {number(operation.threshold)} or more"
    gain = "" if saving is None else f"save {percent(saving)} and "
    return (
        f"{kept} would {gain}lose {points(operation.drop.value)} here, but a threshold that is judged by the very "
        "questions that chose it promises nothing."
    )


def at_threshold(report: Report) -> str:
    """At which threshold the figures of a section are, and whose it is."""
    operation, signal = report.operation, report.choice.signal
    reached = f"{signal} ≥\u00a0{number(operation.threshold, 4)}"
    if signal is None:
        return f"There is no confidence to set a threshold on, so {report.large} is asked everything."
    if operation.by == "none":
        return f"No threshold is worth keeping an answer for, so {report.large} is asked everything."
    if operation.by == "naive":
        return f"At the naive threshold, {reached}: no threshold is certified."
    if operation.tie_fraction < 1:
        reached += f"; of those exactly at it, {percent(operation.tie_fraction)} by a hash of the question"
    return f"At the certified threshold, {reached}."


def percent(share: float | None, digits: int = 1) -> str:
    """``63.3 %``; ``0 %`` and ``100 %`` are exact."""
    if share is None:
        return UNKNOWN
    exact = share in (0.0, 1.0)
    return f"{100 * share:.{0 if exact else digits}f}\u00a0%".replace("-", "−")


def points(share: float | None) -> str:
    """A difference of two shares: ``2 points``."""
    if share is None:
        return UNKNOWN
    told = f"{100 * share:.1f}".removesuffix(".0").replace("-", "−")
    told = "0" if told == "−0" else told
    return f"{told}\u00a0point{'' if told in ('1', '−1') else 's'}"


def number(value: float | None, digits: int = 3) -> str:
    """``0.923``. A threshold of almost 1 keeps the digits that make it less than 1."""
    if value is None:
        return UNKNOWN
    while digits < 9 and value < 1 <= round(value, digits):
        digits += 1
    return f"{value:.{digits}f}".replace("-", "−")


def chance(p_value: float | None) -> str:
    """A p-value: ``0.0346``; what is tiny is only called tiny."""
    if p_value is None:
        return UNKNOWN
    return f"{p_value:.2g}" if p_value >= 0.0001 else "< 0.0001"


def sentence(note: str) -> str:
    """A note as a sentence of its own."""
    return f"{note[:1].upper()}{note[1:]}."


def dollars(nano_usd: float | None) -> str:
    """``$1.20``, ``$0.0123``: cents from a dollar on, else three significant digits."""
    if nano_usd is None:
        return UNKNOWN
    usd = abs(nano_usd) / 1e9
    digits = 2 if usd >= 1 or not usd else 2 - floor(log10(usd))
    return f"{'−' if nano_usd < 0 else ''}${usd:,.{digits}f}"


def counted(count: int, noun: str) -> str:
    """``1 question``, ``1,810 questions``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def interval(estimate: Estimate, kind: Kind) -> str:
    """The interval of an estimate in the unit of its value, ``60.1 to 65.4``; empty where there is none, or no width.

    ``dollars``: a cost in nano-USD a question, told for 1,000 of them.
    """
    if estimate.low is None or estimate.high is None or estimate.low == estimate.high:
        return ""
    if kind in ("percent", "points"):
        low, high = (f"{100 * bound:.1f}".replace("-", "−") for bound in (estimate.low, estimate.high))
        return f"{low} to {high}"
    if kind == "count":
        return f"{estimate.low:,.0f} to {estimate.high:,.0f}"
    if kind == "dollars":
        return f"{dollars(1000 * estimate.low)} to {dollars(1000 * estimate.high)}"
    return f"{number(estimate.low)} to {number(estimate.high)}"


def value_of(estimate: Estimate, kind: Kind) -> str:
    """The value of an estimate; a dash where there is none (its note says why)."""
    if estimate.value is None:
        return "–"
    if kind == "percent":
        return percent(estimate.value)
    if kind == "points":
        return points(estimate.value)
    if kind == "dollars":
        return dollars(1000 * estimate.value)
    return f"{estimate.value:,.0f}" if kind == "count" else number(estimate.value)


def shortened(text: str, most: int) -> str:
    """At most so many characters, and none that cannot be shown."""
    shown = "".join(character if character.isprintable() else " " for character in text)
    return shown if len(shown) <= most else shown[: most - 1].rstrip() + "…"
