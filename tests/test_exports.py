"""What packages export: names that are there, in order, and nothing heavy loaded on the way."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import dmd2

ROOT = Path(dmd2.__file__).parent
SILENT = ("cli", "config", "distributed", "runs")
"""Packages whose `__init__` imports nothing: a Slurm job must hear signals before torch loads."""
PACKAGES = sorted(
    ".".join(("dmd2", *path.parent.relative_to(ROOT).parts))
    for path in ROOT.rglob("*/__init__.py")
    if path.parent.relative_to(ROOT).parts[0] not in SILENT
)
INNER = ("dmd2.benchmarks", "dmd2.planning")
"""Packages that verbs read and nobody else: they export nothing."""
OPTIONAL = {"diffusers", "transformers", "peft", "torchvision", "pyarrow", "lmdb", "zstandard"}


def loaded_by(statement: str, before: str = "") -> set[str]:
    """The modules that a statement loads in a fresh process, beyond those of another."""
    code = f"import sys; {before or 'pass'}; known = set(sys.modules); {statement}"
    code += "; print(*(set(sys.modules) - known))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def kind(name: str) -> tuple[int, str]:
    """As ruff sorts names: constants, then classes, then functions."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


@pytest.mark.parametrize("name", [n for n in PACKAGES if n not in INNER])
def test_what_a_package_exports_is_there_and_in_order(name: str) -> None:
    package = importlib.import_module(name)
    assert package.__all__ == sorted(package.__all__, key=kind) and package.__all__
    assert all(hasattr(package, exported) for exported in package.__all__)


@pytest.mark.parametrize("name", SILENT)
def test_the_packages_of_the_command_line_import_nothing(name: str) -> None:
    tree = ast.parse((ROOT / name / "__init__.py").read_text())
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


def test_importing_packages_loads_no_optional_library() -> None:
    """Lightning loads some of them where they are installed; the packages load no others."""
    packages = [n for n in PACKAGES if not n.startswith(("dmd2.training", "dmd2.benchmarks"))]
    assert not OPTIONAL & loaded_by(f"import {', '.join(packages)}", before="import lightning")


def test_importing_dmd2_loads_nothing() -> None:
    found = {name for name in loaded_by("import dmd2") if name.partition(".")[0] != "dmd2"}
    assert not {name.partition(".")[0] for name in found} & {"torch", "numpy", "lightning", "hydra"}


def test_the_door_has_its_names_and_their_types() -> None:
    assert all(getattr(dmd2, name).__name__ == name for name in dmd2.__all__)
    assert set(dmd2.__all__) <= set(dir(dmd2))
    stub = ast.parse((ROOT / "__init__.pyi").read_text())
    imported = {
        (node.module, alias.name)
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imported == {(home, name) for name, home in dmd2._HOMES.items()}
    assert (ROOT / "py.typed").exists()
    with pytest.raises(AttributeError, match="no attribute 'Dmd'"):
        _ = dmd2.Dmd
