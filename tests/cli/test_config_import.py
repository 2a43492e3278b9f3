"""LiteLLM's configuration as ours: what comes over, what is said of the rest, and that no secret does."""

from __future__ import annotations

import json
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from corea.cli import main
from corea.config import Config, OpenAITier, ProviderTier, parse
from corea.errors import InputError
from corea.importing import toml_text, yaml_text
from corea.importing.deployments import NOWHERE, PROVIDERS, as_number, cleaned_address
from corea.importing.litellm import Imported, convert

CANARY = "c4n4ry"

FILE = """
model_list:
  - model_name: gpt-4o
    litellm_params: &gpt
      model: openai/gpt-4o
      api_key: sk-c4n4ry
      timeout: 600
      max_retries: 4
  - model_name: local
    litellm_params:
      model: hosted_vllm/Qwen/Qwen2.5-7B-Instruct
      api_base: http://127.0.0.1:8000/v1
      api_key: none
      input_cost_per_token: 3e-8
      output_cost_per_token: 0.00000003
      rpm: 480
      max_parallel_requests: 50
  - model_name: gpt-4o
    litellm_params:
      <<: *gpt
      api_base: https://eu.example.com/v1
  - model_name: embed
    litellm_params: {model: openai/text-embedding-3-small}
    model_info: {mode: embedding}
litellm_settings:
  num_retries: 1
  turn_off_message_logging: true
  callbacks: ["otel"]
  cache: true
router_settings:
  routing_strategy: least-busy
general_settings:
  master_key: os.environ/LITELLM_MASTER_KEY
  database_url: "postgresql://u:c4n4ry@db/litellm"
  max_request_size_mb: 2
environment_variables:
  REDIS_PASSWORD: c4n4ry
"""


def imported(text: str, **names: Any) -> Imported:
    return convert(yaml_text.parse(text.encode(), source="config.yaml"), environ={}, **names)


def loaded(found: Imported) -> Config:
    return parse(found.toml, source="corea.toml")


def two(first: dict[str, Any], second: dict[str, Any] | None = None, **sections: Any) -> str:
    """A file of two models, of which the first is free."""
    free = {"input_cost_per_token": 0, "output_cost_per_token": 0}
    entries = [
        {"model_name": "a", "litellm_params": {**free, **first}},
        {"model_name": "b", "litellm_params": {"model": "gpt-4o", **(second or {})}},
    ]
    return str(yaml.safe_dump({"model_list": entries, **sections}))


def test_models_become_tiers_cheapest_first_with_prices_keys_and_times() -> None:
    found = imported(FILE)
    config = loaded(found)
    small, large = config.tiers
    assert isinstance(small, OpenAITier)
    assert isinstance(large, OpenAITier)
    assert found.tiers == ("local", "gpt-4o") == (small.name, large.name)
    assert (small.model, small.base_url, small.api_key_env) == (
        "Qwen/Qwen2.5-7B-Instruct",
        "http://127.0.0.1:8000/v1",
        None,
    )
    assert small.prices is not None
    assert (small.prices.input, small.prices.output) == (0.03, 0.03)
    assert (small.max_connections, small.max_retries, small.threshold) == (50, 1, 0.9)
    assert (large.base_url, large.api_key_env) == ("https://api.openai.com/v1", "GPT_4O_API_KEY")
    assert (large.timeout_s, large.max_retries, config.cascade.deadline_s) == (600.0, 4, 600.0)
    gateway = config.gateway
    assert (gateway.api_key_env, gateway.otel, gateway.max_body_bytes) == ("LITELLM_MASTER_KEY", True, 2 * 1024**2)
    assert config.ledger.store_texts is False


def test_what_has_no_counterpart_is_told_place_by_place_and_written_into_the_file() -> None:
    found = imported(FILE)
    told = {remark.partition(": ")[0] for remark in found.remarks}
    assert told == {
        "model_list[0].litellm_params.api_key",
        "model_list[1].litellm_params.api_key",
        "model_list[1]",
        "model_list[2]",
        "model_list[3]",
        "litellm_settings.callbacks",
        "litellm_settings.cache",
        "router_settings.routing_strategy",
        "general_settings.database_url",
        "environment_variables.REDIS_PASSWORD",
    }
    assert all(f"# - {remark}\n" in found.toml for remark in found.remarks)
    assert "corea keys create --rpm 480" in found.toml
    assert "run: export GPT_4O_API_KEY=…, and renew that key" in found.toml
    assert CANARY not in found.toml


@pytest.mark.parametrize(
    "params,expected",
    [
        ({"model": "gpt-4o-mini"}, ("https://api.openai.com/v1", "gpt-4o-mini", "OPENAI_API_KEY")),
        ({"model": "openai/x", "api_base": "http://h:1/v1"}, ("http://h:1/v1", "x", None)),
        ({"model": "x/y", "custom_llm_provider": "openai", "api_base": "http://h/v1"}, ("http://h/v1", "x/y", None)),
        ({"model": "ollama/llama3"}, ("http://localhost:11434/v1", "llama3", None)),
        ({"model": "ollama_chat/l:8b", "api_base": "http://o:11434/"}, ("http://o:11434/v1", "l:8b", None)),
        ({"model": "hosted_vllm/q", "api_base": "http://v/v1", "api_key": "os.environ/K"}, ("http://v/v1", "q", "K")),
        ({"model": "hosted_vllm/q"}, (NOWHERE, "q", None)),
        ({"model": "hosted_vllm/q", "api_base": "os.environ/B"}, ("http://b/v1", "q", None)),
        ({"model": "hosted_vllm/q", "api_base": "os.environ/MISSING"}, (NOWHERE, "q", None)),
    ],
)
def test_each_openai_like_model_keeps_its_address(
    params: dict[str, Any], expected: tuple[str, str, str | None]
) -> None:
    tier = loaded(convert(yaml.safe_load(two(params)), environ={"B": "http://b/v1"})).tiers[0]
    assert isinstance(tier, OpenAITier)
    assert (tier.base_url, tier.model, tier.api_key_env) == expected


@pytest.mark.parametrize(
    "model,expected",
    [
        ("anthropic/claude-sonnet-4-5", ("anthropic", "claude-sonnet-4-5")),
        ("claude-sonnet-4-5", ("anthropic", "claude-sonnet-4-5")),
        ("azure/my-gpt", ("azureopenai", "my-gpt")),
        ("bedrock/converse/anthropic.claude-v2:1", ("bedrock", "anthropic.claude-v2:1")),
        ("vertex_ai/gemini-2.5-pro", ("vertexai", "gemini-2.5-pro")),
        ("together_ai/meta-llama/Llama-3-8b", ("together", "meta-llama/Llama-3-8b")),
    ],
)
def test_other_providers_become_tiers_of_any_llm_and_what_they_need_is_said(
    model: str, expected: tuple[str, str]
) -> None:
    found = imported(two({"model": model}))
    tier = loaded(found).tiers[0]
    assert isinstance(tier, ProviderTier)
    assert (tier.provider, tier.model) == expected
    assert f"any-llm-sdk[{tier.provider}]" in found.toml


def test_any_llm_knows_every_provider_that_is_named() -> None:
    constants = pytest.importorskip("any_llm.constants")
    assert set(PROVIDERS.values()) <= {provider.value for provider in constants.LLMProvider}


@pytest.mark.parametrize("why", ["replicate/x/y", "openai/*", "nonsense", 7, None, ""])
def test_a_model_that_cannot_be_a_tier_is_said_to_be_none(why: object) -> None:
    document = yaml.safe_load(two({"model": "openai/x"}))
    document["model_list"].append({"model_name": "odd", "litellm_params": {"model": why}})
    found = convert(document, environ={})
    assert found.tiers == ("a", "b")
    assert any(remark.startswith("model_list[2]: no tier: ") for remark in found.remarks)


def test_two_of_many_are_chosen_by_name_and_the_others_are_listed() -> None:
    document = yaml.safe_load(two({"model": "openai/x"}))
    document["model_list"].append({"model_name": "c", "litellm_params": {"model": "gpt-4o-mini"}})
    assert convert(document, environ={}).tiers == ("a", "c", "b")
    for names in ({"small": "c"}, {"small": "c", "large": "b"}):
        found = convert(document, environ={}, **names)
        assert found.tiers == ("c", "b")
        assert "model_list[0]: a is not part of the cascade, and clients can't reach it here" in found.remarks
    assert convert(document, environ={}, large="c").tiers == ("a", "c")


@pytest.mark.parametrize(
    "names,told",
    [
        ({"small": "b", "large": "a"}, "'b' costs more than 'a'; name them the other way round"),
        ({"small": "a", "large": "a"}, "name the same model"),
        ({"small": "z"}, "--small: no model 'z' can be a tier; there are: a, b"),
    ],
)
def test_a_choice_that_makes_no_cascade_is_refused(names: dict[str, str], told: str) -> None:
    with pytest.raises(InputError, match=told):
        imported(two({"model": "openai/x"}), **names)


def test_where_a_price_is_unknown_both_ends_must_be_named() -> None:
    text = two({"model": "openai/nobody-knows-it", "input_cost_per_token": None}, {"model": "gpt-4o"})
    with pytest.raises(InputError, match=r"no price of 'a' is known.*--small NAME --large NAME"):
        imported(text)
    found = imported(text, small="a", large="b")
    assert loaded(found).tiers[0].prices is None
    assert any("cost will be unknown" in remark for remark in found.remarks)


@pytest.mark.parametrize("text", ["", "[]", "a: b", "model_list: {}", "model_list: []", two({"model": "?"})])
def test_a_file_that_makes_no_cascade_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"no model_list|needs two models"):
        imported(text)


def test_names_are_mended_and_clients_are_told() -> None:
    document = yaml.safe_load(two({"model": "openai/x"}))
    document["model_list"][0]["model_name"] = "corea"
    document["model_list"][1]["model_name"] = "große/Modelle 4"
    found = convert(document, environ={})
    assert found.tiers == ("corea-2", "gro-e-Modelle-4")
    assert any("clients who asked for große/Modelle 4 name the tier gro-e-Modelle-4" in told for told in found.remarks)


def test_a_bomb_of_aliases_or_merges_costs_nothing() -> None:
    for link in ("{{{n}: [{refs}]}}", "{{<<: [{refs}]}}"):
        lines = ["k0: &k0 {a: x, b: x, c: x, d: x}"]
        lines += [f"k{n}: &k{n} " + link.format(n=n, refs=", ".join([f"*k{n - 1}"] * 9)) for n in range(1, 15)]
        found = imported("\n".join([*lines, two({"model": "openai/x"})]))
        assert found.tiers == ("a", "b")


@pytest.mark.parametrize(
    "text",
    [
        "a: [c4n4ry",
        "a: *c4n4ry",
        "a: !c4n4ry x",
        "!!python/object/apply:os.system [c4n4ry]",
        "a: 2024-99-99",
        "a: !!int ''",
        "a: !!bool c4n4ry",
        "[" * 3000,
        "a: \0",
    ],
)
def test_what_is_no_yaml_is_refused_in_one_line_that_quotes_nothing(text: str) -> None:
    with pytest.raises(InputError, match=r"^config\.yaml: .*; correct it$") as caught:
        imported(text)
    assert CANARY not in str(caught.value)


def test_a_file_that_is_too_large_or_not_utf_8_is_refused() -> None:
    with pytest.raises(InputError, match="larger than"):
        yaml_text.parse(b" " * (yaml_text.MOST_BYTES + 1), source="f")
    with pytest.raises(InputError, match="not UTF-8"):
        yaml_text.parse(b"a: \xff", source="f")


LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**30), 10**30), st.floats(), st.text(max_size=20), st.just(CANARY)
)
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
MODELS = st.sampled_from(["openai/x", "gpt-4o", "azure/d", "bedrock/m", "ollama/l", "hosted_vllm/q", "x", "*"])
OPTIONAL: dict[Any, st.SearchStrategy[Any]] = (
    {
        name: ANYTHING | st.sampled_from(["1e-6", "os.environ/A", "http://h/v1", "http://[", "http://u:p@h:x/"])
        for name in (
            "api_base", "api_key", "timeout", "max_retries", "max_tokens", "temperature", "rpm", "tpm", "extra",
            "input_cost_per_token", "output_cost_per_token", "cache_read_input_token_cost", "max_parallel_requests",
            "custom_llm_provider",
        )
    }
)  # fmt: skip
PARAMS = st.fixed_dictionaries({"model": MODELS | ANYTHING}, optional=OPTIONAL)
SOUND = st.fixed_dictionaries({"model": st.sampled_from(["openai/x", "azure/d", "ollama/l"])}, optional=OPTIONAL)
ENTRIES = st.fixed_dictionaries(
    {}, optional={"model_name": st.sampled_from("abc") | ANYTHING, "litellm_params": PARAMS, "model_info": ANYTHING}
)
SECTION = st.dictionaries(
    st.sampled_from(["master_key", "num_retries", "timeout", "request_timeout", "max_request_size_mb", "json_logs",
                     "callbacks", "turn_off_message_logging", "global_max_parallel_requests"]), ANYTHING
)  # fmt: skip
DOCUMENTS = st.fixed_dictionaries(
    {"model_list": st.lists(ENTRIES, max_size=5)},
    optional={
        "general_settings": SECTION, "litellm_settings": SECTION, "router_settings": SECTION,
        "environment_variables": ANYTHING, "other": ANYTHING,
    },
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(document=DOCUMENTS)
def test_whatever_is_in_the_file_the_result_loads_or_the_refusal_says_what_to_do(document: Any) -> None:
    try:
        found = convert(document, environ={})
    except InputError:
        return
    names = [tier.name for tier in loaded(found).tiers]
    assert tuple(names) == found.tiers
    assert len(names) >= 2


@settings(max_examples=40, deadline=None)
@given(document=DOCUMENTS, params=st.tuples(SOUND, SOUND))
def test_two_sound_models_are_a_cascade_whatever_else_is_said_of_them(document: Any, params: Any) -> None:
    for name, given_params in zip("ab", params, strict=True):
        for prices in ("input_cost_per_token", "output_cost_per_token"):
            given_params.pop(prices, None)
        given_params.pop("custom_llm_provider", None)
        document["model_list"].insert(0, {"model_name": name, "litellm_params": given_params})
    found = convert(document, small="a", large="b", environ={"A": "http://a/v1"})
    assert [tier.name for tier in loaded(found).tiers] == ["a", "b"]


SECRET_PLACES = (
    "api_key", "aws_secret_access_key", "vertex_credentials", "extra_headers", "extra_body", "azure_ad_token",
    "organization", "configurable_clientside_auth_params", "anything_new",
)  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(
    place=st.sampled_from(SECRET_PLACES),
    shape=st.sampled_from([CANARY, f"sk-{CANARY}", [CANARY], {"Authorization": f"Bearer {CANARY}"}, f"{CANARY}\n"]),
    address=st.sampled_from(
        [
            "http://h/v1",
            f"http://u:{CANARY}@h/v1",
            f"http://h/v1?k={CANARY}",
            f"http://h/#{CANARY}",
            f"http://u:/{CANARY}@h",
        ]
    ),
)
def test_no_secret_in_the_file_reaches_the_result(place: str, shape: Any, address: str) -> None:
    params = {"model": "openai/x", "api_base": address, place: shape}
    sections = {"general_settings": {"master_key": CANARY, place: shape}, "environment_variables": {"A": CANARY}}
    found = imported(two(params, {"model": "azure/y", **params}, **sections), small="a", large="b")
    assert CANARY not in found.toml
    assert CANARY not in "".join(found.remarks)
    assert loaded(found).gateway.api_key_env == "COREA_API_KEY"


@given(st.text(), st.text())
def test_texts_and_comments_come_back_from_toml(text: str, words: str) -> None:
    import tomllib

    written = f"{toml_text.comment(words)}\nvalue = {toml_text.text(text)}\n"
    assert tomllib.loads(written) == {"value": text}


@pytest.mark.parametrize(
    "value,number",
    [("1e-06", "0.000001"), (3e-8, "3E-8"), (5, "5"), (True, None), ("nan", None), (float("inf"), None), ("x", None),
     ("1e999999999", None), ([1], None)],
)  # fmt: skip
def test_numbers_are_read_as_yaml_writes_them(value: object, number: str | None) -> None:
    assert as_number(value) == (None if number is None else Decimal(number))


@pytest.mark.parametrize("odd", ["ftp://h", "h:8000", "http://", "http://h:port", "http://a b", 3, "http://[::1"])
def test_an_address_that_is_none_is_none(odd: object) -> None:
    assert cleaned_address(odd) is None


@pytest.fixture
def corea(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The command, in this process: what it printed to stdout and to stderr, and its exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*args: str) -> tuple[str, str, int]:
        monkeypatch.setattr(sys, "argv", ["corea", *args])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        return told.out, told.err, int(ended.value.code or 0)

    return run


def test_the_command_writes_a_file_that_checks(corea: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.yaml").write_text(FILE)
    out, err, code = corea("config", "import", "litellm", "config.yaml", "--out", "corea.toml")
    assert (code, out) == (0, "wrote corea.toml: local → gpt-4o; check it with: corea config check corea.toml\n")
    assert "the key in the file was not copied" in err
    monkeypatch.setenv("GPT_4O_API_KEY", "sk-new")
    assert corea("config", "check")[0] == "corea.toml: fine, 2 tiers: local → gpt-4o\n"
    assert "choose another name or add --force" in corea("config", "import", "litellm", "config.yaml", "--out",
                                                         "corea.toml")[1]  # fmt: skip
    assert corea("config", "import", "litellm", "config.yaml")[0] == (tmp_path / "corea.toml").read_text()
    told = json.loads(corea("config", "import", "litellm", "config.yaml", "--json")[0])
    assert (told["wrote"], told["tiers"]) == (None, ["local", "gpt-4o"])
    assert "cannot read no.yaml" in corea("config", "import", "litellm", "no.yaml")[1]
