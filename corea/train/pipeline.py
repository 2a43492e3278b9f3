"""A whole run, stage by stage: what one leaves, the next takes up. Each can be run alone, and goes on where it was.

Under ``output``: ``base/`` (a GGUF base as transformers keeps it), ``rollouts.jsonl``, ``warmup/adapter``,
``rl/adapter`` with ``rl/curves.parquet``, ``adapter.gguf``. Knows the order, and nothing of how a stage works.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, get_args

from corea.errors import InputError
from corea.train import data, export, models, rl, rollouts, warmup
from corea.train.config import TrainConfig
from corea.train.models import Base

Stage = Literal["rollouts", "warmup", "rl", "export"]
STAGES: tuple[Stage, ...] = get_args(Stage)


class Run:
    """One configuration with its questions. The base model is loaded by the first stage that needs it."""

    def __init__(self, config: TrainConfig, *, tell: Callable[[str], None]) -> None:
        """Reads the questions. Raises :class:`InputError` that names the first thing wrong with them."""
        self._config = config
        self._tell = tell
        self._data = data.load(config.data)
        tell(self._data.decontaminated.summary)

    async def stages(self, wanted: Sequence[Stage] = STAGES) -> None:
        """The stages named, in their order. Raises :class:`InputError` for one whose forerunner has not run."""
        for stage in STAGES:
            if stage in wanted:
                self._tell(f"{stage} …")
                await self._stage(stage)

    async def _stage(self, stage: Stage) -> None:
        if stage == "rollouts":
            await self._sample()
        elif stage == "warmup":
            self._warm_up()
        elif stage == "rl":
            self._reinforce()
        else:
            self._export()

    async def _sample(self) -> list[rollouts.Rollout]:
        config = self._config
        if config.rollouts.engine == "transformers":
            return await self._sampled(rollouts.from_transformers(self._base(), config.rollouts))
        async with rollouts.endpoint(config) as source:
            return await self._sampled(source)

    async def _sampled(self, source: rollouts.Source) -> list[rollouts.Rollout]:
        made = await rollouts.run(
            self._config,
            self._data.train,
            source,
            journal=self._config.output / "rollouts.jsonl",
            fingerprint=self._fingerprint("rollouts"),
            on_start=lambda wanted, there: self._tell(f"{wanted} replies wanted, {there} there already"),
            on_row=lambda _: None,
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
        rl.run(
            self._config,
            self._data.train,
            self._warmed_up(),
            pass_rates=rollouts.pass_rates(self._rollouts()),
            tell=self._tell,
            fingerprint=self._fingerprint("rollouts", "warmup", "rl"),
        )

    def _export(self) -> None:
        settings = self._config.export
        if not settings.gguf:
            return
        if self._config.lora.rank == 0:
            raise InputError(
                "all weights were trained, so there is no adapter to export; convert rl/adapter with llama.cpp's own "
                "convert_hf_to_gguf.py, and set export.gguf = false"
            )
        adapter, out = self._config.output / "rl" / "adapter", self._config.output / "adapter.gguf"
        export.to_gguf(adapter, models.config_of(self._folder()), out, dtype=settings.dtype)
        self._tell(f"{out}: name it in the tier's adapters")

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
