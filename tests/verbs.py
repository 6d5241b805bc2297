"""The verbs that work on a run or make what a run takes, each with its smallest work."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from lives import Life

RUN = [
    "experiment=text2digits_dmd2_4step",
    "teacher.pretrain.max_iterations=2",
    "max_iterations=2",
    "critic_updates=1",
    "data.batch_size=4",
    "log_every=1",
    "checkpoint.every=2",
    "callbacks.samples=null",
    "callbacks.progress=null",
    "metric.num_samples=20",
    "metric.num_reference=40",
    "metric.teacher_steps=[1]",
]
PAIRS = [
    "experiment=digits_dmd",
    "teacher.pretrain.max_iterations=2",
    "pairs.num_pairs=40",
    "pairs.at_once=4",
    "pairs.solver.num_steps=2",
]


@dataclass(frozen=True)
class Verb:
    """What to type; {place} is a folder of its own, {trained} that of `trained`.

    {num} is the number of ranks, {samples} what keeps each at work until after its 50th batch,
    when partial sums are written.

    whole      Which of its files are there whole or not at all, as a pattern below its place.
    is_shared  Whether ranks share its work.
    """

    arguments: tuple[str, ...]
    whole: str
    is_shared: bool = True

    def typed(self, place: Path, trained: Path, num: int = 1) -> list[str]:
        """The command for a place, for one of so many ranks."""
        known = {"place": place, "trained": trained, "num": num, "samples": 120 * num}
        return [word.format(**known) for word in self.arguments]

    def made(self, place: Path) -> dict[str, bytes]:
        """All files of a place, locks aside."""
        paths = sorted(path for path in place.rglob("*") if path.suffix != ".lock")
        return {
            str(path.relative_to(place)): content(path) if path.is_file() else b"" for path in paths
        }

    def check_whole(self, place: Path, undisturbed: dict[str, bytes]) -> None:
        """Nothing that is half written has its final name."""
        for path in place.glob(self.whole):
            name = str(path.relative_to(place))
            if path.is_file() and path.suffix != ".lock" and ".partial" not in name:
                assert content(path) == undisturbed[name], name


def content(path: Path) -> bytes:
    """A file's bytes; of .safetensors with the header in order, whose order is drawn anew."""
    data = path.read_bytes()
    if path.suffix != ".safetensors":
        return data
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:end]), sort_keys=True).encode()
    return len(header).to_bytes(8, "little") + header + data[end:]


VERBS = {
    "evaluate": Verb(
        ("evaluate", "run={place}/run", "num_samples={samples}", "batch_size=2", "weights=raw"),
        "run/evaluation.json",
    ),
    "export": Verb(("export", "run={trained}/run", "out={place}/out"), "out/**/*", False),
    "import": Verb(
        (
            "import",
            "source={trained}/pipeline/unet/diffusion_pytorch_model.safetensors",
            "out={place}/out.safetensors",
        ),
        "out.safetensors",
        False,
    ),
    "sample": Verb(
        ("sample", "run={trained}/run", "out={place}/out", "num_images=60", "batch_size=4"),
        "out/*",
    ),
    "pairs": Verb(
        (
            *("pairs", *PAIRS, "paths.cache={place}/cache"),
            *("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices={num}"),
        ),
        "cache/teachers/*",
    ),
}


def train(folder: Path) -> Path:
    """A folder with a run, and the pipeline of its student."""
    for words in (
        ["train", *RUN, f"paths.run={folder}/run", f"paths.cache={folder}/kept"],
        ["export", f"run={folder}/run", f"out={folder}/pipeline"],
    ):
        code, text = Life(folder / "said.txt", *words).end()
        assert code == 0, text
    return folder


def place_for(name: str, folder: Path, trained: Path) -> Path:
    """A folder where a verb can work: `evaluate` finds a copy of the run."""
    folder.mkdir()
    if name == "evaluate":
        shutil.copytree(trained / "run", folder / "run")
    return folder
