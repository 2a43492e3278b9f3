"""The warm-up's loop: transformers' own trainer with the loss of :mod:`corea.train.warmup`. Knows no questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import get_peft_model
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from corea.train.config import TrainConfig
from corea.train.curves import Watch
from corea.train.models import Base, in_bf16, layers_of
from corea.train.rl import lora_config
from corea.train.warmup import loss_of

_WORK = "work"


def train(
    config: TrainConfig, base: Base, rows: Sequence[dict[str, Any]], *, folder: Path, tell: Callable[[str], None]
) -> None:
    """Train on encoded lessons and save to ``folder/adapter``. Raises :class:`TrainingStopped` for a loss of NaN."""
    warmup, gpu = config.warmup, torch.cuda.is_available()
    checkpoints = folder / "checkpoints"
    args = TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=warmup.epochs,
        per_device_train_batch_size=warmup.batch,
        gradient_accumulation_steps=warmup.accumulate,
        learning_rate=warmup.learning_rate,
        warmup_steps=0.05,
        bf16=in_bf16(config.precision),
        use_cpu=not gpu,
        activation_checkpointing=gpu,
        # Rows of much the same work make a batch: little of it is padding, or logits nobody asked for.
        train_sampling_strategy="group_by_length",
        length_column_name=_WORK,
        remove_unused_columns=False,
        seed=config.seed,
        # Shares of all steps.
        logging_steps=0.05,
        logging_nan_inf_filter=False,
        save_steps=0.2,
        save_total_limit=1,
        report_to=config.logging.reporters,
        disable_tqdm=True,
    )
    lora = lora_config(config, layers_of(base))
    model = base.model if lora is None else get_peft_model(base.model, lora)
    if lora is not None and gpu:
        # Recomputed activations need an input that has a gradient, and frozen embeddings give none.
        model.enable_input_require_grads()
    trainer = _Supervised(
        model=model,
        args=args,
        train_dataset=Dataset.from_list([row | {_WORK: _work(row)} for row in rows]),
        data_collator=_Padded(base.tokenizer.pad_token_id),
        callbacks=[_Told(tell)],
    )
    trainer.digit_ids, trainer.conftuner = base.digit_ids, warmup.conftuner
    # The loss is a mean of each batch, so it is the trainer that divides by the batches of a step.
    trainer.model_accepts_loss_kwargs = False
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None)
    trainer.save_model(str(folder / "adapter"))
    # The next stage of the same launch reads it.
    trainer.accelerator.wait_for_everyone()


def _work(row: dict[str, Any]) -> int:
    """A row's length, a learned token counting several times: its logits cost as much as some layers."""
    return len(row["input_ids"]) + 8 * int(row["learned"])


class _Supervised(Trainer):
    digit_ids: tuple[int, ...] | None = None
    conftuner: float = 0.0

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        outputs = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            position_ids=inputs["position_ids"],
            # Logits of the learned tokens only: those of a whole batch would be gigabytes.
            logits_to_keep=int(inputs["learned"].max()) + 1,
        )
        loss = loss_of(outputs.logits, inputs, digit_ids=self.digit_ids, conftuner=self.conftuner)
        return (loss, outputs) if return_outputs else loss


class _Padded:
    """Rows of different length as one batch, padded on the left: their ends, which are learned, align."""

    def __init__(self, pad_id: int) -> None:
        self._pad_id = pad_id

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        width = max(len(row["input_ids"]) for row in rows)
        padding = torch.tensor([width - len(row["input_ids"]) for row in rows])
        mask = (torch.arange(width) >= padding[:, None]).long()
        ids = [[self._pad_id] * (width - len(row["input_ids"])) + row["input_ids"] for row in rows]
        return {
            "input_ids": torch.tensor(ids),
            "attention_mask": mask,
            "position_ids": (mask.cumsum(dim=1) - 1).clamp(min=0),
            **{name: torch.tensor([row[name] for row in rows]) for name in ("learned", "digit_back", "correct")},
        }


class _Told(TrainerCallback):
    """A line every few steps; stops at a loss that is no number."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._watch = Watch(collapse_steps=0)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if logs is None or "loss" not in logs:
            return
        if state.is_world_process_zero:
            self._tell(f"warm-up step {state.global_step}/{state.max_steps}  loss {float(logs['loss']):.3f}")
        self._watch.check(state.global_step, logs)
