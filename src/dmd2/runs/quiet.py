"""Silences what Lightning says on every run and nobody can act on; everything else is still
heard.
"""

import logging
import warnings

PHRASES = (
    ".*module\\(s\\) in eval mode at the start of training",  # distillation runs without dropout
    ".*LeafSpec.* is deprecated",
    ".*directory .* exists and is not empty",
    ".*Using ModelCheckpoint with manual optimization",  # no pre-optimization state: none is wanted
    ".*does not have many workers",
    ".*`srun` command is available",  # our launcher starts the processes
)


def quiet() -> None:
    """Filter known warnings, and Lightning's notices about hardware and its products."""
    for phrase in PHRASES:
        warnings.filterwarnings("ignore", phrase)
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
