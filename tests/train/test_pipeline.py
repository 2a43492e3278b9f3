"""From questions to a served adapter with a model of two layers; and what is said of a stage that comes too early."""
# ruff: noqa: E402 - the guard comes first, or importing torch would fail where it is to be skipped

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the train extra is not installed: see docs/training.md")
pytest.importorskip("trl", reason="the train extra is not installed: see docs/training.md")

from safetensors.torch import load_file

from corea.errors import InputError, UnknownModel
from corea.evaluate.outcomes import read
from corea.train.config import TrainConfig, parse
from corea.train.pipeline import Run
from corea.train.stages import Stage
from train import tiny

pytestmark = pytest.mark.filterwarnings("default")


def config(folder: Path, *, base: str | None = None, held_out: float = 0.2, more: str = "") -> TrainConfig:
    questions = folder / "questions.jsonl"
    rows = [{"id": f"q{i}", "question": f"{i} + 1 - {i}?", "answer": "1", "kind": "number"} for i in range(12)]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    base = base or str(tiny.save(folder / "tiny", says=["It is 1.", "So it is 2."]))
    return parse(
        f'base = "{base}"\noutput = "{folder / "out"}"\n'
        f'[data]\nquestions = ["{questions}"]\nheld_out = {held_out}\n[lora]\nrank = 4\n'
        "[rollouts]\nsamples = 4\nmax_tokens = 24\nbatch = 16\n[warmup]\nbatch = 4\nlearning_rate = 1e-3\n"
        f"[rl]\nsteps = 2\nquestions = 2\nsamples = 4\nbatch = 8\nmax_tokens = 24\n{more}",
        source="t",
    )


def test_a_whole_run_ends_in_adapters_a_report_and_a_card_and_again_does_nothing_twice(tmp_path: Path) -> None:
    settings, lines = config(tmp_path), list[str]()
    run = Run(settings, tell=lines.append)
    run.stages()
    out = tmp_path / "out"
    assert (out / "adapter.gguf").read_bytes()[:4] == b"GGUF"
    assert (out / "rl" / "curves.parquet").exists()
    told = "\n".join(lines)
    assert "nothing was checked" in told
    assert "replies wanted, 0 there already" in told
    assert "lessons (digits 0 to 9:" in told
    assert "step 2/2" in told
    # A folder of a transformers model is no base for llama.cpp: measured in this process, the map waits for its tier.
    assert run.report is not None
    assert run.report["engine"] == "transformers"
    assert "corea eval fit" in run.report["no_fit"]
    assert run.report["questions"] == len((out / "held-out.jsonl").read_text(encoding="utf-8").splitlines())
    assert read(out / "calibrate" / "outcomes.parquet").tiers == ("base", "trained")
    card = (out / "rl" / "adapter" / "README.md").read_text(encoding="utf-8")
    assert "| right (pass@1) |" in card
    assert str(tmp_path) not in card.split("## Before and after")[0]
    assert json.loads((out / "stages.json").read_text(encoding="utf-8"))["rl"]["wall_s"] > 0
    lines.clear()
    Run(settings, tell=lines.append).stages(["rollouts", "export"])
    wanted = next(line for line in lines if "there already" in line).split()
    assert wanted[0] == wanted[3]


@pytest.mark.parametrize(
    "stage, told",
    [
        ("warmup", "run the rollouts stage first"),
        ("rl", "run the warmup stage first"),
        ("calibrate", "run the rl stage first"),
        ("export", "run the rl stage first"),
    ],
)
def test_a_stage_that_comes_too_early_says_what_comes_first(tmp_path: Path, stage: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        Run(config(tmp_path, base="tiny"), tell=lambda _: None).stages([stage])  # type: ignore[list-item]


def test_without_held_out_questions_nothing_is_measured_and_the_setting_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"set data\.held_out above 0"):
        Run(config(tmp_path, base="tiny", held_out=0), tell=lambda _: None).stages(["calibrate"])


def test_a_base_that_is_not_there_is_named(tmp_path: Path) -> None:
    settings = config(tmp_path, base=str(tmp_path / "none.gguf"))
    with pytest.raises(UnknownModel, match=r"none\.gguf"):
        Run(settings, tell=lambda _: None).stages(["rollouts"])


@pytest.mark.parametrize("stage", ["rollouts", "calibrate", "export"])
def test_a_stage_that_writes_one_file_refuses_to_run_in_several_processes(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(config(tmp_path, base="nothing is loaded"), tell=lambda _: None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=f"the {stage} stage is for one process.*--stage {stage}"):
        run.stages(["warmup", stage])
    assert not (tmp_path / "out" / "warmup").exists()


def test_without_reinforcement_the_warm_up_is_the_result_in_the_upper_layers_alone(tmp_path: Path) -> None:
    settings = config(tmp_path)
    lora = settings.lora.model_copy(update={"last_layers": 1})
    settings = settings.model_copy(
        update={"rl": settings.rl.model_copy(update={"steps": 0}), "lora": lora, "precision": "bfloat16"}
    )
    lines: list[str] = []
    run = Run(settings, tell=lines.append)
    run.stages()
    assert "rl.steps is 0: the result is that of the warm-up" in lines
    out = tmp_path / "out"
    assert not (out / "rl").exists()
    assert run.made["adapter for vLLM, with its model card"] == out / "warmup" / "adapter"
    assert (out / "adapter.gguf").read_bytes()[:4] == b"GGUF"
    trained = load_file(out / "warmup" / "adapter" / "adapter_model.safetensors")
    assert {name.partition(".layers.")[2].partition(".")[0] for name in trained} == {"1"}
    assert {tensor.dtype for tensor in trained.values()} == {torch.float32}
