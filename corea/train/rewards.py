"""What a reply earns: each reward with its formula, its source, and when stating the truth earns most.

y ∈ {0, 1}: the answer is right. c ∈ (0, 1): the confidence it states, NaN where none can be read. G: samples a
question. ȳ: the question's pass rate, the mean y of its group. p: the true chance of a right answer.

A reward is y + w·s + f·format, with a calibration score s from −1 (worst) to 0 (best), and format 0 for a reply in the
protocol's form and −1 for any other. A reply that states no readable confidence gets the worst score, so silence never
pays. Only ``hybrid`` keeps the parts apart: its accuracy and format move the reasoning, its score the stated digit
(:mod:`corea.train.advantages`).

Two things must hold, and tests hold them. *Honest*: the expected score is highest at c = p. *No reason to fail*: with
the best c, the expected reward rises with p. Else the model earns more by answering wrongly and knowing it.

======================  =====================================================================================
score                   why it is, or is not, here
======================  =====================================================================================
corea, L2 or KL         proper for a rate: E[ȳ] = p
corea, L1               the best c is the median of ȳ, within 1/G of p. With the target y it would be 0 or 1, never
                        p, and failing would cost nothing below p = ½: so there is no L1 with the target y
rlcr                    proper; the reward is p² at c = p
rewarding-doubt         proper for c within the clip. Unclipped, the reward p + p·log p + (1−p)·log(1−p) falls
                        until p = 0.27: so there is no unclipped log score
hybrid                  proper for λ·E[ȳ] + (1−λ)·P(y=1 | this reasoning); whatever is stated, p alone moves the
                        reasoning
ConfTuner               a loss on the digit's distribution, not a reward: least at the digit nearest p
======================  =====================================================================================

Groups are contiguous: samples g·G … g·G + G − 1 answer the same question. Knows no tokens and no models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from corea.confidence.protocol import DIGIT_VALUES
from corea.errors import InputError

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float64]
Name = Literal["corea", "rlcr", "rewarding-doubt", "hybrid"]
Distance = Literal["l1", "l2", "kl"]

NAMES: tuple[Name, ...] = get_args(Name)
#: Score of a reply that states no readable confidence, and the least any reply can get.
WORST = -1.0
#: Log scores are of c within [CLIP, 1 − CLIP]: the values of the protocol's first and last digit.
CLIP = DIGIT_VALUES[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What each reply earned, (N,) each: y, the format (0 or −1) and the calibration score (−1 to 0)."""

    correct: Floats
    format: Floats
    calibration: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Reward:
    """One of the rewards with its settings. ``distance`` is of ``corea`` only, ``mix`` (λ) of ``hybrid`` only."""

    name: Name = "hybrid"
    distance: Distance = "l1"
    mix: float = 0.5
    #: w of the sum, of all but ``hybrid``, which adds no parts. Up to 1, failing on purpose never pays.
    calibration_weight: float = 1.0
    #: Weight of the digit, of ``hybrid`` only: it is one token among a hundred.
    digit_weight: float = 10.0
    #: f of the sum.
    format_weight: float = 0.2

    @property
    def decoupled(self) -> bool:
        """True where reasoning and confidence tokens are moved by different parts."""
        return self.name == "hybrid"

    def parts(self, correct: Floats, confidence: Floats, well_formed: NDArray[np.bool_], *, group: int) -> Parts:
        """Earnings of N replies in groups of ``group``. ``confidence``: NaN is unknown. All (N,).

        Raises :class:`InputError` for a correctness or confidence that cannot be, rather than train on it.
        """
        correct, confidence = _checked(correct, confidence, group)
        if self.name == "corea":
            score = corea(correct, confidence, group=group, distance=self.distance)
        elif self.name == "rlcr":
            score = rlcr(correct, confidence)
        elif self.name == "rewarding-doubt":
            score = rewarding_doubt(correct, confidence)
        else:
            score = hybrid(correct, confidence, group=group, mix=self.mix)
        return Parts(correct=correct, format=np.where(well_formed, 0.0, -1.0), calibration=score)

    def reasoning(self, parts: Parts) -> Floats:
        """y + f·format: what moves the reasoning of a decoupled reward. (N,)"""
        return parts.correct + self.format_weight * parts.format

    def total(self, parts: Parts) -> Floats:
        """y + w·s + f·format: what moves every token of the other rewards. (N,)"""
        return self.reasoning(parts) + self.calibration_weight * parts.calibration


def corea(correct: Floats, confidence: Floats, *, group: int, distance: Distance = "l1") -> Floats:
    """−d(c, ȳ), with d = |c − ȳ| (L1), (c − ȳ)² (L2) or KL(ȳ‖c) over its largest value. arXiv 2603.03752 (L1).

    The target is a rate, so it teaches how hard the question is, not whether this answer is right.
    """
    target = pass_rate(correct, group)
    if distance == "l1":
        return _known(-np.abs(confidence - target))
    if distance == "l2":
        return _known(-np.square(confidence - target))
    stated = np.clip(confidence, CLIP, 1 - CLIP)
    surprise = -target * np.log(stated) - (1 - target) * np.log1p(-stated)
    return _known((_negative_entropy(target) + surprise) / np.log(CLIP))


def rlcr(correct: Floats, confidence: Floats) -> Floats:
    """−(c − y)², the Brier score. arXiv 2507.16806."""
    return _known(-np.square(confidence - correct))


def rewarding_doubt(correct: Floats, confidence: Floats, *, clip: float = CLIP) -> Floats:
    """(log q − log(1−ε)) ÷ log((1−ε)/ε), q the probability stated for what came true, clipped to [ε, 1−ε].

    arXiv 2503.02623, whose log score it is, moved and scaled into [−1, 0]: in that scale a weight of 1 is the largest
    that leaves no reason to fail (below p = ε the reward is then flat).
    """
    stated = np.clip(confidence, clip, 1 - clip)
    said = np.where(correct > 0.5, stated, 1 - stated)
    return _known((np.log(said) - np.log1p(-clip)) / (np.log1p(-clip) - np.log(clip)))


def hybrid(correct: Floats, confidence: Floats, *, group: int, mix: float = 0.5) -> Floats:
    """−(c − (λȳ + (1−λ)y))², for the digit alone. After the formulas of arXiv 2603.09117 (decoupled), mixed target.

    λ = 1 asks how hard the question is, with little noise; λ = 0 whether this answer is right, with much.
    """
    target = mix * pass_rate(correct, group) + (1 - mix) * correct
    return _known(-np.square(confidence - target))


def conftuner_loss(digit_logits: torch.Tensor, correct: torch.Tensor) -> torch.Tensor:
    """Mean over replies of Σᵢ qᵢ·(vᵢ − y)², q the softmax over the ten digits. arXiv 2508.18847 (tokenized Brier).

    ``digit_logits``: (B, 10), at the digit's place; ``correct``: (B,), y or a pass rate. It has a gradient even where
    all samples state the same digit, and where training samples nothing. Being linear in q, its least value is at one
    digit, the nearest to p: it ranks questions, but E[c] loses its values in between if it is trained to the end.
    """
    import torch

    values = torch.tensor(DIGIT_VALUES, dtype=torch.float32, device=digit_logits.device)
    shares = torch.softmax(digit_logits.float(), dim=-1)
    return (shares * torch.square(values - correct.float()[:, None])).sum(dim=-1).mean()


def pass_rate(correct: Floats, group: int) -> Floats:
    """ȳ of each reply's group: (N,) → (N,)."""
    return np.repeat(correct.reshape(-1, group).mean(axis=1), group)


def _known(score: Floats) -> Floats:
    """The score, the worst one where the confidence is unknown."""
    return np.where(np.isnan(score), WORST, score)


def _negative_entropy(rate: Floats) -> Floats:
    """ȳ·log ȳ + (1−ȳ)·log(1−ȳ), which is 0 at both ends."""
    inside = np.clip(rate, 1e-12, 1 - 1e-12)
    entropy: Floats = inside * np.log(inside) + (1 - inside) * np.log1p(-inside)
    return np.where((rate > 0) & (rate < 1), entropy, 0.0)


def _checked(correct: Any, confidence: Any, group: int) -> tuple[Floats, Floats]:
    right, stated = np.asarray(correct, dtype=np.float64), np.asarray(confidence, dtype=np.float64)
    if right.shape != stated.shape or right.ndim != 1 or group < 1 or len(right) % group:
        raise InputError(
            f"{right.shape} grades and {stated.shape} confidences do not make whole groups of {group}; "
            "make the batch a multiple of the samples a question"
        )
    # NaN fails both comparisons, so an answer nobody could grade is refused too.
    if not np.all((right >= 0) & (right <= 1)):
        raise InputError("a grade is not within 0 to 1; check the questions' gold answers and kinds")
    if not np.all(np.isnan(stated) | ((stated >= 0) & (stated <= 1))):
        raise InputError("a stated confidence is not within 0 to 1; unknown must be NaN")
    return right, stated
