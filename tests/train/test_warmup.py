"""Rollouts are sampled, journalled and rewritten; the warm-up learns their ends and nothing before."""
# ruff: noqa: E402 - the guard comes first, or importing torch would fail where it is to be skipped

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="the train extra is not installed: see docs/training.md")
pytest.importorskip("trl", reason="the train extra is not installed: see docs/training.md")

from corea.batch.rows import Question
from corea.confidence.protocol import parse
from corea.errors import InputError, UpstreamRefused
from corea.models.scripted import ScriptedModel
from corea.train.config import TrainConfig, WarmupConfig
from corea.train.config import parse as parse_config
from corea.train.models import Base, prepared, with_adapter
from corea.train.replies import read
from corea.train.rollouts import Failed, Rollout, Source, from_model, from_transformers, pass_rates, taken_up
from corea.train.rollouts import run as sample
from corea.train.supervised import _Padded
from corea.train.warmup import Lesson, balanced, drawn_digit, encoded, lessons, loss_of, rewritten
from corea.train.warmup import run as warm_up
from corea.types import Prompt, Reply
from train import tiny

pytestmark = pytest.mark.filterwarnings("default")

QUESTIONS = [Question(id=f"q{i}", question=f"{i} + {i}?", gold=str(2 * i), kind="number") for i in range(4)]


def config(folder: Path, more: str = "") -> TrainConfig:
    return parse_config(
        f'base = "tiny"\noutput = "{folder}"\n[data]\nquestions = ["none"]\n[lora]\nrank = 4\n'
        f"[rollouts]\nsamples = 3\nmax_tokens = 12\nbatch = 5\n{more}\n",
        source="t",
    )


def reply_to(prompt: Prompt, call: int) -> Reply:
    number = int(prompt.messages[-1].content.split()[0])
    return Reply(text=f"It is\u2028\\boxed{{{2 * number if call % 2 else 7}}}.", finish_reason="stop", model="m")


def sampled(settings: TrainConfig, source: Source, *, fingerprint: str = "f") -> tuple[list[Rollout], list[Any]]:
    rows: list[Any] = []
    made = asyncio.run(
        sample(
            settings,
            QUESTIONS,
            source,
            journal=settings.output / "rollouts.jsonl",
            fingerprint=fingerprint,
            on_start=lambda _, there: rows.append(there),
            on_row=rows.append,
        )
    )
    return made, rows


def test_the_whole_reply_is_learned_where_that_is_wanted_and_its_lines_alone_otherwise() -> None:
    own = [Rollout(id="q1", sample=i, text="1 and 1 is 2.", correct=1.0, finished=True) for i in range(4)]
    base = tiny.base()
    lines, reply = (
        encoded(lessons(QUESTIONS, own, WarmupConfig(learn=learn, replies=1), rng=random.Random(0)).rows[0], base)
        for learn in ("lines", "reply")
    )
    assert lines["input_ids"] == reply["input_ids"]
    assert lines["digit_back"] == reply["digit_back"]
    learned = [base.tokenizer.decode(one["input_ids"][-one["learned"] :]) for one in (lines, reply)]
    assert learned[0].lstrip().startswith("Answer: 2\nConfidence: ")
    assert learned[1].startswith("1 and 1 is 2.\nAnswer: 2")


def test_where_right_replies_are_learned_whole_the_wrong_ones_teach_their_two_lines_alone() -> None:
    own = [Rollout(id="q1", sample=i, text="So it is 2.", correct=float(i % 2), finished=True) for i in range(8)]
    made = lessons(QUESTIONS, own, WarmupConfig(learn="right", replies=8, most_share=1), rng=random.Random(0))
    assert {lesson.correct for lesson in made.rows} == {0.0, 1.0}
    for lesson in made.rows:
        assert (lesson.learned_from == 0) == (lesson.correct == 1)


def test_a_journal_that_is_whole_is_read_by_all_processes_of_a_launch_and_rewritten_by_none(tmp_path: Path) -> None:
    sampled(config(tmp_path), from_model(ScriptedModel("m", replies=reply_to), config(tmp_path).rollouts))
    journal = tmp_path / "rollouts.jsonl"
    before = journal.stat()
    assert len(taken_up(journal, "f")) == len(QUESTIONS) * 3
    assert (journal.stat().st_ino, journal.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert [path.name for path in tmp_path.iterdir()] == ["rollouts.jsonl"]


def test_an_endpoint_is_asked_k_times_a_question_and_graded(tmp_path: Path) -> None:
    model = ScriptedModel("m", replies=reply_to, record=True)
    made, _ = sampled(config(tmp_path), from_model(model, config(tmp_path).rollouts))
    assert [(row.id, row.sample) for row in made] == [(f"q{i}", k) for i in range(4) for k in range(3)]
    assert set(pass_rates(made)) == {"q0", "q1", "q2", "q3"}
    assert 0 < sum(row.correct for row in made) < len(made)
    assert len({prompt.seed for prompt in model.prompts}) == 12, "samples of one seed would be copies"
    assert model.prompts[0].messages[0].role == "system"


def test_what_was_sampled_is_not_asked_again_and_half_a_line_is(tmp_path: Path) -> None:
    settings = config(tmp_path)
    whole, _ = sampled(settings, from_model(ScriptedModel("m", replies=reply_to), settings.rollouts))
    journal = tmp_path / "rollouts.jsonl"
    lines = journal.read_text(encoding="utf-8").split("\n")
    journal.write_text("\n".join([*lines[:6], lines[6][:9]]), encoding="utf-8")
    model = ScriptedModel("m", replies=reply_to)
    again, rows = sampled(settings, from_model(model, settings.rollouts))
    assert (rows[0], model.calls) == (5, 7)
    assert [(row.id, row.sample) for row in again] == [(row.id, row.sample) for row in whole]
    assert all(json.loads(line) for line in journal.read_text(encoding="utf-8").split("\n")[:-1])


def test_a_journal_of_another_run_is_left_alone(tmp_path: Path) -> None:
    settings = config(tmp_path)
    sampled(settings, from_model(ScriptedModel("m", replies=reply_to), settings.rollouts))
    with pytest.raises(InputError, match="samples of another model"):
        sampled(settings, from_model(ScriptedModel("m", replies=reply_to), settings.rollouts), fingerprint="other")
    (tmp_path / "rollouts.jsonl").write_text("no journal\n", encoding="utf-8")
    with pytest.raises(InputError, match="choose another output"):
        sampled(settings, from_model(ScriptedModel("m", replies=reply_to), settings.rollouts))


def test_a_failed_reply_is_asked_for_again_and_none_at_all_is_an_error(tmp_path: Path) -> None:
    settings = config(tmp_path)
    down = ScriptedModel("m", replies=[UpstreamRefused("nobody there")])
    with pytest.raises(InputError, match=r"not one reply could be had \(nobody there\)"):
        sampled(settings, from_model(down, settings.rollouts))
    shaky = ScriptedModel("m", replies=lambda prompt, n: UpstreamRefused("gone") if n == 3 else reply_to(prompt, n))
    made, rows = sampled(settings, from_model(shaky, settings.rollouts))
    assert len(made) == 11
    assert sum(isinstance(row, Failed) for row in rows) == 1
    made, rows = sampled(settings, from_model(ScriptedModel("m", replies=reply_to), settings.rollouts))
    assert (len(made), rows[0]) == (12, 11)


def test_the_weights_themselves_are_sampled_in_batches(tmp_path: Path) -> None:
    settings = config(tmp_path)
    made, _ = sampled(settings, from_transformers(tiny.base(), settings.rollouts))
    assert len(made) == 12
    assert len({row.text for row in made}) > 6
    other, _ = sampled(config(tmp_path / "again"), from_transformers(tiny.base(), settings.rollouts))
    assert made == other


def rollout(text: str, *, id: str = "q1", sample: int = 0, correct: float = 1.0, finished: bool = True) -> Rollout:
    return Rollout(id=id, sample=sample, text=text, correct=correct, finished=finished)


@pytest.mark.parametrize(
    "text, reply",
    [
        ("1 + 1 = \\boxed{2}.", "1 + 1 = \\boxed{2}.\nAnswer: 2\nConfidence: 6"),
        ("So two.\nAnswer: 2\nConfidence: 90%", "So two.\nAnswer: 2\nConfidence: 6"),
        ("So two.\n**Final answer:** 2\n", "So two.\nAnswer: 2\nConfidence: 6"),
        ("Answer: 2", "Answer: 2\nConfidence: 6"),
    ],
)
def test_a_rollout_is_rewritten_to_the_letter_of_the_protocol(text: str, reply: str) -> None:
    lesson = rewritten(QUESTIONS[1], rollout(text), 6)
    assert lesson is not None
    assert lesson.reply == reply
    assert read(lesson.reply).well_formed


def test_what_holds_no_answer_or_was_cut_off_is_left_out_and_counted() -> None:
    rollouts = [rollout("It is 2."), rollout("No idea", sample=1), rollout("It is 2", sample=2, finished=False)]
    made = lessons(QUESTIONS, rollouts, WarmupConfig(), rng=random.Random(0))
    assert (len(made.rows), made.unfinished, made.without_answer) == (1, 1, 1)
    assert "1 replies that were cut off, 1 without an answer" in made.summary
    with pytest.raises(InputError, match=r"1 were cut off \(raise rollouts.max_tokens\)"):
        lessons(QUESTIONS, rollouts[1:], WarmupConfig(), rng=random.Random(0))


@given(st.text(max_size=80), st.integers(0, 9))
@settings(max_examples=100, deadline=None)
def test_whatever_was_said_its_lesson_says_the_same_answer(text: str, digit: int) -> None:
    lesson = rewritten(QUESTIONS[1], rollout(text), digit)
    if lesson is None:
        return
    answer = parse(text, "number").answer
    assert read(lesson.reply).digit == digit
    assert parse(lesson.reply, "number").answer == " ".join((answer or "").split())
    assert lesson.reply[: lesson.learned_from].strip() in text


def test_digits_are_right_on_average_and_leave_room_for_doubt() -> None:
    rng = random.Random(0)
    for right in (0, 3, 8):
        digits = [drawn_digit(right, 8, rng) for _ in range(4000)]
        assert sum(digits) / 4000 / 10 + 0.05 == pytest.approx((right + 0.5) / 9, abs=0.03)
        assert len(set(digits)) > 2


@given(st.lists(st.integers(0, 9), min_size=1, max_size=80), st.floats(0.1, 1))
@settings(max_examples=80, deadline=None)
def test_no_digit_takes_more_than_its_share(digits: list[int], share: float) -> None:
    rows = [
        Lesson(question=QUESTIONS[0], reply=str(i), digit=digit, correct=1.0, learned_from=0)
        for i, digit in enumerate(digits)
    ]
    kept = balanced(rows, share, random.Random(0))
    assert len({row.reply for row in kept}) == len(kept)
    for digit in set(digits):
        here, most = sum(row.digit == digit for row in kept), max(1, int(share * len(rows)))
        assert here == min(digits.count(digit), most)


def test_only_the_end_is_learned_and_the_digit_is_found() -> None:
    base = tiny.base()
    lesson = rewritten(QUESTIONS[1], rollout("1 + 1 makes \\boxed{2}."), 8)
    assert lesson is not None
    row = encoded(lesson, base)
    learned = base.tokenizer.decode(row["input_ids"][-row["learned"] :])
    assert learned == "\nAnswer: 2\nConfidence: 8<eos>"
    assert "8" in base.tokenizer.decode(row["input_ids"][-row["digit_back"]])
    assert row["input_ids"][-1] == base.tokenizer.eos_token_id


def batch_of(base: Base) -> dict[str, torch.Tensor]:  # type: ignore[name-defined]
    texts = ["1 + 1 makes \\boxed{2}.", "a much longer way to say that it is \\boxed{7}, which it is not"]
    rows = []
    for digit, text in ((8, texts[0]), (1, texts[1])):
        lesson = rewritten(QUESTIONS[1], rollout(text, correct=float(digit == 8)), digit)
        assert lesson is not None
        rows.append(encoded(lesson, base))
    return _Padded(base.tokenizer.pad_token_id)(rows)


def test_the_loss_of_a_padded_batch_is_that_of_its_rows() -> None:
    base = tiny.base()
    batch = batch_of(base)
    kept = int(batch["learned"].max()) + 1
    with torch.no_grad():
        logits = base.model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], position_ids=batch["position_ids"]
        ).logits
    loss = loss_of(logits[:, -kept:], batch, digit_ids=None, conftuner=0)
    slow = []
    for row in range(2):
        ids = batch["input_ids"][row][batch["attention_mask"][row] == 1][None]
        with torch.no_grad():
            shares = torch.log_softmax(base.model(ids).logits[0, :-1], dim=-1)
        slow += (-shares.gather(1, ids[0, 1:, None])[:, 0])[-int(batch["learned"][row]) :].tolist()
    assert float(loss) == pytest.approx(sum(slow) / len(slow), rel=1e-4)


def test_the_conftuner_part_is_of_the_digits_own_place() -> None:
    base = tiny.base()
    assert base.digit_ids is not None
    batch = batch_of(base)
    kept = int(batch["learned"].max()) + 1
    logits = torch.zeros(2, kept, len(base.tokenizer))
    plain = float(loss_of(logits, batch, digit_ids=base.digit_ids, conftuner=0))
    for row, digit in enumerate((9, 0)):
        logits[row, kept - int(batch["digit_back"][row]) - 1, base.digit_ids[digit]] = 60.0
    # The first was right and says 9, the second wrong and says 0: (1 − 0.95)² and 0.05².
    cross = float(loss_of(logits, batch, digit_ids=base.digit_ids, conftuner=0))
    both = float(loss_of(logits, batch, digit_ids=base.digit_ids, conftuner=2))
    assert both - cross == pytest.approx(2 * 0.0025, abs=1e-5)
    assert cross != plain


def test_the_warm_up_teaches_the_form_and_rl_goes_on_from_its_adapter(tmp_path: Path) -> None:
    settings = config(tmp_path, "[warmup]\nepochs = 8\nlearning_rate = 1e-2\nbatch = 4\nconftuner = 0.5")
    rollouts = [
        rollout(f"It is {i + 1}.", id=f"q{i}", sample=k, correct=float(i == 1)) for i in range(4) for k in range(3)
    ]
    made = lessons(QUESTIONS, rollouts, settings.warmup, rng=random.Random(0))
    lines: list[str] = []
    folder = warm_up(settings, tiny.base(), made, tell=lines.append, fingerprint="f")
    losses = [float(line.rsplit(" ", 1)[1]) for line in lines]
    assert losses[-1] < losses[0] - 0.5
    trained = with_adapter(tiny.base(), folder)
    assert any(weight.requires_grad for weight in trained.model.parameters())


def test_a_tokenizer_whose_digits_are_not_tokens_is_told_and_cannot_have_conftuner(tmp_path: Path) -> None:
    words = tiny.tokenizer(chat=False)
    model = tiny.model(len(words))
    words.add_tokens(["nce: 7"])
    base = prepared(model, words)
    assert base.digit_ids is None
    assert "no chat template" in base.notes[0]
    assert 'serve it with the "verbalized" one' in base.notes[1]
    asked = words.apply_chat_template([{"role": "user", "content": "Hi"}], add_generation_prompt=True, tokenize=False)
    assert asked == "User:\nHi\n\nAssistant:\n"
    settings = config(tmp_path, "[warmup]\nconftuner = 0.5")
    made = lessons(QUESTIONS, [rollout("It is 2.")], settings.warmup, rng=random.Random(0))
    with pytest.raises(InputError, match=r"set warmup.conftuner = 0"):
        warm_up(settings, base, made, tell=lambda _: None, fingerprint="f")
