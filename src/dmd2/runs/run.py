"""One training run from its config to what lies in its directory, however it ends."""

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import Logger
from omegaconf import OmegaConf

from dmd2.config.check import Config
from dmd2.distributed import hangup
from dmd2.distributed.device import forget_peak_memory
from dmd2.distributed.process_group import (
    broadcast_from_rank_zero,
    is_rank_zero,
    rank_zero_first,
    world_size,
)
from dmd2.distributed.rank_zero import on_rank_zero, warn
from dmd2.distributed.slurm import Requeue
from dmd2.evaluation.protocol import ScoringProtocol
from dmd2.io.files import link_to, try_lock, write_bytes
from dmd2.io.replace import sweep
from dmd2.runs.assemble import Parts, assemble
from dmd2.runs.build import build, build_data, build_trainer, build_with
from dmd2.runs.cached import cached_data_references, cached_teacher_references, make_pairs
from dmd2.runs.compiled import compile_networks
from dmd2.runs.health import text_guidance
from dmd2.runs.loggers import begin_loggers
from dmd2.runs.opening import opening
from dmd2.runs.pipeline_source import with_pipeline
from dmd2.runs.provenance import commit
from dmd2.runs.report import Finished, summarise, write_page, write_results
from dmd2.runs.resume import check_resumable, checkpoint_of, resume_identity, with_teacher
from dmd2.training.callbacks.evaluation import Evaluation
from dmd2.training.callbacks.run_logger import run_loggers
from dmd2.training.checkpoints import BackgroundIO, Manifest, Verified, forget_after
from dmd2.training.record import Record


class Run:
    """Builds, trains and concludes; `resume` in the config says whether it resumes a run.

    planned  Bytes of its device at the peaks of its plan; None where it has none.
    """

    def __init__(self, config: Config, planned: Mapping[str, int] | None = None) -> None:
        self.config, self.folder = config, Path(config["paths"]["run"])
        self.protocol: ScoringProtocol = build(config["metric"])
        self.commit = commit()  # now: of the code that this process has read
        self.record = Record(self.protocol.primary_score)
        self.planned = planned
        self.parts: Parts | None = None
        self.loggers: list[Logger] = []
        self.owns_folder = False

    def start(self) -> None:
        """Train to the end, and write what there is to keep; the directory is rank 0's.

        Raises KeyboardInterrupt where a person ended it before, `Requeue` where Slurm did.
        """
        forget_peak_memory()
        with hangup.as_interrupt():
            self._start()

    def _start(self) -> None:
        checkpoint = broadcast_from_rank_zero(lambda: checkpoint_of(self.config))
        if not is_rank_zero():
            return self.fit(checkpoint)
        status = "failed"
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            # Two runs in one directory would write over each other's files.
            lock = try_lock(self.folder / "run")
        except BlockingIOError as error:
            raise ValueError(
                f"a run is at work in {self.folder}; wait for it, or name another: paths.run=DIR"
            ) from error
        if checkpoint is None:  # else it is another run's until that is known to be the same
            self.take_folder()
        try:
            self.fit(checkpoint)
            status = "completed"
            if self.record.lost is not None:
                status = "stopped"
                warn(f"stopped by health.stop_on: {self.record.lost}")
        except (KeyboardInterrupt, SystemExit) as error:
            # Lightning raises SystemExit where a key was pressed outside its loop.
            status = "interrupted"
            if isinstance(error, Requeue):
                raise
            command = f"the same command with paths.run={self.folder} resume=auto"
            print(f"to go on: {command}", file=sys.stderr)
            raise KeyboardInterrupt from error
        except Exception as error:
            self.record.fail(error)
            raise
        finally:
            self.conclude(status)
            lock.close()

    def conclude(self, status: str) -> None:
        """Write what the run leaves, where the directory is its own, and end its loggers."""
        try:
            if self.owns_folder:
                summary = self.summary(status)
                write_results(Finished(self.config, self.folder, summary, self.record, self.parts))
        finally:
            for logger in run_loggers(self.loggers):
                logger.end(self.folder)

    def summary(self, status: str) -> dict[str, Any]:
        """What summary.json says of the run so far."""
        summary = summarise(self.config, self.record, self.parts, status, self.commit)
        return summary | {"planned_memory_bytes": self.planned}

    def report(self) -> None:
        """Write report.html of the run so far; days of training do not end for a page."""
        try:
            write_page(self.folder, self.summary("running"))
        except Exception as error:
            warn(f"{self.folder}/report.html could not be written: {error}")

    def take_folder(self) -> None:
        """Make the directory this run's, and remove halves of files that a kill has left."""
        sweep(self.folder, 0)  # locked, so nobody else writes here
        # Of other processes, too, which may still be at work.
        sweep(Path(self.config["paths"]["cache"]))
        sweep(self.folder.parent)
        # Where relative names begin: the run's student is read from other directories, too.
        paths = self.config["paths"] | {"start": str(Path.cwd())}
        text = OmegaConf.to_yaml(OmegaConf.create(self.config | {"paths": paths}))
        write_bytes(self.folder / "config.yaml", text.encode())
        self.owns_folder = True

    def take_over(self, checkpoint: Verified) -> None:
        """Make the directory this run's, and forget what it had after the checkpoint."""
        self.take_folder()
        forget_after(checkpoint.path, self.folder / "checkpoints")

    def fit(self, checkpoint: Verified | None) -> None:
        """Build everything, the cheap and the checkable first, and train.

        checkpoint  Where the run is resumed; None begins anew.
        """
        asked, allowed = self.config, self.config["resume_allow"]
        if checkpoint is not None:  # it holds what the networks would start from
            asked = asked | {"weights": None, "critic_weights": None}
        with rank_zero_first():  # the others then find the data prepared
            config = with_pipeline(asked)
            self.parts = parts = assemble(config, self.protocol)
        identity = resume_identity(asked, parts.data.resume_identity(), world_size())
        if checkpoint is not None:
            check_resumable(checkpoint.manifest, identity, allowed)
        callbacks = self.callbacks(config, parts, identity, checkpoint)
        is_scored = any(isinstance(callback, Evaluation) for callback in callbacks.values())
        iteration = 0 if checkpoint is None else checkpoint.manifest["iteration"]
        lines = opening(config, parts, iteration, is_scored, self.planned)
        on_rank_zero(lambda: print(*lines, sep="\n"))
        if is_scored:
            self.record.references |= cached_data_references(config, parts.evaluator)
        # Rank 0 trains the teacher where there is none; the others then read it.
        with rank_zero_first():
            parts.init_weights()
        data = parts.data
        if config["pairs"] is not None:
            pairs = make_pairs(config, parts.teacher, data)
            batch_size = config["pairs"]["batch_size"]
            # Opened again with its pairs, now that these are made.
            data = build_data(config["data"], pairs=str(pairs), pairs_batch_size=batch_size)
        self.link_latest()
        if checkpoint is not None:
            # Once more, now that the teacher has its weights, and with them a hash.
            check_resumable(checkpoint.manifest, with_teacher(identity, parts), allowed)
            on_rank_zero(partial(self.take_over, checkpoint))
        self.loggers = on_rank_zero(partial(begin_loggers, self.config, checkpoint), [])
        trainer = build_trainer(
            config, config["max_iterations"], list(callbacks.values()), self.loggers
        )
        compile_networks(parts.module, config["compile"])
        earlier = 0.0 if checkpoint is None else checkpoint.manifest.get("wall_seconds", 0.0)
        self.record.start_clock(earlier)
        # weights_only: nothing in a checkpoint is run.
        path = None if checkpoint is None else checkpoint.path
        trainer.fit(parts.module, datamodule=data, ckpt_path=path, weights_only=True)
        # Updates that were skipped after the last report, and signals after the last iteration.
        parts.module.nonfinite.check()
        self.record.raise_if_interrupted()

    def callbacks(
        self, config: Config, parts: Parts, identity: Manifest, checkpoint: Verified | None
    ) -> dict[str, L.Callback]:
        """What watches the run, each complete; without metrics nothing is scored."""
        nodes = config["callbacks"]
        if not self.protocol.suite.metrics:
            nodes = nodes | {"evaluation": None}
        # Rank 0 has compared the checkpoint's hash; every other rank does, as it reads it.
        verified = None if checkpoint is None else on_rank_zero(lambda: checkpoint.path)
        for_all = {
            "record": self.record,
            "evaluator": parts.evaluator,
            "score_teacher": partial(
                cached_teacher_references, config, parts.evaluator, parts.teacher
            ),
            "identity": partial(with_teacher, identity, parts),
            "io": BackgroundIO(verified),
            "guidance": text_guidance(parts.teacher),
            "report": self.report,
        }
        return {name: build_with(node, for_all) for name, node in nodes.items() if node is not None}

    def link_latest(self) -> None:
        """Let `latest` point here, now that all that could be wrong would have shown."""
        runs = Path(self.config["paths"]["runs"]) / self.config["name"]
        if self.folder.parent == runs:
            on_rank_zero(lambda: link_to(runs / "latest", self.folder.name))
