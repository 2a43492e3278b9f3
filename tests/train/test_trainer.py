"""A tiny model through the real trainer: what moves which token, and what becomes of a run that is cut off."""

# ruff: noqa: E402 - the guard comes first, or importing TRL would fail where it is to be skipped
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

torch = pytest.importorskip("torch", reason="the train extra is not installed: see docs/training.md")
pytest.importorskip("trl", reason="the train extra is not installed: see docs/training.md")

from corea.batch.rows import Question
from corea.errors import DiskFull, InputError, TrainingStopped
from corea.train import rl
from corea.train.advantages import CONFIDENCE, FRAME, REASONING, token_roles
from corea.train.config import TrainConfig, parse
from corea.train.curves import Row
from corea.train.models import decoder
from corea.train.replies import protocol_form
from corea.train.stages import told
from corea.train.trainer import ConfidenceTrainer
from train import tiny

# TRL, transformers and torch warn of their own deprecations.
pytestmark = pytest.mark.filterwarnings("default")

QUESTIONS = [Question(id=str(i), question=f"{i} + {i}?", gold=str(2 * i), kind="number") for i in range(6)]
#: Figures of the clock, the same in no two runs.
CLOCK = ("step_time", "epoch")


def config(folder: Path, *, rl: str = "", more: str = "") -> TrainConfig:
    return parse(
        f'base = "tiny"\noutput = "{folder}"\n[data]\nquestions = ["none"]\n[lora]\nrank = 4\n{more}\n'
        "[rl]\nsteps = 2\nquestions = 2\nsamples = 4\nbatch = 4\nmax_tokens = 24\nlearning_rate = 1e-2\n"
        f"save_every = 1\n{rl}\n",
        source="t",
    )


def run(settings: TrainConfig, *, tell: Callable[[str], None] = lambda _: None, base: Any = None) -> list[Row]:
    made = base or tiny.base()
    rl.run(settings, QUESTIONS, made, pass_rates={}, tell=tell, fingerprint=settings.fingerprint("rl"))
    return rows(settings)


def rows(settings: TrainConfig) -> list[Row]:
    return list(pq.read_table(settings.output / "rl" / "curves.parquet").to_pylist())


def timeless(of: list[Row]) -> list[Row]:
    return [{name: value for name, value in row.items() if name not in CLOCK} for row in of]


@pytest.fixture
def replies(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], None]:
    """Lets the model say these replies in turn, in place of what it would sample."""

    def say(texts: list[str]) -> None:
        def scripted(self: Any, prompt_ids: list[list[int]], *_: Any, **__: Any) -> tuple[list[list[int]], None]:
            first = self.accelerator.process_index * len(prompt_ids)
            said = [texts[(first + i) % len(texts)] for i in range(len(prompt_ids))]
            return [[*self._tokenizer.encode(text), self._tokenizer.eos_token_id] for text in said], None

        monkeypatch.setattr(ConfidenceTrainer, "_generate_single_turn", scripted)

    return say


def test_a_short_run_samples_trains_and_keeps_its_curves(tmp_path: Path) -> None:
    told_lines: list[str] = []
    settings = config(tmp_path)
    made = run(settings, tell=told_lines.append)
    assert [row["step"] for row in made] == [1, 2]
    assert {"pass_rate", "reward", "rewards/calibration/mean", "completions/mean_length", "loss"} <= set(made[0])
    assert len(told_lines) == 2
    assert told_lines[1].startswith("step 2/2  right ")
    assert (tmp_path / "rl" / "adapter" / "adapter_model.safetensors").exists()
    assert list((tmp_path / "rl" / "checkpoints").rglob("events.out.tfevents*"))


def test_the_same_seeds_make_the_same_first_step(tmp_path: Path) -> None:
    one = steps(tmp_path, 1)
    first, second = (run(config(tmp_path / name).model_copy(update=one)) for name in ("a", "b"))
    assert timeless(first) == timeless(second)
    other = config(tmp_path / "c").model_copy(update={**one, "seed": 7})
    assert timeless(run(other)) != timeless(first)


def test_a_run_that_is_killed_goes_on_to_the_same_curves(tmp_path: Path) -> None:
    whole = run(config(tmp_path / "whole").model_copy(update=steps(tmp_path / "whole", 4)))
    cut = config(tmp_path / "cut").model_copy(update=steps(tmp_path / "cut", 4))

    def killed(line: str) -> None:
        if line.startswith("step 3/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(cut, tell=killed)
    lines: list[str] = []
    resumed = run(cut, tell=lines.append)
    assert [line.split()[1] for line in lines] == ["3/4", "4/4"]
    assert timeless(resumed) == timeless(whole)


def steps(folder: Path, count: int) -> dict[str, Any]:
    return {"rl": config(folder).rl.model_copy(update={"steps": count})}


def test_a_folder_of_another_configuration_is_left_alone(tmp_path: Path) -> None:
    run(config(tmp_path).model_copy(update=steps(tmp_path, 1)))
    with pytest.raises(InputError, match="holds the work of another configuration"):
        run(config(tmp_path).model_copy(update={"seed": 3}))


def test_all_weights_can_be_trained(tmp_path: Path) -> None:
    settings = config(tmp_path).model_copy(update={"lora": config(tmp_path).lora.model_copy(update={"rank": 0})})
    base = tiny.base()
    before = {name: value.clone() for name, value in base.model.named_parameters()}
    made = run(settings, base=base)
    assert made[-1]["loss"] is not None
    assert (tmp_path / "rl" / "adapter" / "model.safetensors").exists()
    assert before.keys() == dict(base.model.named_parameters()).keys()


def trainer(tmp_path: Path, **changes: Any) -> tuple[ConfidenceTrainer, list[dict[str, Any]]]:
    """A trainer, and the rows of one whole batch as its data loader would hand them out."""
    settings = config(tmp_path)
    reward = replace(settings.rl.reward.reward, **changes)
    args = rl.grpo_config(settings.rl, tmp_path / "out", seed=0)
    data = rl.data_set(QUESTIONS[:2])
    made = ConfidenceTrainer(base=tiny.base(), reward=reward, args=args, train_dataset=data)
    made.model.train()
    return made, [row for row in data for _ in range(4)]


MIXED = [
    protocol_form("so", "0", 9),
    protocol_form("so", "1", 9),
    protocol_form("or", "0", 0),
    "no idea",
    protocol_form("hm", "2", 7),
    protocol_form("hm", "2", 2),
    protocol_form("hm", "2", 5),
    "Answer: 2\nConfidence: 90%",
]


def test_every_token_is_moved_by_what_it_decides(tmp_path: Path, replies: Callable[[list[str]], None]) -> None:
    replies(MIXED)
    made, inputs = trainer(tmp_path)
    batch = made._generate_and_score_completions(inputs)
    moved, ids, mask = (batch[name].numpy() for name in ("advantages", "completion_ids", "completion_mask"))
    assert moved.shape == ids.shape
    assert not moved[mask == 0].any()
    # 0 + 0 is 0: replies 1 and 3 of the first group are right; all but the last of the second are, in any form.
    right, formed = [1, 0, 1, 0, 1, 1, 1, 1], [1, 1, 1, 0, 1, 1, 1, 0]
    stated = [0.95, 0.95, 0.05, None, 0.75, 0.25, 0.55, None]
    for row in range(8):
        of = slice(0, 4) if row < 4 else slice(4, 8)
        rate = sum(right[of]) / 4
        earned = [y - 0.2 * (1 - f) for y, f in zip(right[of], formed[of], strict=True)]
        scores = [
            None if c is None else -((c - (rate + y) / 2) ** 2) for y, c in zip(right[of], stated[of], strict=True)
        ]
        known = [score for score in scores if score is not None]
        own = earned[row % 4] - sum(earned) / 4
        score = scores[row % 4]
        roles = token_roles(ids[row][mask[row] == 1].tolist(), decoder(made._tokenizer))
        for role, value in zip(roles, moved[row], strict=False):
            if role == REASONING:
                assert value == pytest.approx(own, abs=1e-6)
            elif role == CONFIDENCE:
                assert score is not None
                assert value == pytest.approx(10 * (score - sum(known) / len(known)), abs=1e-5)
            else:
                assert role == FRAME
                assert value == pytest.approx(0.2 * (sum(1 - f for f in formed[of]) / 4), abs=1e-6)


def test_trl_shuffles_and_splits_advantages_of_tokens_with_their_replies(
    tmp_path: Path, replies: Callable[[list[str]], None]
) -> None:
    replies(MIXED)
    made, inputs = trainer(tmp_path)
    batch = made._prepare_inputs(inputs)
    assert batch["advantages"].shape == batch["completion_ids"].shape
    for ids, moved in zip(batch["completion_ids"].tolist(), batch["advantages"].tolist(), strict=True):
        text = decoder(made._tokenizer)(ids)
        assert ("Confidence: 0" in text) <= (len(set(moved)) > 2), (
            "the digit of the one who was wrongly unsure stands out"
        )


@pytest.mark.parametrize(
    "said, better, worse",
    [
        # Always wrong: unsure is better. Nothing moves the reasoning.
        ([("9", 9), ("9", 0), ("9", 9), ("9", 0)], ("9", 0), ("9", 9)),
        # Equally sure: right is better.
        ([("0", 5), ("9", 5), ("0", 5), ("9", 5)], ("0", 5), ("9", 5)),
    ],
)
def test_training_makes_the_better_reply_likelier(
    tmp_path: Path,
    replies: Callable[[list[str]], None],
    said: list[tuple[str, int]],
    better: tuple[str, int],
    worse: tuple[str, int],
) -> None:
    replies([protocol_form("so", answer, digit) for answer, digit in said])
    base = tiny.base()
    asked = [Question(id="q", question="0 + 0?", gold="0", kind="number")]
    settings = config(tmp_path).model_copy(update=steps(tmp_path, 4))

    def likelihood(answer: str, digit: int) -> float:
        prompt = base.tokenizer.apply_chat_template(
            rl.data_set(asked)[0]["prompt"], add_generation_prompt=True, tokenize=False
        )
        ids = base.tokenizer.encode(prompt + protocol_form("so", answer, digit), return_tensors="pt")
        with torch.no_grad():
            shares = torch.log_softmax(base.model(ids).logits[0, :-1], dim=-1)
        return float(shares.gather(1, ids[0, 1:, None]).sum())

    before = likelihood(*better) - likelihood(*worse)
    rl.run(settings, asked, base, pass_rates={}, tell=lambda _: None, fingerprint="x")
    assert likelihood(*better) - likelihood(*worse) > before + 0.1


def test_a_run_that_states_one_digit_only_is_stopped(tmp_path: Path, replies: Callable[[list[str]], None]) -> None:
    replies([protocol_form("so", str(n), 7) for n in range(4)])
    settings = config(tmp_path)
    settings = settings.model_copy(update={"rl": settings.rl.model_copy(update={"steps": 9, "collapse_steps": 2})})
    with pytest.raises(
        TrainingStopped, match=r"step 2: every reply of the last 2 steps states the same digit \(75 % sure"
    ):
        run(settings)
    assert [row["confidence/distinct_digits"] for row in rows(settings)] == [1, 1]


def test_a_loss_that_is_no_number_stops_the_run_before_a_checkpoint(
    tmp_path: Path, replies: Callable[[list[str]], None]
) -> None:
    replies(MIXED)
    base = tiny.base()
    with torch.no_grad():
        base.model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(TrainingStopped, match=r"step 1: loss is nan; go back .* lower rl\.learning_rate"):
        run(config(tmp_path), base=base)
    assert not list((tmp_path / "rl" / "checkpoints").glob("checkpoint-*"))


@pytest.mark.parametrize(
    "raised, error, told_words",
    [
        (OSError(28, "No space left on device"), DiskFull, "make room, and run the same command again"),
        (RuntimeError("[enforce fail] PytorchStreamWriter failed writing file"), DiskFull, "make room"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), InputError, "memory ran out; lower rl.batch"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), InputError, "lower rl.batch"),
    ],
)
def test_what_runs_out_is_named_with_its_mend(
    tmp_path: Path, raised: Exception, error: type[Exception], told_words: str
) -> None:
    with pytest.raises(error, match=told_words), told(tmp_path, lower="rl.batch"):
        raise raised


def test_other_errors_are_left_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="a bug"), told(tmp_path, lower="rl.batch"):
        raise RuntimeError("a bug")
