"""Scores the generator and every average of it at regular intervals during training."""

from collections.abc import Callable, Collection
from typing import Any

import lightning as L

from dmd2.distributed.fsdp import unsharded
from dmd2.evaluation.best import best
from dmd2.evaluation.scoring import References, Scoring
from dmd2.training.module import DMD


class Evaluation(L.Callback):
    """Every `every` iterations and at the end: `score/WEIGHTS/METRIC` to the loggers, a row to
    `history`.

    Where the metric has several numbers of samples, the first is scored each time
    (`score/raw/fid_10k`), all of
    them every `full_every` iterations and at the end (`score/raw/fid_50k`); None is at the end
    alone. Ranks share
    the samples. Beside the first scores the references (teacher, real data, baselines) are made,
    once a teacher.
    """

    def __init__(self, every: int, full_every: int | None = None) -> None:
        if every < 1:
            raise ValueError(f"callbacks.evaluation.every must be at least 1, got {every}")
        if full_every is not None and (full_every < 1 or full_every % every):
            raise ValueError(
                f"callbacks.evaluation.full_every must be a multiple of every={every}, got "
                f"{full_every}"
            )
        self.every, self.full_every = every, full_every
        self.history: list[dict[str, Any]] = []
        self.references: References = {}
        self.owed: dict[str, Any] | None = None
        """The score that an end of the run cut off; its next life makes it first."""

    def best(self, iterations: Collection[int]) -> dict[str, Any]:
        """The best score so far at one of these iterations."""
        return best(
            [row for row in self.history if row["iteration"] in iterations], self.scoring.primary
        )

    def state_dict(self) -> dict[str, Any]:
        """The scores so far."""
        return {"history": self.history, "owed": self.owed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on behind the scores of a run's earlier life."""
        self.history, self.owed = state_dict["history"], state_dict["owed"]

    def attach(
        self, scoring: Scoring, references: References, score_teacher: Callable[[], References]
    ) -> None:
        """Take what scores, what it is to be compared with, and what adds the teacher to that."""
        self.scoring, self.references, self.score_teacher = scoring, references, score_teacher

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Score the teacher first: without it no score can be read."""
        assert isinstance(pl_module, DMD)
        with unsharded(pl_module.models.teacher):
            self.references |= self.score_teacher()
        if self.owed is not None:
            self.score(trainer, pl_module, **self.owed)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Score when it is time."""
        last = trainer.global_step >= trainer.max_steps
        if trainer.global_step % self.every == 0 or last:
            full = last or (
                self.full_every is not None and trainer.global_step % self.full_every == 0
            )
            self.score(trainer, pl_module, trainer.global_step, None if full else 1)

    def score(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        iteration: int,
        num_sizes: int | None,
    ) -> None:
        """Score all weights, as of `iteration`, at the first `num_sizes` numbers of samples; owed
        if told to stop.
        """
        assert isinstance(pl_module, DMD)
        self.owed = {"iteration": iteration, "num_sizes": num_sizes}
        scores = {}
        try:
            for name, network in pl_module.students().items():
                with unsharded(network):
                    scores[name] = self.scoring.student(
                        network, lambda: trainer.should_stop, num_sizes
                    )
        except InterruptedError:
            return
        self.owed = None
        self.history.append({"iteration": iteration, "scores": scores})
        numbers = {
            f"score/{name}/{metric}": value
            for name, found in scores.items()
            for metric, value in found.items()
        }
        pl_module.log_metrics(numbers, iteration)
