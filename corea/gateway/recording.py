"""What the gateway does with every trace, those of clients who left included: keep it, charge it, count it."""

from __future__ import annotations

from corea.cascade import Recorder
from corea.gateway.auth import Authorizer
from corea.gateway.metrics import Metrics
from corea.gateway.served import served_now
from corea.types import Trace


class Recording:
    """A recorder over the cascade's own; ``inner=None`` keeps nothing. Closing is the cascade's business."""

    def __init__(self, inner: Recorder | None, authorizer: Authorizer, metrics: Metrics) -> None:
        self._inner = inner
        self._authorizer = authorizer
        self._metrics = metrics

    async def write(self, trace: Trace) -> None:
        if self._inner is not None:
            await self._inner.write(trace)
        self._metrics.traced(trace)
        if (served := served_now()) is not None:
            served.trace = trace
        await self._authorizer.settle(trace)

    async def aclose(self) -> None:
        """Nothing of ours."""
