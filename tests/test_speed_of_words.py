"""What is only words, e.g. a misspelt key, is answered before torch and Lightning are loaded."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "lightning", "matplotlib", "diffusers", "transformers", "PIL", "sklearn")
LOADED = f"""
import sys
from dmd2.cli.main import main
try:
    main()
finally:
    print("loaded:", *(name for name in {HEAVY} if name in sys.modules), file=sys.stderr)
"""


def loaded(folder: Path, *arguments: str) -> tuple[int, str, list[str]]:
    """The exit code of a command, what it prints, and which heavy libraries it has loaded."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    said, _, names = done.stderr.rpartition("loaded:")
    return done.returncode, done.stdout + said, names.split()


@pytest.mark.parametrize(
    "arguments",
    [
        ["trian"],
        ["train", "sed=1"],
        ["train", "+sed=1"],
        ["train", "loss=nope"],
        ["train", "data=images"],
        ["train", "max_iterations=0"],
        ["train", "optimizer.generator.learning_rat=1"],
        ["pretrain", "experiment=digits_dm"],
        ["train", "--multirun", "sed=1,2"],
        ["sample"],
        ["sample", "run=x", "num_image=3"],
        ["evaluate", "run=x", "metric=nope"],
        ["prepare", "recipe=imagenet", "source=x", "out=y"],
        ["import", "source=x"],
        ["benchmark", "part=loaders"],
    ],
    ids=" ".join,
)
def test_a_mistake_in_words_loads_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    code, said, names = loaded(tmp_path, *arguments)
    assert (code, names) == (2, []), said
    assert "dmd2: " in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["train", "--help"],
        ["train", "--cfg", "job"],
        ["train", "--cfg", "job", "--resolve", "experiment=sdxl_dmd2_4step"],
        ["evaluate", "--cfg", "job", "metric=coco30k"],
        ["benchmark", "--cfg", "job"],
    ],
    ids=" ".join,
)
def test_what_only_shows_words_loads_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    code, said, names = loaded(tmp_path, *arguments)
    assert (code, names) == (0, []), said
