"""mkdocs' hooks: generated pages, links to the repository's files, equations as MathML.

Pages in docs/ link to files of the repository, so that they can be read there; on the site such a
link leads to the page about that file, and is plain text where there is none.
"""

import html
import os
import posixpath
import re
from pathlib import Path
from typing import Any

import conf_pages
import health_page
import metrics_page
import source_pages

ROOT = Path(__file__).parents[2]
BOOK = ROOT / "experiments"
# [label](target#anchor) or a picture; a label may hold brackets, an address with a scheme is none.
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!\w+:|#)([^)\s#]+)(#[^)\s]*)?\)")
# A block, also one inside a list: its end is indented like its start.
FENCE = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
# A name in backquotes that is not a link's label already.
NAME = re.compile(r"(?<!\[)`(dmd2(?:\.[A-Za-z_]\w*)+)`(?!\])")
# What arithmatex leaves of $...$ and $$...$$.
MATH = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
LONG = re.compile(r"(?<!</span>)<code>([^<]{28,})</code>")
"""Code in a line of text; a block's code stands behind an empty span."""
TABLE = re.compile(r".*<!-- table of ([\w ]+) -->")
"""A line of a page in docs/: the site has the table in its place, and other readers are told so."""
TABLES = {
    "experiments": conf_pages.experiments,
    "checks": health_page.table,
    "scores": metrics_page.scores,
    "logged numbers": metrics_page.logged,
}
PLACES = {
    "README.md": "index.md",
    "conf": "reference/conf/index.md",
    "conf/train.yaml": "reference/conf/index.md#train",
    "conf/site.template.yaml": "reference/conf/index.md#site-template",
    "src": "reference/source.md",
    "src/dmd2": "reference/api/index.md",
    "src/dmd2/__init__.py": "reference/api/index.md",
}
"""Pages about single files and folders."""


def pages() -> dict[str, str]:
    """All generated pages, path in docs/ -> Markdown."""
    return {**conf_pages.pages(), **source_pages.pages(), **copies()}


def copied() -> dict[str, str]:
    """Pages that are files of the repository: path in docs/ -> path in the repository."""
    book = [page.relative_to(ROOT) for page in sorted(BOOK.glob("**/README.md"))]
    return {
        **{f"results/{'/'.join(page.parts[1:-1])}.md": str(page) for page in book},
        "contributing.md": "CONTRIBUTING.md",
        "changelog.md": "CHANGELOG.md",
        "security.md": "SECURITY.md",
    }


def copies() -> dict[str, str]:
    """The text of those pages."""
    return {page: (ROOT / path).read_text() for page, path in copied().items()}


def pictures() -> dict[str, Path]:
    """Pictures of the lab book: path in docs/ -> the file."""
    return {f"results/{path.relative_to(BOOK)}": path for path in sorted(BOOK.glob("**/*.png"))}


def place_of(path: str) -> str | None:
    """Where the site says what a file or folder of the repository is: a path in docs/, with an
    anchor, or a dotted name of the API behind a colon; None where it does not say.
    """
    places = {source: page for page, source in copied().items()} | PLACES
    if path in places:
        return places[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path.startswith("experiments/") and path.endswith(".png"):
        return path.replace("experiments/", "results/", 1)
    # Commands before groups: conf/VERB.yaml is a file, and a group of conf/ is a folder.
    for verb, (_, module) in source_pages.verb_modules().items():
        if path in (f"conf/{verb}.yaml", module.relative_to(ROOT).as_posix()):
            return f"reference/verbs.md#dmd2-{verb}"
    if found := re.fullmatch(r"conf/(\w+)(?:/(\w+)\.yaml)?", path):
        return f"reference/conf/{found[1]}.md" + (f"#{found[2]}" if found[2] else "")
    return place_of_source(path) if path.startswith("src/") else None


def place_of_source(path: str) -> str:
    """The same of a file or a package below src/."""
    inside = Path(path).with_suffix("").parts[1:]
    is_module = path.endswith(".py") and inside[-1] != "__init__"
    if inside[0] != "dmd2" or inside[1] in source_pages.NOT_API:
        return "reference/source.md"  # which has every file, and the API has not
    if is_module:
        return f":{'.'.join(inside)}"
    return f"reference/api/{'.'.join(part for part in inside[1:] if part != '__init__')}.md"


def linked(text: str, source: str, page: str) -> str:
    """Markdown whose links to files of the repository, relative to `source`, lead to pages of the
    site, relative to `page`; raises ValueError where a file is not there.
    """

    def lead(found: re.Match[str]) -> str:
        bang, label, target, anchor = found.groups()
        # "../conf/train.yaml" of docs/x.md is conf/train.yaml of the repository.
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if not (ROOT / path).exists():
            raise ValueError(f"{source} links to {target}, which is not there")
        place = place_of(path)
        if place is None:
            return label  # e.g. a test: the site has no page about it
        if place.startswith(":"):
            return (
                f"[{label}][{place[1:]}]"  # autorefs knows the page, and fails on an unknown name
            )
        # An anchor in the link goes before that of the place; mkdocs checks that it is there.
        name, _, own = place.partition("#")
        behind = anchor or (f"#{own}" if own else "")
        return f"{bang}[{label}]({os.path.relpath(name, posixpath.dirname(page) or '.')}{behind})"

    return outside_code(LINK, lead, text)


def named(text: str) -> str:
    """Markdown where a `dmd2.dotted.name` leads to the documentation of what it names."""

    def lead(found: re.Match[str]) -> str:
        # Optional: a name that pages quote may be private, or the reader's own.
        return f'<autoref identifier="{found[1]}" optional><code>{found[1]}</code></autoref>'

    return outside_code(NAME, lead, text)


def outside_code(pattern: re.Pattern[str], lead: Any, text: str) -> str:
    """`pattern.sub`, but for fenced blocks."""
    # Not one pattern with a look-behind: a block may hold any number of matches.
    parts, start = list[str](), 0
    for block in FENCE.finditer(text):
        parts += [pattern.sub(lead, text[start : block.start()]), block[0]]
        start = block.end()
    return "".join([*parts, pattern.sub(lead, text[start:])])


def equations(page: str) -> str:
    """HTML whose LaTeX is MathML, which browsers show without a script; raises ValueError where
    there is a command that cannot be.
    """
    # Imported here: the tests of links and tables run without the extra "docs".
    from latex2mathml.converter import convert  # noqa: PLC0415

    def drawn(found: re.Match[str]) -> str:
        display = "block" if found[1] == "div" else "inline"
        math = convert(html.unescape(found[2]).strip(), display=display)
        # An unknown command comes through as text, with its backslash.
        if "\\" in re.sub(r"<[^>]*>", "", math):
            raise ValueError(f"latex2mathml does not know a command of {found[2]}")
        return f'<div class="display-math">{math}</div>' if found[1] == "div" else math

    return MATH.sub(drawn, page)


def breakable(page: str) -> str:
    """HTML whose long names in a sentence or a table may break behind a dot, dash or the like."""

    # Not before ";" and ":", which may end an entity (&lt;) or follow a key (_target_:).
    def broken(found: re.Match[str]) -> str:
        return f"<code>{re.sub(r'(?<=[._/=,])(?=[^;:])', '<wbr>', found[1])}</code>"

    return LONG.sub(broken, page)


def on_config(config: Any) -> Any:
    """Write the names of generated pages into the navigation, for each `FOLDER/*`."""
    names = list(pages())

    def filled(item: Any) -> Any:
        if isinstance(item, dict):
            return {title: filled(inner) for title, inner in item.items()}
        if isinstance(item, list):
            return [filled(inner) for inner in item]
        if item.endswith("/*"):
            return [name for name in names if name.startswith(item[:-1])]
        return item

    config.nav = filled(config.nav)
    return config


def on_files(files: Any, *, config: Any) -> Any:
    """Add the generated pages, and the pictures that they show."""
    from mkdocs.structure.files import File  # noqa: PLC0415

    # In memory alone: a generated page on disk would be committed, and grow old.
    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    for path, picture in pictures().items():
        files.append(File.generated(config, path, abs_src_path=str(picture)))
    return files


def on_page_markdown(text: str, *, page: Any, **_: Any) -> str:
    """Lead links where they go on the site."""
    uri = page.file.src_uri
    # The tables link like the rest of the page, to files of the repository.
    text = TABLE.sub(lambda found: TABLES[found[1]](), text)
    if uri.startswith("reference/"):
        return text  # its links are those of the site
    return named(linked(text, copied().get(uri, f"docs/{uri}"), uri))


def on_page_content(content: str, **_: Any) -> str:
    """Write equations as MathML, and let long names break."""
    return breakable(equations(content))
