"""From measured tiers to a cascade that keeps its certificate's promise, to the question; and what voids it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest

from corea import Cascade
from corea.batch.rows import Question
from corea.build import guards_of, tiers_of
from corea.confidence.fitted import ConfidenceMap, Sigmoid, save
from corea.config import Config, parse
from corea.errors import ConfigError, InputError
from corea.evaluate.certification import Choice, Terms, certificate_of, choose, fit_map, with_map
from corea.evaluate.guarded import guarded
from corea.evaluate.outcomes import Outcomes, Pair, read
from corea.evaluate.pairs import pair_of
from corea.evaluate.run import Plan, run
from corea.guards.domain import fit as fit_domain
from corea.guards.domain import save as save_domain
from corea.guards.registry import GUARDS, labels
from corea.identity import hashes_of, shapes_of, signal_of
from corea.models.scripted import ScriptedModel, Step, mistaken, scripted_answer, scripted_reply
from corea.policy.certificate import Certificate, Certified, Promise, dump
from corea.policy.explain import explain_trace
from corea.policy.ladder_certificate import CertifiedLadder, LadderCertificate, Rung
from corea.policy.ladder_certificate import dump as dump_ladder
from corea.tier import AS_CONFIGURED, Sampling, Tier, warn_once
from corea.types import Message, Prompt, Reason, Request, Trace

AT = "2026-01-01T00:00:00+00:00"
ENDPOINT = 'kind = "openai"\nbase_url = "http://127.0.0.1:1/v1"\n'
PLAIN = '{ estimator = "logprob" }'


def config(judged: str = "threshold = 0.5", *, confidence: str = PLAIN, small: str = "", large: str = "") -> Config:
    """Two tiers at a port where nobody listens: they are built, never asked."""
    return parse(
        f'[[tiers]]\nname = "small"\nmodel = "s"\n{ENDPOINT}{judged}\nconfidence = {confidence}\n'
        f"prices = {{ input = 1, output = 1 }}\n{small}\n"
        f'[[tiers]]\nname = "large"\nmodel = "l"\n{ENDPOINT}prices = {{ input = 40, output = 40 }}\n{large}\n',
        source="corea.toml",
    )


# A small model with habits --------------------------------------------------------------------------------------------

N = 320
#: Four levels of confidence, so that ties decide which questions are kept.
LEVELS = (9, 7, 4, 1)


def level(number: int) -> int:
    return LEVELS[number % 4]


def small_is_right(number: int) -> bool:
    """Always at the top; further down less and less often."""
    return level(number) == 9 or (number * 7) % 40 >= 4 * (9 - level(number))


def small_says(prompt: Prompt, index: int) -> Step:
    """By the prompt alone: asked the same again, it answers the same again."""
    number = int(prompt.messages[1].content.split()[-1])
    sure, last = level(number), prompt.messages[-1].content
    if "one digit" in last:
        return scripted_reply(str(sure), distribution={str(sure): 0.9, "0": 0.1})
    if "True or False" in last:
        return scripted_reply("True", distribution={"True": 0.1 + sure / 12, "False": 0.9 - sure / 12})
    answer = str(number) if small_is_right(number) else mistaken(str(number))
    if prompt.seed is not None and (number // 4 + prompt.seed) % 5 >= sure // 2:
        # A sample that does not agree with the first answer, right or wrong.
        answer = "-1"
    inline = "Confidence:" in prompt.messages[0].content
    reply = scripted_answer(answer, digit=sure if inline else None, logprob=-0.1 * (10 - sure))
    if number % 40 == 0:
        # Sure of itself, and cut off before it had finished.
        return replace(reply, finish_reason="length")
    if number % 40 == 24:
        # Sure of itself, and a guard objects.
        return replace(reply, finish_reason="content_filter")
    return replace(reply, tokens=None) if number % 40 == 4 else reply


def large_says(prompt: Prompt, index: int) -> Step:
    number = int(prompt.messages[1].content.split()[-1])
    return scripted_answer(mistaken(str(number)) if number % 50 == 7 else str(number))


def scripted(made: Config, *, to_measure: bool = False) -> tuple[Tier, Tier]:
    """The configured tiers, with models that need no server."""
    small, large = tiers_of(made, to_measure=to_measure)
    return (
        replace(small, model=ScriptedModel("s", replies=small_says)),
        replace(large, model=ScriptedModel("l", replies=large_says)),
    )


def asked(count: int, *, tasks: tuple[str, ...] = ("toy",)) -> list[Question]:
    return [
        Question(id=f"q{i}", question=f"say {i}", gold=str(i), kind="number", task=tasks[i % len(tasks)])
        for i in range(count)
    ]


@cache
def measured(confidence: str = PLAIN, *, count: int = N, samples: int = 0) -> Outcomes:
    """``corea eval run``, once for all tests that look at the same tiers."""
    made = config(confidence=confidence)
    shapes = shapes_of(made)
    with TemporaryDirectory() as folder:
        plan = Plan(
            questions=asked(count, tasks=("maths", "law")), tiers=scripted(made, to_measure=True),
            out=Path(folder) / "o.parquet", shapes=list(shapes.values()), samples=samples, concurrency=32,
        )  # fmt: skip
        assert asyncio.run(run(plan, on_start=lambda total, done: None, on_row=lambda row: None)) == 0
        return read(plan.out)


def in_force(found: Outcomes) -> Pair:
    """The two tiers as a cascade with the usual guards sees them."""
    return guarded(pair_of(found)[0], found, GUARDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What a cascade did with some questions."""

    traces: Mapping[str, Trace]
    small: ScriptedModel
    large: ScriptedModel

    @property
    def kept(self) -> set[str]:
        return {id for id, trace in self.traces.items() if trace.tier == "small"}


def answers(made: Config, questions: list[Question]) -> Answers:
    tiers = scripted(made)
    cascade = Cascade(tiers)

    async def ask_all() -> dict[str, Trace]:
        return {question.id: await cascade.ask(question.request) for question in questions}

    traces = asyncio.run(ask_all())
    models = [tier.model for tier in tiers]
    assert isinstance(models[0], ScriptedModel)
    assert isinstance(models[1], ScriptedModel)
    return Answers(traces=traces, small=models[0], large=models[1])


def written(certificate: Certificate, folder: Path) -> str:
    dump(certificate, folder / "c.json")
    return f'certificate = "{folder / "c.json"}"'


# The promise is kept, to the question ---------------------------------------------------------------------------------


def check_promise(certificate: Certificate, choice: Choice, made: Config) -> Answers:
    """A cascade with the certificate does, with the certifying questions, what the certificate counted."""
    (promise,) = certificate.promises
    certified, pair = promise.certified, choice.pair
    assert certified.threshold is not None
    by_id = {question.id: question for question in asked(N, tasks=("maths", "law"))}
    done = answers(made, [by_id[id] for id in pair.ids])
    right = {id: float(trace.answer == by_id[id].gold) for id, trace in done.traces.items()}
    kept = np.array([id in done.kept for id in pair.ids])
    assert kept.sum() == certified.kept
    assert (kept & (pair.small_correct < pair.large_correct)).sum() == certified.harm
    assert (kept & (pair.small_correct > pair.large_correct)).sum() == certified.gain
    accuracy = float(np.mean([right[id] for id in pair.ids]))
    assert float(pair.large_correct.mean()) - accuracy == pytest.approx(certified.drop)
    assert 1 - kept.mean() == pytest.approx(certified.expected_deferral_rate)
    cost = sum(trace.cost_nano_usd or 0 for trace in done.traces.values())
    assert 1 - cost / pair.large_cost_nano_usd.sum() == pytest.approx(certified.expected_saving)
    assert done.large.calls == (~kept).sum()
    return done


@pytest.mark.parametrize(
    "signal,confidence,samples",
    [
        ("logprob", PLAIN, 0),
        ("p_true", '{ estimator = "p_true" }', 0),
        ("expected_followup", '{ estimator = "expected", ask = "followup" }', 0),
        ("verbalized_followup", '{ estimator = "verbalized", ask = "followup" }', 0),
        ("verbalized", '{ estimator = "verbalized" }', 0),
        ("expected", '{ estimator = "expected" }', 0),
        ("self_consistency", '{ estimator = "self_consistency", samples = 3 }', 3),
    ],
)
def test_a_cascade_keeps_exactly_the_questions_that_its_certificate_counted(
    tmp_path: Path, signal: str, confidence: str, samples: int
) -> None:
    inline = confidence if signal in ("verbalized", "expected") else PLAIN
    found = measured('{ estimator = "verbalized" }' if inline != PLAIN else PLAIN, samples=samples)
    pair = in_force(found)
    choice = choose(pair, signal, found)
    certificate = certificate_of(found, choice, Terms(max_drop=0.05), created_at=AT)
    certified = certificate.promises[0].certified
    assert 0 < certified.tie_fraction < 1, "a test of ties needs one that is split"
    done = check_promise(certificate, choice, config(written(certificate, tmp_path), confidence=confidence))
    assert Reason.TIED in {trace.attempts[0].decision.reason for trace in done.traces.values()}
    cut_off = [done.traces[f"q{i}"].attempts[0] for i in range(0, N, 40)]
    assert {attempt.decision.reason for attempt in cut_off} == {Reason.CUT_OFF}
    filtered = {done.traces[f"q{i}"].attempts[0].decision for i in range(24, N, 40)}
    assert {(decision.keep, decision.guard) for decision in filtered} <= {(False, "cut_off"), (False, None)}
    assert Reason.GUARDED in {decision.reason for decision in filtered}


def test_the_signal_may_be_chosen_on_other_questions(tmp_path: Path) -> None:
    found = measured()
    choice = choose(in_force(found), None, found)
    assert choice.chosen_on
    certificate = certificate_of(found, choice, Terms(max_drop=0.06), created_at=AT)
    judged = {
        "logprob": PLAIN,
        "p_true": '{ estimator = "p_true" }',
        "expected_followup": '{ estimator = "expected", ask = "followup" }',
        "verbalized_followup": '{ estimator = "verbalized", ask = "followup" }',
    }
    check_promise(certificate, choice, config(written(certificate, tmp_path), confidence=judged[choice.signal]))


@pytest.mark.parametrize("kind,signals", [("platt", ("logprob",)), ("fitted", ("logprob", "p_true"))])
def test_a_map_is_certified_and_runs_a_cascade(tmp_path: Path, kind: Any, signals: tuple[str, ...]) -> None:
    found = measured()
    pair = in_force(found)
    made = fit_map(found, pair, kind, signals, share=0.3, created_at=AT).map
    save(made, tmp_path / "map.json")
    choice = with_map(pair, made, found)
    certificate = certificate_of(found, choice, Terms(max_drop=0.06), created_at=AT, fitted=made)
    mapped = f'{{ estimator = "fitted", map = "{tmp_path / "map.json"}" }}'
    check_promise(certificate, choice, config(written(certificate, tmp_path), confidence=mapped))


def test_each_task_is_kept_by_its_own_threshold(tmp_path: Path) -> None:
    found = measured()
    pair = in_force(found)
    certificate = certificate_of(
        found, choose(pair, "logprob", found), Terms(max_drop=0.08, by_task=True), created_at=AT
    )
    of_task = {promise.task: promise.certified for promise in certificate.promises}
    # Even numbers are maths, odd ones law: the tasks have other confidences and other mistakes.
    assert set(of_task) == {"maths", "law"}
    assert of_task["maths"].threshold != of_task["law"].threshold
    questions = asked(N, tasks=("maths", "law"))
    done = answers(config(written(certificate, tmp_path)), questions)
    for task, certified in of_task.items():
        assert sum(question.id in done.kept for question in questions if question.task == task) == certified.kept
        assert certified.threshold is not None
    told = {trace.attempts[0].decision.threshold for trace in done.traces.values()}
    assert told == {certified.threshold for certified in of_task.values()}


# Nothing can be promised ----------------------------------------------------------------------------------------------


def test_without_a_promise_the_small_model_is_never_asked_and_the_trace_says_why(tmp_path: Path) -> None:
    found = measured(count=60)
    pair = in_force(found)
    certificate = certificate_of(found, choose(pair, "logprob", found), Terms(), created_at=AT)
    assert certificate.promises[0].certified.threshold is None
    done = answers(config(written(certificate, tmp_path)), asked(20))
    assert done.small.calls == 0
    assert done.large.calls == 20
    trace = done.traces["q3"]
    skipped, final = trace.attempts
    assert (skipped.decision.reason, skipped.cost_nano_usd, skipped.answered) == (Reason.NOT_CERTIFIED, 0, False)
    assert explain_trace(trace).startswith("Skipped small: its certificate promises nothing for this question.")
    assert (trace.tier, trace.cost_nano_usd) == ("large", final.cost_nano_usd)
    assert (trace.baseline_nano_usd, trace.saved_nano_usd) == (final.cost_nano_usd, 0)


def test_a_tier_that_was_not_asked_did_not_fail(tmp_path: Path) -> None:
    """``on_error = "fail"`` is for models that do wrong."""
    nothing = certificate_for(config(), certified=certified_at(None))
    done = answers(config(written(nothing, tmp_path), small='on_error = "fail"'), asked(1))
    assert done.traces["q0"].tier == "large"


# What voids it --------------------------------------------------------------------------------------------------------


def certified_at(threshold: float | None, **changes: Any) -> Certified:
    values: dict[str, Any] = {
        "threshold": threshold, "tie_fraction": 1.0, "n": 500, "max_drop": 0.02, "delta": 0.05, "kept": 9, "harm": 0,
        "gain": 0, "drop": 0.0, "expected_saving": 0.5, "expected_deferral_rate": 0.5, "p_value": 0.01,
    }  # fmt: skip
    return Certified(**{**values, **changes})


def certificate_for(made: Config, *, certified: Certified | None = None, **changes: Any) -> Certificate:
    """One that applies to this configuration."""
    models, prompts = hashes_of(shapes_of(made).values())
    values: dict[str, Any] = {
        "promises": (Promise(certified=certified or certified_at(0.5)),), "small": "small", "large": "large",
        "signal": signal_of(made.tiers[0].confidence), "guards": labels(guards_of(made.tiers[0])), "tasks": ("toy",),
        "models_hash": models, "prompts_hash": prompts, "data_hash": "d", "created_at": AT,
    }  # fmt: skip
    return Certificate(**{**values, **changes})


CHANGES: Mapping[str, tuple[dict[str, str], str]] = {
    "max_tokens": ({"small": "max_tokens = 99"}, "other models or sampling settings"),
    "temperature": ({"large": "temperature = 0.5"}, "other models or sampling settings"),
    "request": ({"large": "extra_body = { top_p = 0.5 }"}, "other models or sampling settings"),
    "prompt of the small": ({"small": 'system_prompt = "Be brief."'}, "other prompts"),
    "prompt of the large": ({"large": 'system_prompt = "Be brief."'}, "other prompts"),
    "asked inline": ({"confidence": '{ estimator = "verbalized" }'}, "other prompts"),
    "estimator": ({"confidence": '{ estimator = "p_true" }'}, "other confidence (logprob, now p_true)"),
    "samples": (
        {"confidence": '{ estimator = "self_consistency", samples = 9 }'},
        "other confidence (logprob, now self_consistency:9:0.7)",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_answers_or_confidence_voids_the_certificate_and_is_named(tmp_path: Path, change: str) -> None:
    judged = written(certificate_for(config()), tmp_path)
    tiers_of(config(judged))
    settings, said = CHANGES[change]
    with pytest.raises(InputError) as caught:
        tiers_of(config(judged, **settings))
    assert f"{tmp_path / 'c.json'} was made for {said}" in str(caught.value)
    assert "void" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("changed", ["small", "large"])
def test_another_model_voids_the_certificate(tmp_path: Path, changed: str) -> None:
    made = config(written(certificate_for(config()), tmp_path))
    tiers = tuple(one.model_copy(update={"model": "new"}) if one.name == changed else one for one in made.tiers)
    with pytest.raises(InputError, match="other models or sampling settings.*measure the tiers anew"):
        tiers_of(made.model_copy(update={"tiers": tiers}))


@pytest.mark.parametrize("samples,temperature", [(5, 0.7), (6, 0.7), (5, 0.8)])
def test_other_samples_void_the_certificate(tmp_path: Path, samples: int, temperature: float) -> None:
    made = config(confidence='{ estimator = "self_consistency" }')
    judged = written(certificate_for(made), tmp_path)
    again = config(
        judged,
        confidence=f'{{ estimator = "self_consistency", samples = {samples}, temperature = {temperature} }}',
    )
    if (samples, temperature) == (5, 0.7):
        assert tiers_of(again)[0].certificate is not None
        return
    with pytest.raises(InputError, match="other confidence .self_consistency:5:0.7, now self_consistency:"):
        tiers_of(again)


def map_file(path: Path, *, slope: float = 1.0, model: str | None = None, signal: str = "logprob") -> str:
    models, prompts = hashes_of([shapes_of(config())["small"]])
    made = ConfidenceMap(
        kind="platt", signals=(signal,), parameters=Sigmoid(slope=slope, intercept=0.0), model=model or models,
        prompt=prompts, n=9, share=0.5, salt="map", created_at=AT,
    )  # fmt: skip
    save(made, path)
    return f'{{ estimator = "fitted", map = "{path}" }}'


def test_another_map_voids_the_certificate_and_the_same_one_under_another_name_does_not(tmp_path: Path) -> None:
    mapped = map_file(tmp_path / "a.json")
    judged = written(certificate_for(config(confidence=mapped)), tmp_path)
    tiers_of(config(judged, confidence=mapped))
    tiers_of(config(judged, confidence=map_file(tmp_path / "copy.json")))
    with pytest.raises(InputError, match="other confidence .fitted:[0-9a-f]{16}, now fitted:"):
        tiers_of(config(judged, confidence=map_file(tmp_path / "b.json", slope=2.0)))


@pytest.mark.parametrize(
    "change,said",
    [
        ({"model": "other"}, "was fitted for another model"),
        ({"signal": "mood"}, 'no confidence signal is called "mood"'),
    ],
)
def test_a_map_of_another_model_or_of_an_unknown_signal_is_refused(
    tmp_path: Path, change: dict[str, str], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        tiers_of(config(confidence=map_file(tmp_path / "a.json", **change)))  # type: ignore[arg-type]


def test_another_adapter_or_file_of_weights_voids_the_certificate(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + b"m" * 99)
    (tmp_path / "a.gguf").write_bytes(b"GGUF" + b"a" * 99)

    def adapted(judged: str) -> Config:
        return parse(
            f'[[tiers]]\nname = "small"\nkind = "embedded"\nmodel = "{tmp_path / "m.gguf"}"\n{judged}\n'
            f'adapters = [{{ path = "{tmp_path / "a.gguf"}" }}]\n[[tiers]]\nname = "large"\nmodel = "l"\n{ENDPOINT}',
            source="corea.toml",
        )

    judged = written(certificate_for(adapted("threshold = 0.5")), tmp_path)
    tiers_of(adapted(judged))
    for name in ("a.gguf", "m.gguf"):
        before = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(b"GGUF" + b"x" * 200)
        with pytest.raises(InputError, match="other models or sampling settings"):
            tiers_of(adapted(judged))
        (tmp_path / name).write_bytes(before)
    tiers_of(adapted(judged))


@pytest.mark.parametrize(
    "settings",
    [
        {"small": "timeout_s = 3"},
        {"small": "max_retries = 0\nmax_connections = 3"},
        {"large": "timeout_s = 9\nmax_connections = 3"},
        {"small": 'on_error = "fail"'},
    ],
)
def test_what_changes_no_answer_leaves_the_certificate_in_force(tmp_path: Path, settings: dict[str, str]) -> None:
    first, _ = tiers_of(config(written(certificate_for(config()), tmp_path), **settings))
    assert first.certificate == certificate_for(config())


@pytest.mark.parametrize("line", ["guards = []", 'guards = ["refusal"]'])
def test_other_guards_void_the_certificate(tmp_path: Path, line: str) -> None:
    named = written(certificate_for(config()), tmp_path)
    with pytest.raises(InputError, match="made for other guards .* set the tier's guards to those"):
        tiers_of(config(named, small=line))


def test_a_domain_of_questions_is_a_guard_that_the_certificate_is_bound_to(tmp_path: Path) -> None:
    for name, word in (("one.json", "apples"), ("two.json", "pears")):
        texts = [f"how many {word} are {'x' * i} more?" for i in range(120)]
        save_domain(fit_domain(texts, data_hash="d", created_at=AT), tmp_path / name)
    named = f'domain = "{tmp_path / "one.json"}"'
    certificate = certificate_for(config(small=named))
    assert certificate.guards[-1].startswith("unlike_certified:0.01:")
    small, _ = tiers_of(config(written(certificate, tmp_path), small=named))
    assert [guard.name for guard in small.guards][-1] == "unlike_certified"
    for other in ("", f'domain = "{tmp_path / "two.json"}"'):
        with pytest.raises(InputError, match="made for other guards"):
            tiers_of(config(written(certificate, tmp_path), small=other))


def test_other_names_and_prices_leave_the_certificate_in_force(tmp_path: Path) -> None:
    made = config(written(certificate_for(config()), tmp_path))
    small, large = made.tiers
    renamed = (small.model_copy(update={"name": "tiny", "prices": None}), large.model_copy(update={"name": "huge"}))
    first, _ = tiers_of(made.model_copy(update={"tiers": renamed}))
    assert (first.name, first.certificate is not None) == ("tiny", True)


def test_a_certificate_is_for_two_tiers(tmp_path: Path) -> None:
    judged = written(certificate_for(config()), tmp_path)
    middle = f'[[tiers]]\nname = "middle"\nmodel = "m"\n{ENDPOINT}threshold = 0.5\n'
    three = parse(
        f'[[tiers]]\nname = "small"\nmodel = "s"\n{ENDPOINT}{judged}\n{middle}'
        f'[[tiers]]\nname = "large"\nmodel = "l"\n{ENDPOINT}',
        source="corea.toml",
    )
    with pytest.raises(ConfigError, match="tiers.small.certificate: a certificate is for two tiers, not 3"):
        tiers_of(three)


def three_tiers(*judged: str) -> Config:
    named = zip(("small", "middle"), judged, strict=True)
    tiers = "".join(f'[[tiers]]\nname = "{name}"\nmodel = "m"\n{ENDPOINT}{own}\n' for name, own in named)
    return parse(f'{tiers}[[tiers]]\nname = "large"\nmodel = "l"\n{ENDPOINT}', source="corea.toml")


def ladder_for(made: Config, path: Path) -> str:
    """A ladder's certificate for this very cascade, named as a tier would name it: small at 0.9, middle not asked."""
    models, prompts = hashes_of(shapes_of(made).values())
    certified = CertifiedLadder(
        rungs=(Rung(tier="small", threshold=0.9, tie_fraction=0.25), Rung(tier="middle", threshold=None)), last="large",
        n=600, max_drop=0.02, delta=0.05, harm=3, gain=1, drop=2 / 600, expected_saving=0.4,
        expected_shares=(0.5, 0.0, 0.5), p_value=0.01,
    )  # fmt: skip
    certificate = LadderCertificate(
        certified=certified, tiers=certified.tiers, signals={"small": "logprob", "middle": "logprob"},
        guards=labels(GUARDS), models_hash=models, prompts_hash=prompts, data_hash="d", created_at=AT,
    )  # fmt: skip
    dump_ladder(certificate, path)
    return f'certificate = "{path}"'


def test_a_ladders_certificate_gives_each_tier_its_threshold(tmp_path: Path) -> None:
    judged = ladder_for(three_tiers("threshold = 0.5", "threshold = 0.5"), tmp_path / "ladder.json")
    small, middle, large = tiers_of(three_tiers(judged, judged))
    assert small.certificate is not None
    assert middle.certificate is not None
    found = [tier.certificate.for_task(None) for tier in (small, middle) if tier.certificate]
    assert [(one.threshold, one.tie_fraction) for one in found if one] == [(0.9, 0.25), (None, 1.0)]
    assert large.certificate is None


def test_a_ladders_certificate_on_one_tier_alone_is_refused(tmp_path: Path) -> None:
    judged = ladder_for(three_tiers("threshold = 0.5", "threshold = 0.5"), tmp_path / "ladder.json")
    with pytest.raises(ConfigError, match="promises for all tiers together; name it as the certificate of each tier"):
        tiers_of(three_tiers(judged, "threshold = 0.5"))


def test_a_ladders_certificate_is_void_once_a_model_changes(tmp_path: Path) -> None:
    judged = ladder_for(three_tiers("threshold = 0.5", "threshold = 0.5"), tmp_path / "ladder.json")
    with pytest.raises(InputError, match="ladder.json"):
        tiers_of(three_tiers(judged, f"{judged}\ntemperature = 0.7"))


@pytest.mark.parametrize(
    "changes,said",
    [
        ({"models_hash": None, "prompts_hash": None}, "made from foreign outcomes"),
        ({"tie_key": "id"}, "splits ties by ids"),
    ],
)
def test_a_certificate_that_no_cascade_can_obey_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        tiers_of(config(written(certificate_for(config(), **changes), tmp_path)))


def test_foreign_outcomes_are_certified_but_run_no_cascade(tmp_path: Path) -> None:
    found = measured()
    foreign = Outcomes(table=found.table, metadata={"tiers": list(found.tiers), "samples": 0, "imported": True})
    certificate = certificate_of(
        foreign, choose(in_force(foreign), "logprob", foreign), Terms(max_drop=0.05), created_at=AT
    )
    assert certificate.promises[0].certified.threshold is not None
    with pytest.raises(InputError, match="foreign outcomes, which do not say what models answered"):
        tiers_of(config(written(certificate, tmp_path)))


@pytest.mark.parametrize(
    "damage,said",
    [
        (lambda text: text[:-20], "damaged, it is not JSON"),
        (lambda text: text.replace('"threshold": 0.5', '"threshold": 0.1'), "was altered"),
        (lambda text: text.replace('"max_drop": 0.02', '"max_drop": 0.01'), "was altered"),
        (lambda text: text.replace('"models_hash": "', '"models_hash": "0'), "was altered"),
        (lambda text: text[: text.rindex(",")] + "}", "was altered"),
        (lambda text: "[" * 100_000, "damaged"),
    ],
)
def test_a_certificate_that_was_damaged_or_altered_is_refused(
    tmp_path: Path, damage: Callable[[str], str], said: str
) -> None:
    made = config(written(certificate_for(config()), tmp_path))
    tiers_of(made)
    (tmp_path / "c.json").write_text(damage((tmp_path / "c.json").read_text()))
    with pytest.raises(InputError, match=said) as caught:
        tiers_of(made)
    assert "\n" not in str(caught.value)


def test_a_certificate_that_was_only_laid_out_anew_is_the_same(tmp_path: Path) -> None:
    made = config(written(certificate_for(config()), tmp_path))
    (tmp_path / "c.json").write_text(json.dumps(json.loads((tmp_path / "c.json").read_text()), sort_keys=True))
    assert tiers_of(made)[0].certificate == certificate_for(config())


def test_a_certificate_that_is_not_there_or_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="none.json cannot be read .No such file or directory.; make a certificate with"
    ):
        tiers_of(config(f'certificate = "{tmp_path / "none.json"}"'))
    with pytest.raises(InputError, match="cannot write .*No such file or directory; choose another --out"):
        dump(certificate_for(config()), tmp_path / "none" / "c.json")
    with pytest.raises(InputError, match="cannot write"):
        dump(certificate_for(config()), tmp_path)
    assert not list(tmp_path.parent.glob("*.partial"))


def test_tiers_can_be_measured_anew_though_their_certificate_and_map_are_void(tmp_path: Path) -> None:
    """Or a change of the model could only be measured by whoever knew which lines to take out."""
    judged = written(certificate_for(config()), tmp_path)
    changed = config(judged, small="max_tokens = 99", confidence=map_file(tmp_path / "a.json", model="other"))
    small, large = tiers_of(changed, to_measure=True)
    assert (small.certificate, small.is_last, large.is_last) == (None, False, True)


def test_a_threshold_on_the_command_line_overrides_a_certificate(tmp_path: Path) -> None:
    judged = written(certificate_for(config()), tmp_path)
    small, _ = tiers_of(config(judged, small="max_tokens = 99").with_threshold(0.3))
    assert (small.certificate, small.threshold) == (None, 0.3)


# Tasks ----------------------------------------------------------------------------------------------------------------


def warned(
    made: Config,
    requests: list[Request],
    caplog: pytest.LogCaptureFixture,
    sampling: Sampling = AS_CONFIGURED,
) -> tuple[list[str], list[Trace]]:
    warn_once.cache_clear()
    with caplog.at_level(logging.WARNING, logger="corea"):
        cascade = Cascade(scripted(made))
        traces = [asyncio.run(cascade.ask(request, sampling=sampling)) for request in requests]
    return [record.getMessage() for record in caplog.records], traces


def of_tasks(*tasks: str | None) -> list[Request]:
    return [Request.of(f"say {4 * i + 8}", task=task, kind="number") for i, task in enumerate(tasks)]


def test_a_task_without_a_promise_is_deferred_with_one_warning_a_task(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    promises = (Promise(task="algebra", certified=certified_at(0.5)),)
    certificate = certificate_for(config(), promises=promises, tasks=("algebra",))
    requests = of_tasks("algebra", "chess-1", "chess-1", "chess-2", None, "chess-1", None)
    told, traces = warned(config(written(certificate, tmp_path)), requests, caplog)
    assert [trace.tier for trace in traces] == ["small"] + ["large"] * 6
    assert len(told) == 3
    assert 'small: the certificate was made for "algebra" and promises nothing about task "chess-1"' in told[0]
    assert 'task "chess-2"' in told[1]
    assert "questions of no task" in told[2]


def test_a_promise_for_all_tasks_together_is_used_for_another_with_one_warning_a_task(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certificate = certificate_for(config(), tasks=("physics",))
    requests = of_tasks("physics", None, "poetry", "poetry")
    told, traces = warned(config(written(certificate, tmp_path)), requests, caplog)
    assert [trace.tier for trace in traces] == ["small"] * 4
    (only,) = told
    assert 'made on "physics"; what it promises was not shown for task "poetry"' in only


def test_of_many_tasks_a_warning_names_a_few() -> None:
    many = tuple(f"t{i:02}" for i in range(57))
    promises = tuple(Promise(task=name, certified=certified_at(0.5)) for name in many)
    for certificate in (certificate_for(config(), tasks=many), certificate_for(config(), promises=promises)):
        warning = str(certificate.warning("x"))
        assert '"t04" and 52 more' in warning
        assert "t05" not in warning


@pytest.mark.parametrize("sampling,warns", [(Sampling(temperature=1.0), True), (Sampling(user="ann"), False)])
def test_sampling_that_was_not_certified_is_followed_with_one_warning(
    sampling: Sampling, warns: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = config(written(certificate_for(config()), tmp_path))
    told, traces = warned(made, [Request.of("say 8", task="toy")] * 2, caplog, sampling)
    assert [trace.tier for trace in traces] == ["small"] * 2
    assert len(told) == int(warns)
    assert all("other sampling settings" in one for one in told)


def test_a_question_that_brings_its_own_instruction_is_answered_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It replaces the tier's own, and so was not in the outcomes that certified."""
    own = (Message(role="system", content="Be brief."), Message(role="user", content="say 8"))
    made = config(written(certificate_for(config()), tmp_path))
    told, traces = warned(made, [Request(messages=own, kind="number", task="toy")] * 2, caplog)
    assert [trace.tier for trace in traces] == ["small"] * 2
    (only,) = told
    assert "was not shown for questions with a system message" in only
