"""docs/training-cluster.md: what it names is there."""

from __future__ import annotations

import re
from pathlib import Path

from corea.train.stages import STAGES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "training-cluster.md").read_text(encoding="utf-8")


def test_every_file_of_the_guide_is_there() -> None:
    tests = set(re.findall(r"`(tests/[\w./]+)`", PAGE))
    recipes = {f"examples/train/{name}" for name in re.findall(r"`(\w+\.(?:yaml|json))`", PAGE)}
    launched = set(re.findall(r"--config_file (\S+)", PAGE))
    assert len(tests) == 3
    assert recipes >= launched
    assert recipes == {str(path.relative_to(ROOT)) for path in (ROOT / "examples" / "train").glob("*.[yj]*")}
    assert all((ROOT / path).is_file() for path in tests | recipes)


def test_the_commands_run_every_stage_once_and_in_order() -> None:
    (block,) = re.findall(r"```\n(corea train.+?)```", PAGE, re.DOTALL)
    assert tuple(re.findall(r"--stage (\w+)", block)) == tuple(STAGES)


def test_the_guide_of_training_sends_here_and_says_none_of_it_itself() -> None:
    training = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    assert "(training-cluster.md)" in training
    assert "accelerate launch" not in training
