"""BARGAIN_A on every test part and every batch: the places in it whose small answer is handed out."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any


def main(asked: Path, told: Path) -> None:
    question = json.loads(asked.read_text())
    package = importlib.import_module("BARGAIN")
    cases = {}
    for name, case in question["cases"].items():
        cases[name] = {
            key: [_kept(package, question, case, part, seed) for seed, part in enumerate(case[key])]
            for key in ("tests", "batches")
        }
        print("BARGAIN:", name, flush=True)
    told.write_text(json.dumps({"cases": cases}))


def _kept(package: Any, question: dict[str, Any], case: dict[str, Any], part: list[int], seed: int) -> list[int]:
    def small(record: str) -> tuple[str, float]:
        return "small", case["score"][part[int(record)]]

    def large(record: str, _output: str) -> tuple[bool, str]:
        return case["as_good"][part[int(record)]], "large"

    proxy = type("Small", (package.Proxy,), {"proxy_func": staticmethod(small)})(verbose=False, max_workers=1)
    oracle = type("Large", (package.Oracle,), {"oracle_func": staticmethod(large)})(verbose=False, max_workers=1)
    process = package.BARGAIN_A(
        proxy, oracle, target=question["target"], delta=question["delta"], verbose=False, seed=seed
    )
    _, asked_large = process.process([str(place) for place in range(len(part))], return_oracle_usage=True)
    return [place for place, used in enumerate(asked_large) if not used]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
