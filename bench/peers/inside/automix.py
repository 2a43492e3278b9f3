"""AutoMix with one threshold, trained on the calibration part of every draw; what it keeps of all questions."""

from __future__ import annotations

import importlib
import json
import sys
import warnings
from pathlib import Path
from typing import Any


def main(asked: Path, told: Path) -> None:
    question = json.loads(asked.read_text())
    # Slopes of nothing over nothing, which it steps over.
    warnings.simplefilter("ignore", RuntimeWarning)
    cases = {}
    for name, case in question["cases"].items():
        cases[name] = [_kept(case, draw, question["bins"]) for draw in case["draws"]]
        print("AutoMix:", name, flush=True)
    told.write_text(json.dumps({"cases": cases}))


def _kept(case: dict[str, Any], draw: dict[str, Any], bins: int) -> list[int]:
    automix, pandas = importlib.import_module("automix"), importlib.import_module("pandas")
    data = pandas.DataFrame({"small": case["small"], "large": case["large"], "score": draw["score"]})
    mixed = automix.Automix(
        automix.Threshold(num_bins=bins), slm_column="small", llm_column="large", verifier_column="score",
        costs=draw["costs"], verifier_cost=draw["costs"][0],
    )  # fmt: skip
    mixed.train(data.iloc[draw["train"]])
    return [row for row, retried in enumerate(mixed.infer(data)) if not retried]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
