"""The contributor's files: what they name is there, and they say the same as pyproject.toml."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FILES = [
    *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff", "mkdocs.yml")),
    *(path for path in (ROOT / ".github").rglob("*") if path.is_file()),
]


def test_the_citation_has_what_its_schema_wants_and_both_papers():
    """Citation File Format 1.2.0: required keys, and the types that this file uses."""
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(cff)
    assert cff["cff-version"] == "1.2.0" and cff["type"] == "software"
    assert (cff["version"], cff["license"]) == (PROJECT["version"], PROJECT["license"])
    assert all(set(author) == {"name"} for author in cff["authors"])
    found = set()
    for paper in cff["references"]:
        assert {"type", "title", "authors"} <= set(paper) and isinstance(paper["year"], int)
        assert all({"family-names", "given-names"} == set(author) for author in paper["authors"])
        for identifier in paper["identifiers"]:
            assert set(identifier) == {"type", "value"} and identifier["type"] == "other"
            found.add(identifier["value"])
            assert identifier["value"].removeprefix("arXiv:") in paper["url"]
    assert found == {"arXiv:2311.18828", "arXiv:2405.14867"}


def test_the_workflow_runs_the_checks_on_supported_versions_with_pinned_actions():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    job = workflow["jobs"]["ci"]
    assert any(step.get("run", "").split()[-1:] == [".ci/run"] for step in job["steps"])
    versions = job["strategy"]["matrix"]["python"]
    assert {"3.11", "3.13"} <= set(versions)
    assert all(version in SpecifierSet(PROJECT["requires-python"]) for version in versions)
    actions = [step["uses"] for step in job["steps"] if "uses" in step]
    assert actions and all(re.fullmatch(r"actions/[\w-]+@v\d+", action) for action in actions)


def test_hooks_run_the_linter_that_is_installed():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"]
    entries = " ".join(hook["entry"] for repo in hooks for hook in repo["hooks"])
    assert "ruff check" in entries and "ruff format" in entries


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_address_of_a_person_stands_in_a_file(path: Path):
    assert not re.search(r"[\w.+-]+@[\w-]+\.[a-z]{2,}", path.read_text())


def test_places_that_contributing_names_are_there():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for place in re.findall(r"`((?:src|tests|conf)/[\w/.]+)`", text):
        if not re.search(r"[A-Z]{2,}", place):
            assert (ROOT / place).exists(), place


def test_packages_that_the_changelog_names_are_there():
    for name in set(
        re.findall(r"\| `(dmd2\.[\w.]+)` \|$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    ):
        assert (ROOT / "src" / name.replace(".", "/") / "__init__.py").exists(), name
