"""The watches of all tasks, and their state as JSON. Knows no grading, no database and no network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from corea.audit.steps import ALWAYS_DEFER, Step
from corea.audit.watch import Alarm, Plan, Seen, Status, Watch
from corea.errors import InputError

UNWATCHED = Status(state="unwatched")


class Monitor:
    """The watches of all tasks. Not safe to share between threads."""

    def __init__(self, plans: Iterable[Plan]) -> None:
        self._watches: dict[str | None, Watch] = {}
        for plan in plans:
            if plan.task in self._watches:
                raise InputError(f'task "{plan.task}" has two plans; keep one')
            self._watches[plan.task] = Watch.of(plan)

    def see(self, task: str | None, seen: Seen) -> Alarm | None:
        """Take in one question; the alarm, if it is this one that sets it off. Without a plan, nothing is kept."""
        watch = self._of(task)
        if watch is None:
            return None
        after = watch.after(seen)
        self._watches[watch.plan.task] = after
        return after.alarm if after.alarm is not watch.alarm else None

    def status(self, task: str | None) -> Status:
        watch = self._of(task)
        return UNWATCHED if watch is None else watch.status

    def step(self, task: str | None) -> tuple[Step, int]:
        """What is in force for a question of this task, and the epoch to see it with. Without a plan: always defer."""
        watch = self._of(task)
        return (ALWAYS_DEFER, 0) if watch is None else (watch.step, watch.epoch)

    def approve(self, task: str | None) -> Status:
        """The user has looked, and wants the certified threshold back."""
        watch = self._of(task)
        if watch is None:
            raise InputError(f'nobody watches task "{task}"; approve one of: {self._listed()}')
        self._watches[watch.plan.task] = watch.approved()
        return self._watches[watch.plan.task].status

    def dump(self) -> list[dict[str, Any]]:
        """All there is to know, as JSON: :meth:`restore` goes on with the same numbers."""
        return [dict(_WATCH.dump_python(watch, mode="json")) for watch in self._watches.values()]

    def restore(self, saved: Iterable[Mapping[str, Any]]) -> None:
        """Go on with what was dumped, all of it or nothing; tasks that have no plan any more are forgotten.

        Raises :class:`InputError` for what is damaged, or was gathered under another plan: replay the ledger instead.
        """
        found = [_read(one) for one in saved]
        for watch in found:
            now = self._watches.get(watch.plan.task)
            if now is not None and now.plan != watch.plan:
                raise InputError(
                    f'the evidence about task "{watch.plan.task}" was gathered under another plan; begin anew, or '
                    "replay the ledger under this one"
                )
        self._watches.update({watch.plan.task: watch for watch in found if watch.plan.task in self._watches})

    def _of(self, task: str | None) -> Watch | None:
        return self._watches.get(task) or self._watches.get(None)

    def _listed(self) -> str:
        return ", ".join(f'"{task}"' for task in self._watches) or "none"


_WATCH = TypeAdapter(Watch)


def _read(saved: Mapping[str, Any]) -> Watch:
    try:
        watch = _WATCH.validate_python(saved)
    except ValidationError as exc:
        first = exc.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InputError(f"the saved audit is damaged at {field}: {first['msg'].lower()}; replay the ledger") from exc
    sums = (watch.sequence.below, watch.sequence.above)
    whole = all(len(one.growth) == len(one.bets.sizes) == len(one.bets.log_weights) for one in sums)
    detector = watch.detector
    whole = whole and len(detector.logs) == len(detector.bets.sizes) == len(detector.bets.log_weights)
    if not whole or not 0 <= watch.at_step <= len(watch.plan.steps) or watch.sequence.scope != watch.plan.scope:
        raise InputError("the saved audit contradicts itself; replay the ledger")
    return watch
