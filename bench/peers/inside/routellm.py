"""RouteLLM's own metrics of given curves. What would load its routers and benchmarks is stood in for."""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

_STAND_INS: dict[str, dict[str, Any]] = {
    "routellm.controller": {"Controller": None},
    "routellm.evals.benchmarks": {"GSM8K": None, "MMLU": None, "MTBench": None},
    "routellm.routers.routers": {"ROUTER_CLS": {}},
}


def main(asked: Path, told: Path) -> None:
    cases = json.loads(asked.read_text())["cases"]
    for name, content in _STAND_INS.items():
        sys.modules[name] = ModuleType(name)
        vars(sys.modules[name]).update(content)
    module = importlib.import_module("routellm.evals.evaluate")
    with tempfile.TemporaryDirectory() as folder:
        made = {name: _metrics(module, curve, folder) for name, curve in cases.items()}
    told.write_text(json.dumps({"cases": made}))


def _metrics(module: Any, curve: dict[str, Any], folder: str) -> dict[str, Any]:
    """It prints its table and returns nothing, so what it prints is caught."""
    pandas = importlib.import_module("pandas")
    printed: list[Any] = []
    module.print = lambda *words: printed.extend(words)
    rows = {"method": "ours", "strong_percentage": [100 * c for c in curve["calls"]], "accuracy": curve["accuracy"]}
    accuracy = {"small": curve["small"], "large": curve["large"]}
    module.generate_results(
        pandas.DataFrame(rows), SimpleNamespace(get_model_accuracy=accuracy.__getitem__), "case",
        SimpleNamespace(weak="small", strong="large"), folder,
    )  # fmt: skip
    module.plt.close("all")
    row = printed[-1].iloc[0]
    parts = [float(row[f"{share}% qual"].rstrip("%")) / 100 for share in (20, 50, 80)]
    return {"apgr": float(row["APGR"]), "cpt": parts}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
