"""Metrics: detectors turn samples into features, metrics compare them with those of real data.

`MetricSuite` runs both.
"""

from dmd2.metrics.accuracy import ClassAccuracy
from dmd2.metrics.base import FeatureMetric, MeanScore, StoredFeatures
from dmd2.metrics.baselines import class_gaussian
from dmd2.metrics.class_distance import ClassDistance
from dmd2.metrics.classifier import Classifier, ClassifierLogits
from dmd2.metrics.clean_fid import CleanInception
from dmd2.metrics.clip_score import ClipImages, ClipScore
from dmd2.metrics.detectors import Detector, Flatten, RandomConvolutions, as_floats
from dmd2.metrics.dino import DinoV2
from dmd2.metrics.diversity import ConditionDiversity, LabelledFeatures
from dmd2.metrics.download import fetched
from dmd2.metrics.exact_sums import add_moments, in_units, step_for
from dmd2.metrics.frechet import (
    FrechetDistance,
    PublishedFrechetDistance,
    RelativeFrechetDistance,
    frechet_distance,
    moments,
    root,
)
from dmd2.metrics.hpsv2 import hpsv2_folder
from dmd2.metrics.image_reward import BlipImages, ImageReward, image_reward_folder
from dmd2.metrics.inception import (
    CleanFidClasses,
    CleanFidInception,
    TorchFidelityInception,
    as_colour,
    pixelwise,
)
from dmd2.metrics.inception_score import InceptionScore
from dmd2.metrics.kid import KernelDistance, cubic_mmd2
from dmd2.metrics.precision_recall import (
    NearestTrain,
    PrecisionRecall,
    distance_blocks,
    nearest_distance,
    neighbour_radii,
    share_inside,
)
from dmd2.metrics.preferences import HPSv2, PickScore
from dmd2.metrics.preprocessing import Patch, Preprocessing, Square, picture, pixels, scaled
from dmd2.metrics.real_features import RealFeatures
from dmd2.metrics.suite import Batches, MetricSuite
from dmd2.metrics.toy import ModesFound, SlicedWasserstein, quantiles

__all__ = [
    "Batches",
    "BlipImages",
    "ClassAccuracy",
    "ClassDistance",
    "Classifier",
    "ClassifierLogits",
    "CleanFidClasses",
    "CleanFidInception",
    "CleanInception",
    "ClipImages",
    "ClipScore",
    "ConditionDiversity",
    "Detector",
    "DinoV2",
    "FeatureMetric",
    "Flatten",
    "FrechetDistance",
    "HPSv2",
    "ImageReward",
    "InceptionScore",
    "KernelDistance",
    "LabelledFeatures",
    "MeanScore",
    "MetricSuite",
    "ModesFound",
    "NearestTrain",
    "Patch",
    "PickScore",
    "PrecisionRecall",
    "Preprocessing",
    "PublishedFrechetDistance",
    "RandomConvolutions",
    "RealFeatures",
    "RelativeFrechetDistance",
    "SlicedWasserstein",
    "Square",
    "StoredFeatures",
    "TorchFidelityInception",
    "add_moments",
    "as_colour",
    "as_floats",
    "class_gaussian",
    "cubic_mmd2",
    "distance_blocks",
    "fetched",
    "frechet_distance",
    "hpsv2_folder",
    "image_reward_folder",
    "in_units",
    "moments",
    "nearest_distance",
    "neighbour_radii",
    "picture",
    "pixels",
    "pixelwise",
    "quantiles",
    "root",
    "scaled",
    "share_inside",
    "step_for",
]
