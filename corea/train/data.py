"""Questions to train on: files, reasoning-gym tasks, what is held out, and what a model is asked.

Every question needs a gold answer. Knows no model.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path

from corea.batch.rows import BadLine, Question, infer_kind, read_questions
from corea.confidence.protocol import system_prompt
from corea.errors import ExtraMissing, InputError
from corea.train.config import DataConfig, TaskConfig
from corea.train.decontaminate import Decontaminated, decontaminate


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """What is trained on, what is kept for calibration, and what was taken out for being in a test."""

    train: tuple[Question, ...]
    held_out: tuple[Question, ...]
    decontaminated: Decontaminated

    @property
    def hash(self) -> str:
        """Of every question and answer, those held out among them."""
        state = blake2b(digest_size=8)
        for question in (*self.train, *self.held_out):
            state.update(repr((question.id, question.question, question.gold)).encode())
        return state.hexdigest()


def load(config: DataConfig) -> TrainingData:
    """Read, make, decontaminate and split. Raises :class:`InputError` that names the first thing wrong."""
    questions = [*_read(config.questions, limit=config.limit), *(q for task in config.tasks for q in made_by(task))]
    _check_ids(questions)
    clean = decontaminate(questions, _tests(config.tests), ngram=config.ngram)
    held_out = {question.id for question in clean.kept if _share_of(question.id) < config.held_out}
    train = tuple(question for question in clean.kept if question.id not in held_out)
    if not train:
        raise InputError(
            f"no question is left to train on: of {len(questions)}, {len(clean.removed)} overlap with the tests and "
            f"{len(held_out)} are held out; add questions, or check data.tests and data.ngram"
        )
    return TrainingData(
        train=train,
        held_out=tuple(question for question in clean.kept if question.id in held_out),
        decontaminated=clean,
    )


def made_by(task: TaskConfig) -> list[Question]:
    """Questions of a reasoning-gym task, as hard as its settings say. The same seed makes the same questions.

    They are graded by their one gold answer, so tasks with many right answers (sudokus, word ladders) do not fit.
    """
    try:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ImportError as exc:
        raise ExtraMissing(package="reasoning-gym", extra="train") from exc
    if task.name not in DATASETS:
        near = difflib.get_close_matches(task.name, list(DATASETS), n=1, cutoff=0.4)
        guess = f"; did you mean {near[0]}?" if near else "; see reasoning_gym.factory.DATASETS"
        raise InputError(f'reasoning-gym has no task "{task.name}"{guess}')
    try:
        entries = reasoning_gym.create_dataset(task.name, size=task.count, seed=task.seed, **task.settings)
    # reasoning-gym checks its settings with assertions, and lets the rest end as whatever it ends as.
    except (TypeError, ValueError, AssertionError) as exc:
        why = " ".join(str(exc).split())[:160]
        raise InputError(f'reasoning-gym task "{task.name}" refuses its settings ({why}); correct them') from exc
    return [
        Question(
            id=f"{task.name}-{task.seed}-{index}",
            question=str(entry["question"]),
            gold=str(entry["answer"]),
            kind=infer_kind(str(entry["answer"])),
            task=task.name,
        )
        for index, entry in enumerate(entries)
    ]


def conversation(question: Question, system: str | None = None) -> list[dict[str, str]]:
    """What the model is asked: word for word what a tier that asks inline will ask it."""
    return [
        {"role": "system", "content": system_prompt(inline=True, custom=system, kind=question.kind)},
        {"role": "user", "content": question.question},
    ]


def _read(files: Sequence[Path], *, limit: int | None) -> Iterator[Question]:
    for file in files:
        for item in islice(read_questions(file), limit):
            if isinstance(item, BadLine):
                raise InputError(f"{file}: {item}")
            if item.gold is None:
                raise InputError(
                    f'{file}: "{item.id}" has no "answer", so a reply to it cannot be rewarded; add it, or take the '
                    "question out"
                )
            yield item


def _tests(files: Iterable[Path]) -> Iterator[Question]:
    for file in files:
        for item in read_questions(file):
            if isinstance(item, BadLine):
                raise InputError(f"{file}: {item}")
            yield item


def _check_ids(questions: Sequence[Question]) -> None:
    seen: set[str] = set()
    for question in questions:
        if question.id in seen:
            raise InputError(f'two training questions have the id "{question.id}"; ids must differ over all files')
        seen.add(question.id)


def _share_of(id: str) -> float:
    """A number in [0, 1) that is the id's alone, so that a question stays held out whatever is added beside it."""
    return int.from_bytes(blake2b(f"held out {id}".encode(), digest_size=8).digest(), "big") / 2**64
