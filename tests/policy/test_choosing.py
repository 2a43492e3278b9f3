"""Which policy a request goes by at the gateway: what its key demands, what its model demands, what it may wish."""

from __future__ import annotations

import httpx
import pytest

from corea import Cascade
from corea.gateway.auth import Caller
from corea.gateway.choosing import chosen
from corea.gateway.directory import Target
from corea.gateway.errors import ApiError
from corea.policy.base import Policies
from gateway.running import Running, large, serving, small
from policy.test_policies import Says

POLICIES = Policies(
    named={"exam": (Says(0.99),), "cheap": (Says(0.1),), "usual": (Says(0.5),), "thrifty": (Says(0.2),)},
    by_task={"maths": "exam", "chat": "cheap"},
    default="usual",
    selectable=frozenset({"cheap", "exam"}),
)


def target(*, task: str | None = None, policy: str | None = None) -> Target:
    cascade = Cascade([small(), large()], policies=POLICIES)
    return Target(name="corea", cascade=cascade, task=task, policy=policy)


def choice(
    *, key_task: str | None = None, task: str | None = None, policy: str | None = None
) -> tuple[str | None, str | None]:
    """Without a wish: ``task`` and ``policy`` are the profile's."""
    return chosen({}, Caller(id="k", task=key_task), target(task=task, policy=policy))


def test_without_a_wish_key_and_model_decide() -> None:
    assert choice() == (None, None)
    assert choice(key_task="maths") == ("maths", "exam")
    assert choice(task="chat") == ("chat", "cheap")
    assert choice(policy="thrifty") == (None, "thrifty")


def test_a_keys_task_goes_before_its_models() -> None:
    assert choice(key_task="maths", task="chat") == ("maths", "exam")
    assert choice(key_task="maths", policy="cheap") == ("maths", "exam")


def test_a_client_may_choose_what_is_selectable() -> None:
    assert chosen({"x-corea-policy": "cheap"}, Caller(id="k"), target()) == (None, "cheap")
    assert chosen({"x-corea-policy": "cheap", "x-corea-task": "poems"}, Caller(id="k"), target()) == ("poems", "cheap")


def refused(headers: dict[str, str], *, key_task: str | None = None, policy: str | None = None) -> ApiError:
    with pytest.raises(ApiError) as caught:
        chosen(headers, Caller(id="k", task=key_task), target(policy=policy))
    return caught.value


@pytest.mark.parametrize("name", ["usual", "thrifty", "made-up"])
def test_nothing_else_and_is_told_what_there_is_but_not_what_there_is_not(name: str) -> None:
    error = refused({"x-corea-policy": name})
    assert (error.status, error.code) == (403, "policy_not_allowed")
    assert str(error) == f'the policy "{name}" cannot be chosen by a request; those that can: cheap, exam'


def test_a_client_cannot_loosen_what_its_key_demands() -> None:
    error = refused({"x-corea-policy": "cheap"}, key_task="maths")
    assert (error.status, error.code) == (403, "policy_not_allowed")
    assert 'goes by the policy "exam"' in str(error)
    assert refused({"x-corea-task": "chat"}, key_task="maths").code == "task_not_allowed"
    assert refused({"x-corea-policy": "cheap"}, policy="thrifty").code == "policy_not_allowed"


def test_to_ask_for_what_is_demanded_anyway_is_no_offence() -> None:
    headers = {"x-corea-policy": "exam", "x-corea-task": "maths"}
    assert chosen(headers, Caller(id="k", task="maths"), target()) == ("maths", "exam")


def test_a_client_may_say_its_task_unless_that_task_has_a_policy_it_may_not_choose() -> None:
    assert chosen({"x-corea-task": "maths"}, Caller(id="k"), target()) == ("maths", None)
    assert chosen({"x-corea-task": "poems"}, Caller(id="k"), target()) == ("poems", None)
    hidden = Policies(named=POLICIES.named, by_task={"night": "thrifty"}, default="usual")
    with pytest.raises(ApiError, match='the task "night" has a policy that a request cannot choose') as caught:
        chosen(
            {"x-corea-task": "night"},
            Caller(id="k"),
            Target(name="corea", cascade=Cascade([small(), large()], policies=hidden)),
        )
    assert (caught.value.status, caught.value.code) == (403, "task_not_allowed")


@pytest.mark.parametrize("value", ["", "two words", "x" * 65, "ä"])
def test_a_name_that_is_none_is_400(value: str) -> None:
    for header in ("x-corea-policy", "x-corea-task"):
        error = refused({header: value})
        assert (error.status, error.param) == (400, header)


def test_over_http_the_header_decides_and_the_trace_says_so() -> None:
    with serving(cascade={"policies": POLICIES}) as running:
        assert _asked(running, {}).json()["corea"]["route"] == "small"
        assert running.trace.attempts[0].decision.threshold == 0.5
        strict = _asked(running, {"x-corea-policy": "exam"})
        assert strict.json()["corea"]["route"] == "large"
        decision = running.ledger.traces[-1].attempts[0].decision
        assert (decision.policy, decision.threshold) == ("budget", 0.99)
        said = _asked(running, {"x-corea-task": "maths"})
        assert (said.json()["corea"]["route"], running.ledger.traces[-1].request.task) == ("large", "maths")
        refusal = _asked(running, {"x-corea-policy": "thrifty"})
        assert refusal.status_code == 403
        assert refusal.json()["error"] == {
            "message": 'the policy "thrifty" cannot be chosen by a request; those that can: cheap, exam',
            "type": "invalid_request_error",
            "param": None,
            "code": "policy_not_allowed",
        }


def _asked(running: Running, headers: dict[str, str]) -> httpx.Response:
    body = {"model": "corea", "messages": [{"role": "user", "content": "6 × 7?"}]}
    return httpx.post(f"{running.url}/v1/chat/completions", json=body, headers=headers, timeout=10)
