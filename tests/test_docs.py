"""The pages: names resolve, links lead somewhere, the map is complete, and the examples of
extending.md train.
"""

import csv
import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import initialize_config_dir

from dmd2.cli.main import main
from dmd2.config.check import of_train
from dmd2.config.folder import config_folder
from docs_hooks import source_pages

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
BOOK = sorted((ROOT / "experiments").glob("*/README.md"))
BLOCK = re.compile(r"^```(python|yaml)\n# (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAME = re.compile(r"(?<![\w/.-])dmd2(?!\.(?:yaml|md)\b)(?:\.[A-Za-z_]\w*)+")
COMMAND = re.compile(r'^make (?:train|pairs) EXP=(\w+)(?: ARGS="([^"]+)")?', re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s#]+)")


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the files that extending.md shows; their Python counts as part of the package
    meanwhile.
    """
    folder, text = tmp_path_factory.mktemp("examples"), (ROOT / "docs" / "extending.md").read_text()
    blocks = BLOCK.findall(text)
    assert len(blocks) == text.count("```") // 2, (
        "a block of extending.md does not open with its file's name"
    )
    modules = []
    for _, path, content in blocks:
        assert not (ROOT / path).exists(), f"{path} exists: the example would hide it"
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
        if path.endswith(".py"):
            modules.append(path.removeprefix("src/").removesuffix(".py").replace("/", "."))
    with pytest.MonkeyPatch.context() as patch:
        for package in {module.rpartition(".")[0] for module in modules}:
            found = importlib.import_module(package)
            patch.setattr(
                found,
                "__path__",
                [*found.__path__, str(folder / "src" / package.replace(".", "/"))],
            )
        yield folder
    for module in modules:
        sys.modules.pop(module, None)


def resolve(name: str) -> None:
    """Import as much of a dotted name as is a module, and look the rest up."""
    parts = name.split(".")
    for i in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:i]))
        except ModuleNotFoundError as error:
            if not name.startswith(str(error.name)):
                raise
            continue
        for part in parts[i:]:
            found = getattr(found, part)
        return


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.stem != "CHANGELOG"], ids=lambda page: page.name
)
def test_every_name_on_a_page_resolves(page: Path, examples: Path):
    for name in sorted(set(NAME.findall(page.read_text()))):
        try:
            resolve(name)
        except (AttributeError, ModuleNotFoundError) as error:
            raise AssertionError(f"{page.name} names {name}, which is not there") from error


@pytest.mark.parametrize(
    "page", [*PAGES, *BOOK], ids=lambda page: f"{page.parent.name}/{page.name}"
)
def test_every_relative_link_leads_to_a_file(page: Path):
    for target in LINK.findall(page.read_text()):
        if "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), (
                f"{page.name} links to {target}, which is not there"
            )


@pytest.mark.parametrize("page", BOOK, ids=lambda page: page.parent.name)
def test_every_command_that_trains_composes_on_a_page_of_the_lab_book(
    page: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("DMD2_RUN_ID", "now")
    text = page.read_text().replace("\\\n", "")
    for experiment, words in COMMAND.findall(text):
        if words != "...":  # the page has a table of them
            with initialize_config_dir(str(config_folder()), version_base="1.3"):
                of_train([f"experiment={experiment}", *words.split()])


def test_every_test_that_shows_a_promise_is_there():
    page = ROOT / "docs" / "reliability.md"
    for path, names in re.findall(r"\]\((\S+\.py)\)((?:(?:, )?`::\w+`)*)", page.read_text()):
        source = (page.parent / path).read_text()
        for name in re.findall(r"\w+", names):
            assert f"def {name}(" in source, f"reliability.md names {name}, which is not in {path}"


def test_the_map_says_of_every_file_what_it_is():
    """The map is a page that is generated; the page on the architecture says what packages are."""
    map_of_the_source = source_pages.source_map()
    rows = dict(re.findall(r"^\| `(\S+\.py)` \| (.*) \|$", map_of_the_source, re.MULTILINE))
    architecture = (ROOT / "docs" / "architecture.md").read_text()
    for path in sorted((ROOT / "src" / "dmd2").rglob("*.py")):
        inside = path.relative_to(ROOT / "src" / "dmd2")
        if path.stem != "__init__":
            said = rows.get(inside.as_posix(), "")
            assert len(said.split()) > 2, f"the map does not say what {inside} is"
        package = inside.parts[0].removesuffix(".py")
        assert package == "__init__" or f"`{package}`" in architecture, (
            f"architecture.md does not say what {package} is"
        )


def test_the_experiment_of_extending_md_trains_and_is_scored(
    examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DMD2_RUN_ID", "now")
    short = [
        "max_iterations=4",
        "critic_updates=2",
        "log_every=2",
        "teacher.pretrain.max_iterations=2",
    ]
    scored = [
        "metric.num_samples=20",
        "callbacks.evaluation.every=4",
        "callbacks.samples=null",
        "trainer=cpu",
    ]
    command = [
        "dmd2",
        "train",
        f"--config-dir={examples / 'conf'}",
        "experiment=moons",
        *short,
        *scored,
    ]
    monkeypatch.setattr(sys, "argv", command)
    main()
    run = tmp_path / "runs" / "moons" / "now"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "completed" and summary["metrics"]["spread"] > 0
    with (run / "metrics.csv").open() as file:
        logged = next(csv.reader(file))
    assert {"generator/loss_sds", "generator/mean_pull", "generator/sds_to_dm"} <= set(logged)
