r"""Our grader and a second public one, on recorded answers of real models and on the packaged sample's gold answers.

    python -m bench.grading_agreement [FILE …] [--data DIR] [--out bench/results/grading_agreement.json]

The second grader is MathRuler's: that of the PRM800K data set (OpenAI), with the normalization of MATH (Hendrycks et
al.). It is no dependency of ours: pip install mathruler sympy pylatexenc tqdm.

Files are outcomes of `corea eval run` (Parquet), the journals beside them, or any JSON lines (plain or .gz) with kind,
answer and gold. Where a reply's whole text has a \boxed{…}, the second grader also finds the answer itself: "whole
reply". DIR holds question sets and, in outcomes/, recorded answers of public models to them; each different answer
counts once. The packaged sample is put into many forms whose verdict is known: "18 dollars" is 18, "18 or 19" is not.
"""

from __future__ import annotations

import argparse
import gzip
import json
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

from corea.grading.answers import grade, number_of
from corea.samples import GSM8K
from corea.types import Kind

#: Seconds for one comparison of theirs; sympy may hang.
LIMIT_S = 5.0
Theirs = Callable[[str, str], bool]

#: How a right answer may be written, and what is another answer, for a gold answer {0} with {1} = {0} + 1, {2} = 2·{0}.
RIGHT = (
    "{0}", "{0}.", "{0}.0", "{0}.00", "{0:,}", "${0}", "\\${0}", "${0}$", "\\(${0}\\)", "${0}.00", "${0:,}.00",
    "\\boxed{{{0}}}", "**{0}**", "{0} dollars", "{0} dollars per day", "{0} cm", "{0} cm^2", "{0} km/h", "{0} miles",
    "{0}\\text{{ meters}}", "\\text{{{0}}}", "x = {0}", "1 + 1 = {0}", "The answer is {0}", "She has {0} apples left.",
    "0{0}", "{0}/1", "\\frac{{{2}}}{{2}}", "\\dfrac{{{2}}}{{2}}", "{2}/2", "{0}^\\circ", "+{0}", "\\left({0}\\right)",
    "{0} \\text{{ units}}",
)  # fmt: skip
WRONG = (
    "", "?", "none", "{1}", "-{0}", "−{0}", "{0}.5", "{0}0", "1{0}", "0.{0}", "{0}x", "{0}\\pi", "\\sqrt{{{0}}}",
    "{0}^2", "{0}!", "{0} or {1}", "{0}, {1}", "{0} and {1}", "({0}, {1})", "\\pm {0}", "{0}/2", "\\frac{{{0}}}{{2}}",
    "1/{0}", "{0} million", "{0}e1", "{0} \\times 10^1", "< {0}", "not {0}", "more than {0}", "x = {0}, y = {1}",
    "{0} + 1", "{0} - x", "{0}i",
)  # fmt: skip
#: Recorded short answers under DIR/outcomes, and the sets they answer.
PUBLIC = ("cotuq", "gsmplus-gsm8k", "motcascade", "rereading", "zeroshotcot")
SETS = ("addsub", "aqua", "asdiv", "gsm8k-test", "multiarith", "singleeq", "strategyqa", "svamp")
EXPRESSIONS = "math-test-part"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One answer and what both say of it. ``truth``: None where only a reader can tell; ``form``: how {0} is put."""

    group: str
    kind: Kind
    answer: str
    gold: str
    ours: bool
    theirs: bool
    truth: bool | None = None
    form: str = ""


def second_grader() -> tuple[Theirs, Callable[[str], str]]:
    """Theirs, and how they find an answer in a reply. A comparison that hangs or fails is no match."""
    module = import_module("mathruler.grader")

    def theirs(answer: str, gold: str) -> bool:
        def stop(_: int, __: FrameType | None) -> None:
            raise TimeoutError

        signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
        try:
            return bool(module.grade_answer(answer, gold))
        except Exception:  # noqa: BLE001 - whatever it does to sympy
            return False
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    return theirs, module.extract_boxed_content


def sample_pairs(theirs: Theirs) -> Iterator[Pair]:
    for line in GSM8K.read_text(encoding="utf-8").splitlines():
        gold = json.loads(line)["answer"]
        value = int(gold)
        for truth, forms in ((True, RIGHT), (False, WRONG)):
            for form in forms:
                answer = form.format(value, value + 1, 2 * value)
                ours = grade(answer, gold, "number")
                yield Pair(
                    group="packaged sample, in many forms",
                    kind="number",
                    answer=answer,
                    gold=gold,
                    ours=ours,
                    theirs=theirs(answer, gold),
                    truth=truth,
                    form=form,
                )


def recorded_pairs(file: Path, theirs: Theirs, boxed: Callable[[str], str]) -> Iterator[Pair]:
    for row in _rows(file):
        kind, gold = row.get("kind"), row.get("gold")
        if kind is None or kind == "code" or not isinstance(gold, str) or row.get("error"):
            continue
        answer, text = row.get("answer") or "", row.get("text") or ""
        ours = grade(answer, gold, kind)
        name = f"{file.name.removesuffix('.rows.jsonl').removesuffix('.parquet')}, answer"
        yield Pair(group=name, kind=kind, answer=answer, gold=gold, ours=ours, theirs=theirs(answer, gold))
        if "\\boxed{" in text:
            name, found = name.replace(", answer", ", whole reply"), boxed(text)
            said = answer if answer == found else f"{answer}  (theirs: {found})"
            yield Pair(group=name, kind=kind, answer=said, gold=gold, ours=ours, theirs=theirs(found, gold))


def public_pairs(data: Path, theirs: Theirs) -> Iterator[Pair]:
    """Of each recorded file, one for every different answer to the same gold answer."""
    golds = {row["id"]: row for name in SETS for row in _rows(data / f"{name}.jsonl.gz")}
    for name in PUBLIC:
        seen = set()
        for row in _rows(data / "outcomes" / f"{name}.jsonl.gz"):
            question, answer = golds.get(row["id"]), row.get("answer")
            if question is None or answer is None or (question["kind"], question["answer"], answer) in seen:
                continue
            kind, gold = question["kind"], question["answer"]
            seen.add((kind, gold, answer))
            ours = grade(answer, gold, kind)
            yield Pair(
                group=f"public: {name}", kind=kind, answer=answer, gold=gold, ours=ours, theirs=theirs(answer, gold)
            )


def neighbour_pairs(data: Path, theirs: Theirs) -> Iterator[Pair]:
    """Expressions that look alike: gold answers of MATH, each against the next in the alphabet."""
    rows = _rows(data / f"{EXPRESSIONS}.jsonl.gz")
    golds = sorted({row["answer"] for row in rows if row["kind"] == "expression"})
    for gold, answer in zip(golds[::2], golds[1::2], strict=False):
        ours, their = grade(answer, gold, "expression"), theirs(answer, gold)
        yield Pair(group="MATH, neighbours", kind="expression", answer=answer, gold=gold, ours=ours, theirs=their)


def table(pairs: Iterable[Pair]) -> str:
    """Agreement by group and kind, as Markdown."""
    counts: defaultdict[tuple[str, str], Counter[tuple[bool, bool]]] = defaultdict(Counter)
    for pair in pairs:
        counts[pair.group, pair.kind][pair.ours, pair.theirs] += 1
    lines = ["| | kind | pairs | agree | ours yes, theirs no | ours no, theirs yes |", "|---|---|---|---|---|---|"]
    for (group, kind), count in counts.items():
        agreed, n = count[True, True] + count[False, False], count.total()
        lines.append(
            f"| {group} | {kind} | {n} | {agreed} ({agreed / n:.1%}) | {count[True, False]} | {count[False, True]} |"
        )
    return "\n".join(lines)


def disagreements(pairs: Iterable[Pair], theirs: Theirs) -> list[dict[str, Any]]:
    """Each answer once, with who is right where that is known. What is told once, with its number and an example: a
    form of the sample; and, of a file, the numbers that theirs reads too once the words around them are off.
    """
    listed: dict[tuple[object, ...], dict[str, Any]] = {}
    for pair in pairs:
        if pair.ours == pair.theirs:
            continue
        number = number_of(pair.answer) if pair.kind == "number" and pair.ours and not pair.form else None
        dressed = number is not None and theirs(str(number), pair.gold)
        key = (pair.group, pair.form or dressed) if pair.form or dressed else (pair.group, pair.answer, pair.gold)
        right = None if pair.truth is None else "ours" if pair.ours == pair.truth else "theirs"
        entry = {**asdict(pair), "right": right, "bare_number_agrees": dressed, "times": 0}
        listed.setdefault(key, entry)["times"] += 1
    return list(listed.values())


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    if file.suffix == ".parquet":
        from pyarrow import parquet

        yield from parquet.read_table(file).to_pylist()
        return
    with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as lines:
        # The last line of a journal that is being written may be cut.
        yield from (json.loads(line) for line in lines if line.endswith("\n"))


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("files", type=Path, nargs="*", metavar="FILE")
    options.add_argument("--data", type=Path, help="folder that holds question sets and outcomes/*.jsonl.gz")
    options.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "grading_agreement.json")
    asked = options.parse_args()
    try:
        theirs, boxed = second_grader()
    except ImportError as exc:
        print(f"skipped: the second grader is not here ({exc}); pip install mathruler sympy pylatexenc tqdm")
        return 0
    pairs = list(sample_pairs(theirs))
    for file in asked.files:
        pairs += recorded_pairs(file, theirs, boxed)
    if asked.data:
        pairs += [*public_pairs(asked.data, theirs), *neighbour_pairs(asked.data, theirs)]
    known = [pair for pair in pairs if pair.truth is not None]
    wrong = {
        "ours": sum(pair.ours != pair.truth for pair in known),
        "theirs": sum(pair.theirs != pair.truth for pair in known),
    }
    listed = disagreements(pairs, theirs)
    record = {"known": len(known), "wrong_of_known": wrong, "table": table(pairs).splitlines(), "disagreements": listed}
    asked.out.parent.mkdir(exist_ok=True)
    asked.out.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(table(pairs))
    for name, count in wrong.items():
        print(f"{name}: wrong in {count} of {len(known)} pairs whose verdict is known")
    print("\nDisagreements:")
    for one in listed:
        said = one["form"] or one["answer"]
        verdicts = "ours yes, theirs no" if one["ours"] else "ours no, theirs yes"
        right = f"; right: {one['right']}" if one["right"] else ""
        right += "; and others that differ by the words around a number" if one["bare_number_agrees"] else ""
        print(f"  {one['group']} · {one['kind']} · {said!r} for {one['gold']!r}, {one['times']}×: {verdicts}{right}")
    return 1 if wrong["ours"] else 0


if __name__ == "__main__":
    sys.exit(main())
