"""Small, large and cascade on real questions, by ``corea batch``: the table in docs/results.md.

``python -m bench.batch_real QUESTIONS.jsonl[.gz] FOLDER [--limit 60]``; takes about an hour on two cores, and goes on
where it stopped. Of sixty questions the summaries go to ``bench/results/gsm8k-60``, and what became of each question.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import subprocess
import sys
from math import sqrt
from pathlib import Path
from typing import Any

from corea.config import template

THRESHOLDS = (0.90, 0.92, 0.94)
LIMIT = 60
RESULTS = Path(__file__).parent / "results" / "gsm8k-60"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("questions", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, default=LIMIT)
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    taken = folder / "questions.jsonl"
    taken.write_text("".join(_lines(arguments.questions, arguments.limit)), encoding="utf-8")
    (folder / "cascade.toml").write_text(template(), encoding="utf-8")
    for name, config in _single_tiers().items():
        (folder / f"{name}.toml").write_text(config, encoding="utf-8")
    alone = {name: _batch(folder, name, f"{name}-only") for name in ("small", "large")}
    cascades = {t: _batch(folder, "cascade", f"cascade-{t:.2f}", "--threshold", str(t)) for t in THRESHOLDS}
    print(table(alone, cascades))
    if arguments.limit == LIMIT:
        keep(folder, RESULTS)


def keep(folder: Path, results: Path) -> None:
    """The summaries of a run, and its rows, where the pages look for them."""
    results.mkdir(exist_ok=True)
    runs = ["small-only", "large-only", *(f"cascade-{threshold:.2f}" for threshold in THRESHOLDS)]
    for run in runs:
        (results / f"{run}.json").write_bytes((folder / f"{run}.json").read_bytes())
    told = {run: rows((folder / f"{run}.jsonl").read_text(encoding="utf-8")) for run in runs}
    lines = ",\n".join(f"{json.dumps(run)}: {json.dumps(of)}" for run, of in told.items())
    (results / "rows.json").write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


def rows(lines: str) -> dict[str, dict[str, Any]]:
    """Of what ``corea batch`` wrote: by question, whether it was deferred and right, and a hash of the text."""
    found = sorted(map(json.loads, lines.splitlines()), key=lambda row: str(row["id"]))
    return {
        row["id"]: {
            "deferred": bool(row["deferred"]),
            "right": bool(row["correct"]),
            "text": hashlib.sha256((row["text"] or "").encode()).hexdigest()[:16],
        }
        for row in found
    }


def table(alone: dict[str, dict[str, Any]], cascades: dict[float, dict[str, Any]]) -> str:
    """Markdown. Savings are measured: against what the large tier alone did cost on the same questions."""
    lines = ["| | right | accuracy (95 % interval) | deferred | cost | saving |", "|---|---|---|---|---|---|"]
    for name, summary in alone.items():
        lines.append(f"| {name} alone | {_right(summary)} | – | {_usd(summary)} | {_saving(summary, alone['large'])} |")
    for threshold, summary in cascades.items():
        deferred = f"{summary['deferral_rate']:.0%}"
        saving = _saving(summary, alone["large"])
        lines.append(
            f"| cascade, threshold {threshold:.2f} | {_right(summary)} | {deferred} | {_usd(summary)} | {saving} |"
        )
    return "\n".join(lines)


def _right(summary: dict[str, Any]) -> str:
    low, high = wilson(summary["correct"], summary["graded"])
    return f"{summary['correct']} of {summary['graded']} | {summary['accuracy']:.0%} ({low:.0%}–{high:.0%})"


def _usd(summary: dict[str, Any]) -> str:
    return "unknown" if summary["unknown_costs"] else f"${summary['cost_nano_usd'] / 1e9:.6f}"


def _saving(summary: dict[str, Any], large: dict[str, Any]) -> str:
    if summary["unknown_costs"] or large["unknown_costs"]:
        return "unknown"
    return f"{1 - summary['cost_nano_usd'] / large['cost_nano_usd']:+.1%}"


def wilson(right: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Score interval of a proportion (Wilson 1927)."""
    share, centre = right / n, (right + z * z / 2) / (n + z * z)
    half = z * sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return centre - half, centre + half


def _lines(path: Path, limit: int) -> list[str]:
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return text.decode().splitlines(keepends=True)[:limit]


def _single_tiers() -> dict[str, str]:
    """The built-in tiers, each as a cascade of one."""
    head, *tiers = template().split("[[tiers]]")
    tiers = [tier for tier in tiers if tier.lstrip().startswith("name") and "embedded" in tier]
    names = ("small", "large")
    kept = ("name", "kind", "model", "max_tokens")
    bodies = ["\n".join(line for line in tier.splitlines() if line.startswith(kept)) for tier in tiers]
    return {name: f"{head}[[tiers]]\n{body}\n" for name, body in zip(names, bodies, strict=True)}


def _batch(folder: Path, config: str, out: str, *extra: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "corea", "batch", str(folder / "questions.jsonl"), str(folder / f"{out}.jsonl")]
    options = ["-c", str(folder / f"{config}.toml"), "--concurrency", "4", "--json", *extra]
    done = subprocess.run([*command, *options], stdout=subprocess.PIPE, text=True, check=True)
    summary: dict[str, Any] = json.loads(done.stdout)
    (folder / f"{out}.json").write_text(done.stdout, encoding="utf-8")
    return summary


if __name__ == "__main__":
    main()
