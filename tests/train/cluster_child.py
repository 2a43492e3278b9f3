"""Runs as ``cluster_child.py OUT FSDP.yaml``: a step of one process with all weights, then of two that split them.

The replies are the same, scripted ones. The two get the environment that ``accelerate launch`` would give them.

accelerate splits weights between accelerators only. Here it is told that a CPU is one, and gloo carries what NCCL does.
"""

from __future__ import annotations

import os
import socket
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType
from accelerate.utils.launch import prepare_multi_gpu_env
from peft import LoraConfig

from corea.train import rl
from corea.train.config import parse
from train import tiny
from train.child import QUESTIONS, Scripted


def launched(file: str) -> dict[str, str]:
    """What ``accelerate launch`` puts into the environment of each process for this configuration."""
    asked = ["--config_file", file, "--mixed_precision", "no", "--main_process_port", "0", "-m", "corea"]
    args, *_ = _validate_launch_command(launch_command_parser().parse_args(asked))
    made: dict[str, str] = prepare_multi_gpu_env(args)
    return {name: value for name, value in made.items() if name.startswith(("ACCELERATE_", "FSDP_"))}


def step(rank: int, world: int, out: str, port: int, env: dict[str, str]) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), **env, ACCELERATE_USE_CPU="true")
    if env:
        torch.distributed.init_process_group("gloo")
        _as_accelerators()
    settings = parse(
        f'base = "tiny"\noutput = "{out}"\n[data]\nquestions = ["none"]\n'
        "[rl]\nsteps = 1\nquestions = 3\nsamples = 4\nbatch = 12\nmax_tokens = 24\n",
        source="child",
    )
    args = replace(
        rl.grpo_config(settings.rl, Path(out) / "checkpoints", seed=0),
        per_device_train_batch_size=12 // world,
        generation_batch_size=None,
        steps_per_generation=None,
        # Plain descent: a step of Adam's is the same whatever the gradient is multiplied by.
        optim="sgd",
        learning_rate=1.0,
        max_grad_norm=0.0,
        save_strategy="no",
        report_to=[],
    )
    trainer = Scripted(
        base=tiny.base(),
        reward=settings.rl.reward.reward,
        args=args,
        train_dataset=rl.data_set(QUESTIONS),
        peft_config=LoraConfig(r=4, target_modules=rl.LORA_TARGETS, task_type="CAUSAL_LM"),
    )
    trainer.train()
    if env:
        parts = [weight for name, weight in trainer.model_wrapped.named_parameters() if "lora_" in name]
        whole = sum(weight.numel() for weight in parts)
        here = sum(weight.to_local().numel() for weight in parts)
        sys.stdout.write(f"rank {rank} holds {here} of {whole}\n")
        sys.stdout.flush()
    trainer.save_model(f"{out}/{world}")
    torch.distributed.destroy_process_group()


def _as_accelerators() -> None:
    made = PartialState.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **kwargs)
        if self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.MULTI_GPU

    PartialState.__init__ = init


def main(out: str, file: str) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for world, env in ((1, {}), (2, launched(file))):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        # Forked, so that torch and TRL are imported once.
        torch.multiprocessing.start_processes(step, args=(world, out, port, env), nprocs=world, start_method="fork")


if __name__ == "__main__":
    main(*sys.argv[1:])
