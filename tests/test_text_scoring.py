"""COCO's protocol in small: a run of a small pipeline is scored on captions of its own against
images in a folder.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from blip import save_image_reward
from dmd2.cli.main import main
from dmd2.evaluation.real_images import RealImages
from dmd2.metrics.clean_fid import CleanInception
from dmd2.metrics.clip_score import ClipImages, ClipScore
from dmd2.metrics.preprocessing import Patch, Square
from dmd2.runs.load import load_student
from pipelines import save_clip, save_inception, save_pipeline, shrunken

pytest.importorskip("diffusers", reason="diffusers is not installed: pip install '.[text]'")
pytest.importorskip("transformers", reason="transformers is not installed: pip install '.[text]'")

ASKED = [f"a {'red ' * (i % 3)}dot {i}" for i in range(11)]
COCO = [
    "metric=coco10k",
    "metric.captions.source=asked.jsonl",
    "metric.real.whole.source=real",
    "metric.num_samples=10",
    *(f"metric.suite.detectors.{name}.folder=inception" for name in ("whole", "patch")),
    *(f"+metric.suite.detectors.{name}.sha256=null" for name in ("whole", "patch")),
    "metric.suite.detectors.whole.preprocessing.size=8",
    "metric.suite.detectors.patch.preprocessing.size=6",
    "metric.suite.detectors.clip.source=clip",
    "metric.suite.detectors.clip.preprocessing.size=8",
]
EVERY = "callbacks.evaluation={_target_:dmd2.training.callbacks.Evaluation,every:2}"
TRAIN = [
    "experiment=sd15_dmd2",
    "data.captions.source=trained_on.txt",
    "global_batch=2",
    "trainer=cpu",
    "max_iterations=2",
    "callbacks.samples.num_samples=3",
    "callbacks.samples.every=2",
    "teacher.source=sd",
    *shrunken("sd15"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All files that a user has, in small."""
    folder = tmp_path_factory.mktemp("coco")
    save_pipeline(folder / "sd")
    save_clip(folder / "clip")
    save_inception(folder / "inception")
    (folder / "trained_on.txt").write_text("a dot\na red dot\n")
    (folder / "asked.jsonl").write_text("\n".join(json.dumps({"caption": text}) for text in ASKED))
    (folder / "real").mkdir()
    for i in range(12):
        draw = np.random.default_rng(i)
        pixels = draw.integers(0, 256, (draw.integers(5, 20), draw.integers(5, 20), 3), np.uint8)
        Image.fromarray(pixels).save(folder / "real" / f"{i:02}.png")
    return folder


@pytest.fixture(autouse=True)
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setenv("DMD2_RUN_ID", "now")


def dmd2(*arguments: str) -> None:
    sys.argv = ["dmd2", *arguments]
    main()


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    """A run that was scored while it trained."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DMD2_RUN_ID", "now")
        patch.setattr(sys, "argv", sys.argv)
        dmd2("train", *TRAIN, *COCO, EVERY)
    return folder / "runs/sd15_dmd2/now"


def distance(real: Tensor, fake: Tensor) -> float:
    """Fréchet distance by numpy, with the eigenvalues of the covariances' product."""
    (mu1, cov1), (mu2, cov2) = (
        (x.mean(0), np.cov(x.T)) for x in (real.double().numpy(), fake.double().numpy())
    )
    roots = np.sqrt(np.clip(np.linalg.eigvals(cov1 @ cov2).real, 0, None))
    return float(((mu1 - mu2) ** 2).sum() + np.trace(cov1 + cov2) - 2 * roots.sum())


def test_scores_are_those_of_the_images_and_captions(run: Path) -> None:
    student = load_student(run)
    student.read(None)
    evaluator = student.evaluator()
    sampling = evaluator.sampling(student.generator)
    images = evaluator.sample_set("cpu").make(sampling, range(10))[0]
    images = student.data.to_pixels(images)
    real = [Image.open(path).convert("RGB") for path in sorted(Path("real").iterdir())]
    expected = {}
    for name, view in (("fid", Square(8)), ("patch_fid", Patch(6))):
        detector = CleanInception("inception", view, sha256=None)
        expected[name] = distance(detector.of(real), detector(images))
    clip = ClipScore("clip", "clip", ASKED, "A photo depicts ")
    clip.update(ClipImages("clip", Square(8))(images), torch.arange(10))
    expected["clip"] = float(clip.compute()["clip"])
    summary = json.loads((run / "summary.json").read_text())
    assert summary["metrics"] == pytest.approx(expected, rel=1e-3)
    assert (run / "comparison.png").exists() and (run / "samples/00000002.png").exists()


def test_captions_too_few_for_their_samples_are_named(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong, said in (
        ("+metric.samples_per_caption=0", "metric.samples_per_caption must be at least 1, got 0"),
        ("+metric.samples_per_caption=2", "num_samples=30, 2 of each, and metric.captions are 11"),
    ):
        with pytest.raises(SystemExit):
            dmd2("evaluate", f"run={run}", *COCO, wrong, "num_samples=30")
        assert said in capsys.readouterr().err
    for metric, said in (
        (["metric=text_digits"], "type metric=coco_diversity"),
        ([], "metric=NAME"),
    ):
        with pytest.raises(SystemExit):
            dmd2("evaluate", f"run={run}", *metric, "+metric.samples_per_caption=2")
        assert said in capsys.readouterr().err


def test_evaluate_takes_another_metric_and_leaves_nothing_else(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dmd2("evaluate", f"run={run}", *COCO, "num_samples=[4,10]")
    found = json.loads((run / "evaluation.json").read_text())
    once = json.loads((run / "summary.json").read_text())["metrics"]
    assert {f"{name}_10": value for name, value in once.items()}.items() <= found["metrics"].items()
    assert set(found["metrics"]) == {f"{name}_{num}" for name in once for num in (4, 10)}
    assert not (run / "scoring").exists()
    with pytest.raises(SystemExit):
        dmd2("evaluate", f"run={run}", "num_samples=12")
    assert "metric.num_samples=12, and metric.captions are 11" in capsys.readouterr().err


def test_diversity_is_that_of_the_samples_of_each_caption(run: Path) -> None:
    ten = "metric.num_samples=10"
    diverse = ["metric=coco_diversity", "metric.samples_per_caption=5"]
    small = [text for text in COCO[1:] if ".patch." not in text and text != ten]
    dmd2("evaluate", f"run={run}", *diverse, *small, ten)
    found = json.loads((run / "evaluation.json").read_text())
    assert found["metrics"].keys() == {"fid", "clip", "diversity"}
    student = load_student(run)
    student.read(None)
    # Five samples of each of the first two captions, which come in turn.
    own = student.asked_for(ASKED[:2])
    images, labels = own.sample_set(0, None).make(own.sampling(), range(10))
    x = CleanInception("inception", Square(8), sha256=None)(own.data.to_pixels(images))
    squares = torch.cat([torch.pdist(x[labels == i].double()) ** 2 for i in range(2)])
    assert found["metrics"]["diversity"] == pytest.approx(squares.mean().sqrt().item(), rel=1e-3)
    assert found["by_class"][found["weights"]].keys() == {"0/diversity", "1/diversity"}


def test_preferences_are_scored_beside_coco_s_scores(run: Path) -> None:
    tiny = [
        f"metric.suite.detectors.{name}.{key}"
        for name in ("pickscore", "hpsv2")
        for key in ("source=clip", "preprocessing.size=8")
    ]
    save_image_reward(Path("rewards"))
    tiny += [
        f"metric.suite.detectors.image_reward.source.{key}=rewards"
        for key in ("folder", "tokenizer")
    ]
    dmd2("evaluate", f"run={run}", *COCO, "metric=preferences", *tiny)
    found = json.loads((run / "evaluation.json").read_text())["metrics"]
    assert found.keys() == {"fid", "patch_fid", "clip", "pickscore", "hpsv2", "image_reward"}
    # A CLIP that nobody trained has the temperature exp(2.6592).
    assert found["hpsv2"] / 100 == pytest.approx(found["pickscore"] / np.exp(2.6592))


def test_real_images_are_read_from_their_statistics_too(folder: Path) -> None:
    detector = CleanInception("inception", Square(8), sha256=None)
    mu, sigma = RealImages("real", "cache", "").moments(detector)
    np.savez("real.npz", mu=mu, sigma=sigma)
    assert all(map(torch.equal, RealImages("real.npz", "cache", "").moments(detector), (mu, sigma)))
    np.savez("half.npz", mu=mu)
    with pytest.raises(ValueError, match=r"is refused, and nothing in it was run: .*sigma"):
        RealImages("half.npz", "cache", "").moments(detector)
    with pytest.raises(FileNotFoundError, match="no real images at gone; download them"):
        RealImages("gone", "cache", "download them")


def test_statistics_are_kept_by_source_and_view(folder: Path, tmp_path: Path) -> None:
    for view in (Square(8), Patch(6), Square(8)):
        detector = CleanInception("inception", view, sha256=None)
        detector.sha256 = "of a checked file"
        RealImages("real", tmp_path, "").moments(detector)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
