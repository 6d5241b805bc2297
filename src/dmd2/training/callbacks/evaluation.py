"""Scores the generator and every average of it at regular intervals during training."""

from collections.abc import Callable
from typing import Any

import lightning as L

from dmd2.distributed.fsdp import unsharded
from dmd2.evaluation.scores import References, by_class, overall
from dmd2.evaluation.scoring import Evaluator
from dmd2.training.callbacks.run_logger import run_loggers
from dmd2.training.module import DMD
from dmd2.training.record import Record


class Evaluation(L.Callback):
    """Every `every` iterations and at the end: `score/WEIGHTS/METRIC` to the loggers.

    Where the metric has several numbers of samples, the first is scored each time
    (`score/raw/fid_10k`), all of them every `full_every` iterations and at the end
    (`score/raw/fid_50k`); None is at the end alone. Ranks share the samples.

    evaluator      What scores a generator.
    record         Gets a row of scores each time, and the teacher's scores at the start.
    score_teacher  What the scores of the teacher are: made once a teacher, and cached.
    """

    def __init__(
        self,
        every: int,
        full_every: int | None = None,
        *,
        evaluator: Evaluator,
        record: Record,
        score_teacher: Callable[[], References],
    ) -> None:
        if every < 1:
            raise ValueError(f"callbacks.evaluation.every must be at least 1, got {every}")
        if full_every is not None and (full_every < 1 or full_every % every):
            raise ValueError(
                f"callbacks.evaluation.full_every must be a multiple of every={every}, "
                f"got {full_every}"
            )
        self.every, self.full_every = every, full_every
        self.evaluator, self.record, self.score_teacher = evaluator, record, score_teacher
        self.pending: dict[str, Any] | None = None
        """The score that an end of the run cut off; a resumed run makes it first."""

    def state_dict(self) -> dict[str, Any]:
        """The scores so far."""
        record = self.record
        return {"history": record.history, "by_class": record.by_class, "pending": self.pending}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on behind the scores of the resumed run."""
        self.record.history, self.pending = state_dict["history"], state_dict["pending"]
        self.record.by_class = state_dict.get("by_class", {})  # an older version has none

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Score the teacher first: without it no score can be read."""
        assert isinstance(pl_module, DMD)
        with unsharded(pl_module.models.teacher):
            self.record.references |= self.score_teacher()
        for logger in run_loggers(trainer.loggers):
            logger.log_references(self.record.references)
        if self.pending is not None:
            self.score(trainer, pl_module, **self.pending)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Score when it is time."""
        iteration = trainer.global_step
        # A run is always scored at its end, whatever the interval.
        last = iteration >= trainer.max_steps
        if iteration % self.every == 0 or last:
            rarely = self.full_every is not None and iteration % self.full_every == 0
            self.score(trainer, pl_module, iteration, None if last or rarely else 1)

    def score(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        iteration: int,
        num_counts: int | None,
    ) -> None:
        """Score all weights, as of `iteration`, at the first `num_counts` numbers of samples.

        Where a signal ends the run meanwhile, the score is pending.
        """
        assert isinstance(pl_module, DMD)
        # Noted before it begins: where a signal cuts the score off, the run's last checkpoint holds
        # it, and a resumed run makes it first.
        self.pending = {"iteration": iteration, "num_counts": num_counts}
        found = {}
        try:
            for name, network in pl_module.students().items():
                # Scores need unsharded networks; all ranks gather them together.
                with unsharded(network):
                    found[name] = self.evaluator.scores(
                        network, lambda: trainer.should_stop, num_counts
                    )
        except InterruptedError:
            return
        self.pending = None
        scores = {name: overall(one) for name, one in found.items()}
        self.record.history.append({"iteration": iteration, "scores": scores})
        self.record.by_class = {name: by_class(one) for name, one in found.items()}
        numbers = {
            f"score/{name}/{metric}": value
            for name, one in scores.items()
            for metric, value in one.items()
        }
        pl_module.log_metrics(numbers, iteration)
