"""Samples lie as the scripts of GenEval and DPG-Bench read them, and wrong prompts are named."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmd2.cli.main import main
from dmd2.cli.sample_layouts import LAYOUTS, NUM_OF_PROMPT
from dmd2.config import options

FILE = "evaluation_metadata.jsonl"
TEXTS = ["the digit 3", "the digit 7", "the digit 3"]
LINES = [json.dumps({"tag": "counting", "include": [], "prompt": text}) for text in TEXTS]


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the prompts of both benchmarks, in small."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    Path(FILE).write_text("\n".join(LINES) + "\n")
    Path("prompts").mkdir()
    for name, text in zip(("partiprompts10", "256", "whoops_1"), TEXTS, strict=True):
        Path("prompts", f"{name}.txt").write_text(text + "\n")
    return tmp_path


def sample(trained: Path, *arguments: str) -> None:
    sys.argv = ["dmd2", "sample", f"run={trained / 'run'}", "out=out", *arguments]
    main()


def pixels(path: Path | str) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_all_layouts_can_be_typed() -> None:
    assert tuple(LAYOUTS) == options.LAYOUTS


def test_geneval_has_a_folder_a_prompt_with_its_line(trained: Path, asked: Path) -> None:
    sample(trained, "layout=geneval", f"prompt={FILE}")
    assert sorted(path.name for path in Path("out/geneval").iterdir()) == [
        "00000", "00001", "00002",
    ]  # fmt: skip
    for i, line in enumerate(LINES):
        folder = Path(f"out/geneval/0000{i}")
        assert json.loads((folder / "metadata.jsonl").read_text()) == json.loads(line)
        images = sorted((folder / "samples").iterdir())
        assert [path.name for path in images] == [f"{k:04d}.png" for k in range(4)]
        for k, path in enumerate(images):
            assert (pixels(path) == pixels(f"out/{i + 3 * k:06d}.png")).all()
    # The same command again goes on with what is there.
    sample(trained, "layout=geneval", f"prompt={FILE}")


def test_dpg_bench_has_a_square_of_four_named_as_the_prompt(trained: Path, asked: Path) -> None:
    sample(trained, "layout=dpg_bench", "prompt=prompts")
    names = sorted(Path("prompts").iterdir())
    assert {path.stem for path in Path("out/dpg_bench").iterdir()} == {p.stem for p in names}
    for i, path in enumerate(names):
        square = pixels(f"out/dpg_bench/{path.stem}.png")
        size = len(square) // 2
        cut = [square[y : y + size, x : x + size] for y in (0, size) for x in (0, size)]
        for k, image in enumerate(cut):
            assert (image == pixels(f"out/{i + 3 * k:06d}.png")).all()


def test_wrong_prompts_are_named(
    trained: Path, asked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("none.jsonl").touch()
    Path("captions.jsonl").write_text('{"caption": "a"}\n')
    Path("empty").mkdir()
    for wrong, said in (
        (["layout=coco"], "layout must be files or geneval or dpg_bench"),
        (["layout=genevl"], "did you mean layout=geneval?"),
        (["layout=geneval", "prompt=none.jsonl"], "none.jsonl has no prompts"),
        (["layout=geneval", f"prompt={FILE}", "label=1"], "leave label out"),
        (["layout=geneval"], "type prompt=PATH of prompts/evaluation_metadata.jsonl"),
        (["layout=geneval", "prompt=a red dot"], "wants its prompts, got prompt='a red dot'"),
        (["layout=geneval", "prompt=captions.jsonl"], 'line 1 of captions.jsonl has no "prompt"'),
        (["layout=geneval", "prompt=prompts"], "Is a directory"),
        (["layout=dpg_bench", "prompt=empty"], "empty has no .txt"),
        (["layout=dpg_bench", "prompt=prompts", "num_images=3"], "leave num_images out"),
    ):
        with pytest.raises(SystemExit):
            sample(trained, *wrong)
        assert said in capsys.readouterr().err
    assert not Path("out").exists()
    with pytest.raises(ValueError, match="wants square images"):
        LAYOUTS["dpg_bench"]("prompts").check(NUM_OF_PROMPT * len(TEXTS), (4, 8, 16))
