"""Distil a teacher (trained first, if there is none) into a few-step generator; score it; show it.

usage: dmd2 train [experiment=NAME] [KEY=VALUE ...]
       dmd2 train --cfg job [experiment=NAME]                prints the whole configuration and stops
       dmd2 train --multirun seed=0,1,2 critic_updates=1,5   one run for each combination

Keys are those of conf/, e.g. max_iterations=500, optimizer.generator.lr=1e-4, loss=no_gan, logger=wandb.
The run's directory is runs/EXPERIMENT/TIME, and runs/EXPERIMENT/latest points to it.
"""

import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import hydra
import lightning as L
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.pytorch.loggers import WandbLogger
from omegaconf import DictConfig, OmegaConf

from dmd2.callbacks.evaluation import Evaluation
from dmd2.callbacks.interrupt import Interrupt
from dmd2.callbacks.samples import Samples
from dmd2.callbacks.speed import Speed, peak_memory_bytes
from dmd2.config import Config, config_folder, resolved
from dmd2.errors import answered
from dmd2.files import write_json
from dmd2.module import DMD
from dmd2.pictures import score_plot
from dmd2.report import commit, comparison, print_table, versions, write_page
from dmd2.runtime import (
    build,
    build_data,
    build_module,
    build_objective,
    build_teacher,
    build_trainer,
    check_hardware,
    make_pairs,
    make_references,
)
from dmd2.scoring import device_of
from dmd2.weights.store import save_weights


class Run:
    """One training run and what it leaves in its directory, however it ends."""

    def __init__(self, config: Config) -> None:
        self.config, self.folder = config, Path(config["paths"]["run"])
        self.callbacks: dict[str, L.Callback] = {k: build(v) for k, v in config["callbacks"].items() if v is not None}
        self.scoring = build(config["metric"])
        self.module: DMD | None = None

    def start(self) -> None:
        """Train to the end; raises KeyboardInterrupt where a person ended it before."""
        started, status = time.monotonic(), "failed"
        if (self.folder / "config.yaml").exists():
            raise ValueError(f"{self.folder} holds a run already; name another directory: paths.run=DIR")
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(self.config)))
        if self.folder.parent == Path(self.config["paths"]["runs"]) / self.config["name"]:
            point_to(self.folder)
        try:
            self.fit()
            status = "completed"
        except (KeyboardInterrupt, SystemExit) as error:  # Lightning exits where a key was pressed outside its loop
            status = "interrupted"
            raise KeyboardInterrupt from error
        finally:
            self.conclude(status, time.monotonic() - started)

    def fit(self) -> None:
        """Build everything, the cheap and the checkable first, and train."""
        config = self.config
        check_hardware(config)
        data, sampler = build_data(config["data"]), build(config["sampler"])
        objective = build_objective(config, data)
        teacher = build_teacher(config, data)
        if config["pairs"] is not None:
            pairs = {
                "pairs": str(make_pairs(config, teacher, data)),
                "pairs_batch_size": config["pairs"]["batch_size"],
            }
            data = build_data(config["data"] | pairs)
        self.module = build_module(config, objective, sampler, teacher, data)
        self.scoring.attach(data, teacher.conditioner, sampler)
        for callback in self.callbacks.values():
            if isinstance(callback, Evaluation):
                callback.attach(self.scoring, partial(make_references, config, self.scoring, teacher))
            if isinstance(callback, Samples):
                callback.attach(self.scoring, self.folder / "samples")
        loggers = [build(node) for node in config["logger"].values()]
        for logger in loggers:
            if isinstance(logger, WandbLogger):
                logger.log_hyperparams(config)
        trainer = build_trainer(config, config["max_iterations"], list(self.callbacks.values()), loggers)
        try:
            trainer.fit(self.module, datamodule=data)
        finally:
            for logger in loggers:
                if isinstance(logger, WandbLogger):
                    logger.experiment.finish()  # the next job of a sweep gets a page of its own
        self.module.faults.check()
        trainer.save_checkpoint(self.folder / "checkpoints" / "last.ckpt", weights_only=False)
        if (interrupt := self.find(Interrupt)) and interrupt.received:
            raise KeyboardInterrupt

    def find(self, kind: type) -> Any:
        """The callback of a kind, or None."""
        return next((c for c in self.callbacks.values() if isinstance(c, kind)), None)

    def conclude(self, status: str, wall_seconds: float) -> None:
        """Write the summary on every end, and the pictures, the page and the student where there is one."""
        evaluation, speed, config, module = self.find(Evaluation), self.find(Speed), self.config, self.module
        history = evaluation.history if evaluation else []
        references = evaluation.references if evaluation else {}
        students = history[-1]["scores"] if history else {}
        primary = self.scoring.primary
        iterations = module.iteration if module is not None and module._trainer is not None else 0
        summary = {
            "status": status,
            "experiment": config["name"],
            "iterations": iterations,
            "generator_updates": -(-iterations // config["critic_updates"]),
            "wall_seconds": wall_seconds,
            "images_per_second": speed.images_per_second if speed else None,
            "peak_memory_bytes": peak_memory_bytes(),
            "primary": primary,
            "weights": next(iter(students), None),
            "metrics": next(iter(students.values()), {}),
            "best": best(history, primary),
            "students": students,
            "teacher": references.get("teacher", {}),
            "floor": references.get("floor", {}).get("real", {}),
            "baselines": references.get("baselines", {}),
            "versions": versions(),
            "commit": commit(),
            "seed": config["seed"],
        }
        write_json(self.folder / "summary.json", summary)
        if status == "failed" or module is None or not iterations:
            return
        name, student = next(iter(module.students().items()))
        save_weights(student, self.folder / "checkpoints" / "student.safetensors", {"weights": name})
        if history:
            teacher, guidance = module.models.teacher, config["teacher"]["guidance"]
            student.to(
                device_of(teacher)
            )  # Lightning brought it to the CPU, and not the teacher, which it does not know
            comparison(self.scoring, teacher, guidance, student, self.folder / "comparison.png")
            score_plot(history, references, primary, self.folder / "scores.png")
            write_page(self.folder, summary, primary)
            print_table(summary, primary)
        print(f"{status}: {self.folder}/report.html" if history else f"{status}: {self.folder}")


def best(history: list[dict[str, Any]], primary: str) -> dict[str, Any]:
    """The best score in a run by the primary metric: of which weights, at which iteration, the best of how many."""
    found = [
        {"iteration": row["iteration"], "weights": name, primary: scores[primary]}
        for row in history
        for name, scores in row["scores"].items()
    ]
    return min(found, key=lambda row: row[primary]) | {"of": len(found)} if found else {}


def point_to(folder: Path) -> None:
    """Let `latest` beside a run's folder point to it."""
    partial = folder.parent / f".latest{os.getpid()}"
    partial.symlink_to(folder.name)
    partial.replace(folder.parent / "latest")


@hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="train")
@answered
def main(composed: DictConfig) -> None:
    """One run of a composed config; Hydra calls this once a job."""
    job = HydraConfig.get()
    if job.mode == RunMode.MULTIRUN:
        composed.paths.run = job.runtime.output_dir
    Run(resolved(composed)).start()
