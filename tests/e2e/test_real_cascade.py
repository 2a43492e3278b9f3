"""The whole way once, with a real model on both tiers: files, engine, confidence, ledger, command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.real_model


def corea(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "160"}
    return subprocess.run(
        [sys.executable, "-m", "corea", *args],
        cwd=cwd, capture_output=True, text=True, env=environment, timeout=110, check=False,
    )  # fmt: skip


@pytest.fixture
def here(smollm: Path, tmp_path: Path) -> Path:
    """Two tiers over one real file: the second one may write more."""
    tier = f'kind = "embedded"\nmodel = "{smollm}"\ncontext_tokens = 1024\n'
    (tmp_path / "corea.toml").write_text(
        f'[[tiers]]\nname = "small"\n{tier}threshold = 0.6\nmax_tokens = 48\nprices = {{ input = 1, output = 1 }}\n'
        f'[[tiers]]\nname = "large"\n{tier}max_tokens = 64\nprices = {{ input = 3, output = 3 }}\n'
    )
    return tmp_path


def test_ask_with_a_real_model(here: Path) -> None:
    done = corea("ask", "What is the capital of France? Answer in one word.", "--json", cwd=here)
    assert done.returncode == 0, done.stderr
    trace = json.loads(done.stdout)
    assert "Paris" in trace["text"]
    first = trace["attempts"][0]
    assert first["confidence"]["source"] == "logprob"
    assert 0 < first["confidence"]["value"] < 1
    assert first["usage"]["completion_tokens"] > 0
    shown = corea("trace", "show", trace["id"], "--json", cwd=here)
    assert json.loads(shown.stdout)["answer"] == trace["answer"]


def test_a_question_too_long_for_every_tier_is_an_error_that_says_so(here: Path) -> None:
    done = corea("ask", "word " * 3000, cwd=here)
    assert done.returncode == 1
    assert "does not fit the context of any tier" in done.stderr


def test_demo_and_batch_with_a_real_model(here: Path) -> None:
    demo = corea("demo", "--limit", "2", cwd=here)
    assert demo.returncode == 0, demo.stderr
    assert "2 questions" in demo.stdout
    assert "right answers" in demo.stdout
    rows = [{"id": i, "question": f"What is {i} + 1?", "answer": i + 1} for i in range(4)]
    (here / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = corea("batch", "in.jsonl", "out.jsonl", "--json", cwd=here)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["rows"], summary["graded"], summary["failed"]) == (4, 4, 0)
