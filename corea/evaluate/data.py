"""Where questions with gold answers come from: files, the packaged sample, or a data set of the Hugging Face Hub.

``hf:openai/gsm8k/main:test`` is the split ``test`` of the configuration ``main`` of ``openai/gsm8k``; a local folder
may stand for the repository. Rows of HumanEval and MBPP are known by their fields. Grades nothing and asks no model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from corea.batch.rows import BadLine, Question, question_of, read_questions
from corea.confidence.protocol import last_boxed
from corea.errors import ExtraMissing, InputError
from corea.evaluate.programs import is_programs, read_programs, task_of
from corea.samples import GSM8K, PROGRAMS

#: Questions that ship with the package, by name.
SAMPLES: Mapping[str, Path] = {"gsm8k-sample": GSM8K, "programs-sample": PROGRAMS}

_HUB = "hf:"
_QUESTION = ("question", "problem", "question_stem", "prompt", "input")
_GOLD = ("answerKey", "answer", "final_answer", "solution", "target", "label")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def read_graded(sources: Iterable[str | Path], *, limit: int | None = None) -> list[Question]:
    """Questions of all sources, at most ``limit`` of each. Every one needs a gold answer; ids must differ.

    Raises :class:`InputError` that names the source and line of the first thing wrong.
    """
    found: dict[str, Question] = {}
    for source in map(str, sources):
        for item in islice(_questions(source), limit):
            if isinstance(item, BadLine):
                raise InputError(f"{source}: {item}")
            if item.gold is None:
                raise InputError(f'{source}: "{item.id}" has no "answer" to grade by; add it, or leave it out')
            if item.id in found:
                raise InputError(f'{source}: id "{item.id}" is in another source too; ids must differ')
            found[item.id] = item
    if not found:
        raise InputError("no questions were given; name a file with --data")
    return list(found.values())


def _questions(source: str) -> Iterator[Question | BadLine]:
    if source.startswith(_HUB):
        return _hub_questions(source)
    path = Path(source)
    if not path.exists() and source in SAMPLES:
        path = SAMPLES[source]
    if not path.exists():
        raise InputError(
            f"{source} is neither a file nor one of the packaged samples ({', '.join(SAMPLES)}); "
            "a data set of the Hub is written hf:owner/name:split"
        )
    return read_programs(path) if is_programs(path) else read_questions(path)


def _hub_questions(source: str) -> Iterator[Question | BadLine]:
    try:
        from datasets import load_dataset
    except ModuleNotFoundError as exc:
        raise ExtraMissing(package="datasets", extra="hub") from exc

    name, _, split = source.removeprefix(_HUB).rpartition(":")
    name, split = (name, split) if name else (split, "test")
    repository, configuration = name, None
    if not Path(name).is_dir() and name.count("/") == 2:
        repository, _, configuration = name.rpartition("/")
    try:
        rows = load_dataset(repository, configuration, split=split, streaming=True)
        seen: set[bytes] = set()
        for number, row in enumerate(rows, start=1):
            yield question_of(number, _plain(row, number, repository), seen)
    except (ValueError, OSError) as exc:
        why = " ".join(str(exc).split())[:200]
        raise InputError(f"{source} cannot be read ({why}); check its name, its split, and the network") from exc


def _plain(row: Mapping[str, Any], number: int, repository: str) -> dict[str, Any]:
    """A data set's row as our format has it. Leaves out what it does not find, which is then told as missing."""
    if (program := task_of(row)) is not None:
        return program
    task = repository.rstrip("/").rsplit("/", maxsplit=1)[-1]
    plain: dict[str, Any] = {"id": str(row.get("id") or f"{task}-{number}"), "task": task}
    question = next((row[name] for name in _QUESTION if isinstance(row.get(name), str)), None)
    gold = next((row[name] for name in _GOLD if isinstance(row.get(name), str | int | float)), None)
    labels, texts = _choices(row)
    if question is not None:
        plain["question"] = "\n".join([question, *(f"{a}) {b}" for a, b in zip(labels, texts, strict=False))])
    if texts:
        plain["kind"] = "choice"
        gold = labels[gold] if isinstance(gold, int) and 0 <= gold < len(labels) else gold
    if isinstance(gold, bool):
        gold = "yes" if gold else "no"
    if gold is not None:
        plain["answer"] = _final(gold) if isinstance(gold, str) else gold
    return plain


def _choices(row: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Letters and texts of the choices, as ARC, OpenBookQA and MMLU write them; none where there are none."""
    given = row.get("choices") or row.get("options")
    if isinstance(given, Mapping):
        return [str(label) for label in given.get("label", ())], [str(text) for text in given.get("text", ())]
    if isinstance(given, list):
        return list(_LETTERS[: len(given)]), [str(text) for text in given]
    return [], []


def _final(gold: str) -> str:
    """The answer at the end of a worked solution: after GSM8K's ``####``, or in the last ``\\boxed{}``."""
    if "####" in gold:
        return gold.rpartition("####")[2].strip()
    return last_boxed(gold) or gold
