"""What each page supposes to be there before its first command: the page's reader has it, so the test makes it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from corea import Cascade, Request, Trace
from corea.ledger import Ledger, audits
from corea.ledger.audits import AlarmRow, AuditRow
from docs.fences import ROOT
from docs.stage import Stage, bring, copied_tutorial, free_port, pair, questions

Scene = Callable[[Stage, Path], None]


def tutorial(stage: Stage, measured: Path) -> None:
    """A checkout, and its own port for the models that the reader starts."""
    copied_tutorial(stage)
    stage.texts["8009"] = str(free_port())


def quick_start(stage: Stage, measured: Path) -> None:
    """A pair and questions; the page measures and certifies it."""
    stage.write("corea.toml", pair())
    stage.write("questions.jsonl", questions(200))


def certified(stage: Stage, measured: Path) -> None:
    """A pair that obeys a certificate, the outcomes that made it, and questions."""
    stage.write("corea.toml", pair(judged='certificate = "certificate.json"'))
    stage.write("questions.jsonl", questions(400))
    bring(stage, measured, "outcomes.parquet", "certificate.json")


def keys(stage: Stage, measured: Path) -> None:
    """A gateway that gives spans to a collector, and one key."""
    stage.write("corea.toml", pair(more="[gateway]\notel = true\n"))
    stage.run("corea keys create --name ann --tpm 1000")


def no_keys_yet(stage: Stage, measured: Path) -> None:
    stage.write("corea.toml", pair())


def dashboard(stage: Stage, measured: Path) -> None:
    stage.write("corea.toml", pair(more="[gateway.dashboard]\nenabled = true\n"))


def litellm(stage: Stage, measured: Path) -> None:
    """LiteLLM's own file, with the variables that it names."""
    stage.write(
        "config.yaml",
        """\
model_list:
  - model_name: local-qwen
    litellm_params:
      {model: openai/play-small, api_base: "http://127.0.0.1:MODELS_PORT/v1", api_key: os.environ/SMALL_KEY}
  - model_name: gpt-4o
    litellm_params:
      {model: openai/gpt-4o, api_base: "http://127.0.0.1:MODELS_PORT/v1", api_key: os.environ/OPENAI_API_KEY}
general_settings:
  master_key: os.environ/LITELLM_MASTER_KEY
""",
    )
    stage.run("export SMALL_KEY=one-key OPENAI_API_KEY=another-key LITELLM_MASTER_KEY=a-key-for-the-gateway")


def labelled(stage: Stage, measured: Path) -> None:
    """Questions of two tasks."""
    sums = [json.loads(line) | {"task": "sums"} for line in questions(60).splitlines()]
    words = [
        {
            "id": f"w{i}",
            "question": f"Which river flows through {place} and where does it end?",
            "answer": "?",
            "task": "rivers",
        }
        for i, place in enumerate(f"the town of {name}{i}" for i in range(6) for name in _TOWNS)
    ]
    stage.write("LABELS.jsonl", "".join(json.dumps(row) + "\n" for row in [*sums, *words]))


def traffic(stage: Stage, measured: Path) -> None:
    """A ledger with requests of a task, a certificate, and another configuration."""
    certified(stage, measured)
    stage.write("corea.toml", pair())
    rows = [json.loads(line) | {"task": "support"} for line in questions(60).splitlines()]
    stage.write("questions.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    stage.write("other.toml", pair(judged="threshold = 0.7"))
    stage.run("corea batch questions.jsonl answers.jsonl")


def trained(stage: Stage, measured: Path) -> None:
    """What a training run leaves of its questions."""
    stage.write("corea.toml", pair())
    stage.write("runs/first/held-out.jsonl", questions(120))


def repository(stage: Stage, measured: Path) -> None:
    """Benches are no part of the package; they run where the checkout can be imported."""
    stage.run(f'export PYTHONPATH="{ROOT}"')


def audited(stage: Stage, measured: Path) -> None:
    """Traffic of which everything was audited, and an open alarm of the task maths."""
    ledger = f'[ledger]\nurl = "sqlite:///{stage.folder}/ledger.db"\n'
    audit = "[audit]\nshare = 0.5\nmax_usd_per_day = 1\nlimit = 0.02\n"
    stage.write("corea.toml", pair(more=ledger + audit))
    bring(stage, measured, "outcomes.parquet")
    asked = [json.loads(line)["question"] for line in questions(200).splitlines()]
    with Cascade.from_config(stage.folder / "corea.toml") as cascade:
        traces = [cascade.ask_sync(Request.of(question, task="maths")) for question in asked]
        assert isinstance(cascade.ledger, Ledger)
        audits.add(cascade.ledger, [_audit(trace) for trace in traces])
        audits.raise_alarm(cascade.ledger, _ALARM)


def _audit(trace: Trace) -> AuditRow:
    return AuditRow(
        trace_id=trace.id, task="maths", epoch=0, bar=0.9, state="deferred" if trace.deferred else "done",
        propensity=0.5, day=1, asked_at_unix_s=trace.started_at_unix_s, uniform=True, agrees=True,
        cost_nano_usd=None if trace.deferred else 90_000,
    )  # fmt: skip


_ALARM = AlarmRow(
    id="a1", name="audit", task="maths", epoch=0, raised_at_unix_s=1.7e9, text="harm has passed 2 %", limit=0.02,
    low=0.03, high=0.2, audited=64, step_before=0.9, step_after=0.95,
)  # fmt: skip
_TOWNS = ("Ulm", "Basel", "Linz", "Passau", "Verona", "Tours", "Porto", "Riga", "Turin", "York")


SCENES: dict[str, Scene] = {
    "README.md": quick_start,
    "docs/audit.md": audited,
    "docs/batch.md": quick_start,
    "docs/dashboard.md": dashboard,
    "docs/deploy.md": litellm,
    "docs/gate.md": certified,
    "docs/gateway.md": keys,
    "docs/ladder.md": quick_start,
    "docs/ledger.md": no_keys_yet,
    "docs/policies.md": labelled,
    "docs/programs.md": repository,
    "docs/simulate.md": traffic,
    "docs/training.md": trained,
    "docs/tutorial.md": tutorial,
}
