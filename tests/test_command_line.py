"""Arguments that are no KEY=VALUE, choices, completion, the version, and readers that go away."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from answers import answer, inside  # noqa: F401 - a fixture
from dmd2.cli.arguments import check_arguments
from dmd2.cli.main import VERBS, main
from dmd2.cli.verbs import check_folder_names

SHORT = [
    *("experiment=toy2d_dmd2", "max_iterations=4", "log_every=1", "data.batch_size=8"),
    *("teacher.pretrain.max_iterations=2", "metric=none", "callbacks.samples=null"),
]


pytestmark = pytest.mark.usefixtures("inside")


def line_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a command is refused with."""
    line = answer(capsys, *arguments)
    assert line.count("\n") == 1, line
    return line


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train experiment = toy2d_dmd2", ["type experiment=toy2d_dmd2", "space"]),
        ("train seed= 1", ["type seed=1"]),
        ("train seed =1", ["type seed=1"]),
        ("train digits_dmd", ["type experiment=digits_dmd"]),
        ("train conf/experiment/digits_dmd.yaml", ["type experiment=digits_dmd"]),
        ("train mine.yaml", ["--config-dir DIR experiment=mine"]),
        ("pretrain something", ["experiment=something", "--help"]),
        ("train .", ["data=images data.source=."]),
        ("sample runs/x", ["type run=runs/x"]),
        ("compare runs/sweeps", ["type runs=runs/sweeps"]),
        ("prepare pictures recipe=latents", ["type source=pictures"]),
        ("train --seed 1", ["type seed=1"]),
        ("train --max-iterations=5", ["type max_iterations=5"]),
        ("train seed=0,1,2", ["dmd2 train --multirun seed=0,1,2", "seed=[0,1,2]"]),
        ("train seed=range(3)", ["type dmd2 train --multirun 'seed=range(3)'\n"]),
        ("sample run=x seed=0,1", ["takes one value", "seed must be a whole number", "seed=0"]),
        ("sample run=x prompt=a,b", ["takes one value", "'prompt=[a,b]' is one"]),
        ("compare runs=a,b", ["takes one value", "one folder", "type e.g. runs=runs/sweeps/NAME"]),
        ("compare runs=[a,b]", ["one folder", "got [a,b]", "type e.g. runs=runs/sweeps/NAME"]),
        (
            "benchmark part=iteration part.overrides=[data.source=none]",
            ["type 'part.overrides=[\"data.source=none\"]'"],
        ),
        ("train a[0]=1", ["a[0]=1 cannot be read; type KEY=VALUE"]),
        ("train name=a:b(", ["name=a:b( cannot be read", "quotes"]),
        ("prepare recipe=imagenet64 source= out=x", ["source is empty; type source=PATH"]),
        ("prepare recipe=imagenet64 source=x out=", ["out is empty; type out=PATH"]),
        ("import source=x out=", ["out is empty"]),
        ("import source= out=x", ["source is empty"]),
        ("sample run=x out=", ["out is empty"]),
        ("sample run=", ["run is empty; type run=PATH"]),
        ("compare runs=x out=", ["out is empty"]),
        ("train paths.run=", ["paths.run is empty; type paths.run=PATH"]),
        ("train paths.runs=", ["paths.runs is empty"]),
        ("train paths.run=null", ["paths.run must be text, got null", "type e.g. paths.run=NAME"]),
        ("train paths.run=[a]", ["paths.run must be text, got [a]"]),
        ("train paths.runs={a:b}", ["paths.runs must be text"]),
        ("train -m seed=0,1 ++paths.runs=null", ["paths.runs must be text, got null"]),
        ("train paths.run=3", ["paths.run must be text, got 3", "paths.run=\"'3'\""]),
        ("train name=null", ["name must be text", "got null"]),
        ("train data=images data.source=", ["data.source is empty"]),
        ("train name=", ["name must be text of printable characters", "got ''", "type"]),
        ("train name=../../esc", ["name must be text", "without a slash", "'../../esc'"]),
        ("train name=..", ["name must be text"]),
        ('train name="a\x1bb"', ["name must be text", "'a\\x1bb'"]),
        ("train name=a\x1bb", ["name=a\\x1bb cannot be read"]),
        ("train --multirun seed=0,1 paths.run=here", ["paths.run=here has no effect"]),
        ("train -m ++paths.run=a,b", ["no effect", "hydra.sweep.dir="]),
        ("train --choices los", ["did you mean loss?"]),
        ("--completion fish", ["bash"]),
        ("train experiment=[toy2d_dmd2,digits_dmd2]", ["experiment is one choice of"]),
        ("train loss=[dmd2,sid]", ["loss is one choice of: dmd2 train --choices loss"]),
        ("train experiment=", ["experiment= names no choice", "type experiment=NAME"]),
        ("plan memory=1XB", ["memory=24GB"]),
        ("train launcher=slurm", ["no effect on one run", "type dmd2 train -m launcher=slurm"]),
        ("train callbacks.progress=null logger=null", ["logger=null names no choice"]),
    ],
)
def test_what_is_no_key_and_value_is_answered_with_what_to_type(
    command: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    line = line_of(capsys, *command.split())
    assert all(word in line for word in words), line


def test_a_config_that_is_refused_leaves_no_folder(capsys: pytest.CaptureFixture[str]) -> None:
    before = {*Path().rglob("*")}
    for refused in ("max_iterations=0", "paths.run=null", "loss.generator.sid.alpha=1"):
        line_of(capsys, "train", refused)
    assert {*Path().rglob("*")} == before


@pytest.mark.parametrize("name", ["2026-11-30", "on", "12:30", "010", "null1", "'3'", "a,b"])
def test_text_that_only_yaml_takes_for_something_else_names_a_folder(name: str) -> None:
    check_folder_names([f"name={name}", f"paths.runs={name}"])


def test_a_key_that_is_given_twice_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    check_arguments("train", ["seed=1", "+loss=sid", "seed=2", "--cfg", "job", "loss=dmd"])
    assert capsys.readouterr().err == "".join(
        f"dmd2: {key} is given more than once; the last one counts\n" for key in ("seed", "loss")
    )


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    sys.argv = ["dmd2", *arguments]
    main()
    return capsys.readouterr().out


def test_choices_of_a_group_have_a_sentence_each(capsys: pytest.CaptureFixture[str]) -> None:
    page = printed(capsys, "train", "--choices", "loss")
    assert "loss=no_gan" in page and all(row.endswith(".") for row in page.splitlines())
    every = printed(capsys, "train", "--choices")
    assert "experiment" in every and "recipe" not in every and "digits_dmd2" in every
    assert "latents_sdxl" in printed(capsys, "prepare", "--choices")
    assert "no groups" in printed(capsys, "sample", "--choices")


def test_version_and_pages_of_hydra(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "--version").split()[0] == "dmd2"
    assert "shell-completion" not in printed(capsys, "train", "--hydra-help")
    for flag in ("--choices", "--version", "--completion", "--cfg job"):
        assert flag in printed(capsys, "--help")


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which `dmd2` is this program, for a shell."""
    folder = tmp_path_factory.mktemp("bin")
    code = "from dmd2.cli.main import main; main()"
    (folder / "dmd2").write_text(f"#!/bin/sh\nexec {sys.executable} -c '{code}' \"$@\"\n")
    (folder / "dmd2").chmod(0o755)
    return os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "DMD2_RUN_ID": "now"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("dmd2 tr", ["train "]),
        ("dmd2 ", [f"{verb} " for verb in VERBS]),
        ("dmd2 train exp", ["experiment="]),
        ("dmd2 train experiment=digits_dmd", ["digits_dmd ", "digits_dmd2 "]),
        ("dmd2 train loss=no_gan max_i", ["max_iterations="]),
        ("dmd2 train optimizer.generator.l", ["optimizer.generator.lr="]),
        ("dmd2 train checkpoint.", ["checkpoint.every=", "checkpoint.keep="]),
        ("dmd2 sample num", ["num_images="]),
        ("dmd2 prepare recipe=im", ["imagenet64 "]),
        ("dmd2 train --mu", ["--multirun "]),
        ("dmd2 train --choices samp", ["sampler "]),
        ("dmd2 nothing x", []),
    ],
)
def test_bash_completes_at_tab(line: str, expected: list[str], program: dict[str, str]) -> None:
    script = (
        'eval "$(dmd2 --completion bash)"; COMP_LINE=$1; COMP_POINT=${#1}; _dmd2; '
        'complete -p dmd2 >&2; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", script, "bash", line],
        env=program,
        capture_output=True,
        text=True,
        check=True,
    )
    assert [row for row in done.stdout.split("\n") if row] == expected
    assert done.stderr == "complete -o nospace -F _dmd2 dmd2\n"


@pytest.mark.parametrize(
    "command",
    [
        "--help | true",
        "train --help | head -1",
        "train --cfg job | true",
        "train --choices | head -1",
    ],
)
def test_a_page_whose_reader_goes_is_quiet(command: str, program: dict[str, str]) -> None:
    check_pipe(f"dmd2 {command}", program)


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("--help >&-", 0),
        ("--version 2>&-", 0),
        ("trian 2>&-", 2),
        ("--help >&- 2>&-", 0),
        ("--help >/dev/full", 2),
        ("trian 2>/dev/full", 2),
        ("--complete", 0),
    ],
)
def test_streams_that_take_nothing_are_no_matter(
    command: str, code: int, program: dict[str, str]
) -> None:
    done = subprocess.run(
        ["bash", "-c", f"dmd2 {command}"], env=program, capture_output=True, text=True, check=False
    )
    full = "dmd2: stdout cannot be written: No space left on device\n"
    assert done.returncode == code and done.stderr == full * (command == "--help >/dev/full")


def test_a_folder_that_was_removed_is_said(program: dict[str, str]) -> None:
    script = "mkdir gone && cd gone && rmdir ../gone && dmd2 train"
    done = subprocess.run(
        ["bash", "-c", script], env=program, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "dmd2: the directory that you are in was removed; type cd DIR\n" in done.stderr
    assert "Traceback" not in done.stderr


def check_pipe(command: str, program: dict[str, str]) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{command} >/dev/null; exit ${{PIPESTATUS[0]}}"],
        env=program | {"PYTHONUNBUFFERED": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr + done.stdout, done.stderr
    assert "Broken" not in done.stderr, done.stderr


@pytest.mark.parametrize("pipe", ["| true", "2>&1 | true"])
def test_a_run_whose_reader_goes_completes(pipe: str, program: dict[str, str]) -> None:
    check_pipe(f"dmd2 train {' '.join(SHORT)} paths.run=here {pipe}", program)
    assert json.loads(Path("here/summary.json").read_text())["status"] == "completed"
