"""Questions to train on: files, reasoning-gym tasks, what is held out, and what a model is asked.

Every question needs a gold answer. Knows no model.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import islice
from pathlib import Path

from corea.batch.rows import BadLine, Question, infer_kind, read_questions
from corea.confidence.protocol import system_prompt
from corea.errors import ExtraMissing, InputError
from corea.train.config import DataConfig, TaskConfig
from corea.train.decontaminate import Decontaminated, decontaminate


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where questions are from: a file with its SHA-256, or a task, which its settings make anew."""

    name: str
    questions: int
    sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """What is trained on, what is kept for calibration, and what was taken out for being in a test."""

    train: tuple[Question, ...]
    held_out: tuple[Question, ...]
    decontaminated: Decontaminated
    sources: tuple[Source, ...] = ()
    #: Questions that were asked twice, and left out the second time.
    repeated: int = 0

    @property
    def summary(self) -> str:
        """For the run's report and the model card."""
        repeated = f" {self.repeated:,} repeated questions were left out." if self.repeated else ""
        return f"{self.decontaminated.summary}{repeated}"

    @property
    def hash(self) -> str:
        """Of every question and answer, those held out among them."""
        state = blake2b(digest_size=8)
        for question in (*self.train, *self.held_out):
            state.update(repr((question.id, question.question, question.gold)).encode())
        return state.hexdigest()


def load(config: DataConfig) -> TrainingData:
    """Read, make, decontaminate and split. Raises :class:`InputError` that names the first thing wrong."""
    parts = [(_of_file(file), list(_read(file, limit=config.limit))) for file in config.questions]
    parts += [(Source(name=_named(task), questions=0), made_by(task)) for task in config.tasks]
    questions = [question for _, own in parts for question in own]
    _check_ids(questions)
    distinct = _distinct(questions)
    clean = decontaminate(distinct, _tests(config.tests), ngram=config.ngram)
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
        repeated=len(questions) - len(distinct),
        sources=tuple(replace(source, questions=len(own)) for source, own in parts),
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


def write(questions: Iterable[Question], path: Path) -> None:
    """Questions as a file that every verb reads, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        for one in questions:
            row = {"id": one.id, "question": one.question, "answer": one.gold, "kind": one.kind, "task": one.task}
            file.write(json.dumps({name: value for name, value in row.items() if value is not None}) + "\n")
    partial.replace(path)


def file_sha256(path: Path) -> str:
    """Raises :class:`InputError` for a file that cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as exc:
        raise InputError(f"{path} cannot be read ({exc.strerror}); correct its path in the configuration") from exc


def _of_file(path: Path) -> Source:
    return Source(name=path.name, questions=0, sha256=file_sha256(path))


def _named(task: TaskConfig) -> str:
    settings = ", ".join(f"{name} = {json.dumps(value)}" for name, value in sorted(task.settings.items()))
    return f"reasoning-gym {task.name} (seed {task.seed}{', ' if settings else ''}{settings})"


def _read(file: Path, *, limit: int | None) -> Iterator[Question]:
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


def _distinct(questions: Sequence[Question]) -> list[Question]:
    """Each text once, or a question that is held out could be trained on under another id."""
    first: dict[str, Question] = {}
    for question in questions:
        first.setdefault(" ".join(question.question.split()), question)
    return list(first.values())


def _share_of(id: str) -> float:
    """A number in [0, 1) that is the id's alone, so that a question stays held out whatever is added beside it."""
    return int.from_bytes(blake2b(f"held out {id}".encode(), digest_size=8).digest(), "big") / 2**64
