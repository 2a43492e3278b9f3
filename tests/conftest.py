"""Every test has a COREA_HOME of its own; the one real model is fetched once, into the usual one."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from corea import paths, prices
from corea.catalogue import CATALOGUE

if TYPE_CHECKING:
    from playwright.sync_api import Browser

#: A browser that talks to nobody by itself.
BROWSER_ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip

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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real Chromium; without one the test is skipped, or, with COREA_REQUIRE_BROWSER set, fails."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        why = "no Chromium on this machine; install one (Debian: apt-get install chromium) to look at the pages"
        (pytest.fail if os.environ.get("COREA_REQUIRE_BROWSER") else pytest.skip)(why)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=list(BROWSER_ARGUMENTS))
        yield launched
        launched.close()
