"""The model before and after training, asked as the first tier of a cascade will be: same prompt, same estimators.

``embedded`` is the tier itself, down to its hashes, so a confidence map that is fitted on its outcomes is accepted by a
cascade. ``transformers`` is for what llama.cpp does not serve: its outcomes say what the training was worth, and a map
must wait for the tier. Knows no questions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from corea.build import tiers_of
from corea.confidence.named import estimator
from corea.config import Adapter, ConfidenceConfig, Config, EmbeddedTier, OpenAITier
from corea.identity import Shape, shapes_of
from corea.tier import Tier
from corea.train.asking import TorchModel
from corea.train.config import TrainConfig
from corea.train.data import file_sha256
from corea.train.models import Base

BEFORE, AFTER = "base", "trained"
#: What the tier is judged by: the mean of the digit's distribution.
SIGNAL = "expected"
#: Tokens of context beyond the reply's.
_PROMPT_TOKENS = 2048
#: Seconds for a batch that cannot be stopped.
_TIMEOUT_S = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Both tiers, and what shapes their answers. ``tier``: the trained one's configuration, None if it has none yet."""

    tiers: tuple[Tier, ...]
    shapes: tuple[Shape, ...]
    tier: EmbeddedTier | None = None

    async def aclose(self) -> None:
        for tier in self.tiers:
            await tier.model.aclose()


def embedded(config: TrainConfig, adapter: Path) -> Served:
    """Through llama.cpp, the GGUF adapter on its quantised base. Raises :class:`CatalogueError` for what is missing."""
    settings = config.calibrate
    max_tokens = settings.max_tokens or config.rl.max_tokens
    after = EmbeddedTier(
        kind="embedded",
        name=AFTER,
        model=config.base,
        adapters=(Adapter(path=adapter.absolute()),),
        confidence=ConfidenceConfig(estimator=SIGNAL),
        threshold=0.5,
        max_tokens=max_tokens,
        temperature=settings.temperature,
        context_tokens=_PROMPT_TOKENS + max_tokens,
        slots=settings.batch,
    )
    before = after.model_copy(update={"name": BEFORE, "adapters": ()})
    cascade = _cascade(before, after)
    shapes = shapes_of(cascade)
    # Neither is the last tier, which would not be asked how sure it is.
    return Served(tiers=tiers_of(cascade, to_measure=True)[:2], shapes=(shapes[BEFORE], shapes[AFTER]), tier=after)


def transformers(config: TrainConfig, load: Mapping[str, Callable[[], Base]], weights: Path) -> Served:
    """Through torch in this process. ``load``: by tier; ``weights``: the file that tells one training from another."""
    settings = config.calibrate
    max_tokens = settings.max_tokens or config.rl.max_tokens
    tiers = tuple(
        Tier(
            name=name,
            model=TorchModel(name, load[name], batch=settings.batch, plain=name == BEFORE and config.lora.rank > 0),
            estimator=estimator(SIGNAL),
            threshold=0.5,
            timeout_s=_TIMEOUT_S,
            max_tokens=max_tokens,
            temperature=settings.temperature,
        )
        for name in (BEFORE, AFTER)
    )
    # No cascade has such a tier; its prompts are those of any.
    like = OpenAITier(
        kind="openai",
        name=BEFORE,
        model=config.base,
        base_url="http://localhost",
        confidence=ConfidenceConfig(estimator=SIGNAL),
        threshold=0.5,
        max_tokens=max_tokens,
        temperature=settings.temperature,
    )
    shape = {**shapes_of(_cascade(like))[BEFORE], "kind": "transformers", "base_url": None}
    return Served(tiers=tiers, shapes=(shape, {**shape, "weights": file_sha256(weights)}))


def tier_toml(tier: EmbeddedTier, *, map: Path | None) -> str:
    """The first tier of a ``corea.toml``, as it was measured. All that shapes its answers is written out."""
    fitted = f'{{ estimator = "fitted", map = {_text(map.absolute())} }}' if map else f'{{ estimator = "{SIGNAL}" }}'
    adapters = ", ".join(f"{{ path = {_text(adapter.path)} }}" for adapter in tier.adapters)
    model = Path(tier.model).expanduser()
    lines = (
        "[[tiers]]",
        'name = "small"',
        'kind = "embedded"',
        f"model = {_text(model.absolute() if model.is_file() else tier.model)}",
        f"adapters = [{adapters}]",
        f"confidence = {fitted}",
        f"max_tokens = {tier.max_tokens}",
        f"temperature = {tier.temperature}",
        "threshold = 0.8   # yours to choose; corea certify finds one that can be relied on",
    )
    return "\n".join(lines) + "\n"


def _cascade(*tiers: EmbeddedTier | OpenAITier) -> Config:
    """These tiers before a last one that is never asked."""
    return Config(tiers=(*tiers, tiers[0].model_copy(update={"name": "last", "threshold": None})))


def _text(value: object) -> str:
    """A TOML string."""
    return json.dumps(str(value), ensure_ascii=False)
