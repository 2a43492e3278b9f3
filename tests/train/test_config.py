"""A training configuration is checked before anything is loaded, and every complaint says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from corea.errors import ConfigError
from corea.train.config import TrainConfig, parse
from corea.train.rewards import Reward

LEAST = 'base = "m.gguf"\noutput = "out"\n[data]\nquestions = ["q.jsonl"]\n'


def test_the_least_configuration_is_enough() -> None:
    config = parse(LEAST, source="t")
    assert config.rl.reward.reward == Reward()
    assert config.rl.reward.name == "hybrid"
    assert config.data.questions == (Path("q.jsonl"),)


@pytest.mark.parametrize(
    "more, told",
    [
        ("[rl]\nbatchs = 4", r'rl\.batchs: t: unknown key; did you mean "batch"'),
        ("[rl.reward]\nmixs = 0.5", r'rl\.reward\.mixs: t: unknown key; did you mean "mix"'),
        ('[[data.tasks]]\nname = "chain_sum"\ncuont = 3', r'unknown key; did you mean "count"'),
        ("[rl]\nquestions = 3\nsamples = 4\nbatch = 5", "no multiple of batch = 5; choose a batch that divides it"),
        ('[rl.reward]\nname = "rlcr"\nmix = 0.5', 'mix means nothing to the reward "rlcr"; remove it'),
        ('[rl.reward]\nname = "rlcr"\ncalibration_weight = 2', "less than or equal to 1, not 2"),
        ("[rl.reward]\ncalibration_weight = 0.5", 'calibration_weight means nothing to the reward "hybrid"'),
        ('[rollouts]\nengine = "openai"', "needs a base_url"),
        ('[rollouts]\nbase_url = "http://127.0.0.1:1/v1"', 'base_url is for engine "openai"'),
        ("[rl]\nlearning_rate = nan", "learning_rate"),
        ("[rl", "not TOML"),
    ],
)
def test_what_is_wrong_is_named_with_its_mend(more: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse(f"{LEAST}{more}\n", source="t")


def test_something_must_be_trained_on() -> None:
    with pytest.raises(ConfigError, match="nothing to train on"):
        parse('base = "m"\noutput = "out"\n[data]\n', source="t")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml cannot be read"):
        TrainConfig.load(tmp_path / "none.toml")


def test_a_fingerprint_is_of_the_stages_named_and_of_what_all_share() -> None:
    plain, other_rl = parse(LEAST, source="t"), parse(LEAST + "[rl]\nsteps = 3", source="t")
    assert plain.fingerprint("rollouts") == other_rl.fingerprint("rollouts")
    assert plain.fingerprint("rollouts", "rl") != other_rl.fingerprint("rollouts", "rl")
    assert plain.fingerprint("rollouts") != parse("seed = 1\n" + LEAST, source="t").fingerprint("rollouts")


def test_curves_go_to_tensorboard_unless_told_otherwise_and_no_checkpoint_minds() -> None:
    plain, quiet = parse(LEAST, source="t"), parse(LEAST + '[logging]\nreport_to = ["none"]', source="t")
    assert (plain.logging.reporters, quiet.logging.reporters) == (["tensorboard"], [])
    assert plain.fingerprint("rollouts", "warmup", "rl") == quiet.fingerprint("rollouts", "warmup", "rl")


@pytest.mark.parametrize(
    "names, told",
    [
        ('["tensorbord"]', r"logging\.report_to\.0: t: input should be 'tensorboard'"),
        ('["none", "tensorboard"]', '"none" stands alone'),
        ('["mlflow"]', "mlflow is not installed; run: pip install mlflow, or take it out of report_to"),
        ('["tensorboard", "wandb"]', "wandb is not installed; run: pip install wandb"),
    ],
)
def test_a_place_for_curves_that_cannot_be_had_is_named(names: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(parse.__globals__, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=told):
        parse(f"{LEAST}[logging]\nreport_to = {names}\n", source="t")


def test_what_is_installed_is_passed_on_to_the_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trl", reason="the train extra is not installed: see docs/training.md")
    from corea.train.rl import grpo_config

    monkeypatch.setitem(parse.__globals__, "find_spec", lambda name: name)
    config = parse(LEAST + '[logging]\nreport_to = ["mlflow", "tensorboard", "mlflow"]', source="t")
    made = grpo_config(config.rl, tmp_path, seed=0, report_to=config.logging.reporters)
    assert made.report_to == ["mlflow", "tensorboard"]


def test_rollouts_are_the_same_whatever_is_trained_on_them() -> None:
    one, other = parse(LEAST, source="t"), parse(f"{LEAST}[lora]\nrank = 4\n", source="t")
    assert one.fingerprint("rollouts") == other.fingerprint("rollouts")
    assert one.fingerprint("rollouts", "warmup") != other.fingerprint("rollouts", "warmup")
