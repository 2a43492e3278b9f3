"""The part that says what was measured when, what ``make bench`` runs, and how the rest is run."""

from __future__ import annotations

from pathlib import Path

from bench.registry import BENCHES, NEEDS, Bench
from bench.running import Run, lasting, runs

_ENDS = {"met": "", "missed": "; missed a limit", "failed": "; failed"}


def listed(bench: Path) -> str:
    known = runs(bench)
    alone = [one for one in BENCHES if not one.needs]
    others = [one for one in BENCHES if one.needs]
    took_s = sum(_took_s(one, known.get(one.name)) for one in alone)
    needs = dict.fromkeys(need for one in others for need in one.needs)
    return "\n".join([
        f"`make bench` runs these, about {lasting(took_s)} on two cores, and writes this page anew:",
        "",
        "| | takes | last run | again |",
        "|---|---|---|---|",
        *(_row(one, known.get(one.name), bench) for one in alone),
        "",
        "Left out where what they need is not there, or since they take hours:",
        "",
        "| | takes | last run | needs | again |",
        "|---|---|---|---|---|",
        *(_row(one, known.get(one.name), bench, ", ".join(one.needs)) for one in others),
        "",
        *(f"- {need}: {NEEDS[need].what}" for need in needs),
    ])  # fmt: skip


def _row(one: Bench, last: Run | None, bench: Path, *more: str) -> str:
    about = "" if last is not None and last.seconds is not None else "about "
    cells = [one.about, f"{about}{lasting(_took_s(one, last))}", _when(one, last, bench), *more, f"`{one.command}`"]
    return f"| {' | '.join(cells)} |"


def _when(one: Bench, last: Run | None, bench: Path) -> str:
    if last is not None:
        return f"{last.date}{_ENDS[last.outcome]}"
    # Of a time when nobody wrote it down.
    return "earlier" if all((bench / file).exists() for file in one.results) else "never"


def _took_s(one: Bench, last: Run | None) -> float:
    return one.takes_s if last is None or last.seconds is None else last.seconds
