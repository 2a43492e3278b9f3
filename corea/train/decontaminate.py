"""Training questions that are too like a test question, by n-gram overlap: found, named, taken out.

Two questions are too like when they share n words in a row (lower case, numbers and signs are words, other punctuation
is none), or are the same words. A run of words that more than ``COMMON`` test questions share is wording ("State the
final answer to the following …"), not content, and does not count. Paraphrases with no such run go unnoticed. Knows no
files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from corea.batch.rows import Question

#: A run in more test questions than this is wording.
COMMON = 10

_WORD = re.compile(r"\w+(?:[.,]\d+)*|[-+*/^=<>%×÷−]")

Gram = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """A training question that was taken out, the test question it is like, and the words they share."""

    id: str
    test_id: str
    shared: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decontaminated:
    """What is left, in order, and what was taken out and why."""

    kept: tuple[Question, ...]
    removed: tuple[Overlap, ...]
    tests: int
    ngram: int

    @property
    def summary(self) -> str:
        """One line, for the run's report."""
        if not self.tests:
            return "No test questions were named, so nothing was checked for overlap."
        return (
            f"{len(self.removed):,} of {len(self.kept) + len(self.removed):,} training questions share {self.ngram} "
            f"words in a row with one of {self.tests:,} test questions, and were taken out."
        )


def decontaminate(questions: Sequence[Question], tests: Iterable[Question], *, ngram: int) -> Decontaminated:
    """Take out what overlaps. Memory grows with the training questions only: tests are read one by one."""
    grams = [tuple(_grams(question.question, ngram)) for question in questions]
    hits: dict[Gram, list[str]] = {gram: [] for own in grams for gram in own}
    count = 0
    for test in tests:
        count += 1
        for gram in set(_grams(test.question, ngram)):
            found = hits.get(gram)
            if found is not None and len(found) <= COMMON:
                found.append(test.id)
    kept, removed = [], []
    for question, own in zip(questions, grams, strict=True):
        # A whole question is content however many tests repeat it.
        shared = next((gram for gram in own if hits[gram] and (gram is own[-1] or len(hits[gram]) <= COMMON)), None)
        if shared is None:
            kept.append(question)
        else:
            removed.append(Overlap(id=question.id, test_id=hits[shared][0], shared=" ".join(shared[:ngram])))
    return Decontaminated(kept=tuple(kept), removed=tuple(removed), tests=count, ngram=ngram)


def _grams(text: str, n: int) -> Iterator[Gram]:
    """Every run of n words, then all of them together, marked so that they equal no run."""
    words = _WORD.findall(text.lower())
    for start in range(len(words) - n + 1):
        yield tuple(words[start : start + n])
    yield (*words, "")
