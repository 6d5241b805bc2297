"""Says while a run goes whether it is healthy, what is wrong, what to try; may end a lost run."""

from collections.abc import Collection
from typing import Any

import lightning as L
import torch
from torch import Tensor

from dmd2.distributed.fsdp import unsharded
from dmd2.distributed.process_group import broadcast_from_rank_zero
from dmd2.distributed.rank_zero import warn
from dmd2.evaluation.health.checks import BY_NAME
from dmd2.evaluation.health.inputs import input_gap
from dmd2.evaluation.health.monitor import KEYS, Monitor
from dmd2.evaluation.health.probe import RealRows
from dmd2.evaluation.samples import FewClassesSampleSet, GeneratorSampling, SampleSet
from dmd2.evaluation.scoring import Evaluator
from dmd2.training.callbacks.health_numbers import (
    averages,
    null_error_of,
    pace,
    progress,
    real_rows,
    trend,
)
from dmd2.training.callbacks.run_logger import run_loggers
from dmd2.training.module import DMD
from dmd2.training.record import Record


class Health(L.Callback):
    """Checks a run at every report; logs what it looks at as `watch/...`, verdicts as `health/...`.

    Between reports it does nothing. A verdict that begins or ends is a line on stderr.

    every        Iterations between samples that are compared with data, at reports alone.
    num_samples  How many samples those are, of eight conditions at most.
    stop_on      Names of checks that end the run.
    ignore       Names of checks that are not made.
    guidance     The scale of a text teacher; None for others, which need none.
    record       Gets the monitor, and the verdict that ended the run.
    evaluator    How the generator is sampled, and the data.

    Raises ValueError for a name that no check has, or numbers that are too small.
    """

    def __init__(
        self,
        every: int,
        num_samples: int,
        stop_on: Collection[str],
        ignore: Collection[str] = (),
        *,
        guidance: float | None,
        record: Record,
        evaluator: Evaluator,
    ) -> None:
        if every < 1 or num_samples < 2:
            raise ValueError(
                "health wants every of at least 1 and num_samples of at least 2, "
                f"got {every}, {num_samples}"
            )
        for key, names in (("stop_on", stop_on), ("ignore", ignore)):
            if unknown := sorted(set(names) - set(BY_NAME)):
                raise ValueError(
                    f"health.{key} names {unknown[0]}, and the checks are {', '.join(BY_NAME)}"
                )
        self.every, self.num_samples, self.stop_on = every, num_samples, frozenset(stop_on)
        self.guidance, self.record, self.evaluator = guidance, record, evaluator
        self.at_once = min(evaluator.batch_size, 32)
        self.monitor = Monitor(ignore)
        record.monitor = self.monitor
        self.real: RealRows | None = None

    def state_dict(self) -> dict[str, Any]:
        """The monitor's."""
        return self.monitor.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the resumed run's verdicts."""
        self.monitor.load_state_dict(state_dict)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Read some of the real data."""
        if "real" in self.evaluator.data.provides():
            self.real = real_rows(self.evaluator.data)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Look at what was logged now, after the callbacks that score."""
        assert isinstance(pl_module, DMD)
        iteration, watched = trainer.global_step, dict[str, float]()
        is_report = iteration % pl_module.log_every == 0
        is_scored = bool(self.record.history) and self.record.history[-1]["iteration"] == iteration
        if is_report:
            watched |= self.constants(pl_module) if not self.monitor.rows else {}
            watched |= pace(pl_module) | averages(pl_module)
            watched |= progress(pl_module, trainer.max_steps)
            if iteration % self.every == 0:
                watched |= self.measure(pl_module)
        if is_scored:
            watched |= trend(self.record)
        if not is_report and not is_scored:
            return
        pl_module.log_metrics(watched)
        logged = pl_module.latest if is_report else {}
        # What this callback logged earlier is no news.
        row = {k: v for k, v in logged.items() if k in KEYS and not k.startswith("watch/")}
        self.judge(iteration, row | watched, pl_module)
        if lost := [v for v in self.monitor.standing if v.name in self.stop_on]:
            self.record.lost = lost[0]
            trainer.should_stop = True

    def judge(self, iteration: int, row: dict[str, float], module: DMD) -> None:
        """All checks on one more row, on every rank rank 0's; say what changed."""
        row = broadcast_from_rank_zero(lambda: row)
        for verdict in self.monitor.add(iteration, row):
            warn(f"health: {verdict}")
            if verdict.until is None:
                for logger in run_loggers(module.trainer.loggers):
                    logger.log_verdict(verdict)
        module.log_metrics({f"health/{k}": float(v) for k, v in self.monitor.answers.items()})

    def constants(self, module: DMD) -> dict[str, float]:
        """What does not change in a run: logged once."""
        data, world_size = self.evaluator.data, self.evaluator.data.world_size
        found = {}
        if self.guidance is not None:
            found["watch/guidance"] = self.guidance
        if self.real is not None:
            if self.guidance not in (None, 1.0):
                found |= null_error_of(module, self.real.x[: self.num_samples], self.at_once)
            batch_size = data.batch_size * world_size
            labels = torch.tensor(data.stored()["label"])
            found["watch/batches_per_epoch"] = len(labels) / batch_size
            if data.num_classes:
                known = data.class_of(torch.arange(data.num_classes)).unique()
                there = data.class_of(labels).unique()
                found["watch/missing_classes"] = float(len(known) - len(there))
        return found

    def measure(self, module: DMD) -> dict[str, float]:
        """A few samples of the generator, always of the same noise, beside the data."""
        evaluator = self.evaluator
        if self.real is None:
            return {}
        samples = FewClassesSampleSet(
            evaluator.data.shape,
            module.models.conditioner.num_classes,
            evaluator.protocol.seed,
            module.device,
        )
        rows, made = range(self.num_samples), list[Tensor]()
        sampling = GeneratorSampling(module.generator, module.models.conditioner, module.sampler)
        with unsharded(module.generator), torch.autocast(module.device.type, enabled=False):
            made += [x0 for x0, _ in samples.batches(sampling, rows, self.at_once)]
            gap = self.input_gap(sampling, samples, rows[: self.at_once])
        x0 = torch.cat(made).float().cpu()
        found = self.real.compare(x0, samples.labels(rows).cpu()) | {"input_gap": gap}
        return {f"watch/{name}": float(value) for name, value in found.items()}

    def input_gap(self, sampling: GeneratorSampling, samples: SampleSet, rows: range) -> Tensor:
        """How far the last step's training inputs are from what sampling makes of some samples."""
        assert self.real is not None
        real = self.real.x[: len(rows)].to(samples.device)
        rows = rows[: len(real)]
        noise = [samples.noise(rows, i) for i in range(sampling.num_evaluations)]
        cond = sampling.conditioner(samples.labels(rows))
        return input_gap(sampling.sampler, sampling.generator, noise, cond, real)
