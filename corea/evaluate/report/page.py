"""A report as one HTML page that needs nothing else: no script, no font, no picture from anywhere.

Computes no figure; what it says about them is in :mod:`corea.evaluate.report.words` and in the template beside this.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from corea.evaluate.baselines import Point
from corea.evaluate.metrics import Estimate, GroupMetrics, SignalMetrics
from corea.evaluate.report import words
from corea.evaluate.report.figures import Report, WrongAnswer

#: Characters of a question shown at once, and all that are there to unfold.
QUESTION_HEAD, QUESTION_MOST = 420, 6000
#: Rows of a table shown at once; more are folded away.
OPEN_ROWS = 15
#: Notes listed under a table; more are folded away.
OPEN_NOTES = 6
#: A longer name may be broken over lines.
LONG_NAME = 24

_CONTROLS = {code: None for code in range(32) if code not in (9, 10, 13)}
_UNIT = re.compile(r"(?<=\d) (?=%)")


def to_html(report: Report) -> str:
    """The page. It can be written as UTF-8 whatever the questions hold; everything in them is escaped."""
    # matplotlib takes half a second to load, and --json needs none of it.
    from corea.evaluate.report import charts, tasks
    from corea.evaluate.report.frontier import frontier, ordered

    page = _template().render(
        report=report,
        unbroken=_unbroken(report),
        overall=report.overall,
        certified=report.certification.certified,
        models=_models(report),
        signals=ordered(report),
        tiles=_tiles(report),
        policies=list(_policies(report)),
        rows=_rows(report, few=False),
        few=_rows(report, few=True),
        answers=[_shown(answer) for answer in report.gallery.shown],
        footnotes=Footnotes,
        open_notes=OPEN_NOTES,
        open_rows=OPEN_ROWS,
        frontier=frontier(report),
        reliability=charts.reliability(report),
        risk=charts.risk_coverage(report),
        fates=tasks.fates(report),
        accuracies=tasks.accuracies(report),
        costs=charts.costs(report),
    )
    return page.translate(_CONTROLS).encode("utf-8", "replace").decode("utf-8")


def _unbroken(report: Report) -> Callable[[str], Markup]:
    """Keeps the models' names on one line, short as they are: "GPT-" with "4" below it is hard to read."""
    names = sorted({str(escape(name)) for name in (report.small, report.large) if len(name) <= LONG_NAME}, key=len)
    pattern = re.compile("|".join(re.escape(name) for name in reversed(names)) or r"(?!)")

    def mark(text: str) -> Markup:
        # Escaped first: what is put around a name is ours.
        return Markup(pattern.sub(r'<span class="name">\g<0></span>', str(escape(text))))  # noqa: S704

    return mark


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["words"] = words
    environment.filters["unit"] = lambda text: _UNIT.sub("\u00a0", str(text))
    return environment.get_template("page.html.j2")


class Footnotes:
    """Notes of one table, numbered as they come up; the same words get the same number."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def mark(self, note: str) -> int:
        if note not in self.texts:
            self.texts.append(note)
        return self.texts.index(note) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One of the few figures at the top."""

    name: str
    value: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A task or domain (or all questions): ``metrics`` of the certified signal, and what becomes of its questions."""

    name: str
    group: GroupMetrics
    metrics: SignalMetrics | None
    kept: int
    kept_wrong: int
    deferral_rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One of the two models alone."""

    name: str
    right: Estimate
    cost: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A wrong answer with its question cut in two: what is seen at once, and the rest."""

    answer: WrongAnswer
    head: str
    rest: str


def _tiles(report: Report) -> list[Tile]:
    overall, operation = report.overall, report.operation
    tiles = [
        Tile(name=f"{name} alone", value=words.value_of(right, "percent"), detail=_between("right", right))
        for name, right in ((report.small, overall.small_pass_at_1), (report.large, overall.large_pass_at_1))
    ]
    if operation.by == "none":
        return tiles
    point, drop = operation.point, operation.drop
    cost = _between("of the large model’s cost", point.saving)
    if point.saving.value is None:
        cost = point.saving.note or words.UNKNOWN
    return [
        *tiles,
        Tile(name="Cascade", value=words.value_of(point.accuracy, "percent"), detail=_between("right", point.accuracy)),
        Tile(name="Lost", value=words.value_of(drop, "points"), detail=_between("of accuracy", drop, "points")),
        Tile(name="Saved", value=words.value_of(point.saving, "percent"), detail=cost),
        Tile(
            name="Deferred",
            value=words.value_of(point.deferral_rate, "percent"),
            detail=_between("of the questions", point.deferral_rate),
        ),
    ]


def _between(what: str, estimate: Estimate, kind: words.Kind = "percent") -> str:
    spread = words.interval(estimate, kind)
    return f"{what} ({spread})" if spread else what


def _policies(report: Report) -> Iterator[tuple[str, Point]]:
    """What could be done instead, one line each: policies that are a single point, of the certified signal."""
    operation, chosen = report.operation, report.choice.signal
    names = {
        "always small": f"{report.small} alone",
        "always large": f"{report.large} alone",
        "oracle": "oracle cascade: keeps what is right",
        "oracle router": "oracle router: asks one model only",
        f"naive: {chosen}": f"naive rule on {chosen}, cross-validated",
        f"paper: {chosen}": f"rule of arXiv 2603.03752 on {chosen}, cross-validated",
    }
    if operation.by != "none":
        yield f"{operation.by} threshold on {chosen}", operation.point
    for baseline in report.baselines:
        if baseline.name in names and baseline.points:
            yield names[baseline.name], baseline.points[0]


def _rows(report: Report, *, few: bool) -> dict[str, list[Row]]:
    """Rows by kind, the largest first: of those with enough questions, or of those with too ``few`` to tell."""
    fates = {(fate.by, fate.name): (fate.kept, fate.kept_wrong) for fate in report.fates}
    of_all = (report.operation.kept, report.operation.kept_wrong)
    rows: dict[str, list[Row]] = {"all": [], "task": [], "domain": []}
    for group in sorted(report.groups, key=lambda group: (-group.n, group.name)):
        if few is (group.by == "all" or group.n >= words.MIN_TO_TELL):
            continue
        kept, wrong = of_all if group.by == "all" else fates[group.by, group.name]
        rows[group.by].append(
            Row(
                name=group.name,
                group=group,
                metrics=group.signals.get(report.choice.signal or ""),
                kept=kept,
                kept_wrong=wrong,
                deferral_rate=1 - kept / group.n,
            )
        )
    return rows


def _models(report: Report) -> list[Model]:
    alone = {one.name: one.points[0].cost_nano_usd for one in report.baselines if one.name.startswith("always")}
    right = report.overall.small_pass_at_1, report.overall.large_pass_at_1
    return [
        Model(name=report.small, right=right[0], cost=alone["always small"]),
        Model(name=report.large, right=right[1], cost=alone["always large"]),
    ]


def _shown(answer: WrongAnswer) -> Shown:
    text = answer.question or ""
    if len(text) <= QUESTION_HEAD + 80:
        return Shown(answer=answer, head=text, rest="")
    # Cut between words where there is a gap nearby.
    cut = text.rfind(" ", QUESTION_HEAD - 60, QUESTION_HEAD)
    cut = QUESTION_HEAD if cut < 0 else cut
    rest = text[cut:QUESTION_MOST].lstrip()
    if len(text) > QUESTION_MOST:
        rest += f"… ({len(text):,} characters in all)"
    return Shown(answer=answer, head=text[:cut], rest=rest)
