"""Configuration: what is accepted, and the one line that each mistake gets."""

from __future__ import annotations

import dataclasses
from importlib import import_module
from pathlib import Path

import pytest
from pydantic import ValidationError

from corea.config import Config, EmbeddedTier, api_key_of, default, parse, template, without_password
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
        (SMALL + 'certificate = "c.json"\n' + LARGE, "tiers[0].threshold", "a threshold and a certificate"),
        (SMALL + LARGE + 'certificate = "c.json"\n', "tiers[1].certificate", "remove its certificate"),
        (SMALL + "certificate = 3\n" + LARGE, "tiers[0].certificate", "not 3"),
        (SMALL + 'certificat = "c.json"\n' + LARGE, "tiers[0].certificat", 'did you mean "certificate"?'),
        (
            SMALL + 'confidence = { estimator = "fitted" }\n' + LARGE,
            "tiers[0].confidence",
            "needs a map; make one with: corea eval fit",
        ),
        (
            SMALL + 'confidence = { estimator = "logprob", map = "m.json" }\n' + LARGE,
            "tiers[0].confidence",
            'a map is applied by estimator = "fitted"',
        ),
        (
            SMALL + 'confidence = { estimator = "fitted", map = "m.json", ask = "inline" }\n' + LARGE,
            "tiers[0].confidence",
            'asks by none, not "inline"',
        ),
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


def test_a_certificate_stands_in_for_a_threshold_and_a_threshold_given_later_for_the_certificate() -> None:
    config = parse(SMALL.replace("threshold = 0.9", 'certificate = "c.json"') + LARGE, source="x")
    assert (config.tiers[0].threshold, config.tiers[0].certificate) == (None, Path("c.json"))
    overridden = config.with_threshold(0.3)
    assert (overridden.tiers[0].threshold, overridden.tiers[0].certificate) == (0.3, None)
    assert config.tiers[0].certificate == Path("c.json")


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


def placed(folder: Path, written: str, *, kind: str) -> str:
    """Where a path of a corea.toml leads."""
    small = SMALL.replace("threshold = 0.9\n", "")
    text = {
        "certificate": f'{small}certificate = "{written}"\n',
        "map": f'{SMALL}confidence = {{ estimator = "fitted", map = "{written}" }}\n',
        "adapter": f'{SMALL}adapters = [{{ path = "{written}", scale = 0.5 }}]\n',
        "model": SMALL.replace("qwen2.5-coder-0.5b", written),
    }[kind]
    (folder / "corea.toml").write_text(text + REMOTE)
    tier = Config.load(folder / "corea.toml").tiers[0]
    assert isinstance(tier, EmbeddedTier)
    found = {
        "certificate": tier.certificate,
        "map": tier.confidence.map,
        "adapter": tier.adapters[0].path if tier.adapters else None,
        "model": tier.model,
    }[kind]
    return str(found)


@pytest.mark.parametrize("kind", ["certificate", "map", "adapter", "model"])
def test_relative_paths_are_taken_from_the_files_folder_and_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    here, there, user = (tmp_path / name for name in ("here", "there", "user"))
    for folder in (here, there, user):
        folder.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(user))
    assert placed(there, "x.gguf", kind=kind) == str(there / "x.gguf")
    assert placed(there, "sub/x.GGUF", kind=kind) == str(there / "sub" / "x.GGUF")
    assert Path(placed(there, "../here/x.gguf", kind=kind)).resolve() == here / "x.gguf"
    assert placed(there, str(here / "x.gguf"), kind=kind) == str(here / "x.gguf")
    assert placed(there, "~/x.gguf", kind=kind) == str(user / "x.gguf")
    # A name beginning with ~ that is no user's home is a name.
    assert placed(there, "~no-such-user.gguf", kind=kind) == str(there / "~no-such-user.gguf")


def test_a_relative_path_means_the_same_whoever_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    file = tmp_path / "sub" / "corea.toml"
    file.write_text(SMALL.replace("threshold = 0.9", 'certificate = "c.json"') + LARGE)

    def certificate() -> Path:
        found = Config.load().tiers[0].certificate
        assert found is not None
        return found.resolve()

    monkeypatch.chdir(file.parent)
    assert certificate() == tmp_path / "sub" / "c.json"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COREA_CONFIG", "sub/corea.toml")
    assert certificate() == tmp_path / "sub" / "c.json"


def test_names_of_catalogue_models_and_of_remote_ones_are_no_paths(tmp_path: Path) -> None:
    (tmp_path / "corea.toml").write_text(SMALL + REMOTE.replace('"m"', '"org/model.gguf"'))
    assert [tier.model for tier in Config.load(tmp_path / "corea.toml").tiers] == [
        "qwen2.5-coder-0.5b",
        "org/model.gguf",
    ]


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


@pytest.mark.parametrize(
    "page,sections",
    [
        ("audit.md", ("corea.audit_config:AuditConfig",)),
        (
            "policies.md",
            tuple(f"corea.policy_config:{name}Config" for name in ("Budget", "Latency", "Critical", "Policy")),
        ),
    ],
)
def test_every_key_of_audit_and_policies_is_on_its_page(page: str, sections: tuple[str, ...]) -> None:
    text = (Path(__file__).parent.parent / "docs" / page).read_text(encoding="utf-8")
    models = (getattr(import_module(module), name) for module, name in (one.split(":") for one in sections))
    keys = {key for model in models for key in model.model_fields}
    assert not {key for key in keys if f"`{key}`" not in text}


def test_secrets_are_no_fields() -> None:
    assert not dataclasses.is_dataclass(Config)
    assert "api_key" not in {key for tier in default().tiers for key in type(tier).model_fields}


@pytest.mark.parametrize(
    "url,shown",
    [
        ("postgresql://ann:s3cr@t@db:5432/corea?password=s3cret", "postgresql://ann:***@db:5432/corea"),
        ("postgresql+psycopg://ann:secret@/corea", "postgresql+psycopg://ann:***@/corea"),
        ("postgresql://ann@db/corea", "postgresql://ann@db/corea"),
        ("sqlite:////tmp/a:b@c.db", "sqlite:////tmp/a:b@c.db"),
        (None, None),
    ],
)
def test_a_database_is_shown_without_its_password(url: str | None, shown: str | None) -> None:
    assert without_password(url) == shown
