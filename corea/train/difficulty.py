"""In what order to ask, so that every step has easy and hard questions. Knows only pass rates.

A question that is always or never answered right teaches the reasoning nothing, but it teaches the digit; and a batch
of one difficulty teaches one digit. So questions are taken in turn from bins of their measured pass rate.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from corea.batch.rows import Question

#: Upper ends of the bins between never (0) and always (1).
EDGES = (0.25, 0.5, 0.75)
#: No question is asked more than so many times as often as the average one, however small its bin.
MOST = 3.0


def mixed(
    questions: Sequence[Question], pass_rates: Mapping[str, float], *, length: int, rng: random.Random
) -> list[Question]:
    """``length`` questions, repeated where there are too few. Unmeasured ones make a bin of their own."""
    bins: dict[float, list[Question]] = {}
    for question in questions:
        bins.setdefault(_bin(pass_rates.get(question.id)), []).append(question)
    decks = [bins[key] for key in sorted(bins)]
    shares = _shares([len(deck) for deck in decks])
    taken = [0] * len(decks)
    order: list[Question] = []
    for asked in range(length):
        # The bin that is furthest behind its share.
        at = max(range(len(decks)), key=lambda i: (shares[i] * (asked + 1) - taken[i], -i))
        place = taken[at] % len(decks[at])
        if place == 0:
            rng.shuffle(decks[at])
        order.append(decks[at][place])
        taken[at] += 1
    return order


def plain(questions: Sequence[Question], *, length: int, rng: random.Random) -> list[Question]:
    """As many questions in random order, every one before any comes again."""
    order: list[Question] = []
    while len(order) < length:
        order += rng.sample(questions, len(questions))
    return order[:length]


def _bin(rate: float | None) -> float:
    if rate is None:
        return -1.0
    if rate in (0.0, 1.0):
        return rate
    return next((edge for edge in EDGES if rate <= edge), 0.99)


def _shares(sizes: Sequence[int]) -> list[float]:
    """Equal shares, but none above ``MOST`` times the bin's own; what it cannot take goes to the others."""
    total = sum(sizes)
    caps = [min(1.0, MOST * size / total) for size in sizes]
    shares = [0.0] * len(sizes)
    free = set(range(len(sizes)))
    left = 1.0
    while free:
        even = left / len(free)
        full = {i for i in free if caps[i] <= even}
        for i in full or free:
            shares[i] = caps[i] if full else even
        if not full:
            break
        left -= sum(caps[i] for i in full)
        free -= full
    return shares
