"""What a training was worth: the same questions, held out, before and after, as figures, JSON and a table.

The figures are those of :mod:`corea.evaluate.metrics`, with their bootstrap intervals. Knows no models.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from corea.errors import InputError
from corea.evaluate.maps import CheckedMap
from corea.evaluate.metrics import DEFAULT, Estimate, Resamples, SignalMetrics, pass_at_1, rank, signal_metrics
from corea.evaluate.outcomes import Outcomes, Pair
from corea.evaluate.pairs import pair_of
from corea.train.served import AFTER, BEFORE, SIGNAL

#: Of a signal, what a reader looks at: its name in the metrics, and in words.
FIGURES = {
    "ece_equal_mass": "ECE",
    "auroc": "AUROC",
    "brier": "Brier",
    "distinct_values": "distinct values",
    "tie_rate": "share tied",
}
#: The signals of the table with their figures; the file has all that were collected. The last two need no training, and
#: are what there is of a model that states nothing.
SIGNALS = {
    SIGNAL: ("E[c]", tuple(FIGURES)),
    "verbalized": ("stated digit", tuple(FIGURES)),
    "expected_followup": ("E[c], asked afterwards", ("ece_equal_mass", "auroc")),
    "logprob": ("mean token probability", ("ece_equal_mass", "auroc")),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two models. ``states``: share of replies whose digit can be read, cut-off ones not among them."""

    pass_at_1: Estimate
    states: Estimate
    signals: Mapping[str, SignalMetrics]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The confidence map, checked on ``n_check`` held-out questions that it was not fitted on (``n``)."""

    kind: str
    path: str
    n: int
    n_check: int
    unmapped: SignalMetrics
    mapped: SignalMetrics
    note: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """``questions``: held out and answered by both; ``left_out``: that one of the two did not answer.

    ``fit`` is None where no map was fitted, and ``no_fit`` then says why.
    """

    base: str
    engine: str
    temperature: float
    questions: int
    left_out: int
    before: Side
    after: Side
    fit: Fit | None = None
    no_fit: str | None = None
    created_at: str


def sides(outcomes: Outcomes, *, rng: np.random.Generator) -> tuple[Side, Side, Pair, int]:
    """Before and after, the pair with the trained model first, and how many questions were left out."""
    after, left_out = pair_of(outcomes, small=AFTER, large=BEFORE, drop_incomplete=True)
    before, _ = pair_of(outcomes, small=BEFORE, large=AFTER, drop_incomplete=True)
    # One set of resamples: the two columns are of the same questions.
    resamples = Resamples(len(after), rng=rng, count=DEFAULT.resamples)
    return _side(before, resamples), _side(after, resamples), after, left_out


def fit_of(made: CheckedMap, path: Path) -> Fit:
    return Fit(
        kind=made.map.kind,
        path=str(path),
        n=made.map.n,
        n_check=made.n_check,
        unmapped=made.before[SIGNAL],
        mapped=made.after,
        note=made.note,
    )


def rows(report: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """The table, of :func:`to_json`'s figures: what, before, after, each with its interval."""
    before, after = report["before"], report["after"]
    for name, label in (("pass_at_1", "right (pass@1)"), ("states", "states a digit")):
        yield label, figure(before[name]), figure(after[name])
    for signal, (label, names) in SIGNALS.items():
        for name in names:
            form = "{:.0f}" if name == "distinct_values" else "{:.3f}"
            then, now = (figure(side["signals"].get(signal, {}).get(name), form) for side in (before, after))
            yield f"{label}: {FIGURES[name]}", then, now


def figure(estimate: Mapping[str, Any] | None, form: str = "{:.3f}") -> str:
    """``0.312 (0.250 to 0.381)``; a dash where there is none."""
    if estimate is None or estimate["value"] is None:
        return "–"
    value, low, high = (estimate[name] for name in ("value", "low", "high"))
    told = form.format(value)
    return told if low is None else f"{told} ({form.format(low)} to {form.format(high)})"


def to_json(report: Report) -> dict[str, Any]:
    return asdict(report)


def to_markdown(report: Mapping[str, Any]) -> str:
    """A short page. ``report``: of :func:`to_json`."""
    lines = [
        f"# {report['base']}, before and after training",
        "",
        f"{report['questions']:,} questions that were held out, asked of both models through {report['engine']} at "
        f"temperature {report['temperature']:g}. In brackets: 95 % bootstrap intervals. Figures of a confidence are of "
        "the replies that state one.",
        "",
        *table(report),
        "",
        *_fit(report),
    ]
    if report["left_out"]:
        lines += ["", f"{report['left_out']:,} questions were left out: one of the two did not answer them."]
    return "\n".join(lines) + "\n"


def table(report: Mapping[str, Any]) -> list[str]:
    """Lines of Markdown."""
    return ["| | before | after |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows(report))]


def save(report: Report, folder: Path) -> None:
    """``report.json`` and ``report.md``."""
    told = to_json(report)
    for name, text in (("report.json", json.dumps(told, indent=2) + "\n"), ("report.md", to_markdown(told))):
        partial = folder / f"{name}.partial"
        partial.write_text(text, encoding="utf-8")
        partial.replace(folder / name)


def read(folder: Path) -> dict[str, Any] | None:
    """What :func:`save` left, None where nothing was measured. Raises :class:`InputError` for a damaged file."""
    try:
        return dict(json.loads((folder / "report.json").read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as exc:
        raise InputError(f"{folder / 'report.json'} is damaged; run the calibrate stage again") from exc


def _side(pair: Pair, resamples: Resamples) -> Side:
    signals = {
        name: signal_metrics(pair.small_correct, rank(values), resamples) for name, values in pair.confidence.items()
    }
    unknown = rank(np.full(len(pair), np.nan))
    stated = signals.get(SIGNAL) or signal_metrics(pair.small_correct, unknown, resamples)
    return Side(
        pass_at_1=pass_at_1(pair.small_correct, resamples),
        states=replace(stated.coverage),
        signals=signals,
    )


def _fit(report: Mapping[str, Any]) -> list[str]:
    fit = report["fit"]
    if fit is None:
        return [f"No confidence map: {report['no_fit']}"]
    note = f" ({fit['note']})" if fit["note"] else ""
    told = {name: [figure(fit[side][name]) for side in ("unmapped", "mapped")] for name in FIGURES}
    return [
        f"The {fit['kind']} map of E[c] was fitted on {fit['n']:,} of these questions and checked on the other "
        f"{fit['n_check']:,}{note}:",
        "",
        "| | E[c] | mapped |",
        "|---|---|---|",
        *(f"| {FIGURES[name]} | {' | '.join(told[name])} |" for name in ("ece_equal_mass", "auroc", "brier")),
    ]
