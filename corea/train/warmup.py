"""The ``warmup`` stage: supervised, on the model's own replies, rewritten so that they end as the protocol wants.

Only the two last lines are learned, as the reasoning is the model's own already; ``warmup.learn = "reply"`` learns it
all, and ``"right"`` that of the right replies. The digit is drawn from what k samples say of the question's pass rate,
so that it is right on average and every digit occurs.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corea.batch.rows import Question
from corea.confidence.protocol import parse
from corea.errors import InputError
from corea.train.advantages import CONFIDENCE, token_roles
from corea.train.config import TrainConfig, WarmupConfig
from corea.train.data import conversation
from corea.train.models import Base, decoder
from corea.train.replies import protocol_form
from corea.train.rewards import conftuner_loss
from corea.train.rollouts import Rollout
from corea.train.stages import claim, told

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """A question and the reply to learn the end of. ``learned_from``: where that end begins, in characters."""

    question: Question
    reply: str
    digit: int
    correct: float
    learned_from: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lessons:
    """What the warm-up learns, and what of the rollouts it left out."""

    rows: tuple[Lesson, ...]
    unfinished: int
    without_answer: int

    @property
    def digits(self) -> tuple[int, ...]:
        """How often each digit occurs."""
        counted = Counter(lesson.digit for lesson in self.rows)
        return tuple(counted[digit] for digit in range(10))

    @property
    def summary(self) -> str:
        return (
            f"{len(self.rows)} lessons (digits 0 to 9: {' '.join(map(str, self.digits))}); left out: {self.unfinished} "
            f"replies that were cut off, {self.without_answer} without an answer"
        )


def lessons(
    questions: Sequence[Question], rollouts: Sequence[Rollout], warmup: WarmupConfig, *, rng: random.Random
) -> Lessons:
    """Rewrite rollouts. Raises :class:`InputError` when no usable one is left."""
    by_id = {question.id: question for question in questions}
    known: dict[str, list[Rollout]] = {}
    for rollout in rollouts:
        if rollout.id in by_id:
            known.setdefault(rollout.id, []).append(rollout)
    rows: list[Lesson] = []
    unfinished = without_answer = 0
    for id, own in known.items():
        right = sum(rollout.correct for rollout in own)
        taken = 0
        for rollout in rng.sample(own, len(own)):
            if not rollout.finished:
                unfinished += 1
            elif (lesson := rewritten(by_id[id], rollout, drawn_digit(right, len(own), rng))) is None:
                without_answer += 1
            elif taken < warmup.replies:
                whole = warmup.learn == "reply" or (warmup.learn == "right" and rollout.correct == 1)
                rows.append(replace(lesson, learned_from=0) if whole else lesson)
                taken += 1
    if not rows:
        raise InputError(
            f"no rollout can be learned from: {unfinished} were cut off (raise rollouts.max_tokens), {without_answer} "
            "hold no answer (the base model may be too weak for these questions)"
        )
    return Lessons(rows=balanced(rows, warmup.most_share, rng), unfinished=unfinished, without_answer=without_answer)


def drawn_digit(right: float, samples: int, rng: random.Random) -> int:
    """A digit for the pass rate, drawn from what so many samples leave open about it.

    Beta(right + ½, wrong + ½), Jeffreys' posterior: of 8 samples all right, most draws are 9 and some 8.
    """
    return min(9, int(10 * rng.betavariate(right + 0.5, samples - right + 0.5)))


def rewritten(question: Question, rollout: Rollout, digit: int) -> Lesson | None:
    """The rollout's reasoning with the protocol's lines after it; None for one that holds no answer."""
    parsed = parse(rollout.text, question.kind)
    if parsed.answer is None:
        return None
    reasoning = _without_end(parsed.visible)
    return Lesson(
        question=question,
        reply=protocol_form(reasoning, parsed.answer, digit).lstrip("\n"),
        digit=digit,
        correct=rollout.correct,
        learned_from=len(reasoning.rstrip()),
    )


def balanced(rows: Sequence[Lesson], most_share: float, rng: random.Random) -> tuple[Lesson, ...]:
    """The rows in random order; of a frequent digit's, no more than ``most_share`` of the number of all rows.

    Not of those kept: a rare digit would then thin all the others to its own number.
    """
    most = max(1, int(most_share * len(rows)))
    kept: list[Lesson] = []
    counted: Counter[int] = Counter()
    for row in rng.sample(rows, len(rows)):
        counted[row.digit] += 1
        if counted[row.digit] <= most:
            kept.append(row)
    return tuple(kept)


def encoded(lesson: Lesson, base: Base) -> dict[str, Any]:
    """``input_ids``, and of them ``learned``, how many at the end, and ``digit_back``, the digit's place from the end.

    The last token's place from the end is 1. ``correct`` is the grade.
    """
    tokenizer, decode = base.tokenizer, decoder(base.tokenizer)
    prompt = tokenizer.apply_chat_template(conversation(lesson.question), add_generation_prompt=True, tokenize=False)
    asked = tokenizer.encode(prompt, add_special_tokens=False)
    reply = tokenizer.encode(lesson.reply, add_special_tokens=False)
    first = next(i for i in range(len(reply), -1, -1) if len(decode(reply[:i])) <= lesson.learned_from)
    roles = token_roles(reply, decode).tolist()
    ids = [*asked, *reply, tokenizer.eos_token_id]
    return {
        "input_ids": ids,
        "learned": len(reply) + 1 - first,
        "digit_back": len(reply) + 1 - roles.index(CONFIDENCE),
        "correct": lesson.correct,
    }


def run(
    config: TrainConfig,
    base: Base,
    made: Lessons,
    *,
    tell: Callable[[str], None],
    fingerprint: str,
) -> Path:
    """Train, going on from the last checkpoint. Returns the folder of the adapter, or of the model."""
    from corea.train.supervised import train

    folder = config.output / "warmup"
    claim(folder, fingerprint)
    if config.warmup.conftuner and base.digit_ids is None:
        raise InputError(
            "the ConfTuner loss needs digits that are one token each, and this tokenizer's are not; set "
            "warmup.conftuner = 0"
        )
    rows = [encoded(lesson, base) for lesson in made.rows]
    with told(folder, lower="warmup.batch, or set lora.rank above 0"):
        train(config, base, rows, folder=folder, tell=tell)
    return folder / "adapter"


def loss_of(
    logits: torch.Tensor, batch: Mapping[str, torch.Tensor], *, digit_ids: Sequence[int] | None, conftuner: float
) -> torch.Tensor:
    """Cross-entropy of the learned tokens, plus ``conftuner`` times the ConfTuner loss at the digit.

    ``logits``: (B, K, V), of the last K places; ``batch`` is padded on the left, so that the ends of all rows align.
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    kept, counts = logits.shape[1], batch["learned"].tolist()
    # The logits that chose a token stand one place before it.
    summed = [
        checkpoint(_summed, logits[row, -1 - count : -1], batch["input_ids"][row, -count:], use_reentrant=False)
        for row, count in enumerate(counts)
    ]
    learned = torch.stack(summed).sum() / sum(counts)
    if not conftuner or digit_ids is None:
        return learned
    rows = torch.arange(len(logits), device=logits.device)
    at_digit = logits[rows, kept - batch["digit_back"] - 1][:, list(digit_ids)]
    return learned + conftuner * conftuner_loss(at_digit, batch["correct"])


def _summed(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of one row, (K, V) and (K,). Checkpointed: in float32, those of a batch would be gigabytes."""
    from torch.nn.functional import cross_entropy

    return cross_entropy(logits.float(), targets, reduction="sum")


def _without_end(visible: str) -> str:
    """The reasoning without an answer line of the model's own at its end."""
    lines = visible.rstrip().split("\n")
    if lines and lines[-1].lstrip("*_# ").lower().startswith(("answer:", "final answer:")):
        lines.pop()
    return "\n".join(lines).rstrip()
