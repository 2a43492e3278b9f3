"""How a run is going: a row a step, kept in a Parquet file; and when it is going so badly that it must stop.

Knows no model and prints nothing. The file holds what a resumed run goes on from: rows of steps after its checkpoint
are dropped, as they will be made again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corea.confidence.protocol import DIGIT_VALUES
from corea.errors import InputError, TrainingStopped
from corea.train.rewards import Floats

Row = dict[str, float | None]


def step_metrics(correct: Floats, stated: Floats, *, group: int) -> dict[str, float]:
    """Figures of one step's N replies in groups. ``stated``: NaN where unknown, and left out of ECE and AUROC."""
    known = ~np.isnan(stated)
    table = correct.reshape(-1, group)
    return {
        "pass_rate": float(correct.mean()),
        "confidence/stated": float(known.mean()),
        "confidence/mean": float(stated[known].mean()) if known.any() else math.nan,
        "confidence/ece": ece(correct[known], stated[known]),
        "confidence/auroc": auroc(correct[known], stated[known]),
        "confidence/distinct_digits": float(len(np.unique(np.round(stated[known], 4)))),
        # Such groups teach the reasoning nothing, but still the digit.
        "groups/all_right": float(np.mean(table.min(axis=1) == 1)),
        "groups/all_wrong": float(np.mean(table.max(axis=1) == 0)),
    }


def ece(correct: Floats, stated: Floats) -> float:
    """Σ over the ten digits of their share × |accuracy − confidence|. NaN for no replies."""
    if not len(correct):
        return math.nan
    digits = np.clip((stated * 10).astype(np.intp), 0, len(DIGIT_VALUES) - 1)
    gaps = np.bincount(digits, weights=correct - stated, minlength=len(DIGIT_VALUES))
    return float(np.abs(gaps).sum() / len(correct))


def auroc(correct: Floats, stated: Floats) -> float:
    """Chance that a right reply states more than a wrong one, ties counting half. NaN where all are alike."""
    right, wrong = stated[correct > 0.5], stated[correct <= 0.5]
    if not len(right) or not len(wrong):
        return math.nan
    return float(np.mean((right[:, None] > wrong) + 0.5 * (right[:, None] == wrong)))


@dataclass(slots=True, kw_only=True)
class Curves:
    """The rows so far. Nothing is on disk before :meth:`write`."""

    path: Path
    rows: list[Row] = field(default_factory=list)

    @classmethod
    def resumed(cls, path: Path, *, step: int) -> Curves:
        """Those of an earlier run up to the step of its checkpoint."""
        if step == 0 or not path.exists():
            return cls(path=path)
        try:
            rows = pq.read_table(path).to_pylist()
        except (OSError, pa.ArrowException) as exc:
            why = " ".join(str(exc).split())[:120]
            raise InputError(f"{path} cannot be read ({why}); delete it, or start anew") from exc
        return cls(path=path, rows=[row for row in rows if row["step"] <= step])

    def add(self, step: int, figures: Mapping[str, Any]) -> Row:
        """One step's figures: numbers only, not-a-number is kept as null."""
        row: Row = {"step": step}
        for name, value in sorted(figures.items()):
            if isinstance(value, int | float) and not isinstance(value, bool):
                row[name] = float(value) if math.isfinite(value) else None
        self.rows.append(row)
        return row

    def write(self) -> None:
        """All rows, atomically. A column that a step lacks is null there."""
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        fields = [pa.field(name, pa.int64() if name == "step" else pa.float64()) for name in names]
        partial = self.path.with_name(self.path.name + ".partial")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(self.rows, schema=pa.schema(fields)), partial, compression="zstd")
        partial.replace(self.path)


@dataclass(slots=True, kw_only=True)
class Watch:
    """Stops a run that has collapsed to one digit, or whose numbers are none. ``collapse_steps=0``: never collapsed."""

    collapse_steps: int
    alike: int = 0

    def check(self, step: int, figures: Mapping[str, Any]) -> None:
        """Raises :class:`TrainingStopped`. A step in which no reply states anything is no collapse to a digit."""
        for name in ("loss", "grad_norm"):
            value = figures.get(name)
            if value is not None and not math.isfinite(value):
                raise TrainingStopped(
                    f"step {step}: {name} is {value}; go back to the last checkpoint with a lower rl.learning_rate"
                )
        self.alike = self.alike + 1 if figures.get("confidence/distinct_digits") == 1 else 0
        if self.collapse_steps and self.alike >= self.collapse_steps:
            raise TrainingStopped(
                f"step {step}: every reply of the last {self.alike} steps states the same digit "
                f"({_percent(figures.get('confidence/mean'))} sure); run the warm-up first, which uses all digits, "
                "lower rl.learning_rate, or set rl.collapse_steps = 0 to go on all the same"
            )


def line(row: Row, *, steps: int) -> str:
    """A step in one line of a terminal."""
    told = [
        f"step {row['step']:.0f}/{steps}",
        f"right {_percent(row.get('pass_rate'))}",
        f"reward {_figure(row.get('reward'))}",
        f"stated {_percent(row.get('confidence/stated'))}",
        f"ECE {_figure(row.get('confidence/ece'))}",
        f"AUROC {_figure(row.get('confidence/auroc'))}",
        f"digits {_figure(row.get('confidence/distinct_digits'), 0)}",
        f"all alike {_percent(_sum(row.get('groups/all_right'), row.get('groups/all_wrong')))}",
        f"{_figure(row.get('completions/mean_length'), 0)} tokens",
        f"{_figure(row.get('step_time'), 1)} s",
    ]
    return "  ".join(told)


def _sum(one: float | None, two: float | None) -> float | None:
    return None if one is None or two is None else one + two


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f} %"


def _figure(value: float | None, places: int = 3) -> str:
    return "–" if value is None else f"{value:.{places}f}"
