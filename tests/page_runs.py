"""A small run directory for the tests of pages: a log, pictures and a configuration."""

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from PIL import Image

SUMMARY: dict[str, Any] = {
    "status": "completed",
    "experiment": "digits_dmd2",
    "iterations": 60,
    "generator_updates": 12,
    "wall_seconds": 42.0,
    "images_per_second": 100.0,
    "peak_memory_bytes": 2**30,
    "primary": "rfd",
    "weights": "ema",
    "metrics": {"rfd": 2.0, "recall": 0.9, "near_copies": 0.1},
    "best": {"iteration": 60, "weights": "ema", "rfd": 2.0, "of": 3},
    "students": {
        "ema": {"rfd": 2.0, "recall": 0.9, "near_copies": 0.1},
        "raw": {"rfd": 3.0, "recall": 0.8, "near_copies": 0.2},
    },
    "teacher": {"35": {"rfd": 1.0, "recall": 0.7, "near_copies": 0.0}},
    "floor": {"rfd": 0.5, "recall": 0.99, "near_copies": 0.05},
    "baselines": {"class_gaussian": {"rfd": 12.0, "recall": 0.1, "near_copies": 0.0}},
    "by_class": {
        "real, held out": {"0/accuracy": 0.99, "10/accuracy": 0.97, "2/accuracy": 0.98},
        "teacher, 1 NFE": {"0/accuracy": 0.2, "10/accuracy": 0.3, "2/accuracy": 0.1},
        "teacher, 35 NFE": {"0/accuracy": 0.98, "10/accuracy": 0.96, "2/accuracy": 0.97},
        "student, ema": {"0/accuracy": 0.95, "10/accuracy": 0.7, "2/accuracy": 0.99},
        "student, raw": {"0/accuracy": 0.9, "10/accuracy": 0.6, "2/accuracy": 0.9},
    },
    "versions": {"python": "3.11"},
    "hardware": "2 cores",
    "commit": "unknown",
    "seed": 0,
}


def write_page_run(
    folder: Path, text: str, num_rows: int = 60, num_grids: int = 3, size: int = 20, **config: Any
) -> dict[str, Any]:
    """Write a run whose experiment, configuration and log have a stranger's `text`; its summary.

    config  Further keys of its configuration.
    """
    (folder / "samples").mkdir(parents=True)
    own = {"name": text, "teacher": {"negative": text}, "data": {}, "pairs": None, "trainer": {}}
    OmegaConf.save(own | config, folder / "config.yaml")
    weights = text.replace("/", "|")  # a slash would part the key
    with (folder / "metrics.csv").open("w", newline="") as file:
        log = csv.writer(file)
        log.writerow(["step", f"score/{weights}/rfd", "generator/loss_dm", "critic/accuracy_real"])
        for i in range(1, num_rows + 1):
            log.writerow([i, 100 / i, math.sin(i), 0.5])
    noise = np.random.default_rng(0).integers(0, 255, (size, size, 3), dtype=np.uint8)
    for i in range(1, num_grids + 1):
        Image.fromarray(noise // i).save(folder / "samples" / f"{i:08d}.png")
    Image.fromarray(noise).save(folder / "comparison.png")
    Image.fromarray(noise).save(folder / "samples" / "steps.png")
    return SUMMARY | {"experiment": text}
