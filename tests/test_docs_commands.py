"""What pages tell a reader to type: verbs, targets and options exist, what trains composes, and the
Python of every page runs.
"""

import itertools
import re
import shlex
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from dmd2.cli.main import VERBS, main
from dmd2.cli.plan import OWN
from dmd2.config.check import check_options, of_train
from dmd2.config.folder import config_folder

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BOOK = sorted((ROOT / "experiments").glob("*/README.md"))
SHELL = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`((?:dmd2|make|torchrun|python -m) [^`]+)`(?!`)")
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = dict(re.findall(r"^([a-z]+):.*?##.*\n((?:\t.*\n)*)", MAKEFILE, re.MULTILINE))
DEFAULTS = dict(re.findall(r"^([A-Z]+) \?= (.*)$", MAKEFILE, re.MULTILINE))
TRAINING = ("train", "pretrain", "pairs", "plan")
ELSEWHERE = {"bash", "cd", "git", "pip", "pre-commit", "sbatch", "source"}
"""Programs of others whose arguments are not checked."""
PATHS = {"source", "configs", "out", "run", "runs", "weights", "critic_weights", "path", "folder"}
"""Last parts of keys that take a path: a name in capitals may stand there."""


def words_of(line: str) -> list[str]:
    """The words of a command, without a comment, and without settings of the environment."""
    words = shlex.split(line, comments=True)
    return list(itertools.dropwhile(lambda w: re.fullmatch(r"[A-Z][A-Z0-9_]*=.*", w), words))


def commands(page: Path) -> list[tuple[str, bool]]:
    """The commands in a page's blocks and sentences, each once, and whether in a sentence."""
    text = page.read_text()
    blocks = [block.replace("\\\n", " ").splitlines() for block in SHELL.findall(text)]
    shown = [(line, False) for block in blocks for line in block if words_of(line)]
    said = [(" ".join(found.split()), True) for found in INLINE.findall(FENCED.sub("", text))]
    return list(dict.fromkeys(shown + said))


ALL = [(page, *command) for page in (*PAGES, *BOOK) for command in commands(page)]


def from_make(words: list[str]) -> Iterator[list[str]]:
    """The dmd2 commands that a make command's targets run; raises KeyError for an unknown one."""
    given = dict(word.split("=", 1) for word in words if re.match(r"[A-Z]+=", word))
    variables = {**DEFAULTS, **given}
    for target in (word for word in words if not re.match(r"[A-Z]+=", word)):
        if target == "TARGET":
            continue
        recipe = TARGETS[target]
        for _ in range(2):  # RUN names EXP
            recipe = re.sub(r"\$\((\w+)\)", lambda m: variables.get(m[1], ""), recipe)
        for line in recipe.splitlines():
            if "/dmd2 " in line:
                yield shlex.split(line.partition("/dmd2 ")[2])


def is_placeholder(word: str) -> bool:
    """Whether a word, or a part of its key, stands for something that the reader fills in."""
    key = word.partition("=")[0]
    in_capitals = any(re.fullmatch(r"[A-Z]{2,}", part) for part in key.split("."))
    return in_capitals or word in ("...", "key=value")


def filled(verb: str, words: list[str], experiment: str) -> list[str]:
    """Overrides as a reader may have them: a choice NAME is one that there is.

    Raises AssertionError where a placeholder stands for what is no path and no choice.
    """
    found = []
    for word in words:
        key, _, value = word.partition("=")
        name = key.rpartition(".")[2]
        if is_placeholder(word):
            continue
        if re.fullmatch(r"[A-Z][A-Z_]*(\.\w+|/.*)?", value):
            is_path = name in PATHS or key == "teacher.negative"
            assert is_path or name in CHOICE, f"dmd2 {verb}: {value} stands for {key}, no path"
            word = word if is_path else f"{key}={(CHOICE | {'experiment': experiment})[name]}"
        found.append(word)
    return found


EXPERIMENTS = sorted(path.stem for path in (config_folder() / "experiment").glob("*.yaml"))
CHOICE = {
    path.name: min(path.glob("*.yaml")).stem for path in config_folder().iterdir() if path.is_dir()
}
"""A choice of each group of conf/, for where a page says NAME."""


def check_command(verb: str, words: list[str]) -> None:
    """Compose what a command asks for and check every key; raises on what is not known. Where the
    page says experiment=NAME, one experiment that it fits is enough.
    """
    words = list(itertools.takewhile(lambda word: word != ">", words))
    flags = [word for word in words if word.startswith("--")]
    if {"--help", "--choices"} & {*words} or any(flag.startswith("--config-dir") for flag in flags):
        return  # with a folder of their own the experiment is the reader's
    values = {"job"} if "--cfg" in flags else set()
    words = [word for word in words if word not in {*flags, *values}]
    is_open = any(word.endswith("experiment=NAME") for word in words)
    for experiment in ["digits_dmd2", *EXPERIMENTS] if is_open else ["digits_dmd2"]:
        try:
            compose_and_check(verb, filled(verb, words, experiment))
        except (HydraException, ValueError) as error:  # e.g. one whose teacher is given, too
            unfit = error
        else:
            return
    raise unfit


def compose_and_check(verb: str, overrides: list[str]) -> None:
    """Compose every combination of a sweep as `dmd2 VERB` does, and check its keys."""
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        for combination in combinations(overrides):
            if verb in TRAINING:
                of_train([word for word in combination if not OWN.match(word)])
            else:
                check_options(compose(verb, overrides=combination), verb)


def combinations(overrides: list[str]) -> Iterator[list[str]]:
    """Every combination of a sweep; one, where no value is a list of choices."""
    parsed = OverridesParser.create().parse_overrides(overrides)
    choices = [
        [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
        if override.is_sweep_override()
        else [text]
        for override, text in zip(parsed, overrides, strict=True)
    ]
    yield from map(list, itertools.product(*choices))


NEEDED = {
    "prepare": ["recipe=NAME", "source=DIR", "out=DIR"],
    "import": ["source=FILE", "out=FILE"],
    "sample": ["run=DIR"],
    "evaluate": ["run=DIR"],
    "export": ["run=DIR", "out=DIR"],
    "compare": ["runs=DIR"],
    "check": ["run=DIR"],
}
"""Options that must be given; a sentence may show a command without them."""


def completed(verb: str, words: list[str]) -> list[str]:
    """A command of a sentence with the options that it leaves out."""
    given = {word.partition("=")[0] for word in words}
    return [*words, *(word for word in NEEDED.get(verb, []) if word.partition("=")[0] not in given)]


@pytest.mark.parametrize(
    ("page", "line", "in_a_sentence"),
    ALL,
    ids=[f"{page.parent.name}/{page.name}:{line[-50:]}" for page, line, _ in ALL],
)
def test_what_a_page_says_to_type_is_known(
    page: Path, line: str, in_a_sentence: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("DMD2_RUN_ID", "now")
    words = words_of(line)
    if words[0] == "torchrun" and "dmd2" in words:
        words = words[words.index("dmd2") :]
    if words[0] == "make":
        asked = list(from_make(words[1:]))
    elif words[0] == "dmd2":
        asked = [words[1:]]
    elif words[:2] == ["python", "-m"]:
        assert find_spec(words[2]), f"{page.name}: there is no module {words[2]}"
        return
    else:
        assert words[0] in ELSEWHERE, f"{page.name}: {words[0]} is not known here"
        return
    for verb, *rest in asked:
        if verb in ("--help", "--completion", "--version", "VERB"):
            continue
        assert verb in VERBS, f"{page.name}: there is no verb {verb}"
        own = [word for word in rest if f"# conf/{word.replace('=', '/')}.yaml" in page.read_text()]
        if not own:  # else the page shows the file, and a test of its own trains it
            check_command(verb, completed(verb, rest) if in_a_sentence else rest)


def test_a_page_that_is_wrong_fails():
    with pytest.raises(KeyError, match="trian"):
        list(from_make(["trian"]))
    with pytest.raises(AssertionError, match="no path"):
        filled("train", ["max_iterations=NUM"], "digits_dmd2")


@pytest.mark.parametrize(
    ("verb", "word", "said"),
    [
        ("train", "max_iteration=2", "max_iteration"),
        ("train", "data.batch_sizes=2", "batch_sizes"),
        ("evaluate", "num_sample=2", "num_sample"),
        ("train", "experiment=digit", "digit"),
    ],
)
def test_a_command_with_an_unknown_key_fails(
    verb: str, word: str, said: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("DMD2_RUN_ID", "now")
    with pytest.raises(Exception, match=said):
        check_command(verb, [word, *(["run=DIR"] if verb == "evaluate" else [])])


WRITTEN = ("extending.md", "families.md")
"""Pages whose blocks are files, which tests of their own write and run."""
RUNNING = [page for page in (*PAGES, *BOOK) if page.name not in WRITTEN]


@pytest.fixture
def place_with_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with runs/digits_dmd2/latest, a run of two iterations."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DMD2_RUN_ID", "now")
    short = ["max_iterations=2", "critic_updates=1", "teacher.pretrain.max_iterations=2"]
    unwatched = ["metric=none", "callbacks.samples=null", "trainer=cpu"]
    monkeypatch.setattr(sys, "argv", ["dmd2", "train", *short, *unwatched])
    main()
    return tmp_path


def test_the_run_that_pages_load_can_be_made(place_with_a_run: Path):
    latest = place_with_a_run / "runs" / "digits_dmd2" / "latest"
    assert (latest / "checkpoints" / "student.safetensors").is_file()


@pytest.mark.parametrize(
    "page", [p for p in RUNNING if PYTHON.search(p.read_text())], ids=lambda page: page.name
)
@pytest.mark.filterwarnings("ignore")
def test_the_python_of_a_page_runs_in_order(
    page: Path, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    text = page.read_text()
    monkeypatch.chdir(tmp_path)
    if "runs/digits_dmd2/latest" in "".join(PYTHON.findall(text)):
        request.getfixturevalue("place_with_a_run")
    names: dict[str, object] = {"__name__": page.stem}
    for block in PYTHON.findall(text):
        exec(compile(block, f"{page.name}: {block.splitlines()[0]}", "exec"), names)


def test_the_notebook_begins_with_the_package():
    first = PYTHON.findall((ROOT / "docs" / "python.md").read_text())[0]
    assert first.startswith("import dmd2\n")


def test_every_page_with_python_is_run_by_a_test():
    for page in (*PAGES, *BOOK):
        text = page.read_text()
        assert text.count("```python") == len(PYTHON.findall(text)), f"{page.name} has other Python"
