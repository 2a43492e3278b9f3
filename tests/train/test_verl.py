"""verl's estimator moves every token as our own trainer does, though it gets one number a reply."""
# ruff: noqa: E402 - the guard comes first, or importing torch would fail where it is to be skipped

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the train extra is not installed: see docs/training.md")
pytest.importorskip("transformers", reason="the train extra is not installed: see docs/training.md")

import yaml  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from corea.batch.rows import Question
from corea.errors import ConfigError, InputError
from corea.train import verl
from corea.train.advantages import REASONING, advantages, token_roles
from corea.train.data import conversation
from corea.train.models import decoder
from corea.train.replies import protocol_form, read
from corea.train.rewards import NAMES, Reward
from train import tiny

EXAMPLES = Path(__file__).parent.parent.parent / "examples" / "train"
#: Three questions, four replies each: all sorts, all right, and one with silence and a line in the middle.
ASKED = ["0"] * 4 + ["4"] * 4 + ["2"] * 4
SAID = [
    *(protocol_form("so", answer, digit) for answer, digit in (("0", 9), ("1", 8), ("0", 1), ("5", 0))),
    *(protocol_form("hm", "4", digit) for digit in (9, 5, 5, 0)),
    *(
        "no idea",
        protocol_form("a longer way", "2", 3),
        "Confidence: 4\nAnswer: 2",
        protocol_form("hm", "7", 6) + " \n",
    ),
]


@pytest.fixture(scope="module")
def words() -> Any:
    return tiny.tokenizer()


def sampled(words: Any) -> list[list[int]]:
    return [[*words.encode(text), words.eos_token_id] for text in SAID]


def as_verl_has_it(ids: list[list[int]], words: Any, *, width: int) -> tuple[Any, Any, Any]:
    """Rewards at each reply's last token, the mask, and the questions' ids; the last two rows are verl's filling."""
    rewards, mask = torch.zeros(len(ids) + 2, width), torch.zeros(len(ids) + 2, width, dtype=torch.long)
    for row, (own, gold) in enumerate(zip(ids, ASKED, strict=True)):
        rewards[row, len(own) - 1] = verl.verdict(own, words, gold=gold, kind="number").packed
        mask[row, : len(own)] = 1
    return rewards, mask, np.array([f"uid-{gold}" for gold in ASKED] + ["uid-0"] * 2, dtype=object)


@given(st.booleans(), st.booleans(), st.one_of(st.none(), st.integers(0, 9)), st.integers(0, 63), st.integers(0, 63))
def test_a_verdict_survives_a_float32_and_hardly_changes_the_pass_rate(
    correct: bool, well_formed: bool, digit: int | None, line_tokens: int, digit_back: int
) -> None:
    told = verl.Verdict(
        correct=correct, well_formed=well_formed, digit=digit, line_tokens=line_tokens, digit_back=digit_back
    )
    carried = float(np.float32(told.packed))
    assert verl.Verdict.unpacked(carried) == told
    assert 0 <= carried - correct < 0.05


@pytest.mark.parametrize("name", NAMES)
def test_every_token_is_moved_as_our_own_trainer_moves_it_wherever_its_reply_stands_in_the_batch(
    name: str, words: Any
) -> None:
    ids, decode = sampled(words), decoder(words)
    width = max(map(len, ids)) + 3
    stated = [read(text) for text in SAID]
    reward = Reward(name=name)  # type: ignore[arg-type]
    confidence = np.array([one.confidence for one in stated])
    right = np.array(
        [verl.verdict(own, words, gold=gold, kind="number").correct for own, gold in zip(ids, ASKED, strict=True)]
    )
    parts = reward.parts(right.astype(float), confidence, np.array([one.well_formed for one in stated]), group=4)
    wanted = advantages(reward, parts, ~np.isnan(confidence), group=4).tokens(
        [token_roles(own, decode) for own in ids], width=width
    )
    rewards, mask, index = as_verl_has_it(ids, words, width=width)
    order = random.Random(0).sample(range(len(index)), len(index))
    moved, returns = verl.estimate(rewards[order], mask[order], index[order], config={"corea": {"name": name}}, lam=1.0)
    assert moved is returns
    assert moved.dtype == torch.float32
    there = {row: at for at, row in enumerate(order)}
    assert np.array_equal(moved[[there[row] for row in range(len(SAID))]].numpy(), wanted)
    assert np.count_nonzero(wanted) > 20
    # What verl fills a batch up with neither moves nor counts in a group.
    assert not moved[[there[len(SAID)], there[len(SAID) + 1]]].any()


def test_a_token_that_the_model_did_not_write_is_not_moved(words: Any) -> None:
    ids = sampled(words)
    rewards, mask, index = as_verl_has_it(ids, words, width=max(map(len, ids)))
    mask[0, 1] = 0
    moved, _ = verl.estimate(rewards, mask, index)
    assert moved[0, 1] == 0
    assert moved[0, 2] != 0


def test_a_confidence_line_far_before_the_end_counts_as_not_stated(words: Any) -> None:
    own = [*words.encode(protocol_form("so", "0", 7)), *[words.encode("\n")[0]] * 70, words.eos_token_id]
    assert verl.verdict(own, words, gold="0", kind="number") == verl.Verdict(correct=True)
    near = verl.verdict(own[:-20], words, gold="0", kind="number")
    assert near.digit == 7
    assert near.roles(len(own) - 20).tolist().count(REASONING) > 0


@pytest.mark.parametrize("score", [-0.1, 0.3, 1.0000001, 1.7])
def test_a_reward_that_is_no_verdict_is_refused_and_the_setting_is_named(score: float) -> None:
    with pytest.raises(InputError, match=r"reward\.reward_manager.*use_kl_in_reward = false"):
        verl.estimate(torch.tensor([[0.0, score]]), torch.ones(1, 2), np.array(["q"]))


def test_a_wrong_setting_of_the_reward_is_named() -> None:
    with pytest.raises(ConfigError, match=r"algorithm\.corea.*mixx"):
        verl.reward_of({"corea": {"mixx": 0.5}})


def test_the_reward_manager_reads_a_reply_as_verl_keeps_it(words: Any) -> None:
    prompt, own = words.encode("0 + 0?"), sampled(words)[0]
    padding = [words.pad_token_id] * 5
    item = SimpleNamespace(
        batch={
            "responses": torch.tensor([*own, *padding]),
            "attention_mask": torch.tensor([1] * (len(prompt) + len(own)) + [0] * 5),
        },
        non_tensor_batch={"reward_model": {"ground_truth": "0"}, "extra_info": {"kind": "number"}},
    )
    told = asyncio.run(verl.Verdicts(None, words, None, reward_router_address=None).run_single([item]))
    assert verl.Verdict.unpacked(told["reward_score"]) == verl.verdict(own, words, gold="0", kind="number")
    assert told["reward_extra_info"] == {"acc": 1.0, "confidence": 0.95, "format": 1.0}


def test_the_plain_reward_function_is_the_whole_reward_and_refuses_one_that_needs_the_group() -> None:
    told = verl.compute_score("task", protocol_form("so", "7", 8), "7", {"kind": "number"}, reward_router_address=None)
    assert told["score"] == pytest.approx(1 - 0.15**2)
    assert told["acc"] == 1
    silent = verl.compute_score("task", "It is 7.", "7", {"kind": "number"}, format_weight=0.5)
    assert silent["score"] == pytest.approx(1 - 1 - 0.5)
    with pytest.raises(InputError, match=r'adv_estimator = "corea"'):
        verl.compute_score("task", "It is 7.", "7", reward="hybrid")


def test_questions_are_written_as_verl_reads_them(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    one = Question(id="a", question="1 + 1?", gold="2", kind="number", task="sums")
    rows = parquet.read_table(verl.write_parquet([one], tmp_path / "to" / "train.parquet")).to_pylist()
    assert rows == [
        {
            "data_source": "sums",
            "prompt": conversation(one),
            "reward_model": {"style": "rule", "ground_truth": "2"},
            "extra_info": {"index": 0, "id": "a", "kind": "number"},
        }
    ]


def test_the_recipe_names_what_is_there() -> None:
    targets = pytest.importorskip("corea.train.rl").LORA_TARGETS
    recipe = yaml.safe_load((EXAMPLES / "verl.yaml").read_text(encoding="utf-8"))
    assert recipe["algorithm"]["adv_estimator"] == verl.NAME
    assert verl.reward_of(recipe["algorithm"]) == Reward()
    manager = recipe["reward"]["reward_manager"]
    assert manager["module"]["path"] == f"pkg://{verl.__name__}"
    assert getattr(verl, manager["name"]) is verl.Verdicts
    assert recipe["ray_kwargs"]["ray_init"]["runtime_env"]["env_vars"]["VERL_USE_EXTERNAL_MODULES"] == verl.__name__
    assert recipe["actor_rollout_ref"]["model"]["target_modules"] == targets


def test_verl_itself_finds_the_estimator_and_moves_tokens_by_it(words: Any) -> None:
    core = pytest.importorskip("verl.trainer.ppo.core_algos", reason="verl is not installed")
    from verl import DataProto
    from verl.trainer.ppo.ray_trainer import compute_advantage

    assert core.get_adv_estimator_fn(verl.NAME) is verl.estimate
    ids = sampled(words)
    rewards, mask, index = as_verl_has_it(ids, words, width=max(map(len, ids)))
    batch = DataProto.from_dict(
        tensors={"token_level_rewards": rewards, "response_mask": mask}, non_tensors={"uid": index}
    )
    made = compute_advantage(batch, adv_estimator=verl.NAME, config={"corea": {"name": "hybrid"}})
    assert torch.equal(made.batch["advantages"], verl.estimate(rewards, mask, index)[0])
