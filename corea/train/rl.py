"""The ``rl`` stage: GRPO from the warmed-up model, checkpointed, its curves kept, stopped before it spoils the model.

Knows TRL's settings, and which of them a run may choose.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint
from trl import GRPOConfig

from corea.batch.rows import Question
from corea.train.config import RlConfig, TrainConfig
from corea.train.curves import Curves, Watch, line
from corea.train.data import conversation
from corea.train.difficulty import mixed, plain
from corea.train.models import Base, in_bf16, layers_of
from corea.train.stages import claim, told
from corea.train.trainer import ConfidenceTrainer

#: Attention and feed-forward matrices, as Llama, Qwen, Mistral, SmolLM and Gemma name them.
LORA_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def run(
    config: TrainConfig,
    questions: Sequence[Question],
    base: Base,
    *,
    pass_rates: Mapping[str, float],
    tell: Callable[[str], None],
    fingerprint: str,
) -> Path:
    """Train, going on from the last checkpoint of the same run. Returns the folder of the adapter or model.

    ``pass_rates``: of the questions that were sampled. ``tell`` gets a line a step. Raises :class:`TrainingStopped`
    when going on would spoil the model, :class:`InputError` when memory is too small or the folder is another run's.
    """
    folder = config.output / "rl"
    claim(folder, fingerprint)
    args = grpo_config(
        config.rl,
        folder / "checkpoints",
        seed=config.seed,
        bf16=in_bf16(config.precision),
        report_to=config.logging.reporters,
    )
    length = config.rl.steps * config.rl.questions * args.world_size
    order = _order(config, questions, pass_rates, length)
    last = get_last_checkpoint(str(folder / "checkpoints")) if (folder / "checkpoints").is_dir() else None
    curves = Curves.resumed(folder / "curves.parquet", step=int(last.rsplit("-", 1)[-1]) if last else 0)
    watch = Watch(collapse_steps=config.rl.collapse_steps)
    callback = _Progress(curves=curves, watch=watch, steps=config.rl.steps, tell=tell)
    with told(folder, lower="rl.batch, rl.samples or rl.max_tokens, or set lora.rank above 0"):
        trainer = ConfidenceTrainer(
            base=base,
            reward=config.rl.reward.reward,
            args=args,
            train_dataset=data_set(order),
            peft_config=None if hasattr(base.model, "peft_config") else lora_config(config, layers_of(base)),
            callbacks=[callback],
        )
        try:
            trainer.train(resume_from_checkpoint=last)
        finally:
            if trainer.is_world_process_zero():
                curves.write()
        trainer.save_model(str(folder / "adapter"))
    return folder / "adapter"


def grpo_config(
    rl: RlConfig, checkpoints: Path, *, seed: int, bf16: bool = False, report_to: Sequence[str] = ("tensorboard",)
) -> GRPOConfig:
    """TRL's settings. What is not named here is TRL's default."""
    gpu = torch.cuda.is_available()
    return GRPOConfig(
        output_dir=str(checkpoints),
        max_steps=rl.steps,
        per_device_train_batch_size=rl.batch,
        # One optimizer step a generation, so that the replies are always the current model's own.
        gradient_accumulation_steps=rl.questions * rl.samples // rl.batch,
        num_generations=rl.samples,
        max_completion_length=rl.max_tokens,
        temperature=rl.temperature,
        learning_rate=rl.learning_rate,
        lr_scheduler_type="constant",
        beta=rl.kl_weight,
        scale_rewards="none",
        shuffle_dataset=False,
        use_vllm=rl.vllm,
        vllm_mode="colocate",
        bf16=bf16,
        use_cpu=not gpu,
        activation_checkpointing=gpu,
        seed=seed,
        logging_steps=1,
        # Else a loss that is no number would be logged as a plausible one.
        logging_nan_inf_filter=False,
        save_steps=rl.save_every,
        save_total_limit=2,
        report_to=list(report_to),
        disable_tqdm=True,
    )


def lora_config(config: TrainConfig, layers: int = 0) -> LoraConfig | None:
    """None trains all weights. ``layers``: how many the model has; counts where only the last ones are trained."""
    lora = config.lora
    if lora.rank == 0:
        return None
    first = 0 if lora.last_layers is None else max(0, layers - lora.last_layers)
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=LORA_TARGETS,
        layers_to_transform=None if first == 0 else list(range(first, layers)),
        task_type="CAUSAL_LM",
    )


def data_set(questions: Sequence[Question]) -> Dataset:
    """What TRL reads, in this order."""
    return Dataset.from_list(
        [{"prompt": conversation(one), "gold": one.gold or "", "kind": one.kind or "text"} for one in questions]
    )


def _order(
    config: TrainConfig, questions: Sequence[Question], pass_rates: Mapping[str, float], length: int
) -> list[Question]:
    rng = random.Random(config.seed)  # noqa: S311 - an order, not a secret
    if config.rl.mixed_difficulty and pass_rates:
        return mixed(questions, pass_rates, length=length, rng=rng)
    return plain(questions, length=length, rng=rng)


class _Progress(TrainerCallback):
    """Every logged step to the curves, the terminal and the watch, on the first process; the watch on all of them."""

    def __init__(self, *, curves: Curves, watch: Watch, steps: int, tell: Callable[[str], None]) -> None:
        self._curves = curves
        self._watch = watch
        self._steps = steps
        self._tell = tell

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if logs is None or "loss" not in logs:
            return
        row = self._curves.add(state.global_step, logs)
        if state.is_world_process_zero:
            self._tell(line(row, steps=self._steps))
        self._watch.check(state.global_step, logs)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            self._curves.write()
