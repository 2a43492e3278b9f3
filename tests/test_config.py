"""Configuration: what is accepted, and the one line that each mistake gets."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from pydantic import ValidationError

from corea.config import Config, EmbeddedTier, api_key_of, default, parse, template
from corea.errors import ConfigError

SMALL = '[[tiers]]\nname = "small"\nkind = "embedded"\nmodel = "qwen2.5-coder-0.5b"\nthreshold = 0.9\n'
LARGE = '[[tiers]]\nname = "large"\nkind = "embedded"\nmodel = "qwen2.5-coder-1.5b"\n'
REMOTE = '[[tiers]]\nname = "remote"\nkind = "openai"\nbase_url = "http://127.0.0.1:1/v1"\nmodel = "m"\n'


def mistake(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse(text, source="corea.toml")
    assert "\n" not in str(caught.value)
    assert "corea.toml" in str(caught.value)
    return caught.value


def test_the_built_in_configuration_is_valid_and_is_what_init_writes() -> None:
    assert default() == parse(template(), source="template")
    assert [tier.name for tier in default().tiers] == ["small", "large"]


def test_a_configuration_is_frozen() -> None:
    with pytest.raises(ValidationError):
        default().cascade.deadline_s = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    "text,field,words",
    [
        (SMALL.replace("threshold", "treshold") + LARGE, "tiers[0].treshold", 'did you mean "threshold"?'),
        ("[cascad]\n" + SMALL + LARGE, "cascad", 'did you mean "cascade"?'),
        ("[cascade]\ndeadlines = 3\n" + SMALL + LARGE, "cascade.deadlines", 'did you mean "deadline_s"?'),
        (SMALL + "zzz = 1\n" + LARGE, "tiers[0].zzz", "unknown key; remove it"),
        (
            SMALL + 'confidence = { estimater = "logprob" }\n' + LARGE,
            "tiers[0].confidence.estimater",
            'did you mean "estimator"?',
        ),
        (SMALL.replace("0.9", "1.5") + LARGE, "tiers[0].threshold", "less than or equal to 1, not 1.5"),
        (SMALL.replace("0.9", "-0.1") + LARGE, "tiers[0].threshold", "greater than or equal to 0"),
        (SMALL.replace("0.9", "nan") + LARGE, "tiers[0].threshold", "not nan"),
        (SMALL.replace("threshold = 0.9\n", "") + LARGE, "tiers[0].threshold", "needs a threshold"),
        (SMALL + LARGE + "threshold = 0.5\n", "tiers[1].threshold", "last tier"),
        (LARGE + "threshold = 0.9\n" + SMALL.replace("threshold = 0.9\n", ""), "tiers", "go from cheap to dear"),
        (SMALL + SMALL.replace("threshold = 0.9\n", ""), "tiers", 'two tiers are called "small"'),
        (SMALL + LARGE.replace("embedded", "magic"), "tiers[1]", 'kind must be "embedded", "openai" or "provider"'),
        (SMALL + '[[tiers]]\nname = "x"\nmodel = "m"\n', "tiers[1]", "kind must be"),
        (SMALL + LARGE.replace('model = "qwen2.5-coder-1.5b"\n', ""), "tiers[1].model", "is missing; add it"),
        ("", "tiers", "is missing; add it"),
        ("tiers = []", "tiers", "at least 1"),
        (
            SMALL + 'confidence = { estimator = "logprob", ask = "inline" }\n' + LARGE,
            "tiers[0].confidence",
            'asks by none, not "inline"',
        ),
        (SMALL + REMOTE.replace("http://127.0.0.1:1/v1", "127.0.0.1"), "tiers[1].base_url", "not '127.0.0.1'"),
        ("[cascade]\ndeadline_s = 0\n" + SMALL + LARGE, "cascade.deadline_s", "greater than 0"),
        (SMALL.replace('"small"', '"a b"') + LARGE, "tiers[0].name", "not 'a b'"),
    ],
)
def test_a_mistake_is_told_in_one_line_with_its_field_and_the_mend(text: str, field: str, words: str) -> None:
    error = mistake(text)
    assert error.field == field
    assert words in str(error)


def test_text_that_is_not_toml_names_the_place() -> None:
    assert "line 1" in str(mistake("this is not = = toml"))


def test_prices_given_by_the_user_decide_the_order() -> None:
    dear = SMALL + "prices = { input = 5, output = 5 }\n"
    assert mistake(dear + LARGE).field == "tiers"
    parse(dear + LARGE + "prices = { input = 10, output = 10 }\n", source="corea.toml")


def test_tiers_of_unknown_price_are_not_put_in_order() -> None:
    assert len(parse(SMALL + REMOTE, source="corea.toml").tiers) == 2


def test_with_threshold_changes_every_tier_but_the_last() -> None:
    three = parse(SMALL + SMALL.replace('"small"', '"middle"') + LARGE, source="x").with_threshold(0.3)
    assert [tier.threshold for tier in three.tiers] == [0.3, 0.3, None]


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_with_threshold_refuses_what_is_no_probability(threshold: float) -> None:
    with pytest.raises(ConfigError, match="outside"):
        default().with_threshold(threshold)


def test_a_key_is_read_from_the_environment_it_names() -> None:
    config = parse(SMALL + REMOTE + 'api_key_env = "SOME_KEY"\n', source="x")
    remote = config.tiers[1]
    assert not isinstance(remote, EmbeddedTier)
    assert api_key_of(remote, {"SOME_KEY": " secret \n"}) == "secret"
    assert "secret" not in repr(config)


@pytest.mark.parametrize("environ", [{}, {"SOME_KEY": "  "}])
def test_a_missing_key_names_the_variable_and_the_command(environ: dict[str, str]) -> None:
    remote = parse(SMALL + REMOTE + 'api_key_env = "SOME_KEY"\n', source="x").tiers[1]
    assert not isinstance(remote, EmbeddedTier)
    with pytest.raises(ConfigError, match="export SOME_KEY="):
        api_key_of(remote, environ)


def test_the_file_is_found_by_argument_then_environment_then_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Config.load() == default()
    for name, deadline in (("corea.toml", 1), ("env.toml", 2), ("arg.toml", 3)):
        (tmp_path / name).write_text(f"[cascade]\ndeadline_s = {deadline}\n{SMALL}{LARGE}")
    assert Config.load().cascade.deadline_s == 1
    monkeypatch.setenv("COREA_CONFIG", str(tmp_path / "env.toml"))
    assert Config.load().cascade.deadline_s == 2
    assert Config.load(tmp_path / "arg.toml").cascade.deadline_s == 3


def test_a_file_that_is_not_there_says_how_to_write_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="corea config init"):
        Config.load(tmp_path / "none.toml")


def test_every_configuration_key_is_in_the_readme() -> None:
    from corea.config import (
        Adapter,
        CascadeConfig,
        ConfidenceConfig,
        LedgerConfig,
        OpenAITier,
        PriceConfig,
        ProviderTier,
    )

    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    sections = (
        CascadeConfig,
        LedgerConfig,
        EmbeddedTier,
        OpenAITier,
        ProviderTier,
        ConfidenceConfig,
        PriceConfig,
        Adapter,
    )
    keys = {key for section in sections for key in section.model_fields}
    assert not {key for key in keys if f"`{key}`" not in readme}


def test_secrets_are_no_fields() -> None:
    assert not dataclasses.is_dataclass(Config)
    assert "api_key" not in {key for tier in default().tiers for key in type(tier).model_fields}
