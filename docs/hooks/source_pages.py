"""Pages read off the source, which is parsed and not imported: commands, API, map of the source."""

import ast
from pathlib import Path

from conf_pages import CONF, cell, key_table
from yaml_comments import read

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "dmd2"
NOT_API = ("cli",)
"""Packages without a page in the API: the commands have a page of their own."""


def pages() -> dict[str, str]:
    """Path in docs/ -> Markdown."""
    return {"reference/verbs.md": verbs(), **api(), "reference/source.md": source_map()}


def docstring(path: Path) -> str:
    """A module's docstring, or nothing."""
    return ast.get_docstring(ast.parse(path.read_text())) or ""


def first_sentence(path: Path) -> str:
    """The docstring's first paragraph in one line."""
    return " ".join(docstring(path).partition("\n\n")[0].split())


def constant(path: Path, name: str) -> object:
    """The value of a literal constant at a module's top; raises KeyError where there is none."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == name:
            return ast.literal_eval(node.value)  # a literal: nothing of the module is run
    raise KeyError(name)


def verb_modules() -> dict[str, tuple[str, Path]]:
    """Verb -> what it does in a line, and its module."""
    main = SOURCE / "cli" / "main.py"
    about, modules = constant(main, "VERBS"), constant(main, "MODULES")
    assert isinstance(about, dict) and isinstance(modules, dict)
    return {
        verb: (what, SOURCE / "cli" / f"{modules.get(verb, verb)}.py")
        for verb, what in about.items()
    }


def verbs() -> str:
    """The commands, with the text of `dmd2 VERB --help` and the options of conf/VERB.yaml."""
    found = verb_modules()
    lines = [
        "# Commands\n",
        '`dmd2 VERB KEY=VALUE ...`; in a checkout `make VERB ARGS="KEY=VALUE ..."` is the same.',
        "What follows is what `dmd2 VERB --help` prints. A mistake ends with one line and exit",
        "code 2, Ctrl-C with 130.\n",
        "| command | what it does |\n|---|---|",
        *(f"| [`dmd2 {verb}`](#dmd2-{verb}) | {what} |" for verb, (what, _) in found.items()),
    ]
    for verb, (_, path) in found.items():
        # The help's first paragraph is prose; its usage and options keep their columns.
        about, _, rest = docstring(path).partition("\n\n")
        lines.append(f"\n## dmd2 {verb} {{ #dmd2-{verb} }}\n\n{about}\n\n```text\n{rest}\n```\n")
        # train, pretrain and pairs read all of conf/, which has pages of its own.
        if (CONF / f"{verb}.yaml").exists() and verb != "train":
            lines.append(key_table(read(CONF / f"{verb}.yaml").keys))
        else:
            lines.append("Its keys: [Configuration](conf/index.md).")
    return "\n".join(lines) + "\n"


def packages() -> list[Path]:
    """Folders with an `__init__.py` below src/dmd2."""
    return sorted(path.parent for path in SOURCE.rglob("__init__.py") if path.parent != SOURCE)


def dotted(path: Path) -> str:
    """ "dmd2.losses.terms" of a file or a folder below src."""
    return ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts)


def api() -> dict[str, str]:
    """An overview, and a page a package with each of its modules, for mkdocstrings."""
    found = {}
    rows = ["| package | what it is |\n|---|---|"]
    # Modules that lie in no package.
    top = [f"::: {dotted(path)}" for path in sorted(SOURCE.glob("*.py")) if path.stem != "__init__"]
    for package in packages():
        if package.name in NOT_API:
            continue
        name = dotted(package)
        modules = [path for path in sorted(package.glob("*.py")) if path.stem != "__init__"]
        about = first_sentence(package / "__init__.py")
        toc = [
            f"| [`{path.stem}`][{dotted(path)}] | {cell(first_sentence(path))} |"
            for path in modules
        ]
        lines = [f"# {name}\n", f"{about}\n", "| module | what it is |\n|---|---|", *toc, ""]
        # Modules, not the package: what its __init__ exports would be documented twice.
        lines += [f"::: {dotted(path)}\n" for path in modules]
        # Dots stay, since a package inside a package has a page of its own beside it.
        page = name.removeprefix("dmd2.")
        found[f"reference/api/{page}.md"] = "\n".join(lines)
        rows.append(f"| [`{name}`]({page}.md) | {cell(about)} |")
    overview = [
        "# Python API\n",
        "Every public module, class and function, by package. Shapes are written `[B, C, H, W]`.",
        "[From Python](../../python.md) shows how they are put together.\n",
        *rows,
        "",
        *top,
    ]
    return {"reference/api/index.md": "\n".join(overview) + "\n", **found}


def source_map() -> str:
    """Every file of the source with its first sentence, floor by floor."""
    # Read where they are checked, so that the page cannot say otherwise.
    floors = constant(ROOT / "tests" / "test_layers.py", "FLOORS")
    assert isinstance(floors, tuple)
    lines = [
        "# Map of the source\n",
        "Every file with the first sentence of its docstring. A file imports from its own floor or",
        "from lower ones; `tests/test_layers.py` checks it. [Architecture](../architecture.md)",
        "says what the floors are for.\n",
    ]
    for number, names in enumerate(floors, 1):
        lines.append(f"## Floor {number}\n")
        # A name is a package or a module at the top; "" is the package dmd2 itself.
        modules = {name: SOURCE / f"{name or '__init__'}.py" for name in sorted(names)}
        lines += _files(SOURCE, [path for path in modules.values() if path.exists()])
        for name in (name for name, path in modules.items() if not path.exists()):
            lines += _package(SOURCE / name)
    plugins = sorted((SOURCE.parent / "hydra_plugins").rglob("*.py"))
    lines += ["## Hydra's plugins\n", *_files(SOURCE.parent, plugins)]
    return "\n".join(lines) + "\n"


def _package(place: Path) -> list[str]:
    """A package with its files and those of packages inside it."""
    inside = [path for path in sorted(place.rglob("*.py")) if path.name != "__init__.py"]
    about = first_sentence(place / "__init__.py")
    return [f"### {place.name}/\n", f"{about}\n", *_files(SOURCE, inside)]


def _files(start: Path, paths: list[Path]) -> list[str]:
    if not paths:
        return []
    rows = [f"| `{path.relative_to(start)}` | {cell(first_sentence(path))} |" for path in paths]
    return ["| file | what it is |\n|---|---|", *rows, ""]
