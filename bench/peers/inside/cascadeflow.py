"""cascadeflow's confidence in every reply, and whether its validator accepts it."""

from __future__ import annotations

import importlib
import json
import logging
import sys
from pathlib import Path
from typing import Any


def main(asked: Path, told: Path) -> None:
    cases = json.loads(asked.read_text())["cases"]
    logging.disable(logging.WARNING)
    quality = importlib.import_module("cascadeflow.quality")
    estimator = quality.ProductionConfidenceEstimator("openai")
    config = quality.QualityConfig.for_cascade()
    # It would move the thresholds by what it accepted before, and so by the order of the questions.
    config.enable_adaptive = False
    validator = quality.QualityValidator(config=config)
    made = {name: [_judged(estimator, validator, row) for row in rows] for name, rows in cases.items()}
    told.write_text(json.dumps({"cases": made}))


def _judged(estimator: Any, validator: Any, row: dict[str, Any] | None) -> dict[str, Any] | None:
    if row is None:
        return None
    found = estimator.estimate(
        response=row["response"], query=row["query"], temperature=0.0, finish_reason=row["finish_reason"]
    )
    passed = validator.validate(row["response"], row["query"], found.final_confidence).passed
    return {"confidence": found.final_confidence, "accepted": bool(passed)}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
