"""Every test has a COREA_HOME of its own; the one real model is fetched once, into the usual one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from corea import paths, prices
from corea.catalogue import CATALOGUE

_REAL_MODELS = paths.models_dir()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty COREA_HOME, and no configuration but the test's own."""
    folder = tmp_path / "home"
    monkeypatch.setenv("COREA_HOME", str(folder))
    monkeypatch.delenv("COREA_CONFIG", raising=False)
    prices.listed_price.cache_clear()
    prices.embedded_price.cache_clear()
    yield folder
    logging.getLogger("corea").handlers.clear()


@pytest.fixture(scope="session")
def smollm() -> Path:
    """SmolLM2-135M, a real model of 98 MB: fetched by the first test that needs it, and kept for the next run."""
    from corea.models.download import pull

    return asyncio.run(pull(CATALOGUE["smollm2-135m"], models_dir=_REAL_MODELS))
