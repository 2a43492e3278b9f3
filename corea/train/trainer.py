"""GRPO with a say for calibration: TRL's trainer with two of its methods extended, and no other.

``_calculate_rewards`` returns the rewards of all processes with groups contiguous (a group may be spread over
processes, so no reward function can see it): group statistics belong there. ``_generate_and_score_completions`` returns
one advantage a reply, (B,); TRL's loss takes (B, T) as well, and that is what it gets. Written for TRL 1.16.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from corea.train.advantages import Advantages, Roles, advantages, token_roles
from corea.train.curves import step_metrics
from corea.train.models import Base, decoder
from corea.train.replies import is_right, read
from corea.train.rewards import Reward

Completions = Sequence[Sequence[dict[str, str]]]


def correct(completions: Completions, gold: Sequence[str], kind: Sequence[str | None], **_: Any) -> list[float]:
    """y of each reply, found as leniently as a tier finds it: a right answer is right in any form."""
    rows = zip(completions, gold, kind, strict=True)
    return [float(is_right(reply[0]["content"], wanted, of)) for reply, wanted, of in rows]


def confidence(completions: Completions, **_: Any) -> list[float | None]:
    """c of each reply, None where none is stated to the letter. Weighs nothing itself: the trainer scores it."""
    return [None if (c := read(reply[0]["content"]).confidence) != c else c for reply in completions]


def form(completions: Completions, **_: Any) -> list[float]:
    """0 for a reply that ends as the protocol wants, else −1."""
    return [read(reply[0]["content"]).well_formed - 1.0 for reply in completions]


def calibration(completions: Completions, **_: Any) -> list[float]:
    """Where the calibration score goes, once the whole group is known."""
    return [0.0] * len(completions)


class ConfidenceTrainer(GRPOTrainer):
    """Stock GRPO but for what a token is moved by. The data set needs ``prompt``, ``gold`` and ``kind``."""

    def __init__(
        self,
        *,
        base: Base,
        reward: Reward,
        args: GRPOConfig,
        train_dataset: Any,
        peft_config: Any = None,
        callbacks: Sequence[Any] = (),
    ) -> None:
        self.reward = reward
        self._decode = decoder(base.tokenizer)
        self._moved: Advantages | None = None
        self._roles: list[Roles] = []
        # What TRL logs as the reward; the advantages that it makes of it are replaced.
        args.reward_weights = [1.0, 0.0, reward.format_weight, reward.calibration_weight]
        super().__init__(
            model=base.model,
            reward_funcs=[correct, confidence, form, calibration],
            args=args,
            train_dataset=train_dataset,
            processing_class=base.tokenizer,
            peft_config=peft_config,
            callbacks=list(callbacks),
        )
        # It prints every figure there is, on every step.
        self.remove_callback(PrinterCallback)

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> torch.Tensor:
        """Rewards of all N replies of all processes, (N, 4), the calibration score filled in."""
        gathered: torch.Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        group = self.num_generations if self.model.training else self.num_generations_eval
        right, stated, formed, _ = gathered.double().cpu().numpy().T
        parts = self.reward.parts(right, stated, formed == 0, group=group)
        self._moved = advantages(self.reward, parts, ~np.isnan(stated), group=group)
        self._roles = [token_roles(ids, self._decode) for ids in completion_ids_list]
        mode = "train" if self.model.training else "eval"
        for name, value in step_metrics(right, stated, group=group).items():
            if not math.isnan(value):
                self._metrics[mode][name].append(value)
        gathered[:, 3] = torch.from_numpy(parts.calibration).to(gathered)
        # TRL would log a mean of nothing where no reply states anything; it has no weight.
        return torch.nan_to_num(gathered, nan=0.0)

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        """This process's replies, with an advantage a token."""
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        assert self._moved is not None  # noqa: S101 - set by _calculate_rewards, which super() has just called
        first = self.accelerator.process_index * len(inputs)
        mine = self._moved.part(slice(first, first + len(inputs)))
        table = mine.tokens(self._roles, width=batch["completion_ids"].size(1))
        batch["advantages"] = torch.from_numpy(table).to(batch["completion_ids"].device)
        return batch
