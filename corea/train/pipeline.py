"""A whole run, stage by stage: what one leaves, the next takes up. Each can be run alone, and goes on where it was.

Under ``output``: ``base/`` (a GGUF base as transformers keeps it), ``rollouts.jsonl``, ``warmup/adapter``,
``rl/adapter`` with ``rl/curves.parquet`` and its model card, ``calibrate/outcomes.parquet``, ``held-out.jsonl``,
``report.json`` and ``report.md``, ``map.json``, ``tier.toml``, ``adapter.gguf``. Knows the order, and nothing of how a
stage works, nor of terminals.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from corea.batch.rows import Question
from corea.errors import InputError
from corea.train import calibrate, card, data, export, models, record, report, rl, rollouts, served, warmup
from corea.train.config import TrainConfig
from corea.train.models import Base
from corea.train.report import Report
from corea.train.stages import STAGES, Stage


class Counter(Protocol):
    """Shows how many of how many are done, from ``start`` on until its stack ends."""

    def start(self, total: int, already: int, /) -> None: ...

    def advance(self) -> None: ...


class _Uncounted:
    def start(self, total: int, already: int) -> None:
        pass

    def advance(self) -> None:
        pass


class Run:
    """One configuration with its questions. The base model is loaded by the first stage that needs it."""

    def __init__(
        self,
        config: TrainConfig,
        *,
        tell: Callable[[str], None],
        counting: Callable[[ExitStack, str], Counter] = lambda _, __: _Uncounted(),
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Reads the questions. ``counting`` makes what shows a count of the things it is told.

        Raises :class:`InputError` that names the first thing wrong with the questions.
        """
        self._config = config
        self._tell = tell
        self._counting = counting
        self._clock = clock
        self._now = now
        self._data = data.load(config.data)
        tell(self._data.summary)

    def stages(self, wanted: Sequence[Stage] = STAGES) -> None:
        """The stages named, in their order. Raises :class:`InputError` for one whose forerunner has not run.

        And, where several processes work together, for one that is not theirs.
        """
        # Not a coroutine: an event loop would keep Ctrl-C from a training step.
        _check_processes(wanted)
        for stage in STAGES:
            if stage in wanted:
                self._tell(f"{stage} …")
                with record.timed(self._config.output / "stages.json", stage, clock=self._clock):
                    self._stage(stage)

    @property
    def report(self) -> dict[str, Any] | None:
        """The figures before and after, None where nothing was measured."""
        return report.read(self._config.output)

    @property
    def made(self) -> dict[str, Path]:
        """What there is now, by what it is."""
        places = {
            "adapter for vLLM, with its model card": f"{self._last}/adapter",
            "adapter for the embedded tier": "adapter.gguf",
            "confidence map": "map.json",
            "the tier, for corea.toml": "tier.toml",
            "report": "report.md",
            "outcomes": "calibrate/outcomes.parquet",
            "curves": "rl/curves.parquet",
        }
        found = {what: self._config.output / place for what, place in places.items()}
        return {what: path for what, path in found.items() if path.exists()}

    def _stage(self, stage: Stage) -> None:
        if stage == "rollouts":
            asyncio.run(self._sample())
        elif stage == "warmup":
            self._warm_up()
        elif stage == "rl":
            self._reinforce()
        elif stage == "calibrate":
            self._calibrate()
        else:
            self._export()

    async def _sample(self) -> list[rollouts.Rollout]:
        config = self._config
        if config.rollouts.engine == "transformers":
            return await self._sampled(rollouts.from_transformers(self._base(), config.rollouts))
        async with rollouts.endpoint(config) as source:
            return await self._sampled(source)

    async def _sampled(self, source: rollouts.Source) -> list[rollouts.Rollout]:
        with ExitStack() as shown:
            counter = self._counting(shown, "replies")

            def start(wanted: int, there: int) -> None:
                self._tell(f"{wanted} replies wanted, {there} there already")
                counter.start(wanted, there)

            made = await rollouts.run(
                self._config,
                self._data.train,
                source,
                journal=self._config.output / "rollouts.jsonl",
                fingerprint=self._fingerprint("rollouts"),
                on_start=start,
                on_row=lambda _: counter.advance(),
            )
        rates = rollouts.pass_rates(made).values()
        never, always = (sum(rate == end for rate in rates) for end in (0.0, 1.0))
        self._tell(
            f"{len(made)} replies, {sum(row.correct for row in made) / max(1, len(made)):.0%} right; of {len(rates)} "
            f"questions {never} never, {always} always"
        )
        return made

    def _rollouts(self) -> list[rollouts.Rollout]:
        journal = self._config.output / "rollouts.jsonl"
        if not journal.exists():
            raise InputError(f"{journal} is not there; run the rollouts stage first")
        known = {question.id for question in self._data.train}
        return [row for row in rollouts.taken_up(journal, self._fingerprint("rollouts")) if row.id in known]

    def _warm_up(self) -> None:
        rng = random.Random(self._config.seed)  # noqa: S311 - a choice of lessons, no secret
        made = warmup.lessons(self._data.train, self._rollouts(), self._config.warmup, rng=rng)
        self._tell(made.summary)
        warmup.run(
            self._config,
            self._base(),
            made,
            tell=self._tell,
            fingerprint=self._fingerprint("rollouts", "warmup"),
        )

    def _reinforce(self) -> None:
        if self._config.rl.steps == 0:
            self._tell("rl.steps is 0: the result is that of the warm-up")
            return
        rl.run(
            self._config,
            self._data.train,
            self._warmed_up(),
            pass_rates=rollouts.pass_rates(self._rollouts()),
            tell=self._tell,
            fingerprint=self._fingerprint("rollouts", "warmup", "rl"),
        )

    def _calibrate(self) -> None:
        settings = self._config.calibrate
        questions = calibrate.chosen(self._data.held_out, settings.limit, seed=self._config.seed)
        engine = settings.engine or ("embedded" if self._served_as_gguf else "transformers")
        both = served.embedded(self._config, self._gguf()) if engine == "embedded" else self._in_this_process()
        made = asyncio.run(self._measured(questions, both, engine))
        if made.fit is None:
            self._tell(f"no confidence map: {made.no_fit}")
        elif made.fit.note:
            self._tell(f"note: {made.fit.note}")

    async def _measured(self, questions: Sequence[Question], both: served.Served, engine: str) -> Report:
        with ExitStack() as shown:
            counter = self._counting(shown, "replies")
            try:
                outcomes = await calibrate.measure(
                    self._config,
                    questions,
                    both,
                    fingerprint=self._fingerprint("rollouts", "warmup", "rl", "calibrate"),
                    on_start=counter.start,
                    on_row=lambda _: counter.advance(),
                )
            finally:
                await both.aclose()
        return calibrate.concluded(self._config, outcomes, both, engine=engine, now=self._now())

    def _in_this_process(self) -> served.Served:
        adapter = self._adapter()
        if self._config.lora.rank > 0:
            # One copy of the weights for both: before is without the adapter.
            load = cache(lambda: models.with_adapter(self._base(), adapter))
            return served.transformers(
                self._config,
                {served.BEFORE: load, served.AFTER: load},
                weights=adapter / "adapter_model.safetensors",
            )
        trained = cache(lambda: models.load_base(str(adapter), cache=adapter, bf16=models.gpu_has_bf16()))
        weights = next(iter(sorted(adapter.glob("*.safetensors"))), adapter / "model.safetensors")
        return served.transformers(
            self._config, {served.BEFORE: cache(self._base), served.AFTER: trained}, weights=weights
        )

    def _export(self) -> None:
        adapter = self._adapter()
        if self._config.export.gguf:
            self._tell(f"{self._gguf()}: name it in the tier's adapters")
        facts = card.Facts(
            data=self._data,
            tests=tuple(
                data.Source(name=file.name, questions=0, sha256=data.file_sha256(file))
                for file in self._config.data.tests
            ),
            figures=self.report,
            stages=record.read(self._config.output / "stages.json"),
            versions=record.versions(),
        )
        self._tell(f"{card.write(self._config, facts, adapter)}: the model card")

    def _gguf(self) -> Path:
        """The adapter for llama.cpp, written anew: the same adapter makes the same file."""
        if self._config.lora.rank == 0:
            raise InputError(
                f"all weights were trained, so there is no adapter to export; convert {self._last}/adapter with "
                "llama.cpp's own convert_hf_to_gguf.py, and set export.gguf = false"
            )
        adapter, out = self._adapter(), self._config.output / "adapter.gguf"
        return export.to_gguf(adapter, models.config_of(self._folder()), out, dtype=self._config.export.dtype)

    def _adapter(self) -> Path:
        """What was trained: a PEFT adapter, or all weights."""
        adapter = self._config.output / self._last / "adapter"
        if not adapter.exists():
            raise InputError(f"{adapter} is not there; run the {self._last} stage first")
        return adapter

    @property
    def _last(self) -> Stage:
        """The stage whose weights are the result."""
        return "rl" if self._config.rl.steps else "warmup"

    @property
    def _served_as_gguf(self) -> bool:
        """Whether llama.cpp can serve the result as it is: a folder of a transformers model is no base for it."""
        folder = Path(self._config.base).expanduser().is_dir()
        return self._config.export.gguf and self._config.lora.rank > 0 and not folder

    def _base(self) -> Base:
        made = models.load_base(self._config.base, cache=self._config.output / "base", bf16=self._bf16)
        for note in made.notes:
            self._tell(f"note: {note}")
        return made

    def _warmed_up(self) -> Base:
        folder = self._config.output / "warmup" / "adapter"
        if not folder.exists():
            raise InputError(f"{folder} is not there; run the warmup stage first")
        if self._config.lora.rank == 0:
            return models.load_base(str(folder), cache=folder, bf16=self._bf16)
        return models.with_adapter(self._base(), folder)

    def _folder(self) -> Path:
        return models.folder_of(self._config.base, self._config.output / "base")

    @property
    def _bf16(self) -> bool:
        """Frozen weights may be half as long; weights that are trained keep their last bits."""
        return self._config.lora.rank > 0 and models.gpu_has_bf16()

    def _fingerprint(self, *stages: str) -> str:
        return f"{self._config.fingerprint(*stages)}-{self._data.hash}"


def _check_processes(wanted: Sequence[Stage]) -> None:
    """Of several processes each would write the same file, but where the trainer keeps them in step."""
    alone = [stage for stage in wanted if stage not in ("warmup", "rl")]
    if alone and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(
            f"the {alone[0]} stage is for one process; run it without accelerate launch: "
            f"corea train CONFIG.toml --stage {alone[0]}"
        )
