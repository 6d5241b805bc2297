"""Scores the generator and every average of it at regular intervals during training."""

from collections.abc import Callable
from typing import Any

import lightning as L

from dmd2.module import DMD
from dmd2.scoring import References, Scoring


class Evaluation(L.Callback):
    """Every `every` iterations and at the end: `score/WEIGHTS/METRIC` to the loggers, a row to `history`.

    Beside the first scores the references (teacher, real data, baselines) are made, once a teacher.
    """

    def __init__(self, every: int) -> None:
        if every < 1:
            raise ValueError(f"callbacks.evaluation.every must be at least 1, got {every}")
        self.every = every
        self.history: list[dict[str, Any]] = []
        self.references: References = {}

    @property
    def best(self) -> dict[str, Any]:
        """The best score so far by the primary metric: of which weights, at which iteration, of how many scores."""
        primary = self.scoring.primary
        found = [
            {"iteration": row["iteration"], "weights": name, primary: scores[primary]}
            for row in self.history
            for name, scores in row["scores"].items()
        ]
        return min(found, key=lambda row: row[primary]) | {"of": len(found)} if found else {}

    def state_dict(self) -> dict[str, Any]:
        """The scores so far."""
        return {"history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on behind the scores of a run's earlier life."""
        self.history = state_dict["history"]

    def attach(self, scoring: Scoring, make_references: Callable[[], References]) -> None:
        """Take what scores, and what scores the references."""
        self.scoring, self.make_references = scoring, make_references

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Score the teacher and the real data first: without them no score can be read."""
        self.references = self.make_references()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Score when it is time."""
        last = trainer.global_step >= trainer.max_steps
        if trainer.global_step % self.every == 0 or last:
            self.score(trainer, pl_module)

    def score(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Score all weights now; abandoned when the trainer is told to stop."""
        assert isinstance(pl_module, DMD)
        try:
            scores = {
                name: self.scoring.student(network, stop=lambda: trainer.should_stop)
                for name, network in pl_module.students().items()
            }
        except InterruptedError:
            return
        self.history.append({"iteration": trainer.global_step, "scores": scores})
        pl_module.log_metrics(
            {f"score/{name}/{metric}": value for name, found in scores.items() for metric, value in found.items()}
        )
