"""Generated tests: confidence is the share that the program agrees with; nothing that it does raises it otherwise."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from corea.build import estimator_of
from corea.confidence import Estimate, Exchange, GeneratedTests
from corea.confidence.conformance import check
from corea.confidence.fitted import ConfidenceMap, Fitted, Sigmoid, save
from corea.confidence.generated_tests import TESTS, agreeing_cases
from corea.confidence.named import SIGNALS, estimator
from corea.confidence.protocol import CODE_PROMPT, parse
from corea.config import ConfidenceConfig
from corea.config import parse as parse_config
from corea.errors import ConfigError, InputError, UpstreamRefused
from corea.grading import sandbox
from corea.grading.cases import Case
from corea.grading.sandbox import Limits
from corea.identity import signal_of
from corea.models.scripted import ScriptedModel, Step, scripted_reply
from corea.types import Kind, Message, Prompt, Reply, Usage

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="programs are shut in with Linux's means")

TASK = "Write a function `double(x)` that returns twice x."
RIGHT = "def double(x):\n    return 2 * x"
ALLOWED = GeneratedTests(allow_code=True)


def fence(*lines: str) -> str:
    return "```python\n" + "\n".join(lines) + "\n```"


def exchange(program: str, *, kind: Kind | None = "code", messages: Sequence[Message] = ()) -> Exchange:
    asked = messages or (Message(role="system", content=CODE_PROMPT), Message(role="user", content=TASK))
    reply = scripted_reply(fence(program))
    prompt = Prompt(messages=tuple(asked), max_tokens=64)
    return Exchange(prompt=prompt, reply=reply, parsed=parse(reply.text, kind), kind=kind)


def told(program: str, second: Step | str, *, kind: Kind | None = "code", made: GeneratedTests = ALLOWED) -> Estimate:
    model = ScriptedModel("scripted", replies=[scripted_reply(second) if isinstance(second, str) else second])
    return asyncio.run(made.estimate(exchange(program, kind=kind), model, timeout_s=5))


GOOD = fence("assert double(2) == 4", "assert double(0) == 0", "assert double(-1) == -2", "assert double('a') == 'aa'")


@needs_linux
def test_tests_that_agree_make_it_sure_and_tests_that_do_not_unsure() -> None:
    assert told(RIGHT, GOOD).confidence.value == 1.0
    assert told("def double(x):\n    return x * x", GOOD).confidence.value == 0.5
    assert told("def double(x):\n    return x + 3", GOOD).confidence.value == 0.0


@needs_linux
def test_the_second_turn_is_counted_and_only_so_many_tests_are_run() -> None:
    many = [f"assert double({i}) == {2 * i + (i >= TESTS)}" for i in range(2 * TESTS)]
    estimate = told(RIGHT, fence(*many))
    assert estimate.confidence.value == 1.0
    assert estimate.usage is not None
    assert estimate.usage.completion_tokens > 0
    uncounted = Reply(text=GOOD, finish_reason="stop", model="scripted", usage=None)
    assert told(RIGHT, uncounted).usage is None


def test_the_second_turn_shows_the_task_and_the_head_and_not_the_program() -> None:
    model = ScriptedModel("scripted", replies=[UpstreamRefused("no")], record=True)
    program = "SECRET = 2\ndef double(x: int) -> int:\n    return SECRET * x"
    earlier = (
        Message(role="system", content="Be brief."),
        Message(role="user", content="Hello"),
        Message(role="assistant", content="Hi"),
        Message(role="user", content=TASK),
    )
    asyncio.run(ALLOWED.estimate(exchange(program, messages=earlier), model))
    (prompt,) = model.prompts
    assert [message.role for message in prompt.messages] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert [message.content for message in prompt.messages[3:5]] == ["Hello", "Hi"]
    last = prompt.messages[-1].content
    assert TASK in last
    assert "def double(x: int) -> int:\n    ..." in last
    assert "`double`" in last
    assert "SECRET" not in str(prompt.messages)
    assert prompt.top_logprobs == 0


@pytest.mark.parametrize(
    "second,note",
    [
        ("I cannot think of any.", "no test was found in the second reply"),
        (fence("assert other(1) == 2"), "no test was found in the second reply"),
        (fence("assert double(1) == double(1)"), "no test was found in the second reply"),
        (fence("def test_double(", "  assert"), "no test was found in the second reply"),
        (UpstreamRefused("no connection"), "the follow-up failed: no connection"),
    ],
)
def test_without_a_valid_test_it_is_unknown(second: Step | str, note: str) -> None:
    estimate = told(RIGHT, second)
    assert (estimate.confidence.value, estimate.confidence.note) == (None, note)
    assert (estimate.usage is None) == isinstance(second, UpstreamRefused)


@pytest.mark.parametrize(
    "program,kind,note",
    [
        (RIGHT, "number", "the question asks for no program"),
        ("print(1)", "code", "no program was found in the reply"),
        ("print(1)", None, "no program was found in the reply"),
    ],
)
def test_where_no_program_was_asked_for_or_written_it_is_unknown_and_nobody_is_asked(
    program: str, kind: Kind | None, note: str
) -> None:
    model = ScriptedModel("scripted", replies=[scripted_reply(GOOD)])
    estimate = asyncio.run(ALLOWED.estimate(exchange(program, kind=kind), model))
    assert (estimate.confidence.value, estimate.confidence.note) == (None, note)
    assert (model.calls, estimate.usage) == (0, Usage())


@needs_linux
def test_a_question_of_unknown_kind_whose_answer_is_a_program_has_a_confidence() -> None:
    assert told(RIGHT, GOOD, kind=None).confidence.value == 1.0


# Leave ----------------------------------------------------------------------------------------------------------------


def test_without_leave_nothing_is_run_and_the_note_says_what_to_set() -> None:
    model = ScriptedModel("scripted", replies=[scripted_reply(GOOD)])
    estimate = asyncio.run(GeneratedTests().estimate(exchange(RIGHT), model))
    assert estimate.confidence.value is None
    assert estimate.confidence.note == "programs may not be run; set allow_code = true beside the estimator"
    assert model.calls == 0


def test_a_configuration_must_allow_it_in_so_many_words() -> None:
    tiers = '[[tiers]]\nname = "a"\nkind = "openai"\nbase_url = "http://127.0.0.1:1/v1"\nmodel = "a"\n'
    text = tiers + "threshold = 0.9\nconfidence = { MORE }\n" + tiers.replace('"a"', '"b"')
    with pytest.raises(ConfigError, match="set allow_code = true beside it, or choose another estimator") as caught:
        parse_config(text.replace("MORE", 'estimator = "generated_tests"'), source="x")
    assert caught.value.field == "tiers[0].confidence"
    with pytest.raises(ConfigError, match='"logprob" runs no programs; remove allow_code'):
        parse_config(text.replace("MORE", 'estimator = "logprob", allow_code = true'), source="x")
    made = parse_config(text.replace("MORE", 'estimator = "generated_tests", allow_code = true'), source="x")
    assert estimator_of(made.tiers[0].confidence) == ALLOWED


def test_a_signal_by_its_name_needs_leave_too() -> None:
    assert "generated_tests" in SIGNALS
    assert estimator("generated_tests", allow_code=True) == ALLOWED
    with pytest.raises(InputError, match="set allow_code = true beside estimator"):
        estimator("generated_tests")


def test_a_map_that_reads_it_needs_leave_as_well(tmp_path: Path) -> None:
    made = ConfidenceMap(
        kind="platt", signals=("generated_tests",), parameters=Sigmoid(slope=1.0, intercept=0.0), model="m", prompt="p",
        n=99, share=0.5, salt="map", created_at="2026-01-01T00:00:00Z",
    )  # fmt: skip
    save(made, tmp_path / "map.json")
    with pytest.raises(InputError, match="set allow_code = true beside estimator"):
        estimator_of(ConfidenceConfig(estimator="fitted", map=tmp_path / "map.json"))
    built = estimator_of(ConfidenceConfig(estimator="fitted", map=tmp_path / "map.json", allow_code=True))
    assert isinstance(built, Fitted)
    assert built.estimators == {"generated_tests": ALLOWED}


def test_a_certificate_is_bound_to_how_the_tests_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    confidence = ConfidenceConfig(estimator="generated_tests", allow_code=True)
    before = signal_of(confidence)
    assert before.startswith("generated_tests:")
    monkeypatch.setattr("corea.identity.RECIPE", "another")
    assert signal_of(confidence) == "generated_tests:another"


def test_where_programs_cannot_be_shut_in_it_is_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sandbox, "_SCRIPT", tmp_path / "missing.py")
    estimate = told(RIGHT, GOOD)
    assert estimate.confidence.value is None
    assert "programs cannot be shut in here" in str(estimate.confidence.note)
    assert estimate.usage is not None


@pytest.mark.parametrize("allowed", [False, True])
def test_it_passes_the_conformance_suite(allowed: bool) -> None:
    check(lambda: GeneratedTests(allow_code=allowed))


# Cheats and malice ----------------------------------------------------------------------------------------------------

CHEATS = {
    "leaves with success": "import sys\ndef double(x): sys.exit(0)",
    "leaves at once": "import os\ndef double(x): os._exit(0)",
    "prints ok": "def double(x):\n    print('ok')\n    print('4')",
    "equal to everything": "class All:\n    def __eq__(self, other): return True\ndef double(x): return All()",
    "claims to be written so": "class Four:\n    def __repr__(self): return 'FOUR'\ndef double(x): return Four()",
    "no assertion fails": """
import builtins
builtins.AssertionError = type("Never", (Exception,), {})
def double(x): return None""",
    "replaces what compares": """
import ast, builtins, json, operator
builtins.bool = lambda value=0: True
operator.eq = ast.literal_eval = lambda *_: True
json.dumps = lambda message: '{"value": "4"}'
def double(x): return None""",
    "reads its caller": """
import sys
def double(x):
    frame, found = sys._getframe(1), []
    while frame:
        found += [one for one in (*frame.f_code.co_consts, *frame.f_locals.values()) if type(one) is int]
        found += [one for one in frame.f_globals.values() if type(one) is int]
        frame = frame.f_back
    return next((one for one in found if one != x and one % 14 == 0 and one), None)""",
    "reads all that there is": """
import gc
def double(x):
    texts = [one for held in gc.get_objects() if isinstance(held, dict) for one in held.values() if type(one) is str]
    return 1014 if any("1014" in one for one in texts if "def double" not in one) else None""",
}


@needs_linux
@pytest.mark.parametrize("cheat", CHEATS)
def test_a_program_that_cheats_is_not_believed(cheat: str) -> None:
    second = fence("assert double(507) == 1014", "assert double(7) == 14")
    assert told(CHEATS[cheat], second).confidence.value == 0.0


@needs_linux
def test_malicious_tests_stay_shut_in_and_do_not_agree(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    tests = [
        f"assert double(open({str(mine)!r}, 'w').write('x')) == 2",
        f"assert double(__import__('os').kill({os.getpid()}, 9)) == 2",
        "assert double(__import__('os').fork()) == 0",
        "assert double(__import__('socket').socket()) == 2",
        "assert double(__import__('os').system('true')) == 0",
    ]
    assert told(RIGHT, fence(*tests)).confidence.value == 0.0
    assert not mine.exists()


@needs_linux
def test_what_hangs_is_stopped_and_the_other_tests_still_count() -> None:
    calls = ["double(1)", "double([0 for _ in iter(int, 1)])", "double(2)"]
    cases = [Case(call=call, expected=2 * at + 2) for at, call in enumerate(calls)]
    cases[2] = Case(call="double(2)", expected=4)
    assert agreeing_cases(RIGHT, cases, limits=Limits(timeout_s=0.5)) == 2
    endless = "def double(x):\n    while True: pass"
    assert agreeing_cases(endless, cases, limits=Limits(timeout_s=0.5)) == 0
