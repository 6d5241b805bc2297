"""Suites score diversity or say why not; it falls where a run collapses, and not elsewhere."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from dmd2.cli.main import main
from dmd2.config.folder import config_folder
from dmd2.data.digits import Digits
from dmd2.runs.build import build

SUITES = sorted(path.stem for path in (config_folder() / "metric").glob("*.yaml"))
TOY = [
    "experiment=toy2d_dmd2",
    "max_iterations=200",
    "data.batch_size=64",
    "teacher.pretrain.max_iterations=300",
    "teacher.pretrain.data.batch_size=64",
    "optimizer.generator.lr=4e-3",
    "trainer=cpu",
    "ema=[]",
    "metric.num_samples=1000",
    "metric.teacher_steps=[9]",
    "callbacks.evaluation.every=200",
    "callbacks.samples=null",
]
COLLAPSE = ["~loss.generator.gan", "optimizer.critic.lr=1e-6"]
"""Nothing from real data, and a critic that does not follow: all points go to one mode."""


def suite_of(name: str) -> dict[str, Any]:
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        found: Any = OmegaConf.to_container(compose(f"metric/{name}"))
    suite: dict[str, Any] = found["metric"]["suite"]
    return suite


def lines_of(name: str) -> list[str]:
    """The lines of a choice and of those that it begins with."""
    path = config_folder() / "metric" / f"{name}.yaml"
    others: Any = OmegaConf.load(path).get("defaults", ["_self_"])
    inherited = [line for other in others if other != "_self_" for line in lines_of(other)]
    return [*path.read_text().splitlines(), *inherited]


@pytest.mark.parametrize("name", SUITES)
def test_every_suite_has_diversity_or_says_why_not(name: str) -> None:
    metrics = [metric for metric in suite_of(name)["metrics"].values() if metric is not None]
    has = any(metric["_target_"] == "dmd2.metrics.ConditionDiversity" for metric in metrics)
    assert has or any(line.startswith("# No diversity: ") for line in lines_of(name))


def test_one_image_a_class_has_no_diversity_and_real_images_have() -> None:
    asked = suite_of("digits")
    metric = asked["metrics"]["diversity"]
    asked["metrics"], asked["detectors"] = (
        {"diversity": metric},
        {metric["detector"]: asked["detectors"][metric["detector"]]},
    )
    suite, data = build(asked), Digits(batch_size=4, seed=0)
    data.setup()
    x, labels = (torch.tensor(part) for part in (data.train.x, data.train.labels))
    suite.fit(x, labels, data.test.x, data.test.labels)
    first = torch.stack([(labels == i).nonzero()[0, 0] for i in range(10)])
    one_each = suite.evaluate([(x[first].repeat(20, 1, 1, 1), labels[first].repeat(20))])
    assert one_each["diversity"] == pytest.approx(0, abs=1e-3)
    healthy = suite.evaluate([(x[::2], labels[::2])])["diversity"]
    assert healthy == pytest.approx(suite.floor()["diversity"], rel=0.1)


def test_a_run_that_collapses_loses_its_diversity_and_a_healthy_one_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = {}
    for name, changes in (("healthy", []), ("collapsed", COLLAPSE)):
        monkeypatch.setattr(sys, "argv", ["dmd2", "train", *TOY, *changes, f"paths.run={name}"])
        main()
        found[name] = json.loads(Path(name, "summary.json").read_text())
    healthy, collapsed = found.values()
    data = healthy["floor"]["diversity"]
    (teacher,) = (scores["diversity"] for scores in healthy["teacher"].values())
    # Two points of unit variance in each coordinate: E |a - b|^2 = 4.
    assert data == pytest.approx(2, rel=0.02) and teacher == pytest.approx(data, rel=0.2)
    assert healthy["metrics"]["diversity"] > 0.8 * data
    assert collapsed["metrics"]["diversity"] < 0.5 * data
    assert collapsed["metrics"]["modes"] <= 1
