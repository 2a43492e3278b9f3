"""The ``rollouts`` stage: k answers a question from the untrained model, graded, in a journal that can be gone on with.

They tell how hard each question is, and the warm-up is written from them. Knows no training.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from corea.batch.rows import Question
from corea.config import OpenAITier, api_key_of
from corea.errors import InputError, ModelError
from corea.models.base import Model
from corea.models.embedded import EmbeddedModel, EngineSettings
from corea.models.openai import OpenAIModel
from corea.streams import bounded_map
from corea.train.config import RolloutsConfig, TrainConfig
from corea.train.data import conversation
from corea.train.models import Base, ends_of, gguf_file
from corea.train.replies import is_right
from corea.types import Message, Prompt

#: Seconds for one reply of an endpoint.
TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One reply wanted: the ``sample``-th of a question."""

    question: Question
    sample: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One reply, graded. ``finished`` is false where it was cut off at the token limit."""

    id: str
    sample: int
    text: str
    correct: float
    finished: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A reply that the endpoint did not give. It is asked for again by the next run."""

    id: str
    why: str


#: Text and whether it was finished, or what went wrong, of each job, in any order.
Source = Callable[[Sequence[Job]], AsyncIterator[tuple[Job, str, bool] | Failed]]


async def run(
    config: TrainConfig,
    questions: Sequence[Question],
    source: Source,
    *,
    journal: Path,
    fingerprint: str,
    on_start: Callable[[int, int], None],
    on_row: Callable[[Rollout | Failed], None],
) -> list[Rollout]:
    """Sample what has not been sampled yet. ``on_start`` gets the number of replies in all and of those there already.

    Raises :class:`InputError` for the journal of another run, and where not one reply came.
    """
    done = {(row.id, row.sample): row for row in await asyncio.to_thread(taken_up, journal, fingerprint)}
    jobs = [
        Job(question=question, sample=sample, seed=_seed(config.seed, question.id, sample))
        for question in questions
        for sample in range(config.rollouts.samples)
    ]
    todo = [job for job in jobs if (job.question.id, job.sample) not in done]
    on_start(len(jobs), len(jobs) - len(todo))
    failed: Failed | None = None
    with journal.open("a", encoding="utf-8") as file:
        async for item in source(todo):
            if isinstance(item, Failed):
                failed = item
                on_row(item)
                continue
            row = await asyncio.to_thread(_graded, *item)
            file.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")
            file.flush()
            done[row.id, row.sample] = row
            on_row(row)
    if failed is not None and not done:
        raise InputError(f"not one reply could be had ({failed.why}); check [rollouts] and run the same command again")
    wanted = ((job.question.id, job.sample) for job in jobs)
    return [done[key] for key in wanted if key in done]


def pass_rates(rollouts: Iterable[Rollout]) -> dict[str, float]:
    """Share of right replies of every question that has any."""
    grades: dict[str, list[float]] = {}
    for rollout in rollouts:
        grades.setdefault(rollout.id, []).append(rollout.correct)
    return {id: sum(own) / len(own) for id, own in grades.items()}


def taken_up(journal: Path, fingerprint: str) -> list[Rollout]:
    """Whole rows of an earlier run; a line that was cut off is dropped from the file too."""
    if not journal.exists():
        journal.parent.mkdir(parents=True, exist_ok=True)
        journal.write_text(json.dumps({"fingerprint": fingerprint}) + "\n", encoding="utf-8")
        return []
    # Not splitlines(): replies hold line separators of their own, which JSON leaves as they are.
    *lines, cut = journal.read_text(encoding="utf-8", errors="replace").split("\n")
    first, *whole = lines or [""]
    if _fingerprint(first) != fingerprint:
        raise InputError(
            f"{journal} holds samples of another model, questions or settings; choose another output, or delete it"
        )
    if cut:
        # Every process of a launch may be doing this at once.
        kept = journal.with_name(f"{journal.name}.{os.getpid()}")
        kept.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        kept.replace(journal)
    return [Rollout(**json.loads(line)) for line in whole]


@asynccontextmanager
async def endpoint(config: TrainConfig) -> AsyncIterator[Source]:
    """Replies from the embedded engine or an OpenAI-compatible endpoint. Raises :class:`CoreaError` for what lacks."""
    model = _model(config.rollouts, config.rollouts.model or config.base)
    try:
        yield from_model(model, config.rollouts)
    finally:
        await model.aclose()


def from_model(model: Model, rollouts: RolloutsConfig) -> Source:
    """Replies from a model that COREA asks like a tier."""

    async def ask(job: Job) -> tuple[Job, str, bool] | Failed:
        prompt = Prompt(
            messages=tuple(
                Message(role=turn["role"], content=turn["content"])  # type: ignore[arg-type]
                for turn in conversation(job.question)
            ),
            max_tokens=rollouts.max_tokens,
            temperature=rollouts.temperature,
            seed=job.seed,
        )
        try:
            reply = await model.complete(prompt, timeout_s=TIMEOUT_S)
        except ModelError as exc:
            return Failed(id=job.question.id, why=str(exc))
        return job, reply.text, reply.finish_reason != "length"

    def source(jobs: Sequence[Job]) -> AsyncIterator[tuple[Job, str, bool] | Failed]:
        return bounded_map(ask, jobs, concurrency=rollouts.batch)

    return source


def from_transformers(base: Base, rollouts: RolloutsConfig) -> Source:
    """Replies of the very weights that will be trained, sampled in batches in this process."""

    async def source(jobs: Sequence[Job]) -> AsyncIterator[tuple[Job, str, bool] | Failed]:
        # Prompts of like length together: less padding.
        ordered = sorted(jobs, key=lambda job: len(job.question.question))
        for start in range(0, len(ordered), rollouts.batch):
            batch = ordered[start : start + rollouts.batch]
            for job, (text, finished) in zip(
                batch, await asyncio.to_thread(_generate, base, rollouts, batch), strict=True
            ):
                yield job, text, finished

    return source


def _generate(base: Base, rollouts: RolloutsConfig, jobs: Sequence[Job]) -> list[tuple[str, bool]]:
    import torch

    tokenizer, model = base.tokenizer, base.model.to("cuda" if torch.cuda.is_available() else "cpu")
    prompts = [
        tokenizer.apply_chat_template(conversation(job.question), add_generation_prompt=True, tokenize=False)
        for job in jobs
    ]
    encoded = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False).to(model.device)
    torch.manual_seed(jobs[0].seed)
    with torch.inference_mode():
        ids = model.generate(
            **encoded,
            do_sample=True,
            temperature=rollouts.temperature,
            # The model's own defaults would narrow the samples, and with them the pass rates.
            top_k=0,
            top_p=1.0,
            max_new_tokens=rollouts.max_tokens,
            pad_token_id=tokenizer.pad_token_id,
        )
    replies = ids[:, encoded["input_ids"].shape[1] :].tolist()
    ends = ends_of(base)
    return [(tokenizer.decode(reply, skip_special_tokens=True), bool(ends & set(reply))) for reply in replies]


def _graded(job: Job, text: str, finished: bool) -> Rollout:
    right = is_right(text, job.question.gold or "", job.question.kind)
    return Rollout(id=job.question.id, sample=job.sample, text=text, correct=float(right), finished=finished)


def _model(rollouts: RolloutsConfig, name: str) -> Model:
    if rollouts.engine == "openai":
        tier = OpenAITier(
            kind="openai",
            name="rollouts",
            model=name,
            base_url=rollouts.base_url or "",
            api_key_env=rollouts.api_key_env,
        )
        return OpenAIModel(
            "rollouts",
            base_url=tier.base_url,
            model=name,
            api_key=api_key_of(tier),
            api_key_env=tier.api_key_env,
            rng=random.Random(0),  # noqa: S311 - jitter of retries
        )
    settings = EngineSettings(path=gguf_file(name), context_tokens=rollouts.max_tokens + 2048, slots=rollouts.batch)
    return EmbeddedModel("rollouts", settings)


def _seed(seed: int, id: str, sample: int) -> int:
    return random.Random(f"{seed} {id} {sample}").getrandbits(31)  # noqa: S311 - reproducible samples, no secret


def _fingerprint(line: str) -> Any:
    try:
        return json.loads(line).get("fingerprint")
    except (ValueError, AttributeError):
        return None
