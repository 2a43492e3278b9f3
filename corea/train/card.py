"""The model card: ``README.md`` beside the adapter, as the Hub and a reader expect it. Knows no stage."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corea import __version__
from corea.catalogue import CATALOGUE
from corea.train import report
from corea.train.config import TrainConfig
from corea.train.data import Source, TrainingData


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the card tells beyond the configuration. ``figures``: of ``report.json``, None where nothing was measured.

    ``stages``: by name, ``wall_s`` and ``device``; ``versions``: by package.
    """

    data: TrainingData
    tests: Sequence[Source] = ()
    figures: Mapping[str, Any] | None = None
    stages: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


def write(config: TrainConfig, facts: Facts, adapter: Path) -> Path:
    """``README.md`` in the folder of the adapter or model, in place of what the libraries put there."""
    path = adapter / "README.md"
    partial = path.with_name("README.md.partial")
    partial.write_text(text(config, facts), encoding="utf-8")
    partial.replace(path)
    return path


def text(config: TrainConfig, facts: Facts) -> str:
    """Front matter, then the page."""
    parts = [
        _front_matter(config),
        f"# {base_name(config)} that says how sure it is",
        "It ends every reply with `Answer: …` and `Confidence: d`, the digit d standing for (d + 0.5)/10. It was "
        "trained with COREA so that this confidence equals its accuracy. On other questions, measure it first.",
        _before_and_after(facts),
        _data(facts),
        _training(config, facts),
        "## Licence\n\n" + _licence(config),
    ]
    return "\n\n".join(parts) + "\n"


def base_name(config: TrainConfig) -> str:
    """The base model as the Hub knows it; without a name there, the file's own, never a path of this machine."""
    known = CATALOGUE.get(config.base.lower())
    named = config.export.base_model or (known.hub_repo or known.name if known else None)
    return named or Path(config.base).name


def _front_matter(config: TrainConfig) -> str:
    lora = config.lora.rank > 0
    known = CATALOGUE.get(config.base.lower())
    name = config.export.base_model or (known.hub_repo if known else None)
    lines = [f"base_model: {name}"] if name else []
    lines += [f"base_model_relation: {'adapter' if lora else 'finetune'}"] if name else []
    lines += [f"library_name: {'peft' if lora else 'transformers'}", "pipeline_tag: text-generation"]
    lines += [f"license: {known.licence.lower() if known else 'other'}"]
    tags = ["confidence", "calibration", "cascade", "corea", "grpo", *(["lora"] if lora else [])]
    return "\n".join(["---", *lines, "tags:", *(f"- {tag}" for tag in tags), "---"])


def _before_and_after(facts: Facts) -> str:
    if facts.figures is None:
        return "## Before and after\n\nNot measured: the calibrate stage has not run."
    # The report's own heading would be a second title.
    page = report.to_markdown(facts.figures).split("\n", 2)[2]
    return f"## Before and after\n\n{page.strip()}"


def _data(facts: Facts) -> str:
    rows = [*_sources(facts.data.sources), *(f"{line}, for tests only" for line in _sources(facts.tests))]
    counts = f"{len(facts.data.train):,} questions were trained on, {len(facts.data.held_out):,} were held out."
    return "\n".join(["## Data", "", *rows, "", counts, facts.data.summary])


def _sources(sources: Sequence[Source]) -> Iterator[str]:
    for source in sources:
        digest = f", SHA-256 `{source.sha256}`" if source.sha256 else ""
        count = f": {source.questions:,} questions" if source.questions else ""
        yield f"- {source.name}{count}{digest}"


def _training(config: TrainConfig, facts: Facts) -> str:
    reward = config.rl.reward.reward
    spent = [
        f"- {name}: {float(one.get('wall_s', 0)):,.0f} s on {one.get('device', 'an unknown device')}"
        for name, one in facts.stages.items()
    ]
    # Where things lie, and who was asked, is this machine's business.
    settings = config.model_dump(
        mode="json",
        exclude={"base": True, "output": True, "data": True, "rollouts": {"model", "base_url", "api_key_env"}},
    )
    versions = ", ".join(f"{name} {found}" for name, found in facts.versions.items())
    return "\n".join(
        [
            "## Training",
            "",
            f"A supervised warm-up on the model's own replies, then {config.rl.steps:,} steps of GRPO with the reward "
            f"`{reward.name}`, seed {config.seed}. Made with COREA {__version__}, {versions}.",
            "",
            *spent,
            "",
            "All settings:",
            "",
            "```json",
            json.dumps(settings, indent=2),
            "```",
        ]
    )


def _licence(config: TrainConfig) -> str:
    known = CATALOGUE.get(config.base.lower())
    own = f" ({known.licence})" if known else ""
    return f"The licence of the base model, {base_name(config)}{own}, governs the use of these weights as well."
