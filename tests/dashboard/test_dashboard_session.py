"""Who gets a session, and for how long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corea.dashboard.session import ALL_TRIES, TRIES, WINDOW_S, SignIn, Tries, sign_in_of
from corea.errors import ConfigError
from corea.gateway_config import DashboardConfig
from dashboard.filled import PASSWORD


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


CLOCK = Clock()
SIGN_IN = SignIn(PASSWORD, session_s=3600, clock=CLOCK)


def test_a_session_works_until_its_time_is_over() -> None:
    clock = Clock()
    sign_in = SignIn(PASSWORD, session_s=3600, clock=clock)
    value = sign_in.new_session()
    clock.now_s += 3599
    assert sign_in.is_session(value)
    clock.now_s += 1
    assert not sign_in.is_session(value)


def test_replicas_with_the_same_password_know_a_session_and_a_new_password_ends_it() -> None:
    value = SIGN_IN.new_session()
    assert SignIn(PASSWORD, session_s=60, clock=CLOCK).is_session(value)
    assert not SignIn(PASSWORD + "!", session_s=3600, clock=CLOCK).is_session(value)
    assert PASSWORD not in value
    assert value != SIGN_IN.new_session()


@given(st.text() | st.from_regex(r"[0-9]{1,12}\.[a-z]{0,9}\.[0-9a-f]{0,64}", fullmatch=True))
def test_nobody_makes_a_session_without_the_password(value: str) -> None:
    assert not SIGN_IN.is_session(value)


def test_a_session_cannot_be_prolonged() -> None:
    expires, nonce, signature = SIGN_IN.new_session().split(".")
    assert not SIGN_IN.is_session(f"{int(expires) + 1}.{nonce}.{signature}")
    assert not SIGN_IN.is_session(f"{expires}.{nonce}x.{signature}")


@given(st.text())
def test_only_the_password_is_accepted(word: str) -> None:
    assert SIGN_IN.accepts(word) is (word == PASSWORD)


def test_an_address_waits_after_a_few_wrong_passwords_and_others_do_not() -> None:
    clock = Clock()
    tries = Tries(clock)
    for _ in range(TRIES):
        assert tries.wait_s("192.0.2.1") == 0
        tries.note_wrong("192.0.2.1")
        clock.now_s += 1
    assert tries.wait_s("192.0.2.1") == pytest.approx(WINDOW_S - TRIES)
    assert tries.wait_s("192.0.2.2") == 0
    clock.now_s += WINDOW_S - TRIES
    assert tries.wait_s("192.0.2.1") == 0


def test_a_network_of_many_addresses_is_one() -> None:
    tries = Tries(Clock())
    for i in range(TRIES):
        tries.note_wrong(f"2001:db8::{i}")
    assert tries.wait_s("2001:db8::ffff") > 0
    assert tries.wait_s("2001:db8:1::1") == 0


def test_all_addresses_together_have_a_limit_too() -> None:
    tries = Tries(Clock())
    for i in range(ALL_TRIES):
        tries.note_wrong(f"192.0.{i // 250}.{i % 250}")
    assert tries.wait_s("198.51.100.1") > 0


def test_where_nobody_needs_a_key_and_only_this_machine_can_ask_no_password_is_needed() -> None:
    open_ = DashboardConfig(enabled=True)
    assert sign_in_of(open_, host_is_local=True, api_has_keys=False, clock=CLOCK) is None
    for local, keys in ((True, True), (False, False), (False, True)):
        with pytest.raises(ConfigError, match="password_env"):
            sign_in_of(open_, host_is_local=local, api_has_keys=keys, clock=CLOCK)


@pytest.mark.parametrize(
    "environ, message",
    [({}, "export PANEL="), ({"PANEL": " "}, "export PANEL="), ({"PANEL": "short"}, "openssl rand")],
)
def test_a_password_that_is_missing_or_short_is_refused(environ: dict[str, str], message: str) -> None:
    settings = DashboardConfig(enabled=True, password_env="PANEL")
    with pytest.raises(ConfigError, match=message) as caught:
        sign_in_of(settings, host_is_local=True, api_has_keys=False, clock=CLOCK, environ=environ)
    assert "short" not in str(caught.value).replace("shorter", "")
