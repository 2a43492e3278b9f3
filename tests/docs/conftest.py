"""Pretend models for all pages, outcomes made once, and a stage for each page."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from docs.stage import TUTORIAL, Stage, pair, questions, staged


@pytest.fixture(scope="session")
def models_port() -> Iterator[int]:
    """The tutorial's pretend models."""
    spec = importlib.util.spec_from_file_location("play_models", TUTORIAL / "play_models.py")
    assert spec is not None
    assert spec.loader is not None
    play = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(play)
    with ThreadingHTTPServer(("127.0.0.1", 0), play.Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture(scope="session")
def measured(models_port: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``outcomes.parquet`` and ``certificate.json`` of the pretend pair."""
    with staged(tmp_path_factory.mktemp("measured"), models_port=models_port) as stage:
        stage.write("corea.toml", pair())
        stage.write("questions.jsonl", questions(500))
        stage.run(
            "corea eval run --data questions.jsonl --out outcomes.parquet\n"
            "corea certify outcomes.parquet --signal expected --out certificate.json\n"
        )
    return stage.folder


@pytest.fixture
def stage(models_port: int, tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path / "stage", models_port=models_port) as made:
        yield made
