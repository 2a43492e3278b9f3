"""Hashes of what a tier's answers depend on: they change with whatever changes answers, and with nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from corea.confidence.fitted import ConfidenceMap, Sigmoid, checksum, save
from corea.confidence.protocol import PLAIN_PROMPT
from corea.config import ConfidenceConfig, Config, parse
from corea.errors import ConfigError, InputError
from corea.identity import (
    as_last,
    asks_in_a_second_turn,
    asks_inline,
    fingerprint,
    hash_of,
    hashes_of,
    shapes_of,
    signal_label,
    signal_of,
    way_of,
)
from corea.policy.certificate import Certificate, Certified, Promise, dump

OPENAI = 'kind = "openai"\nbase_url = "http://127.0.0.1:1/v1"\nmodel = "m"\n'
LARGE = f'[[tiers]]\nname = "large"\n{OPENAI}'


def config(small: str = "", large: str = "", *, threshold: str = "threshold = 0.5\n") -> Config:
    return parse(f'[[tiers]]\nname = "small"\n{OPENAI}{threshold}{small}{LARGE}{large}', source="corea.toml")


def embedded(folder: Path, more: str = "") -> Config:
    """A model file of one's own as the small tier."""
    text = (
        f'[[tiers]]\nname = "small"\nkind = "embedded"\nmodel = "{folder / "m.gguf"}"\nthreshold = 0.5\n{more}{LARGE}'
    )
    return parse(text, source="corea.toml")


def provider(name: str) -> Config:
    tier = f'[[tiers]]\nname = "small"\nkind = "provider"\nprovider = "{name}"\nmodel = "m"\nthreshold = 0.5\n'
    return parse(tier + LARGE, source="corea.toml")


def hashes(made: Config) -> tuple[str, str]:
    return hashes_of(shapes_of(made).values())


def map_of(signal: str, *, slope: float = 1.0) -> ConfidenceMap:
    return ConfidenceMap(
        kind="platt", signals=(signal,), parameters=Sigmoid(slope=slope, intercept=0.0), model="m", prompt="p", n=9,
        share=0.5, salt="map", created_at="2026-01-01T00:00:00Z",
    )  # fmt: skip


@pytest.mark.parametrize(
    "small,large",
    [
        ("max_tokens = 99\n", ""),
        ("temperature = 0.5\n", ""),
        ("", "max_tokens = 99\n"),
        ("extra_body = { top_p = 0.5 }\n", ""),
        ("", "extra_body = { chat_template_kwargs = { enable_thinking = false } }\n"),
    ],
)
def test_what_changes_answers_changes_the_models_hash(small: str, large: str) -> None:
    plain, changed = hashes(config()), hashes(config(small, large))
    assert changed[0] != plain[0]
    assert changed[1] == plain[1]


@pytest.mark.parametrize("old,new", [('model = "m"', 'model = "n"'), ("127.0.0.1:1", "127.0.0.1:2")])
def test_another_model_or_endpoint_changes_the_models_hash(old: str, new: str) -> None:
    text = f'[[tiers]]\nname = "small"\n{OPENAI}threshold = 0.5\n{LARGE}'
    changed = parse(text.replace(old, new, 1), source="corea.toml")
    assert hashes(changed)[0] != hashes(config())[0]
    assert hashes(changed)[1] == hashes(config())[1]


def test_the_same_model_name_at_another_provider_is_another_model() -> None:
    assert hashes(provider("mistral"))[0] != hashes(provider("groq"))[0]


@pytest.mark.parametrize(
    "small,large",
    [
        ('system_prompt = "Be brief."\n', ""),
        ("", 'system_prompt = "Be brief."\n'),
        ('confidence = { estimator = "verbalized" }\n', ""),
    ],
)
def test_what_the_models_are_told_changes_the_prompts_hash(small: str, large: str) -> None:
    plain, changed = hashes(config()), hashes(config(small, large))
    assert changed[1] != plain[1]
    assert changed[0] == plain[0]


@pytest.mark.parametrize(
    "small,large",
    [
        ("prices = { input = 1, output = 1 }\n", "prices = { input = 9, output = 9 }\n"),
        ("timeout_s = 3\n", "timeout_s = 3\n"),
        ('on_error = "fail"\n', ""),
        ("max_retries = 0\nmax_connections = 3\n", 'api_key_env = "SOME_KEY"\n'),
        ('confidence = { estimator = "p_true" }\n', ""),
        ('confidence = { estimator = "self_consistency", samples = 9 }\n', ""),
        ("", 'confidence = { estimator = "verbalized" }\n'),
    ],
)
def test_what_changes_no_answer_changes_no_hash(small: str, large: str) -> None:
    assert hashes(config(small, large)) == hashes(config())


def test_neither_names_nor_thresholds_nor_the_cascades_settings_are_part_of_it() -> None:
    text = f'[cascade]\ndeadline_s = 9\n[[tiers]]\nname = "tiny"\n{OPENAI}threshold = 0.9\n{LARGE}'
    assert hashes(parse(text.replace('"large"', '"huge"'), source="x")) == hashes(config())


def test_the_last_tier_is_not_asked_how_sure_it_is() -> None:
    three = parse(f'[[tiers]]\nname = "small"\n{OPENAI}threshold = 0.5\n{LARGE}threshold = 0.5\n'
                  f'[[tiers]]\nname = "last"\n{OPENAI}', source="x")  # fmt: skip
    small, middle, last = shapes_of(three).values()
    assert hash_of(small) == hash_of(middle) != hash_of(last)
    assert hash_of(as_last(middle)) == hash_of(last)
    assert not asks_inline(small)
    for custom in ("", 'system_prompt = "Be brief."\n'):
        assert asks_inline(shapes_of(config(f'confidence = {{ estimator = "expected" }}\n{custom}'))["small"])


def test_a_shape_holds_the_prompt_of_every_kind_of_question() -> None:
    prompts = shapes_of(config())["small"]["prompts"]
    assert prompts["any"] == PLAIN_PROMPT
    assert set(prompts) == {"any", "number", "expression", "choice", "boolean", "text", "code"}
    assert prompts["choice"] != prompts["any"]


def test_a_shape_survives_the_journey_through_json() -> None:
    made = config('extra_body = { top_p = 0.5, stop = ["x"] }\n')
    again = json.loads(json.dumps(list(shapes_of(made).values())))
    assert hashes_of(again) == hashes(made)


# Files ----------------------------------------------------------------------------------------------------------------


def test_adapters_count_by_what_they_hold_and_how_strongly_not_by_their_name(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + b"m" * 100)
    (tmp_path / "a.gguf").write_bytes(b"GGUFaaaa")

    def adapted(name: str, scale: float = 1.0) -> str:
        made = embedded(tmp_path, f'adapters = [{{ path = "{tmp_path / name}", scale = {scale} }}]\n')
        return hashes(made)[0]

    first = adapted("a.gguf")
    assert first != hashes(embedded(tmp_path))[0]
    assert adapted("a.gguf", scale=0.5) != first
    (tmp_path / "a.gguf").rename(tmp_path / "b.gguf")
    assert adapted("b.gguf") == first
    # Of the same length, in the same moment: only the bytes differ.
    stamp = (tmp_path / "b.gguf").stat()
    (tmp_path / "b.gguf").write_bytes(b"GGUFbbbb")
    os.utime(tmp_path / "b.gguf", ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    assert adapted("b.gguf") != first


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: b"GGUG" + raw[4:],
        lambda raw: raw[:-1] + b"x",
        lambda raw: raw + b"m",
        lambda raw: b"GGUF" + b"n" * (len(raw) - 4),
    ],
)
@pytest.mark.parametrize("size", [0, 100, 5_000_000])
def test_a_model_file_of_ones_own_counts_by_what_it_holds(
    tmp_path: Path, change: Callable[[bytes], bytes], size: int
) -> None:
    raw = b"GGUF" + b"m" * (size + 1)
    for folder, content in (("one", raw), ("two", raw), ("three", change(raw))):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "m.gguf").write_bytes(content)
    one, two, three = (hashes(embedded(tmp_path / folder))[0] for folder in ("one", "two", "three"))
    assert one == two, "the same file elsewhere is the same model"
    assert one != three


def test_a_catalogue_model_is_the_bytes_that_the_catalogue_promises() -> None:
    text = f'[[tiers]]\nname = "small"\nkind = "embedded"\nmodel = "qwen2.5-coder-0.5b"\nthreshold = 0.5\n{LARGE}'
    shape = shapes_of(parse(text, source="x"))["small"]
    assert shape["sha256"] == "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"
    assert hash_of(shapes_of(parse(text.replace("qwen2", "Qwen2"), source="x"))["small"]) == hash_of(shape)


def test_a_file_that_is_not_there_is_told() -> None:
    with pytest.raises(ConfigError, match="m.gguf cannot be read .No such file or directory.; correct its path"):
        shapes_of(embedded(Path("/nowhere")))


# Signals --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written,label,way",
    [
        ({}, "logprob", "none"),
        ({"estimator": "p_true"}, "p_true", "followup"),
        ({"estimator": "verbalized"}, "verbalized", "inline"),
        ({"estimator": "expected", "ask": "inline"}, "expected", "inline"),
        ({"estimator": "expected", "ask": "followup"}, "expected_followup", "followup"),
        ({"estimator": "verbalized", "ask": "followup"}, "verbalized_followup", "followup"),
        ({"estimator": "self_consistency"}, "self_consistency:5:0.7", "none"),
        ({"estimator": "self_consistency", "samples": 8, "temperature": 1}, "self_consistency:8:1", "none"),
    ],
)
def test_a_signal_has_a_name_that_holds_whatever_decides_its_value(
    written: dict[str, object], label: str, way: str
) -> None:
    made = ConfidenceConfig.model_validate(written)
    assert (signal_of(made), way_of(made)) == (label, way)
    assert asks_in_a_second_turn(made) == label.endswith("_followup")


def test_a_map_is_named_by_its_checksum_and_asks_as_its_signals_do(tmp_path: Path) -> None:
    made = {}
    for name, one in (
        ("a", map_of("logprob")), ("b", map_of("logprob", slope=2)), ("c", map_of("expected")), ("d", map_of("p_true")),
    ):  # fmt: skip
        save(one, tmp_path / name)
        made[name] = ConfidenceConfig(estimator="fitted", map=tmp_path / name)
    assert signal_of(made["a"]) == signal_label("fitted", map_checksum=checksum(map_of("logprob")))
    assert len({signal_of(one) for one in made.values()}) == 4
    assert [way_of(one) for one in made.values()] == ["none", "none", "inline", "none"]
    (tmp_path / "a").rename(tmp_path / "e")
    assert signal_of(ConfidenceConfig(estimator="fitted", map=tmp_path / "e")) == signal_label(
        "fitted", map_checksum=checksum(map_of("logprob"))
    )


def test_a_map_that_is_not_there_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fit a confidence map first"):
        signal_of(ConfidenceConfig(estimator="fitted", map=tmp_path / "none"))


# A batch's rows never mix ---------------------------------------------------------------------------------------------


def test_whatever_changes_a_decision_changes_the_fingerprint(tmp_path: Path) -> None:
    certified = Certified(
        threshold=0.5, tie_fraction=1.0, n=9, max_drop=0.02, delta=0.05, kept=9, harm=0, gain=0, drop=0.0,
        expected_saving=None, expected_deferral_rate=0.0, p_value=0.01,
    )  # fmt: skip
    for name, data_hash in (("c.json", "d1"), ("d.json", "d2")):
        made = Certificate(
            promises=(Promise(certified=certified),), small="small", large="large", signal="logprob", models_hash="m",
            prompts_hash="p", data_hash=data_hash, created_at="2026-01-01T00:00:00+00:00",
        )  # fmt: skip
        dump(made, tmp_path / name)
    made_of = [
        config(),
        config("max_tokens = 9\n"),
        config('confidence = { estimator = "p_true" }\n'),
        config(threshold="threshold = 0.6\n"),
        config("guards = []\n"),
        config(threshold=f'certificate = "{tmp_path / "c.json"}"\n'),
        config(threshold=f'certificate = "{tmp_path / "d.json"}"\n'),
    ]
    prints = [fingerprint(one) for one in made_of]
    assert len(set(prints)) == len(prints)
    assert fingerprint(config("timeout_s = 3\n")) == prints[0]
