"""Runs as ``child.py OUT``: the same twelve scripted replies, scored by one process, then by two that talk over gloo.

Each process writes its share of the advantages, and what it made of all of them, to ``OUT-WORLD-RANK.npz``.
"""

from __future__ import annotations

import os
import socket
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from corea.batch.rows import Question
from corea.train import rl
from corea.train.config import parse
from corea.train.replies import protocol_form
from corea.train.trainer import ConfidenceTrainer
from train import tiny

QUESTIONS = [Question(id=str(i), question=f"{i} + {i}?", gold=str(2 * i), kind="number") for i in range(3)]
#: Three groups of four: one split over two processes of six, one all right, one with silence and a digit too early.
REPLIES = [
    *(protocol_form("so", answer, digit) for answer, digit in (("0", 9), ("1", 8), ("0", 1), ("5", 0))),
    *("no idea", protocol_form("a longer way", "2", 3), "Confidence: 4\nAnswer: 2", protocol_form("hm", "7", 6)),
    *(protocol_form("hm", "4", digit) for digit in (9, 5, 5, 0)),
]


class Scripted(ConfidenceTrainer):
    """Says what the script has for the rows of this process."""

    def _generate_single_turn(self, prompt_ids: list[list[int]], *_: Any, **__: Any) -> tuple[list[list[int]], None]:
        first = self.accelerator.process_index * len(prompt_ids)
        said = REPLIES[first : first + len(prompt_ids)]
        return [[*self._tokenizer.encode(text), self._tokenizer.eos_token_id] for text in said], None


def score(rank: int, world: int, out: str, port: int) -> None:
    """One process: takes its rows from the trainer's own loader, as in a run."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), ACCELERATE_USE_CPU="true")
    settings = parse(
        f'base = "tiny"\noutput = "{out}"\n[data]\nquestions = ["none"]\n'
        "[rl]\nsteps = 1\nquestions = 3\nsamples = 4\nbatch = 12\nmax_tokens = 24\n",
        source="child",
    )
    # A run's own configuration keeps groups whole; this one splits the second.
    args = replace(
        rl.grpo_config(settings.rl, Path(out), seed=0),
        per_device_train_batch_size=12 // world,
        generation_batch_size=None,
        steps_per_generation=None,
    )
    trainer = Scripted(
        base=tiny.base(), reward=settings.rl.reward.reward, args=args, train_dataset=rl.data_set(QUESTIONS)
    )
    trainer.model.train()
    rows = next(iter(trainer.get_train_dataloader()))
    batch = trainer._generate_and_score_completions(rows)
    moved = trainer._moved
    assert moved is not None
    lengths = batch["completion_mask"].sum(1)
    np.savez(
        f"{out}-{world}-{rank}.npz",
        gold=np.array([row["gold"] for row in rows]),
        tokens=np.concatenate([row[:length].numpy() for row, length in zip(batch["advantages"], lengths, strict=True)]),
        reasoning=moved.reasoning,
        frame=moved.frame,
        confidence=moved.confidence,
        figures=np.array([trainer._metrics["train"][name][-1] for name in ("pass_rate", "confidence/ece", "reward")]),
    )
    torch.distributed.destroy_process_group()


def main(out: str) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for world in (1, 2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        # Forked, so that torch and TRL are imported once.
        torch.multiprocessing.start_processes(score, args=(world, out, port), nprocs=world, start_method="fork")


if __name__ == "__main__":
    main(sys.argv[1])
