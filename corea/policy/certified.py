"""Never below the certificate: whatever the policies before it wanted. Knows no certificate, only whose bar has one."""

from __future__ import annotations

from dataclasses import replace

from corea.policy.base import Bar, View
from corea.types import Trace


class Certified:
    """Where no certificate stands behind a tier's bar, nothing is promised, and nothing is held."""

    name = "certified"

    def before(self, view: View, bar: Bar) -> Bar:
        if not view.certified or bar.at_least(view.own) is bar:
            return bar
        wanted = "a lower bar" if bar.threshold is None else f"{bar.threshold:.4g}"
        note = f"{bar.policy} wanted {wanted}, which would break the certificate"
        said = note if bar.note is None else f"{note}; {bar.note}"
        return replace(bar, threshold=view.own.threshold, tie_fraction=view.own.tie_fraction, note=said)

    def after(self, trace: Trace) -> None:
        """Nothing is learned."""
