"""Which token is moved by what: group statistics, and advantages a token.

A reply's tokens have three roles. *Reasoning*: all up to the confidence line, the answer line with it. *Confidence*:
the one token that holds the stated digit. *Frame*: the rest of the line, and what ends the reply after it. With a
decoupled reward, reasoning is moved by accuracy and format, the digit by calibration alone, the frame by format alone:
so a badly calibrated digit never unteaches the line it stands on. A reply without the line is all reasoning.

The roles are found by decoding prefixes of the sampled ids. Encoding the text again may give other tokens than those
that were sampled. Knows no model; numpy only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from corea.train.replies import read
from corea.train.rewards import Floats, Parts, Reward

REASONING, FRAME, CONFIDENCE = 0, 1, 2

Roles = NDArray[np.int8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Advantages:
    """What moves each reply's tokens, by their role: (N,) each."""

    reasoning: Floats
    frame: Floats
    confidence: Floats

    def tokens(self, roles: Sequence[Roles], *, width: int) -> NDArray[np.float32]:
        """Advantage of every token: (N, width), 0 beyond a reply's end. ``roles``: of each reply, (length,)."""
        table = np.zeros((len(roles), width), dtype=np.float32)
        by_role = np.stack([self.reasoning, self.frame, self.confidence], axis=1)
        for row, (moved, own) in enumerate(zip(by_role, roles, strict=True)):
            table[row, : len(own)] = moved[own]
        return table

    def part(self, of: slice) -> Advantages:
        """Those of some of the replies: what one process needs of all."""
        return Advantages(reasoning=self.reasoning[of], frame=self.frame[of], confidence=self.confidence[of])


def advantages(reward: Reward, parts: Parts, known: NDArray[np.bool_], *, group: int) -> Advantages:
    """Of N replies in contiguous groups. ``known``: (N,), which of them state a confidence.

    Differences from the group's mean, not divided by its spread: that would blow tiny differences up, and a question
    that is nearly always answered would weigh as much as one in doubt (arXiv 2503.20783).
    """
    if not reward.decoupled:
        total = centred(reward.total(parts), group)
        return Advantages(reasoning=total, frame=total, confidence=total)
    stated = np.where(known, parts.calibration, np.nan)
    return Advantages(
        reasoning=centred(reward.reasoning(parts), group),
        frame=centred(reward.format_weight * parts.format, group),
        # Among those that state one: a digit earns nothing by others' silence.
        confidence=reward.digit_weight * centred(stated, group),
    )


def centred(values: Floats, group: int) -> Floats:
    """Differences from the mean of the known ones of each group, 0 for an unknown (NaN). (N,) → (N,)"""
    table = values.reshape(-1, group)
    known = ~np.isnan(table)
    counts = np.maximum(known.sum(axis=1, keepdims=True), 1)
    means = np.where(known, table, 0.0).sum(axis=1, keepdims=True) / counts
    return np.where(known, table - means, 0.0).reshape(-1)


def token_roles(ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> Roles:
    """Role of each sampled token: (length,). ``decode`` must leave special tokens out, as the reward's text does.

    A token that straddles the start of the line is reasoning, unless it holds the digit. Decodes as many prefixes as
    the line has tokens, never all.
    """
    roles = np.zeros(len(ids), dtype=np.int8)
    text = decode(ids)
    stated = read(text)
    if stated.line_at is None or stated.digit_at is None:
        return roles
    end = len(text)
    for index in range(len(ids) - 1, -1, -1):
        start = min(_agreeing(decode(ids[:index]), text), end)
        if start <= stated.digit_at < end:
            roles[index] = CONFIDENCE
        elif start >= stated.line_at:
            roles[index] = FRAME
        if start < stated.line_at:
            break
        end = start
    return roles


def _agreeing(prefix: str, text: str) -> int:
    """How many characters of ``text`` a prefix of its tokens has settled: half a character decodes as another one."""
    if text.startswith(prefix):
        return len(prefix)
    return next((i for i, (one, two) in enumerate(zip(prefix, text, strict=False)) if one != two), len(text))
