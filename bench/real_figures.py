"""What ``bench/outcomes`` says, in figures: ``python -m bench.real_figures`` (a minute, no model needed).

Writes ``bench/results/real_outcomes.json``, the pages ``docs/reports/*.html`` and the picture ``docs/frontier.svg``,
and prints the tables of ``docs/results.md``.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.parts.outcomes import real_tables
from bench.real_outcomes import GROUPS, OUTCOMES, TITLES
from corea.evaluate.baselines import Baseline, Point
from corea.evaluate.certification import Terms, certified, usable_signals
from corea.evaluate.outcomes import Pair, read
from corea.evaluate.pairs import pair_of
from corea.evaluate.report import Report, report, to_html
from corea.evaluate.report.svg import BLUE, CHANCE, GREEN, INK, LINES, ROUTER, drawing
from corea.policy.certificate import Certified

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results" / "real_outcomes.json"
MAX_DROP, DELTA, SEED = 0.02, 0.05, 0
#: The large model's cost in small ones, if both were hosted models: by parameters alone it is about 3.3.
DEARER = 10.0


def main() -> None:
    reports, record = {}, {}
    for name in GROUPS:
        outcomes = read(OUTCOMES / f"{name}.parquet")
        pair, left_out = pair_of(outcomes, drop_incomplete=True)
        signals = usable_signals(outcomes, pair)
        made = report(
            pair,
            signal=None,
            max_drop=MAX_DROP,
            delta=DELTA,
            rng=np.random.default_rng(SEED),
            title=f"{TITLES[name]}: {pair.small} → {pair.large}",
            source=f"bench/outcomes/{name}.parquet",
            candidates=signals,
        )
        reports[name] = made
        record[name] = {"left_out": left_out, **_figures(made), "certified": _promises(pair, signals)}
        page = ROOT / "docs" / "reports" / f"{name}.html"
        page.parent.mkdir(exist_ok=True)
        page.write_text(to_html(made), encoding="utf-8")
    RESULTS.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    _picture(reports, ROOT / "docs" / "frontier.svg")
    print("\n".join(real_tables(record)))


def _figures(made: Report) -> dict[str, Any]:
    overall = made.overall
    return {
        "n": made.n,
        "small": asdict(overall.small_pass_at_1),
        "large": asdict(overall.large_pass_at_1),
        "oracle": _point(_named(made, "oracle")),
        "small_alone_saving": _named(made, "always small").saving.value,
        "chosen": made.choice.signal,
        "promise": {"n": made.certification.n, **_saving(made.certification.certified)},
        "signals": {
            name: {
                **{key: asdict(getattr(one, key)) for key in ("auroc", "ece", "brier")},
                "distinct_values": one.distinct_values.value,
                "tie_rate": one.tie_rate.value,
                "coverage": one.coverage.value,
                "naive": _point(_named(made, f"naive: {name}")),
                "paper": _point(_named(made, f"paper: {name}")),
            }
            for name, one in overall.signals.items()
        },
    }


def _promises(pair: Pair, signals: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """What can be certified with each signal on all questions, at the prices as they are and with a dearer large model.

    One at a time: with the best of them picked afterwards, the promise would not hold.
    """
    ratio = float(np.nansum(pair.large_cost_nano_usd) / np.nansum(pair.small_cost_nano_usd))
    dearer = replace(pair, large_cost_nano_usd=pair.large_cost_nano_usd * (DEARER / ratio))
    terms = Terms(max_drop=MAX_DROP, delta=DELTA)
    return {
        signal: {
            "as_priced": _saving(certified(pair, signal, terms)),
            f"large_{DEARER:g}_times_as_dear": _saving(certified(dearer, signal, terms)),
        }
        for signal in signals
    }


def _saving(found: Certified | None) -> dict[str, Any]:
    if found is None:
        return {"threshold": None, "expected_saving": 0.0, "needed_n": None}
    return {"threshold": found.threshold, "expected_saving": found.expected_saving, "needed_n": found.needed_n}


def _named(made: Report, name: str) -> Point:
    return next(one.points[0] for one in made.baselines if one.name == name)


def _point(point: Point) -> dict[str, Any]:
    return {"accuracy": point.accuracy.value, "saving": point.saving.value, "deferral_rate": point.deferral_rate.value}


def _picture(reports: dict[str, Report], out: Path) -> None:
    with drawing("frontier"):
        figure = Figure(figsize=(10, 3.7), layout="constrained")
        for axes, (name, made) in zip(figure.subplots(1, len(reports)), reports.items(), strict=True):
            _frontier(axes, made)
            axes.set_title(f"{TITLES[name]} ({made.n})", fontsize=10)
        first = figure.axes[0]
        first.set_ylabel("right answers, %")
        figure.legend(*first.get_legend_handles_labels(), loc="outside lower center", ncols=8, columnspacing=1.2)
        figure.supxlabel("cost, % of asking the large model alone", fontsize=10)
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    # Without trailing blanks, which matplotlib leaves and every diff would show.
    out.write_text("".join(f"{line.rstrip()}\n" for line in out.read_text().splitlines()))


def _frontier(axes: Axes, made: Report) -> None:
    curves = {one.name: one for one in made.baselines}
    _line(axes, curves["random"], "by lot", CHANCE)
    _line(axes, curves["router"], "router", ROUTER)
    for signal, style in zip(("logprob", "expected_followup", "p_true"), LINES, strict=False):
        _line(axes, curves[signal], signal.removesuffix("_followup"), style)
    for name, marker, colour in (("always small", "v", "white"), ("always large", "^", INK), ("oracle", "*", GREEN)):
        x, y = _xy(curves[name].points[0])
        axes.plot(x, y, marker=marker, color=colour, markeredgecolor=INK, markersize=8, linestyle="none", label=name)
    large = _xy(curves["always large"].points[0])[1]
    axes.axhspan(large - 100 * MAX_DROP, large, color=BLUE, alpha=0.12, linewidth=0)
    axes.set_xlim(left=0)


def _line(axes: Axes, baseline: Baseline, label: str, style: dict[str, Any]) -> None:
    xs, ys = zip(*(_xy(point) for point in baseline.points), strict=True)
    axes.plot(xs, ys, label=label, **style)


def _xy(point: Point) -> tuple[float, float]:
    return 100 * (1 - float(point.saving.value or 0.0)), 100 * float(point.accuracy.value or 0.0)


if __name__ == "__main__":
    main()
