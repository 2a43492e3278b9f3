"""For the site only: links out of the docs, what docstrings have that Markdown has not, and the decisions.

A link from a page to a file of the repository, e.g. ``../bench``, works on a code host. The site has no such file, so
there the link becomes its path, as code; with ``repo_url`` in mkdocs.yml it leads there. Docstrings name classes with
Sphinx's roles, and show examples after ``>>>``. Knows nothing of links between pages: mkdocs checks those itself.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

#: ``[text](../path)``; a picture is none.
_OUTSIDE = re.compile(r"(?<!!)\[(?P<text>[^\]]*)\]\((?P<path>\.\./[^)#\s]*)(?:#[^)\s]*)?\)")
#: What is left of ``:class:`Trace` `` once Markdown has made code of the name.
_ROLE = re.compile(r":(?:class|meth|func|mod|attr|data|exc):(?=<code>)")

#: What Markdown makes of an example after ``>>>``: a quotation in a quotation in a quotation.
_EXAMPLE = re.compile(r"(?:<blockquote>\s*){3}<p>(?P<lines>.*?)</p>\s*(?:</blockquote>\s*){3}", re.DOTALL)


def on_config(config: Any) -> Any:
    """The decisions' part of the navigation, from the folder: a new page there needs no line in mkdocs.yml."""
    folder = Path(config["docs_dir"]) / "decisions"
    numbered = [f"decisions/{page.name}" for page in sorted(folder.glob("[0-9]*.md"))]
    part = next(part for part in config["nav"] if isinstance(part, dict) and "Decisions" in part)
    part["Decisions"] = [*part["Decisions"], *numbered]
    return config


def on_page_content(html: str, *, page: Any, config: Any, files: Any) -> str:
    """The page without the roles' names, and with examples as code."""
    return _EXAMPLE.sub(_example, _ROLE.sub("", html))


def _example(found: re.Match[str]) -> str:
    lines = (re.sub(r"^\.\.\. ?|\s*# doctest:.*$", "", line) for line in found["lines"].splitlines())
    return f"<div class='highlight'><pre><code>{chr(10).join(lines)}</code></pre></div>"


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Raises :class:`FileNotFoundError` for a link to what is not there, so that a build with it fails."""
    docs = Path(config["docs_dir"])
    root = docs.parent

    def replaced(link: re.Match[str]) -> str:
        target = (docs / page.file.src_uri).parent / link["path"]
        resolved = target.resolve()
        if resolved.is_relative_to(docs.resolve()):
            return link[0]
        if not resolved.exists():
            raise FileNotFoundError(f"{page.file.src_uri} links to {link['path']}, which is not there")
        path = resolved.relative_to(root.resolve()).as_posix()
        if config["repo_url"]:
            kind = "tree" if resolved.is_dir() else "blob"
            return f"[{link['text']}]({config['repo_url'].rstrip('/')}/{kind}/main/{path})"
        return f"`{path}`"

    return _OUTSIDE.sub(replaced, markdown)
