"""What health costs: blocks of iterations with and without it, alternating, in CPU seconds.

usage: python experiments/health/cost.py out=DIR [pairs=3] [KEY=VALUE ...]

A block is as long as the interval between two comparisons with the data (`health.every`). The other
keys are those of `dmd2 train`. The teacher is one of two iterations: its quality costs nothing.
"""

import sys
import time
from statistics import median
from typing import Any

import lightning as L
from hydra import initialize_config_dir

from dmd2.config.check import of_train
from dmd2.config.folder import config_folder
from dmd2.runs.run import Run
from dmd2.training.callbacks import Health

ALONE = [
    "metric=none",
    "callbacks.samples=null",
    "callbacks.report=null",
    "callbacks.progress=null",
]
"""Without what else works between iterations."""


class Alternating(Health):
    """Health in every other block; it notes the CPU seconds of blocks, and of its own code."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self.own, self.blocks, self.began = 0.0, list[float](), time.process_time()

    def on_train_batch_end(self, trainer: L.Trainer, *rest: Any) -> None:
        """Do what health does in odd blocks."""
        number, place = divmod(trainer.global_step - 1, self.every)
        began = time.process_time()
        if number % 2:
            super().on_train_batch_end(trainer, *rest)
            self.own += time.process_time() - began
        if place == self.every - 1:
            self.blocks.append(time.process_time() - self.began)
            self.began = time.process_time()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print both shares."""
        off, on = self.blocks[::2], self.blocks[1::2]
        more = [b / a - 1 for a, b in zip(off, on, strict=True)]
        print(f"CPU s of {self.every} iterations, off: {[round(x, 2) for x in off]}, ", end="")
        print(f"on: {[round(x, 2) for x in on]}; median of pairs {median(more):+.2%}")
        print(f"in health's own code: {self.own:.3f} s, {self.own / sum(on):.3%} of those with it")


if __name__ == "__main__":
    options = dict(argument.split("=", 1) for argument in sys.argv[1:])
    out, num_pairs = options.pop("out"), int(options.pop("pairs", "3"))
    given = [f"{key}={value}" for key, value in options.items()]
    own = ["health.callback._target_=__main__.Alternating", "teacher.pretrain.max_iterations=2"]
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = of_train([*ALONE, *own, f"paths.run={out}", *given])
    length = 2 * num_pairs * config["health"]["every"]
    Run(config | {"max_iterations": length}).start()
