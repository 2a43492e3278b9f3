"""The same training on a cluster, by verl on Ray: what a token is moved by, as verl's advantage estimator ``corea``.

verl (0.9) hands an estimator no texts and no ids: one number a reply, the batch's mask and the questions' ids. So
:class:`Verdicts`, a reward manager, packs all that the estimator needs of a reply into that number, and
:func:`estimate` unpacks it. The number is y plus less than a twentieth: verl's own curve of the score is still the
pass rate.

Importing this where verl is installed registers the estimator; name this module in ``VERL_USE_EXTERNAL_MODULES``, and
every process of verl does so. Knows no formulas: those are in :mod:`corea.train.rewards` and
:mod:`corea.train.advantages`.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from corea.batch.rows import Question
from corea.confidence.protocol import DIGIT_VALUES
from corea.config import complaint
from corea.errors import InputError
from corea.train.advantages import CONFIDENCE, FRAME, REASONING, Advantages, Roles, advantages, token_roles
from corea.train.config import RewardConfig
from corea.train.data import conversation
from corea.train.models import decoder
from corea.train.replies import is_right, read
from corea.train.rewards import Reward

if TYPE_CHECKING:
    import torch

#: What the estimator is called in ``algorithm.adv_estimator``.
NAME = "corea"
#: A place in a reply, counted from its end, must be below this.
_PLACES = 64
#: verl keeps rewards as float32: above y there is room for 17 bits, and these are multiples of 2⁻²².
_STEP = 2.0**-22


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """All that an estimator needs of a reply. ``line_tokens``: how many at its end are the confidence line and after.

    ``digit_back``: the digit's place from the end, where the last token's is 1. Both are 0 where no digit is stated.
    """

    correct: bool
    well_formed: bool = False
    digit: int | None = None
    line_tokens: int = 0
    digit_back: int = 0

    @property
    def packed(self) -> float:
        """y + 2⁻²²·(the rest, in 17 bits), which a float32 holds exactly."""
        stated = 0 if self.digit is None else self.digit + 1
        rest = ((stated * 2 + self.well_formed) * _PLACES + self.line_tokens) * _PLACES + self.digit_back
        return float(self.correct) + rest * _STEP

    @classmethod
    def unpacked(cls, score: float) -> Self:
        """Raises :class:`InputError` for a number that is no verdict: another reward, or one that was added to."""
        correct = score >= 0.5
        rest = (score - correct) / _STEP
        upper, digit_back = divmod(round(rest), _PLACES)
        upper, line_tokens = divmod(upper, _PLACES)
        stated, well_formed = divmod(upper, 2)
        if rest != round(rest) or not 0 <= stated <= len(DIGIT_VALUES):
            raise InputError(
                f"the reward {score:g} is no verdict of corea.train.verl; set reward.reward_manager as in "
                "examples/train/verl.yaml, and algorithm.use_kl_in_reward = false"
            )
        return cls(
            correct=bool(correct),
            well_formed=bool(well_formed),
            digit=stated - 1 if stated else None,
            line_tokens=line_tokens,
            digit_back=digit_back,
        )

    def roles(self, length: int) -> Roles:
        """Of each token of a reply of this length, as :func:`corea.train.advantages.token_roles` found them."""
        roles = np.full(length, REASONING, dtype=np.int8)
        if self.digit is not None:
            roles[length - self.line_tokens :] = FRAME
            roles[length - self.digit_back] = CONFIDENCE
        return roles


def verdict(ids: Sequence[int], tokenizer: Any, *, gold: str, kind: Any) -> Verdict:
    """Of one sampled reply. A confidence line that ends too far from the reply's end counts as not stated."""
    decode = decoder(tokenizer)
    text = decode(ids)
    correct, stated = is_right(text, gold, kind), read(text)
    roles = token_roles(ids, decode)
    line_tokens = int((roles != REASONING).sum())
    if stated.digit is None or not 0 < line_tokens < _PLACES:
        return Verdict(correct=correct)
    return Verdict(
        correct=correct,
        well_formed=stated.well_formed,
        digit=stated.digit,
        line_tokens=line_tokens,
        digit_back=len(ids) - int(np.flatnonzero(roles == CONFIDENCE)[0]),
    )


class Verdicts:
    """verl's reward manager: each reply's reward is its packed verdict. Asks no reward model."""

    def __init__(self, config: Any, tokenizer: Any, compute_score: Any = None, **_: Any) -> None:
        self._tokenizer = tokenizer

    async def run_single(self, data: Any) -> dict[str, Any]:
        """``data``: verl's DataProto of one trajectory; its last reply counts."""
        item = data[-1]
        ids = item.batch["responses"]
        whole = int(item.batch["attention_mask"][-ids.shape[-1] :].sum())
        told = item.non_tensor_batch
        found = await asyncio.to_thread(
            verdict,
            ids[:whole].tolist(),
            self._tokenizer,
            gold=str(told["reward_model"]["ground_truth"]),
            kind=(told.get("extra_info") or {}).get("kind"),
        )
        return {"reward_score": found.packed, "reward_extra_info": _shown(found)}


def estimate(
    token_level_rewards: torch.Tensor,
    response_mask: torch.Tensor,
    index: NDArray[Any],
    config: Any = None,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Advantage of every token, (B, T), twice: verl wants returns too. ``index``: the question of each reply, (B,).

    The replies of a question may stand anywhere in the batch, and be fewer than were asked for. ``config`` is verl's
    ``algorithm``; its ``corea`` holds what ``[rl.reward]`` holds elsewhere. Rows that verl fills up with get 0.
    """
    import torch

    reward = reward_of(config)
    mask = response_mask.bool().cpu().numpy()
    scores = token_level_rewards.double().sum(dim=-1).cpu().numpy()
    table = np.zeros(mask.shape, dtype=np.float32)
    for rows in _groups(index, mask.any(axis=1)):
        found = [Verdict.unpacked(float(scores[row])) for row in rows]
        lengths = [int(np.flatnonzero(mask[row])[-1]) + 1 for row in rows]
        roles = [one.roles(length) for one, length in zip(found, lengths, strict=True)]
        table[rows] = _moved(reward, found).tokens(roles, width=mask.shape[1])
    moved = torch.from_numpy(table * mask).to(token_level_rewards.device)
    return moved, moved


def reward_of(config: Any) -> Reward:
    """The reward that ``algorithm.corea`` describes; hybrid where it says nothing. Raises :class:`ConfigError`."""
    described = config.get("corea", None) if config is not None else None
    try:
        return RewardConfig.model_validate(dict(described or {})).reward
    except ValidationError as exc:
        raise complaint(exc, "verl's configuration", root=RewardConfig, where=_within_algorithm) from None


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any] | None = None,
    *,
    reward: str = "rlcr",
    **settings: Any,
) -> dict[str, float]:
    """verl's reward function, for its own estimators: a reward that needs no group, moving every token alike.

    ``reward`` and ``settings`` are those of ``[rl.reward]``, given in ``reward_kwargs``. Raises :class:`InputError` for
    a reward whose target is the group's pass rate: that needs the estimator of this module.
    """
    if reward not in ("rlcr", "rewarding-doubt"):
        raise InputError(
            f'the reward "{reward}" needs all replies to a question; set algorithm.adv_estimator = "{NAME}" and the '
            "reward manager of corea.train.verl, or choose rlcr or rewarding-doubt"
        )
    known = {name: value for name, value in settings.items() if name in RewardConfig.model_fields}
    chosen = RewardConfig.model_validate({"name": reward, **known}).reward
    stated = read(solution_str)
    correct = is_right(solution_str, ground_truth, (extra_info or {}).get("kind"))
    parts = chosen.parts(
        np.array([correct], dtype=np.float64),
        np.array([stated.confidence]),
        np.array([stated.well_formed]),
        group=1,
    )
    return {
        "score": float(chosen.total(parts)[0]),
        "acc": float(correct),
        "confidence": stated.confidence,
        "format": float(stated.well_formed),
    }


def write_parquet(questions: Iterable[Question], path: Path) -> Path:
    """Questions as verl reads them: a prompt word for word as a tier asks it, the gold answer and its kind."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {
            "data_source": one.task or "corea",
            "prompt": conversation(one),
            "reward_model": {"style": "rule", "ground_truth": one.gold or ""},
            "extra_info": {"index": at, "id": one.id, "kind": one.kind or "text"},
        }
        for at, one in enumerate(questions)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def _within_algorithm(loc: tuple[int | str, ...]) -> str:
    return ".".join(("algorithm", "corea", *map(str, loc)))


def _groups(index: NDArray[Any], whole: NDArray[np.bool_]) -> list[list[int]]:
    """The rows of each question, in order of appearance."""
    found: dict[Any, list[int]] = {}
    for row, question in enumerate(index):
        if whole[row]:
            found.setdefault(question, []).append(row)
    return list(found.values())


def _moved(reward: Reward, group: Sequence[Verdict]) -> Advantages:
    stated = np.array([np.nan if one.digit is None else DIGIT_VALUES[one.digit] for one in group])
    parts = reward.parts(
        np.array([one.correct for one in group], dtype=np.float64),
        stated,
        np.array([one.well_formed for one in group]),
        group=len(group),
    )
    return advantages(reward, parts, ~np.isnan(stated), group=len(group))


def _shown(found: Verdict) -> dict[str, float]:
    """What verl logs beside the score."""
    confidence = float("nan") if found.digit is None else DIGIT_VALUES[found.digit]
    return {"acc": float(found.correct), "confidence": confidence, "format": float(found.well_formed)}


def _register() -> None:
    try:
        core = importlib.import_module("verl.trainer.ppo.core_algos")
    except ImportError:
        # Not installed: the functions can be used and tested all the same.
        return
    core.register_adv_est(NAME)(estimate)


_register()
