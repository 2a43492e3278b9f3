"""Time and peak memory of a training step, against stock TRL GRPO of the same size and settings, on a CPU.

Both get the same model, questions, settings and length of replies (none ends early), so the work is equal; ours
reads and scores replies as in a run, with advantages a token; the stock one only grades answers, by the same grader.
Each round is a fresh process for each, in turn. A step's time is CPU time of one thread, the median of a process's
steps after the first: what else the machine does then hardly counts. Needs the train extra.
Run: OMP_NUM_THREADS=1 .venv-train/bin/python -m bench train_step
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from bench.measure import Figure, child, paired

ROUNDS = 5
STEPS = 5
QUESTIONS, SAMPLES, TOKENS = 2, 4, 48
#: A small Qwen2: the smaller the model, the more our own part of a step shows.
SHAPE = {
    "hidden_size": 256,
    "intermediate_size": 1024,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}


def measure() -> list[Figure]:
    peaks: dict[str, list[float]] = {"ours": [], "stock": []}

    def once(which: str) -> float:
        told = json.loads(child("bench.train_step", which).strip().splitlines()[-1])
        peaks[which].append(told["peak_mib"])
        return float(told["step_s"])

    ours, stock, ratio = paired(lambda: once("ours"), lambda: once("stock"), rounds=ROUNDS)
    memory = {which: median(values[1:]) for which, values in peaks.items()}
    spread = {which: f"{min(values[1:]):.0f} to {max(values[1:]):.0f}" for which, values in peaks.items()}
    load = f"; load of the machine {os.getloadavg()[1]:.1f}"
    return [
        Figure(
            name="time of a training step ÷ stock TRL GRPO",
            value=ratio,
            limit=1.05,
            detail=f"{ours:.2f} s and {stock:.2f} s of CPU, medians of {ROUNDS} rounds of {STEPS - 1} steps{load}",
        ),
        Figure(
            name="peak memory of training ÷ stock TRL GRPO",
            value=memory["ours"] / memory["stock"],
            limit=1.02,
            detail=f"{memory['ours']:.0f} MiB ({spread['ours']}) and {memory['stock']:.0f} MiB ({spread['stock']}), "
            f"medians of {ROUNDS} rounds",
        ),
    ]


def _train(which: str, folder: Path) -> dict[str, float]:
    import torch
    from transformers import TrainerCallback
    from trl import GRPOTrainer

    from corea.batch.rows import Question
    from corea.train import rl
    from corea.train.config import parse
    from corea.train.models import hush, in_bf16
    from corea.train.trainer import ConfidenceTrainer, correct

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.steps_s: list[float] = []
            self._began = 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self._began = time.process_time()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.steps_s.append(time.process_time() - self._began)

    hush()
    torch.set_num_threads(1)
    config = parse(
        f'base = "made here"\noutput = "{folder}"\n[data]\nquestions = ["none"]\n'
        f"[rl]\nsteps = {STEPS}\nquestions = {QUESTIONS}\nsamples = {SAMPLES}\nbatch = {QUESTIONS * SAMPLES}\n"
        f"max_tokens = {TOKENS}\n",
        source="train_step",
    )
    args = rl.grpo_config(config.rl, folder, seed=0, bf16=in_bf16(config.precision))
    args.generation_kwargs = {"min_new_tokens": TOKENS}
    args.save_strategy, args.report_to = "no", []
    base, clock = _base(), Clock()
    questions = [
        Question(id=str(i), question=f"What is {i} + {i}?", gold=str(2 * i), kind="number")
        for i in range(STEPS * QUESTIONS)
    ]
    shared = {"args": args, "train_dataset": rl.data_set(questions), "peft_config": rl.lora_config(config)}
    if which == "ours":
        trainer: Any = ConfidenceTrainer(base=base, reward=config.rl.reward.reward, callbacks=[clock], **shared)
    else:
        trainer = GRPOTrainer(
            model=base.model, processing_class=base.tokenizer, reward_funcs=[correct], callbacks=[clock], **shared
        )
    trainer.train()
    return {
        "step_s": median(clock.steps_s[1:]),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _base() -> Any:
    """Random weights and a byte-level tokenizer: nothing to fetch, and every reply has whole the length asked for."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    from corea.train.models import PLAIN_TEMPLATE, prepared

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = Tokenizer(models.BPE(vocab={piece: at for at, piece in enumerate([*letters, "<eos>"])}, merges=[]))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>", pad_token="<eos>")
    tokenizer.chat_template = PLAIN_TEMPLATE
    torch.manual_seed(0)
    return prepared(Qwen2ForCausalLM(Qwen2Config(vocab_size=4_096, **SHAPE)), tokenizer)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        sys.stdout.write(json.dumps(_train(sys.argv[1], Path(made))) + "\n")
