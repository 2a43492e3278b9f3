"""``python -m bench.one NAME``: one bench that has ``measure()``, in this process; its figures go to ``bench/results``.

Exit code 1 where a figure missed its limit.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib import import_module
from pathlib import Path

from bench.measure import Figure

RESULTS = Path(__file__).parent / "results"


def main(name: str) -> int:
    figures: list[Figure] = import_module(f"bench.{name}").measure()
    record = {"machine": machine(), "figures": [figure.record for figure in figures]}
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    for figure in figures:
        print(figure)
    return int(any(figure.met is False for figure in figures))


def machine() -> dict[str, object]:
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
