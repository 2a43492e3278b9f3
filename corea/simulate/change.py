"""What is to be otherwise, from words: thresholds, certificates, prices, guards and policies. Replays nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from corea.build import guards_of, policies_of
from corea.config import Config
from corea.errors import InputError
from corea.guards.base import Guard
from corea.policy.base import Policies
from corea.policy.certificate import Certificate
from corea.policy.certificate import load as load_certificate
from corea.policy.ladder_certificate import is_ladder
from corea.policy.ladder_certificate import load as load_ladder
from corea.policy.order import build
from corea.policy.spent import Counted
from corea.policy_config import PolicyConfig
from corea.prices import FixedPrice, Price

_Bar = TypeVar("_Bar")
_SECOND = (
    "the second signal of critical is not recorded: such requests are replayed without it, and deferred too seldom"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """By tier. A tier that is in none of them is as it was. ``tiers``: all of a configuration's, in order.

    ``policies``: made for tiers, cheapest first, and a clock. ``notes``: what of it can't be replayed.
    """

    thresholds: Mapping[str, float] = field(default_factory=dict)
    certificates: Mapping[str, Certificate] = field(default_factory=dict)
    prices: Mapping[str, Price] = field(default_factory=dict)
    guards: Mapping[str, Sequence[Guard]] = field(default_factory=dict)
    tiers: tuple[str, ...] = ()
    policies: Callable[[Sequence[str], Callable[[], float]], Policies] | None = None
    notes: tuple[str, ...] = ()

    @property
    def named(self) -> tuple[str, ...]:
        """The tiers that something is said of."""
        return tuple(dict.fromkeys([*self.thresholds, *self.certificates, *self.prices]))

    def over(self, other: Change) -> Change:
        """This one where it says something, else the other."""
        said = self.thresholds.keys() | self.certificates.keys()
        return Change(
            thresholds={**_without(other.thresholds, said), **self.thresholds},
            certificates={**_without(other.certificates, said), **self.certificates},
            prices={**other.prices, **self.prices},
            guards={**other.guards, **self.guards},
            tiers=self.tiers or other.tiers,
            policies=self.policies or other.policies,
            notes=() if self.policies else other.notes,
        )


def of_words(
    *,
    thresholds: Sequence[str] = (),
    prices: Sequence[str] = (),
    certificates: Sequence[Path] = (),
    policies: Sequence[str] = (),
) -> Change:
    """From ``small=0.8``, ``large=2.5/10`` (USD per million tokens, in/out or in/out/cached), ``budget:12.5/day`` and
    files.

    Raises :class:`InputError` for what can't be read, and for a tier that is given two bars.
    """
    bars = dict(_pair(word, "--threshold", "small=0.8") for word in thresholds)
    found = {name: _share(said, name) for name, said in bars.items()}
    priced = dict(_pair(word, "--price", "large=2.5/10") for word in prices)
    certified: dict[str, Certificate] = {}
    for path in certificates:
        for certificate in _certificates(path):
            if certificate.small in certified or certificate.small in found:
                raise InputError(f'the tier "{certificate.small}" is given two bars; leave out a threshold or {path}')
            certified[certificate.small] = certificate
    return Change(
        thresholds=found,
        certificates=certified,
        prices={name: price(said, name) for name, said in priced.items()},
        policies=_policies(policies, has_certificate=bool(certified)) if policies else None,
    )


def of_config(config: Config) -> Change:
    """Its thresholds, certificates, guards, and the prices it states; list prices are those that were recorded.

    Raises :class:`InputError` for a certificate that is missing or damaged. What models it names makes no difference:
    a replay can't tell what another model would have said.
    """
    bars = {tier.name: tier.threshold for tier in config.tiers if tier.threshold is not None}
    certified: dict[str, Certificate] = {}
    for at, tier in enumerate(config.tiers):
        if tier.certificate is None:
            continue
        of_ladder = is_ladder(tier.certificate)
        # By place: a ladder's certificate may know the tiers by other names.
        certified[tier.name] = (
            load_ladder(tier.certificate).of_tier(at) if of_ladder else load_certificate(tier.certificate)
        )
    stated = {tier.name: tier.prices for tier in config.tiers if tier.prices is not None}
    return Change(
        thresholds=bars,
        certificates=certified,
        prices={name: FixedPrice.per_million(p.input, p.output, p.cached_input) for name, p in stated.items()},
        guards={tier.name: guards_of(tier) for tier in config.tiers},
        tiers=tuple(tier.name for tier in config.tiers),
        policies=(lambda tiers, clock: policies_of(config, wall_clock=clock)) if config.policies else None,
        notes=(_SECOND,) if any(policy.critical is not None for policy in config.policies.values()) else (),
    )


def check_tiers(change: Change, tiers: Sequence[str], *, last: Iterable[str]) -> None:
    """Raises :class:`InputError` where something is said of a tier that is not in the traffic, or a bar is given to one
    that is always the last, and keeps everything."""
    known = tuple(dict.fromkeys([*tiers, *change.tiers])) if set(tiers) & set(change.tiers) else tuple(tiers)
    if strangers := [name for name in change.named if name not in known]:
        raise InputError(
            f'no request went through a tier "{strangers[0]}"; the tiers are: {", ".join(known)}; name one of them'
        )
    final = set(last)
    if barred := [name for name in (*change.thresholds, *change.certificates) if name in final]:
        raise InputError(f'"{barred[0]}" is the last tier, whose answer is always final; leave its threshold out')


def check_signals(change: Change, sources: Mapping[str, Iterable[str]]) -> None:
    """Raises :class:`InputError` where a certificate is about another confidence than the one that was recorded."""
    for name, certificate in change.certificates.items():
        wanted = signal_name(certificate.signal)
        if others := sorted({signal_name(source) for source in sources.get(name, ())} - {wanted}):
            raise InputError(
                f'the certificate of "{name}" is about the confidence {certificate.signal}, and {others[0]} was '
                "recorded: its threshold would mean something else; certify that one, or choose other traffic"
            )


def signal_name(signal: str) -> str:
    """Without how it was asked for, which the ledger does not hold."""
    return signal.partition(":")[0].removesuffix("_followup")


def price(said: str, tier: str) -> FixedPrice:
    """From ``2.5/10`` or ``2.5/10/1.25``: USD per million tokens, in, out and, where it differs, in from a cache."""
    try:
        numbers = [float(part) for part in said.split("/")]
    except ValueError:
        numbers = []
    # NaN fails the comparison, so it is refused too.
    if len(numbers) not in (2, 3) or not all(0 <= number < 1e9 for number in numbers):
        raise InputError(f'--price: "{said}" is no price; write for example {tier}=2.5/10, in USD per million tokens')
    return FixedPrice.per_million(*numbers, source="--price")


def policy(words: Sequence[str]) -> PolicyConfig:
    """From ``budget:12.5/day`` or ``budget:0.5/hour`` (USD) and ``latency:8`` (seconds for 95 of 100 requests)."""
    said: dict[str, Any] = {}
    for word in words:
        name, _, value = word.partition(":")
        amount, _, per = value.partition("/")
        if name in said or name not in ("budget", "latency") or (name == "latency" and per):
            raise _no_policy(word)
        said[name] = {"usd": amount, "per": per or "day"} if name == "budget" else {"p95_s": amount}
    try:
        return PolicyConfig.model_validate(said)
    except ValidationError as exc:
        raise _no_policy(", ".join(words)) from exc


def _no_policy(word: str) -> InputError:
    return InputError(f'--policy: "{word}" can\'t be replayed; write for example budget:12.5/day, or latency:8')


def _policies(
    words: Sequence[str], *, has_certificate: bool
) -> Callable[[Sequence[str], Callable[[], float]], Policies]:
    """Each kind once, for every request."""
    config = policy(words)

    def made(tiers: Sequence[str], clock: Callable[[], float]) -> Policies:
        return Policies(
            always=build(
                "simulated",
                config,
                tiers=tiers,
                has_certificate=has_certificate,
                spent=lambda task: Counted(),
                second=None,
                wall_clock=clock,
            )
        )

    return made


def _pair(word: str, option: str, example: str) -> tuple[str, str]:
    name, found, said = word.partition("=")
    if not found or not name.strip() or not said.strip():
        raise InputError(f'{option}: "{word}" names no tier, or nothing for it; write for example {example}')
    return name.strip(), said.strip()


def _share(said: str, tier: str) -> float:
    try:
        value = float(said)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise InputError(f'--threshold: "{said}" is no confidence; write for example {tier}=0.8, from 0 to 1')
    return value


def _certificates(path: Path) -> list[Certificate]:
    if not is_ladder(path):
        return [load_certificate(path)]
    ladder = load_ladder(path)
    return [ladder.of_tier(at) for at in range(len(ladder.tiers) - 1)]


def _without(found: Mapping[str, _Bar], names: Iterable[str]) -> dict[str, _Bar]:
    gone = set(names)
    return {name: one for name, one in found.items() if name not in gone}
