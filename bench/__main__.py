"""Run the benchmarks named on the command line, by default all, and keep their figures in ``bench/results``."""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib import import_module
from pathlib import Path

from bench.measure import Figure

NAMES = ("startup", "overhead", "memory", "embedded", "certify_speed", "metrics_speed")
RESULTS = Path(__file__).parent / "results"


def main(names: list[str]) -> int:
    RESULTS.mkdir(exist_ok=True)
    missed = 0
    for name in names or NAMES:
        figures: list[Figure] = import_module(f"bench.{name}").measure()
        record = {"machine": _machine(), "figures": [figure.record for figure in figures]}
        (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n")
        for figure in figures:
            print(figure)
            missed += figure.met is False
    return 1 if missed else 0


def _machine() -> dict[str, object]:
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
    }


sys.exit(main(sys.argv[1:]))
