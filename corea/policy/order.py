"""The order in which policies are asked, and what one name of the configuration stands for.

What may loosen comes first, what only tightens after it, so the last word is the safest one's:

1. ``latency``: may leave a tier out, or lower its bar;
2. ``budget``: sets the bar by the price of money, but never above one that latency lowered;
3. ``certified``: not below the certificate;
4. ``critical``: a second signal must agree.

The audit comes last of all, for every request (:attr:`corea.policy.base.Policies.always`). Leaving a tier out is to
defer, so no policy needs to allow it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

from corea.policy.base import Policy, Second
from corea.policy.budget import Budget
from corea.policy.certified import Certified
from corea.policy.critical import Critical
from corea.policy.drops import Drops
from corea.policy.latency import Latency
from corea.policy.spent import Spent
from corea.policy_config import PolicyConfig

logger = logging.getLogger("corea.policy.order")

ORDER = ("latency", "budget", "certified", "critical")


def in_order(policies: Iterable[Policy]) -> tuple[Policy, ...]:
    """By ``name``; those that are none of :data:`ORDER` come last, as they were given."""
    return tuple(sorted(policies, key=lambda policy: ORDER.index(policy.name) if policy.name in ORDER else len(ORDER)))


def build(
    name: str,
    config: PolicyConfig,
    *,
    tiers: Sequence[str],
    has_certificate: bool,
    spent: Callable[[str | None], Spent],
    second: Second | None,
    drops: Drops | None = None,
    wall_clock: Callable[[], float],
) -> tuple[Policy, ...]:
    """What ``[policies.NAME]`` stands for.

    ``spent``: of a task, or of all; ``second``: what ``critical`` names; ``drops``: what the budget does.
    """
    floored = has_certificate and config.certified is not False
    made: list[Policy] = []
    if config.latency is not None:
        made.append(Latency(p95_s=config.latency.p95_s, tiers=tiers, means=config.latency.may))
    if config.budget is not None:
        made.append(
            Budget(
                nano_usd=config.budget.nano_usd,
                per=config.budget.per,
                tiers=tiers,
                spent=spent(config.budget.task),
                wall_clock=wall_clock,
                floored=floored,
                tightens=config.budget.tightens,
                accuracy=config.budget.accuracy,
                drops=drops,
                label=f"policies.{name}",
            )
        )
    if floored and (config.loosens or config.certified):
        made.append(Certified())
    if has_certificate and not floored:
        logger.warning(
            "policies.%s: certified = false, so what the certificate promises is not promised for its requests", name
        )
    if second is not None:
        made.append(Critical(second))
    return in_order(made)
