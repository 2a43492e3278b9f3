"""A matplotlib figure as SVG inside a page: text stays text, the same figure gives the same letters, ids are its own.

Knows nothing of what is drawn.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.figure import Figure

WIDTH_INCHES = 4.4

INK, GREY, PALE = "#1a1a1a", "#5f5f5f", "#dcdcdc"
# Okabe and Ito's colours, which colour-blind people can tell apart; the shapes do for those who print in grey.
BLUE, VERMILLION, GREEN, ORANGE, PURPLE = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7"
LINES: tuple[dict[str, Any], ...] = (
    {"color": BLUE, "linestyle": "-", "linewidth": 2.2},
    {"color": GREEN, "linestyle": (0, (5, 2)), "linewidth": 1.5},
    {"color": PURPLE, "linestyle": (0, (4, 1.5, 1, 1.5)), "linewidth": 1.5},
    {"color": ORANGE, "linestyle": (0, (2, 1)), "linewidth": 1.5},
)
ROUTER: dict[str, Any] = {"color": INK, "linestyle": (0, (6, 1.5, 1, 1.5, 1, 1.5)), "linewidth": 1.2}
CHANCE: dict[str, Any] = {"color": GREY, "linestyle": (0, (1, 1.5)), "linewidth": 1.4}

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    # A task may be called "$x$"; it is a name, not a formula.
    "text.parse_math": False,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": PALE,
    "grid.linewidth": 0.6,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "hatch.linewidth": 0.7,
}
_TAG = re.compile(r"<[^>]*>")
_ROOT = re.compile(r"<svg[^>]*?viewBox=\"(?P<box>[^\"]*)\"[^>]*>")
_DROPPED = re.compile(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<defs>\s*</defs>", re.DOTALL)
_FONT = re.compile(r"font(?:-family)?: (?P<size>[\d.]+px)?[^;\"]*;? ?")
_ID = re.compile(r" id=\"(?P<name>[^\"]*)\"")
_USE = re.compile(r"(?:href=\"#|url\(#)(?P<name>[^\")]+)")
_SPACE = re.compile(r">\s+<")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A drawing, and the figures in it as a table. ``note``: what a reader should know of it."""

    name: str
    title: str
    svg: Markup
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str | None = None


@contextmanager
def drawing(name: str) -> Iterator[None]:
    """Draw within: in our style, whatever the user's own says. matplotlib's settings are restored afterwards.

    They are global for as long as it takes, so not in two threads at once.
    """
    with matplotlib.rc_context(), warnings.catch_warnings():
        # The browser has the glyph, even where the font that only measures the text has not.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**_STYLE, "svg.hashsalt": name})
        yield


def inline(figure: Figure, *, name: str, label: str) -> Markup:
    """The figure as an ``<svg>`` element. ``name``: unique in the page; ``label``: what is read out instead of it."""
    written = io.StringIO()
    figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = written.getvalue()
    svg = _DROPPED.sub("", svg[svg.index("<svg") :])
    # Within tags only: a label may look like anything.
    used = {found["name"] for tag in _TAG.findall(svg) for found in _USE.finditer(tag)}
    svg = _TAG.sub(lambda tag: _tidied(tag.group(), name, used), svg)
    svg = _ROOT.sub(lambda found: _root(found["box"], label), svg, count=1)
    # Made by matplotlib, which escapes what it writes, and by escape() above.
    return Markup(_SPACE.sub("><", svg.strip()))  # noqa: S704


def _root(box: str, label: str) -> str:
    return (
        f'<svg class="chart" role="img" aria-label="{escape(label)}" viewBox="{box}" stroke-linejoin="round" '
        'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )


def _tidied(tag: str, name: str, used: set[str]) -> str:
    """Ids that nothing refers to are dropped, the others are made this chart's; the page chooses the font."""
    tag = _ID.sub(lambda found: f' id="{name}-{found["name"]}"' if found["name"] in used else "", tag)
    tag = _USE.sub(lambda found: found.group().replace(found["name"], f"{name}-{found['name']}"), tag)
    return _FONT.sub(lambda found: f"font-size: {found['size']}; " if found["size"] else "", tag)
