"""A generator's scores: what samples are made, what they are scored by and compared with."""

from dmd2.evaluation.protocol import ScoringProtocol
from dmd2.evaluation.real_images import FolderStatistics, RealImages, TrainSplit
from dmd2.evaluation.samples import (
    GeneratorSampling,
    RandomClassSampleSet,
    SampleSet,
    TeacherSampling,
)
from dmd2.evaluation.scoring import Evaluator

__all__ = [
    "Evaluator",
    "FolderStatistics",
    "GeneratorSampling",
    "RandomClassSampleSet",
    "RealImages",
    "SampleSet",
    "ScoringProtocol",
    "TeacherSampling",
    "TrainSplit",
]
