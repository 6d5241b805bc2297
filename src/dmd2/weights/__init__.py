"""Other people's weights, read without running code: EDM's pickles, the DMD2 authors' checkpoints.

They become state dicts with our names, which `dmd2.io.tensors` writes and reads.
"""

from dmd2.weights.architecture import Architecture, check_architecture
from dmd2.weights.authors import read_checkpoint, student
from dmd2.weights.edm import network
from dmd2.weights.pickles import Record, read_pickle

__all__ = [
    "Architecture",
    "Record",
    "check_architecture",
    "network",
    "read_checkpoint",
    "read_pickle",
    "student",
]
