"""The configurations for more than one device are read as they are meant, and split weights learn as whole ones do."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("accelerate", reason="the train extra is not installed: see docs/training.md")
pytest.importorskip("trl", reason="the train extra is not installed: see docs/training.md")

from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from accelerate.utils import DistributedType

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "examples" / "train"
KINDS = {"fsdp.yaml": DistributedType.FSDP, "deepspeed.yaml": DistributedType.DEEPSPEED}


@pytest.mark.parametrize("name", sorted(KINDS))
def test_accelerate_reads_the_configuration_and_knows_every_key_of_it(name: str) -> None:
    made = load_config_from_file(str(EXAMPLES / name))
    assert made.distributed_type == KINDS[name]
    assert made.num_processes == 2
    # accelerate refuses an unknown key at the top, and ignores one further in: there each must be one of its options.
    options = vars(launch_command_parser().parse_args(["script"]))
    inner = made.fsdp_config or made.deepspeed_config
    assert inner
    assert set(inner) <= set(options)


@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_is_told_the_batch_by_the_trainer(stage: int) -> None:
    settings = json.loads((EXAMPLES / f"zero{stage}.json").read_text(encoding="utf-8"))
    assert settings["zero_optimization"]["stage"] == stage
    # What the trainer fills in: a number here would contradict rl.batch.
    for key in ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"):
        assert settings[key] == "auto"


def test_every_launch_command_that_is_written_down_is_one_that_accelerate_takes() -> None:
    texts = [path.read_text(encoding="utf-8") for path in (*EXAMPLES.iterdir(), ROOT / "docs" / "training-cluster.md")]
    commands = [line for text in texts for line in re.findall(r"accelerate launch [^`\n]+", text)]
    assert len(commands) >= len(KINDS)
    for command in commands:
        args: Any = launch_command_parser().parse_args(shlex.split(command)[2:])
        assert (ROOT / args.config_file).is_file(), command
        assert args.module
        assert [args.training_script, *args.training_script_args[:1]] == ["corea", "train"]


def test_two_processes_that_split_the_weights_learn_what_one_with_all_of_them_learns(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    child = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "cluster_child.py"), str(tmp_path), str(EXAMPLES / "fsdp.yaml")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), str(ROOT)])},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert child.returncode == 0, child.stderr[-3000:]
    held = {
        int(rank): (int(own), int(of)) for rank, own, of in re.findall(r"rank (\d) holds (\d+) of (\d+)", child.stdout)
    }
    assert held[0][0] + held[1][0] == held[0][1]
    assert 0 < held[0][0] < held[0][1]
    alone, split = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("1", "2"))
    assert alone.keys() == split.keys()
    for name, weight in alone.items():
        assert split[name] == pytest.approx(weight, rel=1e-3, abs=1e-6), name
    # B begins at 0, so what is there now was learned.
    assert max(abs(weight).max() for name, weight in alone.items() if "lora_B" in name) > 1e-4
