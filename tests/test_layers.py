"""The house's floors, from the source: files import downwards only, and heavy parts stay in their
rooms.
"""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "dmd2"

# From the ground up. A name stands for a module or for a whole package; a package may import its
# own modules.
FLOORS = (
    {"", "randomness", "io", "weights", "distributed"},
    {"diffusion", "data", "metrics", "config"},
    {"nets", "evaluation"},
    {"losses"},
    {"training"},
    {"runs"},
    {"cli", "benchmarks", "planning"},
)
KNOW_DATA = {"data", "evaluation", "training.callbacks", "runs", "benchmarks", "planning", "cli"}
ROOMS = {
    "hydra": {"cli", "config", "runs"},
    "omegaconf": {"cli", "config", "runs"},
    "lightning": {"training", "data", "runs", "benchmarks", "planning"},
    "wandb": {"training.callbacks.wandb_logger"},
    "diffusers": {"nets", "runs"},
    "peft": {"nets.lora"},
    "torchao": {"training.adamw_8bit"},
    "huggingface_hub": {"io.hub"},
    "transformers": {
        "metrics.dino",
        "metrics.clip_score",
        "metrics.hpsv2",
        "metrics.image_reward",
        "nets.text",
    },
}
OPTIONAL = {
    "zstandard",
    "lmdb",
    "submitit",
    "torchvision",
    "torch_fidelity",
    "cleanfid",
    "scipy",
    "wandb",
    "diffusers",
    "transformers",
    "peft",
    "torchao",
    "huggingface_hub",
    "pyarrow",
}
OPTIONAL |= {"torchmetrics"}  # its LPIPS imports torchvision
OPTIONAL |= {"plotly"}  # five megabytes of JavaScript, which only a page needs


def name_of(path: Path) -> str:
    """ "losses.turn" of losses/turn.py, "nets" of nets/__init__.py, "" of the package itself."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}


def imports(node: ast.AST) -> Iterator[str]:
    """Dotted names of all that is imported in a tree, at its top or inside functions."""
    for part in ast.walk(node):
        if isinstance(part, ast.Import):
            yield from (alias.name for alias in part.names)
        elif isinstance(part, ast.ImportFrom):
            assert part.level == 0 and part.module, "imports are absolute"
            yield from (f"{part.module}.{alias.name}" for alias in part.names)


def own_imports(name: str) -> set[str]:
    """Modules of this project that a module imports."""
    found = set()
    for imported in imports(ast.parse(FILES[name].read_text())):
        if imported.split(".")[0] == "dmd2":
            parts = imported.split(".")[1:]
            # "dmd2.data.pixels" is a module, "dmd2.training.training.ema.EMA" a name in one.
            found.add(
                next(n for i in range(len(parts), -1, -1) if (n := ".".join(parts[:i])) in FILES)
            )
    return found


def place(name: str, names: set[str]) -> str | None:
    """The entry among `names` that a module falls under: itself or the nearest package around
    it.
    """
    parts = name.split(".")
    return next((n for i in range(len(parts), 0, -1) if (n := ".".join(parts[:i])) in names), None)


def floor(name: str) -> int:
    everything = {n for names in FLOORS for n in names}
    entry = name if name == "" else place(name, everything)
    assert entry is not None, f"{name} has no floor yet: add it to FLOORS in {__file__}"
    return next(i for i, names in enumerate(FLOORS) if entry in names)


@pytest.mark.parametrize("name", FILES)
def test_imports_go_downwards(name: str):
    for imported in own_imports(name):
        assert floor(imported) <= floor(name), f"{name} imports {imported}, which stands above it"


def test_there_is_no_circle():
    tuple(TopologicalSorter({name: own_imports(name) for name in FILES}).static_order())


def test_packages_have_no_circle():
    """Two packages of one floor may know each other in one direction alone."""
    packages: dict[str, set[str]] = {}
    for name in FILES:
        package = name.split(".")[0]
        packages.setdefault(package, set()).update(n.split(".")[0] for n in own_imports(name))
    tuple(
        TopologicalSorter(
            {name: known - {name, ""} for name, known in packages.items() if name}
        ).static_order()
    )


def test_nothing_lies_at_the_top_but_randomness():
    assert {path.stem for path in ROOT.glob("*.py")} == {"__init__", "randomness"}


@pytest.mark.parametrize("name", FILES)
def test_data_and_models_do_not_know_each_other(name: str):
    known = own_imports(name)
    if place(name, {"data"}):
        assert all(n == "randomness" or place(n, {"data", "io", "distributed"}) for n in known)
    elif not place(name, KNOW_DATA):
        assert not any(place(n, {"data"}) for n in known)


@pytest.mark.parametrize("library", ROOMS)
def test_heavy_libraries_stay_in_their_rooms(library: str):
    for name, path in FILES.items():
        uses = any(
            imported.split(".")[0] == library for imported in imports(ast.parse(path.read_text()))
        )
        assert not uses or place(name, ROOMS[library]), f"{name} imports {library}"


@pytest.mark.parametrize("name", FILES)
def test_functions_import_optional_dependencies_only(name: str):
    """The command line is the exception: it answers before anything heavy is loaded."""
    if name in ("cli.main", "cli.sweep"):
        return
    tree = ast.parse(FILES[name].read_text())
    at_the_top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in at_the_top:
            assert {imported.split(".")[0] for imported in imports(node)} <= OPTIONAL, ast.unparse(
                node
            )


def test_nothing_is_called_utils_and_nothing_imports_everything():
    for name, path in FILES.items():
        assert not {"utils", "util", "helpers", "misc", "common"} & set(name.split("."))
        assert not any(imported.endswith(".*") for imported in imports(ast.parse(path.read_text())))


@pytest.mark.parametrize("name", FILES)
def test_a_file_opens_by_saying_what_it_is(name: str):
    text = FILES[name].read_text()
    assert not text.strip() or ast.get_docstring(ast.parse(text)), f"{name} has no docstring"


def test_files_are_short():
    lines = {name: len(path.read_text().splitlines()) for name, path in FILES.items()}
    long = {name for name in FILES if place(name, {"nets"})}  # a U-Net may be 300
    assert not {name: num for name, num in lines.items() if num > (300 if name in long else 219)}
