"""From questions to a GGUF adapter with a model of two layers; and what is said of a stage that comes too early."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the train extra is not installed: see docs/training.md")
pytest.importorskip("trl", reason="the train extra is not installed: see docs/training.md")

from corea.errors import InputError, UnknownModel
from corea.train.config import TrainConfig, parse
from corea.train.pipeline import Run
from train import tiny

pytestmark = pytest.mark.filterwarnings("default")


def config(folder: Path, *, base: str | None = None) -> TrainConfig:
    questions = folder / "questions.jsonl"
    rows = [{"id": f"q{i}", "question": f"{i} + 1 - {i}?", "answer": "1", "kind": "number"} for i in range(12)]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    base = base or str(tiny.save(folder / "tiny", says=["It is 1.", "So it is 2."]))
    return parse(
        f'base = "{base}"\noutput = "{folder / "out"}"\n'
        f'[data]\nquestions = ["{questions}"]\nheld_out = 0.2\n[lora]\nrank = 4\n'
        "[rollouts]\nsamples = 4\nmax_tokens = 24\nbatch = 16\n[warmup]\nbatch = 4\nlearning_rate = 1e-3\n"
        "[rl]\nsteps = 2\nquestions = 2\nsamples = 4\nbatch = 8\nmax_tokens = 24\n",
        source="t",
    )


def test_a_whole_run_ends_in_a_gguf_adapter_and_again_does_nothing_twice(tmp_path: Path) -> None:
    settings, lines = config(tmp_path), list[str]()
    asyncio.run(Run(settings, tell=lines.append).stages())
    out = tmp_path / "out"
    assert (out / "adapter.gguf").read_bytes()[:4] == b"GGUF"
    assert (out / "rl" / "curves.parquet").exists()
    told = "\n".join(lines)
    assert "nothing was checked" in told
    assert "replies wanted, 0 there already" in told
    assert "lessons (digits 0 to 9:" in told
    assert "step 2/2" in told
    lines.clear()
    asyncio.run(Run(settings, tell=lines.append).stages(["rollouts", "export"]))
    wanted = next(line for line in lines if "there already" in line).split()
    assert wanted[0] == wanted[3]


@pytest.mark.parametrize(
    "stage, told", [("warmup", "run the rollouts stage first"), ("rl", "run the warmup stage first")]
)
def test_a_stage_that_comes_too_early_says_what_comes_first(tmp_path: Path, stage: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        asyncio.run(Run(config(tmp_path, base="tiny"), tell=lambda _: None).stages([stage]))  # type: ignore[list-item]


def test_a_base_that_is_not_there_is_named(tmp_path: Path) -> None:
    settings = config(tmp_path, base=str(tmp_path / "none.gguf"))
    with pytest.raises(UnknownModel, match=r"none\.gguf"):
        asyncio.run(Run(settings, tell=lambda _: None).stages(["rollouts"]))
