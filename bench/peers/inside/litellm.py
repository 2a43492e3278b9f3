"""Tier and score of every text, by LiteLLM's complexity router with its default configuration."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace


def main(asked: Path, told: Path) -> None:
    texts = json.loads(asked.read_text())["texts"]
    module = importlib.import_module("litellm.router_strategy.complexity_router.complexity_router")
    # Its context is that of a running gateway; a classification asks nothing of it.
    router = module.ComplexityRouter(model_name="router", ctx=SimpleNamespace(), derive_savings_baseline=False)
    found = []
    for text in texts:
        tier, score, _ = router.classify(text)
        found.append([tier.value, score])
    told.write_text(json.dumps({"texts": found}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
