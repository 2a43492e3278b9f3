"""BARGAIN_A on every test part and, with other seeds, on all questions of each case."""

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
        every = list(range(len(case["score"])))
        cases[name] = {
            key: [_kept(package, question, case, part, seed) for seed, part in enumerate(parts)]
            for key, parts in (("tests", case["tests"]), ("whole", [every] * len(case["tests"])))
        }
        print("BARGAIN:", name, flush=True)
    told.write_text(json.dumps({"cases": cases}))


def _kept(package: Any, question: dict[str, Any], case: dict[str, Any], part: list[int], seed: int) -> list[int]:
    def small(record: str) -> tuple[str, float]:
        return "small", case["score"][int(record)]

    def large(record: str, _output: str) -> tuple[bool, str]:
        return case["as_good"][int(record)], "large"

    proxy = type("Small", (package.Proxy,), {"proxy_func": staticmethod(small)})(verbose=False, max_workers=1)
    oracle = type("Large", (package.Oracle,), {"oracle_func": staticmethod(large)})(verbose=False, max_workers=1)
    process = package.BARGAIN_A(
        proxy, oracle, target=question["target"], delta=question["delta"], verbose=False, seed=seed
    )
    _, asked_large = process.process([str(one) for one in part], return_oracle_usage=True)
    return [one for one, used in zip(part, asked_large, strict=True) if not used]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
