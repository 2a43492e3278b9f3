"""One typed, frozen configuration, read from TOML. Unknown keys are errors; secrets are only named, never held.

Knows what a cascade *consists* of, not how to build it (:mod:`corea.cascade`) or whether its models are on disk.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from corea.audit_config import AuditConfig
from corea.errors import ConfigError
from corea.gateway_config import GatewayConfig
from corea.guards.registry import GUARDS, UNLIKE
from corea.policy_config import PolicyConfig, placed_in
from corea.prices import FixedPrice, Price, embedded_price, listed_price

Ask = Literal["inline", "followup", "none"]
EstimatorName = Literal["verbalized", "expected", "logprob", "p_true", "self_consistency", "generated_tests", "fitted"]

#: How each estimator may ask, its default first.
WAYS_TO_ASK: Mapping[EstimatorName, tuple[Ask, ...]] = {
    "verbalized": ("inline", "followup"),
    "expected": ("inline", "followup"),
    "logprob": ("none",),
    "p_true": ("followup",),
    "self_consistency": ("none",),
    "generated_tests": ("followup",),
    "fitted": ("none",),
}


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class PriceConfig(_Frozen):
    """USD per million tokens. ``cached_input`` defaults to ``input``."""

    input: float = Field(ge=0, allow_inf_nan=False)
    output: float = Field(ge=0, allow_inf_nan=False)
    cached_input: float | None = Field(default=None, ge=0, allow_inf_nan=False)


class ConfidenceConfig(_Frozen):
    """Which signal says how sure the tier is, and how it is asked for."""

    estimator: EstimatorName = "logprob"
    ask: Ask | None = None
    #: Extra answers sampled by ``self_consistency``.
    samples: int = Field(default=5, ge=2, le=64)
    #: Sampling temperature of those answers.
    temperature: float = Field(default=0.7, gt=0, le=2)
    #: The confidence map that ``fitted`` applies, made by ``corea eval fit``.
    map: Path | None = None
    #: Leave to run programs that the model wrote, shut in (docs/programs.md): ``generated_tests`` does.
    allow_code: bool = False

    @model_validator(mode="after")
    def _code_is_run_by_leave(self) -> Self:
        if self.estimator == "generated_tests" and not self.allow_code:
            raise ValueError(
                'estimator "generated_tests" runs programs that the model wrote, shut in; set allow_code = true beside '
                "it, or choose another estimator"
            )
        if self.allow_code and self.estimator not in ("generated_tests", "fitted"):
            raise ValueError(f'estimator "{self.estimator}" runs no programs; remove allow_code')
        return self

    @model_validator(mode="after")
    def _map_suits_estimator(self) -> Self:
        if self.estimator == "fitted" and self.map is None:
            raise ValueError('estimator "fitted" needs a map; make one with: corea eval fit')
        if self.estimator != "fitted" and self.map is not None:
            raise ValueError('a map is applied by estimator = "fitted"; set that, or remove the map')
        return self

    @model_validator(mode="after")
    def _ask_suits_estimator(self) -> Self:
        ways = WAYS_TO_ASK[self.estimator]
        if self.ask is not None and self.ask not in ways:
            raise ValueError(f'estimator "{self.estimator}" asks by {" or ".join(ways)}, not "{self.ask}"')
        return self

    @property
    def way(self) -> Ask:
        return self.ask or WAYS_TO_ASK[self.estimator][0]


class BreakerConfig(_Frozen):
    """When a tier that keeps failing is left alone for a while."""

    enabled: bool = True
    #: Share of the calls in the window that failed, at which it opens; where there were as many as ``min_calls``.
    failure_rate: float = Field(default=0.5, gt=0, le=1)
    min_calls: int = Field(default=10, ge=1)
    window_s: float = Field(default=30.0, gt=0)
    #: Seconds between the calls that are let through meanwhile, to see whether it is well again.
    open_s: float = Field(default=5.0, gt=0)


class _TierConfig(_Frozen):
    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    model: str = Field(min_length=1)
    #: Keep the answer if confidence ≥ threshold. Every tier but the last needs one, or a certificate.
    threshold: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    #: A threshold with a promise, made by ``corea certify``.
    certificate: Path | None = None
    confidence: ConfidenceConfig = ConfidenceConfig()
    prices: PriceConfig | None = None
    #: Seconds for one attempt; by default an equal share of the time left to the cascade.
    timeout_s: float | None = Field(default=None, gt=0)
    #: What a failed attempt does: ``skip`` to the next tier, or ``fail`` the request.
    on_error: Literal["skip", "fail"] = "skip"
    breaker: BreakerConfig = BreakerConfig()
    #: Rules that an answer must pass to be kept, however sure it is; ``[]`` for none.
    guards: tuple[str, ...] = tuple(guard.name for guard in GUARDS)
    #: The certified questions' domain, made by ``corea eval domain``: the guard ``unlike_certified`` is in force too.
    domain: Path | None = None
    #: Foresees from the question that the tier is not worth asking; made by ``corea eval gate``.
    gate: Path | None = None
    max_tokens: int = Field(default=1024, ge=1)
    temperature: float = Field(default=0.0, ge=0, le=2)
    #: Replaces COREA's own instruction to the model. The confidence protocol is still appended when asked inline.
    system_prompt: str | None = None

    @field_validator("guards")
    @classmethod
    def _guards_exist(cls, guards: tuple[str, ...]) -> tuple[str, ...]:
        known = [guard.name for guard in GUARDS]
        if strangers := [name for name in guards if name not in known]:
            if strangers[0] == UNLIKE:
                raise ValueError(f"{UNLIKE} needs a domain; set domain to a file made by: corea eval domain")
            raise ValueError(f'there is no guard "{strangers[0]}"; there are: {", ".join(known)}')
        return guards


class Adapter(_Frozen):
    """A LoRA adapter in GGUF form."""

    path: Path
    scale: float = 1.0


class EmbeddedTier(_TierConfig):
    """A GGUF file run in this process by llama.cpp. ``model`` is a catalogue name or a path."""

    kind: Literal["embedded"]
    adapters: tuple[Adapter, ...] = ()
    #: Context of one conversation, in tokens.
    context_tokens: int = Field(default=4096, ge=128)
    #: Conversations decoded together.
    slots: int = Field(default=4, ge=1, le=256)
    #: CPU threads; by default all cores this process may use.
    threads: int | None = Field(default=None, ge=1)


class OpenAITier(_TierConfig):
    """Any OpenAI-compatible endpoint: OpenAI, vLLM, SGLang, Ollama, llama-server."""

    kind: Literal["openai"]
    base_url: str = Field(pattern=r"^https?://[^\s]+$")
    #: Name of the environment variable that holds the key. The key itself never goes into the file.
    api_key_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    #: Of one call. All calls together: at most ``retry_reserve`` + ``retry_share`` for each answer got.
    max_retries: int = Field(default=2, ge=0, le=10)
    retry_share: float = Field(default=0.2, ge=0, le=1)
    retry_reserve: float = Field(default=10.0, ge=0, le=1000)
    max_connections: int = Field(default=100, ge=1)
    #: Sent along with every request, for what only this server understands.
    extra_body: dict[str, Any] = {}


class ProviderTier(_TierConfig):
    """Any other provider, through the any-llm SDK (``pip install 'corea[providers]'``)."""

    kind: Literal["provider"]
    provider: str = Field(min_length=1)
    api_key_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    base_url: str | None = Field(default=None, pattern=r"^https?://[^\s]+$")
    #: Of one call. All calls together: at most ``retry_reserve`` + ``retry_share`` for each answer got.
    max_retries: int = Field(default=2, ge=0, le=10)
    retry_share: float = Field(default=0.2, ge=0, le=1)
    retry_reserve: float = Field(default=10.0, ge=0, le=1000)


TierConfig = Annotated[EmbeddedTier | OpenAITier | ProviderTier, Field(discriminator="kind")]


class CascadeConfig(_Frozen):
    """What spans the tiers."""

    #: Seconds for the whole request, all tiers together.
    deadline_s: float = Field(default=300.0, gt=0)
    #: When no tier's answer may be kept: raise an ``error``, or hand out the ``best`` answer there is.
    on_exhausted: Literal["error", "best"] = "error"
    #: The policy of requests whose task has none.
    policy: str | None = None
    #: What tells the task of a request that does not say it, made by ``corea eval tasks``.
    recognise: Path | None = None


class LedgerConfig(_Frozen):
    """Where traces are kept. ``url=None`` is one SQLite file in COREA_HOME."""

    enabled: bool = True
    #: May hold a password, so it is not printed.
    url: str | None = Field(default=None, repr=False)
    #: False keeps no question and no answer, only figures.
    store_texts: bool = True
    #: Regular expressions: what they match in a text is replaced before it is stored.
    redact: tuple[str, ...] = ()


PolicyName = Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


class Config(_Frozen):
    """A whole cascade. See ``corea config init`` for a commented file."""

    tiers: tuple[TierConfig, ...] = Field(min_length=1)
    cascade: CascadeConfig = CascadeConfig()
    ledger: LedgerConfig = LedgerConfig()
    gateway: GatewayConfig = GatewayConfig()
    audit: AuditConfig = AuditConfig()
    #: By name (docs/policies.md).
    policies: Mapping[PolicyName, PolicyConfig] = {}
    #: Which policy the requests of a task go by.
    tasks: Mapping[str, str] = {}

    @field_validator("tiers")
    @classmethod
    def _names_differ(cls, tiers: tuple[TierConfig, ...]) -> tuple[TierConfig, ...]:
        names = [tier.name for tier in tiers]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f'two tiers are called "{name}"; give each its own name')
        return tiers

    @classmethod
    def load(cls, path: str | Path | None = None) -> Config:
        """Read ``path``; or ``$COREA_CONFIG``; or ``corea.toml`` here; or the built-in pair of embedded models.

        Raises :class:`ConfigError`, one line, naming the field and the mend.
        """
        found = find(path)
        if found is None:
            return default()
        return parse(found.read_text(encoding="utf-8"), source=str(found)).beside(found.absolute().parent)

    def with_threshold(self, threshold: float) -> Config:
        """The same cascade with this threshold on every tier but the last."""
        if not 0.0 <= threshold <= 1.0:
            raise ConfigError(f"{threshold} is outside [0, 1]", field="threshold")
        last = len(self.tiers) - 1
        tiers = tuple(
            tier if index == last else tier.model_copy(update={"threshold": threshold, "certificate": None})
            for index, tier in enumerate(self.tiers)
        )
        return self.model_copy(update={"tiers": tiers})

    def beside(self, folder: Path) -> Config:
        """The same, with relative paths of adapters, certificates, maps and model files taken from ``folder``."""
        tiers = tuple(_beside(tier, folder) for tier in self.tiers)
        policies = {name: policy.beside(folder) for name, policy in self.policies.items()}
        cascade = self.cascade.model_copy(update={"recognise": placed_in(folder, self.cascade.recognise)})
        return self.model_copy(update={"tiers": tiers, "policies": policies, "cascade": cascade})


def _beside(tier: TierConfig, folder: Path) -> TierConfig:
    def placed(path: Path | None) -> Path | None:
        return placed_in(folder, path)

    update: dict[str, Any] = {
        "certificate": placed(tier.certificate),
        "domain": placed(tier.domain),
        "gate": placed(tier.gate),
        "confidence": tier.confidence.model_copy(update={"map": placed(tier.confidence.map)}),
    }
    if isinstance(tier, EmbeddedTier):
        update["adapters"] = tuple(a.model_copy(update={"path": placed(a.path)}) for a in tier.adapters)
        if os.sep in tier.model or tier.model.lower().endswith(".gguf"):
            update["model"] = str(placed(Path(tier.model)))
    return tier.model_copy(update=update)


def find(path: str | Path | None = None) -> Path | None:
    """The configuration file that would be read, or None for the built-in one."""
    named = path or os.environ.get("COREA_CONFIG")
    if named:
        file = Path(named).expanduser()
        if not file.is_file():
            raise ConfigError(f"{file} is not there; write one with: corea config init {file}")
        return file
    here = Path("corea.toml")
    return here if here.is_file() else None


def template() -> str:
    """The commented configuration that ``corea config init`` writes; also the built-in default."""
    return (Path(__file__).parent / "default.toml").read_text(encoding="utf-8")


def default() -> Config:
    return parse(template(), source="built-in configuration")


def parse(text: str, *, source: str) -> Config:
    """Configuration from TOML text. ``source`` is named in errors."""
    try:
        config = Config.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{source}: not TOML: {exc}") from exc
    except ValidationError as exc:
        raise complaint(exc, source, root=Config, where=_path) from None
    _check_thresholds(config, source)
    _check_price_order(config, source)
    _check_policies(config, source)
    return config


def price_of(tier: TierConfig) -> Price | None:
    """What a tier's tokens cost: as configured, else by parameter count (embedded), else as listed; None is unknown."""
    if tier.prices is not None:
        return FixedPrice.per_million(tier.prices.input, tier.prices.output, tier.prices.cached_input)
    if isinstance(tier, EmbeddedTier):
        return embedded_price(tier.model)
    if isinstance(tier, OpenAITier):
        return listed_price(tier.model, api_url=tier.base_url)
    return listed_price(tier.model, provider=tier.provider)


def price_remark(config: Config) -> str:
    """Where the prices are from, for the foot of a summary."""
    told = ((tier.name, price_of(tier)) for tier in config.tiers)
    return "Prices: " + "; ".join(f"{name} {price.source if price else 'unknown'}" for name, price in told) + "."


def api_key_of(tier: OpenAITier | ProviderTier, environ: Mapping[str, str] = os.environ) -> str | None:
    """The key a tier refers to. Raises :class:`ConfigError` when the variable is not set."""
    if tier.api_key_env is None:
        return None
    key = environ.get(tier.api_key_env, "").strip()
    if not key:
        raise ConfigError(
            f"the environment variable {tier.api_key_env} is not set; run: export {tier.api_key_env}=…",
            field=f"tiers.{tier.name}.api_key_env",
        )
    return key


def without_password(url: str | None) -> str | None:
    """A database's URL as it may be shown: no password, and nothing of the query, which may hold one too."""
    return None if url is None else re.sub(r"(?<=://)([^:/@]*):[^/]*@", r"\1:***@", url.partition("?")[0])


def _check_thresholds(config: Config, source: str) -> None:
    for index, tier in enumerate(config.tiers[:-1]):
        if tier.threshold is None and tier.certificate is None:
            raise ConfigError(
                f'{source}: tier "{tier.name}" needs a threshold from 0 to 1, or a certificate: only the last tier may '
                "go without",
                field=f"tiers[{index}].threshold",
            )
        if tier.threshold is not None and tier.certificate is not None:
            raise ConfigError(
                f'{source}: tier "{tier.name}" has a threshold and a certificate, which brings its own; remove one',
                field=f"tiers[{index}].threshold",
            )
    last, at = config.tiers[-1], len(config.tiers) - 1
    for name in ("threshold", "certificate", "gate"):
        if getattr(last, name) is not None:
            raise ConfigError(
                f'{source}: "{last.name}" is the last tier, whose answer is always final; remove its {name}',
                field=f"tiers[{at}].{name}",
            )


def _check_price_order(config: Config, source: str) -> None:
    known = [(tier.name, price) for tier in config.tiers if (price := price_of(tier)) is not None]
    for (cheap, low), (dear, high) in pairwise(known):
        if low.reference_nano_usd > high.reference_nano_usd:
            raise ConfigError(
                f'{source}: tiers go from cheap to dear, but "{cheap}" costs more than "{dear}" after it; '
                "swap them or correct their prices",
                field="tiers",
            )


def _check_policies(config: Config, source: str) -> None:
    """That every name stands for a policy, and every policy can do what it says."""
    named = {"cascade.policy": config.cascade.policy}
    named |= {f"tasks.{task}": name for task, name in config.tasks.items()}
    named |= {f"gateway.profiles.{name}.policy": one.policy for name, one in config.gateway.profiles.items()}
    for field, name in named.items():
        if name is not None and name not in config.policies:
            known = ", ".join(config.policies) or "none"
            raise ConfigError(f'{source}: there is no policy "{name}"; add [policies.{name}], or name one of: {known}',
                              field=field)  # fmt: skip
    for name, policy in config.policies.items():
        if (why := _impossible(policy, config)) is not None:
            raise ConfigError(f"{source}: {why}", field=f"policies.{name}")


def _impossible(policy: PolicyConfig, config: Config) -> str | None:
    certified = any(tier.certificate is not None for tier in config.tiers)
    if policy.certified and not certified:
        return "certified = true, but no tier has a certificate; make one with: corea certify, or remove the line"
    if len(config.tiers) < 2:
        return "a policy chooses between tiers, and there is only one; add a tier, or remove the policy"
    exhausted = (config.cascade.on_exhausted, *(one.on_exhausted for one in config.gateway.profiles.values()))
    if policy.critical is not None and "best" in exhausted:
        return 'critical, but on_exhausted = "best" hands out what was not confirmed; set on_exhausted = "error"'
    if policy.budget is not None and not config.ledger.enabled:
        return "a budget is counted in the ledger; set ledger.enabled = true, or remove the budget"
    if policy.budget is not None and (unpriced := next((t.name for t in config.tiers if price_of(t) is None), None)):
        return f'a budget needs prices, and "{unpriced}" has none; give it prices = {{ input = …, output = … }}'
    return None


def complaint(
    exc: ValidationError, source: str, *, root: type[BaseModel], where: Callable[[tuple[int | str, ...]], str]
) -> ConfigError:
    """The first of pydantic's complaints, in one line, with the nearest known key when a key is unknown.

    ``root`` is the model that was validated; ``where`` writes a place in it as the file's reader knows it.
    """
    errors = exc.errors(include_url=False)
    # An unknown key explains the missing one beside it, so it is told first.
    error = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    field = where(error["loc"])
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        unknown = str(error["loc"][-1])
        near = difflib.get_close_matches(unknown, sorted(_keys_beside(error["loc"], root)), n=1, cutoff=0.5)
        message = f'unknown key; did you mean "{near[0]}"?' if near else "unknown key; remove it"
    elif error["type"].startswith("union_tag"):
        message = 'kind must be "embedded", "openai" or "provider"'
    elif error["type"] == "missing":
        message = "is missing; add it"
    elif "input" in error and not isinstance(error["input"], dict | list):
        message = f"{message[0].lower()}{message[1:]}, not {error['input']!r}"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return ConfigError(f"{source}: {message}{more}", field=field or None)


def _path(loc: tuple[int | str, ...]) -> str:
    """``("tiers", 0, "embedded", "threshold")`` → ``tiers[0].threshold``: the union's tag is not in the file."""
    path = ""
    for index, part in enumerate(loc):
        if isinstance(part, int):
            path += f"[{part}]"
        elif not (index == 2 and loc[0] == "tiers" and part in _TIER_KINDS):
            path += f".{part}" if path else part
    return path


_TIER_KINDS: dict[str, type[_TierConfig]] = {"embedded": EmbeddedTier, "openai": OpenAITier, "provider": ProviderTier}


def _keys_beside(loc: tuple[int | str, ...], root: type[BaseModel]) -> Iterator[str]:
    """Names of the fields that may stand where an unknown key stands."""
    model: Any = root
    for part in loc[:-1]:
        if isinstance(part, int):
            continue
        if part in _TIER_KINDS:
            model = _TIER_KINDS[part]
            continue
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        model = _model_in(annotation) or model
    yield from model.model_fields


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if (found := _model_in(argument)) is not None:
            return found
    return None
