"""TensorBoard, an optional dependency: event files with the numbers and grids of a run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger as LightningTensorBoardLogger
from PIL import Image

from dmd2.evaluation.scores import References
from dmd2.training.callbacks.csv_logger import history
from dmd2.training.callbacks.run_logger import PICTURE, RunLogger, by_name, require_package


class TensorBoardLogger(LightningTensorBoardLogger, RunLogger):
    """Lightning's logger, which also takes a run's configuration, references and grids.

    folder  Where event files go. Raises ValueError where the package is missing.
    """

    def __init__(self, folder: str) -> None:
        require_package("tensorboard")
        super().__init__(folder, name="", version="", flush_secs=10)

    def begin(self, config: Mapping[str, Any], resumed: Path | None, iteration: int) -> None:
        """Begin with what the resumed run has logged up to `iteration`.

        It is written again, so that no iteration is there twice, nor missing where a kill came
        before its events were on disk.
        """
        for path in Path(self.log_dir).glob("events.out.tfevents.*"):
            path.unlink()
        self.experiment.add_text("config", f"```json\n{json.dumps(config, indent=2)}\n```")
        for step, numbers, grid in () if resumed is None else history(resumed, iteration):
            self.log_metrics(numbers, step)
            if grid is not None:
                self.log_picture(PICTURE, grid, step)

    def log_picture(self, key: str, path: Path, iteration: int) -> None:
        """Write a picture."""
        with Image.open(path) as found:
            pixels = np.asarray(found.convert("RGB"))
        self.experiment.add_image(key, pixels, iteration, dataformats="HWC")

    def log_references(self, references: References) -> None:
        """Write them as a table, in the tab of texts."""
        rows = [f"| {name} | {value:.5g} |" for name, value in by_name(references).items()]
        self.experiment.add_text("references", "\n".join(["| | |", "|---|---:|", *rows]))

    def save(self) -> None:
        """Nothing of Lightning's own: config.yaml lies beside."""

    def end(self, folder: Path) -> None:
        """Nothing: Lightning closed the file when the fit was over."""
