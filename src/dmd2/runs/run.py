"""One training run from its config to what lies in its directory, however it ends."""

import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import Logger, WandbLogger
from omegaconf import OmegaConf

from dmd2.config.check import Config
from dmd2.config.devices import processes
from dmd2.data.base import DataModule
from dmd2.distributed.fsdp import is_sharded
from dmd2.distributed.process_group import (
    broadcast_from_rank_zero,
    rank,
    rank_zero_first,
    world_size,
)
from dmd2.distributed.slurm import Requeue
from dmd2.evaluation.pictures import score_plot
from dmd2.io.files import link_to, sha256, try_lock, write_bytes, write_json
from dmd2.io.tensors import save_weights
from dmd2.runs.assemble import begin, build_module, check_objective
from dmd2.runs.build import (
    Teacher,
    build,
    build_data,
    build_teacher,
    build_trainer,
    device_for,
)
from dmd2.runs.cached import make_pairs, real_references, teacher_references
from dmd2.runs.named_files import starting_files, teacher_file
from dmd2.runs.report import commit, comparison, print_table, results, versions, write_page
from dmd2.runs.resume import check_resumable, checkpoint_of, meaning
from dmd2.training.callbacks.checkpoint import Checkpoint
from dmd2.training.callbacks.csv_logger import CSVLogger
from dmd2.training.callbacks.evaluation import Evaluation
from dmd2.training.callbacks.interrupt import Interrupt
from dmd2.training.callbacks.sample_grid import SampleGrid
from dmd2.training.callbacks.throughput import Throughput, peak_memory_bytes
from dmd2.training.checkpoints import check, forget_after
from dmd2.training.module import DMD


class Run:
    """Builds, trains and concludes; `resume` in the config says whether it goes on with an earlier
    life.
    """

    def __init__(self, config: Config) -> None:
        self.config, self.folder = config, Path(config["paths"]["run"])
        self.scoring, self.commit = (
            build(config["metric"]),
            commit(),
        )  # of the code that this process has read
        nodes = config["callbacks"] | ({} if self.scoring.suite.metrics else {"evaluation": None})
        self.callbacks: dict[str, L.Callback] = {
            k: build(v) for k, v in nodes.items() if v is not None
        }
        self.module: DMD | None = None
        self.teacher, self.taken = "", False

    def start(self) -> None:
        """Train to the end; raises KeyboardInterrupt where a person ended it before. The directory
        is rank 0's.
        """
        started, status = time.monotonic(), "failed"
        checkpoint = broadcast_from_rank_zero(lambda: checkpoint_of(self.config))
        if rank() > 0:
            return self.fit(checkpoint)
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = try_lock(self.folder / "run")
        except BlockingIOError as error:
            said = f"a run is at work in {self.folder}; wait for it, or name another: paths.run=DIR"
            raise ValueError(said) from error
        if checkpoint is None:  # else the directory is another life's until that has agreed
            self.take()
        try:
            self.fit(checkpoint)
            status = "completed"
        except (
            KeyboardInterrupt,
            SystemExit,
        ) as error:  # Lightning exits where a key was pressed outside its loop
            status = "interrupted"
            if isinstance(error, Requeue):
                raise
            print(
                f"to go on: the same command with paths.run={self.folder} resume=auto",
                file=sys.stderr,
            )
            raise KeyboardInterrupt from error
        finally:
            keeper = self.find(Checkpoint)
            if self.taken:
                self.conclude(
                    status, keeper.wall_seconds() if keeper else time.monotonic() - started
                )
            lock.close()

    def take(self) -> None:
        """Make the directory this run's."""
        write_bytes(
            self.folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(self.config)).encode()
        )
        self.taken = True

    def fit(self, checkpoint: Path | None) -> None:
        """Build everything, the cheap and the checkable first, and train, from a checkpoint on if
        there is one.
        """
        config = self.config
        if checkpoint:  # which holds what the networks would start from
            config = config | {"weights": None, "critic_weights": None}
        with rank_zero_first():
            data, teacher, module = self.assemble(config)
        self.module = module
        earlier = check(checkpoint) if checkpoint else None
        now = meaning(config, data.resume_identity(), world_size())
        check_resumable(earlier or now, now, config["resume_allow"])
        real = real_references(config, self.scoring) if self.find(Evaluation) else {}
        with rank_zero_first():
            begin(module, teacher, config)
        if config["pairs"] is not None:
            folder, batch_size = make_pairs(config, teacher, data), config["pairs"]["batch_size"]
            data = build_data(
                config["data"] | {"pairs": str(folder), "pairs_batch_size": batch_size}
            )
        if rank() == 0 and self.folder.parent == Path(config["paths"]["runs"]) / config["name"]:
            link_to(
                self.folder.parent / "latest", self.folder.name
            )  # all that could be wrong would have shown
        self.teacher = sha256(teacher.path)
        now |= {"teacher": self.teacher}
        check_resumable(earlier or now, now, config["resume_allow"])
        if checkpoint and rank() == 0:
            self.take()
            forget_after(checkpoint, self.folder / "checkpoints")
        for callback in self.callbacks.values():
            if isinstance(callback, Evaluation):
                callback.attach(
                    self.scoring, real, partial(teacher_references, config, self.scoring, teacher)
                )
            if isinstance(callback, Checkpoint):
                callback.attach(now | {"wall_seconds": (earlier or {}).get("wall_seconds", 0.0)})
        loggers = (
            self.loggers(checkpoint, earlier["iteration"] if earlier else 0) if rank() == 0 else []
        )
        trainer = build_trainer(
            config, config["max_iterations"], list(self.callbacks.values()), loggers
        )
        try:
            trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        finally:
            for logger in loggers:
                if isinstance(logger, WandbLogger):
                    logger.experiment.finish()  # the next job of a sweep gets a page of its own
        module.nonfinite.check()
        if interrupt := self.find(Interrupt):
            interrupt.raise_if_interrupted()

    def assemble(self, config: Config) -> tuple[DataModule, Teacher, DMD]:
        """All that can be built before anything is trained; whatever does not fit shows here."""
        processes(config)
        teacher_file(config)
        starting_files(config)
        objective = build(config["loss"])  # LPIPS says what it lacks before data is decoded
        data, sampler = build_data(config["data"]), build(config["sampler"])
        check_objective(objective, sampler, config, data)
        teacher = build_teacher(config, data)
        self.scoring.attach(data, teacher.conditioner, sampler)
        if samples := self.find(SampleGrid):
            samples.attach(self.scoring, self.folder / "samples")
        return data, teacher, build_module(config, objective, sampler, teacher, data)

    def loggers(self, checkpoint: Path | None, iteration: int) -> list[Logger]:
        """The loggers; what they have of later iterations than this one will be logged again."""
        loggers = [build(node) for node in self.config["logger"].values()]
        for logger in loggers:
            if isinstance(logger, WandbLogger):
                logger.log_hyperparams(self.config)
            if isinstance(logger, CSVLogger):
                source = checkpoint.parents[1] if checkpoint else self.folder
                logger.go_on_from(source / logger.path.name, iteration)
        return loggers

    def find(self, kind: type) -> Any:
        """The callback of a kind, or None."""
        return next((c for c in self.callbacks.values() if isinstance(c, kind)), None)

    def conclude(self, status: str, wall_seconds: float) -> None:
        """Write the summary on every end, and the pictures, the page and the student where there is
        one.
        """
        evaluation, speed, config, module = (
            self.find(Evaluation),
            self.find(Throughput),
            self.config,
            self.module,
        )
        history = evaluation.history if evaluation else []
        references = evaluation.references if evaluation else {}
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
            **results(history, references, primary),
            "versions": versions(),
            "commit": self.commit,
            "seed": config["seed"],
        }
        try:
            write_json(self.folder / "summary.json", summary)
        except OSError:
            if status != "failed":  # else a full disk may be why, and has been said
                raise
        if (
            status == "failed" or module is None or not iterations or is_sharded(module)
        ):  # of other ranks, too
            return
        name, student = next(iter(module.students().items()))
        said = {"weights": name, "teacher": self.teacher}
        save_weights(student, self.folder / "checkpoints" / "student.safetensors", said)
        save_weights(module.critic, self.folder / "checkpoints" / "critic.safetensors")
        if history:
            teacher, guidance = module.models.teacher, config["teacher"]["guidance"]
            for network in (
                teacher,
                student,
            ):  # Lightning brought what it knows to the CPU, LoRA's base as well
                network.to(device_for(config))
            comparison(self.scoring, teacher, guidance, student, self.folder / "comparison.png")
            score_plot(history, references, primary, self.folder / "scores.png")
            print_table(summary, primary)
        write_page(self.folder, summary, primary)
        print(f"{status}: {self.folder}/report.html")
