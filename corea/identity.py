"""What a tier's answers and its confidence depend on, and hashes of it.

Outcomes, confidence maps, certificates and the output of a batch are bound to these hashes: what was measured with one
model or prompt says nothing about another. Loads no weights and asks no model.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

from corea.catalogue import CATALOGUE
from corea.confidence.fitted import checksum, read
from corea.confidence.generated_tests import RECIPE
from corea.confidence.named import INLINE
from corea.confidence.protocol import DIGIT_QUESTION, INLINE_PROMPT, TRUE_FALSE_QUESTION, system_prompt
from corea.confidence.self_consistency import TEMPERATURE
from corea.config import Ask, ConfidenceConfig, Config, EmbeddedTier, OpenAITier, ProviderTier, TierConfig
from corea.errors import ConfigError
from corea.types import Kind

Shape = Mapping[str, Any]

_PROMPTS = ("prompts", "followups")
_STATED_LINE = INLINE_PROMPT.splitlines()[-1]
#: Of a model's own file, gigabytes that are not in the catalogue: so many slices of so many bytes, evenly spread.
_SLICES, _SLICE_BYTES = 256, 16_384


def shapes_of(config: Config) -> dict[str, Shape]:
    """By tier, cheapest first: all that shapes its answers. Not its price, its time limits, nor how it is judged."""
    last = config.tiers[-1]
    return {tier.name: _shape(tier, is_last=tier is last) for tier in config.tiers}


def fingerprint(config: Config) -> str:
    """Hash of all that shapes an answer or a decision: models, prompts, sampling, estimators, thresholds."""
    judged = [
        {
            "threshold": tier.threshold,
            "confidence": signal_of(tier.confidence),
            "certificate": None if tier.certificate is None else _digest(tier.certificate),
            "guards": tier.guards,
            "domain": None if tier.domain is None else _digest(tier.domain),
            "gate": None if tier.gate is None else _digest(tier.gate),
        }
        for tier in config.tiers
    ]
    policies = _policies(config)
    # Only where there are any: what was recorded before there were policies stays what it was.
    return hash_of([list(shapes_of(config).values()), judged, *([policies] if policies else [])])


def hashes_of(shapes: Iterable[Shape]) -> tuple[str, str]:
    """Of the models with their sampling settings, and of the prompts."""
    given = list(shapes)
    models = [{name: value for name, value in shape.items() if name not in _PROMPTS} for shape in given]
    return hash_of(models), hash_of([[shape.get(name) for name in _PROMPTS] for shape in given])


def as_last(shape: Shape) -> Shape:
    """The shape of a tier that is asked no second turn, as the last one is not."""
    return {**shape, "followups": []}


def asks_inline(shape: Shape) -> bool:
    """Whether the tier was asked to state its confidence in the reply."""
    return any(_STATED_LINE in prompt for prompt in shape.get("prompts", {}).values())


def signal_of(confidence: ConfidenceConfig) -> str:
    """The name of the confidence that a tier is judged by, as :func:`signal_label` writes it."""
    if confidence.map is not None:
        return signal_label("fitted", map_checksum=checksum(read(confidence.map)))
    name = f"{confidence.estimator}_followup" if asks_in_a_second_turn(confidence) else confidence.estimator
    return signal_label(name, samples=confidence.samples, temperature=confidence.temperature)


def signal_label(
    signal: str,
    *,
    samples: int = 0,
    temperature: float = TEMPERATURE,
    map_checksum: str = "",
) -> str:
    """A signal's name with whatever else decides its value: samples and their temperature, which map, which recipe."""
    if signal == "fitted":
        return f"fitted:{map_checksum[:16]}"
    if signal == "generated_tests":
        # Not among the shape's prompts, which would void every certificate made before.
        return f"generated_tests:{RECIPE}"
    return f"{signal}:{samples}:{temperature:g}" if signal == "self_consistency" else signal


def way_of(confidence: ConfidenceConfig) -> Ask:
    """How the tier is asked: ``inline`` where any signal is stated in the reply itself."""
    if confidence.map is None:
        return confidence.way
    signals = read(confidence.map).signals
    return "inline" if any(signal in INLINE for signal in signals) else "none"


def asks_in_a_second_turn(confidence: ConfidenceConfig) -> bool:
    """Whether a signal that could be stated in the reply is asked for afterwards."""
    return confidence.way == "followup" and confidence.estimator in INLINE


def hash_of(value: object) -> str:
    """Sixteen hex digits of SHA-256 over canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _policies(config: Config) -> Shape:
    """What moves thresholds from request to request: the policies, and whose they are."""
    told = config.cascade.recognise
    if not config.policies and told is None:
        return {}
    files = {name: one.critical.file for name, one in config.policies.items() if one.critical is not None}
    return {
        "policies": {name: policy.model_dump(mode="json") for name, policy in config.policies.items()},
        "files": {name: _digest(path) for name, path in files.items() if path is not None},
        "default": config.cascade.policy,
        "recognised": None if told is None else _digest(told),
        "tasks": dict(config.tasks),
        "profiles": {name: one.policy for name, one in config.gateway.profiles.items()},
    }


def _shape(tier: TierConfig, *, is_last: bool) -> Shape:
    inline = not is_last and way_of(tier.confidence) == "inline"
    shape: dict[str, object] = {
        "kind": tier.kind,
        "model": tier.model,
        "prompts": {
            kind or "any": system_prompt(inline=inline, custom=tier.system_prompt, kind=kind)
            for kind in (None, *get_args(Kind))
        },
        # Second turns belong to the confidence; none is asked of the last tier.
        "followups": [] if is_last else [DIGIT_QUESTION, TRUE_FALSE_QUESTION],
        "max_tokens": tier.max_tokens,
        "temperature": tier.temperature,
    }
    if isinstance(tier, EmbeddedTier):
        shape |= _weights(tier)
    if isinstance(tier, OpenAITier | ProviderTier):
        shape["base_url"] = tier.base_url
    if isinstance(tier, OpenAITier) and tier.extra_body:
        shape["extra_body"] = tier.extra_body
    if isinstance(tier, ProviderTier):
        shape["provider"] = tier.provider
    return shape


def _weights(tier: EmbeddedTier) -> Shape:
    """What is computed with, by content: the same file under another name is the same."""
    adapters = [(_digest(adapter.path), adapter.scale) for adapter in tier.adapters]
    known = CATALOGUE.get(tier.model.lower())
    if known is not None:
        return {"model": known.name, "sha256": known.sha256, "adapters": adapters}
    return {"model": "a file", "sha256": None, "slices": _digest(Path(tier.model), whole=False), "adapters": adapters}


def _digest(path: Path, *, whole: bool = True) -> str:
    """Of a file's bytes, or, where it is not to be read whole, of its size and slices of it."""
    try:
        # A name beginning with ~ that is no user's home is left as it is.
        with suppress(RuntimeError):
            path = path.expanduser()
        seen = path.stat()
        return _digest_of_version(path, whole, (seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns))
    except OSError as exc:
        raise ConfigError(f"{path} cannot be read ({exc.strerror}); correct its path in the configuration") from exc


@lru_cache(maxsize=64)
def _digest_of_version(path: Path, whole: bool, version: tuple[int, ...]) -> str:
    with path.open("rb") as file:
        if whole:
            return hashlib.file_digest(file, "sha256").hexdigest()
        size = file.seek(0, os.SEEK_END)
        digest = hashlib.sha256(str(size).encode())
        for index in range(_SLICES):
            file.seek(max(size - _SLICE_BYTES, 0) * index // (_SLICES - 1))
            digest.update(file.read(_SLICE_BYTES))
        return digest.hexdigest()
