"""Which task a request is of, and which policy it goes by: what its key and its profile demand, then what it asks for.

A client may choose among what the configuration marks as selectable, and never in place of what its key demands.
Knows names only: what a policy does is :mod:`corea.policy`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from corea.gateway.auth import Caller
from corea.gateway.directory import Target
from corea.gateway.errors import ApiError, bad_request

TASK, POLICY = "x-corea-task", "x-corea-policy"
_NAME = re.compile(r"[!-~]{1,64}")


def chosen(headers: Mapping[str, str], caller: Caller, target: Target) -> tuple[str | None, str | None]:
    """The task and the policy, each None where there is none. Raises :class:`ApiError`: 400, or 403 for a wish that
    is not granted."""
    task = _task(headers, caller, target)
    policies = target.cascade.policies
    # What the key's own task demands goes before what the profile does.
    demanded = policies.by_task.get(caller.task or "") or target.policy or policies.by_task.get(target.task or "")
    wished = _wish(headers, POLICY)
    if wished is None or wished == demanded:
        return task, demanded
    if demanded is not None:
        raise _forbidden(f'this key or model goes by the policy "{demanded}"; leave {POLICY} out', "policy_not_allowed")
    if wished not in policies.selectable:
        there = ", ".join(sorted(policies.selectable)) or "none"
        message = f'the policy "{wished}" cannot be chosen by a request; those that can: {there}'
        raise _forbidden(message, "policy_not_allowed")
    return task, wished


def _task(headers: Mapping[str, str], caller: Caller, target: Target) -> str | None:
    given = caller.task or target.task
    wished = _wish(headers, TASK)
    if wished is None or wished == given:
        return given
    if given is not None:
        raise _forbidden(
            f'requests of this key or model are of the task "{given}"; leave {TASK} out', "task_not_allowed"
        )
    policies = target.cascade.policies
    if policies.by_task.get(wished, policies.default) not in (policies.default, *policies.selectable):
        message = f'the task "{wished}" has a policy that a request cannot choose; use a key or a profile of that task'
        raise _forbidden(message, "task_not_allowed")
    return wished


def _wish(headers: Mapping[str, str], name: str) -> str | None:
    value = headers.get(name)
    if value is None:
        return None
    if not _NAME.fullmatch(value):
        raise bad_request(f"{name} must be a name of at most 64 letters, without spaces", name)
    return value


def _forbidden(message: str, code: str) -> ApiError:
    return ApiError(message, status=403, code=code)
